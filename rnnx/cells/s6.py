"""The selective state space model of Mamba."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import softplus

from rnnx.arguments import DType, Positive, ascending, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, default_kernel_init, features_of, per_gate
from rnnx.cells._linear import check_channels, exp_of, inverse_softplus, log_uniform, upcast, wide_dot
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


class _Input(NamedTuple):
    step: jax.Array
    b: jax.Array
    c: jax.Array
    x: jax.Array


@factory
@validated
def s6(
    width: int,
    *,
    state: int = 16,
    rank: int | None = None,
    step_min: Positive = 0.001,
    step_max: Positive = 0.1,
    kernel_init: Initializer = default_kernel_init,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The S6 layer, Mamba's selective scan: a state space model whose time step, B and C depend on the input.

    .. math::
        \delta, B, C &= W x_t, \qquad \Delta = \mathrm{softplus}(W_\Delta \delta + b_\Delta) \\
        h_t &= e^{\Delta A} \odot h_{t-1} + (\Delta \odot x_t) B^\top, \qquad A = -e^\alpha \\
        y_t &= h_t C + D \odot x_t

    where h is a matrix (H, N), and \Delta and x have one entry for each row. A Mamba block adds a causal convolution
    before this layer and a gate in parallel: `rnnx.causal_conv` and `rnnx.parallel(..., merge=jnp.multiply)`.

    Args:
        width: H, the number of input and output features.
        state: N, the size of each feature's state.
        rank: R, the rank of the map from x to \Delta; default H/16, rounded up.
        step_min: the shortest initial time step \Delta, for a zero input.
        step_max: the longest initial time step. \Delta is initially log-uniform between the two.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params: `input_kernel` (H, R + 2N), in the order \delta, B, C; `step_kernel` (R, H),
        uniform in [-1/sqrt(R), 1/sqrt(R)), and `step_bias` (H,), whose softplus gives the initial \Delta; `log_decay`
        (\alpha) (H, N), initially log(1..N) (S4D-Real); `skip` (D) (H,), initially one. One step takes x `(H,)` and
        the carry h `(H, N)`, initially zero, and returns y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | selective state space of Mamba | Gu & Dao 2024 | H (2 * ceil(H / 16) + 50) parameters.

    Named for `rnnx.expose`: `delta`: :math:`\Delta`.

    Raises:
        ValueError: for a width, state or rank below 1, and (in `init`) for inputs that are not H floating features.

    A is discretised by zero-order hold, and B by Euler's rule, as in the authors' code.

    Reference: A. Gu and T. Dao, *Mamba: linear-time sequence modeling with selective state spaces*, COLM 2024,
    arXiv 2312.00752.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.stack(rnnx.causal_conv(4), rnnx.pointwise(jax.nn.silu), rnnx.s6(4))
        >>> xs = jnp.ones((2, 5, 4))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry[2].shape, ys.shape
        ((2, 4, 16), (2, 5, 4))
    """
    ascending("s6", step_min=step_min, step_max=step_max)
    inner = math.ceil(width / 16) if rank is None else rank

    def init(key: Key, x: PyTree) -> Params:
        check_channels(features_of(x, "s6"), width, "s6")
        k_input, k_kernel, k_step = jax.random.split(key, 3)
        step = jnp.exp(log_uniform(step_min, step_max)(k_step, (width,), jnp.float32))
        bound = 1 / math.sqrt(inner)
        return {
            "input_kernel": per_gate(kernel_init, 1)(k_input, (width, inner + 2 * state), param_dtype),
            "step_kernel": jax.random.uniform(k_kernel, (inner, width), jnp.float32, -bound, bound).astype(param_dtype),
            "step_bias": inverse_softplus(step).astype(param_dtype),
            "log_decay": jnp.tile(jnp.log(jnp.arange(1.0, state + 1)), (width, 1)).astype(param_dtype),
            "skip": jnp.ones((width,), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros_like(w["log_decay"])

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        low, b, c = jnp.split(wide_dot(x, w["input_kernel"]), [inner, inner + state])
        return _Input(wide_dot(low, w["step_kernel"]) + upcast(w["step_bias"]), b, c, x)

    def lift(w: Params, z: _Input) -> Affine:
        step, b, _, x = upcast(z)
        (step,) = named(delta=softplus(step))
        return Affine(jnp.exp(-step[:, None] * exp_of(w["log_decay"])), jnp.outer(step * x, b))

    def readout(w: Params, h: jax.Array, z: _Input) -> jax.Array:
        return h @ z.c.astype(h.dtype) + w["skip"].astype(h.dtype) * z.x.astype(h.dtype)

    return affine_cell(init, initial_carry, lift, readout, project=project)
