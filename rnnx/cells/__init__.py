"""Cells. A cell is one step of one sequence; `rnnx.scan(rnnx.cells.lstm(512))` runs it over a batch of sequences.

`rnnx` has Layers of the same names: `rnnx.lstm(512)` is the cell with its fastest evaluator.

Making a cell raises a TypeError for an argument of the wrong type (such as True for a number, 4.0 or an array
for a whole number, 1 for a flag), and a ValueError for one that is out of range (such as NaN or infinity).
`layer.init` raises a ValueError if the params and carries do not fit into memory. Dtypes may be given by name:
`param_dtype="bfloat16"`.
"""

from typing import Any

from rnnx.cells._kernels import scaled_identity
from rnnx.cells._linear import Complex
from rnnx.cells.alif import ALIFCarry, alif
from rnnx.cells.causal_conv import causal_conv, window
from rnnx.cells.cfc import cfc
from rnnx.cells.conv_gru import conv_gru
from rnnx.cells.conv_lstm import ConvLSTMCarry, conv_lstm
from rnnx.cells.cornn import CoRNNCarry, cornn
from rnnx.cells.delta_net import delta_net
from rnnx.cells.elman import elman
from rnnx.cells.gated_delta_net import gated_delta_net
from rnnx.cells.gla import gla
from rnnx.cells.gru import gru
from rnnx.cells.indrnn import indrnn
from rnnx.cells.janet import janet
from rnnx.cells.lem import LEMCarry, lem
from rnnx.cells.lmu import LMUCarry, lmu
from rnnx.cells.lru import lru
from rnnx.cells.lstm import LSTMCarry, lstm
from rnnx.cells.ltc import ltc
from rnnx.cells.mgu import mgu
from rnnx.cells.min_gru import min_gru
from rnnx.cells.min_lstm import min_lstm
from rnnx.cells.mlstm import MLSTMCarry, mlstm
from rnnx.cells.orthogonal import orthogonal
from rnnx.cells.qrnn import qrnn
from rnnx.cells.reservoir import reservoir
from rnnx.cells.rg_lru import rg_lru
from rnnx.cells.rhn import rhn
from rnnx.cells.s4d import s4d
from rnnx.cells.s5 import s5
from rnnx.cells.s6 import s6
from rnnx.cells.slstm import SLSTMCarry, slstm
from rnnx.cells.sru import sru
from rnnx.cells.ugrnn import ugrnn
from rnnx.hints import explain_name

__all__ = [
    "ALIFCarry",
    "CoRNNCarry",
    "Complex",
    "ConvLSTMCarry",
    "LEMCarry",
    "LMUCarry",
    "LSTMCarry",
    "MLSTMCarry",
    "SLSTMCarry",
    "alif",
    "causal_conv",
    "cfc",
    "conv_gru",
    "conv_lstm",
    "cornn",
    "delta_net",
    "elman",
    "gated_delta_net",
    "gla",
    "gru",
    "indrnn",
    "janet",
    "lem",
    "lmu",
    "lru",
    "lstm",
    "ltc",
    "mgu",
    "min_gru",
    "min_lstm",
    "mlstm",
    "orthogonal",
    "qrnn",
    "reservoir",
    "rg_lru",
    "rhn",
    "s4d",
    "s5",
    "s6",
    "scaled_identity",
    "slstm",
    "sru",
    "ugrnn",
    "window",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(explain_name("rnnx.cells", name, __all__))
