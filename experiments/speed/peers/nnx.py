"""Flax nnx: `nnx.RNN`, split into its graph and its weights so that it runs under plain `jax.jit`.

`nnx.RNN` carries the weights through its loop; with `state_axes` that broadcast them it took as long.
"""

from typing import Any

import jax
from flax import nnx

from experiments.speed.peers.net import Net, prepared, streamed
from experiments.speed.peers.rnnx import LAYERS, width_of
from rnnx.interop import from_flax, to_flax

CELLS: dict[str, Any] = {"elman": nnx.SimpleCell, "lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}


def net(cell: str, params: Any) -> Net:
    features, width = params["input_kernel"].shape[0], width_of(params)
    rnn = nnx.RNN(CELLS[cell](features, width, rngs=nnx.Rngs(0)))
    nnx.update(rnn.cell, to_flax(LAYERS[cell](width), params, like=rnn.cell))
    parts: Any = nnx.split(rnn, nnx.Param, ...)
    graph, weights, rest = parts

    def made(weights: Any) -> Any:
        return nnx.merge(graph, weights, rest, copy=True)

    def start(weights: Any, x: jax.Array) -> Any:
        return made(weights).cell.initialize_carry(x.shape, nnx.Rngs(0))

    def step(weights: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return made(weights).cell(carry, x)

    return Net(
        weights, lambda weights, xs: made(weights)(xs), lambda weights: from_flax(made(weights).cell), start, step
    )


def prepare(cell: str, params: Any, xs: jax.Array) -> Any:
    return prepared(net(cell, params), xs)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Any:
    return streamed(net(cell, params), x, steps)
