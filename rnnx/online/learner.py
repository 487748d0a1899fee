"""The core of all online learners: one time step of a batch and the gradient of its loss, in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import describe
from rnnx.base import ArrayLike, AssociativeCell, Carry, Cell, Key, Params, PyTree, Weights
from rnnx.checks import as_array, as_arrays, check_function, dtype_difference, is_numeric, key_struct, tree_difference
from rnnx.sequences import (
    borrow_rows,
    cached_eval_shape,
    cast_floats,
    checked_key,
    float_dtype,
    select,
    split_key,
    upcast,
)

Loss = Callable[[Params, PyTree, PyTree], jax.Array]
"""`(readout_params, y, target) -> scalar`, for one step of one example."""

Floats = dict[str, jax.Array]
"""The floating leaves of a tree by their paths, e.g. `"recurrent_kernel"`, `"decay.re"`; "" for a bare array."""

Initial = Callable[[Floats], Floats]
"""Floats of the weights -> floats of one example's initial carry."""

Step = Callable[[Floats, Floats, PyTree], Floats]
"""Floats of the weights, floats of one example's carry, its other inputs -> floats of its next carry."""


class OnlineState(NamedTuple):
    """The state of an online learner; its size does not depend on the number of steps.

    Attributes:
        carry: the carry of the cell, leaves `[batch, ...]`.
        influence: how the carry depends on the cell's weights, in the representation of the method.
        key: for the random signs of `rnnx.online.uoro`; the other methods do not use it.
    """

    carry: Carry
    influence: PyTree
    key: Key | None


class OnlineOutput(NamedTuple):
    """The results of one step of an online learner.

    Attributes:
        loss: the loss, summed over the batch.
        gradient: its gradient, in the structure of the params: `{"cell": ..., "readout": ...}`.
        y: the outputs of the cell, `[batch, ...]`.
    """

    loss: jax.Array
    gradient: Params
    y: PyTree


class Update(Protocol):
    """The type of `OnlineLearner.update`."""

    def __call__(
        self,
        params: Params,
        state: OnlineState,
        x: PyTree,
        target: PyTree,
        *,
        resets: ArrayLike | None = None,
        valid: ArrayLike | None = None,
    ) -> tuple[OnlineState, OnlineOutput]: ...


class OnlineLearner(NamedTuple):
    """An online learner: a pair of pure functions, for use in `jax.lax.scan` or step by step on a stream.

    Attributes:
        init: `(params, x, key=None) -> state`, which includes the initial carry. `params` are `{"cell": cell.init(key,
            one_x), "readout": floating arrays for the loss}`; `x` is one step of a batch, leaves `[batch, ...]`,
            arrays or shapes. Only `rnnx.online.uoro` needs the key.
        update: `(params, state, x, target, *, resets=None, valid=None) -> (state, OnlineOutput(loss, gradient, y))`:
            one time step of a batch; leaves of `x` and `target` are `[batch, ...]`. `resets`, `[batch]` booleans,
            resets rows to the initial carry before the step. Rows that are not `valid`, `[batch]` booleans, keep their
            state, and have zero loss, gradient and y, whatever x and target hold.

    Loss and gradient are summed over the batch. Summed over steps with constant params, the gradient of an exact method
    is that of the sum of all losses by back-propagation through time. If params change after every step, the stored
    influence is that of the params at each earlier step. Cells run without noise, as with `key=None`.
    """

    init: Callable[..., OnlineState]
    update: Update


class Influence(NamedTuple):
    """A method: how it represents the influence ds/dw of the weights on the carry, with leaves `[batch, ...]`.

    The influence is stored in float32 or wider, whatever the dtype of the params: it is a sum over time.

    Attributes:
        start: `(initial, weights, batch, key) -> influence`, that on the initial carry.
        advance: `(step, weights, carry, rows, influence, key) -> influence`, that on the carry after the step.
        vjp: `(influence, cotangent) -> gradient`: from the cotangent of the carry `[batch, ...]` to that of the
            weights, summed over the batch; weights that are left out have a zero gradient.
    """

    start: Callable[[Initial, Floats, int, Key | None], PyTree]
    advance: Callable[[Step, Floats, Floats, PyTree, PyTree, Key | None], PyTree]
    vjp: Callable[[PyTree, Floats], Floats]


