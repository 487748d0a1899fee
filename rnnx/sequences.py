"""What evaluators and combinators need to know of a batch of sequences: its sizes, its pads, its keys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Key, PyTree


def batch_and_time(xs: PyTree) -> tuple[Any, Any]:
    """`(batch, time)` of a pytree of `[batch, time, ...]`; either may be symbolic under `jax.export`."""
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    return batch, time


def step_struct(xs: PyTree) -> PyTree:
    """The shape and dtype of one step of one sequence."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), xs)


def float_dtype(xs: PyTree) -> jnp.dtype | None:
    """The dtype of the floating leaves (the widest, where they differ), or None if there are none."""
    dtypes = [x.dtype for x in jax.tree.leaves(xs) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*dtypes) if dtypes else None


def cast_floats(tree: PyTree, dtype: jnp.dtype | None) -> PyTree:
    """Casts the floating leaves to `dtype`; leaves everything as it is for None."""

    def cast(x: jax.Array) -> jax.Array:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return tree if dtype is None else jax.tree.map(cast, tree)


def split_key(key: Key | None, n: int) -> tuple[Any, ...]:
    """`n` keys, or `n` times None."""
    return (None,) * n if key is None else tuple(jax.random.split(key, n))


def select(mask: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """`where` over a pytree, with a mask over the leading axes. Never a product: inf times 0 is NaN."""

    def where(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(a) - mask.ndim)), a, b)

    return jax.tree.map(where, on_true, on_false)


def valid_steps(lengths: jax.Array, time: Any) -> jax.Array:
    """`[batch, time]` booleans: which steps lie within the lengths."""
    return jnp.arange(time)[None] < lengths[:, None]


def first_steps(xs: PyTree, lengths: jax.Array) -> PyTree:
    """`[batch, ...]`: a harmless input for every row, to be read in place of its pads.

    Zero is not harmless: `x / norm(x)` has no gradient there. A row's own first step is, as far as anything
    is; a row without any step gets ones (tokens: zeros).
    """

    def first(x: jax.Array) -> jax.Array:
        nothing = jnp.full((x.shape[0], *x.shape[2:]), 1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0, x.dtype)
        empty = isinstance(x.shape[1], int) and x.shape[1] == 0  # (a symbolic size is not)
        return nothing if empty else select(lengths > 0, x[:, 0], nothing)

    return jax.tree.map(first, xs)


def fill_pads(xs: PyTree, lengths: jax.Array | None) -> PyTree:
    """Puts harmless values in the pads, so that neither a value nor a gradient can come out of them."""
    if lengths is None:
        return xs
    batch, time = batch_and_time(xs)
    first = jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (batch, time, *x.shape[1:])), first_steps(xs, lengths))
    return select(valid_steps(lengths, time), xs, first)


def zero_pads(ys: PyTree, lengths: jax.Array | None) -> PyTree:
    """Zero beyond the lengths: what every Layer returns there."""
    if lengths is None:
        return ys
    _, time = batch_and_time(ys)
    return select(valid_steps(lengths, time), ys, jax.tree.map(jnp.zeros_like, ys))


def flip(xs: PyTree, lengths: jax.Array | None) -> PyTree:
    """Reverses each sequence within its length; the pads stay where they are."""
    if lengths is None:
        return jax.tree.map(lambda x: jnp.flip(x, axis=1), xs)
    t = jnp.arange(batch_and_time(xs)[1])[None]
    source = jnp.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, source), xs)


def flip_resets(resets: jax.Array | None, lengths: jax.Array | None) -> jax.Array | None:
    """The resets of the flipped sequences: the border between t - 1 and t is crossed before step L - t.

    A border before the first step is behind the last one when walked backwards: it separates nothing.
    """
    if resets is None:
        return None
    _, time = resets.shape
    t = jnp.arange(time)[None]
    length = jnp.asarray(time if lengths is None else lengths).reshape(-1, 1)
    source = jnp.where((t >= 1) & (t < length), length - t, 0)
    source = jnp.broadcast_to(source, resets.shape)
    return jax.vmap(lambda row, i: row[i])(resets, source) & (source > 0)
