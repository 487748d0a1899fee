"""The mLSTM: an LSTM with a matrix memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid

from rnnx.arguments import DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, associative_cell, exportable, factory
from rnnx.cells._kernels import Initializer, check_heads, default_kernel_init, features_of, per_gate
from rnnx.cells._linear import outer, upcast, wide_affine, wide_dot
from rnnx.naming import named


@exportable
class MLSTMCarry(NamedTuple):
    """The state of an mLSTM: memory `c` `[batch, heads, K, V]`, normaliser `n` `[batch, heads, K]`, stabiliser `m`
    `[batch, heads]`. The unscaled memory is `exp(m) c`, and the unscaled normaliser is `exp(m) n`."""

    c: jax.Array
    n: jax.Array
    m: jax.Array


class _Element(NamedTuple):
    log_f: jax.Array
    added: MLSTMCarry


class _Input(NamedTuple):
    q: jax.Array
    k: jax.Array
    v: jax.Array
    o: jax.Array
    i: jax.Array
    f: jax.Array


@factory
@validated
def mlstm(
    width: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    kernel_init: Initializer = default_kernel_init,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The mLSTM: a matrix memory with exponential gates that read only the input.

    .. math::
        q, k, v, o &= W x_t + b, \qquad i, f = W_g x_t + b_g \\
        m_t &= \max(\log\sigma(f) + m_{t-1},\, i) \\
        i' &= e^{i - m_t}, \qquad f' = e^{\log\sigma(f) + m_{t-1} - m_t} \\
        C_t &= f' C_{t-1} + i' k v^\top / \sqrt{K}, \qquad n_t = f' n_{t-1} + i' k / \sqrt{K} \\
        y_t &= \sigma(o) \odot \frac{C_t^\top q}{\max(|n_t^\top q|,\, e^{-m_t})}

    for each head separately; each head has one i and one f. The stabiliser m does not change the outputs.

    Args:
        width: H, the number of output features, which is also the total width of the values of all heads.
        heads: the number of heads that the keys and values are split into.
        key_width: the total width of the keys of all heads; default H.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params: `input_kernel` (D, 2K + 2H) and `bias` (2K + 2H,), initially zero, in the order q,
        k, v, o; `gate_kernel` (D, 2 heads), initially zero; and `gate_bias` (2 heads,), with the i part first. As in
        the authors' code, i starts as small normal random numbers, and f ranges from 3 to 6 over the heads: initially
        the gates ignore the input, and each head remembers for a different length of time. One step takes x `(D,)` and
        `MLSTMCarry(c, n, m)`, `(heads, K/heads, H/heads)`, `(heads, K/heads)`, `(heads,)`, initially zero, and returns
        y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | matrix LSTM, in heads | Beck et al. 2024 | (4 H + 2) (D + 1) parameters.

    Named for `rnnx.expose`: `log_i`, `log_f`, `o`: log_i is i and log_f is :math:`\log\sigma(f)`, of which i' and f'
    are made.

    Raises:
        ValueError: for a width below 1, heads that do not divide the widths, and (in `init`) for inputs that are not
            floating features.

    Other forms: the authors' block puts a causal convolution before q and k, computes i and f from q, k and v, and
    normalises each head before o.

    Reference: M. Beck et al., *xLSTM: extended long short-term memory*, NeurIPS 2024, arXiv 2405.04517.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.mlstm(4, heads=2)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.c.shape, ys.shape
        ((2, 2, 2, 2), (2, 5, 4))
    """
    keys = width if key_width is None else key_width
    check_heads(width, heads, "mlstm")
    check_heads(keys, heads, "the keys of mlstm")
    k_size, v_size = keys // heads, width // heads

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "mlstm")
        k_input, k_gate = jax.random.split(key)
        i_bias, f_bias = 0.1 * jax.random.normal(k_gate, (heads,)), jnp.linspace(3.0, 6.0, heads)
        columns = 2 * keys + 2 * width
        return {
            "input_kernel": per_gate(kernel_init, 1)(k_input, (features, columns), param_dtype),
            "bias": jnp.zeros((columns,), param_dtype),
            "gate_kernel": jnp.zeros((features, 2 * heads), param_dtype),
            "gate_bias": jnp.concatenate([i_bias, f_bias]).astype(param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> MLSTMCarry:
        shapes = (heads, k_size, v_size), (heads, k_size), (heads,)
        return MLSTMCarry(*(jnp.zeros(shape, w["bias"].dtype) for shape in shapes))

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        q, k, v, o = jnp.split(wide_affine(w, x), [keys, 2 * keys, 2 * keys + width])
        i, f = jnp.split(wide_dot(x, w["gate_kernel"]) + upcast(w["gate_bias"]), 2)
        q, k = q.reshape(heads, k_size), k.reshape(heads, k_size) / k_size**0.5
        return _Input(q, k, v.reshape(heads, v_size), o.astype(x.dtype), i, f)

    def lift(w: Params, z: _Input) -> _Element:
        log_f, log_i = named(log_f=log_sigmoid(z.f), log_i=z.i)
        return _Element(log_f, MLSTMCarry(outer(z.k, z.v), z.k, log_i))

    def act(carry: MLSTMCarry, element: _Element) -> MLSTMCarry:
        (c, n, m), (log_f, (c_in, n_in, i)) = carry, element
        m_next = jnp.maximum(log_f + m, i)
        f, i = jnp.exp(log_f + m - m_next), jnp.exp(i - m_next)
        c = f[:, None, None] * c + i[:, None, None] * c_in
        n = f[:, None] * n + i[:, None] * n_in
        return MLSTMCarry(c, n, m_next)

    def combine(left: _Element, right: _Element) -> _Element:
        return _Element(left.log_f + right.log_f, act(left.added, right))

    def readout(w: Params, carry: MLSTMCarry, z: _Input) -> jax.Array:
        c, n, m = carry
        q = z.q.astype(c.dtype)
        below = jnp.exp(-jnp.maximum(m, -80))  # below m = -80, y is 0 in float32, and its gradient should be too
        scale = jnp.maximum(jnp.abs((q * n).sum(axis=-1)), below)
        h = jnp.einsum("hk,hkv->hv", q, c) / scale[:, None]
        (o,) = named(o=sigmoid(z.o))
        return o * h.reshape(width).astype(z.o.dtype)

    return associative_cell(init, initial_carry, lift, combine, act, readout, project=project)
