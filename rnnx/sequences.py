"""What evaluators and combinators need to know of a batch of sequences: its sizes, its pads, its keys."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

from rnnx.arguments import shown
from rnnx.base import Key, PyTree


def batch_and_time(xs: PyTree) -> tuple[Any, Any]:
    """`(batch, time)` of a pytree of `[batch, time, ...]`; either may be symbolic under `jax.export`."""
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    return batch, time


def step_struct(xs: PyTree) -> PyTree:
    """The shape and dtype of one step of one sequence."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], canonicalize_dtype(x.dtype)), xs)


def concrete(x: Any) -> np.ndarray | None:
    """The values of an array (or a list of numbers), or None where they are not known: under `jax.jit` and its like."""
    return None if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x)) else np.asarray(x)


def result_struct(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """`jax.eval_shape`, remembered: layers within layers ask for the same shapes again and again."""
    leaves, structure = jax.tree.flatten(args)
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(x), _dtype(x)) for x in leaves)
    try:
        known = _RESULTS.setdefault(function, {})
    except TypeError:  # an object that cannot be referred to weakly
        known = {}
    situation = structure, shapes, canonicalize_dtype(float)
    if situation not in known:
        if len(known) == SITUATIONS:
            known.clear()
        known[situation] = jax.eval_shape(function, *jax.tree.unflatten(structure, shapes))
    return known[situation]


SITUATIONS = 64
# By function, and only as long as it is in use: what it refers to may be large.
_RESULTS: weakref.WeakKeyDictionary[Callable[..., PyTree], dict[Any, PyTree]] = weakref.WeakKeyDictionary()


def _dtype(x: Any) -> Any:
    dtype = jnp.result_type(x)
    return dtype if jnp.issubdtype(dtype, jax.dtypes.extended) else canonicalize_dtype(dtype)


def float_dtype(xs: PyTree) -> jnp.dtype | None:
    """The dtype of the floating leaves (the widest, where they differ), or None if there are none."""
    dtypes = [x.dtype for x in jax.tree.leaves(xs) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*dtypes) if dtypes else None


def wide(tree: PyTree) -> Any:
    """Floating arrays in float32 or more: what decays slowly, or has many terms, cannot be summed up in less."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)


def cast_floats(tree: PyTree, dtype: jnp.dtype | None) -> PyTree:
    """Casts the floating leaves to `dtype`; leaves everything as it is for None."""

    def cast(x: jax.Array) -> jax.Array:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return tree if dtype is None else jax.tree.map(cast, tree)


def swapped(tree: PyTree) -> PyTree:
    """`[batch, time, ...]` as `[time, batch, ...]`, or back. Of a single row it is the same memory, and no copy."""

    def swap(a: jax.Array) -> jax.Array:
        first, second = a.shape[:2]
        single = (isinstance(first, int) and first == 1) or (isinstance(second, int) and second == 1)
        return a.reshape(second, first, *a.shape[2:]) if single else jnp.swapaxes(a, 0, 1)

    return jax.tree.map(swap, tree)


def checked_key(key: Any) -> Any:
    """The key, once it is found to be one key of `jax.random`; a raw one of `jax.random.PRNGKey` is."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(f"key holds keys of shape {key.shape}, but one is wanted, e.g. key[0]")
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == jnp.uint32 and key.ndim == 1:
        return key
    raise TypeError(f"key is {shown(key)}, but a jax.random.key(0) is wanted")


def split_key(key: Key | None, n: int) -> tuple[Any, ...]:
    """`n` keys, or `n` times None."""
    return (None,) * n if key is None else tuple(jax.random.split(checked_key(key), n))


def select(mask: jax.Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """`where` over a pytree, with a mask over the leading axes. Never a product: inf times 0 is NaN."""

    def where(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (jnp.ndim(a) - mask.ndim)), a, b)

    return jax.tree.map(where, on_true, on_false)


def widened(tree: PyTree) -> PyTree:
    """Integers in the usual width: in eight bits 300 is 44, and without a sign 0 - 1 is the largest number."""

    def widen(x: Any) -> jax.Array:
        x, wide = jnp.asarray(x), canonicalize_dtype(int)
        if not jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == wide:
            return x
        highest = jnp.iinfo(wide).max
        if jnp.iinfo(x.dtype).max > highest:
            x = jnp.minimum(x, jnp.array(highest, x.dtype))
        return x.astype(wide)

    return jax.tree.map(widen, tree)


