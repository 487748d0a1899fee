"""What combinators need to know of the layers inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp

from rnnx.arguments import Function
from rnnx.base import Layer, Params, PyTree
from rnnx.pointwise import as_layer
from rnnx.sequences import cached_eval_shape

Merge = Annotated[Callable[..., PyTree], Function(None, "jnp.add")]
"""`(*ys) -> ys`: makes one output of several."""


def concatenate(*ys: jax.Array) -> jax.Array:
    """Joins outputs along their features: the usual merge."""
    return jnp.concatenate(ys, axis=-1)


def merged(name: str, merge: Merge, ys: Sequence[PyTree]) -> PyTree:
    """`merge(*ys)`; where that fails, an error that tells the shapes."""
    shapes = ", ".join(str(jax.tree.map(jnp.shape, y)) for y in ys)
    try:
        result = merge(*ys)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: merge fails with arrays of the shapes {shapes}: {error}") from error
    steps = {jnp.shape(y)[:2] for y in jax.tree.leaves(result)}
    if steps != {jax.tree.leaves(ys)[0].shape[:2]}:
        came = jax.tree.map(jnp.shape, result)
        raise ValueError(f"{name}: merge made {came} of {shapes}, but arrays [batch, time, ...] are wanted")
    return result


def output_struct(layer: Layer, params: Params, xs: PyTree) -> PyTree:
    """The shapes and dtypes of what `layer` makes of `xs`, without running it."""
    carry = cached_eval_shape(layer.initial_carry, params, xs, None)
    return cached_eval_shape(layer.apply, params, carry, xs)[1]


def named(layers: tuple[Layer | nn.Module, ...]) -> tuple[tuple[str, Layer], ...]:
    lifted = [as_layer(layer) for layer in layers]
    return tuple((f"{i}_{layer.spec.name}", layer) for i, layer in enumerate(lifted))


def directions(layers: tuple[tuple[str, Layer], ...]) -> frozenset[str]:
    return frozenset().union(*(layer.spec.directions for _, layer in layers))
