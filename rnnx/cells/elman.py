"""The simple recurrent network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from rnnx.arguments import Activation, DType, validated
from rnnx.base import Cell, Key, LinearizedStep, Params, PyTree, cell, factory
from rnnx.cells._kernels import (
    Initializer,
    default_kernel_init,
    default_recurrent_init,
    dot,
    gated_init,
)


@factory
@validated
def elman(
    width: int,
    *,
    activation: Activation = jnp.tanh,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The simple recurrent network (Elman network).

    .. math::
        h_t = \tanh(W x_t + R h_{t-1} + b), \qquad y_t = h_t

    Args:
        width: H, the number of hidden units.
        activation: tanh, `jax.nn.relu`, or any other function of an array.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through W.
        recurrent_kernel_init: initialises `recurrent_kernel`. Orthogonal: it preserves the norm of the state, so
            that gradients survive more steps (Saxe et al. 2014).
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `input_kernel` (D, H), `recurrent_kernel` (H, H), `bias` (H,). One step takes
        x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | simple recurrent network; tanh, relu, ...; IRNN with `rnnx.cells.scaled_identity` | Elman 1990,
    Le et al. 2015 | H (D + H + 1) parameters.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other libraries: the same equation in torch (`nn.RNN`, which adds two biases), Keras and Flax.

    Relu units whose R starts as the identity initially keep their state (the IRNN of Q. Le, N. Jaitly and
    G. Hinton 2015, arXiv 1504.00941)::

        rnnx.elman(4, activation=jax.nn.relu, recurrent_kernel_init=rnnx.cells.scaled_identity())

    Reference: J. L. Elman, *Finding structure in time*, Cognitive Science 14 (1990).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.elman(4, activation=jax.nn.relu)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("elman", width, 1, *inits, param_dtype)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros_like(w["bias"])

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return dot(x, w["input_kernel"]) + w["bias"].astype(x.dtype)

    def forward(w: Params, h: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        u = z + dot(h, w["recurrent_kernel"], z.dtype)
        h = activation(u)
        return h, h, h if activation is jnp.tanh else u

    def input_tangent(dw: Params, dz: jax.Array, h: jax.Array, residual: jax.Array) -> jax.Array:
        return dz + dot(h, dw["recurrent_kernel"], dz.dtype)

    def jvp(w: Params, h: jax.Array, residual: jax.Array, dh: jax.Array, dz: jax.Array) -> tuple[jax.Array, jax.Array]:
        du = dz + dot(dh, w["recurrent_kernel"], dz.dtype)
        dh = (1 - residual**2) * du if activation is jnp.tanh else jax.jvp(activation, (residual,), (du,))[1]
        return dh, dh

    return cell(init, initial_carry, LinearizedStep(forward, input_tangent, jvp), project=project)
