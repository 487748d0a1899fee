"""The long short-term memory and its common variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, LinearizedStep, Params, PyTree, cell, exportable, factory
from rnnx.cells._kernels import (
    Initializer,
    affine,
    default_kernel_init,
    default_recurrent_init,
    dot,
    gated_init,
    per_gate,
)
from rnnx.naming import named


@exportable
class LSTMCarry(NamedTuple):
    """The state of an LSTM: the output `h`, `[batch, H]`, and the memory `c`, `[batch, H]` (in a cell: `(H,)`).

    With a projection to P features, h is `[batch, P]`.
    """

    h: jax.Array
    c: jax.Array


def layer_normalized(x: jax.Array, gain: jax.Array) -> jax.Array:
    """`gain * (x - mean) / standard deviation` over all features, computed in float32 or wider."""
    centered = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = centered - centered.mean()
    # The 1e-5, as in the authors' code, prevents 0 / 0 when all features are equal (as those of R h initially are).
    scale = jax.lax.rsqrt((centered * centered).mean() + 1e-5)
    return (centered * scale).astype(x.dtype) * gain.astype(x.dtype)


@factory
@validated
def lstm(
    width: int,
    *,
    peephole: bool = False,
    coupled: bool = False,
    layer_norm: bool = False,
    projection: int | None = None,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The LSTM with a forget gate, as in torch, Keras, Flax and Haiku, with four options.

    .. math::
        i, f, g, o &= W x_t + R h_{t-1} + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= \sigma(o) \odot \tanh(c_t), \qquad y_t = h_t

    The options, which can be combined freely:

    .. math::
        \text{peephole:}\quad & i + p_i \odot c_{t-1},\quad f + p_f \odot c_{t-1},\quad o + p_o \odot c_t
            \quad\text{in place of}\quad i, f, o \\
        \text{coupled:}\quad & 1 - \sigma(f) \quad\text{in place of}\quad \sigma(i) \\
        \text{layer norm:}\quad & i, f, g, o = N(W x_t; \alpha_x) + N(R h_{t-1}; \alpha_h) + b, \qquad
            h_t = \sigma(o) \odot \tanh(N(c_t; \alpha_c) + \beta_c) \\
        \text{projection:}\quad & h_t = W_p (\sigma(o) \odot \tanh(c_t))

    with :math:`N(v; \alpha) = \alpha \odot (v - \mathrm{mean}(v)) / \mathrm{std}(v)` over all elements of v.

    Args:
        width: H, the number of units.
        peephole: whether the gates of each unit also read its memory. This helps in tasks that depend on exact timing
            (Gers and Schmidhuber 2000).
        coupled: whether a unit forgets exactly as much as it writes (coupled input and forget gates, "CIFG"). It then
            has three gates instead of four, with little loss in performance (Greff et al. 2017).
        layer_norm: whether to normalise W x, R h, and the memory that the output reads. This keeps the inputs of the
            gates at the same scale (Ba et al. 2016). The memory in the carry is not normalised.
        projection: P, the number of features of h and y, usually less than H. When H is large, this makes R much
            smaller ("LSTMP", Sak et al. 2014).
        kernel_init: initialises `input_kernel` and `projection_kernel`. LeCun normal preserves the variance of x
            through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`, before `forget_bias` is added.
        forget_bias: added to the f part of `bias` when it is initialised (never at run time). With 1, the
            memory initially forgets little, so gradients reach far back from the very first update (Gers et al. 2000;
            Jozefowicz et al. 2015).
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order i, f, g, o: `input_kernel` (D, 4H), `recurrent_kernel`
        (H, 4H), `bias` (4H,). One step takes x `(D,)` and `LSTMCarry(h, c)`, each `(H,)`, initially zero, and
        returns y `(H,)`.

        With `coupled`, the gates are f, g, o, and 3H replaces 4H throughout. `peephole` adds `peephole` (3, H),
        whose rows are p_i, p_f, p_o (coupled: (2, H), p_f, p_o), initially zero. `layer_norm` adds `input_gain`
        (4H,), `recurrent_gain` (4H,) and `memory_gain` (H,), which are :math:`\alpha_x, \alpha_h, \alpha_c`, initially
        one, and :math:`\beta_c` as `memory_bias` (H,), initially zero. `projection` adds `projection_kernel` (H, P);
        `recurrent_kernel` is then (P, 4H), and h and y are `(P,)`.

    At a glance: gated | long short-term memory; options `peephole`, `coupled`, `layer_norm`, `projection` | Hochreiter
    & Schmidhuber 1997, Gers et al. 2000 | 4 H (D + H + 1) parameters.

    Named for `rnnx.expose`: `i`, `f`, `g`, `o`.

    Raises:
        ValueError: for a width or a projection below 1, or (in `init`) inputs that are not floating features.

    Other libraries: torch has two biases (their sum is `bias`), the same gate order, and the projection as
    `proj_size`; Flax returns the carry as (c, h); Haiku has the order i, g, f, o and adds 1 to f at run time; Keras
    writes c for g. The layer normalisation paper also adds shifts to W x and R h; only their sum with b matters,
    and here b is that sum. TensorFlow Addons keeps the normalised memory as c, and tf.contrib's older cell also
    normalises each gate separately, with x and h together: the weights of neither can be used here.

    References: S. Hochreiter and J. Schmidhuber, *Long short-term memory*, Neural Computation 9 (1997);
    F. Gers, J. Schmidhuber and F. Cummins, *Learning to forget*, Neural Computation 12 (2000). Peepholes:
    F. Gers and J. Schmidhuber, *Recurrent nets that time and count*, IJCNN 2000, and with N. Schraudolph,
    *Learning precise timing with LSTM recurrent networks*, JMLR 3 (2002). Coupled: K. Greff et al., *LSTM: a
    search space odyssey*, IEEE TNNLS 28 (2017). J. L. Ba, J. R. Kiros and G. Hinton, *Layer normalization*, arXiv
    1607.06450. Projection: H. Sak, A. Senior and F. Beaufays, *Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling*, Interspeech 2014.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> xs = jnp.ones((2, 5, 3))
        >>> layer = rnnx.lstm(4)
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.c.shape, ys.shape
        ((2, 4), (2, 5, 4))
        >>> layer = rnnx.lstm(8, peephole=True, coupled=True, layer_norm=True, projection=4)
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.c.shape, ys.shape
        ((2, 8), (2, 5, 4))
    """
    gates, outputs = 3 if coupled else 4, projection or width

    inits = kernel_init, recurrent_kernel_init, bias_init
    init = gated_init("lstm", width, gates, *inits, param_dtype, added_bias=forget_bias, to_gate=gates - 3)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> LSTMCarry:
        dtype = w["bias"].dtype
        return LSTMCarry(jnp.zeros((outputs,), dtype), jnp.zeros((width,), dtype))

    if not (peephole or coupled or layer_norm or projection):
        return cell(init, initial_carry, LinearizedStep(_forward, _input_tangent, _jvp), project=affine)

    def init_with_options(key: Key, x: PyTree) -> Params:
        k_gates, k_recurrent, k_projection = jax.random.split(key, 3)
        params = init(k_gates, x)
        if peephole:
            params["peephole"] = jnp.zeros((gates - 1, width), param_dtype)
        if layer_norm:
            params["input_gain"] = jnp.ones((gates * width,), param_dtype)
            params["recurrent_gain"] = jnp.ones((gates * width,), param_dtype)
            params["memory_gain"] = jnp.ones((width,), param_dtype)
            params["memory_bias"] = jnp.zeros((width,), param_dtype)
        if projection:
            recurrent_init = per_gate(recurrent_kernel_init, gates)
            params["recurrent_kernel"] = recurrent_init(k_recurrent, (outputs, gates * width), param_dtype)
            params["projection_kernel"] = per_gate(kernel_init, 1)(k_projection, (width, outputs), param_dtype)
        return params

    project, step = _with_options(width, peephole, coupled, layer_norm, projection)
    return cell(init_with_options, initial_carry, step, project=project)


