"""The minimal gated unit, as published and as in Flax."""

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
def mgu(
    width: int,
    *,
    reset_after: bool = False,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    forget_bias: float = 1.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The minimal gated unit: a GRU with a single gate that both resets and updates.

    .. math::
        f &= \sigma(W_f x_t + R_f h_{t-1} + b_f) \\
        n &= \tanh(W_n x_t + b_n + R_n (f \odot h_{t-1})), \quad
        h_t = (1 - f) \odot h_{t-1} + f \odot n \qquad\text{(reset before)} \\
        n &= \tanh(W_n x_t + b_n + f \odot (R_n h_{t-1} + b'_n)), \quad
        h_t = f \odot h_{t-1} + (1 - f) \odot n \qquad\text{(reset after)} \\
        y_t &= h_t

    Args:
        width: H, the number of units.
        reset_after: False for the published form: a small f keeps the state and hides it from n. True for the form in
            Flax's `MGUCell`: f resets after the recurrent product (which has its own bias), and a large f keeps the
            state. The weights of one form cannot be converted to the other.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`, before `forget_bias` is added, and `recurrent_bias`.
        forget_bias: added to the f part of `bias` when it is initialised. With 1, as in Flax, n initially reads most
            of the state. In the published form, a large f also writes the new value, so the unit initially acts more
            like a simple recurrent network than like one that keeps its state; with `reset_after`, it keeps its state.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order f, n: `input_kernel` (D, 2H), `recurrent_kernel` (H, 2H),
        `bias` (2H,), and b'_n as `recurrent_bias` (H,) with `reset_after`. One step takes x `(D,)` and the carry h
        `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | minimal gated unit, reset before or after the product | Zhou et al. 2016 | 2 H (D + H + 1)
    parameters.

    Named for `rnnx.expose`: `f`, `n`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other libraries: Flax's `MGUCell` has the form with `reset_after`; memax, brainstate and torchrecurrent have the
    other form.

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

    inits = kernel_init, recurrent_kernel_init, bias_init
    init_gates = gated_init("mgu", width, 2, *inits, param_dtype, added_bias=forget_bias)

    def init(key: Key, x: PyTree) -> Params:
        k_gates, k_candidate = jax.random.split(key)
        params = init_gates(k_gates, x)
        if reset_after:
            params["recurrent_bias"] = bias_init(k_candidate, (width,), param_dtype)
        return params

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def step_after(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_f, x_n = jnp.split(x, 2, axis=-1)
        h_f, h_n = jnp.split(dot(h, w["recurrent_kernel"], x.dtype), 2, axis=-1)
        (f,) = named(f=sigmoid(x_f + h_f))
        (n,) = named(n=jnp.tanh(x_n + f * (h_n + w["recurrent_bias"].astype(x.dtype))))
        h = f * h + (1 - f) * n
        return h, h

    def step_before(w: Params, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_f, x_n = jnp.split(x, 2, axis=-1)
        kernel_f, kernel_n = w["recurrent_kernel"][:, :width], w["recurrent_kernel"][:, width:]
        (f,) = named(f=sigmoid(x_f + dot(h, kernel_f, x.dtype)))
        (n,) = named(n=jnp.tanh(x_n + dot(f * h, kernel_n, x.dtype)))
        h = (1 - f) * h + f * n
        return h, h

    return cell(init, initial_carry, step_after if reset_after else step_before, project=affine)
