"""Plots of what the nets do, from their traces. Class 0 is drawn in blue, class 1 in red."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from experiments.journey.traces import ELMAN_MOVES, Trace, Weights, elman_moves
from experiments.plots import plt, save

DIRECTIONS = "clockwise", "anticlockwise"
CLASS_COLOURS = "#2166ac", "#d6503f"
MOVE_COLOURS = "#d99000", "#00917c", "#7b3294", "#555555"
SHOWN = 1500
"""Sequences in a cloud; more would only make it opaque."""


class Readout(NamedTuple):
    """`kernel` `[2 or 4]` and `bias`: the logit is `ends @ kernel + bias`, above 0 for class 1."""

    kernel: np.ndarray
    bias: float


def readout_of(params: Mapping[str, Any]) -> Readout:
    return Readout(params["readout"]["kernel"][:, 0], float(params["readout"]["bias"][0]))


def journey(path: Path, title: str, trace: Trace, readout: Readout, xs: np.ndarray, labels: np.ndarray) -> None:
    """The first two sequences, one of each class, move by move, amid the states of all sequences after the step.

    Each sequence has a row per plane and, if there are gates, one for them, and a column per time step.
    """
    heights = [1.0] * len(trace.planes) + [0.45] * bool(trace.gates)
    moves = list(dict.fromkeys(move for plane in trace.planes for move in plane.moves))
    colours = dict(zip(moves, MOVE_COLOURS))
    size = 2.4
    figure = plt.figure(figsize=(5 * size, 2 * size * (sum(heights) + 0.25) + 0.8), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    for label, half in enumerate(halves):
        half.suptitle(DIRECTIONS[label], color=CLASS_COLOURS[label], fontweight="bold", x=0.02, ha="left")
        grid = half.add_gridspec(len(heights), 5, height_ratios=heights)
        draw_input(half.add_subplot(grid[: len(trace.planes), 0]), xs[:2], label)
        for row, plane in enumerate(trace.planes):
            view = view_of(plane.points[:2], plane.points[:SHOWN, :, -1])
            for t in range(4):
                axes = half.add_subplot(grid[row, t + 1])
                frame(axes, view)
                if plane is trace.planes[-1] and t == 3 and len(readout.kernel) == 2:
                    draw_decision(axes, readout, view)
                cloud(axes, plane.points[:SHOWN, t, -1], labels[:SHOWN])
                if "n" in trace.gates:  # h' lies between h and n in each coordinate
                    draw_box(axes, *plane.points[label, t, :2])
                draw_moves(axes, plane.points[label, t], [colours[move] for move in plane.moves])
                if row == 0:
                    axes.set_title(f"step {t + 1}", fontsize=10)
                if t == 0:
                    axes.set_ylabel(plane.name, fontsize=10)
        for t in range(4) if trace.gates else ():
            values = {name: gate[label, t] for name, gate in trace.gates.items()}
            draw_gates(half.add_subplot(grid[-1, t + 1]), values, named=t == 0)
    figure.suptitle(title, fontsize=13)
    handles = [Line2D([], [], color=colour, lw=2.5, label=move) for move, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    save(figure, path)


def view_of(*points: np.ndarray) -> np.ndarray:
    """The smallest square that shows the points `[..., 2]` and all states of tanh: `[[left, right], [low, high]]`."""
    seen = np.concatenate([np.array([[-1.2, -1.2], [1.2, 1.2]]), *(some.reshape(-1, 2) for some in points)])
    low, high = seen.min(axis=0), seen.max(axis=0)
    half = 0.53 * (high - low).max()
    centre = (low + high) / 2
    return np.stack([centre - half, centre + half], axis=1)


def frame(axes: Axes, view: np.ndarray, *, square: bool = True) -> None:
    """The axes of a plane of two units, with the square in which tanh keeps them."""
    axes.set(xlim=view[0], ylim=view[1], xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    axes.tick_params(labelsize=7, length=2, colors="0.4")
    for spine in axes.spines.values():
        spine.set_color("0.8")
    if square:
        axes.add_patch(Rectangle((-1, -1), 2, 2, fill=False, edgecolor="0.75", linewidth=0.8))


def cloud(axes: Axes, points: np.ndarray, labels: np.ndarray, size: float = 5, alpha: float = 0.25) -> None:
    colours = np.array(CLASS_COLOURS)[labels]
    axes.scatter(points[:, 0], points[:, 1], s=size, c=colours, alpha=alpha, linewidths=0, zorder=1.5)


def draw_decision(axes: Axes, readout: Readout, view: np.ndarray) -> None:
    """The line on which the readout cannot decide, and its two sides."""
    across, up = np.linspace(view[:, 0], view[:, 1], 201).T
    logits = np.stack(np.meshgrid(across, up), axis=-1) @ readout.kernel + readout.bias
    axes.contourf(across, up, logits, levels=[-np.inf, 0, np.inf], colors=CLASS_COLOURS, alpha=0.13, zorder=0)
    axes.contour(across, up, logits, levels=[0], colors="black", linewidths=1.2, zorder=1)


def draw_moves(axes: Axes, points: np.ndarray, colours: list[str]) -> None:
    """Arrows from each of `points` `[K + 1, 2]` to the next; a ring where the step begins, a disc where it ends."""
    long = 0.05 * np.ptp(axes.get_xlim())
    for start, end, colour in zip(points, points[1:], colours):
        head = "-|>,head_width=0.22,head_length=0.45" if np.linalg.norm(end - start) > long else "-"
        style = {"arrowstyle": head, "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=style, zorder=3)
    axes.plot(*points[0], "o", markersize=6, markerfacecolor="white", markeredgecolor="black", zorder=4)
    axes.plot(*points[-1], "o", markersize=6, color="black", zorder=4)


def draw_box(axes: Axes, corner: np.ndarray, opposite: np.ndarray) -> None:
    x, y = corner
    width, height = opposite - corner
    axes.add_patch(Rectangle((x, y), width, height, color="0.5", alpha=0.18, linewidth=0))


def draw_input(axes: Axes, xs: np.ndarray, label: int) -> None:
    """The corners of one of two sequences `[2, 4, 2]`, as they are visited."""
    frame(axes, view_of(xs * 1.15))
    for start, end in itertools.pairwise(xs[label]):
        style = {"arrowstyle": "-|>", "color": CLASS_COLOURS[label], "linewidth": 1.6, "shrinkA": 8, "shrinkB": 8}
        axes.annotate("", end, start, arrowprops=style)
    for t, x in enumerate(xs[label]):
        axes.text(x[0], x[1], str(t + 1), ha="center", va="center", color=CLASS_COLOURS[label], fontweight="bold")
    axes.set_title("what it reads: x", fontsize=10)


def draw_gates(axes: Axes, gates: Mapping[str, np.ndarray], *, named: bool) -> None:
    """A pair of bars for each gate, of the first and the second unit."""
    places = np.arange(len(gates))
    values = np.stack(list(gates.values()))
    for unit, colour in enumerate(("0.35", "0.7")):
        axes.bar(places + (unit - 0.5) * 0.34, values[:, unit], 0.3, color=colour, label=f"unit {unit + 1}")
    axes.set(ylim=(-1.05, 1.05), yticks=[-1, 0, 1], xticks=places, xticklabels=list(gates))
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.tick_params(axis="y", labelsize=7, colors="0.4")
    axes.spines[["top", "right"]].set_visible(False)
    if named:
        axes.set_ylabel("gates", fontsize=10)
        axes.legend(fontsize=7, frameon=False, loc="lower left", ncols=2, borderaxespad=0, handlelength=1)


def elman_plane(path: Path, w: Weights, xs: np.ndarray, points: np.ndarray) -> None:
    """What each move does to the whole square of states: a row per step, a column per move, a block per class."""
    upright = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 41), indexing="ij"), axis=-1)
    lines = np.concatenate([upright, upright[..., ::-1]])
    columns = ("h before", *ELMAN_MOVES)
    moved = np.stack([[elman_moves(w, lines, x) for x in sequence] for sequence in xs[:2]])  # [2, 4, lines, fine, 4, 2]
    view = view_of(moved)
    figure = plt.figure(figsize=(15, 8), layout="constrained")
    halves: Any = figure.subfigures(1, 2, wspace=0.03)
    for label, half in enumerate(halves):
        half.suptitle(DIRECTIONS[label], color=CLASS_COLOURS[label], fontweight="bold")
        for (t, k), axes in np.ndenumerate(half.subplots(4, 4)):
            frame(axes, view)
            axes.tick_params(labelbottom=False, labelleft=False)
            draw_grid(axes, moved[label, t, :, :, k])
            axes.plot(*points[label, t, k], "o", markersize=6, color="black", zorder=4)
            if t == 0:
                axes.set_title(columns[k], fontsize=9)
            if k == 0:
                axes.set_ylabel(f"step {t + 1}")
    most, least = np.linalg.svd(w["recurrent_kernel"], compute_uv=False)
    title = f"What each move does to all states between -1 and 1: R stretches by {most:.2g} and {least:.2g}"
    figure.suptitle(title, fontsize=13)
    save(figure, path)


def draw_grid(axes: Axes, lines: np.ndarray) -> None:
    """Lines `[2 m, points, 2]`, the upright ones first; each is coloured by where it began, so that rotations show."""
    for family, colours in zip(np.split(lines, 2), (plt.cm.viridis, plt.cm.plasma)):
        for position, line in zip(np.linspace(0, 0.9, len(family)), family):
            axes.plot(*line.T, color=colours(position), linewidth=0.9)


def final_states(path: Path, rows: Mapping[str, tuple[Trace, Readout, float]], labels: np.ndarray) -> None:
    """Where all sequences end, for each net with its accuracy, and how its readout separates them.

    Four numbers are drawn as two: the contributions of the forward and the backward direction to the logit.
    """
    figure, grid = plt.subplots(1, len(rows), figsize=(3.3 * len(rows) + 0.6, 4.1), layout="constrained", squeeze=False)
    for axes, (net, (trace, readout, accuracy)) in zip(grid[0], rows.items()):
        ends, names, both = trace.ends, ("unit 1", "unit 2"), len(readout.kernel) == 4
        if both:
            ends = (ends * readout.kernel + readout.bias / 4).reshape(-1, 2, 2).sum(axis=-1)
            readout, names = Readout(np.ones(2), 0.0), ("logit, forward's share", "backward's share")
        view = view_of(ends)
        frame(axes, view, square=not both)
        draw_decision(axes, readout, view)
        cloud(axes, ends, labels, size=6, alpha=0.35)
        wrong = (ends @ readout.kernel + readout.bias > 0) != labels
        axes.plot(*ends[wrong].T, "x", color="black", markersize=5)
        axes.set_title(f"{net}: {accuracy:.2%}", fontsize=11)
        axes.set(xlabel=names[0], ylabel=names[1])
    figure.suptitle("Where the test sequences end", fontsize=13)
    save(figure, path)
