"""Initialisers and products shared by the cells."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, orthogonal

from rnnx.base import Key, PyTree

Initializer = Callable[..., jax.Array]
"""`(key, shape, dtype) -> array`, as in `jax.nn.initializers` and Flax."""

default_kernel_init: Initializer = lecun_normal()
default_recurrent_init: Initializer = orthogonal()


def per_gate(init: Initializer, gates: int) -> Initializer:
    """Initialises each gate's block by itself, as if the gates had kernels of their own."""

    def fused(key: Key, shape: tuple[int, int], dtype: jnp.dtype) -> jax.Array:
        rows, columns = shape
        blocks = [init(k, (rows, columns // gates), dtype) for k in jax.random.split(key, gates)]
        return jnp.concatenate(blocks, axis=-1)

    return fused


def dot(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """`x @ kernel`, computed in `dtype` (default: that of `x`), whatever the params are stored in."""
    dtype = x.dtype if dtype is None else dtype
    return x.astype(dtype) @ kernel.astype(dtype)


def features_of(x: PyTree, name: str) -> int:
    """The width D of one step's input `(D,)`; an error that names the cell for anything else."""
    if not hasattr(x, "shape") or len(x.shape) != 1 or not jnp.issubdtype(x.dtype, jnp.floating):
        came = f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else f"{type(x).__name__}"
        raise ValueError(
            f"{name} takes one array of floating features per step, xs [batch, time, features], but one step came "
            f"as {came}; put an nn.Embed before it for tokens, or give scalars a features axis with xs[..., None]"
        )
    return x.shape[0]


def check_width(width: int, name: str) -> None:
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"{name}: the width is {width!r}, but it must be a whole number, 1 or more")
