"""The drawings of the guide, by name. They are computed: the packed rows, for one, come from `rnnx.pack`."""

from collections.abc import Callable, Sequence

import numpy as np

import rnnx
from sitegen.svg import arrow, box, figure, line, text

CELL, GAP = 40.0, 10.0


def draw(name: str) -> str:
    """The drawing of that name, as HTML."""
    return DRAWINGS[name]()


def types() -> str:
    """From a cell to a model."""
    parts: list[str] = []
    stages = [
        ("Cell", "one step, one sequence", "carry", "rnnx.cells.gru(64)"),
        ("Layer", "a batch of sequences", "product", "rnnx.scan(cell)"),
        ("model", "a Layer too", "input", "rnnx.stack(...)"),
        ("carry, outputs", "arrays", "function", "rnnx.unroll(model, ...)"),
    ]
    steps = ["evaluator", "combinators", "unroll"]
    for i, (what, is_, kind, code) in enumerate(stages):
        y = 26.0 + 92 * i
        parts += [
            box(185, y, 250, 50, kind, 10),
            text(185, y - 3, f"{what}: {is_}", "strong"),
            text(185, y + 15, code, "note"),
        ]
        if i:
            parts += [line(185, y - 66, 185, y - 27), text(197, y - 42, steps[i - 1], "small", "start")]
    return figure(parts, 370, 330, "A cell becomes a layer, layers become a model, and unroll runs it")


def timeline(y: float, kinds: Sequence[str], label: str = "", first: int = 1, left: float = 56.0) -> list[str]:
    """A row of steps; `kinds` are their classes."""
    parts = [text(left - 14, y + 4.5, label, "small", "end")] if label else []
    for i, kind in enumerate(kinds):
        x = left + CELL / 2 + i * CELL
        parts.append(box(x, y, CELL - 4, 30, kind, 5))
        if kind != "pad":
            parts.append(text(x, y + 4.5, str(first + i)))
    return parts


def chunks() -> str:
    """One sequence as a whole, and in two chunks with the carry passed on."""
    parts = timeline(22, ["carry"] * 7, "whole")
    parts += timeline(84, ["carry"] * 4, "chunks")
    parts += timeline(84, ["carry"] * 3, first=5, left=56 + 4 * CELL + 62)
    x = 56 + 4 * CELL
    parts += [line(x + 2, 84, x + 58, 84), text(x + 30, 76, "carry", "small")]
    what = "A sequence of seven steps, whole and in chunks of four and three"
    return figure(parts, 410, 106, what, "The outputs are the same.")


def lengths() -> str:
    parts: list[str] = []
    for row, length in enumerate((7, 3, 0, 5)):
        y = 22.0 + 42 * row
        parts += timeline(y, ["carry"] * length + ["pad"] * (7 - length), f"row {row}")
        x = 56 + 7 * CELL + 12
        parts.append(text(x, y + 4.5, f"length {length}", "small", "start"))
    caption = "Dashed steps are pads: without influence, and with outputs of zero."
    return figure(parts, 420, 172, "Rows of 7, 3, 0 and 5 valid steps", caption)


def resets() -> str:
    marks = [False] * 4 + [True] + [False] * 2
    parts = timeline(62, ["carry"] * 4 + ["product"] * 3, "steps")
    for i, mark in enumerate(marks):
        x = 56 + CELL / 2 + i * CELL
        parts.append(text(x, 24, "1" if mark else "0", "strong" if mark else "small"))
        if mark:
            parts += [line(x, 30, x - CELL / 2, 44)]
    parts.append(text(42, 24, "resets", "small", "end"))
    parts.append(text(56 + 4 * CELL, 98, "the carry becomes the initial one here", "small"))
    parts.append(line(56 + 4 * CELL, 88, 56 + 4 * CELL, 80))
    return figure(parts, 370, 108, "A reset at step 5 restores the initial carry before step 5")


RAGGED = (4, 9, 0, 2, 7, 3)
COLOURS = ("carry", "product", "input", "function", "plain")


def ragged() -> str:
    """The same sequences padded and packed."""
    time, cell, left = max(RAGGED), 19.0, 8.0
    packed = rnnx.pack([np.ones((n, 1)) for n in RAGGED])
    order = [i for i, n in enumerate(RAGGED) if n]
    colour = {i: COLOURS[k % len(COLOURS)] for k, i in enumerate(order)}
    beside = left + time * cell + 36
    parts = [text(left, 12, "padded", "strong", "start"), text(beside, 12, "packed", "strong", "start")]
    for row, length in enumerate(RAGGED):
        for t in range(time):
            kind = colour[row] if t < length else "pad"
            parts.append(box(left + cell * (t + 0.5), 34.0 + 24 * row, cell - 3, 18, kind, 3))
    segments = np.asarray(packed.segment_ids)
    owner = packed_owners(segments)
    for row in range(segments.shape[0]):
        for t in range(segments.shape[1]):
            kind = colour[owner[row, segments[row, t]]] if segments[row, t] else "pad"
            parts.append(box(beside + cell * (t + 0.5), 34.0 + 24 * row, cell - 3, 18, kind, 3))
    return figure(
        parts,
        2 * (time * cell) + 36 + 2 * left,
        34.0 + 24 * len(RAGGED),
        f"Sequences of lengths {RAGGED}, padded in {len(RAGGED)} rows and packed in {segments.shape[0]}",
        "A colour for each sequence; dashed steps are pads. One sequence is empty.",
    )


def packed_owners(segments: np.ndarray) -> dict[tuple[int, int], int]:
    """The sequence in each segment of each row: one of the same length that is not taken yet."""
    left = [i for i, n in enumerate(RAGGED) if n]
    owner = {}
    for row in range(segments.shape[0]):
        for segment in range(1, int(segments[row].max()) + 1):
            length = int((segments[row] == segment).sum())
            owner[row, segment] = next(i for i in left if RAGGED[i] == length)
            left.remove(owner[row, segment])
    return owner


def done() -> str:
    """`done` of a step becomes the reset of the next."""
    flags = [False, False, True, False, False, False, True]
    parts = []
    for y, label, values in ((24.0, "done", flags), (92.0, "resets", [True, *flags[:-1]])):
        parts.append(text(42, y + 4.5, label, "small", "end"))
        for i, value in enumerate(values):
            x = 56 + CELL / 2 + i * CELL
            parts += [box(x, y, CELL - 8, 26, "product" if value else "", 5), text(x, y + 4.5, "1" if value else "0")]
    for i in range(len(flags) - 1):
        x = 56 + CELL / 2 + i * CELL
        parts.append(arrow([(x, 38), (x + CELL, 78)]))
    parts += timeline(138, ["carry"] * 3 + ["function"] * 4, "steps")
    x = 56 + CELL / 2 + 7 * CELL
    parts += [arrow([(x - CELL, 38), (x + 6, 78)]), text(x - 16, 96, "first of the", "small", "start")]
    parts.append(text(x - 16, 109, "next rollout", "small", "start"))
    return figure(parts, 430, 158, "done shifts by one step to become resets; the last one is for the next rollout")


DRAWINGS: dict[str, Callable[[], str]] = {
    "types": types,
    "chunks": chunks,
    "lengths": lengths,
    "resets": resets,
    "ragged": ragged,
    "done": done,
}
