"""The scores: how accurate a classifier is, and how well calibrated."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import rnnx
from experiments import runs
from experiments.classify.config import Classify
from experiments.classify.data import Dataset, Encoded
from experiments.classify.model import Net, classify, classify_packed
from experiments.files import read_json
from experiments.logs import read_metrics
from experiments.loop import Fitted
from experiments.training import TrainState


class Calibration(NamedTuple):
    """The test set, in bins of the probability given to the predicted class; each array is `[bins]`."""

    counts: np.ndarray
    confidence: np.ndarray
    """Mean probability of the predicted class; 0 in an empty bin."""
    accuracy: np.ndarray
    """Share of correct predictions; 0 in an empty bin."""
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
    """Calibration in bins of equal width.

    Reference: C. Guo et al., *On calibration of modern neural networks*, ICML 2017.
    """
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    counts, sure, correct = (
        np.bincount(place, weights=weights, minlength=bins) for weights in (np.ones_like(confidence), confidence, right)
    )
    sure, correct = (total / np.maximum(counts, 1) for total in (sure, correct))
    return Calibration(counts, sure, correct, float(counts @ np.abs(sure - correct) / len(labels)))


class Predict:
    """The logits `[nets, n, classes]` of any sequences, read padded or packed."""

    BATCH = 512

    def __init__(self, net: Net) -> None:
        self._padded = jax.jit(jax.vmap(functools.partial(classify, net), in_axes=(0, None, None)))
        self._packed = jax.jit(jax.vmap(functools.partial(classify_packed, net), in_axes=(0, None)))

    def padded(self, params: Any, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """In buckets of similar length, so that little is padding."""
        batches = rnnx.bucket([len(sequence) for sequence in sequences], self.BATCH, edges=2)
        logits = [self._padded(params, *rnnx.pad([sequences[i] for i in own], length=n)) for own, n in batches]
        order = np.concatenate([own for own, _ in batches])
        return np.concatenate(logits, axis=1)[:, np.argsort(order)]

    def packed(self, params: Any, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Several sequences to a row; a row has room for two of the longest."""
        length = 2 * max(len(sequence) for sequence in sequences)
        parts = [sequences[start : start + self.BATCH] for start in range(0, len(sequences), self.BATCH)]
        return np.concatenate([self._packed(params, rnnx.pack(part, length=length)) for part in parts], axis=1)


def make_evaluate(predict: Predict, validation: Encoded) -> tuple[str, Callable[[TrainState], dict[str, float]]]:
    """The metric that decides which weights are kept, and the evaluation; without a validation set, the last stay."""
    if not validation.sequences:
        return "updates", lambda state: {"updates": float(state.step)}

    def evaluate(state: TrainState) -> dict[str, float]:
        probability = probabilities(predict.padded(state.params, validation.sequences)).mean(axis=0)
        return {
            "val_nll": negative_log_likelihood(probability, validation.labels),
            "val_accuracy": accuracy(probability, validation.labels),
        }

    return "val_nll", evaluate


def scores_of(each: np.ndarray, packed: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores of probabilities `[nets, n, classes]`, read padded and packed: means over the nets, and the ensemble's."""

    def mean(score: Callable[[np.ndarray, np.ndarray], float], nets: np.ndarray) -> float:
        return float(np.mean([score(own, labels) for own in nets]))

    scores = {
        "test_accuracy": mean(accuracy, each),
        "test_accuracy_packed": mean(accuracy, packed),
        "test_nll": mean(negative_log_likelihood, each),
        "test_calibration_error": mean(lambda *given: calibration(*given).error, each),
    }
    if len(each) > 1:
        scores["ensemble_test_accuracy"] = accuracy(each.mean(axis=0), labels)
        scores["ensemble_test_nll"] = negative_log_likelihood(each.mean(axis=0), labels)
    return scores


def errors_of(data: Dataset, test: Encoded, probability: np.ndarray) -> list[dict[str, Any]]:
    """Each misclassified test sequence, as JSON can hold it."""
    return [
        {
            "number": int(i) + 1,
            **({"text": data.test.items[i]} if isinstance(data.test.items[i], str) else {}),
            "length": len(test.sequences[i]),
            "true": data.classes[test.labels[i]],
            "predicted": data.classes[probability[i].argmax()],
            "probability": float(probability[i].max()),
        }
        for i in np.flatnonzero(probability.argmax(axis=1) != test.labels)
    ]


def report(
    config: Classify,
    run_dir: Path,
    data: Dataset,
    parts: dict[str, Encoded],
    predict: Predict,
    fitted: Fitted[TrainState],
) -> None:
    """Scores the best weights on the test set, read both ways. Writes results.json last: it marks the end."""
    from experiments.classify import plots  # not at the top: a second of start-up
    from experiments.classify.baselines import baselines

    params, test, nets = fitted.best.params, parts["test"], config.model.nets
    padded, packed = predict.padded(params, test.sequences), predict.packed(params, test.sequences)
    scores = scores_of(probabilities(padded), probabilities(packed), test.labels)
    probability = probabilities(padded).mean(axis=0)  # of the ensemble, like everything below
    bins, counts = calibration(probability, test.labels), confusion(probability, test.labels)
    errors = errors_of(data, test, probability)
    right = f"{accuracy(probability, test.labels):.2%} of {len(test.labels)} test sequences right"
    rows = read_metrics(run_dir)
    plots.overview(
        run_dir / "overview.png",
        rows,
        confusion=counts,
        classes=data.classes,
        calibration=bins,
        lengths=np.array([len(sequence) for sequence in test.sequences]),
        wrong=np.array([error["number"] - 1 for error in errors], int),
        title=f"{run_dir.name}: {right}" + (f", by {nets} nets together" if nets > 1 else ""),
    )
    runs.finish(
        run_dir,
        {**scores, **baselines(data)},
        seed=config.run.seed,
        seconds=fitted.seconds,
        largest_difference_of_logits_padded_to_packed=float(np.abs(padded - packed).max()),
        validation=[row for row in rows if row["step"] == fitted.best_step and "val_nll" in row],
        best_step=fitted.best_step,
        steps=fitted.last_step,
        nets=nets,
        parameters_of_a_net=runs.count(params) // nets,
        examples={part: len(examples.sequences) for part, examples in parts.items()},
        classes=data.classes,
        confusion=counts.tolist(),
        calibration={name: np.asarray(field).tolist() for name, field in bins._asdict().items()},
        errors=errors,
        data_sha256=data.sha256,
    )


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; plot: {run_dir / 'overview.png'})")
    for score, value in run["scores"].items():
        print(f"{score.replace('_', ' '):<32}{value:>8.4f}")
    together = f" by {run['nets']} nets together" if run["nets"] > 1 else ""
    print(
        f"{len(run['errors'])} of {run['examples']['test']} wrong{together}; padded and packed logits differ by "
        f"{run['largest_difference_of_logits_padded_to_packed']:.1e} at most"
    )
