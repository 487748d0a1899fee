"""The real-gated linear recurrent unit."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softplus
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, check_heads, default_kernel_init, features_of
from rnnx.cells._linear import check_channels, inverse_softplus, upcast
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named

DECAY = 8.0


class _Input(NamedTuple):
    r: jax.Array
    i: jax.Array
    x: jax.Array


@factory
@validated
def rg_lru(
    width: int,
    *,
    heads: int = 1,
    a_min: float = 0.9,
    a_max: float = 0.999,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The real-gated linear recurrent unit: the recurrence of Griffin and RecurrentGemma.

    .. math::
        r, i &= \sigma(W x_t + b) \\
        a_t &= \exp(-8\, r \odot \mathrm{softplus}(\Lambda)) \\
        h_t &= a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot (i \odot x_t), \qquad y_t = h_t

    Args:
        width: H, the number of input and output features.
        heads: the number of blocks that the features are split into; it must divide H. Each gate reads only its own
            block. 1 gives the paper's equation; Griffin itself was run with more.
        a_min: the smallest initial a, at r = 1.
        a_max: the largest initial a, at r = 1. a^2 is drawn uniformly between a_min^2 and a_max^2; by default, the
            units initially remember for about 10 to 1000 steps.
        kernel_init: initialises each block of the gates' kernels. LeCun normal preserves the variance of x.
        bias_init: initialises the gates' biases.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params: `gate_kernel` (2, heads, H/heads, H/heads) and `gate_bias` (2, H), both in
        the order r, i; `rate` (\Lambda) (H,). One step takes x `(H,)` and the carry h `(H,)`, initially zero, and
        returns y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | real-gated linear recurrent unit | De et al. 2024 | H (2 H + 3) parameters.

    Named for `rnnx.expose`: `r`, `i`, `a`.

    Raises:
        ValueError: for a width below 1, heads that do not divide it, and (in `init`) for inputs that are not H
            floating features.

    Other forms: RecurrentGemma's code omits the square root at the first step of a sequence, and draws the eighth root
    of a, not a, from the interval. Here, every step follows the equation.

    Reference: S. De et al., *Griffin: mixing gated linear recurrences with local attention for efficient language
    models*, arXiv 2402.19427 (2024).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.rg_lru(4, heads=2)
        >>> xs = jnp.ones((2, 5, 4))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """
    check_heads(width, heads, "rg_lru")
    if not 0 < a_min <= a_max < 1:
        raise ValueError(f"rg_lru: a_min is {a_min} and a_max is {a_max}, but they must satisfy 0 < a_min <= a_max < 1")
    size = width // heads

    def init(key: Key, x: PyTree) -> Params:
        check_channels(features_of(x, "rg_lru"), width, "rg_lru")
        k_gates, k_bias, k_rate = jax.random.split(key, 3)
        keys = jax.random.split(k_gates, 2 * heads)
        blocks = jax.vmap(lambda k: kernel_init(k, (size, size), jnp.float32))(keys)
        square = jax.random.uniform(k_rate, (width,), minval=a_min**2, maxval=a_max**2)
        return {
            "gate_kernel": blocks.reshape(2, heads, size, size).astype(param_dtype),
            "gate_bias": bias_init(k_bias, (2, width), param_dtype),
            "rate": inverse_softplus(-0.5 * jnp.log(square) / DECAY).astype(param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros_like(w["rate"])

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        kernel, gathered = w["gate_kernel"].astype(x.dtype), jnp.promote_types(x.dtype, jnp.float32)
        gates = jnp.einsum("hd,ghde->ghe", x.reshape(heads, size), kernel, preferred_element_type=gathered)
        r, i = gates.reshape(2, width) + upcast(w["gate_bias"])
        return _Input(r, i, x)

    def lift(w: Params, z: _Input) -> Affine:
        (r, i, x), rate = upcast(z), upcast(w["rate"])
        r, i = named(r=sigmoid(r), i=sigmoid(i))
        log_a = -DECAY * r * softplus(rate)
        left = -jnp.expm1(2 * log_a)  # 1 - a^2; the next line keeps it above zero, where the root has a finite gradient
        root = jnp.sqrt(jnp.maximum(left, jnp.finfo(left.dtype).tiny))
        (a,) = named(a=jnp.exp(log_a))
        return Affine(a, root * i * x)

    def readout(w: Params, h: jax.Array, z: _Input) -> jax.Array:
        return h

    return affine_cell(init, initial_carry, lift, readout, project=project)
