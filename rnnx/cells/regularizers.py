"""Noise in the weights or the state of any cell: weight drop, recurrent dropout, zoneout."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnx.arguments import Rate, describe, validated
from rnnx.base import Carry, Cell, Key, Params, PyTree, Weights, exportable
from rnnx.cells._wrapping import AnyCell, check_any_cell, check_cell, check_kernel, replaced
from rnnx.checks import check_number
from rnnx.interning import interned
from rnnx.sequences import split_key


@interned
@validated
def weight_drop(inner: AnyCell, rate: Rate, *, kernels: tuple[str, ...] = ("recurrent_kernel",)) -> AnyCell:
    """Sets weights to zero with probability `rate`, once per call of the layer, and scales up the rest.

    Args:
        inner: a Cell or AssociativeCell.
        rate: in [0, 1). Weights are dropped independently; all steps of all sequences share the same mask.
        kernels: the names of the params whose weights are dropped.

    Returns:
        A cell of the same type, with the same params and carry. Without a key, nothing is dropped.

    Raises:
        TypeError: if `inner` is not a cell.
        ValueError: for a rate outside [0, 1), for empty `kernels`, and (in `init`) for a name that is not among the
            params.

    References: L. Wan et al., *Regularization of neural networks using DropConnect*, ICML 2013; on recurrent weights:
    S. Merity, N. Keskar and R. Socher, *Regularizing and optimizing LSTM language models*, arXiv 1708.02182.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.weight_drop(rnnx.cells.lstm(4), 0.5))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs, key=jax.random.key(1))
        >>> ys.shape
        (2, 5, 4)
    """
    check_any_cell("weight_drop", inner)
    if not isinstance(kernels, tuple | list) or not kernels or not all(isinstance(name, str) for name in kernels):
        raise ValueError(f"weight_drop: kernels is {describe(kernels)}, but it must be a tuple of one or more names")

    def init(key: Key, x: PyTree) -> Params:
        params = inner.init(key, x)
        for name in kernels:
            check_kernel("weight_drop", inner, params, name)
        return params

    def prepare(params: Params, key: Key | None) -> Weights:
        k_inner, *keys = split_key(key, 1 + len(kernels))
        dropped = {
            name: times_mask(params[name], dropout_mask(k, rate, params[name].shape, params[name].dtype))
            for name, k in zip(kernels, keys)
        }
        return inner.prepare({**params, **dropped}, k_inner)

    return replaced(inner, "weight_drop", rate, {"init": init, "prepare": prepare})


@exportable
class MaskedCarry(NamedTuple):
    """The carry of `recurrent_dropout`: the mask `[batch, H]`, fixed within a sequence, and the cell's own carry."""

    mask: jax.Array
    carry: Carry


@interned
@validated
def recurrent_dropout(inner: Cell, rate: Rate, *, kernel: str = "recurrent_kernel") -> Cell:
    """Drops units of the state where the recurrent kernel reads it: the same units at all steps of a sequence.

    The state itself is not masked: in an LSTM or GRU, the mask applies only where the gates and the
    candidate read h.

    Args:
        inner: a Cell that multiplies its state by a recurrent kernel `(H, ...)`, as `h @ kernel`.
        rate: in [0, 1). Units are dropped independently, once per sequence; the rest are scaled up.
        kernel: the name of the recurrent kernel in the weights (the params after `prepare`).

    Returns:
        The Cell, with the same params. Its carry is `MaskedCarry(mask, carry)`: the mask is drawn when the sequence
        begins, stays the same in all later chunks that receive the carry, and is drawn again at a reset. Without a key,
        the mask is all ones.

    Raises:
        TypeError: if `inner` is not a Cell.
        ValueError: for a rate outside [0, 1), and (in `init`) if the kernel is missing or is not a matrix.

    References: Y. Gal and Z. Ghahramani, *A theoretically grounded application of dropout in recurrent neural
    networks*, NeurIPS 2016, whose masks on the inputs are `rnnx.locked_dropout`. Keras's `recurrent_dropout` is the
    same in an LSTM; in its GRU, the mask also applies to the state itself.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.recurrent_dropout(rnnx.cells.gru(4), 0.25))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs, key=jax.random.key(1))
        >>> carry.mask.shape, carry.carry.shape
        ((2, 4), (2, 4))
    """
    check_cell("recurrent_dropout", inner)

    def init(key: Key, x: PyTree) -> Params:
        params = inner.init(key, x)
        weights = inner.prepare(params, None)
        check_kernel("recurrent_dropout", inner, weights, kernel)
        if weights[kernel].ndim != 2:
            raise ValueError(
                f"recurrent_dropout: {kernel} of {inner.spec.name} has shape {weights[kernel].shape}, but it must be "
                "a matrix with one row for each unit; rnnx.zoneout works with any cell"
            )
        return params

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> MaskedCarry:
        k_mask, k_inner = split_key(key, 2)
        mask = dropout_mask(k_mask, rate, w[kernel].shape[:1], w[kernel].dtype).astype(w[kernel].dtype)
        return MaskedCarry(mask, inner.initial_carry(w, x, k_inner))

    def step(w: Weights, carry: MaskedCarry, z: PyTree) -> tuple[MaskedCarry, PyTree]:
        masked = {**w, kernel: _MaskedKernel(w[kernel], carry.mask)}
        after, y = inner.step(masked, carry.carry, z)
        return MaskedCarry(carry.mask, after), y

    return replaced(inner, "recurrent_dropout", rate, {"init": init, "initial_carry": initial_carry, "step": step})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _MaskedKernel:
    """Replaces a kernel in a cell's weights: `h @ kernel` becomes `(h * mask) @ kernel`."""

    kernel: jax.Array
    mask: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.kernel.shape

    @property
    def dtype(self) -> jnp.dtype:
        return self.kernel.dtype

    def astype(self, dtype: jnp.dtype) -> _MaskedKernel:
        return _MaskedKernel(self.kernel.astype(dtype), self.mask.astype(dtype))

    def __getitem__(self, index: Any) -> _MaskedKernel:
        rows, columns = index
        return _MaskedKernel(self.kernel[:, columns], self.mask[rows])

    def __rmatmul__(self, h: jax.Array) -> jax.Array:
        return (h * self.mask) @ self.kernel


