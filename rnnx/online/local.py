"""Local credit assignment: each weight belongs to one unit, and only its influence on that unit is stored."""

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
    OnlineLearner,
    OnlineState,
    Step,
    broadcast_rows,
    check_arguments,
    learner,
    one_step,
)
from rnnx.online.ownership import Owner, check_ownership, owners_of, units_of


def local_learner(name: str, cell: Cell, loss: Loss, kernel: str, owner: Owner, self_recurrent: bool) -> OnlineLearner:
    """Makes the learner that stores the influence of each weight on the unit that owns it.

    It replaces `kernel` by a matrix whose derivative connects a unit only to itself, if `self_recurrent`, or to none.
    So the Jacobian of the carry has one small block per unit: L × L for a carry of L leaves.
    """

    def step(w: Weights, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        units = jax.tree.leaves(carry)[0].shape[0]
        return cell.step(_with_unitwise_kernel(w, kernel, units, self_recurrent), carry, z)

    local = cell._replace(step=step) if isinstance(cell, Cell) else cell  # `learner` raises for the others
    base = learner(name, local, loss, _unitwise_influence(owner))

    def init(params: Params, x: PyTree, key: Key | None = None) -> OnlineState:
        check_arguments(name, cell, params, x)
        check_ownership(name, cell, local, kernel, owner, params["cell"], one_step(x))
        return base.init(params, x, key)

    return OnlineLearner(init, base.update)


def _unitwise_influence(owner: Owner) -> Influence:
    """The influence of each number of an owned weight on each carry leaf of its unit: leaves `[batch, L, ...]`."""

    def start(initial: Initial, w: Floats, batch: int, key: Key | None) -> Floats:
        s, back = jax.vjp(initial, w)
        (direct,) = jax.vmap(back)(_leaf_by_leaf(s))
        return broadcast_rows({path: direct[path] for path in owners_of(owner, w, units_of(s))}, batch)

    def advance(step: Step, w: Floats, s: Floats, rows: PyTree, influence: Floats, key: Key | None) -> Floats:
        def of_row(s: Floats, row: PyTree, influence: Floats) -> Floats:
            after, back = jax.vjp(lambda w, s: step(w, s, row), w, s)
            # Each number affects one unit, so a leaf's sum over units holds just the effect on that unit.
            direct, by_s = jax.vmap(back)(_leaf_by_leaf(after))
            blocks = jnp.stack(jax.tree.leaves(by_s), axis=1)  # [L after, L before, H]

            def add(path: str, unit: np.ndarray) -> jax.Array:
                before = influence[path]
                own = blocks[:, :, unit].astype(before.dtype)
                return direct[path] + (own * before[None]).sum(axis=1)

            return {path: add(path, unit) for path, unit in owners_of(owner, w, units_of(s)).items()}

        return jax.vmap(of_row)(s, rows, influence)

    def vjp(influence: Floats, by_s: Floats) -> Floats:
        stacked = jnp.stack(jax.tree.leaves(by_s), axis=1)  # [batch, L, H]
        weights = {path: leaf[0, 0] for path, leaf in influence.items()}
        owners = owners_of(owner, weights, stacked.shape[-1])
        return {
            path: (stacked[:, :, unit].astype(weights[path].dtype) * influence[path]).sum(axis=(0, 1))
            for path, unit in owners.items()
        }

    return Influence(start, advance, vjp)


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
class _UnitwiseKernel:
    """Replaces a matrix: computes `h @ kernel`, with a derivative that connects each unit to itself only, or to none.

    `own` `(columns,)` holds the weight of each column for its own unit, or None for no derivative.
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

    def astype(self, dtype: jnp.dtype) -> _UnitwiseKernel:
        return _UnitwiseKernel(self.kernel.astype(dtype), None if self.own is None else self.own.astype(dtype))

    def __getitem__(self, index: Any) -> _UnitwiseKernel:
        rows, columns = index
        if rows is not Ellipsis and rows != slice(None):
            raise TypeError("a cell that indexes rows of its recurrent matrix cannot be separated into units")
        return _UnitwiseKernel(self.kernel[:, columns], None if self.own is None else self.own[columns])

    def __rmatmul__(self, h: jax.Array) -> jax.Array:
        constant = jax.lax.stop_gradient(h)
        product = constant @ self.kernel
        if self.own is None:
            return product
        gates = self.kernel.shape[1] // self.kernel.shape[0]
        return product + jnp.tile(h - constant, gates) * self.own  # adds 0, but has the derivative of the diagonal


def _with_unitwise_kernel(w: Weights, kernel: str, units: int, self_recurrent: bool) -> Weights:
    matrix = w.get(kernel) if isinstance(w, Mapping) else None
    if matrix is None or jnp.ndim(matrix) != 2 or matrix.shape[0] != units or matrix.shape[1] % units:
        return w
    column = np.arange(matrix.shape[1])
    return {**w, kernel: _UnitwiseKernel(matrix, matrix[column % units, column] if self_recurrent else None)}
