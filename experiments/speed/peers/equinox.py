"""Equinox: its cells under `lax.scan` under `jax.vmap`, as in its documentation. It has no Elman cell."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from experiments.speed.peers.net import Net, prepared, streamed
from experiments.speed.peers.rnnx import LAYERS, width_of
from rnnx.interop import from_equinox, to_equinox

CELLS: dict[str, Any] = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}


def net(cell: str, params: Any) -> Net:
    features, width = params["input_kernel"].shape[0], width_of(params)
    made = CELLS[cell](features, width, key=jax.random.key(0))

    def initial() -> Any:
        zero = jnp.zeros(width)
        return (zero, zero) if cell == "lstm" else zero

    def one(made: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        carry = made(x, carry)
        return carry, carry[0] if cell == "lstm" else carry

    def run(made: Any, xs: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: jax.lax.scan(lambda carry, x: one(made, carry, x), initial(), x)[1])(xs)

    def start(made: Any, x: jax.Array) -> Any:
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (x.shape[0], width)), initial())

    return Net(
        to_equinox(LAYERS[cell](width), params, like=made),
        run,
        from_equinox,
        start,
        step=jax.vmap(one, in_axes=(None, 0, 0)),
    )


def prepare(cell: str, params: Any, xs: jax.Array) -> Any:
    return prepared(net(cell, params), xs) if cell in CELLS else None


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Any:
    return streamed(net(cell, params), x, steps) if cell in CELLS else None
