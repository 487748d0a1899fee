"""The plot of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.char_lm.config import MONITOR
from experiments.logs import read_metrics
from experiments.plots import plt


def curves(run_dir: Path, runs: Mapping[str, Any]) -> None:
    """Draws the validation losses of all cells, the best one first in the legend."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for cell in sorted(runs, key=lambda cell: next(iter(runs[cell]["scores"].values()))):
        rows = [row for row in read_metrics(run_dir / cell) if MONITOR in row]
        (nats,) = runs[cell]["scores"].values()
        axes.plot(
            [row["step"] for row in rows],
            [row[MONITOR] for row in rows],
            marker="o",
            markersize=3,
            label=f"{cell}: {nats:.3f} with {runs[cell]['parameters']:,} parameters",
        )
    (metric,) = next(iter(runs.values()))["scores"]
    axes.set(xlabel="step", ylabel=metric.replace("_", " "), title=f"{run_dir.name}: validation, and final score")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(run_dir / "learning_curves.png", dpi=150)
    plt.close(figure)
