"""Cells: one step of one sequence each. `rnnx.scan(rnnx.cells.lstm(512))` runs one over a batch.

Under the same names, `rnnx` itself has the Layers: `rnnx.lstm(512)` is this cell under its fastest evaluator.
"""

from rnnx.cells.elman import elman
from rnnx.cells.gru import gru
from rnnx.cells.lstm import LSTMCarry, lstm

__all__ = ["LSTMCarry", "elman", "gru", "lstm"]