def _forward(w: Params, carry: LSTMCarry, z: jax.Array) -> tuple[LSTMCarry, jax.Array, tuple[jax.Array, ...]]:
    h, c = carry
    i, f, g, o = jnp.split(z + dot(h, w["recurrent_kernel"], z.dtype), 4, axis=-1)
    i, f, g, o = named(i=sigmoid(i), f=sigmoid(f), g=jnp.tanh(g), o=sigmoid(o))
    c = f * c + i * g
    h = o * jnp.tanh(c)
    return LSTMCarry(h, c), h, (i, f, g, o)


def _input_tangent(dw: Params, dz: jax.Array, carry: LSTMCarry, gates: tuple[jax.Array, ...]) -> jax.Array:
    return dz + dot(carry.h, dw["recurrent_kernel"], dz.dtype)


def _jvp(
    w: Params, carry: LSTMCarry, gates: tuple[jax.Array, ...], dcarry: LSTMCarry, input_tangent: jax.Array
) -> tuple[LSTMCarry, jax.Array]:
    (_, c), (dh, dc), (i, f, g, o) = carry, dcarry, gates
    di, df, dg, do = jnp.split(input_tangent + dot(dh, w["recurrent_kernel"], input_tangent.dtype), 4, axis=-1)
    tanh_c = jnp.tanh(f * c + i * g)
    dc = f * dc + f * (1 - f) * c * df + i * (1 - i) * g * di + i * (1 - g**2) * dg
    dh = o * (1 - tanh_c**2) * dc + o * (1 - o) * tanh_c * do
    return LSTMCarry(dh, dc), dh


