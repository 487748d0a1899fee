"""Cells: one step of one sequence each. `rnnx.scan(rnnx.cells.lstm(512))` runs one over a batch.

Under the same names, `rnnx` itself has the Layers: `rnnx.lstm(512)` is this cell under its fastest evaluator.
"""

from rnnx.cells.cornn import CoRNNCarry, cornn
from rnnx.cells.elman import elman
from rnnx.cells.gru import gru
from rnnx.cells.indrnn import indrnn
from rnnx.cells.janet import janet
from rnnx.cells.lem import LEMCarry, lem
from rnnx.cells.lstm import LSTMCarry, lstm
from rnnx.cells.mgu import mgu
from rnnx.cells.orthogonal import orthogonal
from rnnx.cells.rhn import rhn
from rnnx.cells.slstm import SLSTMCarry, slstm
from rnnx.cells.ugrnn import ugrnn

__all__ = [
    "CoRNNCarry",
    "LEMCarry",
    "LSTMCarry",
    "SLSTMCarry",
    "cornn",
    "elman",
    "gru",
    "indrnn",
    "janet",
    "lem",
    "lstm",
    "mgu",
    "orthogonal",
    "rhn",
    "slstm",
    "ugrnn",
]
