"""The plot of gates."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.plots import plt, save


def gates(
    path: Path, pieces: Sequence[str], values: Mapping[str, np.ndarray], units: np.ndarray, roles: Mapping[str, str]
) -> None:
    """Draws each gate `[time, units]` as a panel: a row for each unit, a column for each character of the text."""
    height = 0.6 + 0.2 * len(units)
    figure, panels = plt.subplots(
        len(values),
        figsize=(2 + 0.2 * len(pieces), height * len(values)),
        layout="constrained",
        squeeze=False,
        sharex=True,
    )
    for axes, (name, of) in zip(panels[:, 0], values.items()):
        signed = of.min() < 0
        limit = max(abs(of).max(), 1e-6)
        scale = (
            {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit} if signed else {"cmap": "viridis", "vmin": 0, "vmax": 1}
        )
        image = axes.imshow(of.T, aspect="auto", interpolation="nearest", **scale)
        axes.set_title(f"{name}: {roles[name]}" if name in roles else name, loc="left", fontsize=11)
        axes.set_yticks(range(len(units)), [str(unit) for unit in units], fontsize=7)
        axes.set_ylabel("unit")
        figure.colorbar(image, ax=axes, pad=0.01)
    panels[-1, 0].set_xticks(range(len(pieces)), ["␣" if p == " " else "⏎" if p == "\n" else p for p in pieces])
    save(figure, path)
