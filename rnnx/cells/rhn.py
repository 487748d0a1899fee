"""The recurrent highway network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, Layers, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import (
    Initializer,
    default_kernel_init,
    default_recurrent_init,
    dot,
    features_of,
    per_gate,
)
from rnnx.naming import named


@factory
@validated
def rhn(
    width: int,
    *,
    depth: Layers = 3,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_recurrent_init,
    bias_init: Initializer = zeros,
    transform_bias: float = -2.0,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The recurrent highway network: several highway layers in each step, with coupled carry and transform gates.

    .. math::
        s_0 &= h_{t-1} \\
        n_l &= \tanh([l = 1]\, W_n x_t + R_{n,l} s_{l-1} + b_{n,l}) \\
        g_l &= \sigma([l = 1]\, W_g x_t + R_{g,l} s_{l-1} + b_{g,l}) \\
        s_l &= g_l \odot n_l + (1 - g_l) \odot s_{l-1}, \qquad l = 1 \dots L \\
        h_t &= s_L, \qquad y_t = h_t

    Args:
        width: H, the number of units.
        depth: L, the number of layers in each step; at most 1000.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through each gate.
        recurrent_kernel_init: initialises each gate's block of `recurrent_kernel`. An orthogonal matrix
            preserves the norm of the state that it multiplies (Saxe et al. 2014).
        bias_init: initialises `bias`, before `transform_bias` is added.
        transform_bias: added to the g parts of `bias` when they are initialised. With negative values, most
            of the state initially passes unchanged through all layers and steps. (The authors use -2 for word-level and
            -4 for character-level models.)
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params, with the gates in the order n, g: `input_kernel` (D, 2H), `recurrent_kernel` (L, H, 2H),
        `bias` (L, 2H). One step takes x `(D,)` and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: gated | recurrent highway network, depth 3 | Zilly et al. 2017 | 2 H D + 3 * 2 H (H + 1) parameters.

    Named for `rnnx.expose`: `g`, `n`, each (depth, H).

    Raises:
        ValueError: for a width or a depth below 1, or (in `init`) inputs that are not floating features.

    Reference: J. G. Zilly et al., *Recurrent highway networks*, ICML 2017, arXiv 1607.03474.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.rhn(4, depth=5)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "rhn")
        k_input, k_recurrent, k_bias = jax.random.split(key, 3)
        recurrent_init = per_gate(recurrent_kernel_init, 2)
        layers = [recurrent_init(k, (width, 2 * width), param_dtype) for k in jax.random.split(k_recurrent, depth)]
        return {
            "input_kernel": per_gate(kernel_init, 2)(k_input, (features, 2 * width), param_dtype),
            "recurrent_kernel": jnp.stack(layers),
            "bias": bias_init(k_bias, (depth, 2 * width), param_dtype).at[:, width:].add(transform_bias),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return dot(x, w["input_kernel"])

    def step(w: Params, s: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        for layer in range(depth):
            u = dot(s, w["recurrent_kernel"][layer], z.dtype) + w["bias"][layer].astype(z.dtype)
            n, g = jnp.split(u + z if layer == 0 else u, 2, axis=-1)
            g, n = named(g=sigmoid(g), n=jnp.tanh(n))
            s = g * n + (1 - g) * s
        return s, s

    return cell(init, initial_carry, step, project=project)
