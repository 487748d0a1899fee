"""rnnx's layers, with default settings."""

from collections.abc import Callable
from typing import Any

import jax

import rnnx
from experiments.speed.measure import compiled
from experiments.speed.peers.net import Net, Prepared, prepared

LAYERS: dict[str, Callable[..., rnnx.Layer]] = {"elman": rnnx.elman, "lstm": rnnx.lstm, "gru": rnnx.gru}


def plain(cell: str, width: int, **options: Any) -> rnnx.Layer:
    """A layer under the plain evaluator, whose gradient is JAX's own."""
    return rnnx.scan(getattr(rnnx.cells, cell)(width, **options))


def width_of(params: Any) -> int:
    return params["recurrent_kernel"].shape[0]


def net(layer: rnnx.Layer, params: Any) -> Net:
    def run(params: Any, xs: jax.Array) -> jax.Array:
        return rnnx.unroll(layer, params, xs)[1]

    def start(params: Any, x: jax.Array) -> Any:
        return layer.initial_carry(params, x[:, None], None)

    def step(params: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        carry, ys = rnnx.unroll(layer, params, x[:, None], carry=carry)
        return carry, ys[:, 0]

    return Net(params, run, lambda params: (layer, params), start, step)


def prepare(cell: str, params: Any, xs: jax.Array) -> Prepared:
    return prepared(net(LAYERS[cell](width_of(params)), params), xs)


def generated(layer: rnnx.Layer, params: Any, x: jax.Array, steps: int) -> Callable[[], Any]:
    def run(params: Any, x: jax.Array) -> jax.Array:
        carry = layer.initial_carry(params, x[:, None], None)
        return rnnx.generate(layer, params, carry, x, steps=steps, sample=lambda key, y: y)[1]

    return compiled(run, params, x).on(params, x)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Callable[[], Any]:
    return generated(LAYERS[cell](width_of(params)), params, x, steps)
