"""What a prediction is compared with: the last frame as it is, and with its last motion repeated."""

from typing import Any, NamedTuple

import numpy as np

from experiments.video.data import MOVES


class Errors(NamedTuple):
    """Mean squared errors: `next` `[n, time - 1]` of each frame but the first, and `free` `[n, steps]` of the rollout
    after the frames shown."""

    next: np.ndarray
    free: np.ndarray


def error(made: Any, true: Any) -> Any:
    """Mean squared error of each frame, `[n, time]`."""
    return ((made - true) ** 2).mean(axis=(2, 3, 4))


def shift(frames: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Frames `[n, size, size, 1]` moved by rows and columns `[n, 2]`; what moves past an edge is lost."""
    size = frames.shape[1]
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.empty_like(frames)
    for i, (down, across) in enumerate(moves):
        out[i] = padded[i, 1 - down : 1 - down + size, 1 - across : 1 - across + size]
    return out


def last_motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which of the eight moves turns `before` into `after` with the least squared error: `[n, 2]`."""
    errors = [np.square(shift(before, np.tile(m, (len(before), 1))) - after).sum(axis=(1, 2, 3)) for m in MOVES]
    return MOVES[np.argmin(errors, axis=0)]


def baselines(frames: np.ndarray, seen: int) -> dict[str, Errors]:
    """Copying the last frame, and repeating its last motion, which errs where a digit bounces.

    Before the first of the next frames there is no motion yet, so the last frame is copied there.
    """
    copied = error(frames[:, :-1], frames[:, 1:])
    free = error(frames[:, seen - 1 : seen], frames[:, seen:])
    moves = [last_motion(frames[:, t - 1], frames[:, t]) for t in range(1, frames.shape[1] - 1)]
    on = np.stack([shift(frames[:, t], move) for t, move in enumerate(moves, 1)], axis=1)
    moved = np.concatenate([copied[:, :1], error(on, frames[:, 2:])], axis=1)
    now, further = frames[:, seen - 1], []
    for _ in range(frames.shape[1] - seen):
        now = shift(now, moves[seen - 2])
        further.append(now)
    return {
        "copying": Errors(copied, free),
        "repeated_move": Errors(moved, error(np.stack(further, axis=1), frames[:, seen:])),
    }
