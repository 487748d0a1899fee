"""Flax linen: `nn.RNN`. Its OptimizedLSTMCell computes what its LSTMCell does, and took less time at small widths."""

import functools
from typing import Any

import flax.linen as nn
import jax

from experiments.speed.peers.net import Net, prepared, streamed
from experiments.speed.peers.rnnx import LAYERS, width_of
from rnnx.interop import from_flax, to_flax

CELLS: dict[str, Any] = {"elman": nn.SimpleCell, "lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}


def net(cell: str, params: Any) -> Net:
    width = width_of(params)
    one, rnn = CELLS[cell](width), nn.RNN(CELLS[cell](width))

    def run(weights: Any, xs: jax.Array) -> Any:
        return rnn.apply({"params": weights}, xs)

    return Net(
        to_flax(LAYERS[cell](width), params, like=rnn),
        run,
        functools.partial(from_flax, rnn),
        start=lambda weights, x: one.initialize_carry(jax.random.key(0), x.shape),
        step=lambda weights, carry, x: one.apply({"params": weights["cell"]}, carry, x),
    )


def prepare(cell: str, params: Any, xs: jax.Array) -> Any:
    return prepared(net(cell, params), xs)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Any:
    return streamed(net(cell, params), x, steps)
