"""What the plots of all experiments share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # a file is wanted, whatever screen there is

import matplotlib.pyplot as plt
import numpy as np


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=150)
    plt.close(figure)


def learning_curve(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    train: str,
    validation: str,
    label: str,
    title: str,
    higher_is_better: bool = False,
) -> None:
    """Draws two metrics of metrics.jsonl over the steps and marks the best validation.

    The noisy training curve is drawn thin, with its running mean on top.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    train_steps, noisy = series(rows, train)
    mean = _running_mean(noisy)
    axes.plot(train_steps, noisy, color="tab:blue", alpha=0.25, linewidth=1)
    axes.plot(train_steps, mean, color="tab:blue", label="training")
    steps, values = series(rows, validation)
    axes.plot(steps, values, color="tab:orange", marker="o", markersize=3, label="validation")
    best = int(np.argmax(values) if higher_is_better else np.argmin(values))
    axes.plot(steps[best], values[best], "k*", markersize=12)
    axes.annotate(
        f"best {values[best]:.4f} at step {steps[best]:,.0f}",
        (steps[best], values[best]),
        xytext=(0, 20),
        textcoords="offset points",
        ha="right" if steps[best] > steps.mean() else "left",
    )
    # The view is that from the first validation on: the training steps before it are far off, and shown in full
    # they would press the rest into a line.
    shown = np.concatenate([values, mean[train_steps >= steps[0]]])
    seen = np.concatenate([values, noisy])
    if higher_is_better:
        axes.set_ylim(bottom=shown.min() - 0.1 * (seen.max() - shown.min()))
    else:
        axes.set_ylim(top=shown.max() + 0.1 * (shown.max() - seen.min()))
    axes.set(xlabel="step", ylabel=label, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def validation_curves(
    path: Path,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    metric: str,
    *,
    per_step: int = 1,
    chance: float | None = None,
    **axes_settings: Any,
) -> None:
    """Draws a metric of several runs, from the rows of their metrics.jsonl, over the steps or what they are made of."""
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for label, rows in runs.items():
        steps, values = series(rows, metric)
        axes.plot(steps * per_step, values, marker="o", markersize=3, label=label)
    if chance is not None:
        axes.axhline(chance, color="black", linestyle="dotted", linewidth=1, label="chance")
    axes.set(**axes_settings)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    save(figure, path)


def draw_confusion(axes: Any, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draws `counts` `[classes, classes]`, a row for each true class; darker where more of the row are."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 25:  # more would not be readable
        places = range(len(classes))
        axes.set_xticks(places, classes, rotation=90 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(places, classes)
        for i, j in zip(*np.nonzero(counts)):
            # Rare errors stand out, pale as their squares are; on a darker square red could not be read.
            rare = i != j and shares[i, j] < 0.2
            color = "tab:red" if rare else "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, counts[i, j], ha="center", va="center", color=color, weight="bold" if rare else "normal")


def series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps that logged this metric, and its values."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def _running_mean(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    width = max(1, int(len(values) * share)) | 1
    padded = np.pad(values, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
