"""Parallel branches: layers that read the same input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rnnx.arguments import validated
from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec
from rnnx.combinators._children import Merge, concatenate, merge_outputs, name_layers, union_of_directions
from rnnx.interning import interned
from rnnx.memory import checked_init
from rnnx.pointwise import as_layer
from rnnx.sequences import split_key, zero_pads


@interned
@validated
def parallel(*layers: Layer | nn.Module, merge: Merge = concatenate) -> Layer:
    """Runs layers in parallel on the same input, and merges their outputs.

    Args:
        *layers: Layers and Flax linen modules.
        merge: `(*ys) -> ys`; by default outputs are concatenated along their features.

    Returns:
        The Layer. Params are a dict by place and name, `{"0_lstm": ..., "1_gru": ...}`; the carry is the tuple of
        the layers' carries.

    Raises:
        TypeError: if an argument is neither a Layer nor a linen module.
        ValueError: if there is no layer; if `merge` fails on the outputs, e.g. because their widths differ.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.parallel(rnnx.lstm(4), rnnx.gru(2))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 6)
    """
    return parallel_layers("parallel", layers, merge)


def parallel_layers(kind: str, layers: tuple[Layer | nn.Module, ...], merge: Merge) -> Layer:
    """Implements `parallel`, and `bidirectional` for a layer and a reversed one."""
    children = name_layers(layers)
    if not children:
        raise ValueError(f"{kind} needs at least one layer")

    def init(key: Key, xs: PyTree) -> Params:
        keys = split_key(key, len(children))
        return {name: layer.init(k, xs) for (name, layer), k in zip(children, keys)}

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        keys = split_key(key, len(children))
        return tuple(layer.initial_carry(params[name], xs, k) for (name, layer), k in zip(children, keys))

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        results = [
            layer.apply(params[name], c, xs, lengths=lengths, resets=resets, key=k)
            for (name, layer), c, k in zip(children, carry, split_key(key, len(children)))
        ]
        carries, ys = zip(*results)
        return tuple(carries), zero_pads(merge_outputs(kind, merge, ys), lengths)

    options = {} if merge is concatenate else {"merge": merge}
    spec = Spec(kind, options, children, directions=union_of_directions(children))
    return Layer(checked_init(kind, init), initial_carry, apply, spec)


@interned
@validated
def multi_head(layer: Layer | nn.Module, n: int) -> Layer:
    """Runs `n` copies of a layer in parallel on the same input, each with its own params (multi-head).

    Outputs are concatenated, so `multi_head(rnnx.lstm(64), 4)` has 256 features and a block-diagonal recurrent matrix:
    a unit reads the state of its own head only. The heads run as one batched computation.

    Args:
        layer: the Layer of one head.
        n: the number of heads.

    Returns:
        The Layer. Params are those of `layer` with a leading axis of size `n`; each leaf of the carry is
        `[batch, n, ...]`; outputs are concatenated along their features, head after head.

    Raises:
        ValueError: if `n` is below 1.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.multi_head(rnnx.lstm(4), 3)
        >>> xs = jnp.ones((2, 5, 7))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> params["recurrent_kernel"].shape
        (3, 4, 16)
        >>> carry, ys = rnnx.unroll(layer, params, xs)
        >>> carry.h.shape, ys.shape
        ((2, 3, 4), (2, 5, 12))
    """
    inner = as_layer(layer)

    def init(key: Key, xs: PyTree) -> Params:
        return jax.vmap(lambda k: inner.init(k, xs))(jax.random.split(key, n))

    def over_heads(function: Callable[..., Any], *in_axes: int | None, out_axes: Any) -> Callable[..., Any]:
        return jax.vmap(function, in_axes, out_axes, axis_size=n)

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        keys = None if key is None else jax.random.split(key, n)

        def one(p: Params, k: Key | None) -> Carry:
            return inner.initial_carry(p, xs, k)

        return over_heads(one, 0, None if key is None else 0, out_axes=1)(params, keys)

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        keys = None if key is None else jax.random.split(key, n)

        def one(p: Params, c: Carry, k: Key | None) -> tuple[Carry, PyTree]:
            return inner.apply(p, c, xs, lengths=lengths, resets=resets, key=k)

        carry, ys = over_heads(one, 0, 1, None if key is None else 0, out_axes=(1, -1))(params, carry, keys)

        def concatenate_heads(y: jax.Array) -> jax.Array:
            if y.ndim == 3:  # scalar outputs: the heads are the features
                return y
            return jnp.swapaxes(y, -1, -2).reshape(*y.shape[:-2], n * y.shape[-2])  # heads before features

        return carry, jax.tree.map(concatenate_heads, ys)

    spec = Spec("multi_head", {"n": n}, (("layer", inner),), directions=inner.spec.directions)
    return Layer(
        checked_init(f"multi_head of {inner.spec.name}, n={n}", init, initial_carry), initial_carry, apply, spec
    )
