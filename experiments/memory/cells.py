"""The cells by name, each a function from a width to a Layer."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from rnnx.linear import Affine

Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]


@rnnx.factory
def signed_min_gru(width: int, *, bias_init: Initializer = nn.initializers.zeros) -> rnnx.AssociativeCell:
    r"""The minGRU with eigenvalues in [-1, 1] in place of [0, 1].

    .. math::
        z, n &= W x_t + b \\
        h_t &= (1 - 2\sigma(z)) \odot h_{t-1} + \sigma(z) \odot n

    One factor, 2, tells it from `rnnx.cells.min_gru` (in its paper's first form). With it a step can turn a unit round,
    h into n - h, which is what parity asks for; a product of numbers in [0, 1] never turns anything round.

    Returns:
        The AssociativeCell. Params: `input_kernel` (D, 2H), `bias` (2H,), z first. One step takes x `(D,)` and the
        carry h `(H,)`, zero at first, and gives y `(H,)`.

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
    """Biases of gates that let in so little at first that units remember for some 1 to 200 steps.

    `scales` has one number for each gate: -1 for what lets in, 0 for gates whose bias begins at zero. C. Tallec and
    Y. Ollivier, *Can recurrent neural networks warp time?*, ICLR 2018.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        steps = jax.random.uniform(key, (shape[0] // len(scales),), dtype, 0.0, math.log(200.0))
        return jnp.concatenate([scale * steps for scale in scales])

    return init


def irnn(width: int) -> rnnx.Layer:
    """Relu units whose recurrent kernel begins as the identity."""
    return rnnx.elman(width, activation=jax.nn.relu, recurrent_kernel_init=rnnx.cells.scaled_identity())


def min_gru(width: int) -> rnnx.Layer:
    return rnnx.min_gru(width, bias_init=slowly(-1, 0))


def min_lstm(width: int) -> rnnx.Layer:
    return rnnx.min_lstm(width, bias_init=slowly(0, -1, 0))


NONLINEAR = [
    "elman",
    "lstm",
    "gru",
    "mgu",
    "ugrnn",
    "janet",
    "indrnn",
    "rhn",
    "slstm",
    "orthogonal",
    "cornn",
    "lem",
    "lmu",
]
LINEAR = ["qrnn", "sru", "gla", "mlstm", "delta_net", "gated_delta_net", "lru", "s4d", "s5", "s6", "rg_lru"]

nonlinear: dict[str, Callable[[int], rnnx.Layer]] = {name: getattr(rnnx, name) for name in NONLINEAR} | {"irnn": irnn}
linear: dict[str, Callable[[int], rnnx.Layer]] = {name: getattr(rnnx, name) for name in LINEAR} | {
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "signed_min_gru": lambda width: rnnx.associative_scan(signed_min_gru(width)),
}
CELLS = nonlinear | linear
"""By name. The gates of linear ones read the input alone, and some of them want as many features as they give."""
