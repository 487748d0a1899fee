"""How results are compared, and the plain way of running a layer that all others are held against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnx


def assert_close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    """`max|a - b| <= tolerance * max|b|` for each array, and nothing that is not finite."""
    leaves_a, leaves_b = jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(leaves_a, leaves_b, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        where = jax.tree_util.keystr(path)
        assert x.shape == y.shape, f"{where}: shapes {x.shape} and {y.shape}"
        if not x.size or x.dtype == jax.dtypes.float0:
            continue
        assert np.isfinite(np.stack([x, y])).all(), f"{where}: not finite\n{x}\n{y}"
        error, scale = np.abs(x - y).max(), np.abs(y).max()
        assert error <= tolerance * max(scale, 1e-6), f"{where}: off by {error} where the largest is {scale}"


def weighted_sum(tree: Any, seed: int = 7) -> jax.Array:
    """A scalar to which every number of every floating leaf contributes with a weight of its own."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    keys = jax.random.split(jax.random.key(seed), len(leaves) or 1)
    return sum(((x * jax.random.normal(k, x.shape)).sum() for x, k in zip(leaves, keys)), jnp.zeros(()))


def shaken(params: Any, seed: int = 3) -> Any:
    """Params with noise on every leaf, so that no bias is zero."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves) or 1)
    return jax.tree.unflatten(structure, [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys)])


def spoiled(xs: Any, lengths: Any, value: float) -> Any:
    """`xs` with `value` in the pads (in tokens: the smallest or the largest integer)."""
    batch, time = jax.tree.leaves(xs)[0].shape[:2]
    valid = np.arange(time) < np.asarray(lengths)[:, None]

    def spoil(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jnp.floating):
            bad: Any = value
        else:
            bad = -1 if np.isnan(value) else jnp.iinfo(x.dtype).max
        return jnp.where(valid.reshape(batch, time, *[1] * (x.ndim - 2)), x, jnp.asarray(bad, x.dtype))

    return jax.tree.map(spoil, xs)


def _pieces(length: int, resets: np.ndarray) -> list[tuple[int, int]]:
    """The segments `[start, end)` into which resets cut the valid part of a row."""
    starts = sorted({0, *(int(t) for t in np.flatnonzero(resets[:length]))}) if length else []
    return list(zip(starts, [*starts[1:], length]))


def run_in_pieces(layer: rnnx.Layer, params: Any, carry: Any, xs: Any, lengths: Any, resets: Any) -> tuple[Any, Any]:
    """What `layer.apply` must equal: every segment of every row run alone, without lengths or resets.

    `lengths` and `resets` are concrete NumPy arrays. The carry returned is the one after the segment that is
    walked last: in a forward layer the rightmost, in a backward one the leftmost, in a BiCarry one of each.
    """
    batch = jax.tree.leaves(xs)[0].shape[0]
    backward = layer.spec.directions == {"backward"}
    carry = carry if layer.spec.chunkable else layer.initial_carry(params, xs, None)
    rows = []
    for b in range(batch):
        row = jax.tree.map(lambda x, b=b: x[b : b + 1], xs)
        first = jax.tree.map(lambda c, b=b: c[b : b + 1], carry)
        rows.append(_row(layer, params, first, row, int(lengths[b]), resets[b], backward))
    carries, ys = zip(*rows)
    return tuple(jax.tree.map(lambda *parts: jnp.concatenate(parts), *trees) for trees in (carries, ys))


def _row(
    layer: rnnx.Layer, params: Any, carry: Any, xs: Any, length: int, resets: np.ndarray, backward: bool
) -> tuple[Any, Any]:
    time = jax.tree.leaves(xs)[0].shape[1]
    fresh = layer.initial_carry(params, xs, None)
    results = {}
    pieces = _pieces(length, resets)
    for start, end in reversed(pieces) if backward else pieces:
        walked_first = end == length if backward else start == 0 and not resets[0]
        piece = jax.tree.map(lambda x, s=start, e=end: x[:, s:e], xs)
        results[start] = layer.apply(params, carry if walked_first else fresh, piece)
    outputs = [results[start][1] for start, _ in pieces]
    like = jax.eval_shape(lambda: layer.apply(params, fresh, xs)[1])
    pad = jax.tree.map(lambda s: jnp.zeros((1, time - length, *s.shape[2:]), s.dtype), like)
    ys = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *outputs, pad)
    if pieces:
        leftmost, rightmost = results[pieces[0][0]][0], results[pieces[-1][0]][0]
        carry = leftmost if backward else rightmost
        if isinstance(carry, rnnx.BiCarry):
            carry = rnnx.BiCarry(rightmost.forward, leftmost.backward)
    return carry, ys


def all_layers(layer: rnnx.Layer) -> Iterator[rnnx.Layer]:
    yield layer
    for _, child in layer.spec.children:
        yield from all_layers(child)
