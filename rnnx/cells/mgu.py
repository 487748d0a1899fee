"""The minimal gated unit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import (
    Initializer,
    affine,
    check_width,
    default_kernel_init,
    default_recurrent_init,
    dot,
    gated_init,
)


@factory
def mgu(
    width: int,
    *,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: jnp.dtype = jnp.float32,
) -> Cell:
    r"""The minimal gated unit: a GRU whose one gate both resets and updates.

    .. math::
        f &= \sigma(W_f x_t + R_f h_{t-1} + b_f) \\
        n &= \tanh(W_n x_t + R_n (f \odot h_{t-1}) + b_n) \\
        h_t &= (1 - f) \odot h_{t-1} + f \odot n, \qquad y_t = h_t

    Args:
        width: H, the number of units.
        kernel_init: of `input_kernel`. LeCun normal keeps the variance of x through each gate.
        recurrent_kernel_init: of each gate's block of `recurrent_kernel`. Orthogonal: neither grows nor
            shrinks the state that it reads (Saxe et al. 2014).
        bias_init: of `bias`, before `forget_bias` is added.
        forget_bias: added to the f part of `bias` when it is initialised. As f lets in what is new, with 1 the
            unit begins nearer to a simple recurrent network than to one that holds its state.
        param_dtype: of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order f, n: `input_kernel` (D, 2H), `recurrent_kernel` (H, 2H),
        `bias` (2H,). One step takes x `(D,)` and the carry h `(H,)`, zero at first, and gives y `(H,)`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs which are not floating features.

    Other libraries: Flax's `MGUCell` resets after the product and exchanges the roles of f and 1 - f.

    Reference: G.-B. Zhou et al., *Minimal gated unit for recurrent neural networks*, International Journal
    of Automation and Computing 13 (2016), arXiv 1603.09420.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.mgu(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """
    check_width(width, "mgu")

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("mgu", width, 2, *inits, param_dtype, added_bias=forget_bias)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def step(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_f, x_n = jnp.split(x, 2, axis=-1)
        kernel_f, kernel_n = jnp.split(w["recurrent_kernel"], 2, axis=-1)
        f = sigmoid(x_f + dot(h, kernel_f, x.dtype))
        n = jnp.tanh(x_n + dot(f * h, kernel_n, x.dtype))
        h = (1 - f) * h + f * n
        return h, h

    return cell(init, initial_carry, step, project=affine)
