"""A learned initial carry for any cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Carry, Key, LinearizedStep, Params, PyTree, Weights
from rnnx.cells._wrapping import AnyCell, check_any_cell, replaced
from rnnx.cells.regularizers import MaskedCarry
from rnnx.interning import interned

LEARNED = "initial_carry"


@interned
def learned_carry(inner: AnyCell) -> AnyCell:
    """Makes the initial carry a learned parameter: every sequence starts from it, and a reset returns to it.

    Args:
        inner: a Cell or AssociativeCell whose params are a dict and whose carry contains only floating-point numbers.

    Returns:
        A cell of the same type. Its params are those of the cell plus `initial_carry`: a dict keyed by the names of the
        carry's fields, or a bare array if the carry is one. It is initialised with the cell's own initial carry.

    Raises:
        TypeError: if `inner` is not a cell; in `init`, if the params are not a dict, or if the carry contains anything
            other than floating-point numbers, or if it contains the mask of `recurrent_dropout`: apply that to the
            result of `learned_carry` instead.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.learned_carry(rnnx.cells.lstm(4)))
        >>> xs = jnp.ones((2, 5, 3))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> sorted(params), sorted(params["initial_carry"])
        (['bias', 'initial_carry', 'input_kernel', 'recurrent_kernel'], ['c', 'h'])
    """
    check_any_cell("learned_carry", inner)
    name = inner.spec.name

    def init(key: Key, x: PyTree) -> Params:
        params = inner.init(key, x)
        if not isinstance(params, Mapping) or LEARNED in params:
            raise TypeError(f"learned_carry: the params of {name} must be a dict without {LEARNED!r}, but are {params}")
        carry = inner.initial_carry(inner.prepare(params, None), x, None)
        if any(isinstance(part, MaskedCarry) for part in jax.tree.leaves(carry, is_leaf=_is_masked)):
            raise TypeError(
                f"learned_carry: the carry of {name} holds a mask of recurrent_dropout, which must not be learned; "
                "recurrent_dropout(learned_carry(cell)) is the order that works"
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(
                    f"learned_carry: {jax.tree_util.keystr(path)} in the carry of {name} is {leaf.dtype}, but only "
                    "floating numbers can be learned"
                )
        return {**params, LEARNED: _by_name(carry)}

    def prepare(params: Params, key: Key | None) -> Weights:
        return {**inner.prepare(_without_learned(params), key), LEARNED: params[LEARNED]}

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> Carry:
        like = jax.eval_shape(lambda w: inner.initial_carry(w, x, None), _without_learned(w))
        learned = w[LEARNED]
        paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)]
        leaves = [learned[path] if path else learned for path in paths]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def of_cell(function: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(function, LinearizedStep):
            return LinearizedStep(of_cell(function.forward), of_cell(function.input_tangent), of_cell(function.jvp))
        return lambda w, *arguments: function(_without_learned(w), *arguments)

    readers = {"project", "lift", "step", "readout"}
    functions = {name: of_cell(f) for name, f in inner._asdict().items() if name in readers}
    functions |= {"init": init, "prepare": prepare, "initial_carry": initial_carry}
    return replaced(inner, "learned_carry", True, functions)


def _without_learned(tree: Params) -> Params:
    return {name: part for name, part in tree.items() if name != LEARNED}


def _is_masked(part: Any) -> bool:
    return isinstance(part, MaskedCarry)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _by_name(carry: Carry) -> Params:
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(carry)}
    return leaves[""] if set(leaves) == {""} else leaves
