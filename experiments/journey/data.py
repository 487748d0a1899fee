"""Sequences of the corners of a square, in both directions."""

from typing import Any, NamedTuple

import numpy as np

from experiments.journey.config import Journey

CORNERS = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], np.float32)
"""The corners of the square, clockwise."""


class Sequences(NamedTuple):
    """`xs` `[n, 4, 2]`, the corners in the order of the visit, with noise; `labels` `[n]`, 0 clockwise, 1 not."""

    xs: Any
    labels: Any


class Split(NamedTuple):
    train: Sequences
    val: Sequences
    test: Sequences


def draw(n: int, noise: float, rng: np.random.Generator) -> Sequences:
    """`n` sequences: every start and either direction in turn, so that all eight orders are equally frequent.

    Sequences 2 k and 2 k + 1 are twins: they start from the same corner in different directions.
    """
    labels, starts = np.arange(n) % 2, np.arange(n) // 2 % 4
    visits = starts[:, None] + np.where(labels == 0, 1, -1)[:, None] * np.arange(4)
    xs = CORNERS[visits % 4] + noise * rng.standard_normal((n, 4, 2), np.float32)
    return Sequences(xs.astype(np.float32), labels.astype(np.int32))


def load_data(config: Journey) -> Split:
    data, seed = config.data, config.run.seed
    sizes = data.train_sequences, data.val_sequences, data.test_sequences
    return Split(*(draw(n, data.noise, np.random.default_rng([seed, i])) for i, n in enumerate(sizes)))
