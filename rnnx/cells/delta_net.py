"""Linear attention with the delta rule."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, silu

from rnnx.arguments import DType, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, factory
from rnnx.cells._kernels import Initializer, check_heads, default_kernel_init, dot, features_of, per_gate
from rnnx.cells._linear import outer, rms_norm, unit, wide_dot
from rnnx.linear import Affine, affine_cell
from rnnx.naming import named


class _Input(NamedTuple):
    q: jax.Array
    k: jax.Array
    v: jax.Array
    beta: jax.Array


@factory
@validated
def delta_net(
    width: int,
    *,
    heads: int = 1,
    key_width: int | None = None,
    value_width: int | None = None,
    kernel_init: Initializer = default_kernel_init,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""DeltaNet: an associative matrix memory. Each step corrects the value that its key retrieves.

    .. math::
        q, k, v, \beta &= W x_t, \qquad q, k \leftarrow \mathrm{unit}(\mathrm{silu}(\cdot)), \quad v \leftarrow
        \mathrm{silu}(v), \quad \beta \leftarrow \sigma(\beta) \\
        S_t &= S_{t-1} + \beta k (v - S_{t-1}^\top k)^\top = (I - \beta k k^\top) S_{t-1} + \beta k v^\top \\
        y_t &= W_o\, \mathrm{rmsnorm}(S_t^\top q / \sqrt{K})

    Everything up to the norm is computed for each head separately, with S (K, V) and one \beta per head. W_o
    reads all heads.

    Args:
        width: H, the number of outputs.
        heads: the number of heads that the keys and values are split into.
        key_width: the total width of the keys of all heads; default H.
        value_width: the total width of the values of all heads; default H.
        kernel_init: initialises `input_kernel` and `output_kernel`. LeCun normal preserves the variance.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params, with K and V the two widths: `input_kernel` (D, 2K + V + heads) in the order q, k,
        v, \beta; `norm_scale` (V/heads,), ones; `output_kernel` (V, H). One step takes x `(D,)` and the carry S
        `(heads, K/heads, V/heads)`, initially zero, and returns y `(H,)`. A step changes S by an outer product;
        (K, K) matrices are formed only when steps are combined. The state is computed in float32 or wider.

    At a glance: linear | linear attention by the delta rule, in heads | Yang et al. 2024 | D (3 H + 1) + H (H + 1)
    parameters.

    Named for `rnnx.expose`: `beta`.

    Raises:
        ValueError: for a width below 1, heads that do not divide the widths of keys and values, and (in `init`) for
            inputs that are not floating features.

    Other forms: the authors' layer puts a short causal convolution (`rnnx.causal_conv`) before each silu.

    Reference: S. Yang et al., *Parallelizing linear transformers with the delta rule over sequence length*, NeurIPS
    2024, arXiv 2406.06484; for the delta rule: I. Schlag, K. Irie and J. Schmidhuber, ICML 2021.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.delta_net(4, heads=2)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 2, 2, 2), (2, 5, 4))
    """
    keys = width if key_width is None else key_width
    values = width if value_width is None else value_width
    check_heads(keys, heads, "the keys of delta_net")
    check_heads(values, heads, "the values of delta_net")
    k_size, v_size = keys // heads, values // heads

    def init(key: Key, x: PyTree) -> Params:
        k_input, k_output = jax.random.split(key)
        kernel = per_gate(kernel_init, 1)
        return {
            "input_kernel": kernel(k_input, (features_of(x, "delta_net"), 2 * keys + values + heads), param_dtype),
            "norm_scale": jnp.ones((v_size,), param_dtype),
            "output_kernel": kernel(k_output, (values, width), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((heads, k_size, v_size), w["norm_scale"].dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> _Input:
        q, k, v, beta = jnp.split(wide_dot(x, w["input_kernel"]), [keys, 2 * keys, 2 * keys + values])
        q, k = (unit(silu(a.reshape(heads, k_size))) for a in (q, k))
        (beta,) = named(beta=sigmoid(beta))
        return _Input((q / k_size**0.5).astype(x.dtype), k, silu(v.reshape(heads, v_size)), beta)

    def lift(w: Params, z: _Input) -> Affine:
        _, k, v, beta = z
        scaled = beta[:, None] * k
        return Affine(jnp.eye(k_size)[None] - outer(scaled, k), outer(scaled, v))

    def readout(w: Params, s: jax.Array, z: _Input) -> jax.Array:
        o = jnp.einsum("hk,hkv->hv", z.q.astype(s.dtype), s)
        o = rms_norm(o, w["norm_scale"].astype(o.dtype)).reshape(values)
        return dot(o, w["output_kernel"], z.q.dtype)

    def step(w: Params, s: jax.Array, z: _Input) -> tuple[jax.Array, jax.Array]:
        _, k, v, beta = z
        s = s + outer(beta[:, None] * k, v - jnp.einsum("hk,hkv->hv", k, s))
        return s, readout(w, s, z)

    return affine_cell(init, initial_carry, lift, readout, product=jnp.matmul, project=project, step=step)
