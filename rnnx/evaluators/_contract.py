"""Checks of what a cell's functions return. They run during tracing, so they cost nothing at run time."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import describe
from rnnx.base import AssociativeCell, Carry, Cell, Key, LinearizedStep, Params, PyTree, Weights
from rnnx.checks import check_function, is_numeric

AnyCell = TypeVar("AnyCell", Cell, AssociativeCell)


def with_output_checks(cell: AnyCell) -> AnyCell:
    """Wraps the cell's functions: each raises if it does not return what `rnnx.Cell` specifies."""
    name = cell.spec.name
    if not isinstance(name, str) or not name or {"/", "."} & set(name):
        raise ValueError(f"a cell's name is {name!r}, but it must be a name without '/' and '.': it is a key of params")
    functions = {field: f for field, f in cell._asdict().items() if field not in ("spec", "product")}
    for field, function in functions.items():
        check_function(name, field, function, f"as in rnnx.{type(cell).__name__}")

    def init(key: Key, x: PyTree) -> Params:
        params = cell.init(key, x)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not _is_array(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    f"{name}: init returned {describe(leaf)} as {jax.tree_util.keystr(path) or 'params'}, but params "
                    "are floating arrays, all of them trained; constants belong in prepare or step"
                )
        return params

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> Carry:
        carry = cell.initial_carry(w, x, key)
        if carry is None:
            raise TypeError(f"{name}: initial_carry returned None, expected a carry; a cell without state returns ()")
        _check_arrays(name, "initial_carry", "carry", carry)
        return carry

    def project(w: Weights, x: PyTree, key: Key | None) -> PyTree:
        z = cell.project(w, x, key)
        _check_arrays(name, "project", "z", z)
        return z

    def output(source: str, y: PyTree) -> PyTree:
        if not jax.tree.leaves(y):
            raise TypeError(f"{name}: {source} returned {describe(y)} as y, expected an array or a pytree of arrays")
        _check_arrays(name, source, "y", y)
        return y

    def step(w: Weights, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        result = cell.step(w, carry, z)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TypeError(f"{name}: step returned {_shapes(result)}, expected a pair (carry, y)")
        after, y = result
        _check_arrays(name, "step", "carry", after)
        return after, output("step", y)

    wrapped: dict[str, Any] = {"init": init, "initial_carry": initial_carry, "project": project}
    if not isinstance(cell.step, LinearizedStep):
        wrapped["step"] = step
    if isinstance(cell, AssociativeCell):
        readout = cell.readout
        wrapped["readout"] = lambda w, carry, z: output("readout", readout(w, carry, z))
    return cell._replace(**wrapped)


def check_act(cell: AssociativeCell, carry: Carry, element: PyTree) -> None:
    """Raises if `act`, traced with these shapes, fails or returns a carry of other shapes."""
    given = f"the carry {_shapes(carry)} and the element {_shapes(element)} that lift returns"
    try:
        after = jax.eval_shape(cell.act, carry, element)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{cell.spec.name}: act(carry, element) fails with {given}: {error}") from error
    if _shapes(after) != _shapes(carry):
        raise TypeError(
            f"{cell.spec.name}: act(carry, element) returns {_shapes(after)} for {given}; it must keep the shapes of "
            "the carry"
        )


def check_product(cell: AssociativeCell, carry: Carry, element: PyTree) -> None:
    """Raises if `product(a, h)`, for arrays of these shapes, is not zero at h = 0."""
    with jax.ensure_compile_time_eval():
        a = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), element[0])
        at_zero = cell.product(a, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), carry)) if cell.product else ()
        if any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(at_zero)):
            raise ValueError(f"{cell.spec.name}: product(a, h) must be linear in h, but it is not 0 at h = 0")


def _check_arrays(name: str, source: str, what: str, tree: PyTree) -> None:
    for leaf in jax.tree.leaves(tree):
        if not _is_array(leaf):
            raise TypeError(f"{name}: {source} returned {describe(leaf)} in its {what}, expected arrays; use jnp.array")


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):  # of any dtype: a carry may hold keys
        return True
    return is_numeric(leaf) and not isinstance(leaf, jax.ShapeDtypeStruct)


def _shapes(tree: PyTree) -> Any:
    return jax.tree.map(lambda leaf: str(jnp.shape(leaf)) if hasattr(leaf, "shape") else describe(leaf), tree)
