"""Exposes gates and other values inside a cell's step as outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnx.arguments import describe
from rnnx.base import AssociativeCell, Carry, Key, Params, PyTree, Weights
from rnnx.cells._wrapping import AnyCell, check_any_cell, replaced
from rnnx.interning import interned
from rnnx.naming import nested_names, with_named

Named = dict[str, list[jax.Array]]


class _Projected(NamedTuple):
    """The output of `project` under `expose`: the cell's own output, and the arrays named inside `project`."""

    z: PyTree
    found: Named


@interned
def expose(inner: AnyCell, *names: str) -> AnyCell:
    """Adds values from inside the step to the outputs: gates, by their letters in the cell's equation, and the carry.

    Args:
        inner: a Cell or AssociativeCell.
        names: the values to add: names that the cell defines with `rnnx.named`, or "carry", the carry after the step.

    Returns:
        The same type, with the same params and carry; y becomes a dict of "y", the cell's own output, and each name.
        (Like all outputs, they have the dtype of the inputs and are zero in padding.) Values that are named several
        times in a step, such as the gates of `rnnx.rhn`, are stacked along a new first axis, in the order of naming.

    Raises:
        TypeError: if `inner` is not a cell, or a name is not a string.
        ValueError: if no name is given, a name is given twice, or (in `init` and when it runs) the cell does not
            define a name; the message lists the names that it defines.

    `expose` does not duplicate the equations. A cell that is not exposed has no overhead, because names are not
    operations. An exposed cell runs under every evaluator that takes the original cell. If the step has a hand-written
    derivative, autodiff replaces it.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.expose(rnnx.cells.lstm(4), "f", "carry"))
        >>> xs = jnp.ones((2, 5, 3))
        >>> _, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys["y"].shape, ys["f"].shape, ys["carry"].c.shape
        ((2, 5, 4), (2, 5, 4), (2, 5, 4))
    """
    check_any_cell("expose", inner)
    _check_names(names)

    def init(key: Key, x: PyTree) -> Params:
        params = inner.init(key, x)

        def first(params: Params, inputs: PyTree) -> PyTree:
            w = inner.prepare(params, None)
            return step(w, inner.initial_carry(w, x, None), project(w, inputs, None))

        jax.eval_shape(first, params, x)
        return params

    def project(w: Weights, x: PyTree, key: Key | None) -> _Projected:
        return _Projected(*with_named(lambda w, x: inner.project(w, x, key))(w, x))

    def step(w: Weights, carry: Carry, z: _Projected) -> tuple[Carry, PyTree]:
        (carry_after, y), found = with_named(inner.step)(w, carry, z.z)
        return carry_after, outputs(y, carry_after, z.found | found, inner.step, w, carry, z.z)

    def lift(w: Weights, z: _Projected) -> PyTree:
        assert isinstance(inner, AssociativeCell)
        return inner.lift(w, z.z)

    def readout(w: Weights, carry: Carry, z: _Projected) -> PyTree:
        assert isinstance(inner, AssociativeCell)
        lifted = with_named(inner.lift)(w, z.z)[1]  # traced twice, computed once by XLA
        y, found = with_named(inner.readout)(w, carry, z.z)
        return outputs(y, carry, z.found | lifted | found, inner.readout, w, carry, z.z)

    def outputs(y: PyTree, carry: Carry, found: Named, function: Callable[..., Any], *args: Any) -> PyTree:
        missing = [name for name in names if name != "carry" and name not in found]
        if missing:
            nested = sorted(nested_names(function, *args) & set(missing))
            why = f"; {nested} lie inside a loop, a branch or a jax.jit, so they cannot be returned"
            raise ValueError(
                f"expose: {inner.spec.name} has no value named {', '.join(map(repr, missing))}; it has "
                f"{sorted({*found, 'carry'})}{why if nested else ''}"
            )
        values = {name: carry if name == "carry" else _joined(name, found[name]) for name in names}
        return {"y": y, **values}

    functions: dict[str, Callable[..., Any]] = {"init": init, "project": project, "step": step}
    return replaced(inner, "expose", names, {**functions, "lift": lift, "readout": readout})


def _joined(name: str, values: list[jax.Array]) -> jax.Array:
    if len({value.shape for value in values}) > 1:
        shapes = [value.shape for value in values]
        raise ValueError(f"expose: {name!r} is named several times, in shapes {shapes}; give each a name of its own")
    return values[0] if len(values) == 1 else jnp.stack(values)


def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"expose takes names of values, such as 'f' or 'carry', but got {describe(name)}")
    if not names or "y" in names or len(set(names)) < len(names):
        raise ValueError(
            f"expose: names are {list(names)}, but they must be one or more different names, such as 'f' or 'carry' "
            "('y' is always there)"
        )
