"""The nets: ConvLSTMs between a convolution that reads a frame and a readout, as one layer of rnnx."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.video.config import Task, Video
from experiments.video.data import DIRECTIONS

DIGITS = 10
NETS = {"conv_lstm": True, "one_frame": False}
"""What is trained on each task, and whether it has memory."""


class Logits(NamedTuple):
    """Logits of the digit, `[..., 10]`, and of the direction, `[..., 8]`."""

    digit: Any
    direction: Any


def make_model(config: Video, task: Task, net: str) -> rnnx.Layer:
    return {"classify": classifier, "predict": predictor}[task](config, memory=NETS[net])


def recurrent(config: Video, *, memory: bool, strides: int = 1) -> rnnx.Layer:
    """A ConvLSTM, or in its place a convolution of the same width.

    All steps of a training clip are unrolled into one iteration of the compiled loop: on a CPU, XLA computes the
    gradient of a kernel far more slowly if the convolution is inside a loop.
    """
    width = config.model.width
    if memory:
        return rnnx.scan(rnnx.cells.conv_lstm(width, strides=strides), unroll=config.data.longest)
    return rnnx.stack(*convolution(width, strides=strides))


def convolution(width: int, *, kernel_size: int = 3, strides: int = 1) -> tuple[Any, Any]:
    return nn.Conv(width, (kernel_size, kernel_size), strides=strides), rnnx.pointwise(nn.relu)


def classifier(config: Video, *, memory: bool) -> rnnx.Layer:
    """Frames `[batch, time, size, size, 1]` to logits `[batch, time, 10 + 8]`, after each frame."""
    width = config.model.width
    return rnnx.stack(
        *convolution(width // 3),
        *convolution(2 * width // 3, strides=2),
        *convolution(width),
        recurrent(config, memory=memory, strides=2),
        *convolution(2 * width, strides=2),
        rnnx.pointwise(pool),
        rnnx.dropout(config.model.dropout),
        nn.Dense(DIGITS + len(DIRECTIONS)),
    )


def predictor(config: Video, *, memory: bool) -> rnnx.Layer:
    """Frames `[batch, time, size, size, 1]` to logits of the pixels of each next frame, in the same shape.

    The ConvLSTM works on a coarse image and needs to know only the motion; the image itself bypasses it.
    """
    width = config.model.width
    coarse = *convolution(width, strides=2), recurrent(config, memory=memory), rnnx.pointwise(upsample)
    return rnnx.stack(
        *convolution(2 * width // 3, kernel_size=4, strides=2),
        rnnx.parallel(rnnx.pointwise(lambda image: image), rnnx.stack(*coarse)),
        *convolution(4 * width // 3),
        *convolution(4 * width // 3),
        nn.Conv(4, (3, 3)),
        rnnx.pointwise(depth_to_space),
    )


def pool(image: jax.Array) -> jax.Array:
    """Mean and maximum of each channel over the image `[height, width, channels]`: `[2 channels]`."""
    return jnp.concatenate([image.mean(axis=(0, 1)), image.max(axis=(0, 1))])


def upsample(image: jax.Array) -> jax.Array:
    """Twice as high and as wide: each pixel four times."""
    return image.repeat(2, axis=0).repeat(2, axis=1)


def depth_to_space(image: jax.Array) -> jax.Array:
    """The four channels of each pixel as a square of 2x2 pixels: `[h, w, 4]` to `[2 h, 2 w, 1]`."""
    height, width, _ = image.shape
    return image.reshape(height, width, 2, 2).swapaxes(1, 2).reshape(2 * height, 2 * width, 1)


def classify(
    layer: rnnx.Layer,
    params: Any,
    frames: jax.Array,
    lengths: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Logits:
    """Logits after each frame, `[n, time, ...]`; the key is for dropout."""
    _, logits = rnnx.unroll(layer, params, frames, lengths=lengths, key=key)
    return Logits(logits[..., :DIGITS], logits[..., DIGITS:])


def predict_next(layer: rnnx.Layer, params: Any, frames: jax.Array) -> jax.Array:
    """Logits of `frames[:, 1:]`, each from the true frames before it."""
    return rnnx.unroll(layer, params, frames[:, :-1])[1]


def rollout(layer: rnnx.Layer, params: Any, frames: jax.Array, steps: int) -> jax.Array:
    """`steps` frames after those given: the first is made from these, each later one from the net's own before it."""
    carry, _ = rnnx.unroll(layer, params, frames[:, :-1])
    _, made = rnnx.generate(
        layer, params, carry, frames[:, -1], steps=steps, sample=lambda key, logits: jax.nn.sigmoid(logits)
    )
    return made
