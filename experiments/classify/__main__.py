"""See `experiments/classify/__init__.py`."""

from experiments import command
from experiments.classify.experiment import main

if __name__ == "__main__":
    command.run(main)
