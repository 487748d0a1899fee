"""Checks, initialisers and convolutions for the convolutional cells. Each takes one unbatched image, channels last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from rnnx.arguments import Integer, describe
from rnnx.base import Key, PyTree
from rnnx.cells._kernels import Initializer, per_gate


def _sizes(where: str, value: Any) -> int | tuple[int, ...]:
    """Checks what can be checked before the number of spatial dimensions is known."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(Integer()(f"{where}[{i}]", size) for i, size in enumerate(value))
    return Integer()(where, value)


def _padding(where: str, value: Any) -> str | tuple[tuple[int, int], ...]:
    if isinstance(value, str) and value in ("SAME", "VALID"):
        return value
    pairs = isinstance(value, Sequence) and all(isinstance(pair, Sequence) and len(pair) == 2 for pair in value)
    if not pairs or isinstance(value, str):
        raise ValueError(
            f"{where} is {describe(value)}, but it must be 'SAME', 'VALID', or the zeros (before, after) to add in "
            "each spatial dimension, such as ((1, 1), (1, 1))"
        )
    low, high = ([Integer(0)(f"{where}[{i}]", pair[end]) for i, pair in enumerate(value)] for end in (0, 1))
    return tuple(zip(low, high))


Padding = Annotated[str | Sequence[tuple[int, int]], _padding]
"""`"SAME"`, `"VALID"`, or for each spatial dimension the number of zeros to add, as a pair (before, after)."""

Sizes = Annotated[int | Sequence[int], _sizes]
"""One whole number for all spatial dimensions, or one for each."""


def image_of(x: PyTree, name: str) -> tuple[int, ...]:
    """The shape `(*space, C)` of one step's input; raises an error that names the cell for anything else."""
    if not hasattr(x, "shape") or not 2 <= len(x.shape) <= 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        actual = f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else f"{type(x).__name__}"
        raise ValueError(
            f"{name} takes one floating array with 1, 2 or 3 spatial dimensions and channels last per step, "
            f"xs [batch, time, *space, channels], but got {actual} for one step; add a channel axis with xs[..., None] "
            f"if the images have none, or move a leading channel axis to the end with jnp.moveaxis(xs, 2, -1)"
        )
    return tuple(x.shape)


def check_rank(sizes: Sizes | Padding, rank: int, name: str, what: str) -> None:
    """Raises if `sizes` is a sequence that does not have one entry for each spatial dimension."""
    if isinstance(sizes, Sequence) and not isinstance(sizes, str) and len(sizes) != rank:
        raise ValueError(
            f"{name}: {what} {tuple(sizes)} is for {len(sizes)} spatial dimensions, but the inputs have {rank} "
            f"(xs [batch, time, *space, channels]); give one entry for each dimension, or one value for all"
        )


def in_each_dimension(sizes: Sizes, rank: int) -> tuple[int, ...]:
    return tuple(sizes) if isinstance(sizes, Sequence) else (sizes,) * rank


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    dtype: jnp.dtype | None = None,
    *,
    strides: Sizes = 1,
    padding: Padding = "SAME",
) -> jax.Array:
    """Cross-correlates an image `(*space, C)` with a kernel `(*size, C, H)`, in `dtype` (default: that of `x`).

    The image gets a batch axis of size 1. `jax.vmap` merges its own axis into it, so a batch is one plain convolution.
    """
    dtype = x.dtype if dtype is None else dtype
    space = "DHW"[1 - x.ndim :]
    return jax.lax.conv_general_dilated(
        x.astype(dtype)[None],
        kernel.astype(dtype),
        window_strides=in_each_dimension(strides, len(space)),
        padding=padding,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )[0]


def biased(image: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds the same bias at every position, in the image's dtype."""
    return image + bias.astype(image.dtype).reshape((1,) * (image.ndim - 1) + bias.shape)


def convolutional_init(
    name: str,
    width: int,
    gates: int,
    kernel_size: Sizes,
    strides: Sizes,
    padding: Padding,
    kernel_init: Initializer,
    recurrent_kernel_init: Initializer,
    bias_init: Initializer,
    param_dtype: Any,
) -> Callable[[Key, PyTree], dict[str, jax.Array]]:
    """The `init` of a cell with gates of equal size.

    Makes kernels (*size, C, gates·H) and (*size, H, gates·H), and a bias (gates·H,).
    """
    columns = gates * width

    def init(key: Key, x: PyTree) -> dict[str, jax.Array]:
        *space, channels = image_of(x, name)
        for what, value in (("kernel_size", kernel_size), ("strides", strides), ("padding", padding)):
            check_rank(value, len(space), name, what)
        size = in_each_dimension(kernel_size, len(space))
        k_input, k_recurrent, k_bias = jax.random.split(key, 3)
        params = {
            "input_kernel": per_gate(kernel_init, gates)(k_input, (*size, channels, columns), param_dtype),
            "recurrent_kernel": per_gate(recurrent_kernel_init, gates)(
                k_recurrent, (*size, width, columns), param_dtype
            ),
            "bias": bias_init(k_bias, (columns,), param_dtype),
        }
        left = space_after(params["input_kernel"], x, strides, padding)
        if 0 in left:
            raise ValueError(
                f"{name}: nothing is left of images of size {tuple(space)} after a convolution with kernel_size "
                f"{size}, strides {strides} and padding {padding!r} (output size {left}); use padding='SAME' or a "
                f"smaller kernel"
            )
        return params

    return init


def space_after(input_kernel: jax.Array, x: PyTree, strides: Sizes, padding: Padding) -> tuple[int, ...]:
    """The spatial size of the state, which is that of the convolved input."""

    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, strides=strides, padding=padding)

    return jax.eval_shape(convolved, x, input_kernel).shape[:-1]
