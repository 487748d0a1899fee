"""Stacks of layers, repeated layers, and residual connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.dtypes import canonicalize_dtype

from rnnx.arguments import validated
from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec
from rnnx.combinators._children import (
    Merge,
    concatenate,
    merge_outputs,
    name_layers,
    output_struct,
    union_of_directions,
)
from rnnx.interning import interned
from rnnx.memory import checked_init
from rnnx.meshes import with_varying_inputs
from rnnx.pointwise import as_layer
from rnnx.sequences import split_key, zero_pads


@interned
def stack(*layers: Layer | nn.Module) -> Layer:
    """Stacks layers: each reads the outputs of the one before it.

    Args:
        *layers: Layers and Flax linen modules; a module is applied to each step separately, as is a function wrapped
            in `pointwise` (`rnnx.pointwise(jax.nn.relu)`).

    Returns:
        The Layer. Params are a dict by place and name, `{"0_Embed": ..., "1_lstm": ...}`; the carry is the tuple
        of the layers' carries (empty ones included, so `carry[1]` is the state of the second layer).

    Raises:
        TypeError: if an argument is neither a Layer nor a linen module.
        ValueError: if there is no layer.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> lm = rnnx.stack(nn.Embed(65, 16), rnnx.lstm(32), rnnx.dropout(0.1), nn.Dense(65))
        >>> lm
        stack(
          0_Embed: Embed(num_embeddings=65, features=16)
          1_lstm: lstm(width=32)
          2_dropout: dropout(rate=0.1)
          3_Dense: Dense(features=65)
        )
        >>> tokens = jnp.zeros((2, 5), int)
        >>> carry, logits = rnnx.unroll(lm, lm.init(jax.random.key(0), tokens), tokens)
        >>> carry[1].h.shape, logits.shape
        ((2, 32), (2, 5, 65))
    """
    return _chain("stack", layers, _feed_outputs)


@interned
@validated
def skip_stack(*layers: Layer | nn.Module, merge: Merge = concatenate) -> Layer:
    """Stacks layers with skip connections from the input to every layer.

    Args:
        *layers: Layers and Flax linen modules. The first reads `xs`; each of the others reads `merge(xs, ys)`, where
            `ys` are the outputs of the layer before it.
        merge: `(xs, ys) -> inputs`; by default they are concatenated along their features.

    Returns:
        The Layer, with params and carry as in `stack`. Its outputs are those of the last layer.

    Raises:
        TypeError: if an argument is neither a Layer nor a linen module.
        ValueError: if there is no layer.

    Reference: A. Graves, *Generating sequences with recurrent neural networks*, arXiv 1308.0850 (2013), who also
    concatenates the outputs of all layers; for that use `rnnx.parallel`.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.skip_stack(rnnx.lstm(4), rnnx.lstm(4))
        >>> xs = jnp.ones((2, 5, 3))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> params["1_lstm"]["input_kernel"].shape  # 3 features of xs and 4 of the first layer
        (7, 16)
    """

    def child_inputs(xs: PyTree, ys: PyTree) -> PyTree:
        return merge_outputs("skip_stack, whose layers after the first read merge(xs, ys)", merge, (xs, ys))

    layer = _chain("skip_stack", layers, child_inputs)
    return layer if merge is concatenate else layer._replace(spec=layer.spec._replace(options={"merge": merge}))


def _feed_outputs(xs: PyTree, ys: PyTree) -> PyTree:
    return ys


def _chain(name: str, layers: tuple[Layer | nn.Module, ...], child_inputs: Callable[[PyTree, PyTree], PyTree]) -> Layer:
    """Chains layers; each but the first reads `child_inputs(xs, ys)`, with `ys` the outputs of the layer before it."""
    children = name_layers(layers)
    if not children:
        raise ValueError(f"{name} needs at least one layer")

    def init(key: Key, xs: PyTree) -> Params:
        params: dict[str, Params] = {}
        inputs, ys = xs, xs
        for (name, layer), k in zip(children, split_key(key, len(children))):
            if params:
                inputs = jax.eval_shape(child_inputs, xs, ys)
            params[name] = layer.init(k, inputs)
            ys = output_struct(layer, params[name], inputs)
        return params

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        carries: list[Carry] = []
        inputs, ys = xs, xs
        for (name, layer), k in zip(children, split_key(key, len(children))):
            if carries:
                inputs = jax.eval_shape(child_inputs, xs, ys)
            carries.append(layer.initial_carry(params[name], inputs, k))
            ys = output_struct(layer, params[name], inputs)
        return tuple(carries)

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        carries: list[Carry] = []
        inputs, ys = xs, xs
        for (name, layer), c, k in zip(children, carry, split_key(key, len(children))):
            if carries:
                inputs = child_inputs(xs, ys)
            c, ys = layer.apply(params[name], c, inputs, lengths=lengths, resets=resets, key=k)
            carries.append(c)
        return tuple(carries), ys

    spec = Spec(name, children=children, child_inputs=child_inputs, directions=union_of_directions(children))
    return Layer(checked_init(name, init), initial_carry, apply, spec)


@interned
@validated
def repeat(layer: Layer | nn.Module, n: int) -> Layer:
    """Stacks `n` copies of a layer, each with its own params, by `lax.scan`: compiles as fast as a single layer.

    Args:
        layer: a Layer whose outputs have the shape and dtype of its inputs.
        n: the number of copies.

    Returns:
        The Layer. Params are those of `layer` with a leading axis of size `n`; each leaf of the carry is
        `[batch, n, ...]`.

    Raises:
        ValueError: if `n` is below 1; in `init` and `apply`, if outputs and inputs differ in shape or dtype.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.repeat(rnnx.residual(rnnx.gru(4)), 8)
        >>> xs = jnp.ones((2, 5, 4))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> params["bias"].shape
        (8, 12)
        >>> carry, ys = rnnx.unroll(layer, params, xs)
        >>> carry.shape
        (2, 8, 4)
    """
    inner = as_layer(layer)

    def shapes(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda a: f"{canonicalize_dtype(a.dtype).name}{list(a.shape)}", tree)

    def check(params: Params, xs: PyTree) -> None:
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), params)
        returned = shapes(output_struct(inner, one, xs))
        if returned != shapes(xs):
            raise ValueError(
                f"repeat: outputs must have the shape and dtype of inputs, but {inner.spec.name} returns {returned} "
                f"for {shapes(xs)}; put an nn.Dense before it, or after it inside a stack, to make the widths equal"
            )

    def init(key: Key, xs: PyTree) -> Params:
        params = jax.vmap(lambda k: inner.init(k, xs))(jax.random.split(key, n))
        check(params, xs)
        return params

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        keys = None if key is None else jax.random.split(key, n)
        in_axes = (0, None if key is None else 0)
        one = jax.vmap(lambda p, k: inner.initial_carry(p, xs, k), in_axes, out_axes=1, axis_size=n)
        return one(params, keys)

    @with_varying_inputs  # before the loop over layers
    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        check(params, xs)

        def body(xs: PyTree, layer: tuple[Params, Carry, Key | None]) -> tuple[PyTree, Carry]:
            p, c, k = layer
            c, ys = inner.apply(p, c, xs, lengths=lengths, resets=resets, key=k)
            return ys, c

        keys = None if key is None else jax.random.split(key, n)
        by_layer = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), carry)
        ys, by_layer = jax.lax.scan(body, xs, (params, by_layer, keys), length=n)
        return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), by_layer), ys

    spec = Spec("repeat", {"n": n}, (("layer", inner),), directions=inner.spec.directions)
    return Layer(checked_init(f"repeat of {inner.spec.name}, n={n}", init, initial_carry), initial_carry, apply, spec)


@interned
def residual(layer: Layer | nn.Module) -> Layer:
    """Adds the input to the output: `ys = xs + layer(xs)`.

    Args:
        layer: a Layer whose outputs have the shape of its inputs.

    Returns:
        The Layer, with the same params and carry.

    Raises:
        ValueError: if outputs and inputs differ in shape.

    Reference: K. He et al., *Deep residual learning for image recognition*, CVPR 2016.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.residual(rnnx.gru(3))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 3)
    """
    inner = as_layer(layer)

    def apply(params: Params, carry: Carry, xs: PyTree, **options: Any) -> tuple[Carry, PyTree]:
        carry, ys = inner.apply(params, carry, xs, **options)
        before, after = jax.tree.map(jnp.shape, xs), jax.tree.map(jnp.shape, ys)
        if before != after:
            raise ValueError(
                f"residual: {inner.spec.name} returns {after} for {before}, which cannot be added; make the widths "
                "equal, e.g. with an nn.Dense"
            )
        return carry, jax.tree.map(jnp.add, zero_pads(xs, options.get("lengths")), ys)

    spec = Spec("residual", children=(("layer", inner),), directions=inner.spec.directions)
    return Layer(inner.init, inner.initial_carry, apply, spec)