def valid_steps(lengths: jax.Array, time: Any) -> jax.Array:
    """`[batch, time]` booleans: which steps lie within the lengths."""
    return jnp.arange(time)[None] < widened(lengths)[:, None]


def first_steps(xs: PyTree, lengths: jax.Array) -> PyTree:
    """`[batch, ...]`: a harmless input for every row, to be read in place of its pads.

    Zero is not harmless: `x / norm(x)` has no gradient there. A row's own first step is; a row without any
    step borrows that of another; where all are empty, it is ones (tokens: zeros).
    """

    def first(x: jax.Array) -> jax.Array:
        nothing = jnp.full((x.shape[0], *x.shape[2:]), 1 if jnp.issubdtype(x.dtype, jnp.inexact) else 0, x.dtype)
        if any(isinstance(size, int) and size == 0 for size in x.shape[:2]):  # (a symbolic size is not)
            return nothing
        return borrow_rows(select(jnp.broadcast_to(lengths.max() > 0, lengths.shape), x[:, 0], nothing), lengths)

    return jax.tree.map(first, xs)


def borrow_rows(tree: PyTree, lengths: jax.Array) -> PyTree:
    """Puts the row of the longest sequence in place of the rows of empty ones."""
    if isinstance(lengths.shape[0], int) and lengths.shape[0] == 0:
        return tree
    longest = jnp.argmax(lengths)
    return jax.tree.map(lambda a: select(lengths > 0, a, jnp.broadcast_to(a[longest], a.shape)), tree)


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
    _, time = batch_and_time(xs)
    t, length = jnp.arange(time)[None], jnp.minimum(widened(lengths), time)[:, None]
    source = jnp.where(t < length, length - 1 - t, t)  # a permutation, so its transpose need not add

    def row(x: jax.Array, i: jax.Array) -> jax.Array:
        return x.at[i].get(mode="promise_in_bounds", unique_indices=True)

    return jax.tree.map(lambda x: jax.vmap(row)(x, source), xs)


class Segments(NamedTuple):
    """In place of plain `resets`, where the final carry of each of several sequences in a row is wanted.

    `rnnx.unroll_packed` passes it as `resets` to `Layer.apply`. A layer that only hands `resets` on need not know of
    it; one that turns around uses `flip_resets`; one that keeps a carry resets at `resets` and returns, in place of
    the rows' final carries, those after the steps `(row, last)`: leaves `[n, ...]` instead of `[batch, ...]`. So for
    `n` sequences every carry has them on its first axis, in the order in which they were given.

    Attributes:
        resets: `[batch, time]` booleans, as ever.
        row: `[n]`, the row in which each sequence lies.
        first, last: `[n]`, the steps between which it lies, both included, in the direction of walking.
    """

    resets: jax.Array
    row: jax.Array
    first: jax.Array
    last: jax.Array

    def carries(self, after: PyTree) -> PyTree:
        """The final carry `[n, ...]` of each sequence, from the carries after every step, `[time, batch, ...]`."""
        return jax.tree.map(lambda a: a[self.last, self.row], after)


def flip_resets(resets: jax.Array | Segments | None, lengths: jax.Array | None) -> jax.Array | Segments | None:
    """The resets of the flipped sequences: the border between t - 1 and t is crossed before step L - t.

    A border before the first step is behind the last one when walked backwards: it separates nothing here.
    """
    if resets is None:
        return None
    borders = resets.resets if isinstance(resets, Segments) else resets
    _, time = borders.shape
    t = jnp.arange(time)[None]
    length = widened(time if lengths is None else lengths).reshape(-1, 1)
    source = jnp.where((t >= 1) & (t < length), length - t, 0)
    source = jnp.broadcast_to(source, borders.shape)
    flipped = jax.vmap(lambda row, i: row[i])(borders, source) & (source > 0)
    if not isinstance(resets, Segments):
        return flipped
    end = jnp.broadcast_to(length, (borders.shape[0], 1))[resets.row, 0] - 1
    return Segments(flipped, resets.row, end - resets.last, end - resets.first)
