"""Initialisers and matrix products shared by the cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from rnnx.arguments import initializer, validated
from rnnx.base import Key, Params, PyTree

Initializer = Annotated[Callable[..., jax.Array], initializer]
"""`(key, shape, dtype) -> array`, as in `jax.nn.initializers` and Flax."""


def rounded(init: Initializer) -> Initializer:
    """Draws in float32 or wider, then casts to the dtype of the params. In narrower dtypes, random numbers are coarse
    and biased, and the decompositions behind orthogonal matrices are not implemented."""

    def in_dtype(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return init(key, shape, jnp.promote_types(dtype, jnp.float32)).astype(dtype)

    return in_dtype


default_kernel_init: Initializer = rounded(lecun_normal())
default_recurrent_init: Initializer = rounded(orthogonal())


@validated
def scaled_identity(scale: float = 1.0) -> Initializer:
    """An initialiser for `recurrent_kernel_init`: `scale` times the identity matrix.

    With scale 1 and relu units, a network initially keeps its state and adds its input (the "IRNN": Q. Le,
    N. Jaitly and G. Hinton, *A simple way to initialize recurrent networks of rectified linear units*, 2015, arXiv
    1504.00941; they use a smaller scale for tasks that need little memory). A matrix that is not square gets `scale`
    on its main diagonal and zeros elsewhere.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> init = rnnx.cells.scaled_identity(0.5)
        >>> init(jax.random.key(0), (2, 2), jnp.float32).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        if len(shape) != 2:
            raise ValueError(f"scaled_identity makes matrices, but was asked for the shape {tuple(shape)}")
        rows, columns = shape
        return scale * jnp.eye(rows, columns, dtype=dtype)

    return init


def per_gate(init: Initializer, gates: int) -> Initializer:
    """Initialises each gate's block `(..., D, H)` separately, as if each gate had its own kernel.

    Draws in float32 or wider: the decompositions behind orthogonal matrices are not implemented in narrower dtypes.
    """

    def fused(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        *rest, columns = shape
        wide_dtype = jnp.promote_types(dtype, jnp.float32)
        block = jax.vmap(lambda k: init(k, (*rest, columns // gates), wide_dtype), out_axes=-2)
        return block(jax.random.split(key, gates)).reshape(shape).astype(dtype)

    return fused


def dot(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """`x @ kernel`, computed in `dtype` (default: that of `x`), regardless of the dtype of the params."""
    dtype = x.dtype if dtype is None else dtype
    return x.astype(dtype) @ kernel.astype(dtype)


def affine(w: Params, x: jax.Array, key: Key | None = None) -> jax.Array:
    """`W x + b` for all gates at once, the `project` of most cells. (For a single gate, use `dot`.)"""
    kernel, bias = w["input_kernel"], w["bias"]
    if x.shape[-1] == 1:
        # Treat the bias as the weight of a second, constant feature 1. XLA:CPU fuses a product over a single feature
        # into the gates as a multiplication, and then computes them one element at a time.
        return dot(jnp.append(x, jnp.ones_like(x)), jnp.concatenate([kernel, bias[None]]))
    return dot(x, kernel) + bias.astype(x.dtype)


def gated_init(
    name: str,
    width: int,
    gates: int,
    kernel_init: Initializer,
    recurrent_kernel_init: Initializer,
    bias_init: Initializer,
    param_dtype: Any,
    *,
    added_bias: float = 0.0,
    to_gate: int = 0,
) -> Callable[[Key, PyTree], dict[str, jax.Array]]:
    """The `init` of a cell with gates of equal size: kernels (D, gates·H) and (H, gates·H), bias (gates·H,).

    `added_bias` is added to the bias of gate number `to_gate`.
    """
    columns, gate = gates * width, slice(to_gate * width, (to_gate + 1) * width)

    def init(key: Key, x: PyTree) -> dict[str, jax.Array]:
        features = features_of(x, name)
        k_input, k_recurrent, k_bias = jax.random.split(key, 3)
        return {
            "input_kernel": per_gate(kernel_init, gates)(k_input, (features, columns), param_dtype),
            "recurrent_kernel": per_gate(recurrent_kernel_init, gates)(k_recurrent, (width, columns), param_dtype),
            "bias": bias_init(k_bias, (columns,), param_dtype).at[gate].add(added_bias),
        }

    return init


def features_of(x: PyTree, name: str) -> int:
    """The width D of one step's input `(D,)`; raises an error that names the cell for anything else."""
    fits = hasattr(x, "shape") and len(x.shape) == 1 and jnp.issubdtype(x.dtype, jnp.floating)
    if not fits or x.shape[0] == 0:
        actual = f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else f"{type(x).__name__}"
        raise ValueError(
            f"{name} takes one array of floating features per step, xs [batch, time, features], but got {actual} "
            "for one step; put an nn.Embed before it for tokens, or give scalars a features axis with xs[..., None]"
        )
    return x.shape[0]


def check_heads(width: int, heads: int, name: str) -> None:
    """Raises if the width cannot be split into equal heads."""
    if width % heads:
        raise ValueError(f"{name}: {heads} heads do not divide the width {width}")
