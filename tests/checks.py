"""How results are compared, and the plain way of running a layer that all others are held against.

Equal to the bit are the results of the same compiled program on the same inputs (a run that is resumed, a stream by the
same step, pads that hold something else), numbers that were moved and not computed (weights to another library and
back, a carry that no step touched), and arithmetic without rounding (dropout of ones, small integers). Nothing else:
XLA fuses each program in its own way, and so rounds in its own way, which differs between processors and between
versions. That holds for a function alone and within another, for the same layer with and without an option that should
change nothing, and for two outputs of one program. Such results are compared by `assert_close` with a tolerance of some
`eps`, and choices made from them (the likeliest token) only where the candidates lie further apart than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnnx


def eps(units: float, dtype: Any = jnp.float32) -> float:
    """A tolerance of so many roundings."""
    return units * float(jnp.finfo(dtype).eps)


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


def weights_of(tree: Any, seed: int = 7) -> Any:
    """A random weight for each number of each floating leaf: the cotangent of `weighted_sum`."""
    random = np.random.default_rng(seed)

    def weights(x: Any) -> np.ndarray:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return random.normal(size=x.shape).astype(x.dtype)
        return np.zeros(x.shape, jax.dtypes.float0)

    return jax.tree.map(weights, tree)


def weighted_sum(tree: Any, seed: int = 7) -> jax.Array:
    """A scalar to which every number of every floating leaf contributes with a weight of its own."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(weights_of(tree, seed)))
    return sum(((x * w).sum() for x, w in pairs if w.dtype != jax.dtypes.float0), jnp.zeros(()))


def shaken(tree: Any, seed: int = 3) -> Any:
    """The same with noise on every leaf, so that no bias is zero."""
    random = np.random.default_rng(seed)

    def shake(p: Any) -> jax.Array:  # in NumPy: JAX would compile it for each shape
        return jnp.asarray(np.asarray(p) + 0.3 * random.normal(size=p.shape).astype(p.dtype))

    return jax.tree.map(shake, tree)


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


class Piece(NamedTuple):
    """Steps `[start, end)` of one row that are run at once, and whether the initial carry is put in before them."""

    row: int
    start: int
    end: int
    fresh: bool


