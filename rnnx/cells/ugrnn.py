"""The update gate recurrent network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import (
    Initializer,
    affine,
    default_kernel_init,
    default_recurrent_init,
    dot,
    gated_init,
)
from rnnx.naming import named


@factory
@validated
def ugrnn(
    width: int,
    *,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The update gate RNN: a simple recurrent network with one gate, which controls how much of the state is kept.

    .. math::
        g &= \sigma(W_g x_t + R_g h_{t-1} + b_g) \\
        n &= \tanh(W_n x_t + R_n h_{t-1} + b_n) \\
        h_t &= g \odot h_{t-1} + (1 - g) \odot n, \qquad y_t = h_t

    Args:
        width: H, the number of units.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`, before `forget_bias` is added.
        forget_bias: added to the g part of `bias` when it is initialised. With 1, the unit initially
            forgets little, like an LSTM.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order g, n: `input_kernel` (D, 2H), `recurrent_kernel` (H, 2H),
        `bias` (2H,). One step takes x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | update gate RNN | Collins et al. 2017 | 2 H (D + H + 1) parameters.

    Named for `rnnx.expose`: `g`, `n`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other libraries: TensorFlow's `UGRNNCell` adds the 1 to g at run time; torchrecurrent orders n, g.

    Reference: J. Collins, J. Sohl-Dickstein and D. Sussillo, *Capacity and trainability in recurrent neural
    networks*, ICLR 2017, arXiv 1611.09913.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.ugrnn(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("ugrnn", width, 2, *inits, param_dtype, added_bias=forget_bias)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def step(w: Params, h: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        g, n = jnp.split(z + dot(h, w["recurrent_kernel"], z.dtype), 2, axis=-1)
        g, n = named(g=sigmoid(g), n=jnp.tanh(n))
        h = g * h + (1 - g) * n
        return h, h

    return cell(init, initial_carry, step, project=affine)
