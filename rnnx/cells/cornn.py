"""The coupled oscillatory network."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from rnnx.arguments import DType, NonNegative, Positive, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, exportable, factory
from rnnx.cells._kernels import Initializer, affine, default_kernel_init, dot, features_of


@exportable
class CoRNNCarry(NamedTuple):
    """The state of a coRNN: positions `y` and velocities `z`, each `[batch, H]` (in a cell: `(H,)`)."""

    y: jax.Array
    z: jax.Array


@factory
@validated
def cornn(
    width: int,
    *,
    dt: Positive = 0.042,
    gamma: NonNegative = 2.7,
    epsilon: NonNegative = 4.7,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The coupled oscillatory RNN: damped oscillators, driven by the input and by each other.

    .. math::
        z_t &= z_{t-1} + \Delta t\, (\tanh(W x_t + R y_{t-1} + \bar R z_{t-1} + b)
               - \gamma y_{t-1} - \epsilon z_{t-1}) \\
        y_t &= y_{t-1} + \Delta t\, z_t

    Args:
        width: H, the number of oscillators.
        dt: :math:`\Delta t`, the time step.
        gamma: :math:`\gamma`, the squared frequency.
        epsilon: :math:`\epsilon`, the damping. Undriven oscillators come to rest if
            :math:`0 < \Delta t^2 \gamma < 4 - 2 \Delta t\, \epsilon` and :math:`0 < \epsilon`.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through W.
        recurrent_kernel_init: initialises both blocks of `recurrent_kernel` together. LeCun normal: damping bounds
            the states, so the kernel need not preserve their norm.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    The defaults of dt, gamma and epsilon are those of the authors' code for pixel-by-pixel digit classification. The
    authors tune all three for each task, up to gamma = 66 and epsilon = 15.

    Returns:
        The Cell. Params: `input_kernel` (D, H), `recurrent_kernel` (2H, H), whose first H rows read y and whose
        last H rows read z, `bias` (H,). One step takes x `(D,)` and `CoRNNCarry(y, z)`, each `(H,)`, initially zero,
        and returns y `(H,)`.

    At a glance: continuous time | coupled oscillators | Rusch & Mishra 2021 | H (D + 2 H + 1) parameters.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other forms: the damping may instead use z at time t, which makes the step implicit; the authors' code, like this
    cell, is explicit. Their code has one kernel for the concatenation of x, z, y.

    Reference: T. K. Rusch and S. Mishra, *Coupled oscillatory recurrent neural network (coRNN)*, ICLR 2021,
    arXiv 2010.00951.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.cornn(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.z.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "cornn")
        k_input, k_recurrent, k_bias = jax.random.split(key, 3)
        return {
            "input_kernel": kernel_init(k_input, (features, width), param_dtype),
            "recurrent_kernel": recurrent_kernel_init(k_recurrent, (2 * width, width), param_dtype),
            "bias": bias_init(k_bias, (width,), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> CoRNNCarry:
        zero = jnp.zeros((width,), w["bias"].dtype)
        return CoRNNCarry(zero, zero)

    def step(w: Params, carry: CoRNNCarry, u: jax.Array) -> tuple[CoRNNCarry, jax.Array]:
        y, z = carry
        force = jnp.tanh(u + dot(jnp.concatenate([y, z]), w["recurrent_kernel"], u.dtype))
        z = z + dt * (force - gamma * y - epsilon * z)
        y = y + dt * z
        return CoRNNCarry(y, z), y

    return cell(init, initial_carry, step, project=affine)
