"""A causal convolution over time, and a window of the last inputs. Both carry the last inputs."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, zeros

from rnnx.arguments import DType, Integer, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import Initializer, features_of, rounded
from rnnx.cells._linear import check_channels

# Each feature reads `size` numbers, so the fan-in is the first axis alone.
per_feature_init: Initializer = rounded(lecun_normal(in_axis=0, out_axis=()))


@factory
@validated
def causal_conv(
    width: int,
    *,
    size: int = 4,
    kernel_init: Initializer = per_feature_init,
    bias_init: Initializer = zeros,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""A causal depthwise convolution over time, as used before the recurrence in Mamba and Griffin.

    .. math::
        y_t = \sum_{j=0}^{k-1} w_j \odot x_{t-k+1+j} + b

    Inputs before the first step are zero. For a convolution that mixes features, put an `nn.Dense` after `rnnx.window`.

    Args:
        width: H, the number of input and output features.
        size: k, the number of steps that one output reads, including the current one.
        kernel_init: initialises `kernel`. LeCun normal, with a fan-in of k, preserves the variance of x.
        bias_init: initialises `bias`.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `kernel` (k, H), its last row for the current step, and `bias` (H,). One step takes x `(H,)`
        and the carry of the last k - 1 inputs `(k - 1, H)`, oldest first, initially zero, and returns y `(H,)`.

    At a glance: feed-forward | depthwise convolution that carries its last inputs | - | 5 H parameters.

    Raises:
        ValueError: for a width or size below 1, and (in `init`) for inputs that are not H floating features.

    Other libraries: `flax.linen.Conv(H, (k,), feature_group_count=H, padding="CAUSAL")`, which has no carry.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.causal_conv(3, size=4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 3, 3), (2, 5, 3))
    """

    def init(key: Key, x: PyTree) -> Params:
        check_channels(features_of(x, "causal_conv"), width, "causal_conv")
        k_kernel, k_bias = jax.random.split(key)
        return {
            "kernel": kernel_init(k_kernel, (size, width), param_dtype),
            "bias": bias_init(k_bias, (width,), param_dtype),
        }

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((size - 1, width), w["bias"].dtype)

    def step(w: Params, recent: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = jnp.concatenate([recent.astype(x.dtype), x[None]])
        return seen[1:], (w["kernel"].astype(x.dtype) * seen).sum(axis=0) + w["bias"].astype(x.dtype)

    return cell(init, initial_carry, step)


@factory
@validated
def window(size: Annotated[int, Integer(1, 100_000, "each step returns that many inputs concatenated")]) -> Cell:
    """Concatenates the last `size` inputs. Followed by a dense layer, it is a causal convolution over time.

    Args:
        size: k, the number of inputs that each step returns, including the current one; at most 100000.

    Returns:
        The Cell, without params. One step takes x `(D,)` and the carry of the last k - 1 inputs `(k - 1, D)`,
        oldest first, initially zero, and returns y `(k D,)`, oldest first.

    At a glance: feed-forward | the last inputs side by side; H of them | - | 0 parameters.

    Raises:
        ValueError: for a size below 1, or (in `init` and `initial_carry`) inputs that are not floating features.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> xs = jnp.arange(1.0, 5.0).reshape(1, 4, 1)
        >>> rnnx.unroll(rnnx.window(2), {}, xs)[1][0].tolist()
        [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    """

    def init(key: Key, x: PyTree) -> Params:
        features_of(x, "window")
        return {}

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((size - 1, features_of(x, "window")), jnp.promote_types(x.dtype, jnp.float32))

    def step(w: Params, recent: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = jnp.concatenate([recent.astype(x.dtype), x[None]])
        return seen[1:], seen.ravel()

    return cell(init, initial_carry, step)
