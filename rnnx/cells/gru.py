"""The gated recurrent unit, in both published forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import Cell, Key, LinearizedStep, Params, PyTree, cell, factory
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
def gru(
    width: int,
    *,
    reset_after: bool = True,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The gated recurrent unit, with the reset gate after or before the recurrent product.

    .. math::
        r &= \sigma(W_r x_t + R_r h_{t-1} + b_r) \\
        z &= \sigma(W_z x_t + R_z h_{t-1} + b_z) \\
        n &= \tanh(W_n x_t + b_n + r \odot (R_n h_{t-1} + b'_n)) \qquad\text{(reset after)} \\
        n &= \tanh(W_n x_t + b_n + R_n (r \odot h_{t-1})) \qquad\text{(reset before)} \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}, \qquad y_t = h_t

    Args:
        width: H, the number of units.
        reset_after: True is the form of the paper's first version, torch, Flax, cuDNN and Keras's default; it takes one
            product with h per step. False is that of the paper's later versions, Haiku and Keras with
            `reset_after=False`. Weights of one form cannot be converted to the other.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. Orthogonal: it preserves
            the norm of the state that it reads (Saxe et al. 2014).
        bias_init: initialises `bias` and `recurrent_bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order r, z, n: `input_kernel` (D, 3H), `recurrent_kernel`
        (H, 3H), `bias` (3H,), and b'_n as `recurrent_bias` (H,) with `reset_after`. One step takes x `(D,)`
        and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | gated recurrent unit, reset after or before the product | Cho et al. 2014 | 3 H (D + H + 1) + H
    parameters.

    Named for `rnnx.expose`: `r`, `z`, `n`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other libraries: torch has two biases for r and z as well (their sums are used here); Keras uses the order z, r, h;
    Haiku swaps the roles of z and 1 - z.

    Reference: K. Cho et al., *Learning phrase representations using RNN encoder-decoder for statistical
    machine translation*, EMNLP 2014 (arXiv 1406.1078: version 1 resets after, version 3 before).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.gru(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    inits = kernel_init, recurrent_kernel_init, bias_init
    init_gates = gated_init("gru", width, 3, *inits, param_dtype)

    def init(key: Key, x: PyTree) -> Params:
        k_gates, k_candidate = jax.random.split(key)
        params = init_gates(k_gates, x)
        if reset_after:
            params["recurrent_bias"] = bias_init(k_candidate, (width,), param_dtype)
        return params

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    return cell(init, initial_carry, RESET_AFTER if reset_after else RESET_BEFORE, project=affine)


def _forward_after(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    x_r, x_z, x_n = jnp.split(x, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(dot(h, w["recurrent_kernel"], x.dtype), 3, axis=-1)
    r, z = named(r=sigmoid(x_r + h_r), z=sigmoid(x_z + h_z))
    s = h_n + w["recurrent_bias"].astype(x.dtype)
    (n,) = named(n=jnp.tanh(x_n + r * s))
    h = (1 - z) * n + z * h
    return h, h, (r, z, n, s)


def _input_tangent_after(dw: Params, dx: jax.Array, h: jax.Array, residuals: tuple[jax.Array, ...]) -> jax.Array:
    r, _, _, _ = residuals
    d_r, d_z, d_n = jnp.split(dot(h, dw["recurrent_kernel"], dx.dtype), 3, axis=-1)
    return dx + jnp.concatenate([d_r, d_z, r * (d_n + dw["recurrent_bias"].astype(dx.dtype))])


def _jvp_after(
    w: Params, h: jax.Array, residuals: tuple[jax.Array, ...], dh: jax.Array, input_tangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r, z, n, s = residuals
    d_r, d_z, d_n = jnp.split(input_tangent, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(dot(dh, w["recurrent_kernel"], input_tangent.dtype), 3, axis=-1)
    dr, dz = r * (1 - r) * (d_r + h_r), z * (1 - z) * (d_z + h_z)
    dn = (1 - n**2) * (d_n + r * h_n + s * dr)
    dh = (1 - z) * dn + z * dh + (h - n) * dz
    return dh, dh


def _forward_before(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    (x_rz, x_n), (kernel_rz, kernel_n) = _candidate_apart(x), _candidate_apart(w["recurrent_kernel"])
    r, z = jnp.split(sigmoid(x_rz + dot(h, kernel_rz, x.dtype)), 2, axis=-1)
    r, z = named(r=r, z=z)
    (n,) = named(n=jnp.tanh(x_n + dot(r * h, kernel_n, x.dtype)))
    h = (1 - z) * n + z * h
    return h, h, (r, z, n)


def _input_tangent_before(dw: Params, dx: jax.Array, h: jax.Array, residuals: tuple[jax.Array, ...]) -> jax.Array:
    r, _, _ = residuals
    kernel_rz, kernel_n = _candidate_apart(dw["recurrent_kernel"])
    return dx + jnp.concatenate([dot(h, kernel_rz, dx.dtype), dot(r * h, kernel_n, dx.dtype)])


def _jvp_before(
    w: Params, h: jax.Array, residuals: tuple[jax.Array, ...], dh: jax.Array, input_tangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r, z, n = residuals
    (d_rz, d_n), (kernel_rz, kernel_n) = _candidate_apart(input_tangent), _candidate_apart(w["recurrent_kernel"])
    d_r, d_z = jnp.split(d_rz + dot(dh, kernel_rz, input_tangent.dtype), 2, axis=-1)
    dr, dz = r * (1 - r) * d_r, z * (1 - z) * d_z
    dn = (1 - n**2) * (d_n + dot(r * dh + h * dr, kernel_n, input_tangent.dtype))
    dh = (1 - z) * dn + z * dh + (h - n) * dz
    return dh, dh


RESET_AFTER = LinearizedStep(_forward_after, _input_tangent_after, _jvp_after)
RESET_BEFORE = LinearizedStep(_forward_before, _input_tangent_before, _jvp_before)


def _candidate_apart(gates: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits off the candidate: returns the part for r and z, and the part for n."""
    rz = 2 * gates.shape[-1] // 3
    return gates[..., :rz], gates[..., rz:]
