"""rnnx's cells under the plain `rnnx.scan`, whose gradient is JAX's own."""

from collections.abc import Callable
from typing import Any

import jax

from experiments.speed.peers.net import Prepared, prepared
from experiments.speed.peers.rnnx import generated, net, plain, width_of


def prepare(cell: str, params: Any, xs: jax.Array) -> Prepared:
    return prepared(net(plain(cell, width_of(params)), params), xs)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Callable[[], Any]:
    return generated(plain(cell, width_of(params)), params, x, steps)
