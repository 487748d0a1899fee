"""The attention of the decoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.plots import plt, save
from experiments.translate.data import Symbols


def attention(path: Path, maps: Sequence[tuple[Symbols, Symbols, np.ndarray, bool]], title: str) -> None:
    """A panel for each `(source, target, weights [target, source], whether it is right)`."""
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.6 * rows), layout="constrained", squeeze=False)
    for panel in axes.flat[len(maps) :]:
        panel.axis("off")
    for panel, (source, target, weights, right) in zip(axes.flat, maps):
        panel.set_title("".join(source) + ("" if right else "  (wrong)"), color="black" if right else "tab:red")
        if not target:  # nothing was written, so there is no attention
            panel.axis("off")
            continue
        panel.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        panel.set_xticks(range(len(source)), source)
        panel.set_yticks(range(len(target)), target)
        panel.tick_params(length=0)
    figure.suptitle(title)
    figure.supxlabel("read")
    figure.supylabel("written")
    figure.colorbar(plt.cm.ScalarMappable(cmap="Blues"), ax=axes, label="weight", shrink=0.6)
    save(figure, path)
