"""Under the names of the cells: the Layer of each, under its fastest evaluator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from rnnx import cells
from rnnx.base import Cell, Layer
from rnnx.evaluators.scan import scan

P = ParamSpec("P")

HEADING = """The Layer of `rnnx.cells.{name}`: xs `[batch, time, D]` to ys `[batch, time, H]`, carry `[batch, ...]`.

    What follows describes the cell, which is one step of one sequence. For other evaluations of it (`unroll=`,
    `checkpoint_every=`) see `rnnx.scan`."""


def _scanned(make: Callable[P, Cell]) -> Callable[P, Layer]:
    @functools.wraps(make)
    def layer(*args: P.args, **kwargs: P.kwargs) -> Layer:
        return scan(make(*args, **kwargs))

    layer.__annotations__["return"] = Layer
    layer.__doc__ = f"{HEADING.format(name=make.__name__)}\n\n    {make.__doc__}"
    return layer


cornn = _scanned(cells.cornn)
elman = _scanned(cells.elman)
gru = _scanned(cells.gru)
indrnn = _scanned(cells.indrnn)
janet = _scanned(cells.janet)
lem = _scanned(cells.lem)
lstm = _scanned(cells.lstm)
mgu = _scanned(cells.mgu)
orthogonal = _scanned(cells.orthogonal)
rhn = _scanned(cells.rhn)
slstm = _scanned(cells.slstm)
ugrnn = _scanned(cells.ugrnn)
