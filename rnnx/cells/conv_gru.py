"""The convolutional gated recurrent unit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._convolution import Padding, Sizes, biased, convolutional_init, convolve, space_after
from rnnx.cells._kernels import Initializer, default_kernel_init, default_recurrent_init
from rnnx.naming import named


@factory
@validated
def conv_gru(
    width: int,
    *,
    kernel_size: Sizes = 3,
    strides: Sizes = 1,
    padding: Padding = "SAME",
    reset_after: bool = False,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The GRU over images, with convolutions in place of its matrix products, in 1, 2 or 3 spatial dimensions.

    .. math::
        r &= \sigma(W_r * x_t + R_r * h_{t-1} + b_r) \\
        z &= \sigma(W_z * x_t + R_z * h_{t-1} + b_z) \\
        n &= \tanh(W_n * x_t + b_n + R_n * (r \odot h_{t-1})) \qquad\text{(reset before)} \\
        n &= \tanh(W_n * x_t + b_n + r \odot (R_n * h_{t-1} + b'_n)) \qquad\text{(reset after)} \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}, \qquad y_t = h_t

    As usual in deep learning, the convolution :math:`*` does not flip its kernel. The convolution of h preserves the
    size of the image: its padding is "SAME" and its stride 1.

    Args:
        width: H, the number of output channels.
        kernel_size: the size of both kernels: one number for all spatial dimensions, or one for each.
        strides: the strides of the convolution of x, in the same form. The state has the spatial size of the
            output of this convolution.
        padding: the padding of x: "SAME", "VALID", or a pair (before, after) for each spatial dimension.
        reset_after: True applies the reset gate after the convolution of h; False applies it before, as in
            the paper. True takes one convolution of h per step; False takes two, and the second depends on the first.
        kernel_init: initialises `input_kernel`. LeCun normal, whose fan-in is the number of inputs that one output of
            one gate reads (taps times channels), preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. Orthogonal (as a matrix with a
            row for every tap and channel): it preserves the variance of white noise, except at the edges. With
            `jax.nn.initializers.delta_orthogonal`, where only the centre tap is nonzero, the convolution as a whole
            is orthogonal (Xiao et al. 2018).
        bias_init: initialises `bias` and `recurrent_bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order r, z, n: `input_kernel` (*kernel_size, C, 3H),
        `recurrent_kernel` (*kernel_size, H, 3H), `bias` (3H,), and b'_n as `recurrent_bias` (H,) with
        `reset_after`. One step takes x `(*space, C)` and the carry h `(*space, H)`, initially zero, and returns y
        `(*space, H)`; h and y have the spatial size of the convolved x.

    At a glance: convolutional | ConvGRU over 1, 2 or 3 spatial dimensions (counted in 2) | Ballas et al. 2016 | 3 H
    (9 D + 9 H + 1) parameters.

    Named for `rnnx.expose`: `r`, `z`, `n`.

    Raises:
        ValueError: for a width, kernel size or stride below 1; or (in `init`) inputs that are not floating images,
            that do not have as many spatial dimensions as the options, or that are too small for the convolution.

    The paper and many implementations swap z and 1 - z: there, z lets the new value in.

    On a CPU, XLA computes the gradient of a kernel far more slowly when the convolution is inside a loop. For short
    clips, unroll the loop: `rnnx.scan(rnnx.cells.conv_gru(width), unroll=time)`.

    References: N. Ballas et al., *Delving deeper into convolutional networks for learning video representations*,
    ICLR 2016, arXiv 1511.06432; L. Xiao et al., *Dynamical isometry and a mean field theory of CNNs*, ICML 2018.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.conv_gru(4, kernel_size=(3, 5))
        >>> xs = jnp.ones((2, 5, 8, 8, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 8, 8, 4), (2, 5, 8, 8, 4))
    """
    inits = kernel_init, recurrent_kernel_init, bias_init
    init_gates = convolutional_init("conv_gru", width, 3, kernel_size, strides, padding, *inits, param_dtype)

    def init(key: Key, x: PyTree) -> Params:
        k_gates, k_candidate = jax.random.split(key)
        params = init_gates(k_gates, x)
        if reset_after:
            params["recurrent_bias"] = bias_init(k_candidate, (width,), param_dtype)
        return params

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((*space_after(w["input_kernel"], x, strides, padding), width), w["bias"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return biased(convolve(x, w["input_kernel"], strides=strides, padding=padding), w["bias"])

    def step_before(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_rz, x_n = jnp.split(x, [2 * width], axis=-1)
        kernel_rz, kernel_n = jnp.split(w["recurrent_kernel"], [2 * width], axis=-1)
        r, z = jnp.split(sigmoid(x_rz + convolve(h, kernel_rz, x.dtype)), 2, axis=-1)
        r, z = named(r=r, z=z)
        (n,) = named(n=jnp.tanh(x_n + convolve(r * h, kernel_n, x.dtype)))
        h = (1 - z) * n + z * h
        return h, h

    def step_after(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_r, x_z, x_n = jnp.split(x, 3, axis=-1)
        h_r, h_z, h_n = jnp.split(convolve(h, w["recurrent_kernel"], x.dtype), 3, axis=-1)
        r, z = named(r=sigmoid(x_r + h_r), z=sigmoid(x_z + h_z))
        (n,) = named(n=jnp.tanh(x_n + r * biased(h_n, w["recurrent_bias"])))
        h = (1 - z) * n + z * h
        return h, h

    return cell(init, initial_carry, step_after if reset_after else step_before, project=project)