class Zoned(NamedTuple):
    """The output of `project` under `zoneout`: the cell's own `z`, and the fraction of each carry number to keep."""

    z: PyTree
    kept: PyTree


@interned
def zoneout(inner: Cell, rate: PyTree) -> Cell:
    r"""Keeps each number in the carry at its previous value with probability `rate`, drawn anew at each step.

    .. math::
        s_t = d \odot s_{t-1} + (1 - d) \odot \mathrm{step}(s_{t-1}, x_t), \qquad d \sim \mathrm{Bernoulli}(rate)

    for every floating leaf s of the carry. Without a key, d is replaced by its mean, `rate`, as in the paper.

    Args:
        inner: the Cell.
        rate: in [0, 1]: one number, or one for each leaf in the structure of the carry. For an LSTM, the paper's
            values for character-level models are `rnnx.cells.LSTMCarry(h=0.05, c=0.5)`.

    Returns:
        The Cell, with the same params and carry. If y is the same array object as a part of the carry (h in an
        LSTM), y becomes that part after zoneout. Otherwise, or if the step itself is wrapped in `jax.jit` or similar,
        y is the cell's own output, without zoneout.

    Raises:
        TypeError: if `inner` is not a Cell.
        ValueError: for a rate outside [0, 1]; at run time, for rates whose structure differs from that of the carry.

    Reference: D. Krueger et al., *Zoneout: regularizing RNNs by randomly preserving hidden activations*, ICLR 2017,
    arXiv 1606.01305.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.zoneout(rnnx.cells.lstm(4), rnnx.cells.LSTMCarry(h=0.05, c=0.5)))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs, key=jax.random.key(1))
        >>> bool(jnp.allclose(carry.h, ys[:, -1]))
        True
    """
    check_cell("zoneout", inner)
    for one in jax.tree.leaves(rate):
        check_number("zoneout", "rate", one)
        if not 0 <= one <= 1:
            raise ValueError(f"zoneout: the rate is {one}, but it must lie in [0, 1]")

    def project(w: Weights, x: PyTree, key: Key | None) -> Zoned:
        k_inner, k_kept = split_key(key, 2)
        steps = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), x)
        like = jax.eval_shape(lambda w: inner.initial_carry(w, steps, None), w)
        leaves, structure = jax.tree.flatten(like)
        try:
            rates = jax.tree.leaves(jax.tree.broadcast(rate, like))
        except ValueError:
            raise ValueError(
                f"zoneout: rate is {describe(rate)}, but it must be one number, or one for each leaf of the carry of "
                f"{inner.spec.name}, in the structure {structure}"
            ) from None

        def kept(k: Key | None, rate: float, leaf: Any) -> jax.Array:
            if k is None:
                return jnp.full(leaf.shape, rate, leaf.dtype)
            return jax.random.bernoulli(k, rate, leaf.shape).astype(leaf.dtype)

        keys = split_key(k_kept, len(leaves))
        return Zoned(inner.project(w, x, k_inner), jax.tree.unflatten(structure, map(kept, keys, rates, leaves)))

    def step(w: Weights, carry: Carry, z: Zoned) -> tuple[Carry, PyTree]:
        after, y = inner.step(w, carry, z.z)

        def mixed(kept: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
            if not jnp.issubdtype(after.dtype, jnp.floating):
                return after
            return kept * before + (1 - kept) * after

        zoned = jax.tree.map(mixed, z.kept, carry, after)
        part_of_carry = {id(a): b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(zoned))}
        return zoned, jax.tree.map(lambda part: part_of_carry.get(id(part), part), y)

    return replaced(inner, "zoneout", rate, {"project": project, "step": step})


def dropout_mask(key: Key | None, rate: float, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """0 with probability `rate`, else 1 / (1 - rate); ones without a key. In float32 or wider, so the mean is 1."""
    dtype = jnp.promote_types(dtype, jnp.float32)
    if key is None:
        return jnp.ones(shape, dtype)
    return jax.random.bernoulli(key, 1 - rate, shape).astype(dtype) / (1 - rate)


def times_mask(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns `x * mask` in the dtype of x, rounded once."""
    dtype = jnp.promote_types(x.dtype, mask.dtype)
    return (x.astype(dtype) * mask.astype(dtype)).astype(x.dtype)
