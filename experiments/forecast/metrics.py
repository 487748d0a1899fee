"""How good forecasts are: MASE, sMAPE and CRPS, of quantiles."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

LEVELS = np.arange(1, 20) / 20
"""Of the quantiles that a forecast is made of, `[..., horizon, 19]`; the one in the middle is the point forecast."""
MEDIAN = len(LEVELS) // 2


class Scores(NamedTuple):
    """Means over series; within a series, over origins and steps ahead."""

    mase: float
    """Mean absolute error over `naive_error`."""
    next_value_mase: float
    """The same, of the first step ahead alone."""
    smape: float
    """Symmetric mean absolute percentage error, 0 to 200."""
    scaled_crps: float
    """Continuous ranked probability score over `naive_error`: what MASE becomes where the whole distribution counts."""


def gaussian(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Its quantiles."""
    return mean[..., None] + std[..., None] * norm.ppf(LEVELS)


def crps(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Twice the mean pinball loss: the CRPS as far as the quantiles tell it. `[...]` and `[..., 19]` to `[...]`."""
    error = values[..., None] - quantiles
    return 2 * np.maximum(LEVELS * error, (LEVELS - 1) * error).mean(axis=-1)


def smape(values: np.ndarray, forecasts: np.ndarray) -> np.ndarray:
    size = np.abs(values) + np.abs(forecasts)
    return 200 * np.abs(values - forecasts) / np.where(size > 0, size, 1)


def naive_error(known: np.ndarray, season: int) -> float:
    """Mean absolute error of the seasonal-naive forecast within what is known, `[time]`: the unit of MASE."""
    return float(np.abs(known[season:] - known[:-season]).mean())


def score(series: np.ndarray, values: np.ndarray, quantiles: np.ndarray, unit: np.ndarray) -> Scores:
    """`series` `[n]` tells of which series each forecast is; values `[n, horizon]`, quantiles `[n, horizon, 19]`;
    `unit` is the `naive_error` of each series.
    """
    scale = unit[series][:, None]
    errors = np.abs(values - quantiles[..., MEDIAN]) / scale
    rows = np.stack(
        [
            errors.mean(axis=1),
            errors[:, 0],
            smape(values, quantiles[..., MEDIAN]).mean(axis=1),
            (crps(values, quantiles) / scale).mean(axis=1),
        ]
    )
    of_series = [rows[:, series == i].mean(axis=1) for i in np.unique(series)]
    return Scores(*(float(mean) for mean in np.mean(of_series, axis=0)))
