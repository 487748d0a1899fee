"""The nets: ConvLSTMs between a convolution that reads a frame and a readout, as one layer of rnnx."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from experiments.training import Loss
from experiments.video.data import DIRECTIONS
from experiments.video.settings import Video

DIGITS = 10
NETS = {"conv_lstm": True, "one_frame": False}
"""What is trained on each task, and whether it has memory."""


class Task(NamedTuple):
    """What `loop.fit` needs of a task: the net, its loss on the digits, and `evaluate(params)` on the validation, whose
    metric `monitor` decides on the kept weights."""

    layer: rnnx.Layer
    loss: Loss
    evaluate: Callable[[Any], dict[str, float]]
    monitor: str
    columns: Mapping[str, Callable[[Mapping[str, float]], str]]


def recurrent(config: Video, *, memory: bool, strides: int = 1) -> rnnx.Layer:
    """A ConvLSTM, or in its place a convolution of the same width.

    All steps stand one after the other in one iteration of the compiled loop: on a CPU, XLA is far slower with the
    gradient of a kernel where the convolution is inside of a loop.
    """
    if memory:
        return rnnx.scan(rnnx.cells.conv_lstm(config.width, strides=strides), unroll=config.longest)
    return rnnx.stack(*convolution(config.width, strides=strides))


def convolution(width: int, *, kernel_size: int = 3, strides: int = 1) -> tuple[Any, Any]:
    return nn.Conv(width, (kernel_size, kernel_size), strides=strides), rnnx.pointwise(nn.relu)


def classifier(config: Video, *, memory: bool) -> rnnx.Layer:
    """Frames `[batch, time, size, size, 1]` to logits `[batch, time, 10 + 8]`: what it thinks after each frame."""
    width = config.width
    return rnnx.stack(
        *convolution(width // 3),
        *convolution(2 * width // 3, strides=2),
        *convolution(width),
        recurrent(config, memory=memory, strides=2),
        *convolution(2 * width, strides=2),
        rnnx.pointwise(pooled),
        rnnx.dropout(config.dropout),
        nn.Dense(DIGITS + len(DIRECTIONS)),
    )


def pooled(image: jax.Array) -> jax.Array:
    """Mean and maximum of each channel over the image `[height, width, channels]`: `[2 channels]`."""
    return jnp.concatenate([image.mean(axis=(0, 1)), image.max(axis=(0, 1))])


def predictor(config: Video, *, memory: bool) -> rnnx.Layer:
    """Frames `[batch, time, size, size, 1]` to logits of the pixels of each next frame, in the same shape.

    The ConvLSTM works on a coarse image and has to know the motion only; what moves goes past it.
    """
    width = config.width
    coarse = *convolution(width, strides=2), recurrent(config, memory=memory), rnnx.pointwise(doubled)
    return rnnx.stack(
        *convolution(2 * width // 3, kernel_size=4, strides=2),
        rnnx.parallel(rnnx.pointwise(unchanged), rnnx.stack(*coarse)),
        *convolution(4 * width // 3),
        *convolution(4 * width // 3),
        nn.Conv(4, (3, 3)),
        rnnx.pointwise(unfolded),
    )


def unchanged(image: jax.Array) -> jax.Array:
    return image


def doubled(image: jax.Array) -> jax.Array:
    """Twice as high and as wide: each place four times."""
    return image.repeat(2, axis=0).repeat(2, axis=1)


def unfolded(image: jax.Array) -> jax.Array:
    """The four channels of each place as a square of 2x2 pixels: `[h, w, 4]` to `[2 h, 2 w, 1]`."""
    height, width, _ = image.shape
    return image.reshape(height, width, 2, 2).swapaxes(1, 2).reshape(2 * height, 2 * width, 1)


def in_parts(function: Callable[[Any], Any], inputs: Any, part: int = 250) -> Any:
    """`function(inputs)`, of a part of the clips at a time, joined: trees of arrays with the leading axis [n]."""
    leaves, tree = jax.tree.flatten(inputs)
    parts = []
    for start in range(0, len(leaves[0]), part):
        own = jax.tree.unflatten(tree, [leaf[start : start + part] for leaf in leaves])
        parts.append(jax.device_get(function(own)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
