"""Under the names of the cells: the Layer of each, under its fastest evaluator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from rnnx import cells
from rnnx.base import Cell, Layer
from rnnx.evaluators.scan import scan

P = ParamSpec("P")


def _scanned(make: Callable[P, Cell]) -> Callable[P, Layer]:
    @functools.wraps(make)
    def layer(*args: P.args, **kwargs: P.kwargs) -> Layer:
        return scan(make(*args, **kwargs))

    return layer


elman = _scanned(cells.elman)
lstm = _scanned(cells.lstm)
gru = _scanned(cells.gru)
