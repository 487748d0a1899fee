"""The quasi-recurrent neural network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import zeros

from rnnx.arguments import DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, default_kernel_init
from rnnx.cells._linear import input_gates_init, wide_affine
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


@factory
@validated
def qrnn(
    width: int,
    *,
    output_gate: bool = True,
    input_gate: bool = False,
    kernel_init: Initializer = default_kernel_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The quasi-recurrent network with fo-pooling (or f- or ifo-pooling); the gates read only the current input.

    .. math::
        z, f, o &= W x_t + b \\
        c_t &= \sigma(f) \odot c_{t-1} + (1 - \sigma(f)) \odot \tanh(z) \\
        y_t &= \sigma(o) \odot c_t

    The paper's gates are convolutions over the last k inputs. To get these, put `rnnx.window(k)` before the cell, as in
    `rnnx.stack(rnnx.window(2), rnnx.qrnn(H))`. The `input_kernel` is then (k D, 3H), since a convolution over time is
    a product with the concatenated inputs.

    Args:
        width: H, the number of units.
        output_gate: whether there is an output gate o (fo-pooling). Without it (f-pooling), y is c.
        input_gate: whether a separate gate i replaces 1 - f (ifo-pooling).
        kernel_init: initialises each gate's block of `input_kernel`. LeCun normal preserves the variance of x
            through each gate.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, with the gates that are used, g in number, in the order z, f, o, i:
        `input_kernel` (D, gH), `bias` (gH,). One step takes x `(D,)` and the carry c `(H,)`, initially zero, and
        returns y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | quasi-recurrent network: f-, fo-, ifo-pooling; filters with `rnnx.window` | Bradbury et al.
    2017 | 3 H (D + 1) parameters.

    Named for `rnnx.expose`: `i`, `f`, `z`, `o` (o if there is an output gate).

    Raises:
        ValueError: for a width below 1, or (in `init`) inputs that are not floating features.

    Reference: J. Bradbury, S. Merity, C. Xiong and R. Socher, *Quasi-recurrent neural networks*, ICLR 2017,
    arXiv 1611.01576.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.stack(rnnx.window(2), rnnx.qrnn(4))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 4)
    """
    gates = 2 + output_gate + input_gate

    init = input_gates_init("qrnn", width, gates, kernel_init, bias_init, param_dtype)

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def lift(w: Params, x: jax.Array) -> Affine:
        z, f, *others = jnp.split(x, gates)
        i = sigmoid(others[-1]) if input_gate else sigmoid(-f)
        i, f, z = named(i=i, f=sigmoid(f), z=jnp.tanh(z))
        return Affine(f, i * z)

    def readout(w: Params, c: jax.Array, x: jax.Array) -> jax.Array:
        if not output_gate:
            return c
        (o,) = named(o=sigmoid(x[2 * width : 3 * width]))
        return o * c

    return affine_cell(init, initial_carry, lift, readout, project=wide_affine)
