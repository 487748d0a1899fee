"""The closed-form continuous-time network."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.nn.initializers import glorot_uniform, zeros

from rnnx.arguments import UNROLLED, Activation, DType, Integer, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import Initializer, affine, dot, per_gate, rounded
from rnnx.cells.ltc import features_in_time
from rnnx.naming import named

_glorot = rounded(glorot_uniform())


def _lecun_tanh(x: jax.Array) -> jax.Array:
    """Tanh scaled so that it is 1 at 1, with the largest curvature there, up to rounding (LeCun et al. 1998)."""
    return 1.7159 * jnp.tanh(0.666 * x)


@factory
@validated
def cfc(
    width: int,
    *,
    gated: bool = True,
    backbone_units: int = 128,
    backbone_layers: Annotated[int, Integer(0, 1000, UNROLLED)] = 1,
    activation: Activation = _lecun_tanh,
    kernel_init: Initializer = _glorot,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""The closed-form continuous-time network, with a gate that depends on the time since the previous step.

    .. math::
        u &= \phi(W x_t + R h_{t-1} + b), \qquad u \leftarrow \phi(W_l u + b_l), \quad l = 2 \dots L \\
        f &= \tanh(W_f u + b_f), \qquad g = \tanh(W_g u + b_g) \\
        s &= \sigma((W_\alpha u + b_\alpha)\, dt_t + W_\beta u + b_\beta) \\
        h_t &= (1 - s) \odot f + s \odot g \qquad\text{(gated)} \\
        h_t &= f + s \odot g \qquad\text{(not gated)}, \qquad y_t = h_t

    An expression in dt, with the form of the solution, replaces the ODE solver of `rnnx.ltc`. Networks with a shared
    trunk (the backbone) compute the parts of this expression.

    Args:
        width: H, the number of units.
        gated: False leaves out the factor 1 - s, as in the variant that the authors' package calls "no_gate".
        backbone_units: U, the width of the backbone.
        backbone_layers: L, the depth of the backbone; at most 1000. With 0, the heads (f, g, and the two
            in s) read x and h directly.
        activation: :math:`\phi`, by default :math:`1.7159 \tanh(0.666\, u)`, as in the authors' package.
        kernel_init: initialises all kernels: each head's block separately, and `input_kernel` and `recurrent_kernel`
            together, as one kernel that reads x and h. Glorot uniform, as in the authors' package.
        bias_init: initialises all biases.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `input_kernel` (D, U), `recurrent_kernel` (H, U), `bias` (U,); with L > 1
        `backbone_kernel` (L - 1, U, U) and `backbone_bias` (L - 1, U); `head_kernel` (U, 4H) and `head_bias` (4H,),
        in the order f, g, alpha, beta. With L = 0 the first three are the heads, with 4H columns, and there are no
        others. One step takes `{"x": (D,), "dt": ()}` and the carry h `(H,)`, initially zero, and returns y `(H,)`.

    At a glance: continuous time | closed-form continuous time, inputs `{"x", "dt"}` | Hasani et al. 2022 | 128 (D + H +
    1) + 516 H parameters.

    Named for `rnnx.expose`: `f`, `g`, `s`.

    Raises:
        ValueError: for a width or backbone_units below 1 or backbone_layers below 0, or (in `init`) inputs that
            are not a dict of floating features x and a floating dt.

    `dt` is the time since the previous step. Use a unit in which it is about 1, since it multiplies the output of a
    kernel. It may be float32 when x is bfloat16; the outputs are then float32. The state changes even at dt = 0: h_t
    is a new function of x and h, not the end of a trajectory that starts at h.

    Other libraries: the authors' `ncps` also has a third mode ("pure", without a learned gate), masks for sparse
    wirings, and dropout in the backbone. The torch version of `ncps` draws biases from a uniform distribution.

    Reference: R. Hasani, M. Lechner et al., *Closed-form continuous-time neural networks*, Nature Machine
    Intelligence 4 (2022), arXiv 2106.13898.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.cfc(4, backbone_units=16)
        >>> xs = {"x": jnp.ones((2, 5, 3)), "dt": jnp.full((2, 5), 0.1)}
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        features = features_in_time(x, "cfc")
        k_first, k_backbone, k_heads, k_bias = jax.random.split(key, 4)
        columns, heads = (backbone_units, 1) if backbone_layers else (4 * width, 4)
        first = per_gate(kernel_init, heads)(k_first, (features + width, columns), param_dtype)
        k_first_bias, k_backbone_bias, k_head_bias = jax.random.split(k_bias, 3)
        params = {
            "input_kernel": first[:features],
            "recurrent_kernel": first[features:],
            "bias": bias_init(k_first_bias, (columns,), param_dtype),
        }
        if backbone_layers > 1:
            shape, between = (backbone_units, backbone_units), backbone_layers - 1
            kernels = [per_gate(kernel_init, 1)(k, shape, param_dtype) for k in jax.random.split(k_backbone, between)]
            params["backbone_kernel"] = jnp.stack(kernels)
            params["backbone_bias"] = bias_init(k_backbone_bias, (between, backbone_units), param_dtype)
        if backbone_layers:
            params["head_kernel"] = per_gate(kernel_init, 4)(k_heads, (backbone_units, 4 * width), param_dtype)
            params["head_bias"] = bias_init(k_head_bias, (4 * width,), param_dtype)
        return params

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["bias"].dtype)

    def project(w: Params, x: PyTree, key: Key | None) -> PyTree:
        return affine(w, x["x"]), x["dt"]

    def step(w: Params, h: jax.Array, z: PyTree) -> tuple[jax.Array, jax.Array]:
        u, dt = z
        u = u + dot(h, w["recurrent_kernel"], u.dtype)
        for layer in range(backbone_layers - 1):
            u = dot(activation(u), w["backbone_kernel"][layer]) + w["backbone_bias"][layer].astype(u.dtype)
        if backbone_layers:
            u = dot(activation(u), w["head_kernel"]) + w["head_bias"].astype(u.dtype)
        f, g, alpha, beta = jnp.split(u, 4, axis=-1)
        f, g, s = named(f=jnp.tanh(f), g=jnp.tanh(g), s=sigmoid(alpha * dt + beta))
        h = (1 - s) * f + s * g if gated else f + s * g
        return h, h

    return cell(init, initial_carry, step, project=project)
