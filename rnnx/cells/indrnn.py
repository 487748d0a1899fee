"""The independently recurrent network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn.initializers import uniform, zeros

from rnnx.arguments import Activation, DType, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import Initializer, affine, default_kernel_init, features_of, rounded

unit_uniform: Initializer = rounded(uniform(1.0))


@factory
@validated
def indrnn(
    width: int,
    *,
    activation: Activation = jax.nn.relu,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = unit_uniform,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The independently recurrent network: each unit reads only its own past.

    .. math::
        h_t = \mathrm{relu}(W x_t + u \odot h_{t-1} + b), \qquad y_t = h_t

    Units interact only through the next layer, so stack several layers.

    Args:
        width: H, the number of units.
        activation: relu, as in the paper. With relu, gradients through time have size :math:`\prod u`.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through W.
        recurrent_kernel_init: initialises `recurrent_kernel`. Uniform in [0, 1), as in the authors' code: initially
            the units have memories of all lengths, and no state grows without input (for relu, :math:`|u|^T` bounds the
            gradient over T steps). For tasks of T steps, the authors use weights up to :math:`c^{1/T}`, where c is the
            largest gradient allowed.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `input_kernel` (D, H), `recurrent_kernel` (H,), `bias` (H,). One step takes x `(D,)`
        and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | independently recurrent network | Li et al. 2018 | H (D + 2) parameters.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Reference: S. Li et al., *Independently recurrent neural network (IndRNN): building a longer and deeper
    RNN*, CVPR 2018, arXiv 1803.04831.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.stack(rnnx.indrnn(4), rnnx.indrnn(4))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry[1].shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "indrnn")
        k_input, k_recurrent, k_bias = jax.random.split(key, 3)
        return {
            "input_kernel": kernel_init(k_input, (features, width), param_dtype),
            "recurrent_kernel": recurrent_kernel_init(k_recurrent, (width,), param_dtype),
            "bias": bias_init(k_bias, (width,), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def step(w: Params, h: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = activation(z + w["recurrent_kernel"] * h)
        return h, h

    return cell(init, initial_carry, step, project=affine)
