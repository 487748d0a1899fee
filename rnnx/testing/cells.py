"""The laws of cells: all evaluators agree, and combine, act and step of an AssociativeCell are consistent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rnnx.base import AssociativeCell, Cell, Layer, LinearizedStep, PyTree
from rnnx.evaluators.associative import associative_scan
from rnnx.evaluators.fused import fused_scan
from rnnx.evaluators.newton import newton_scan
from rnnx.evaluators.scan import scan
from rnnx.testing.comparing import assert_close
from rnnx.testing.inputs import is_float, with_garbage_pads
from rnnx.testing.law import law
from rnnx.testing.sequences import A_ROW_ALONE
from rnnx.testing.subject import Subject, stepwise

ELEMENTS = 3  # the number of elements in the law of associativity


def evaluators_of(cell: Cell | AssociativeCell) -> Iterator[tuple[str, Layer]]:
    """Every evaluator that takes the cell, with its name."""
    plain = stepwise(cell)
    yield "scan", scan(plain)
    if isinstance(plain.step, LinearizedStep):
        yield "fused_scan", fused_scan(plain)
    if isinstance(cell, AssociativeCell):
        yield "associative_scan", associative_scan(cell, sequential=False)
        yield "associative_scan, sequential=True", associative_scan(cell, sequential=True)
    yield "newton_scan", newton_scan(plain)


@law(
    "an input_tangent or jvp that is not the derivative of its rnnx.LinearizedStep (fused_scan); an inconsistent "
    "combine, act or product (associative_scan); a carry whose numbers differ by many orders of magnitude (newton_scan)"
)
def evaluator(s: Subject) -> None:
    """Every evaluator that takes the cell equals its steps, run one by one: outputs, final carry, gradients."""
    expected, expected_gradient = s.step_by_step(s.params, s.carry, s.xs, s.lengths, s.resets)
    xs = with_garbage_pads(s.xs, s.lengths, np.nan)
    for name, layer in evaluators_of(_cell(s)):
        by = s if name == "scan" else s.with_layer(layer)
        ours, gradient = by.run_with_gradient(s.params, s.carry, xs, s.lengths, s.resets)
        s.assert_results_close(ours, expected, A_ROW_ALONE, f"with {name}, ")
        s.assert_gradients_close(gradient, expected_gradient, A_ROW_ALONE, f"with {name}, ")


@law("a combine with left and right swapped, or one that omits a part of an element")
def associative(s: Subject) -> None:
    """`combine` is associative, and acting with two elements in turn equals acting with their combination."""
    cell = _associative(s)

    def sides(w: PyTree, carry: PyTree, zs: list[PyTree]) -> Any:
        a, b, c = (cell.lift(w, z) for z in zs)
        grouped = cell.combine(cell.combine(a, b), c), cell.combine(a, cell.combine(b, c))
        return grouped, (cell.act(carry, cell.combine(a, b)), cell.act(cell.act(carry, a), b))

    grouped, acted = _over_rows(s, sides)
    what, than = "combine(combine(a, b), c)", "combine(a, combine(b, c))"
    assert_close(grouped[0], grouped[1], s.tolerance, what=what, than=than, axes=("row",))
    what, than = "act(carry, combine(a, b))", "act(act(carry, a), b)"
    assert_close(acted[0], acted[1], s.tolerance, what=what, than=than, axes=("row",))


@law("a hand-written step or product that was not updated along with lift, act or readout")
def step(s: Subject) -> None:
    """`step` equals `lift`, `act` and `readout` in turn; a given `product`, plus b, equals `act`."""
    cell = _associative(s)

    def sides(w: PyTree, carry: PyTree, zs: list[PyTree]) -> Any:
        element = cell.lift(w, zs[0])
        after = cell.act(carry, element)
        by_product = after
        if cell.product is not None:
            by_product = jax.tree.map(lambda ah, b: ah + b, cell.product(element[0], carry), element[1])
        return cell.step(w, carry, zs[0]), (after, cell.readout(w, after, zs[0])), by_product

    stepped, expected, by_product = _over_rows(s, sides)
    for i, (what, than) in enumerate(
        (("the carry of step", "act(carry, lift(weights, z))"), ("the output of step", "readout(weights, carry, z)"))
    ):
        assert_close(stepped[i], expected[i], s.tolerance, what=what, than=than, axes=("row",))
    what, than = "product(a, carry) + b", "act(carry, (a, b))"
    assert_close(by_product, expected[0], s.tolerance, what=what, than=than, axes=("row",))


def _cell(s: Subject) -> Cell | AssociativeCell:
    if s.cell is None:
        raise TypeError("this law applies to cells only: pass a cell, not a layer, to rnnx.testing.prepare")
    return s.cell


def _associative(s: Subject) -> AssociativeCell:
    cell = _cell(s)
    if not isinstance(cell, AssociativeCell):
        raise TypeError(f"this law applies to AssociativeCells only, but {cell!r} is a Cell")
    return cell


def _over_rows(s: Subject, sides: Any) -> Any:
    """Computes `sides(weights, carry, zs)` for each row, with the first few projected inputs, in float64."""
    cell = _associative(s)

    @s.jit
    def both(params: PyTree, carry: PyTree, xs: PyTree) -> Any:
        w = cell.prepare(params, None)

        def row(carry: PyTree, xs: PyTree) -> Any:
            zs = [cell.project(w, jax.tree.map(lambda x, t=t: x[t], xs), None) for t in range(ELEMENTS)]
            return sides(w, carry, zs)

        return jax.vmap(row)(carry, xs)

    with jax.enable_x64(True):
        double = jax.tree.map(
            lambda a: np.asarray(a, np.float64 if is_float(a) else a.dtype), (s.params, s.carry, s.xs)
        )
        return jax.tree.map(np.asarray, both(*double))
