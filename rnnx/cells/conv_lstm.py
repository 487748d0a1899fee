"""The convolutional long short-term memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, exportable, factory
from rnnx.cells._convolution import Padding, Sizes, biased, convolutional_init, convolve, space_after
from rnnx.cells._kernels import Initializer, default_kernel_init, default_recurrent_init
from rnnx.naming import named


@exportable
class ConvLSTMCarry(NamedTuple):
    """The state of a ConvLSTM: the output `h` and the memory `c`, each `[batch, *space, H]`."""

    h: jax.Array
    c: jax.Array


@factory
@validated
def conv_lstm(
    width: int,
    *,
    kernel_size: Sizes = 3,
    strides: Sizes = 1,
    padding: Padding = "SAME",
    peephole: bool = False,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    peephole_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The LSTM over images, with convolutions in place of its matrix products, in 1, 2 or 3 spatial dimensions.

    .. math::
        i, f, g &= W * x_t + R * h_{t-1} + [P_i \odot c_{t-1},\ P_f \odot c_{t-1},\ 0] + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        o &= W_o * x_t + R_o * h_{t-1} + P_o \odot c_t + b_o \\
        h_t &= \sigma(o) \odot \tanh(c_t), \qquad y_t = h_t

    The terms with P are present only with `peephole`. As usual in deep learning, the convolution :math:`*` does not
    flip its kernel. The convolution of h preserves the size of the image: its padding is "SAME" and its stride 1.

    Args:
        width: H, the number of output channels.
        kernel_size: the size of both kernels: one number for all spatial dimensions, or one for each.
        strides: the strides of the convolution of x, in the same form. The state has the spatial size of the
            output of this convolution.
        padding: the padding of x: "SAME", "VALID", or a pair (before, after) for each spatial dimension.
        peephole: whether the gates also read the memory, as in the paper. P has weights for every position in the
            image, so the params then fit only one image size.
        kernel_init: initialises `input_kernel`. LeCun normal, whose fan-in is the number of inputs that one output of
            one gate reads (taps times channels), preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. Orthogonal (as a matrix with a
            row for every tap and channel): it preserves the variance of white noise, except at the edges. With
            `jax.nn.initializers.delta_orthogonal`, where only the centre tap is nonzero, the convolution as a whole
            is orthogonal (Xiao et al. 2018).
        bias_init: initialises `bias`, before `forget_bias` is added.
        peephole_init: initialises `peephole_kernel`. Zero: initially, the peepholes have no effect.
        forget_bias: added to the f part of `bias` when it is initialised (never at run time). With 1, the
            memory initially forgets little, so from the first update, gradients reach far back (Gers et al. 2000;
            Jozefowicz et al. 2015).
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order i, f, g, o: `input_kernel` (*kernel_size, C, 4H),
        `recurrent_kernel` (*kernel_size, H, 4H), `bias` (4H,), and with `peephole` also `peephole_kernel`
        (*space, 3H) in the order i, f, o. One step takes x `(*space, C)` and `ConvLSTMCarry(h, c)`, each
        `(*space, H)`, initially zero, and returns y `(*space, H)`; h, c and y have the spatial size of the
        convolved x.

    At a glance: convolutional | ConvLSTM over 1, 2 or 3 spatial dimensions (counted in 2) | Shi et al. 2015 | 4 H
    (9 D + 9 H + 1) parameters.

    Named for `rnnx.expose`: `i`, `f`, `g`, `o`.

    Raises:
        ValueError: for a width, kernel size or stride below 1; or (in `init`) inputs that are not floating images,
            that do not have as many spatial dimensions as the options, or that are too small for the convolution.

    On a CPU, XLA computes the gradient of a kernel far more slowly when the convolution is inside a loop. For short
    clips, unroll the loop: `rnnx.scan(rnnx.cells.conv_lstm(width), unroll=time)`.

    Other libraries: Keras (ConvLSTM1D, 2D, 3D) has the same layout and writes c for g; its default
    `padding` is "valid". Flax and Haiku use the order i, g, f, o, add 1 to f at run time and have a second bias, in
    the convolution of h. Flax also applies the strides to that convolution, so only strides of 1 work there. None of
    these libraries has peepholes.

    References: X. Shi et al., *Convolutional LSTM network: a machine learning approach for precipitation
    nowcasting*, NeurIPS 2015, arXiv 1506.04214; L. Xiao et al., *Dynamical isometry and a mean field theory of
    CNNs*, ICML 2018.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.conv_lstm(4, kernel_size=5, strides=2)
        >>> xs = jnp.ones((2, 5, 8, 8, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.c.shape, ys.shape
        ((2, 4, 4, 4), (2, 5, 4, 4, 4))
    """
    inits = kernel_init, recurrent_kernel_init, bias_init
    init_gates = convolutional_init("conv_lstm", width, 4, kernel_size, strides, padding, *inits, param_dtype)

    def init(key: Key, x: PyTree) -> Params:
        k_gates, k_peephole = jax.random.split(key)
        params = init_gates(k_gates, x)
        params["bias"] = params["bias"].at[width : 2 * width].add(forget_bias)
        if peephole:
            space = space_after(params["input_kernel"], x, strides, padding)
            params["peephole_kernel"] = peephole_init(k_peephole, (*space, 3 * width), param_dtype)
        return params

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> ConvLSTMCarry:
        space = space_after(w["input_kernel"], x, strides, padding)
        zero = jnp.zeros((*space, width), w["bias"].dtype)
        return ConvLSTMCarry(zero, zero)

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return biased(convolve(x, w["input_kernel"], strides=strides, padding=padding), w["bias"])

    def step(w: Params, carry: ConvLSTMCarry, z: jax.Array) -> tuple[ConvLSTMCarry, jax.Array]:
        h, c = carry
        i, f, g, o = jnp.split(z + convolve(h, w["recurrent_kernel"], z.dtype), 4, axis=-1)
        if peephole:
            p_i, p_f, p_o = jnp.split(w["peephole_kernel"].astype(z.dtype), 3, axis=-1)
            i, f = i + p_i * c.astype(z.dtype), f + p_f * c.astype(z.dtype)
        i, f, g = named(i=sigmoid(i), f=sigmoid(f), g=jnp.tanh(g))
        c = f * c + i * g
        if peephole:
            o = o + p_o * c.astype(z.dtype)
        (o,) = named(o=sigmoid(o))
        h = o * jnp.tanh(c)
        return ConvLSTMCarry(h, c), h

    return cell(init, initial_carry, step, project=project)
