"""The nets: an encoder reads a window, and a head forecasts all steps ahead from its last output."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

import rnnx
from experiments.forecast.metrics import LEVELS
from experiments.forecast.settings import Forecast
from experiments.forecast.windows import Windows

CELLS: dict[str, Callable[[int], rnnx.Layer]] = {
    "lstm": rnnx.lstm,
    "gru": rnnx.gru,
    "elman": rnnx.elman,
    "mgu": rnnx.mgu,
    "min_gru": rnnx.min_gru,
    "lru": rnnx.lru,
}


class Model(NamedTuple):
    """`init(key) -> params` of all members, each leaf `[members, ...]`; `apply(params, inputs, lengths, key)` of one
    member gives its outputs `[batch, horizon, outputs]`.
    """

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array, jax.Array, jax.Array | None], jax.Array]
    encoder: rnnx.Layer


def make_model(config: Forecast) -> Model:
    layers = [(CELLS[config.cell](config.width), rnnx.dropout(config.dropout)) for _ in range(config.layers)]
    encoder = rnnx.stack(nn.Dense(config.width), *(layer for pair in layers for layer in pair))
    outputs = len(LEVELS) if config.output == "quantiles" else 2
    head = nn.Dense(config.horizon * outputs)
    example = jax.ShapeDtypeStruct((1, config.context, 2), jnp.float32)

    def init_one(key: jax.Array) -> Any:
        k_encoder, k_head = jax.random.split(key)
        read = jnp.zeros((1, config.width))
        return {"encoder": encoder.init(k_encoder, example), "head": head.init(k_head, read)["params"]}

    def init(key: jax.Array) -> Any:
        return jax.vmap(init_one)(jax.random.split(key, config.members))

    def apply(params: Any, inputs: jax.Array, lengths: jax.Array, key: jax.Array | None) -> jax.Array:
        _, ys = rnnx.unroll(encoder, params["encoder"], inputs, lengths=lengths, key=key)
        last = ys[jnp.arange(len(ys)), lengths - 1]
        return jnp.asarray(head.apply({"params": params["head"]}, last)).reshape(-1, config.horizon, outputs)

    return Model(init, apply, encoder)


def crps(config: Forecast, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """`[..., horizon, outputs]` and `[..., horizon]` to `[..., horizon]`."""
    if config.output == "quantiles":
        error, levels = targets[..., None] - outputs, levels_for(outputs)
        return 2 * jnp.maximum(levels * error, (levels - 1) * error).mean(axis=-1)
    mean, std = moments(outputs)
    z = (targets - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / jnp.sqrt(jnp.pi))


def levels_for(outputs: jax.Array) -> jax.Array:
    """`[..., 19]`, of as many dimensions as the outputs have."""
    return jnp.asarray(LEVELS, outputs.dtype).reshape((1,) * (outputs.ndim - 1) + (-1,))


def moments(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    return outputs[..., 0], jax.nn.softplus(outputs[..., 1]) + 1e-4


def quantiles(config: Forecast, outputs: jax.Array) -> jax.Array:
    """`[..., horizon, 19]`, in order: sorting never raises the loss."""
    if config.output == "quantiles":
        return jnp.sort(outputs, axis=-1)
    mean, std = moments(outputs)
    return mean[..., None] + std[..., None] * norm.ppf(levels_for(outputs))


def make_loss(config: Forecast, model: Model) -> Callable[[Any, jax.Array, Windows], tuple[jax.Array, dict]]:
    """The mean over members, each with a batch of its own; their gradients do not meet."""

    def of_member(params: Any, key: jax.Array, data: Windows) -> jax.Array:
        batch_key, noise_key = jax.random.split(key)
        rows = jax.random.randint(batch_key, (config.batch,), 0, len(data.lengths))
        outputs = model.apply(params, data.inputs[rows], data.lengths[rows], noise_key)
        counted = data.counted[rows]
        return jnp.where(counted, crps(config, outputs, data.targets[rows]), 0).sum() / counted.sum()

    def loss(params: Any, key: jax.Array, data: Windows) -> tuple[jax.Array, dict]:
        keys = jax.random.split(key, config.members)
        return jax.vmap(of_member, (0, 0, None))(params, keys, data).mean(), {}

    return loss


def make_forecast(config: Forecast, model: Model) -> Callable[..., jax.Array]:
    """`(params, inputs, lengths)` to the members' mean quantiles, scaled, `[n, horizon, 19]`."""

    @jax.jit
    def forecast(params: Any, inputs: jax.Array, lengths: jax.Array) -> jax.Array:
        outputs = jax.vmap(lambda one: model.apply(one, inputs, lengths, None))(params)
        return quantiles(config, outputs).mean(axis=0)

    return forecast
