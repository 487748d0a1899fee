"""Credit within a unit: each weight has one unit, and its influence on that unit alone is kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Carry, Cell, Key, Params, PyTree, Weights
from rnnx.online.learner import (
    Floats,
    Influence,
    Initial,
    Loss,
    Online,
    OnlineState,
    Step,
    broadcast_rows,
    check_arguments,
    learner,
    one_step,
)
from rnnx.online.ownership import Owner, check_ownership, owners_of, units_of


def local_learner(name: str, cell: Cell, loss: Loss, kernel: str, owner: Owner, hears_itself: bool) -> Online:
    """The learner that keeps, of each weight, the influence on the unit that owns it.

    In the place of `kernel` stands one through which, in backward passes, a unit hears itself or nothing, so that
    the Jacobian of the carry is a small block for each unit: L × L for a carry of L leaves.
    """

    def step(w: Weights, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        units = jax.tree.leaves(carry)[0].shape[0]
        return cell.step(_among_units(w, kernel, units, hears_itself), carry, z)

    local = cell._replace(step=step) if isinstance(cell, Cell) else cell  # else `learner` says what is wrong
    base = learner(name, local, loss, _own_influence(owner))

    def init(params: Params, x: PyTree, key: Key | None = None) -> OnlineState:
        check_arguments(name, cell, params, x)
        check_ownership(name, cell, local, kernel, owner, params["cell"], one_step(x))
        return base.init(params, x, key)

    return Online(init, base.update)


def _own_influence(owner: Owner) -> Influence:
    """Leaves `[batch, L, ...]`: of each number of a weight that has owners, the influence on each leaf of its unit."""

    def start(initial: Initial, w: Floats, batch: int, key: Key | None) -> Floats:
        s, back = jax.vjp(initial, w)
        (direct,) = jax.vmap(back)(_leaf_by_leaf(s))
        return broadcast_rows({path: direct[path] for path in owners_of(owner, w, units_of(s))}, batch)

    def advance(step: Step, w: Floats, s: Floats, rows: PyTree, influence: Floats, key: Key | None) -> Floats:
        def of_row(s: Floats, row: PyTree, influence: Floats) -> Floats:
            after, back = jax.vjp(lambda w, s: step(w, s, row), w, s)
            # Each number has one unit, so the sum over the units of what it does to a leaf is what it does to its own.
            direct, by_s = jax.vmap(back)(_leaf_by_leaf(after))
            blocks = jnp.stack(jax.tree.leaves(by_s), axis=1)  # [L after, L before, H]

            def add(path: str, unit: np.ndarray) -> jax.Array:
                before = influence[path]
                own = blocks[:, :, unit].astype(before.dtype)
                return direct[path] + (own * before[None]).sum(axis=1)

            return {path: add(path, unit) for path, unit in owners_of(owner, w, units_of(s)).items()}

        return jax.vmap(of_row)(s, rows, influence)

    def pull(influence: Floats, by_s: Floats) -> Floats:
        stacked = jnp.stack(jax.tree.leaves(by_s), axis=1)  # [batch, L, H]
        weights = {path: leaf[0, 0] for path, leaf in influence.items()}
        owners = owners_of(owner, weights, stacked.shape[-1])
        return {
            path: (stacked[:, :, unit].astype(weights[path].dtype) * influence[path]).sum(axis=(0, 1))
            for path, unit in owners.items()
        }

    return Influence(start, advance, pull)


def _leaf_by_leaf(s: Floats) -> Floats:
    """Ones on one leaf, zeros on all others, for each leaf: leaves `[L, H]`."""
    leaves, structure = jax.tree.flatten(s)
    ones = np.eye(len(leaves))[:, :, None]
    return jax.tree.unflatten(
        structure,
        [jnp.asarray(np.broadcast_to(ones[i], (len(leaves), *a.shape)), a.dtype) for i, a in enumerate(leaves)],
    )


@functools.partial(jax.tree_util.register_dataclass, data_fields=["kernel", "own"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class _AmongUnits:
    """In the place of a matrix: `h @ kernel`, whose derivative by h is what each unit hears of itself, or none.

    `own` (columns,) is what each column reads of its own unit, or None.
    """

    kernel: jax.Array
    own: jax.Array | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def ndim(self) -> int:
        return self.kernel.ndim

    @property
    def dtype(self) -> jnp.dtype:
        return self.kernel.dtype

    def astype(self, dtype: jnp.dtype) -> _AmongUnits:
        return _AmongUnits(self.kernel.astype(dtype), None if self.own is None else self.own.astype(dtype))

    def __getitem__(self, index: Any) -> _AmongUnits:
        rows, columns = index
        if rows is not Ellipsis and rows != slice(None):
            raise TypeError("a recurrent matrix of which single rows are read cannot be taken apart by units")
        return _AmongUnits(self.kernel[:, columns], None if self.own is None else self.own[columns])

    def __rmatmul__(self, h: jax.Array) -> jax.Array:
        held = jax.lax.stop_gradient(h)
        heard = held @ self.kernel
        if self.own is None:
            return heard
        gates = self.kernel.shape[1] // self.kernel.shape[0]
        return heard + jnp.tile(h - held, gates) * self.own  # which is 0, with the derivative wanted


def _among_units(w: Weights, kernel: str, units: int, hears_itself: bool) -> Weights:
    matrix = w.get(kernel) if isinstance(w, Mapping) else None
    if matrix is None or jnp.ndim(matrix) != 2 or matrix.shape[0] != units or matrix.shape[1] % units:
        return w
    column = np.arange(matrix.shape[1])
    return {**w, kernel: _AmongUnits(matrix, matrix[column % units, column] if hears_itself else None)}
