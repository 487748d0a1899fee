"""Statistical forecasts, each fitted to the values before an origin.

A baseline takes the values before the origin `[time]`, the horizon and the season, and returns a mean and a standard
deviation for each step ahead, both `[horizon]`.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm

Baseline = Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]


def seasonal_naive(past: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """The values one season earlier; errors add up from season to season."""
    season = min(season, len(past) - 1)
    ahead = np.arange(horizon)
    error = np.sqrt(np.mean((past[season:] - past[:-season]) ** 2))
    return past[-season:][ahead % season], error * np.sqrt(ahead // season + 1)


def drift(past: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """The last value plus the mean step for every step ahead; errors are those of a random walk with drift."""
    steps, ahead = np.diff(past), np.arange(1, horizon + 1)
    return past[-1] + ahead * steps.mean(), steps.std() * np.sqrt(ahead * (1 + ahead / len(steps)))


def theta(past: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """Theta of statsmodels, deseasonalised if its test finds a season."""
    from statsmodels.tsa.forecasting.theta import ThetaModel

    seasonal = 1 < season <= len(past) // 2
    fitted = ThetaModel(past, period=season, deseasonalize=seasonal).fit()
    limits = fitted.prediction_intervals(horizon, alpha=0.05).to_numpy()
    return np.asarray(fitted.forecast(horizon)), (limits[:, 1] - limits[:, 0]) / (2 * norm.ppf(0.975))


def autoreg(past: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """AutoReg of statsmodels; AIC chooses its lags, up to two seasons, and whether it has a linear trend."""
    from statsmodels.tsa.ar_model import AutoReg, ar_select_order

    most = max(1, min(max(2 * season, 10), len(past) // 4))
    trends = ("c", "ct") if len(past) >= 8 else ("c",)
    orders = [ar_select_order(past, most, ic="aic", trend=trend) for trend in trends]
    best = min(orders, key=lambda order: min(order.aic.values()))
    fitted = AutoReg(past, best.ar_lags or 0, trend=best.trend).fit()
    forecast = fitted.get_prediction(len(past), len(past) + horizon - 1)
    return np.asarray(forecast.predicted_mean), np.asarray(forecast.se_mean)


def exponential_smoothing(past: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """ExponentialSmoothing of statsmodels, additive; AICc chooses no trend, a trend or a damped one."""
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    seasonal: dict[str, Any] = {"seasonal": "add", "seasonal_periods": season} if 1 < season <= len(past) // 2 else {}
    trends: list[dict[str, Any]] = [{}, {"trend": "add"}, {"trend": "add", "damped_trend": True}]
    fits = [ExponentialSmoothing(past, **trend, **seasonal).fit() for trend in trends]
    best = min(fits, key=lambda fit: fit.aicc if np.isfinite(fit.aicc) else np.inf)
    paths = best.simulate(horizon, repetitions=500, error="add", random_state=np.random.RandomState(0))
    return np.asarray(best.forecast(horizon)), np.asarray(paths).reshape(horizon, -1).std(axis=1)


BASELINES: dict[str, Baseline] = {
    "seasonal_naive": seasonal_naive,
    "drift": drift,
    "theta": theta,
    "autoreg": autoreg,
    "exponential_smoothing": exponential_smoothing,
}


def quietly(baseline: Baseline, past: np.ndarray, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs a baseline without the warnings of fits to few values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return baseline(past, horizon, season)
