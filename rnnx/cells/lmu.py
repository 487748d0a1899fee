"""The Legendre memory unit: a hidden state that writes and reads a linear memory of a sliding window."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import glorot_normal, lecun_uniform, zeros

from rnnx.arguments import DType, Integer, Positive, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, exportable, factory
from rnnx.cells._kernels import Initializer, dot, features_of, per_gate, rounded

default_kernel_init: Initializer = glorot_normal()
default_encoder_init: Initializer = rounded(lecun_uniform())


@exportable
class LMUCarry(NamedTuple):
    """The state of an LMU: the output `h`, `[batch, H]`, and the memory `m`, `[batch, d]`."""

    h: jax.Array
    m: jax.Array


def expm(a: np.ndarray) -> np.ndarray:
    """Computes the matrix exponential in float64: the Taylor series of the scaled matrix, then repeated squaring."""
    squarings = max(0, int(np.ceil(np.log2(np.abs(a).sum(axis=0).max()))) + 1)
    a = a / 2.0**squarings  # norm at most 1/2: after 16 terms, the remainder is below the rounding error
    result = term = np.eye(len(a))
    for k in range(1, 17):
        term = term @ a / k
        result = result + term
    for _ in range(squarings):
        result = result @ result
    return result


@functools.lru_cache(maxsize=8)
def legendre_memory(order: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    r"""The memory's :math:`\bar A` (d, d) and :math:`\bar B` (d,), for inputs held constant over steps of length 1."""
    i, j = np.ogrid[:order, :order]
    a = (2 * i + 1) * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    b = (2 * i + 1) * (-1.0) ** i
    held = expm(np.block([[a, b], [np.zeros((1, order + 1))]]) / theta)  # treats the input as a constant state
    return held[:order, :order], held[:order, order]


@factory
@validated
def lmu(
    width: int,
    *,
    order: int | None = None,
    theta: Positive = 100.0,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_kernel_init,
    encoder_init: Initializer = default_encoder_init,
    memory_encoder_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The Legendre memory unit: a hidden state, and d coefficients for the last theta steps of a scalar signal.

    .. math::
        u_t &= e_x^\top x_t + e_h^\top h_{t-1} + e_m^\top m_{t-1} \\
        m_t &= \bar A m_{t-1} + \bar B u_t \\
        h_t &= \tanh(W x_t + R h_{t-1} + W_m m_t), \qquad y_t = h_t

    m holds the Legendre coefficients of u over the last theta steps:
    :math:`u_{t - \theta r} \approx \sum_i P_i(2 r - 1)\, m_i` for r from 0 to 1. Its dynamics
    :math:`\theta \dot m = A m + B u`, with :math:`A_{ij} = (2i + 1) (-1 \text{ if } i < j \text{ else }
    (-1)^{i-j+1})` and :math:`B_i = (2i + 1)(-1)^i`, are fixed, not trained. They are solved exactly, with u
    held constant during each step (zero-order hold).

    Args:
        width: H, the number of hidden units.
        order: d, the number of coefficients in the memory; with more, the memory resolves faster changes within the
            window. At most 4096; default H.
        theta: the length of the window in steps, not necessarily an integer. Choose it for each task: the authors use
            the length of the sequence.
        kernel_init: initialises `input_kernel` and `memory_kernel`. Glorot normal, following the authors.
        recurrent_kernel_init: initialises `recurrent_kernel`. Glorot normal, following the authors.
        encoder_init: initialises `input_encoder` and `hidden_encoder`. LeCun uniform, following the authors.
        memory_encoder_init: initialises `memory_encoder`. Zeros, following the authors: initially the memory is an
            exact window.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `input_kernel` (D, H), `recurrent_kernel` (H, H), `memory_kernel` (d, H), and e_x, e_h, e_m
        as `input_encoder` (D,), `hidden_encoder` (H,), `memory_encoder` (d,). One step takes x `(D,)` and
        `LMUCarry(h, m)`, `(H,)` and `(d,)`, initially zero, and returns y `(H,)`.

    At a glance: continuous time | Legendre memory unit | Voelker et al. 2019 | (H + 1) (D + 2 H) parameters.

    Raises:
        ValueError: for a width or an order below 1, a theta not above 0, or (in `init`) inputs that are not floating
            features.

    Other forms: the authors' package keras-lmu now omits W, e_h and e_m by default, and supports several memories in
    parallel; this cell has one, as in the paper.

    Reference: A. R. Voelker, I. Kajić and C. Eliasmith, *Legendre memory units: continuous-time representation in
    recurrent neural networks*, NeurIPS 2019.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.lmu(4, order=6, theta=20)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.m.shape, ys.shape
        ((2, 6), (2, 5, 4))
    """
    order = Integer(1, 4096, "the exponential of a larger matrix takes too long")("lmu: order", order or width)

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "lmu")
        keys = jax.random.split(key, 6)

        def matrix(init: Initializer, key: Key, rows: int, columns: int) -> jax.Array:
            return per_gate(init, 1)(key, (rows, columns), param_dtype)

        return {
            "input_kernel": matrix(kernel_init, keys[0], features, width),
            "recurrent_kernel": matrix(recurrent_kernel_init, keys[1], width, width),
            "memory_kernel": matrix(kernel_init, keys[2], order, width),
            "input_encoder": matrix(encoder_init, keys[3], features, 1)[:, 0],
            "hidden_encoder": matrix(encoder_init, keys[4], width, 1)[:, 0],
            "memory_encoder": matrix(memory_encoder_init, keys[5], order, 1)[:, 0],
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> LMUCarry:
        dtype = w["memory_encoder"].dtype
        return LMUCarry(jnp.zeros((width,), dtype), jnp.zeros((order,), dtype))

    def project(w: Params, x: jax.Array, key: Key | None) -> tuple[jax.Array, jax.Array]:
        return dot(x, w["input_encoder"]), dot(x, w["input_kernel"])

    def step(w: Params, carry: LMUCarry, z: tuple[jax.Array, jax.Array]) -> tuple[LMUCarry, jax.Array]:
        h, m = carry
        u_x, wx = z
        a, b = legendre_memory(order, theta)
        u = u_x + dot(h, w["hidden_encoder"], wx.dtype) + dot(m, w["memory_encoder"], wx.dtype)
        # A long window needs more precision than bfloat16: compute the memory at least in the dtype of the params.
        dtype = jnp.promote_types(m.dtype, wx.dtype)
        m = m.astype(dtype) @ a.T.astype(dtype) + u.astype(dtype) * b.astype(dtype)
        h = jnp.tanh(wx + dot(h, w["recurrent_kernel"], wx.dtype) + dot(m, w["memory_kernel"], wx.dtype))
        return LMUCarry(h, m), h

    return cell(init, initial_carry, step, project=project)
