"""Just another network (JANET): an LSTM with only the forget gate."""

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
def janet(
    width: int,
    *,
    beta: float = 1.0,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""JANET: an LSTM with only a forget gate; it writes slightly more than it forgets.

    .. math::
        s &= W_f x_t + R_f h_{t-1} + b_f \\
        n &= \tanh(W_n x_t + R_n h_{t-1} + b_n) \\
        h_t &= \sigma(s) \odot h_{t-1} + (1 - \sigma(s - \beta)) \odot n, \qquad y_t = h_t

    Args:
        width: H, the number of units.
        beta: :math:`\beta`. If it is positive, the unit writes more than it forgets. 1 in the authors' code.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`, before `forget_bias` is added.
        forget_bias: added to the f part of `bias` when it is initialised. With 1, the unit initially forgets
            little. The authors use chrono initialisation instead: log(u), with u uniform between 1 and the longest
            dependency in steps (with about :math:`\log T`, the memory fades over T steps). To do the same, pass
            `forget_bias=0` and a `bias_init` that draws these values.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order f, n: `input_kernel` (D, 2H), `recurrent_kernel` (H, 2H),
        `bias` (2H,). One step takes x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | LSTM with the forget gate alone | van der Westhuizen & Lasenby 2018 | 2 H (D + H + 1)
    parameters.

    Named for `rnnx.expose`: `f`, `i`, `n`: f is :math:`\sigma(s)`, i is :math:`1 - \sigma(s - \beta)`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other libraries: the authors' code orders n, f; torchrecurrent orders f, n and learns beta.

    Reference: J. van der Westhuizen and J. Lasenby, *The unreasonable effectiveness of the forget gate*,
    arXiv 1804.04849.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.janet(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("janet", width, 2, *inits, param_dtype, added_bias=forget_bias)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def step(w: Params, h: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        s, n = jnp.split(z + dot(h, w["recurrent_kernel"], z.dtype), 2, axis=-1)
        f, i, n = named(f=sigmoid(s), i=1 - sigmoid(s - beta), n=jnp.tanh(n))
        h = f * h + i * n
        return h, h

    return cell(init, initial_carry, step, project=affine)
