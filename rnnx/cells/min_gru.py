"""The minimal GRU, whose gates read only the input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import Activation, DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, default_kernel_init
from rnnx.cells._linear import input_gates_init, wide_affine
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


def positive(x: jax.Array) -> jax.Array:
    r"""x + 1/2 for x >= 0, \sigma(x) below 0: makes the candidate positive, as the log-space forms require."""
    return jnp.where(x >= 0, x + 0.5, sigmoid(x))


@factory
@validated
def min_gru(
    width: int,
    *,
    activation: Activation = positive,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The minGRU, in the form that the paper evaluates in log-space.

    .. math::
        z, n &= W x_t + b \\
        h_t &= (1 - \sigma(z)) \odot h_{t-1} + \sigma(z) \odot g(n), \qquad y_t = h_t \\
        g(n) &= n + 1/2 \text{ for } n \ge 0, \quad \sigma(n) \text{ below}

    Args:
        width: H, the number of units.
        activation: g. The paper's first form has none: `activation=lambda n: n`.
        kernel_init: initialises each gate's block of `input_kernel`. LeCun normal preserves the variance of x
            through each gate.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, with the gates in the order z, n: `input_kernel` (D, 2H), `bias` (2H,). One
        step takes x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`. The state is computed in
        float32 or wider. (The values equal those of the paper's log-space form, but the carry is h itself, not
        its logarithm, since a convex combination cannot overflow.)

    At a glance: linear | minimal GRU | Feng et al. 2024 | 2 H (D + 1) parameters.

    Named for `rnnx.expose`: `z`, `n`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Reference: L. Feng et al., *Were RNNs all we needed?*, arXiv 2410.01201 (2024).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.min_gru(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    init = input_gates_init("min_gru", width, 2, kernel_init, bias_init, param_dtype)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def lift(w: Params, x: jax.Array) -> Affine:
        z, n = jnp.split(x, 2)
        z, n, kept = sigmoid(z), activation(n), sigmoid(-z)
        z, n = named(z=z, n=n)
        return Affine(kept, z * n)

    def readout(w: Params, h: jax.Array, x: jax.Array) -> jax.Array:
        return h

    return affine_cell(init, initial_carry, lift, readout, project=wide_affine)
