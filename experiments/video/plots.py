"""The plots of a run, and the animation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.ticker import MaxNLocator

from experiments.plots import draw_confusion, plt, save, series
from experiments.video.data import Examples
from experiments.video.model import Logits

ARROWS = ("→", "↘", "↓", "↙", "←", "↖", "↑", "↗")
"""Arrows for the directions in `data.DIRECTIONS`."""
STYLES = {
    "conv_lstm": ("tab:blue", "ConvLSTM"),
    "one_frame": ("tab:orange", "the same net without memory"),
    "copying": ("0.6", "copying the last frame"),
    "repeated_move": ("tab:green", "repeating the last move"),
}
SHOWN = 3
"""Clips in the plot of predictions: the first of the test set."""
INK, DIFFERENCE = "gray", "RdBu_r"
"""Colour maps of frames and of predicted minus true ones."""


def classified(path: Path, examples: Examples, logits: Logits, details: Mapping[str, Any]) -> None:
    """Confusion matrices of the net and of the one without memory, and clips with the predicted classes.

    Args:
        path: where the PNG is written.
        examples: the test clips.
        logits: those of the net with memory.
        details: the accuracies and confusions of each net.
    """
    net, other = details["conv_lstm"], details["one_frame"]
    figure = plt.figure(figsize=(15, 11), layout="constrained")
    figure.suptitle(
        f"{net['clip_accuracy']:.1%} of {len(examples.digit):,} test clips: digit and direction both right; "
        f"without memory {other['clip_accuracy']:.1%}",
        fontsize=16,
    )
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    above, below = halves
    axes = above.subplots(1, 3)
    digits = [str(digit) for digit in range(10)]
    for one, whose, label, classes in (
        (axes[0], net, "digit", digits),
        (axes[1], net, "direction", ARROWS),
        (axes[2], other, "direction", ARROWS),
    ):
        what = label if whose is net else f"{label}, without memory"
        draw_confusion(one, np.asarray(whose[f"{label}_confusion"]), classes)
        one.set(xlabel="predicted", ylabel="true", title=f"{what}: {whose[f'{label}_accuracy']:.1%} right")
    predicted = logits.digit.argmax(-1), logits.direction.argmax(-1)
    wrong = (predicted[0] != examples.digit) | (predicted[1] != examples.direction)
    rows = 8
    grid = below.subplots(rows, 2)
    for column, name, which in ((0, "right", np.flatnonzero(~wrong)), (1, "wrong", np.flatnonzero(wrong))):
        for place, cell in enumerate(grid[:, column]):
            cell.axis("off")
            if place < len(which):
                draw_clip(cell, examples, which[place], [classes[which[place]] for classes in predicted])
        grid[0, column].set_title(f"the first test clips that it gets {name}", fontsize=12)
    save(figure, path)


def draw_clip(axes: Any, examples: Examples, i: int, predicted: Sequence[int]) -> None:
    """A clip's frames in a row, and to their right the predicted classes; red where they are wrong."""
    length, longest = examples.lengths[i], examples.frames.shape[1]
    axes.imshow(strip(examples.frames[i, :length]), cmap=INK, vmin=0, vmax=1)
    side = examples.frames.shape[2] + 1
    axes.set_xlim(-1, (longest + 3.5) * side)
    digit, direction = predicted
    for text, x, fine in (
        (str(digit), 0.4, digit == examples.digit[i]),
        (ARROWS[direction], 1.3, direction == examples.direction[i]),
    ):
        color = "black" if fine else "tab:red"
        axes.text((length + x) * side, side / 2, text, ha="center", va="center", fontsize=17, color=color)
    if digit != examples.digit[i] or direction != examples.direction[i]:
        truth = f"truly {examples.digit[i]} {ARROWS[examples.direction[i]]}"
        axes.text((length + 1.9) * side, side / 2, truth, ha="left", va="center", fontsize=11, color="0.4")


def strip(frames: np.ndarray, border: float = 0.35) -> np.ndarray:
    """Frames `[time, size, size, 1]` side by side with a grey line around each: `[size + 2, time (size + 1) + 1]`."""
    padded = np.pad(frames[..., 0], ((0, 0), (1, 1), (0, 1)), constant_values=border)
    return np.pad(np.concatenate(padded, axis=1), ((0, 0), (1, 0)), constant_values=border)


