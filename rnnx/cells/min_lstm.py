"""The minimal LSTM, whose gates read only the input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softplus
from jax.nn.initializers import zeros

from rnnx.arguments import Activation, DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, default_kernel_init
from rnnx.cells._linear import input_gates_init, wide_affine
from rnnx.cells.min_gru import positive
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


@factory
@validated
def min_lstm(
    width: int,
    *,
    activation: Activation = positive,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The minLSTM, in the form that the paper evaluates in log-space.

    .. math::
        f, i, n &= W x_t + b \\
        f' &= \frac{\sigma(f)}{\sigma(f) + \sigma(i)}, \qquad i' = \frac{\sigma(i)}{\sigma(f) + \sigma(i)} \\
        h_t &= f' \odot h_{t-1} + i' \odot g(n), \qquad y_t = h_t \\
        g(n) &= n + 1/2 \text{ for } n \ge 0, \quad \sigma(n) \text{ below}

    Args:
        width: H, the number of units.
        activation: g. The paper's first form has none: `activation=lambda n: n`.
        kernel_init: initialises each gate's block of `input_kernel`. LeCun normal preserves the variance of x
            through each gate.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, with the gates in the order f, i, n: `input_kernel` (D, 3H), `bias` (3H,). One
        step takes x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`. The state is computed in
        float32 or wider. (f' and i' are computed from the difference of the gates' logarithms, so neither can
        become 0/0; the carry is h itself, not its logarithm.)

    At a glance: linear | minimal LSTM | Feng et al. 2024 | 3 H (D + 1) parameters.

    Named for `rnnx.expose`: `f`, `i`, `n`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Reference: L. Feng et al., *Were RNNs all we needed?*, arXiv 2410.01201 (2024).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.min_lstm(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    init = input_gates_init("min_lstm", width, 3, kernel_init, bias_init, param_dtype)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def lift(w: Params, x: jax.Array) -> Affine:
        f, i, n = jnp.split(x, 3)
        odds = softplus(-i) - softplus(-f)  # log of sigma(f) / sigma(i)
        f, i, n = named(f=sigmoid(odds), i=sigmoid(-odds), n=activation(n))
        return Affine(f, i * n)

    def readout(w: Params, h: jax.Array, x: jax.Array) -> jax.Array:
        return h

    return affine_cell(init, initial_carry, lift, readout, project=wide_affine)
