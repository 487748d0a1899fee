"""The scalar LSTM of xLSTM: exponential gates, kept in range by a stabiliser."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, exportable, factory
from rnnx.cells._kernels import (
    Initializer,
    affine,
    check_heads,
    default_kernel_init,
    default_recurrent_init,
    features_of,
    per_gate,
)
from rnnx.naming import named


@exportable
class SLSTMCarry(NamedTuple):
    """The state of an sLSTM: output `h`, memory `c`, normaliser `n`, stabiliser `m`, each `[batch, H]`."""

    h: jax.Array
    c: jax.Array
    n: jax.Array
    m: jax.Array


@factory
@validated
def slstm(
    width: int,
    *,
    heads: int = 1,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 3.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The sLSTM: an LSTM with an exponential input gate, a normaliser, and heads.

    .. math::
        i, f, z, o &= W x_t + R h_{t-1} + b \\
        m_t &= \max(\log\sigma(f) + m_{t-1},\, i) \\
        i' &= e^{i - m_t}, \qquad f' = e^{\log\sigma(f) + m_{t-1} - m_t} \\
        c_t &= f' \odot c_{t-1} + i' \odot \tanh(z), \qquad n_t = f' \odot n_{t-1} + i' \\
        h_t &= \sigma(o) \odot c_t / n_t, \qquad y_t = h_t

    R is block-diagonal: units read only the state of their own head. The stabiliser m does not change the outputs: it
    cancels in c / n, and keeps c and n in range. While nothing is stored yet (n = 0), m is simply i.

    Args:
        width: H, the number of units.
        heads: the number of blocks that the units are split into; it must divide H.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each head's and gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`, before `forget_bias` is added.
        forget_bias: added to the f part of `bias` when it is initialised. With 3, the memory initially forgets
            little; the unbounded input gate can still overwrite it. (The authors spread this bias over each head's
            units, from 5 down to -7 or from 3 up to 6, and initialise R with zeros.)
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order i, f, z, o: `input_kernel` (D, 4H), `recurrent_kernel`
        (heads, H/heads, 4H/heads), `bias` (4H,). One step takes x `(D,)` and `SLSTMCarry(h, c, n, m)`, each
        `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | scalar LSTM with exponential gates, in heads | Beck et al. 2024 | 4 H (D + H + 1) parameters.

    Named for `rnnx.expose`: `log_i`, `log_f`, `z`, `o`: log_i is i and log_f is :math:`\log\sigma(f)`, of which i' and
    f' are made.

    Raises:
        ValueError: for a width below 1, a number of heads that does not divide it, or (in `init`) inputs that
            are not floating features.

    Other forms: f may be exponential too; this is the sigmoid form, as in the authors' package xlstm. In that package,
    R is transposed, (heads, 4H/heads, H/heads), and the layer adds a convolution before the cell and a norm after it.

    Reference: M. Beck et al., *xLSTM: extended long short-term memory*, NeurIPS 2024, arXiv 2405.04517.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.slstm(4, heads=2)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.m.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """
    check_heads(width, heads, "slstm")
    size = width // heads

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "slstm")
        k_input, k_recurrent, k_bias = jax.random.split(key, 3)
        block = per_gate(recurrent_kernel_init, 4)
        blocks = jax.vmap(lambda k: block(k, (size, 4 * size), param_dtype))(jax.random.split(k_recurrent, heads))
        return {
            "input_kernel": per_gate(kernel_init, 4)(k_input, (features, 4 * width), param_dtype),
            "recurrent_kernel": blocks,
            "bias": bias_init(k_bias, (4 * width,), param_dtype).at[width : 2 * width].add(forget_bias),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> SLSTMCarry:
        zero = jnp.zeros((width,), w["bias"].dtype)
        return SLSTMCarry(zero, zero, zero, zero)

    def step(w: Params, carry: SLSTMCarry, x: jax.Array) -> tuple[SLSTMCarry, jax.Array]:
        h, c, n, m = carry
        by_head = h.reshape(heads, size).astype(x.dtype)
        gates = jnp.einsum("hd,hdg->hg", by_head, w["recurrent_kernel"].astype(x.dtype))
        gates = gates.reshape(heads, 4, size).swapaxes(0, 1).reshape(4, width)
        i, f, z, o = x.reshape(4, width) + gates
        i, log_f = named(log_i=i.astype(m.dtype), log_f=log_sigmoid(f.astype(m.dtype)))
        # Where nothing is stored yet, i alone sets the scale; otherwise, a very negative first i would leave n at 0.
        kept = jnp.where(n == 0, i, log_f + m)
        m_next = jnp.maximum(kept, i)
        i, f = jnp.exp(i - m_next), jnp.exp(kept - m_next)
        z, o = named(z=jnp.tanh(z), o=sigmoid(o))
        c = f * c + i * z
        n = f * n + i
        h = o * c / n
        return SLSTMCarry(h, c, n, m_next), h

    return cell(init, initial_carry, step, project=affine)