class ByPieces:
    """A layer run the plain way, and its gradient by hand: what `apply` with lengths and resets must equal.

    Every row is run alone and step after step, each step a call of its own without lengths or resets; from right to
    left in a backward layer. Where both directions are read, the segments between resets take the place of the steps.
    Lengths and resets are concrete NumPy arrays.
    """

    def __init__(self, layer: rnnx.Layer) -> None:
        def backward(params: Any, carry: Any, floats: Any, rest: Any, cotangent: Any) -> Any:
            pulled = jax.vjp(lambda p, c, f: layer.apply(p, c, joined(f, rest)), params, carry, floats)[1]
            return pulled(cotangent)

        def fresh(params: Any, xs: Any) -> Any:
            return layer.initial_carry(params, xs, None)

        def fresh_backward(params: Any, xs: Any, cotangent: Any) -> Any:
            return jax.vjp(lambda p: fresh(p, xs), params)[1](cotangent)[0]

        self.layer = layer
        self.forward, self.backward = jax.jit(layer.apply), jax.jit(backward)
        self.fresh, self.fresh_backward = jax.jit(fresh), jax.jit(fresh_backward)

    def pieces(self, row: int, length: int, resets: np.ndarray) -> list[Piece]:
        """In the order in which they are walked."""
        borders = {int(t) for t in np.flatnonzero(resets[:length])}
        if not self.layer.spec.chunkable:
            starts = sorted({0, *borders}) if length else []
            return [Piece(row, start, end, True) for start, end in zip(starts, [*starts[1:], length])]
        steps = range(length)
        if self.layer.spec.directions == {"backward"}:
            return [Piece(row, t, t + 1, t + 1 in borders) for t in reversed(steps)]
        return [Piece(row, t, t + 1, t in borders) for t in steps]

    def run(self, params: Any, carry: Any, xs: Any, lengths: Any, resets: Any, cotangent: Any = None) -> Any:
        """`(carry, ys)`; and, given the cotangent of that, the gradients by params, carry and the leaves of xs."""
        # In NumPy: JAX would compile every slice for itself.
        carry, xs, cotangent = jax.tree.map(np.asarray, (carry, xs, cotangent))
        batch, time = jax.tree.leaves(xs)[0].shape[:2]
        first = jax.tree.map(lambda x: x[:1, :1], xs)
        fresh = self.fresh(params, first)
        like = jax.eval_shape(self.forward, params, fresh, first)[1]
        ys = jax.tree.map(lambda s: np.zeros((batch, time, *s.shape[2:]), s.dtype), like)
        tape, carries = [], []
        for row in range(batch):
            state = at_row(carry, row)
            walked = self.pieces(row, int(lengths[row]), resets[row])
            states = []
            for piece in walked:
                state = fresh if piece.fresh else state
                part = jax.tree.map(lambda x, p=piece: x[p.row : p.row + 1, p.start : p.end], xs)
                before, (state, out) = state, jax.tree.map(np.asarray, self.forward(params, state, part))
                jax.tree.map(lambda y, o, p=piece: y.__setitem__((p.row, slice(p.start, p.end)), o[0]), ys, out)
                tape.append((piece, before, part))
                states.append(state)
            if isinstance(state, rnnx.BiCarry) and states:
                state = rnnx.BiCarry(states[-1].forward, states[0].backward)
            carries.append(state)
        result = stacked(carries), ys
        return result if cotangent is None else (result, self._gradient(params, carry, xs, tape, *cotangent))

    def _gradient(self, params: Any, carry: Any, xs: Any, tape: Any, by_carry: Any, by_ys: Any) -> Any:
        floats, _ = split(xs)
        by_xs = [np.zeros(x.shape, x.dtype) for x in floats]
        by_params = jax.tree.map(np.zeros_like, params)
        rows = [at_row(by_carry, row) for row in range(jax.tree.leaves(xs)[0].shape[0])]
        for piece, before, part in reversed(tape):
            out = jax.tree.map(lambda y, p=piece: y[p.row : p.row + 1, p.start : p.end], by_ys)
            last = rows[piece.row]
            if not self.layer.spec.chunkable:
                last = jax.tree.map(np.zeros_like, last)
            by_p, by_c, by_x = self.backward(params, before, *split(part), (last, out))
            for whole, x in zip(by_xs, by_x, strict=True):
                whole[piece.row, piece.start : piece.end] = x[0]
            if piece.fresh:
                by_p = jax.tree.map(np.add, by_p, self.fresh_backward(params, part, by_c))
                by_c = jax.tree.map(np.zeros_like, by_c)
            by_params = jax.tree.map(np.add, by_params, by_p)
            rows[piece.row] = by_c
        return by_params, stacked(rows), by_xs


def split(xs: Any) -> tuple[list[Any], Any]:
    """The floating leaves, and the rest with None in their places."""
    leaves, structure = jax.tree.flatten(xs)
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    rest = jax.tree.unflatten(structure, [None if f else x for x, f in zip(leaves, is_float)])
    return [x for x, f in zip(leaves, is_float) if f], rest


def joined(floats: list[Any], rest: Any) -> Any:
    """What `split` took apart."""
    given = iter(floats)
    return jax.tree.map(lambda x: next(given) if x is None else x, rest, is_leaf=lambda x: x is None)


def at_row(tree: Any, row: int) -> Any:
    return jax.tree.map(lambda a: a[row : row + 1], tree)


def stacked(rows: list[Any]) -> Any:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)


def all_layers(layer: rnnx.Layer) -> Iterator[rnnx.Layer]:
    yield layer
    for _, child in layer.spec.children:
        yield from all_layers(child)
