"""The nets: an encoder reads a window, and a head forecasts all steps ahead from its last output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import rnnx
from experiments.forecast.config import Data, Model

LEVELS = np.arange(1, 20) / 20
"""Levels of the quantiles that make up a forecast, `[..., horizon, 19]`; the median is the point forecast."""
MEDIAN = len(LEVELS) // 2


class Nets(NamedTuple):
    """`init(key) -> params` of all members, each leaf `[members, ...]`; `apply(params, inputs, lengths, key)` of one
    member gives its outputs `[batch, horizon, outputs]`.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array, jax.Array, jax.Array | None], jax.Array]
    encoder: rnnx.Layer


def make_nets(model: Model, data: Data) -> Nets:
    make: Callable[[int], rnnx.Layer] = getattr(rnnx, model.cell)
    layers = [(make(model.width), rnnx.dropout(model.dropout)) for _ in range(model.layers)]
    encoder = rnnx.stack(nn.Dense(model.width), *(layer for pair in layers for layer in pair))
    outputs = len(LEVELS) if model.output == "quantiles" else 2
    head = nn.Dense(data.horizon * outputs)
    example = jax.ShapeDtypeStruct((1, data.context, 2), jnp.float32)

    def init_one(key: jax.Array) -> Any:
        k_encoder, k_head = jax.random.split(key)
        read = jnp.zeros((1, model.width))
        return {"encoder": encoder.init(k_encoder, example), "head": head.init(k_head, read)["params"]}

    def init(key: jax.Array) -> Any:
        return jax.vmap(init_one)(jax.random.split(key, model.members))

    def apply(params: Any, inputs: jax.Array, lengths: jax.Array, key: jax.Array | None) -> jax.Array:
        _, ys = rnnx.unroll(encoder, params["encoder"], inputs, lengths=lengths, key=key)
        last = ys[jnp.arange(len(ys)), lengths - 1]
        return jnp.asarray(head.apply({"params": params["head"]}, last)).reshape(-1, data.horizon, outputs)

    return Nets(init, apply, encoder)


def crps(model: Model, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """`[..., horizon, outputs]` and `[..., horizon]` to `[..., horizon]`."""
    if model.output == "quantiles":
        error, levels = targets[..., None] - outputs, levels_for(outputs)
        return 2 * jnp.maximum(levels * error, (levels - 1) * error).mean(axis=-1)
    mean, std = moments(outputs)
    z = (targets - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / jnp.sqrt(jnp.pi))


def levels_for(outputs: jax.Array) -> jax.Array:
    """`[..., 19]`, with as many dimensions as the outputs have."""
    return jnp.asarray(LEVELS, outputs.dtype).reshape((1,) * (outputs.ndim - 1) + (-1,))


def moments(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    return outputs[..., 0], jax.nn.softplus(outputs[..., 1]) + 1e-4


def quantiles(model: Model, outputs: jax.Array) -> jax.Array:
    """`[..., horizon, 19]`, in order: sorting never raises the loss."""
    if model.output == "quantiles":
        return jnp.sort(outputs, axis=-1)
    mean, std = moments(outputs)
    return mean[..., None] + std[..., None] * norm.ppf(levels_for(outputs))


def make_forecast(model: Model, nets: Nets) -> Callable[..., jax.Array]:
    """`(params, inputs, lengths)` to the members' mean quantiles, scaled, `[n, horizon, 19]`."""

    @jax.jit
    def forecast(params: Any, inputs: jax.Array, lengths: jax.Array) -> jax.Array:
        outputs = jax.vmap(lambda one: nets.apply(one, inputs, lengths, None))(params)
        return quantiles(model, outputs).mean(axis=0)

    return forecast
