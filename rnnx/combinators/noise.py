"""Dropout: elementwise, or with one mask for a whole sequence."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rnnx.arguments import Rate, validated
from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec, cell, factory
from rnnx.cells.regularizers import dropout_mask, times_mask
from rnnx.evaluators.scan import scan
from rnnx.sequences import float_dtype, split_key, upcast, zero_pads


@factory
@validated
def dropout(rate: Rate) -> Layer:
    """Sets elements to zero with probability `rate` and scales up the others, if there is a key.

    Args:
        rate: the dropout rate, in [0, 1). Every feature of every step is drawn independently.

    Returns:
        The Layer, without params or carry. With `key=None` it returns its input. Integer leaves of a pytree of inputs
        stay unchanged.

    Raises:
        ValueError: if `rate` is outside [0, 1), or all inputs are integers.

    Reference: N. Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*,
    JMLR 15 (2014); for recurrent nets between the layers only: W. Zaremba et al., arXiv 1409.2329.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.dropout(0.5)
        >>> _, ys = rnnx.unroll(layer, {}, jnp.ones((1, 100, 100)), key=jax.random.key(0))
        >>> sorted(set(ys.ravel().tolist()))
        [0.0, 2.0]
    """

    def drop(x: jax.Array, key: Key) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        scaled = upcast(x) / (1 - rate)
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), scaled, 0).astype(x.dtype)

    def init(key: Key, xs: PyTree) -> Params:
        return {}

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        return ()

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        if float_dtype(xs) is None:
            raise ValueError("dropout got only integers: place it after the nn.Embed, not before")
        if key is not None and rate > 0:
            leaves, structure = jax.tree.flatten(xs)
            dropped = [drop(x, k) for x, k in zip(leaves, split_key(key, len(leaves)))]
            xs = jax.tree.unflatten(structure, dropped)
        return carry, zero_pads(xs, lengths)

    return Layer(init, initial_carry, apply, Spec("dropout", directions=frozenset()))


@factory
@validated
def locked_dropout(rate: Rate) -> Layer:
    """Sets features to zero with probability `rate`, with one mask for all steps of a sequence, and scales up the rest.

    Together with `rnnx.recurrent_dropout` inside a cell, this is the variational dropout of Gal and Ghahramani.

    Args:
        rate: the dropout rate, in [0, 1). Every feature of every sequence is drawn once.

    Returns:
        The Layer, without params. Its carry is the mask, drawn at the start of the sequence: it stays the same in all
        chunks that get the carry, and is drawn again after a reset. Without a key, nothing is dropped.

    Raises:
        ValueError: if `rate` is outside [0, 1), or all inputs are integers.

    References: Y. Gal and Z. Ghahramani, *A theoretically grounded application of dropout in recurrent neural
    networks*, NeurIPS 2016; under the name of locked dropout: S. Merity et al., arXiv 1708.02182.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> xs = jnp.ones((1, 3, 5))
        >>> _, ys = rnnx.unroll(rnnx.locked_dropout(0.5), {}, xs, key=jax.random.key(0))
        >>> bool((ys == ys[:, :1]).all())  # the same at all steps
        True
    """

    def init(key: Key, x: PyTree) -> Params:
        if float_dtype(x) is None:
            raise ValueError("locked_dropout got only integers: place it after the nn.Embed, not before")
        return {}

    def initial_carry(params: Params, x: PyTree, key: Key | None) -> Carry:
        leaves, structure = jax.tree.flatten(x)
        masks = [dropout_mask(k, rate, a.shape, a.dtype) for k, a in zip(split_key(key, len(leaves)), leaves)]
        return jax.tree.unflatten(structure, masks)

    def step(params: Params, masks: Carry, x: PyTree) -> tuple[Carry, PyTree]:
        def masked(a: jax.Array, mask: jax.Array) -> jax.Array:
            return times_mask(a, mask) if jnp.issubdtype(a.dtype, jnp.floating) else a

        return masks, jax.tree.map(masked, x, masks)

    return scan(cell(init, initial_carry, step))
