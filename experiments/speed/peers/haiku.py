"""Haiku: `hk.dynamic_unroll`. Its GRU resets before the recurrent product, and its VanillaRNN has relu."""

import functools
from typing import Any

import haiku as hk
import jax

import rnnx
from experiments.speed.peers.net import Net, prepared, streamed
from experiments.speed.peers.rnnx import width_of
from rnnx.interop import from_haiku, to_haiku

CORES: dict[str, Any] = {"elman": hk.VanillaRNN, "lstm": hk.LSTM, "gru": hk.GRU}
OURS: dict[str, Any] = {
    "elman": functools.partial(rnnx.elman, activation=jax.nn.relu),
    "lstm": rnnx.lstm,
    "gru": functools.partial(rnnx.gru, reset_after=False),
}
NOTES = {"elman": "relu", "gru": "resets before"}


def net(cell: str, params: Any) -> Net:
    width = width_of(params)
    params = {name: leaf for name, leaf in params.items() if name != "recurrent_bias"}  # Haiku's GRU has none

    def whole(xs: jax.Array) -> jax.Array:
        core = CORES[cell](width)
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[0]), time_major=False)[0]

    def one(x: jax.Array, carry: Any) -> Any:
        return CORES[cell](width)(x, carry)

    def zeros(batch: int) -> Any:
        return CORES[cell](width).initial_state(batch)

    applied: list[Any] = [hk.without_apply_rng(hk.transform(f)) for f in (whole, one, zeros)]
    run, step, initial = (f.apply for f in applied)

    def turned(weights: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        y, carry = step(weights, x, carry)
        return carry, y

    def start(weights: Any, x: jax.Array) -> Any:
        return initial(weights, x.shape[0])

    return Net(to_haiku(OURS[cell](width), params), run, from_haiku, start, turned)


def prepare(cell: str, params: Any, xs: jax.Array) -> Any:
    return prepared(net(cell, params), xs)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Any:
    return streamed(net(cell, params), x, steps)
