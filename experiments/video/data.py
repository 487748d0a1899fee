"""Clips of a handwritten digit that moves over a black square and bounces off its walls.

A digit moves one whole pixel per frame along one axis, or along both for a diagonal; its motion along an axis reverses
when the ink, not the 8x8 image, touches the wall. The start on each axis is drawn uniformly from the whole cycle there
and back, so that away from the walls a single frame does not tell the direction.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError
from experiments.video.config import DIGIT, Data

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
"""Shares of the images of each digit. The split and the clips that are scored do not depend on the seed of a run."""
SPLIT_SEED, VALIDATION_SEED, TEST_SEED = 0, 1, 2

DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
MOVES = np.array([(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)])
"""Rows and columns that a digit moves by per frame, in the order of DIRECTIONS."""
NUMBERS = np.zeros((3, 3), np.int32)
"""The number of a direction, indexed by its move plus 1."""
NUMBERS[tuple(MOVES.T + 1)] = np.arange(len(MOVES))


class Digits(NamedTuple):
    """`images` `[n, 8, 8]` from 0 to 1, the ink pushed into the upper left corner, its `sizes` `[n, 2]` in pixels, and
    `labels` `[n]`."""

    images: Any
    sizes: Any
    labels: Any


class Split(NamedTuple):
    """The parts of the images; no image is in two of them."""

    train: Digits
    validation: Digits
    test: Digits


class Clips(NamedTuple):
    """`frames` `[n, time, size, size, 1]`, the `digit` `[n]`, and the `direction` `[n, time]` in which it moves into
    each frame; that of the first frame means nothing."""

    frames: jax.Array
    digit: jax.Array
    direction: jax.Array


class Examples(NamedTuple):
    """Clips with `lengths` `[n]`: only so many frames of each are read. `direction` `[n]` is that of the last."""

    frames: Any
    lengths: Any
    digit: Any
    direction: Any


def load_digits() -> Split:
    """scikit-learn's 1,797 images, split separately for each digit."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise UserError("The digits come with scikit-learn: pip install scikit-learn") from None
    images, labels = load_digits().images.astype(np.float32) / 16, load_digits().target.astype(np.int32)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_SHARE / (1 - TEST_SHARE), stratify=labels[rest], random_state=SPLIT_SEED
    )
    digits = push_into_corner(images, labels)
    return Split(*(Digits(*(array[part] for array in digits)) for part in (train, validation, test)))


def push_into_corner(images: np.ndarray, labels: np.ndarray) -> Digits:
    """Measures the extent of the ink, and moves it to the upper left."""
    pushed, sizes = [], []
    for image in images:
        spans = []
        for axis in range(2):
            inked = np.flatnonzero((image > 0).any(axis=1 - axis))
            spans.append((inked[0], inked[-1] + 1))
        (top, bottom), (left, right) = spans
        pushed.append(np.roll(image, (-top, -left), axis=(0, 1)))
        sizes.append((bottom - top, right - left))
    return Digits(np.stack(pushed), np.array(sizes, np.int32), labels)


def draw(key: jax.Array, digits: Digits, count: int, *, time: int, size: int, warp: float = 0.0) -> Clips:
    """Draws clips of `time` frames, of digits that are randomly rotated and stretched, as far as `warp` says."""
    which_key, move_key, place_key, warp_key = jax.random.split(key, 4)
    which = jax.random.randint(which_key, (count,), 0, len(digits.labels))
    moving = jnp.abs(jnp.asarray(MOVES))[jax.random.randint(move_key, (count,), 0, len(MOVES))]
    room = size - jnp.asarray(digits.sizes)[which]
    # Where each axis starts on its cycle of 2 room steps, there and back; an axis that does not move stays there.
    start = (jax.random.uniform(place_key, (count, 2)) * 2 * room).astype(jnp.int32)
    way = (start[:, None] + moving[:, None] * jnp.arange(time)[None, :, None]) % (2 * room[:, None])
    places = jnp.minimum(way, 2 * room[:, None] - way)  # [count, time, 2]
    images = jnp.asarray(digits.images)[which]
    if warp:
        images = warp_images(warp_key, images, jnp.asarray(digits.sizes)[which], warp)
    moves = jnp.diff(places, axis=1, prepend=places[:, :1])
    return Clips(
        frames=place_at(images, places, size),
        digit=jnp.asarray(digits.labels)[which],
        direction=jnp.asarray(NUMBERS)[moves[..., 0] + 1, moves[..., 1] + 1],
    )


def draw_examples(data: Data, seed: int, digits: Digits, count: int) -> Examples:
    clips_key, lengths_key = jax.random.split(jax.random.key(seed))
    clips = draw(clips_key, digits, count, time=data.longest, size=data.size)
    lengths = jax.random.randint(lengths_key, (count,), data.shortest, data.longest + 1)
    return Examples(clips.frames, lengths, clips.digit, clips.direction[jnp.arange(count), lengths - 1])


def place_at(images: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """Images `[n, 8, 8]`, their corner at row and column `places` `[n, time, 2]`: frames `[n, time, size, size, 1]`."""
    line = jnp.arange(size)[:, None] - jnp.arange(DIGIT)[None]
    onto = (line[None, None, None] == places[..., None, None]).astype(images.dtype)  # [n, time, 2, size, 8]
    return jnp.einsum("ntyi,nij,ntxj->ntyx", onto[:, :, 0], images, onto[:, :, 1])[..., None]


def warp_images(key: jax.Array, images: jax.Array, sizes: jax.Array, strength: float) -> jax.Array:
    """Images `[n, 8, 8]` under linear maps around their middle: the identity plus noise of this standard deviation."""
    maps = jnp.eye(2)[None] + strength * jax.random.normal(key, (len(images), 2, 2))
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(DIGIT)] * 2, indexing="ij"), axis=-1)
    middle = (sizes[:, None, None] - 1) / 2
    places = jnp.einsum("nyxi,nij->jnyx", grid[None] - middle, maps) + middle.transpose(3, 0, 1, 2)
    resample = functools.partial(jax.scipy.ndimage.map_coordinates, order=1)
    return jax.vmap(lambda image, rows, columns: resample(image, [rows, columns]))(images, *places)