def predicted(
    path: Path, frames: np.ndarray, made: np.ndarray, details: Mapping[str, Any], scores: Mapping[str, float]
) -> None:
    """True and predicted frames of some clips, and how the error depends on the frames seen and on the steps ahead.

    Args:
        path: where the PNG is written.
        frames: `[n, time, size, size, 1]`, true.
        made: `[n, time - 1, size, size, 1]`: the frames from the second on; the first `seen - 1` of them were predicted
            one by one, those after are the rollout.
        details: the details of the run, with the mean squared errors.
        scores: the scores of the run.
    """
    seen = details["seen"]
    figure = plt.figure(figsize=(16, 11.5), layout="constrained")
    figure.suptitle(
        f"The next frame is predicted {scores['times_better_than_copying']:.1f} times better than by copying the last; "
        f"a rollout of {details['free']} frames, {scores['times_better_running_free']:.1f} times",
        fontsize=16,
    )
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    above, below = halves
    side = frames.shape[2] + 1
    cells = above.subplots(SHOWN, 1)
    for cell, true, guess in zip(cells, frames[:, 1:], made):
        rows = [plt.get_cmap(INK)(strip(row))[..., :3] for row in (true, guess)]
        rows.append(plt.get_cmap(DIFFERENCE)(strip(guess - true, border=0.0) / 2 + 0.5)[..., :3])
        cell.imshow(np.concatenate(rows))
        cell.set_yticks([(side + 1) * (row + 0.5) for row in range(3)], ["true", "predicted", "difference"])
        cell.set_xticks([])
        cell.tick_params(length=0)
        cell.axvline(side * (seen - 1), color="tab:red", linewidth=2)
    numbers = range(2, frames.shape[1] + 1)
    cells[-1].set_xticks([side * (t - 1.5) for t in numbers], [f"{t}" for t in numbers])
    cells[-1].set_xlabel("frame")
    for x, text in ((seen - 1) / 2, "each from the true frames before"), ((seen + len(numbers)) / 2, "rollout"):
        cells[0].text(side * x, -3, text, ha="center", va="bottom", fontsize=12, color="tab:red")
    left, right = below.subplots(1, 2)
    curves(left, details["next_frame_mse_by_frames_seen"], 2, "true frames seen", "the next frame")
    curves(right, details["free_running_mse_by_step"], 1, f"frames after the {seen} seen", "the rollout")
    right.legend(loc="lower right")
    save(figure, path)


def curves(axes: Any, errors: Mapping[str, Sequence[float]], first: int, xlabel: str, title: str) -> None:
    """Errors over 1, 2, ...; drawn from `first` on."""
    for name, (color, label) in STYLES.items():
        values = errors[name][first - 1 :]
        axes.plot(range(first, first + len(values)), values, color=color, label=label, marker="o", markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel="mean squared error of a pixel", title=title, yscale="log")
    axes.grid(alpha=0.3)


def animate(path: Path, frames: np.ndarray, made: np.ndarray, seen: int, count: int = 8) -> None:
    """The first test clips as a GIF: true and predicted frames, and where these are too bright (red) or dark (blue)."""
    shown = slice(count)
    figure, grid = plt.subplots(3, count, figsize=(1.3 * count + 0.6, 4.6), layout="constrained")
    images, black = [], np.zeros(frames.shape[2:4])
    for row, label in zip(grid, ("true", "predicted", "difference")):
        colours, darkest = (DIFFERENCE, -1) if label == "difference" else (INK, 0)
        images.append([axes.imshow(black, cmap=colours, vmin=darkest, vmax=1) for axes in row])
        row[0].set_ylabel(label, fontsize=12)
        for axes in row:
            axes.set(xticks=[], yticks=[])
    caption = figure.suptitle(" ", fontsize=13)
    writer = PillowWriter(fps=4)
    with writer.saving(figure, str(path), dpi=80):
        for t in range(made.shape[1]):
            true, guess = frames[shown, t + 1, ..., 0], made[shown, t, ..., 0]
            for row, values in zip(images, (true, guess, guess - true)):
                for image, pixels in zip(row, values):
                    image.set_data(pixels)
            free = t + 1 >= seen
            caption.set_text(f"frame {t + 2}, " + ("of the rollout" if free else "from the true ones before"))
            caption.set_color("tab:red" if free else "black")
            writer.grab_frame()
    plt.close(figure)


def learning(path: Path, logs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
    """The validation of each net of each task; `logs[task][net]` are the rows of its metrics.jsonl."""
    measures = {"classify": ("val_accuracy", "share of clips right"), "predict": ("val_mse", "mean squared error")}
    figure, grid = plt.subplots(1, len(logs), figsize=(7 * len(logs), 4.5), layout="constrained", squeeze=False)
    for axes, (task, nets) in zip(grid[0], logs.items()):
        name, label = measures[task]
        for net, rows in nets.items():
            color, called = STYLES[net]
            axes.plot(*series(rows, name), color=color, label=called, marker="o", markersize=3)
        axes.set(xlabel="update", ylabel=label, title=f"{task}, on the validation clips")
        axes.set_yscale("log" if name == "val_mse" else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, path)
