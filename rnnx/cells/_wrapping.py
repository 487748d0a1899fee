"""Helpers for functions that wrap a cell: they replace some of its functions and check the arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rnnx.base import AssociativeCell, Cell, Params

AnyCell = TypeVar("AnyCell", Cell, AssociativeCell)


def replaced(inner: AnyCell, option: str, value: Any, functions: dict[str, Callable[..., Any]]) -> AnyCell:
    """`inner` with some functions replaced; those that its type does not have are ignored."""
    spec = inner.spec._replace(options={**inner.spec.options, option: value})
    return inner._replace(spec=spec, **{name: f for name, f in functions.items() if name in inner._fields})


def check_cell(name: str, inner: Any) -> None:
    if not isinstance(inner, Cell):
        hint = "; rnnx.as_cell makes one from it" if isinstance(inner, AssociativeCell) else ""
        raise TypeError(f"{name} takes a Cell, e.g. rnnx.cells.lstm(512), but got {inner!r}{hint}")


def check_any_cell(name: str, inner: Any) -> None:
    if not isinstance(inner, Cell | AssociativeCell):
        raise TypeError(
            f"{name} takes a Cell or AssociativeCell, e.g. rnnx.cells.lstm(512), but got {inner!r}; apply the "
            f"evaluator last: rnnx.scan(rnnx.{name}(cell))"
        )


def check_kernel(name: str, inner: Cell | AssociativeCell, weights: Params, kernel: str) -> None:
    if not isinstance(weights, Mapping) or not hasattr(weights.get(kernel), "ndim"):
        among = sorted(weights) if isinstance(weights, Mapping) else type(weights).__name__
        raise ValueError(f"{name}: {inner.spec.name} has no array {kernel!r} among its weights {among}")
