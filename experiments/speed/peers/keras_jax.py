"""Keras on JAX: its layers, called statelessly under `jax.jit`."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads this when it is imported

from typing import Any

import jax
import jax.numpy as jnp
import keras

from experiments.errors import UserError
from experiments.speed.peers.net import Net, prepared, streamed
from experiments.speed.peers.rnnx import LAYERS, width_of
from rnnx.interop import from_keras, to_keras

if keras.backend.backend() != "jax":
    raise UserError(f"Keras runs on {keras.backend.backend()}, but is measured on JAX: set KERAS_BACKEND=jax.")

KINDS: dict[str, Any] = {"elman": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def net(cell: str, params: Any) -> Net:
    features, width = params["input_kernel"].shape[0], width_of(params)
    layer = KINDS[cell](width, return_sequences=True)
    layer.build((None, None, features))
    layer.set_weights(to_keras(LAYERS[cell](width), params, like=layer))
    others = [v.value for v in layer.non_trainable_variables]

    def run(weights: Any, xs: jax.Array) -> jax.Array:
        return layer.stateless_call(weights, others, xs)[0]

    def back(weights: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(layer.trainable_variables, weights))):
            return from_keras(layer)

    def start(weights: Any, x: jax.Array) -> Any:
        zero = jnp.zeros((x.shape[0], width))
        return [zero, zero] if cell == "lstm" else [zero]

    def step(weights: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        (y, carry), _ = layer.cell.stateless_call(weights, others, x, carry)
        return carry, y

    return Net([v.value for v in layer.trainable_variables], run, back, start, step)


def prepare(cell: str, params: Any, xs: jax.Array) -> Any:
    return prepared(net(cell, params), xs)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Any:
    return streamed(net(cell, params), x, steps)
