"""Linear attention with the delta rule and a decay."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, silu, softplus

from rnnx.arguments import DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, check_heads, default_kernel_init, dot, features_of, per_gate
from rnnx.cells._linear import exp_of, inverse_softplus, log_uniform, outer, rms_norm, unit, upcast, wide_dot
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


class _Input(NamedTuple):
    q: jax.Array
    k: jax.Array
    v: jax.Array
    r: jax.Array
    beta: jax.Array
    step: jax.Array


@factory
@validated
def gated_delta_net(
    width: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    kernel_init: Initializer = default_kernel_init,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""Gated DeltaNet: the delta rule on an associative matrix memory with an input-dependent decay.

    .. math::
        q, k, v, r, \beta, \delta &= W x_t \\
        q, k &\leftarrow \mathrm{unit}(\mathrm{silu}(\cdot)), \qquad v \leftarrow \mathrm{silu}(v) \\
        \beta &\leftarrow \sigma(\beta), \qquad \alpha = \exp(-e^a\, \mathrm{softplus}(\delta + b)) \\
        S_t &= \alpha (I - \beta k k^\top) S_{t-1} + \beta k v^\top \\
        y_t &= W_o (\mathrm{rmsnorm}(S_t^\top q / \sqrt{K}) \odot \mathrm{silu}(r))

    Everything up to the norm is computed for each head separately, with S (K, V) and one \alpha and one \beta
    per head. W_o reads all heads.

    Args:
        width: H, the number of outputs.
        heads: the number of heads that the keys and values are split into.
        key_width: the total width of the keys of all heads; default H.
        value_width: the total width of the values of all heads; default H. (In the paper's models, the
            values are twice as wide as the keys.)
        kernel_init: initialises `input_kernel` and `output_kernel`. LeCun normal preserves the variance.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, with K and V the two widths: `input_kernel` (D, 2K + 2V + 2 heads) in the order
        q, k, v, r, \beta, \delta; `log_rate` (a) and `step_bias` (b), each (heads,); `norm_scale` (V/heads,), ones;
        `output_kernel` (V, H). As in Mamba-2 and the authors' code, e^a is initially uniform in (0, 16), and
        softplus(b) is log-uniform between 0.001 and 0.1. One step takes x `(D,)` and the carry S `(heads, K/heads,
        V/heads)`, initially zero, and returns y `(H,)`. A step decays S and changes it by an outer product; (K, K)
        matrices are formed only when steps are combined. The state is computed in float32 or wider.

    At a glance: linear | delta rule with decay, in heads | Yang et al. 2025 | D (4 H + 2) + 2 + H (H + 1) parameters.

    Named for `rnnx.expose`: `alpha`, `beta`, `r`: r after silu.

    Raises:
        ValueError: for a width below 1, heads that do not divide the widths of keys and values, and (in `init`) for
            inputs that are not floating features.

    Other forms: the authors' layer puts a short causal convolution (`rnnx.causal_conv`) before each silu.

    Reference: S. Yang, J. Kautz and A. Hatamizadeh, *Gated delta networks: improving Mamba2 with delta rule*, ICLR
    2025, arXiv 2412.06464.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.gated_delta_net(4, heads=2)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 2, 2, 2), (2, 5, 4))
    """
    keys = width if key_width is None else key_width
    values = width if value_width is None else value_width
    check_heads(keys, heads, "the keys of gated_delta_net")
    check_heads(values, heads, "the values of gated_delta_net")
    k_size, v_size = keys // heads, values // heads

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "gated_delta_net")
        k_input, k_output, k_rate, k_step = jax.random.split(key, 4)
        kernel = per_gate(kernel_init, 1)
        step = jnp.exp(log_uniform(0.001, 0.1)(k_step, (heads,), jnp.float32))
        return {
            "input_kernel": kernel(k_input, (features, 2 * (keys + values + heads)), param_dtype),
            "log_rate": jnp.log(jax.random.uniform(k_rate, (heads,), minval=1e-3, maxval=16.0)).astype(param_dtype),
            "step_bias": inverse_softplus(step).astype(param_dtype),
            "norm_scale": jnp.ones((v_size,), param_dtype),
            "output_kernel": kernel(k_output, (values, width), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((heads, k_size, v_size), w["norm_scale"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        sizes = keys, keys, values, values, heads
        boundaries = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        q, k, v, r, beta, step = jnp.split(wide_dot(x, w["input_kernel"]), boundaries)
        q, k = (unit(silu(a.reshape(heads, k_size))) for a in (q, k))
        step = step + upcast(w["step_bias"])
        (beta,) = named(beta=sigmoid(beta))
        return _Input(q / k_size**0.5, k, silu(v.reshape(heads, v_size)), r.astype(x.dtype), beta, step)

    def decay(w: Params, z: _Input) -> jax.Array:
        (alpha,) = named(alpha=jnp.exp(-exp_of(w["log_rate"]) * softplus(z.step)))
        return alpha[:, None, None]

    def lift(w: Params, z: _Input) -> Affine:
        k, v, beta = z.k, z.v, z.beta
        scaled = beta[:, None] * k
        return Affine(decay(w, z) * (jnp.eye(k_size)[None] - outer(scaled, k)), outer(scaled, v))

    def readout(w: Params, s: jax.Array, z: _Input) -> jax.Array:
        o = jnp.einsum("hk,hkv->hv", z.q.astype(s.dtype), s)
        o = rms_norm(o, w["norm_scale"].astype(o.dtype)).reshape(values)
        (r,) = named(r=silu(z.r))
        return dot(o.astype(r.dtype) * r, w["output_kernel"])

    def step(w: Params, s: jax.Array, z: _Input) -> tuple[jax.Array, jax.Array]:
        k, v, beta = z.k, z.v, z.beta
        s = decay(w, z) * s
        s = s + outer(beta[:, None] * k, v - jnp.einsum("hk,hkv->hv", k, s))
        return s, readout(w, s, z)

    return affine_cell(init, initial_carry, lift, readout, product=jnp.matmul, project=project, step=step)
