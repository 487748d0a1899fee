"""An animation of the Elman network's plane: the states of many sequences at once, through every move of every step."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.lines import Line2D

from experiments.journey.plots import CLASS_COLOURS, DIRECTIONS, Readout, draw_decision, frame, view_of
from experiments.journey.traces import ELMAN_MOVES
from experiments.plots import plt

SHOWN = 400
"""Number of sequences; two of them, one of each class, are drawn large and leave a trail."""
FRAMES = 7
"""Frames per move."""
PAUSE = 2
"""Still frames after each move."""


class Moment(NamedTuple):
    """`done`, how far move `move` of step `step` has come, and `near`, how far the view has closed in on the square
    of tanh, where the readout decides; each from 0 to 1."""

    step: int
    move: int
    done: float
    near: float = 0.0


def moments(steps: int) -> Iterator[Moment]:
    """The frames: every move starts and stops smoothly; the view closes in at the end."""
    gently = [(1 - np.cos(np.pi * i / FRAMES)) / 2 for i in range(FRAMES)] + [1.0] * PAUSE
    for step in range(steps):
        for move in range(len(ELMAN_MOVES)):
            yield from (Moment(step, move, done) for done in gently)
    yield from (Moment(steps - 1, len(ELMAN_MOVES) - 1, 1.0, near) for near in gently + [1.0] * 8 * PAUSE)


def place(points: np.ndarray, moment: Moment) -> np.ndarray:
    """Where the states are, `[n, 2]`; each move goes along a straight line."""
    before, after = points[:, moment.step, moment.move], points[:, moment.step, moment.move + 1]
    return before + moment.done * (after - before)


def animate(path: Path, points: np.ndarray, readout: Readout, xs: np.ndarray, labels: np.ndarray) -> None:
    """Writes a GIF from the points `[n, T, 4, 2]` of `traces.elman` and the inputs `[n, T, 2]`."""
    points, xs, labels = points[:SHOWN], xs[:SHOWN], labels[:SHOWN]
    colours = np.array(CLASS_COLOURS)[labels]
    corners, wide, close = view_of(xs), view_of(points), view_of()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 4.6), width_ratios=(1, 2), layout="constrained")
    caption = figure.suptitle(" ", fontsize=12)
    handles = [Line2D([], [], marker="o", linestyle="", color=c, label=d) for c, d in zip(CLASS_COLOURS, DIRECTIONS)]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    writer = PillowWriter(fps=12)
    with writer.saving(figure, str(path), dpi=80):
        for moment in moments(points.shape[1]):
            states = place(points, moment)
            view = wide + moment.near * (close - wide)
            for axes, seen, size in ((left, xs[:, moment.step], corners), (right, states, view)):
                axes.clear()
                frame(axes, size)
                axes.scatter(*seen.T, s=6, c=colours, linewidths=0, alpha=0.6)
                axes.scatter(*seen[:2].T, s=60, c=colours[:2], edgecolors="black", linewidths=1.2, zorder=4)
            for twin in range(2) if not moment.near else ():
                trail = np.concatenate([points[twin, moment.step, : moment.move + 1], states[twin : twin + 1]])
                right.plot(*trail.T, color=CLASS_COLOURS[twin], linewidth=1.2, zorder=3)
            if moment.near:
                draw_decision(right, readout, view)
            left.set_title(f"corner {moment.step + 1}: x", fontsize=10)
            right.set_title("hidden state h", fontsize=10)
            said = "the readout decides" if moment.near else ELMAN_MOVES[moment.move]
            caption.set_text(f"step {moment.step + 1} of {points.shape[1]}, {said}")
            writer.grab_frame()
    plt.close(figure)
