"""Test data made from params, inputs and results: noise, garbage in the pads, weights for a loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import PyTree


def is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def perturbed(tree: PyTree, seed: int = 3) -> PyTree:
    """Adds noise to every floating leaf, so that no bias is zero."""
    random = np.random.default_rng(seed)

    def perturb(p: Any) -> jax.Array:  # in NumPy: JAX would compile it for each shape
        p = np.asarray(p)
        return jnp.asarray(p + 0.3 * random.normal(size=p.shape).astype(p.dtype) if is_float(p) else p)

    return jax.tree.map(perturb, tree)


def with_garbage_pads(xs: PyTree, lengths: Any, value: float) -> PyTree:
    """`xs` with `value` in the pads (in integers: -1 for NaN, else the largest one)."""
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    valid = np.arange(time) < np.asarray(lengths)[:, None]

    def fill(x: jax.Array) -> jax.Array:
        if is_float(x):
            garbage: Any = value
        elif x.dtype == jnp.bool_:
            garbage = not np.isnan(value)
        else:
            garbage = max(-1, jnp.iinfo(x.dtype).min) if np.isnan(value) else jnp.iinfo(x.dtype).max
        return jnp.where(valid.reshape(batch, time, *[1] * (x.ndim - 2)), x, jnp.asarray(garbage, x.dtype))

    return jax.tree.map(fill, xs)


def ragged(batch: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """`(lengths, resets)`: a full, a half, an empty and a single-step row; resets at the first and last step."""
    lengths = np.array([time, (time + 1) // 2, 0, 1])[np.arange(batch) % 4]
    resets = np.random.default_rng(0).random((batch, time)) < 0.3
    resets[0, [0, time // 2, time // 2 + 1]] = resets[1, [1, -1]] = True
    resets[0, 1] = resets[1, 0] = False
    return lengths, resets


def split_floats(tree: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a tree into `(floats, rest)`: each has None in place of the leaves of the other."""
    floats = jax.tree.map(lambda x: x if is_float(x) else None, tree)
    return floats, jax.tree.map(lambda x: None if is_float(x) else x, tree)


def merge_floats(floats: PyTree, rest: PyTree) -> PyTree:
    """Inverts `split_floats`."""
    return jax.tree.map(lambda f, r: r if f is None else f, floats, rest, is_leaf=lambda x: x is None)


def cotangent_of(tree: PyTree, seed: int = 7) -> PyTree:
    """A random weight for each number of each floating leaf: the cotangent of `weighted_sum`."""
    random = np.random.default_rng(seed)

    def weights(x: Any) -> np.ndarray:
        if is_float(x):
            return random.normal(size=x.shape).astype(x.dtype)
        return np.zeros(x.shape, jax.dtypes.float0)

    return jax.tree.map(weights, tree)


def weighted_sum(tree: PyTree, seed: int = 7) -> jax.Array:
    """Sums all numbers of all floating leaves, each with a weight of its own."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(cotangent_of(tree, seed)))
    return sum(((x * w).sum() for x, w in pairs if w.dtype != jax.dtypes.float0), jnp.zeros(()))


def at_row(tree: PyTree, row: int) -> PyTree:
    """The row of a batch, as a batch of one."""
    return jax.tree.map(lambda a: a[row : row + 1], tree)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """The tree with its floating leaves in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype) if is_float(x) else x, tree)
