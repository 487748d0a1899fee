"""The scores: MASE, sMAPE and CRPS of quantiles, beside those of the baselines."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from experiments import runs
from experiments.files import read_json
from experiments.forecast.baselines import BASELINES, quietly
from experiments.forecast.config import Data, Forecast
from experiments.forecast.data import Series
from experiments.forecast.model import LEVELS, MEDIAN
from experiments.forecast.windows import BACK, Windows
from experiments.loop import Fitted
from experiments.training import TrainState

MONITOR = "val_crps"


class Scores(NamedTuple):
    """Means over series; within a series, over origins and steps ahead."""

    mase: float
    """Mean absolute error over `naive_error`."""
    next_value_mase: float
    """The same, of the first step ahead alone."""
    smape: float
    """Symmetric mean absolute percentage error, 0 to 200."""
    scaled_crps: float
    """Continuous ranked probability score over `naive_error`: the counterpart of MASE for distributions."""


def gaussian(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """The quantiles of normal distributions."""
    return mean[..., None] + std[..., None] * norm.ppf(LEVELS)


def crps(values: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Twice the mean pinball loss: the CRPS as estimated from the quantiles. `[...]` and `[..., 19]` to `[...]`."""
    error = values[..., None] - quantiles
    return 2 * np.maximum(LEVELS * error, (LEVELS - 1) * error).mean(axis=-1)


def smape(values: np.ndarray, forecasts: np.ndarray) -> np.ndarray:
    size = np.abs(values) + np.abs(forecasts)
    return 200 * np.abs(values - forecasts) / np.where(size > 0, size, 1)


def naive_error(known: np.ndarray, season: int) -> float:
    """Mean absolute error of the seasonal-naive forecast within the known values `[time]`: the unit of MASE."""
    return float(np.abs(known[season:] - known[:-season]).mean())


def score(series: np.ndarray, values: np.ndarray, quantiles: np.ndarray, unit: np.ndarray) -> Scores:
    """`series` `[n]` says which series each forecast belongs to; values `[n, horizon]`, quantiles `[n, horizon, 19]`;
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


def unscaled(data: Data, windows: Windows, outputs: np.ndarray) -> np.ndarray:
    """Quantiles of the values themselves, `[n, horizon, 19]`; the transforms keep their order."""
    back = BACK[data.transform]
    return back(windows.base[..., None] + windows.scale[..., None] * np.asarray(outputs, float))


def actual(data: Data, series: Sequence[Series], windows: Windows) -> np.ndarray:
    """`[n, horizon]`: what was observed."""
    return np.stack(
        [series[i].values[origin : origin + data.horizon] for i, origin in zip(windows.series, windows.origin)]
    )


def units(data: Data, series: Sequence[Series], held_out: int) -> np.ndarray:
    """The `naive_error` of each series before its last `held_out` values."""
    return np.array([naive_error(one.values[:-held_out], data.season) for one in series])


def make_evaluate(
    data: Data, forecast: Callable[..., jax.Array], series: Sequence[Series], windows: Windows
) -> Callable[[TrainState], dict[str, float]]:
    values, unit = actual(data, series, windows), units(data, series, data.test + data.validation)
    inputs, lengths = jnp.asarray(windows.inputs), jnp.asarray(windows.lengths)

    def evaluate(state: TrainState) -> dict[str, float]:
        outputs = np.asarray(forecast(state.params, inputs, lengths))
        scores = score(windows.series, values, unscaled(data, windows, outputs), unit)
        return {MONITOR: crps(windows.targets, outputs).mean(), "val_mase": scores.mase}

    return evaluate


def by_baselines(data: Data, series: Sequence[Series], windows: Windows) -> dict[str, np.ndarray]:
    """Quantiles `[n, horizon, 19]` of each baseline."""
    quantiles = {}
    for name, baseline in BASELINES.items():
        moments = [
            quietly(baseline, series[i].values[:origin], data.horizon, data.season)
            for i, origin in zip(windows.series, windows.origin)
        ]
        mean, std = (np.stack(column) for column in zip(*moments))
        quantiles[name] = gaussian(mean, std)
    return quantiles


def report(
    config: Forecast,
    run_dir: Path,
    series: Sequence[Series],
    windows: Windows,
    outputs: np.ndarray,
    chosen: Fitted[TrainState],
    seconds: float,
) -> None:
    """Scores the nets' outputs `[n, horizon, 19]` beside the baselines. Writes results.json last: it marks the end."""
    from experiments.forecast import plots  # not at the top: a second of start-up
    from experiments.plots import learning_curve

    print(f"Fitting the baselines before each of {len(windows.origin)} origins.", flush=True)
    quantiles = {
        "net": unscaled(config.data, windows, outputs),
        "base_alone": unscaled(config.data, windows, np.zeros_like(outputs)),  # shows what the nets add to it
        **by_baselines(config.data, series, windows),
    }
    values, unit = actual(config.data, series, windows), units(config.data, series, config.data.test)
    table = {name: score(windows.series, values, q, unit) for name, q in quantiles.items()}
    best = min(BASELINES, key=lambda name: table[name].mase)

    learning_curve(
        run_dir,
        MONITOR,
        label="CRPS, scaled",
        title=f"{run_dir.name}: {config.model.members} nets, to choose the number of steps",
    )
    plots.forecasts(run_dir / "forecast.png", config.data, series, windows, quantiles["net"], quantiles[best], best)
    finding = f"nets {table['net'].mase:.3f}, {best.replace('_', ' ')} {table[best].mase:.3f}"
    what = f"{Path(config.data.data).name}, {len(values)} forecasts of {config.data.horizon} steps"
    plots.bars(run_dir / "methods.png", table, f"{what}: {finding}")
    runs.finish(
        run_dir,
        {
            "mase": table["net"].mase,
            "smape": table["net"].smape,
            "scaled_crps": table["net"].scaled_crps,
            "mase_base_alone": table["base_alone"].mase,
            "mase_best_baseline": table[best].mase,
            "mase_seasonal_naive": table["seasonal_naive"].mase,
        },
        seed=config.run.seed,
        seconds=seconds,
        best_baseline=best,
        methods={name: row._asdict() for name, row in table.items()},
        series=len(series),
        forecasts=len(values),
        horizon=config.data.horizon,
        best_step=chosen.best_step,
        parameters=runs.count(chosen.best.params),
    )


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- {run['forecasts']} forecasts of {run['horizon']} steps ahead ({run_dir / 'results.json'})")
    print(f"{'method':<24}" + "".join(f"{name:>18}" for name in Scores._fields))
    for name, row in sorted(run["methods"].items(), key=lambda item: item[1]["mase"]):
        print(f"{name:<24}" + "".join(f"{row[field]:>18.4f}" for field in Scores._fields))
    print(f"Plots: {run_dir / 'forecast.png'}, {run_dir / 'methods.png'}, {run_dir / 'learning_curve.png'}")