def learner(name: str, cell: Cell, loss: Loss, influence: Influence) -> OnlineLearner:
    """Makes the learner of a cell and a loss, with credit assignment through time by `influence`.

    A step's loss depends on the weights directly, and through the carry before the step. So its gradient is the direct
    one plus the product of the carry's cotangent and the stored influence. All of this is with respect to the
    *weights*; one backward pass through `prepare` per step of the batch turns it into the gradient of the params.
    """
    if not isinstance(cell, Cell):
        hint = "; rnnx.as_cell converts it to a Cell" if isinstance(cell, AssociativeCell) else ""
        raise TypeError(f"{name} takes a Cell, e.g. rnnx.cells.lstm(512), but got {cell!r}{hint}")
    check_function(name, "loss", loss, "(readout_params, y, target) -> scalar")

    def init(params: Params, x: PyTree, key: Key | None = None) -> OnlineState:
        batch = check_arguments(name, cell, params, x)
        key = None if key is None else checked_key(key)

        @jax.jit
        def initial_state(params: Params, key: Key | None) -> OnlineState:
            key_start, key = split_key(key, 2)
            weights = cell.prepare(params["cell"], None)
            w, rest = split(weights)
            carry = _initial_carry(cell, weights, x, batch)
            return OnlineState(carry, upcast(influence.start(_initial(cell, rest, x), w, batch, key_start)), key)

        return initial_state(params, key)

    @jax.jit  # so that calls outside jax.jit, e.g. in streaming, compile only once
    def compiled_update(*args: Any) -> tuple[OnlineState, OnlineOutput]:
        return _update(name, cell, loss, influence, *args)

    def update(
        params: Params,
        state: OnlineState,
        x: PyTree,
        target: PyTree,
        *,
        resets: ArrayLike | None = None,
        valid: ArrayLike | None = None,
    ) -> tuple[OnlineState, OnlineOutput]:
        x, target, resets, valid = _checked_inputs(name, params, state, x, target, resets, valid)
        return compiled_update(params, state, x, target, resets, valid)

    return OnlineLearner(init, update)


