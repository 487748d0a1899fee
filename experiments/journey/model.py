"""The nets of two units, and the readout."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.journey.config import Net

UNITS = 2
"""Units of every state: two numbers are a point of a plane, which can be drawn."""


class Classifier(NamedTuple):
    """`init(key) -> params`, with `net` and `readout` apart; `states(net params, xs) -> [n, 2 or 4]`, the final
    states of the recurrent net; `logits(params, xs) -> [n]`, above 0 for anticlockwise."""

    init: Callable[[jax.Array], Any]
    states: Callable[[Any, jax.Array], jax.Array]
    logits: Callable[[Any, jax.Array], jax.Array]


def make_model(name: Net) -> Classifier:
    elman = rnnx.elman(UNITS)
    nets: dict[Net, tuple[rnnx.Layer, Callable[[Any], jax.Array]]] = {
        "elman": (elman, lambda carry: carry),
        "gru": (rnnx.gru(UNITS), lambda carry: carry),
        "lstm": (rnnx.lstm(UNITS), lambda carry: carry.h),
        "stacked": (rnnx.stack(elman, elman), lambda carry: carry[1]),
        "bidirectional": (rnnx.bidirectional(elman), lambda carry: jnp.concatenate(carry, axis=-1)),
    }
    net, final = nets[name]
    readout = nn.Dense(1)

    def states(params: Any, xs: jax.Array) -> jax.Array:
        return final(rnnx.unroll(net, params, xs)[0])

    def init(key: jax.Array) -> Any:
        net_key, readout_key = jax.random.split(key)
        xs = jnp.zeros((1, 4, 2))
        params = net.init(net_key, xs)
        return {"net": params, "readout": readout.init(readout_key, states(params, xs))["params"]}

    def logits(params: Any, xs: jax.Array) -> jax.Array:
        logits: Any = readout.apply({"params": params["readout"]}, states(params["net"], xs))
        return logits[:, 0]

    return Classifier(init, states, logits)
