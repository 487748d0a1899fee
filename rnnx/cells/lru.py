"""The linear recurrent unit."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnx.arguments import DType, Positive, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, Weights, factory
from rnnx.cells._kernels import dot, features_of
from rnnx.cells._linear import check_channels, exp_of, exponential, wide_dot
from rnnx.linear import Affine, Complex, affine_cell, complex_product


class _Input(NamedTuple):
    b: Complex
    x: jax.Array


@factory
@validated
def lru(
    width: int,
    *,
    state: int | None = None,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: Positive = 2 * math.pi,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The linear recurrent unit: a diagonal complex recurrence, parametrised so that it is always stable.

    .. math::
        h_t &= \lambda \odot h_{t-1} + \gamma \odot B x_t, \qquad \lambda = \exp(-e^\nu + i e^\theta) \\
        y_t &= \mathrm{Re}(C h_t) + D \odot x_t

    Args:
        width: H, the number of input and output features.
        state: N, the number of complex units; default H.
        r_min: the smallest initial |\lambda|. The closer to 1, the longer the memory: for long sequences, use r_min 0.9
            and r_max 0.999.
        r_max: the largest initial |\lambda|. \lambda is drawn uniformly from the ring between the two radii.
        max_phase: the largest initial angle of \lambda; use a small one (\pi/10) for very long sequences.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params: `nu`, `theta`, `log_gamma` (N,), `input_kernel_re` and `input_kernel_im`
        (H, N), `output_kernel_re` and `output_kernel_im` (N, H), `skip` (H,). B and C are normal with variance
        1/(2H) and 1/N, D is standard normal, and \gamma starts as sqrt(1 - |\lambda|^2), which keeps the variance of
        the state near that of the input. All these are as in the paper's appendix. One step takes x `(H,)` and the
        carry `(re, im)`, each `(N,)`, initially zero, and returns y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | linear recurrent unit, complex diagonal | Orvieto et al. 2023 | 4 H (H + 1) parameters.

    Raises:
        ValueError: for a width or a state below 1, and (in `init`) for inputs that are not H floating features.

    Reference: A. Orvieto et al., *Resurrecting recurrent neural networks for long sequences*, ICML 2023,
    arXiv 2303.06349.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.lru(4, state=6, r_min=0.9, r_max=0.999)
        >>> xs = jnp.ones((2, 5, 4))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.re.shape, ys.shape
        ((2, 6), (2, 5, 4))
    """
    units = width if state is None else state
    if not 0 <= r_min < r_max <= 1:
        raise ValueError(f"lru: r_min is {r_min} and r_max is {r_max}, but they must satisfy 0 <= r_min < r_max <= 1")

    def init(key: Key, x: PyTree) -> Params:
        check_channels(features_of(x, "lru"), width, "lru")
        keys = jax.random.split(key, 7)
        area, phase = jax.random.uniform(keys[0], (2, units), minval=1e-6)
        rate = -0.5 * jnp.log(area * (r_max**2 - r_min**2) + r_min**2)
        nu = jnp.log(jnp.maximum(rate, 1e-7))  # the logarithm is -inf if |\lambda| rounds to 1
        params = {
            "nu": nu,
            "theta": jnp.log(max_phase * phase),
            "log_gamma": 0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(nu))),
            "input_kernel_re": jax.random.normal(keys[1], (width, units)) / math.sqrt(2 * width),
            "input_kernel_im": jax.random.normal(keys[2], (width, units)) / math.sqrt(2 * width),
            "output_kernel_re": jax.random.normal(keys[3], (units, width)) / math.sqrt(units),
            "output_kernel_im": jax.random.normal(keys[4], (units, width)) / math.sqrt(units),
            "skip": jax.random.normal(keys[5], (width,)),
        }
        return jax.tree.map(lambda a: a.astype(param_dtype), params)

    def prepare(params: Params, key: Key | None) -> Weights:
        decay = exponential(Complex(-exp_of(params["nu"]), exp_of(params["theta"])))
        return {**params, "decay": decay, "gamma": exp_of(params["log_gamma"])}

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> Complex:
        zero = jnp.zeros_like(w["nu"])
        return Complex(zero, zero)

    def project(w: Weights, x: jax.Array, key: Key | None) -> _Input:
        re, im = wide_dot(x, w["input_kernel_re"]), wide_dot(x, w["input_kernel_im"])
        return _Input(Complex(w["gamma"] * re, w["gamma"] * im), x)

    def lift(w: Weights, z: _Input) -> Affine:
        return Affine(w["decay"], z.b)

    def readout(w: Weights, h: Complex, z: _Input) -> jax.Array:
        x = z.x
        real = dot(h.re, w["output_kernel_re"], x.dtype) - dot(h.im, w["output_kernel_im"], x.dtype)
        return real + w["skip"].astype(x.dtype) * x

    return affine_cell(init, initial_carry, lift, readout, product=complex_product, prepare=prepare, project=project)