def _update(
    name: str,
    cell: Cell,
    loss: Loss,
    influence: Influence,
    params: Params,
    state: OnlineState,
    x: PyTree,
    target: PyTree,
    resets: jax.Array | None,
    valid: jax.Array | None,
) -> tuple[OnlineState, OnlineOutput]:
    """One step of a learner: `OnlineLearner.update` with checked arguments."""
    batch = check_arguments(name, cell, params, x)
    key_start, key_step, key = split_key(state.key, 3)
    w, prepare_vjp, rest_w = jax.vjp(lambda p: split(cell.prepare(p, None)), params["cell"], has_aux=True)
    weights = join(w, rest_w)
    carry, stored = state.carry, state.influence
    if resets is not None:
        carry = select(resets, _initial_carry(cell, weights, x, batch), carry)
        start = upcast(influence.start(_initial(cell, rest_w, x), w, batch, key_start))
        stored = select(resets, start, stored)
    if valid is not None:
        # Invalid rows may hold anything: they compute another row's step instead, and the result is discarded.
        x, target, carry = borrow_rows((x, target, carry), valid.astype(jnp.int32))
        stored = select(valid, stored, jax.tree.map(jnp.zeros_like, stored))
    s, rest_s = split(carry)
    dtype = float_dtype(x)

    def step(w: Floats, s: Floats, row: PyTree) -> tuple[Carry, PyTree]:
        rest_s, x = row
        weights, before = join(w, rest_w), join(s, rest_s)
        after, y = cell.step(weights, before, cell.project(weights, x, None))
        return jax.tree.map(lambda b, a: a.astype(b.dtype), before, after), cast_floats(y, dtype)

    def batch_step(w: Floats, s: Floats) -> tuple[tuple[Floats, Floats], tuple[PyTree, PyTree]]:
        after, y = jax.vmap(step, in_axes=(None, 0, 0))(w, s, (rest_s, x))
        (after, rest_after), (y, rest_y) = split(after), split(y)
        return (after, y), (rest_after, rest_y)

    def summed_loss(readout: Params, y: Floats) -> jax.Array:
        losses = jax.vmap(loss, in_axes=(None, 0, 0))(readout, join(y, rest_y), target)
        if jnp.shape(losses) != (batch,):
            raise ValueError(
                f"{name}: the loss of one example must be one number, but has shape {jnp.shape(losses)[1:]}"
            )
        return (losses if valid is None else jnp.where(valid, losses, 0)).sum()

    (after, y), step_vjp, (rest_after, rest_y) = jax.vjp(batch_step, w, s, has_aux=True)
    total, (by_readout, by_y) = jax.value_and_grad(summed_loss, argnums=(0, 1))(params["readout"], y)
    by_w, by_s = step_vjp((jax.tree.map(jnp.zeros_like, after), by_y))
    through_carry = influence.vjp(stored, by_s)
    by_w |= {path: by_w[path] + part.astype(by_w[path].dtype) for path, part in through_carry.items()}
    (by_params,) = prepare_vjp(by_w)
    stored = influence.advance(lambda w, s, row: split(step(w, s, row)[0])[0], w, s, (rest_s, x), stored, key_step)
    new = OnlineState(join(after, rest_after), stored, key)
    learned = OnlineOutput(total, {"cell": by_params, "readout": by_readout}, join(y, rest_y))
    return (new, learned) if valid is None else _select_valid(valid, state, new, learned)


def _checked_inputs(
    name: str, params: Params, state: OnlineState, x: PyTree, target: PyTree, resets: Any, valid: Any
) -> tuple[PyTree, PyTree, jax.Array | None, jax.Array | None]:
    """Converts the arguments of `OnlineLearner.update` to arrays; raises if they do not fit."""
    _check_params(name, params)
    batch = _batch_size(name, x)
    x = as_arrays(x, f"{name}: x")
    if target is None:
        raise TypeError(f"{name}: target is None, expected [batch, ...]; pass () for a loss without targets")
    target = as_arrays(target, f"{name}: target")
    resets, valid = (a if a is None else as_array(a, f"{name}: resets and valid", "booleans") for a in (resets, valid))
    if not isinstance(state, OnlineState):
        raise TypeError(f"{name}: state is {describe(state)}, expected the result of init(params, x) or of update")
    rows = {"the state's carry": state.carry, "target": target, "resets": resets, "valid": valid}
    for what, tree in rows.items():
        _check_rows(name, what, tree, batch)
    return x, target, resets, valid


def _select_valid(
    valid: jax.Array, before: OnlineState, after: OnlineState, learned: OnlineOutput
) -> tuple[OnlineState, OnlineOutput]:
    """Keeps the old state of invalid rows, and sets their outputs to zero."""
    carry, influence = select(valid, (after.carry, after.influence), (before.carry, before.influence))
    any_valid = valid.any()
    loss, gradient = (
        jax.tree.map(lambda a: jnp.where(any_valid, a, jnp.zeros_like(a)), tree)
        for tree in (learned.loss, learned.gradient)
    )
    y = select(valid, learned.y, jax.tree.map(jnp.zeros_like, learned.y))
    return OnlineState(carry, influence, after.key), OnlineOutput(loss, gradient, y)


