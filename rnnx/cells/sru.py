"""The simple recurrent unit, version 1."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import Activation, DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, default_kernel_init, features_of, per_gate
from rnnx.cells._linear import upcast, wide_dot
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


class _Input(NamedTuple):
    n: jax.Array
    f: jax.Array
    r: jax.Array
    skip: jax.Array


@factory
@validated
def sru(
    width: int,
    *,
    activation: Activation = jnp.tanh,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The simple recurrent unit as first published, whose gates do not read the state.

    .. math::
        n &= W_n x_t, \qquad f = \sigma(W_f x_t + b_f), \qquad r = \sigma(W_r x_t + b_r) \\
        c_t &= f \odot c_{t-1} + (1 - f) \odot n \\
        y_t &= r \odot g(c_t) + (1 - r) \odot x_t

    If the input width is not H, `W_s x` replaces x in the last line.

    Args:
        width: H, the number of units.
        activation: g, tanh in the paper.
        kernel_init: initialises each gate's block of `input_kernel`. LeCun normal preserves the variance of x
            through each gate.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, in the order n, f, r: `input_kernel` (H, 3H), or (D, 4H) with W_s at the end
        if D is not H; `bias` (2H,), for f and r. One step takes x `(D,)` and the carry c `(H,)`, initially zero, and
        returns y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | simple recurrent unit, version 1 | Lei & Zhang 2017 | 4 H D + 2 H parameters.

    Named for `rnnx.expose`: `f`, `n`, `r`.

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Other forms: since version 2 of the paper, the gates also read c_{t-1}, which makes the recurrence nonlinear.
    The authors' package (`SRUCell(D, H, v1=True)`) has no g by default, and multiplies x in the last line by
    sqrt(3) if D is H (unless `rescale=False`).

    Reference: T. Lei and Y. Zhang, *Training RNNs as fast as CNNs*, arXiv 1709.02755, version 1 (2017).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.sru(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        k_input, k_bias = jax.random.split(key)
        features = features_of(x, "sru")
        blocks = 3 if features == width else 4
        return {
            "input_kernel": per_gate(kernel_init, blocks)(k_input, (features, blocks * width), param_dtype),
            "bias": bias_init(k_bias, (2 * width,), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        n, f, r, *projected = jnp.split(wide_dot(x, w["input_kernel"]), w["input_kernel"].shape[1] // width)
        b_f, b_r = jnp.split(upcast(w["bias"]), 2)
        return _Input(n, f + b_f, r + b_r, projected[0] if projected else x)

    def lift(w: Params, z: _Input) -> Affine:
        f, n = named(f=sigmoid(z.f), n=z.n)
        return Affine(f, sigmoid(-z.f) * n)

    def readout(w: Params, c: jax.Array, z: _Input) -> jax.Array:
        (r,) = named(r=sigmoid(z.r))
        return r * activation(c) + (1 - r) * z.skip

    return affine_cell(init, initial_carry, lift, readout, project=project)
