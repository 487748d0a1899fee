"""Long expressive memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, Positive, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, exportable, factory
from rnnx.cells._kernels import (
    Initializer,
    affine,
    default_kernel_init,
    default_recurrent_init,
    dot,
    gated_init,
)
from rnnx.naming import named


@exportable
class LEMCarry(NamedTuple):
    """The state of a LEM: the output `y` and the memory `z`, each `[batch, H]` (in a cell: `(H,)`)."""

    y: jax.Array
    z: jax.Array


@factory
@validated
def lem(
    width: int,
    *,
    dt: Positive = 1.0,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""Long expressive memory: two coupled equations with learned time steps, for signals with several time scales.

    .. math::
        a &= \Delta t\, \sigma(W_1 x_t + R_1 y_{t-1} + b_1), \qquad
        \bar a = \Delta t\, \sigma(W_2 x_t + R_2 y_{t-1} + b_2) \\
        z_t &= (1 - a) \odot z_{t-1} + a \odot \tanh(W_z x_t + R_z y_{t-1} + b_z) \\
        y_t &= (1 - \bar a) \odot y_{t-1} + \bar a \odot \tanh(W_y x_t + R_y z_t + b_y)

    Args:
        width: H, the number of units of each equation.
        dt: :math:`\Delta t`, the longest time step; the default in the authors' code is also 1.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order 1, 2, z, y: `input_kernel` (D, 4H), `recurrent_kernel`
        (H, 4H), where the y block multiplies z, `bias` (4H,). One step takes x `(D,)` and `LEMCarry(y, z)`, each
        `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: continuous time | long expressive memory | Rusch et al. 2022 | 4 H (D + H + 1) parameters.

    Named for `rnnx.expose`: `a`, `a_bar`, with a_bar for :math:`\bar a`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other libraries: in the authors' code, the order is 2, 1, then the input parts of y and z; the kernel that
    multiplies z is a separate parameter. (In torchrecurrent 0.2.5, y reads the z of the previous step, which is a
    different model.)

    Reference: T. K. Rusch et al., *Long expressive memory for sequence modeling*, ICLR 2022, arXiv 2110.04744.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.lem(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.z.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("lem", width, 4, *inits, param_dtype)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> LEMCarry:
        zero = jnp.zeros((width,), w["bias"].dtype)
        return LEMCarry(zero, zero)

    def step(w: Params, carry: LEMCarry, x: jax.Array) -> tuple[LEMCarry, jax.Array]:
        y, z = carry
        reads_y, reads_z = w["recurrent_kernel"][:, : 3 * width], w["recurrent_kernel"][:, 3 * width :]
        x_gates, x_y = jnp.split(x, [3 * width], axis=-1)
        s, s_bar, n = jnp.split(x_gates + dot(y, reads_y, x.dtype), 3, axis=-1)
        a, a_bar = named(a=dt * sigmoid(s), a_bar=dt * sigmoid(s_bar))
        z = (1 - a) * z + a * jnp.tanh(n)
        y = (1 - a_bar) * y + a_bar * jnp.tanh(x_y + dot(z, reads_z, x.dtype))
        return LEMCarry(y, z), y

    return cell(init, initial_carry, step, project=affine)
