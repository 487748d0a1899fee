"""Plotting code that all experiments share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws into files, without a screen

import matplotlib.pyplot as plt
import numpy as np

from experiments.logs import read_metrics


def save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=150)
    plt.close(figure)


def learning_curve(run_dir: Path, validation: str, *, label: str, title: str) -> None:
    """Draws the training loss and a validation metric over the steps, and marks the best validation.

    The noisy training curve is drawn thin, with its running mean on top.
    """
    rows = read_metrics(run_dir)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    train_steps, noisy = series(rows, "loss")
    mean = _running_mean(noisy)
    axes.plot(train_steps, noisy, color="tab:blue", alpha=0.25, linewidth=1)
    axes.plot(train_steps, mean, color="tab:blue", label="training")
    steps, values = series(rows, validation)
    axes.plot(steps, values, color="tab:orange", marker="o", markersize=3, label="validation")
    best = int(np.argmin(values))
    axes.plot(steps[best], values[best], "k*", markersize=12)
    axes.annotate(
        f"best {values[best]:.4f} at step {steps[best]:,.0f}",
        (steps[best], values[best]),
        xytext=(0, 20),
        textcoords="offset points",
        ha="right" if steps[best] > steps.mean() else "left",
    )
    # The y-axis is limited to the values from the first validation on: the training losses before it are so much
    # larger that the rest would look like a flat line.
    shown = np.concatenate([values, mean[train_steps >= steps[0]]])
    axes.set_ylim(top=shown.max() + 0.1 * (shown.max() - min(values.min(), noisy.min())))
    axes.set(xlabel="step", ylabel=label, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, run_dir / "learning_curve.png")


def validation_curves(
    path: Path,
    run_dirs: Mapping[str, Path],
    metric: str,
    *,
    per_step: int = 1,
    chance: float | None = None,
    **axes_settings: Any,
) -> None:
    """Draws a metric of several labelled runs over the steps, or over the `per_step` units that make up each step."""
    figure, axes = plt.subplots(figsize=(10, 4.5), layout="constrained")
    for label, run_dir in run_dirs.items():
        steps, values = series(read_metrics(run_dir), metric)
        axes.plot(steps * per_step, values, marker="o", markersize=3, label=label)
    if chance is not None:
        axes.axhline(chance, color="black", linestyle="dotted", linewidth=1, label="chance")
    axes.set(**axes_settings)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    save(figure, path)


def draw_confusion(axes: Any, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draws `counts` `[classes, classes]`, a row for each true class; darker for a larger share of its row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 25:  # more labels would be illegible
        places = range(len(classes))
        axes.set_xticks(places, classes, rotation=90 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(places, classes)
        for i, j in zip(*np.nonzero(counts)):
            # Rare errors are red, to stand out on their pale squares; on a darker square red would be illegible.
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
