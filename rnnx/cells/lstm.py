"""The long short-term memory."""

from __future__ import annotations

from typing import NamedTuple

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


class LSTMCarry(NamedTuple):
    """The state of an LSTM: the output `h` and the memory `c`, each `[batch, H]` (in a cell: `(H,)`)."""

    h: jax.Array
    c: jax.Array


@factory
def lstm(
    width: int,
    *,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: jnp.dtype = jnp.float32,
) -> Cell:
    r"""The LSTM with a forget gate and no peepholes: what torch, Keras, Flax and Haiku call LSTM.

    .. math::
        i, f, g, o &= W x_t + R h_{t-1} + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t), \qquad y_t = h_t

    Args:
        width: H, the number of units.
        kernel_init: of `input_kernel`. LeCun normal keeps the variance of x through each gate.
        recurrent_kernel_init: of each gate's block of `recurrent_kernel`. Orthogonal: neither grows nor
            shrinks the state that it reads (Saxe et al. 2014).
        bias_init: of `bias`, before `forget_bias` is added.
        forget_bias: added to the f part of `bias` when it is initialised (never at run time). With 1 the
            memory starts by remembering, which lets gradients reach far back from the first update on
            (Gers et al. 2000; Jozefowicz et al. 2015).
        param_dtype: of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order i, f, g, o: `input_kernel` (D, 4H), `recurrent_kernel`
        (H, 4H), `bias` (4H,). One step takes x `(D,)` and `LSTMCarry(h, c)`, each `(H,)`, zero at first, and
        gives y `(H,)`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs which are not floating features.

    Other libraries: torch has two biases (their sum is `bias`) and the same gate order; Flax returns the
    carry as (c, h); Haiku orders i, g, f, o and adds 1 to f at run time; Keras writes c for g.

    References: S. Hochreiter and J. Schmidhuber, *Long short-term memory*, Neural Computation 9 (1997);
    F. Gers, J. Schmidhuber and F. Cummins, *Learning to forget*, Neural Computation 12 (2000).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.lstm(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.c.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """
    check_width(width, "lstm")

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("lstm", width, 4, *inits, param_dtype, added_bias=forget_bias, to_gate=1)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> LSTMCarry:
        zero = jnp.zeros((width,), w["bias"].dtype)
        return LSTMCarry(zero, zero)

    def step(w: Params, carry: LSTMCarry, z: jax.Array) -> tuple[LSTMCarry, jax.Array]:
        h, c = carry
        i, f, g, o = jnp.split(z + dot(h, w["recurrent_kernel"], z.dtype), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return LSTMCarry(h, c), h

    return cell(init, initial_carry, step, project=affine)
