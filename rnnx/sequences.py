"""Helpers for batches of sequences: shapes, padding, dtypes, keys and segments."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

from rnnx.arguments import describe
from rnnx.base import Key, PyTree


def batch_and_time(xs: PyTree) -> tuple[Any, Any]:
    """Returns `(batch, time)` of a pytree of `[batch, time, ...]`; either may be symbolic under `jax.export`."""
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    return batch, time


def step_struct(xs: PyTree) -> PyTree:
    """The shape and dtype of one step of one sequence."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], canonicalize_dtype(x.dtype)), xs)


def concrete_values(x: Any) -> np.ndarray | None:
    """Returns the values of an array (or a list of numbers), or None if they are traced, as under `jax.jit`."""
    return None if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x)) else np.asarray(x)


def cached_eval_shape(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """`jax.eval_shape`, cached: nested layers ask for the same shapes again and again."""
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(x), _dtype(x)) for x in leaves)
    try:
        cache = _CACHES.setdefault(function, {})
    except TypeError:  # an object without weak references
        cache = {}
    signature = structure, shapes, canonicalize_dtype(float)
    if signature not in cache:
        if len(cache) == MAX_SIGNATURES:
            cache.clear()
        cache[signature] = jax.eval_shape(function, *jax.tree.unflatten(structure, shapes))
    return cache[signature]


MAX_SIGNATURES = 64
# Per function, and only while the function is in use: it may refer to large arrays.
_CACHES: weakref.WeakKeyDictionary[Callable[..., PyTree], dict[Any, PyTree]] = weakref.WeakKeyDictionary()


def _dtype(x: Any) -> Any:
    dtype = jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jax.dtypes.extended) else canonicalize_dtype(dtype)


def float_dtype(xs: PyTree) -> jnp.dtype | None:
    """Returns the dtype of the floating leaves (the widest, if they differ), or None if there are none."""
    dtypes = [x.dtype for x in jax.tree.leaves(xs) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*dtypes) if dtypes else None


def upcast(tree: PyTree) -> Any:
    """Casts floating arrays to float32 or wider: slowly decaying states and long sums need that precision."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)


def cast_floats(tree: PyTree, dtype: jnp.dtype | None) -> PyTree:
    """Casts the floating leaves to `dtype`; returns the tree unchanged for None."""

    def cast(x: jax.Array) -> jax.Array:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return tree if dtype is None else jax.tree.map(cast, tree)


def swap_batch_time(tree: PyTree) -> PyTree:
    """Transposes `[batch, time, ...]` to `[time, batch, ...]`, or back; a single row is reshaped, without a copy."""

    def swap(a: jax.Array) -> jax.Array:
        first, second = a.shape[:2]
        single = (isinstance(first, int) and first == 1) or (isinstance(second, int) and second == 1)
        return a.reshape(second, first, *a.shape[2:]) if single else jnp.swapaxes(a, 0, 1)

    return jax.tree.map(swap, tree)


def checked_key(key: Any) -> Any:
    """Returns the key; raises unless it is one key of `jax.random` (a raw one of `jax.random.PRNGKey` is accepted)."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(f"key holds keys of shape {key.shape}, expected a single key, e.g. key[0]")
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32 and key.ndim == 1:
        return key
    raise TypeError(f"key is {describe(key)}, but it must be a key, e.g. jax.random.key(0)")


def split_key(key: Key | None, n: int) -> tuple[Any, ...]:
    """Splits a key into `n`; without a key, returns `n` times None."""
    return (None,) * n if key is None else tuple(jax.random.split(checked_key(key), n))


def select(mask: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """`jnp.where` over pytrees, with a mask over the leading axes. Never a product: inf times 0 is NaN."""

    def where(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(a) - mask.ndim)), a, b)

    return jax.tree.map(where, on_true, on_false)


def widen_integers(tree: PyTree) -> PyTree:
    """Casts integers to the default width: in 8 bits 300 becomes 44, and unsigned 0 - 1 is the largest integer."""

    def widen(x: Any) -> jax.Array:
        x, dtype = jnp.asarray(x), canonicalize_dtype(int)
        if not jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == dtype:
            return x
        largest = jnp.iinfo(dtype).max
        if jnp.iinfo(x.dtype).max > largest:
            x = jnp.minimum(x, jnp.array(largest, x.dtype))
        return x.astype(dtype)

    return jax.tree.map(widen, tree)


def valid_steps(lengths: jax.Array, time: Any) -> jax.Array:
    """The mask of valid steps: `[batch, time]` booleans."""
    return jnp.arange(time)[None] < widen_integers(lengths)[:, None]


