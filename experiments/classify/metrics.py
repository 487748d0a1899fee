"""How good a classifier is, and how well it knows that."""

from typing import NamedTuple

import numpy as np


class Calibration(NamedTuple):
    """The test, in bins of the probability that the predicted class was given; each array `[bins]`."""

    counts: np.ndarray
    confidence: np.ndarray
    """Mean probability of the predicted class; 0 in an empty bin."""
    accuracy: np.ndarray
    """Share that was right; 0 in an empty bin."""
    error: float
    """The expected calibration error: mean gap between confidence and accuracy, bins weighted by their counts."""


def probabilities(logits: np.ndarray) -> np.ndarray:
    """`[..., classes]`, in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def accuracy(probability: np.ndarray, labels: np.ndarray) -> float:
    return float((probability.argmax(axis=1) == labels).mean())


def negative_log_likelihood(probability: np.ndarray, labels: np.ndarray) -> float:
    """Mean, in nats."""
    given = probability[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(given, np.finfo(np.float64).tiny)).mean())


def confusion(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`[classes, classes]` counts: a row for each true class, a column for each predicted one."""
    classes = probability.shape[1]
    pairs = labels.astype(np.int64) * classes + probability.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def calibration(probability: np.ndarray, labels: np.ndarray, bins: int = 10) -> Calibration:
    """In bins of equal width.

    Reference: C. Guo et al., *On calibration of modern neural networks*, ICML 2017.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts, sure, correct = (
        np.bincount(place, weights=weights, minlength=bins) for weights in (np.ones_like(confidence), confidence, right)
    )
    sure, correct = (total / np.maximum(counts, 1) for total in (sure, correct))
    return Calibration(counts, sure, correct, float(counts @ np.abs(sure - correct) / len(labels)))
