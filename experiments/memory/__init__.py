"""What each cell can and cannot remember: six tasks of memory and of counting, and a table of cells and tasks.

python -m experiments.memory configs/memory/quick.py [--cells lstm elman ...] [--tasks copy ...] [overrides]
python -m experiments.memory table [results.json ...]

The tasks are drawn at random inside the training step: there is no data set. `table` combines several runs, such as
seeds of one config; by default it takes those on record.
"""

from experiments.memory.config import Data, Memory, Model, Run, Train

__all__ = ["Data", "Memory", "Model", "Run", "Train"]
