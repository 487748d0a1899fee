"""Windows around an origin: the values before it are read, those from it on are forecast."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.forecast.config import Data
from experiments.forecast.data import Series

Transform = Callable[[np.ndarray], np.ndarray]
FORWARD: dict[str, Transform] = {"none": lambda x: x, "log": np.log, "sqrt": np.sqrt}
BACK: dict[str, Transform] = {"none": lambda x: x, "log": np.exp, "sqrt": lambda x: np.maximum(x, 0) ** 2}


class Windows(NamedTuple):
    """A forecast's values are `base + scale * outputs` of a net, with the transform undone.

    `series` and `origin` `[n]`: which series, and the index of the first value to forecast. `inputs` `[n, context, 2]`,
    the scaled values and their steps, of which the first `lengths` `[n]` count. `targets` `[n, horizon]`, scaled; those
    that `counted` `[n, horizon]` leaves out are 0. `base` `[n, horizon]`, `scale` `[n, 1]`.
    """

    series: np.ndarray
    origin: np.ndarray
    inputs: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    counted: np.ndarray
    base: np.ndarray
    scale: np.ndarray


class Parts(NamedTuple):
    train: Windows
    validation: Windows
    test: Windows


def split(data: Data, series: Sequence[Series]) -> Parts:
    """The targets of each part's windows lie in that part of the series; all values before the origin may be read."""
    held_out = data.test + data.validation
    return Parts(
        to_learn_from(data, series, held_out),
        to_score(data, series, held_out, data.test),
        to_score(data, series, data.test, 0),
    )


def to_learn_from(data: Data, series: Sequence[Series], held_out: int) -> Windows:
    """Windows from every origin, with no target among the last `held_out` values of a series."""
    ends = [len(one.values) - held_out for one in series]
    places = [(i, origin, end) for i, end in enumerate(ends) for origin in range(data.shortest, end)]
    return windows(data, series, places)


def to_score(data: Data, series: Sequence[Series], begin: int, end: int) -> Windows:
    """Windows from every `stride`-th origin, with all targets among the last `begin` values, but not the last `end`."""
    places = []
    for i, one in enumerate(series):
        count = len(one.values)
        origins = range(count - begin, count - end - data.horizon + 1, data.stride)
        places += [(i, origin, count - end) for origin in origins if origin >= data.shortest]
    return windows(data, series, places)


def stretches(data: Data, refits: int, series: Sequence[Series], test: Windows) -> list[tuple[int, np.ndarray]]:
    """`(held_out, rows)` of each segment of the test part in which a forecast begins: how many values each series has
    from the beginning of the segment on, and which windows have their origin in it."""
    passed = test.origin - np.array([len(series[i].values) - data.test for i in test.series])
    borders = [data.test * n // max(refits, 1) for n in range(refits + 1)]
    within = [(begin, (begin <= passed) & (passed < end)) for begin, end in itertools.pairwise(borders)]
    return [(data.test - begin, rows) for begin, rows in within if rows.any()]


def windows(data: Data, series: Sequence[Series], places: Sequence[tuple[int, int, int]]) -> Windows:
    """A window for each `(series, origin, end)`; targets from `end` on are not counted."""
    values = [FORWARD[data.transform](one.values) for one in series]
    trained = [x[: len(x) - data.test - data.validation] for x in values]
    rows = []
    for i, origin, end in places:
        inputs, length, base, scale = prepared(data, values[i][:origin], trained[i])
        target = values[i][origin : min(origin + data.horizon, end)]
        target = np.pad((target - base[: len(target)]) / scale, (0, data.horizon - len(target)))
        counted = np.arange(data.horizon) < end - origin
        rows.append((i, origin, inputs, length, target, counted, base, [scale]))
    kinds = (np.int32, np.int32, np.float32, np.int32, np.float32, bool, float, float)
    return Windows(*(np.array(column, kind) for column, kind in zip(zip(*rows), kinds)))


def prepared(data: Data, past: np.ndarray, trained: np.ndarray) -> tuple[np.ndarray, int, np.ndarray, float]:
    """`(inputs, length, base, scale)` from the values before the origin, and the training part of the series."""
    read = past[-data.context :]
    ahead = np.arange(1, data.horizon + 1)
    if data.base == "seasonal":
        level, base = trend_and_season(read, data.horizon, data.season)
    else:
        level = trained.mean() if data.scaling == "series" else read[-1]
        base = np.full(data.horizon, level)
        if data.base == "drift":
            base = read[-1] + ahead * np.diff(read).mean()
        elif data.base == "autoreg":
            base = autoregression(past, data.horizon, data.lags)
    left = read - level
    steps = np.diff(left, prepend=left[0])
    scale = trained.std() if data.scaling == "series" else np.abs(steps[1:]).mean() or 1.0
    inputs = np.stack([left, steps], axis=1) / scale
    return np.pad(inputs, ((0, data.context - len(read)), (0, 0))), len(read), base, float(scale)


def trend_and_season(read: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """A least-squares line plus a level for each step of a season: its values over `read`, and `horizon` steps on."""
    time = np.arange(len(read) + horizon)
    terms = np.concatenate([time[:, None] / len(read), np.eye(season)[time % season]], axis=1)
    weights = np.linalg.lstsq(terms[: len(read)], read, rcond=None)[0]
    fitted = terms @ weights
    return fitted[: len(read)], fitted[len(read) :]


def autoregression(past: np.ndarray, horizon: int, lags: int) -> np.ndarray:
    """An autoregression, fitted to `past` by least squares and run on for `horizon` steps."""
    rows = np.lib.stride_tricks.sliding_window_view(past, lags + 1)
    terms = np.concatenate([rows[:, :-1], np.ones((len(rows), 1))], axis=1)
    weights = np.linalg.lstsq(terms, rows[:, -1], rcond=None)[0]
    run = list(past[-lags:])
    for _ in range(horizon):
        run.append(np.r_[run[-lags:], 1] @ weights)
    return np.array(run[lags:])
