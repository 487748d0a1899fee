"""The Layer of each cell, under the name of the cell, with the evaluator that suits it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from rnnx import cells
from rnnx.base import AssociativeCell, Cell, Layer, LinearizedStep, as_cell
from rnnx.evaluators.associative import associative_scan
from rnnx.evaluators.fused import fused_scan
from rnnx.evaluators.scan import scan
from rnnx.linear import complex_product, elementwise

__all__ = [
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
    "slstm",
    "sru",
    "ugrnn",
    "window",
]

P = ParamSpec("P")

HEADING = """The Layer of `rnnx.cells.{name}`: xs `[batch, time, ...]` to ys `[batch, time, ...]`, carry `[batch, ...]`.

    The text below describes the cell, which is one step of one sequence. Other evaluators take it as well: `rnnx.scan`
    (`unroll=`, `checkpoint_every=`; an associative cell as `rnnx.as_cell(cell)`) and those named below."""


def _layer_of(make: Callable[P, Any], evaluate: Callable[[Any], Layer]) -> Callable[P, Layer]:
    @functools.wraps(make)
    def layer(*args: P.args, **kwargs: P.kwargs) -> Layer:
        return evaluate(make(*args, **kwargs))

    layer.__annotations__ = {**make.__annotations__, "return": Layer}
    layer.__doc__ = f"{HEADING.format(name=make.__name__)}\n\n    {make.__doc__}"
    return layer


def _scanned(make: Callable[P, Cell]) -> Callable[P, Layer]:
    return _layer_of(make, scan)


def _fused(make: Callable[P, Cell]) -> Callable[P, Layer]:
    """Falls back to `scan`, since with some options a cell has no hand-written derivative."""
    return _layer_of(make, lambda cell: fused_scan(cell) if isinstance(cell.step, LinearizedStep) else scan(cell))


def _associative(make: Callable[P, AssociativeCell]) -> Callable[P, Layer]:
    def evaluate(cell: AssociativeCell) -> Layer:
        # Combining matrices is expensive, while a single step changes a matrix state by vectors only; and the matrices
        # of all steps may not fit in memory.
        return associative_scan(cell) if cell.product in (elementwise, complex_product) else scan(as_cell(cell))

    return _layer_of(make, evaluate)


alif = _scanned(cells.alif)
causal_conv = _scanned(cells.causal_conv)
cfc = _scanned(cells.cfc)
conv_gru = _scanned(cells.conv_gru)
conv_lstm = _scanned(cells.conv_lstm)
cornn = _scanned(cells.cornn)
delta_net = _associative(cells.delta_net)
elman = _fused(cells.elman)
gated_delta_net = _associative(cells.gated_delta_net)
gla = _associative(cells.gla)
gru = _fused(cells.gru)
indrnn = _scanned(cells.indrnn)
janet = _scanned(cells.janet)
lem = _scanned(cells.lem)
lmu = _scanned(cells.lmu)
lru = _associative(cells.lru)
lstm = _fused(cells.lstm)
ltc = _scanned(cells.ltc)
mgu = _scanned(cells.mgu)
min_gru = _associative(cells.min_gru)
min_lstm = _associative(cells.min_lstm)
mlstm = _associative(cells.mlstm)
orthogonal = _scanned(cells.orthogonal)
qrnn = _associative(cells.qrnn)
reservoir = _scanned(cells.reservoir)
rg_lru = _associative(cells.rg_lru)
rhn = _scanned(cells.rhn)
s4d = _associative(cells.s4d)
s5 = _associative(cells.s5)
s6 = _associative(cells.s6)
slstm = _scanned(cells.slstm)
sru = _associative(cells.sru)
ugrnn = _scanned(cells.ugrnn)
window = _scanned(cells.window)
