"""Helpers for the layers inside a combinator: names, merges, output shapes, directions."""

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
"""`(*ys) -> ys`: merges several outputs into one."""


def concatenate(*ys: jax.Array) -> jax.Array:
    """Concatenates outputs along their features: the default merge."""
    return jnp.concatenate(ys, axis=-1)


def merge_outputs(name: str, merge: Merge, ys: Sequence[PyTree]) -> PyTree:
    """Returns `merge(*ys)`; raises an error with the shapes if that fails."""
    shapes = ", ".join(str(jax.tree.map(jnp.shape, y)) for y in ys)
    try:
        result = merge(*ys)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: merge fails on arrays of shapes {shapes}: {error}") from error
    steps = {jnp.shape(y)[:2] for y in jax.tree.leaves(result)}
    if steps != {jax.tree.leaves(ys)[0].shape[:2]}:
        returned = jax.tree.map(jnp.shape, result)
        raise ValueError(f"{name}: merge returned {returned} for {shapes}, expected arrays [batch, time, ...]")
    return result


def output_struct(layer: Layer, params: Params, xs: PyTree) -> PyTree:
    """The shapes and dtypes of the outputs of `layer` for `xs`, without running it."""
    carry = cached_eval_shape(layer.initial_carry, params, xs, None)
    return cached_eval_shape(layer.apply, params, carry, xs)[1]


def name_layers(layers: tuple[Layer | nn.Module, ...]) -> tuple[tuple[str, Layer], ...]:
    """Converts modules to Layers, and names each by place and kind: `"0_lstm"`."""
    converted = [as_layer(layer) for layer in layers]
    return tuple((f"{i}_{layer.spec.name}", layer) for i, layer in enumerate(converted))


def union_of_directions(layers: tuple[tuple[str, Layer], ...]) -> frozenset[str]:
    return frozenset().union(*(layer.spec.directions for _, layer in layers))
