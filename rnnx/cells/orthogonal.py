"""The orthogonal recurrent network: its recurrent matrix stays orthogonal under any optimiser."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import Initializer, default_kernel_init, dot, features_of


def rotations(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> jax.Array:
    r"""A lower triangular matrix whose Cayley map rotates pairs of units by angles uniform in :math:`[0, \pi/2]`."""
    width, wide_dtype = shape[0], jnp.promote_types(dtype, jnp.float32)
    angles = jax.random.uniform(key, (width // 2,), wide_dtype, 0, jnp.pi / 2)
    pair = jnp.arange(0, width - 1, 2)
    return jnp.zeros(shape, dtype).at[pair + 1, pair].set(jnp.tan(angles / 2).astype(dtype))


def modrelu(h: jax.Array, bias: jax.Array) -> jax.Array:
    """`sign(h) relu(|h| + bias)`: keeps the sign and shifts the magnitude."""
    return jnp.sign(h) * jax.nn.relu(jnp.abs(h) + bias)


@factory
@validated
def orthogonal(
    width: int,
    *,
    kernel_init: Initializer = default_kernel_init,
    skew_init: Initializer = rotations,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The orthogonal RNN with a Cayley map: the recurrent matrix rotates the state and preserves its norm.

    .. math::
        A = L - L^\top, \qquad Q = (I + A)^{-1} (I - A), \qquad
        h_t = \mathrm{modrelu}(W x_t + Q h_{t-1}, b), \qquad y_t = h_t

    with :math:`\mathrm{modrelu}(v, b) = \mathrm{sign}(v)\,\mathrm{relu}(|v| + b)`. L is the strict lower triangle
    of a parameter. Q is orthogonal for every L, so any optimiser may be used. Q is computed once per call
    of the layer, not once per step.

    Args:
        width: H, the number of units.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through W.
        skew_init: initialises `skew`. By default, Q initially rotates pairs of units by angles uniform in
            :math:`[0, \pi/2]`, as in the authors' code, so the state oscillates with many different periods.
        bias_init: initialises `bias`. With zero, modrelu is the identity and the network is linear.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `input_kernel` (D, H), `skew` (H, H), of which only the strict lower triangle is used,
        `bias` (H,). One step takes x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: structured | orthogonal RNN by a Cayley map | Helfrich et al. 2018 | H (D + H + 1) parameters.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other forms: the paper multiplies Q by a fixed diagonal matrix of signs, to reach matrices with eigenvalue -1;
    M. Lezcano-Casado and D. Martinez-Rubio (ICML 2019) use the matrix exponential instead of the Cayley map. torch's
    parametrization writes the Cayley map as :math:`(I - A'/2)^{-1} (I + A'/2)`, so :math:`A' = -2A`.

    Reference: K. Helfrich, D. Willmott and Q. Ye, *Orthogonal recurrent neural networks with scaled Cayley
    transform*, ICML 2018, arXiv 1707.09520.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.orthogonal(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "orthogonal")
        k_input, k_skew, k_bias = jax.random.split(key, 3)
        return {
            "input_kernel": kernel_init(k_input, (features, width), param_dtype),
            "skew": skew_init(k_skew, (width, width), param_dtype),
            "bias": bias_init(k_bias, (width,), param_dtype),
        }

    def prepare(params: Params, key: Key | None) -> Params:
        dtype = jnp.promote_types(params["skew"].dtype, jnp.float32)  # solve supports no narrower dtype
        lower, identity = jnp.tril(params["skew"].astype(dtype), -1), jnp.eye(width, dtype=dtype)
        skew = lower - lower.T
        return {**params, "recurrent_kernel": jnp.linalg.solve(identity + skew, identity - skew).T}

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return dot(x, w["input_kernel"])

    def step(w: Params, h: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = modrelu(z + dot(h, w["recurrent_kernel"], z.dtype), w["bias"])
        return h, h

    return cell(init, initial_carry, step, prepare=prepare, project=project)