def one_step(x: PyTree) -> PyTree:
    """The shape and dtype of one example's step, given those of a batch."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], jax.dtypes.canonicalize_dtype(a.dtype)), x)


def _initial(cell: Cell, rest: PyTree, x: PyTree) -> Initial:
    return lambda w: split(cell.initial_carry(join(w, rest), one_step(x), None))[0]


def _initial_carry(cell: Cell, weights: Weights, x: PyTree, batch: int) -> Carry:
    return broadcast_rows(cell.initial_carry(weights, one_step(x), None), batch)


def broadcast_rows(tree: PyTree, batch: int) -> PyTree:
    """Repeats a tree for every row."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *jnp.shape(a))), tree)


def split(tree: PyTree) -> tuple[Floats, PyTree]:
    """Splits a tree into its floating leaves, by path, and the tree with None in their place."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    floats = {_path(path): leaf for path, leaf in pairs if _is_float(leaf)}
    return floats, jax.tree.unflatten(structure, [None if _is_float(leaf) else leaf for _, leaf in pairs])


def join(floats: Floats, rest: PyTree) -> PyTree:
    """Inverts `split`."""

    def leaf(path: Any, other: Any) -> Any:
        return floats.get(_path(path)) if other is None else other

    return jax.tree_util.tree_map_with_path(leaf, rest, is_leaf=lambda a: a is None)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _check_params(name: str, params: Params) -> None:
    if not isinstance(params, dict) or set(params) != {"cell", "readout"}:
        given = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(
            f'{name}: params must be {{"cell": cell.init(key, one_x), "readout": params of the loss}}, but got {given}'
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["readout"]):
        if not is_numeric(leaf) or not _is_float(leaf):
            raise TypeError(
                f'{name}: params["readout"]{jax.tree_util.keystr(path)} is {describe(leaf)}, expected floating arrays'
            )


def check_arguments(name: str, cell: Cell, params: Params, x: PyTree) -> int:
    """Returns the batch size; raises if params and x do not fit the cell."""
    _check_params(name, params)
    batch = _batch_size(name, x)
    _check_fit(name, cell, params, x)
    return batch


def _check_fit(name: str, cell: Cell, params: Params, x: PyTree) -> None:
    """Raises unless the params are those of the cell for inputs of this shape and dtype."""
    expected = cached_eval_shape(cell.init, key_struct(), one_step(x))
    problem = tree_difference(params["cell"], expected) or dtype_difference(params["cell"], expected)
    if problem:
        raise ValueError(
            f"{name}: the params of {cell.spec.name} do not fit x {_shapes(x)}, one step of a batch: {problem}. Create "
            "them by cell.init(key, one_x) of the same cell, where one_x is one row of x"
        )


def _batch_size(name: str, x: PyTree) -> int:
    leaves = jax.tree.leaves(x)
    if not all(map(is_numeric, leaves)):
        raise TypeError(f"{name}: x must be arrays of numbers [batch, ...], but got {describe(x)}")
    if not leaves or any(a.ndim < 1 or a.shape[0] != leaves[0].shape[0] for a in leaves):
        raise ValueError(f"{name}: x must be one step of a batch, leaves [batch, ...], but has shape {_shapes(x)}")
    return leaves[0].shape[0]


def _check_rows(name: str, what: str, tree: PyTree, batch: int) -> None:
    if any(jnp.shape(a)[:1] != (batch,) for a in jax.tree.leaves(tree)):
        raise ValueError(f"{name}: {what} must be [batch, ...] with a batch of {batch}, but has shape {_shapes(tree)}")
    if what in ("resets", "valid") and np.ndim(tree) > 1:
        raise ValueError(f"{name}: {what} must be [batch], one per row, but has shape {_shapes(tree)}")
    if what in ("resets", "valid") and tree is not None and jnp.result_type(tree) != jnp.bool_:
        raise TypeError(f"{name}: {what} must be booleans, but they are {jnp.result_type(tree)}")


def _shapes(tree: PyTree) -> Any:
    return jax.tree.map(jnp.shape, tree)
