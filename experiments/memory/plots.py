"""The plots: a table of cells and tasks, training curves, and accuracy by length."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.logs import read_metrics
from experiments.plots import np, plt, save

Row = Mapping[str, Any]
"""One training, as recorded in results.json."""


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The trainings, one for each seed, of each `(title of the task, cell)`."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["title"], row["cell"]), []).append(row)
    return groups


def best_and_worst(seeds: Sequence[Row]) -> tuple[float, float]:
    """The scores of one task and cell that are furthest apart, the better one first."""
    scores = sorted(row["score"] for row in seeds)
    return (scores[-1], scores[0]) if seeds[0]["metric"] == "accuracy" else (scores[0], scores[-1])


def unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def colours(cells: Sequence[str]) -> dict[str, Any]:
    return {cell: plt.get_cmap("tab10")(i % 10) for i, cell in enumerate(unique(cells))}


def table(path: Path, rows: Sequence[Row]) -> None:
    """Colours show how far from chance to perfect, numbers the scores: for several seeds mean, worst and best."""
    groups = grouped(rows)
    titles, cells = unique([row["title"] for row in rows]), unique([row["cell"] for row in rows])
    way = np.full((len(cells), len(titles)), np.nan)
    figure, axes = plt.subplots(figsize=(2.4 + 1.5 * len(titles), 1.9 + 0.55 * len(cells)), layout="constrained")
    for (title, cell), seeds in groups.items():
        y, x = cells.index(cell), titles.index(title)
        way[y, x] = np.mean([row["way"] for row in seeds])
        text = f"{np.mean([row['score'] for row in seeds]):.3f}"
        if len(seeds) > 1:
            best, worst = best_and_worst(seeds)
            text += f"\n{worst:.3f} to {best:.3f}"
        dark = way[y, x] < 0.6
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    image = axes.imshow(np.ma.masked_invalid(way), cmap="viridis", vmin=0, vmax=1, aspect="auto")
    below = {row["title"]: f"{row['metric']}, chance {row['chance']:.2g}" for row in rows}
    axes.set_xticks(range(len(titles)), [f"{title}\n{below[title]}" for title in titles], fontsize=8)
    axes.set_yticks(range(len(cells)), cells)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(titles) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(cells) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.suptitle("What each cell remembers")
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.5, 1], pad=0.02, aspect=12)
    bar.ax.set_yticklabels(["chance", "half way", "perfect"])
    save(figure, path)


def curves(path: Path, run_dir: Path, rows: Sequence[Row], chance: Mapping[str, float], updates_per_step: int) -> None:
    """The training loss of each cell, a panel for each task; `chance` is the loss without memory."""
    tasks, colour = unique([row["task"] for row in rows]), colours([row["cell"] for row in rows])
    columns = min(len(tasks), 3)
    lines = -(-len(tasks) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(4.2 * columns + 1.6, 3.1 * lines + 0.4), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(tasks) :]:
        axes.set_axis_off()
    for axes, task in zip(grid.flat, tasks):
        for row in (row for row in rows if row["task"] == task):
            logged = [line for line in read_metrics(run_dir / task / row["cell"]) if "loss" in line]
            updates = np.array([line["step"] * updates_per_step for line in logged])
            losses = smooth(np.array([line["loss"] for line in logged]))
            axes.plot(updates, losses, color=colour[row["cell"]], linewidth=1.3)
        axes.axhline(chance[task], color="black", linestyle="dotted", linewidth=1.2)
        axes.set(yscale="log", title=row["title"].replace("\n", ", "), xlabel="updates", ylabel="training loss")
        axes.set_ylim(top=chance[task] * 1.5)
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")
        axes.grid(alpha=0.25)
    handles = [plt.Line2D([], [], color=c, label=cell) for cell, c in colour.items()]
    handles.append(plt.Line2D([], [], color="black", linestyle="dotted", label="without\nmemory"))
    figure.legend(handles=handles, loc="outside right center")
    figure.suptitle("When each cell learns what to remember")
    save(figure, path)


def smooth(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """The running median over a `share` of all values, so that single bad steps do not show."""
    reach = int(share * len(values)) // 2
    return np.array([np.median(values[max(i - reach, 0) : i + reach + 1]) for i in range(len(values))])


def by_length(path: Path, rows: Sequence[Row]) -> None:
    """Accuracy against length for tasks tested on longer sequences than in training; no plot if there are none."""
    rows = [row for row in rows if "by_length" in row]
    titles, colour = unique([row["title"] for row in rows]), colours([row["cell"] for row in rows])
    if not titles:
        return
    figure, grid = plt.subplots(
        1, len(titles), figsize=(5.2 * len(titles) + 1.8, 3.8), layout="constrained", squeeze=False
    )
    for axes, title in zip(grid.flat, titles):
        for i, (cell, c) in enumerate(colour.items()):
            seeds = [row for row in rows if (row["title"], row["cell"]) == (title, cell)]
            best = max(seeds, key=lambda row: row["score"], default=None)
            for row in seeds:
                lengths, right = np.array(row["by_length"]).T
                # Those drawn first are wider: perfect cells lie on top of each other.
                width, alpha = (5 - 4 * i / len(colour), 1.0) if row is best else (0.8, 0.5)
                axes.plot(lengths, right, color=c, linewidth=width, alpha=alpha)
        shown = next(row for row in rows if row["title"] == title)
        axes.axvspan(0, shown["trained_to"], color="tab:gray", alpha=0.2, linewidth=0)
        axes.text(shown["trained_to"], 1.04, " < in training", fontsize=8, ha="left", va="bottom")
        axes.axhline(shown["chance"], color="black", linestyle="dotted", linewidth=1.2)
        axes.set(title=title.replace("\n", ", "), xlabel="length", ylabel="accuracy", xlim=(0, None), ylim=(0, 1.1))
        axes.grid(alpha=0.25)
    handles = [plt.Line2D([], [], color=c, linewidth=2.2, label=cell) for cell, c in colour.items()]
    handles.append(plt.Line2D([], [], color="black", linestyle="dotted", label="chance"))
    figure.legend(handles=handles, loc="outside right center")
    figure.suptitle("Which cells go on counting beyond the lengths of training")
    save(figure, path)
