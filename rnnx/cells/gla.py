"""Gated linear attention."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, silu

from rnnx.arguments import DType, Positive, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, check_heads, default_kernel_init, dot, features_of, per_gate
from rnnx.cells._linear import outer, rms_norm, upcast, wide_dot
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


class _Input(NamedTuple):
    q: jax.Array
    k: jax.Array
    v: jax.Array
    log_decay: jax.Array
    r: jax.Array


@factory
@validated
def gla(
    width: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    rank: int = 16,
    temperature: Positive = 16.0,
    kernel_init: Initializer = default_kernel_init,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""Gated linear attention: an associative matrix memory whose rows decay at input-dependent rates.

    .. math::
        q, k, v, r, \delta &= W x_t, \qquad \alpha = \sigma(W_\alpha \delta + b_\alpha)^{1/\tau} \\
        S_t &= \mathrm{diag}(\alpha) S_{t-1} + k v^\top, \qquad o = S_t^\top q / \sqrt{K} \\
        y_t &= W_o (\mathrm{rmsnorm}(o) \odot \mathrm{silu}(r))

    Everything up to the norm is computed for each head separately, with S (K, V). W_o reads all heads.

    Args:
        width: H, the number of outputs.
        heads: the number of heads that the keys and values are split into.
        key_width: the total width of the keys of all heads; default H/2, as in the paper.
        value_width: the total width of the values of all heads; default H.
        rank: the rank of the map from x to \alpha, which is the width of \delta.
        temperature: \tau; with 16, the decays start close to 1.
        kernel_init: initialises `input_kernel`, `decay_kernel` and `output_kernel`. LeCun normal preserves the
            variance.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, with K and V the two widths: `input_kernel` (D, 2K + 2V + rank) in the order q, k,
        v, r, \delta; `decay_kernel` (rank, K), `decay_bias` (K,), initially zero; `norm_scale` (V/heads,), ones;
        `output_kernel` (V, H). One step takes x `(D,)` and the carry S `(heads, K/heads, V/heads)`, initially zero,
        and returns y `(H,)`. The state is computed in float32 or wider.

    At a glance: linear | gated linear attention, in heads | Yang et al. 2024 | D (3 H + 16) + H (H + 1) + 17 H // 2
    parameters.

    Named for `rnnx.expose`: `alpha`, `r`: r after silu.

    Raises:
        ValueError: for a width below 1, heads that do not divide the widths of keys and values, and (in `init`) for
            inputs that are not floating features.

    The norm is the RMS norm of the authors' code; other implementations also apply short convolutions
    (`rnnx.causal_conv`) to q, k and v.

    Reference: S. Yang et al., *Gated linear attention transformers with hardware-efficient training*, ICML 2024,
    arXiv 2312.06635.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.gla(8, heads=2)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 2, 2, 4), (2, 5, 8))
    """
    keys = max(width // 2, 1) if key_width is None else key_width
    values = width if value_width is None else value_width
    check_heads(keys, heads, "the keys of gla")
    check_heads(values, heads, "the values of gla")
    k_size, v_size = keys // heads, values // heads

    def init(key: Key, x: PyTree) -> Params:
        k_input, k_decay, k_output = jax.random.split(key, 3)
        kernel = per_gate(kernel_init, 1)
        return {
            "input_kernel": kernel(k_input, (features_of(x, "gla"), 2 * keys + 2 * values + rank), param_dtype),
            "decay_kernel": kernel(k_decay, (rank, keys), param_dtype),
            "decay_bias": jnp.zeros((keys,), param_dtype),
            "norm_scale": jnp.ones((v_size,), param_dtype),
            "output_kernel": kernel(k_output, (values, width), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((heads, k_size, v_size), w["decay_bias"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        boundaries = [keys, 2 * keys, 2 * keys + values, 2 * keys + 2 * values]
        q, k, v, r, low = jnp.split(wide_dot(x, w["input_kernel"]), boundaries)
        log_decay = log_sigmoid(wide_dot(low, w["decay_kernel"]) + upcast(w["decay_bias"])) / temperature
        q, k, log_decay = (a.reshape(heads, k_size) for a in (q / k_size**0.5, k, log_decay))
        return _Input(q, k, v.reshape(heads, v_size), log_decay, r.astype(x.dtype))

    def lift(w: Params, z: _Input) -> Affine:
        (alpha,) = named(alpha=jnp.exp(z.log_decay))
        return Affine(alpha, outer(z.k, z.v))

    def readout(w: Params, s: jax.Array, z: _Input) -> jax.Array:
        o = jnp.einsum("hk,hkv->hv", z.q.astype(s.dtype), s)
        o = rms_norm(o, w["norm_scale"].astype(o.dtype)).reshape(values)
        (r,) = named(r=silu(z.r))
        return dot(o.astype(r.dtype) * r, w["output_kernel"])

    return affine_cell(init, initial_carry, lift, readout, project=project)