def _with_options(
    width: int, peephole: bool, coupled: bool, layer_norm: bool, projection: int | None
) -> tuple[Callable[..., jax.Array], Callable[..., tuple[LSTMCarry, jax.Array]]]:
    """Returns `project` and `step` with any of the options, differentiated by JAX."""

    def peek(w: Params, row: int, gate: jax.Array, c: jax.Array) -> jax.Array:
        return gate + (w["peephole"][row] * c).astype(gate.dtype) if peephole else gate

    def norm(w: Params, name: str, v: jax.Array) -> jax.Array:
        return layer_normalized(v, w[name]) if layer_norm else v

    def shift(w: Params, c: jax.Array) -> jax.Array:
        return c + w["memory_bias"].astype(c.dtype) if layer_norm else c

    def out(w: Params, h: jax.Array, dtype: jnp.dtype) -> jax.Array:
        return dot(h, w["projection_kernel"], dtype) if projection else h

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return norm(w, "input_gain", dot(x, w["input_kernel"])) + w["bias"].astype(x.dtype)

    def step(w: Params, carry: LSTMCarry, z: jax.Array) -> tuple[LSTMCarry, jax.Array]:
        h, c = carry
        u = z + norm(w, "recurrent_gain", dot(h, w["recurrent_kernel"], z.dtype))
        i, (f, g, o) = u[:width], jnp.split(u[-3 * width :], 3, axis=-1)
        f = sigmoid(peek(w, -2, f, c))
        i = 1 - f if coupled else sigmoid(peek(w, 0, i, c))
        i, f, g = named(i=i, f=f, g=jnp.tanh(g))
        c = f * c + i * g
        (o,) = named(o=sigmoid(peek(w, -1, o, c)))
        h = out(w, o * jnp.tanh(shift(w, norm(w, "memory_gain", c))), z.dtype)
        return LSTMCarry(h, c), h

    return project, step
