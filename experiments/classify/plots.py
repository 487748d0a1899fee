"""The plot of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.classify.evaluate import Calibration
from experiments.plots import draw_confusion, plt, save, series


def overview(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    confusion: np.ndarray,
    classes: Sequence[str],
    calibration: Calibration,
    lengths: np.ndarray,
    wrong: np.ndarray,
    title: str,
) -> None:
    """Draws the confusion matrix, the calibration, the learning curve, and which lengths are hard.

    Args:
        path: where the PNG is written.
        rows: the rows of metrics.jsonl.
        confusion: `[classes, classes]` counts, a row for each true class.
        classes: the names of the classes.
        calibration: the calibration on the test set.
        lengths: `[n]`, the lengths of the test sequences.
        wrong: indices of the misclassified ones.
        title: the title of the figure.
    """
    figure, axes = plt.subplots(2, 2, figsize=(12, 9.5), layout="constrained")
    figure.suptitle(title, fontsize=15)
    draw_confusion(axes[0, 0], confusion, classes)
    errors = int(confusion.sum() - np.trace(confusion))
    mistaken = f"{errors} of {confusion.sum()} are taken for another class"
    axes[0, 0].set(xlabel="predicted", ylabel="true", title=mistaken)
    draw_calibration(axes[0, 1], calibration)
    draw_learning(axes[1, 0], rows)
    draw_lengths(axes[1, 1], lengths, wrong)
    save(figure, path)


def draw_calibration(axes: Any, calibration: Calibration) -> None:
    bins = len(calibration.counts)
    filled = calibration.counts > 0
    axes.plot([0, 1], [0, 1], color="black", linestyle="dotted", linewidth=1, label="perfectly calibrated")
    centres = (np.arange(bins) + 0.5) / bins
    axes.bar(
        centres[filled], calibration.accuracy[filled], 0.9 / bins, color="tab:blue", alpha=0.35, label="share right"
    )
    axes.scatter(
        calibration.confidence[filled],
        calibration.accuracy[filled],
        color="tab:blue",
        zorder=3,
        label="mean of the bin",
    )
    for x, count in zip(centres[filled], calibration.counts[filled]):
        axes.annotate(f"{count:.0f}", (x, 0), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set(
        xlabel="probability given to the predicted class",
        ylabel="share that was right",
        xlim=(0, 1.01),
        ylim=(0, 1.04),
        title=f"calibration error {calibration.error:.3f} (counts at the foot of each bin)",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")


def draw_learning(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    styles = {"loss": ("tab:blue", "training loss (inputs changed, dropout)"), "val_nll": ("tab:orange", "validation")}
    for name, (color, label) in styles.items():
        steps, values = series(rows, name)
        if len(steps):
            axes.plot(steps, values, color=color, label=label, marker="o" if name == "val_nll" else None, markersize=3)
    losses = [row["loss"] for row in rows if "loss" in row]
    scale = "log" if max(losses) > 10 * min(losses) else "linear"
    axes.set(xlabel="step", ylabel="nats per sequence", yscale=scale, title="learning curve")
    axes.grid(alpha=0.3)
    axes.legend()


def draw_lengths(axes: Any, lengths: np.ndarray, wrong: np.ndarray) -> None:
    width = int(np.ceil((np.ptp(lengths) + 1) / 30))
    edges = np.arange(lengths.min(), lengths.max() + width + 1, width) - 0.5
    errors = np.zeros(len(lengths), bool)
    errors[wrong] = True
    axes.hist(
        [lengths[~errors], lengths[errors]],
        edges,
        stacked=True,
        color=["tab:blue", "tab:red"],
        label=["right", "wrong"],
    )
    axes.set(xlabel="steps of the test sequence", ylabel="test sequences", title="lengths, and where the errors are")
    axes.legend()