def first_steps(xs: PyTree, lengths: jax.Array) -> PyTree:
    """A safe input for every row, `[batch, ...]`, to be read in place of its pads.

    Zero is not safe: `x / norm(x)` has no gradient there. A row's own first step is safe. An empty row borrows the
    first step of another row; if all are empty, the input is ones (tokens: zeros).
    """

    def first(x: jax.Array) -> jax.Array:
        constant = jnp.full((x.shape[0], *x.shape[2:]), 1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0, x.dtype)
        if any(isinstance(size, int) and size == 0 for size in x.shape[:2]):  # a symbolic size is never 0
            return constant
        return borrow_rows(select(jnp.broadcast_to(lengths.max() > 0, lengths.shape), x[:, 0], constant), lengths)

    return jax.tree.map(first, xs)


def borrow_rows(tree: PyTree, lengths: jax.Array) -> PyTree:
    """Replaces the rows of empty sequences by the row of the longest one."""
    if isinstance(lengths.shape[0], int) and lengths.shape[0] == 0:
        return tree
    longest = jnp.argmax(lengths)
    return jax.tree.map(lambda a: select(lengths > 0, a, jnp.broadcast_to(a[longest], a.shape)), tree)


def fill_pads(xs: PyTree, lengths: jax.Array | None) -> PyTree:
    """Fills the pads with safe values, so that they affect neither values nor gradients."""
    if lengths is None:
        return xs
    batch, time = batch_and_time(xs)
    first = jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (batch, time, *x.shape[1:])), first_steps(xs, lengths))
    return select(valid_steps(lengths, time), xs, first)


def zero_pads(ys: PyTree, lengths: jax.Array | None) -> PyTree:
    """Sets outputs to zero beyond the lengths, as every Layer returns them."""
    if lengths is None:
        return ys
    _, time = batch_and_time(ys)
    return select(valid_steps(lengths, time), ys, jax.tree.map(jnp.zeros_like, ys))


def flip(xs: PyTree, lengths: jax.Array | None) -> PyTree:
    """Reverses each sequence within its length; the pads stay where they are."""
    if lengths is None:
        return jax.tree.map(lambda x: jnp.flip(x, axis=1), xs)
    _, time = batch_and_time(xs)
    t, length = jnp.arange(time)[None], jnp.minimum(widen_integers(lengths), time)[:, None]
    source = jnp.where(t < length, length - 1 - t, t)  # a permutation: its transpose needs no scatter-add

    def row(x: jax.Array, i: jax.Array) -> jax.Array:
        return x.at[i].get(mode="promise_in_bounds", unique_indices=True)

    return jax.tree.map(lambda x: jax.vmap(row)(x, source), xs)


class Segments(NamedTuple):
    """Takes the place of `resets` for packed rows, to get the final carry of every sequence in a row.

    `rnnx.unroll_packed` passes it as `resets` to `Layer.apply`. A layer that only passes `resets` on need not know of
    it. A layer that reverses time calls `flip_resets`. A layer with a carry resets at `resets` and returns, instead of
    the final carry of each row, the carries after the steps `(row, last)`: leaves `[n, ...]` instead of
    `[batch, ...]`, for `n` sequences in the order in which they were given.

    Attributes:
        resets: `[batch, time]` booleans, as usual.
        row: `[n]`, the row that holds each sequence.
        first, last: `[n]`, its first and last step, in the direction of time that the layer reads.
    """

    resets: jax.Array
    row: jax.Array
    first: jax.Array
    last: jax.Array

    def final_carries(self, after: PyTree) -> PyTree:
        """Selects the final carry of each sequence, `[n, ...]`, from the carries of all steps, `[time, batch, ...]`."""
        return jax.tree.map(lambda a: a[self.last, self.row], after)


def flip_resets(resets: jax.Array | Segments | None, lengths: jax.Array | None) -> jax.Array | Segments | None:
    """The resets of the flipped sequences: the boundary between t - 1 and t comes before step L - t.

    A boundary before the first step comes after the last step in reverse, so it is dropped.
    """
    if resets is None:
        return None
    boundaries = resets.resets if isinstance(resets, Segments) else resets
    _, time = boundaries.shape
    t = jnp.arange(time)[None]
    length = widen_integers(time if lengths is None else lengths).reshape(-1, 1)
    source = jnp.where((t >= 1) & (t < length), length - t, 0)
    source = jnp.broadcast_to(source, boundaries.shape)
    flipped = jax.vmap(lambda row, i: row[i])(boundaries, source) & (source > 0)
    if not isinstance(resets, Segments):
        return flipped
    end = jnp.broadcast_to(length, (boundaries.shape[0], 1))[resets.row, 0] - 1
    return Segments(flipped, resets.row, end - resets.last, end - resets.first)
