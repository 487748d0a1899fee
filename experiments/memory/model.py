"""The models: cells by name, each a function from a width to a Layer, and the layers around them."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.memory.config import LINEAR, Model
from rnnx.linear import Affine

Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]


@rnnx.factory
def signed_min_gru(width: int, *, bias_init: Initializer = nn.initializers.zeros) -> rnnx.AssociativeCell:
    r"""The minGRU with eigenvalues in [-1, 1] instead of [0, 1].

    .. math::
        z, n &= W x_t + b \\
        h_t &= (1 - 2\sigma(z)) \odot h_{t-1} + \sigma(z) \odot n

    Only the factor 2 differs from `rnnx.cells.min_gru` (in its paper's first form). It lets a step flip a unit, h into
    n - h, which parity needs; a product of numbers in [0, 1] never flips anything.

    Returns:
        The AssociativeCell. Params: `input_kernel` (D, 2H), `bias` (2H,), z first. One step takes x `(D,)` and the
        carry h `(H,)`, initially zero, and gives y `(H,)`.

    Reference: R. Grazzi et al., *Unlocking state-tracking in linear RNNs through negative eigenvalues*, ICLR 2025,
    arXiv 2411.12537.
    """

    def init(key: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
        k_input, k_bias = jax.random.split(key)
        kernel = nn.initializers.lecun_normal()(k_input, (x.shape[-1], 2 * width))
        return {"input_kernel": kernel, "bias": bias_init(k_bias, (2 * width,), jnp.float32)}

    def initial_carry(w: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return jnp.zeros(width)

    def project(w: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
        return x @ w["input_kernel"] + w["bias"]

    def lift(w: Any, x: jax.Array) -> Affine:
        z, n = jnp.split(x, 2)
        return Affine(1 - 2 * jax.nn.sigmoid(z), jax.nn.sigmoid(z) * n)

    def readout(w: Any, h: jax.Array, x: jax.Array) -> jax.Array:
        return h

    return rnnx.affine_cell(init, initial_carry, lift, readout, project=project)


def slowly(*scales: float) -> Initializer:
    """Gate biases with which units initially remember for 1 to 200 steps.

    `scales` has one number for each gate: -1 for an input gate, 0 for a gate whose bias starts at zero. C. Tallec and
    Y. Ollivier, *Can recurrent neural networks warp time?*, ICLR 2018.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        steps = jax.random.uniform(key, (shape[0] // len(scales),), dtype, 0.0, math.log(200.0))
        return jnp.concatenate([scale * steps for scale in scales])

    return init


def irnn(width: int) -> rnnx.Layer:
    """ReLU units whose recurrent kernel begins as the identity."""
    return rnnx.elman(width, activation=jax.nn.relu, recurrent_kernel_init=rnnx.cells.scaled_identity())


def min_gru(width: int) -> rnnx.Layer:
    return rnnx.min_gru(width, bias_init=slowly(-1, 0))


def min_lstm(width: int) -> rnnx.Layer:
    return rnnx.min_lstm(width, bias_init=slowly(0, -1, 0))


OWN: dict[str, Callable[[int], rnnx.Layer]] = {
    "irnn": irnn,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "signed_min_gru": lambda width: rnnx.associative_scan(signed_min_gru(width)),
}
"""Cells that are not made by rnnx's function of that name."""


def make_model(model: Model, outputs: int, cell: str) -> rnnx.Layer:
    width = model.width
    make = OWN.get(cell) or getattr(rnnx, cell)
    if model.layers == 1:
        first = (nn.Dense(width),) if cell in LINEAR else ()
        return rnnx.stack(*first, make(width), nn.Dense(outputs))
    dense = nn.Dense(2 * width), rnnx.pointwise(jax.nn.gelu), nn.Dense(width)
    block = (
        rnnx.residual(rnnx.stack(nn.LayerNorm(), make(width))),
        rnnx.residual(rnnx.stack(nn.LayerNorm(), *dense)),
    )
    return rnnx.stack(nn.Dense(width), *block * model.layers, nn.LayerNorm(), nn.Dense(outputs))
