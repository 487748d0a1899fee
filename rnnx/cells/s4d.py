"""The diagonal structured state space layer."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnx.arguments import DType, Positive, ascending, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, Weights, factory
from rnnx.cells._kernels import features_of
from rnnx.cells._linear import check_channels, exp_of, held, log_uniform, upcast
from rnnx.linear import Affine, Complex, affine_cell, complex_product


class _Input(NamedTuple):
    b: Complex
    x: jax.Array


@factory
@validated
def s4d(
    width: int,
    *,
    state: int = 64,
    step_min: Positive = 0.001,
    step_max: Positive = 0.1,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The S4D layer: a separate diagonal state space model for each feature.

    .. math::
        \bar A &= e^{A \Delta}, \qquad \bar B = A^{-1}(\bar A - 1), \qquad A = -e^{\alpha} + i \omega \\
        h_t &= \bar A \odot h_{t-1} + \bar B x_t, \qquad y_t = 2\,\mathrm{Re}(C \cdot h_t) + D x_t

    for each feature x separately. The units form conjugate pairs; only one unit of each pair is kept, which explains
    the factor 2. Features are not mixed: put an `nn.Dense` after the layer.

    Args:
        width: H, the number of input and output features.
        state: N, the size of each feature's state; it must be even. N/2 complex units are kept.
        step_min: the shortest initial time step \Delta.
        step_max: the longest initial time step. Each feature has its own \Delta, initially log-uniform between the two.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params: `log_step` (H,), `log_decay` (\alpha) and `frequency` (\omega), (H, N/2),
        `output_kernel_re`, `output_kernel_im` (H, N/2), `skip` (H,). A starts as -1/2 + i\pi n (S4D-Lin), which
        the paper found as good as the HiPPO values, and simpler; C is complex normal with variance 1; D is standard
        normal. One step takes x `(H,)` and the carry `(re, im)`, each `(H, N/2)`, initially zero, and returns y
        `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | diagonal state space for each feature | Gu et al. 2022 | 130 H parameters.

    Raises:
        ValueError: for a width below 1, a state that is odd or below 2, and (in `init`) for inputs that are not H
            floating features.

    Reference: A. Gu, A. Gupta, K. Goel and C. Ré, *On the parameterization and initialization of diagonal state
    space models*, NeurIPS 2022, arXiv 2206.11893.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.s4d(4, state=16)
        >>> xs = jnp.ones((2, 5, 4))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.re.shape, ys.shape
        ((2, 4, 8), (2, 5, 4))
    """
    ascending("s4d", step_min=step_min, step_max=step_max)
    if state % 2:
        raise ValueError(f"s4d: the state is {state}, but it must be even, 2 or more")
    shape = (width, state // 2)

    def init(key: Key, x: PyTree) -> Params:
        check_channels(features_of(x, "s4d"), width, "s4d")
        k_re, k_im, k_skip, k_step = jax.random.split(key, 4)
        params = {
            "log_step": log_uniform(step_min, step_max)(k_step, (width,), jnp.float32),
            "log_decay": jnp.full(shape, math.log(0.5)),
            "frequency": jnp.broadcast_to(math.pi * jnp.arange(state // 2).astype(float), shape),
            "output_kernel_re": math.sqrt(0.5) * jax.random.normal(k_re, shape),
            "output_kernel_im": math.sqrt(0.5) * jax.random.normal(k_im, shape),
            "skip": jax.random.normal(k_skip, (width,)),
        }
        return jax.tree.map(lambda a: a.astype(param_dtype), params)

    def prepare(params: Params, key: Key | None) -> Weights:
        rate = Complex(
            jnp.minimum(-exp_of(params["log_decay"]), -1e-9), upcast(params["frequency"])
        )  # `held` divides by the rate
        decay, scale = held(rate, exp_of(params["log_step"])[:, None])
        return {**params, "decay": decay, "scale": scale}

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> Complex:
        zero = jnp.zeros_like(w["frequency"])
        return Complex(zero, zero)

    def project(w: Weights, x: jax.Array, key: Key | None) -> _Input:
        u, scale = upcast(x)[:, None], w["scale"]
        return _Input(Complex(scale.re * u, scale.im * u), x)

    def lift(w: Weights, z: _Input) -> Affine:
        return Affine(w["decay"], z.b)

    def readout(w: Weights, h: Complex, z: _Input) -> jax.Array:
        x, c_re, c_im = z.x, w["output_kernel_re"], w["output_kernel_im"]
        real = (c_re * h.re - c_im * h.im).sum(axis=-1)
        return 2 * real.astype(x.dtype) + w["skip"].astype(x.dtype) * x

    return affine_cell(init, initial_carry, lift, readout, product=complex_product, prepare=prepare, project=project)
