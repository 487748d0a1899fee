"""A run that trains: series -> windows -> nets -> fit -> scores beside the baselines."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from experiments import config as configs
from experiments import results
from experiments.forecast.baselines import BASELINES, quietly
from experiments.forecast.metrics import Scores, crps, gaussian, naive_error, score
from experiments.forecast.model import make_forecast, make_loss, make_model
from experiments.forecast.series import Series, load
from experiments.forecast.settings import Forecast, check_forecast
from experiments.forecast.windows import BACK, Windows, split, stretches, to_learn_from
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit
from experiments.training import TrainState, adamw, initial_state, make_train_step

MONITOR = "val_crps"
COLUMNS = {"crps": lambda metrics: f"{metrics['loss']:.4f}"}


def train(config: Forecast, run_dir: Path) -> None:
    check_forecast(config)
    series = load(config)
    parts = split(config, series)
    values = hashlib.sha256(b"".join(one.values.tobytes() for one in series)).hexdigest()
    configs.claim(run_dir, {**configs.settings(config), "values_sha256": values})
    if results.show_finished(run_dir, lambda: show(run_dir)):
        return

    model = make_model(config)
    print(rnnx.summary(model.encoder, jax.ShapeDtypeStruct((config.batch, config.context, 2), jnp.float32)))
    print(
        f"{config.data}: {len(series)} series; windows: {len(parts.train.origin):,} to train on, "
        f"{len(parts.validation.origin):,} for validation, {len(parts.test.origin):,} for the test. {config.members} "
        f"nets. Run folder: {run_dir}",
        flush=True,
    )
    optimizer = adamw(
        config.learning_rate,
        config.steps,
        warmup=config.steps // 10,
        clip=config.clip,
        weight_decay=config.weight_decay,
    )
    step, forecast = make_train_step(make_loss(config, model), optimizer), make_forecast(config, model)
    evaluate = make_evaluate(config, forecast, series, parts.validation)
    plan = Plan(
        steps=config.steps,
        eval_every=config.eval_every,
        log_every=config.log_every,
        monitor=MONITOR,
        patience=config.patience,
        items="windows",
        items_per_step=config.batch * config.members,
    )
    begin = functools.partial(initial_state, config.seed, model.init, optimizer)
    chosen = fit(run_dir, begin, step, jax.tree.map(jnp.asarray, parts.train), evaluate, plan, COLUMNS)
    outputs = np.array(forecast(chosen.best.params, parts.test.inputs, parts.test.lengths))
    seconds = chosen.seconds
    parts_of_test = stretches(config, series, parts.test)
    for number, (held_out, rows) in enumerate(parts_of_test, 1):
        print(f"Training anew for {chosen.best_step} steps, {number} of {len(parts_of_test)}.", flush=True)
        folder = run_dir / f"refit{number}"
        folder.mkdir(exist_ok=True)
        data = jax.tree.map(jnp.asarray, to_learn_from(config, series, held_out))
        again = dataclasses.replace(plan, steps=chosen.best_step, eval_every=chosen.best_step)
        fitted = fit(folder, begin, step, data, evaluate, again, COLUMNS)
        outputs[rows] = np.asarray(forecast(fitted.best.params, parts.test.inputs, parts.test.lengths))[rows]
        seconds += fitted.seconds
    report(config, run_dir, series, parts.test, outputs, chosen, seconds)
    show(run_dir)


def unscaled(config: Forecast, windows: Windows, outputs: np.ndarray) -> np.ndarray:
    """Quantiles of the values themselves, `[n, horizon, 19]`; the transforms keep their order."""
    back = BACK[config.transform]
    return back(windows.base[..., None] + windows.scale[..., None] * np.asarray(outputs, float))


def actual(config: Forecast, series: Sequence[Series], windows: Windows) -> np.ndarray:
    """`[n, horizon]`: what came."""
    return np.stack(
        [series[i].values[origin : origin + config.horizon] for i, origin in zip(windows.series, windows.origin)]
    )


def units(config: Forecast, series: Sequence[Series], held_out: int) -> np.ndarray:
    """The `naive_error` of each series before its last `held_out` values."""
    return np.array([naive_error(one.values[:-held_out], config.season) for one in series])


def make_evaluate(
    config: Forecast, forecast: Callable[..., jax.Array], series: Sequence[Series], windows: Windows
) -> Callable[[TrainState], dict[str, float]]:
    values, unit = actual(config, series, windows), units(config, series, config.test + config.validation)
    inputs, lengths = jnp.asarray(windows.inputs), jnp.asarray(windows.lengths)

    def evaluate(state: TrainState) -> dict[str, float]:
        outputs = np.asarray(forecast(state.params, inputs, lengths))
        scores = score(windows.series, values, unscaled(config, windows, outputs), unit)
        return {MONITOR: crps(windows.targets, outputs).mean(), "val_mase": scores.mase}

    return evaluate


def by_baselines(config: Forecast, series: Sequence[Series], windows: Windows) -> dict[str, np.ndarray]:
    """Quantiles `[n, horizon, 19]` of each."""
    quantiles = {}
    for name, baseline in BASELINES.items():
        moments = [
            quietly(baseline, series[i].values[:origin], config.horizon, config.season)
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
    from experiments.forecast import pictures  # not at the top: a second of start-up
    from experiments.plots import learning_curve

    print(f"Fitting the baselines before each of {len(windows.origin)} origins.", flush=True)
    quantiles = {
        "net": unscaled(config, windows, outputs),
        "base_alone": unscaled(config, windows, np.zeros_like(outputs)),  # so that it shows what the nets add to it
        **by_baselines(config, series, windows),
    }
    values, unit = actual(config, series, windows), units(config, series, config.test)
    table = {name: score(windows.series, values, q, unit) for name, q in quantiles.items()}
    best = min(BASELINES, key=lambda name: table[name].mase)

    learning_curve(
        run_dir / "learning_curve.png",
        read_metrics(run_dir),
        train="loss",
        validation=MONITOR,
        label="CRPS, scaled",
        title=f"{run_dir.name}: {config.members} nets, to choose the number of steps",
    )
    pictures.forecasts(run_dir / "forecast.png", config, series, windows, quantiles["net"], quantiles[best], best)
    finding = f"nets {table['net'].mase:.3f}, {best.replace('_', ' ')} {table[best].mase:.3f}"
    what = f"{Path(config.data).name}, {len(values)} forecasts of {config.horizon} steps"
    pictures.bars(run_dir / "methods.png", table, f"{what}: {finding}")
    results.finish(
        run_dir,
        {
            "mase": table["net"].mase,
            "smape": table["net"].smape,
            "scaled_crps": table["net"].scaled_crps,
            "mase_base_alone": table["base_alone"].mase,
            "mase_best_baseline": table[best].mase,
            "mase_seasonal_naive": table["seasonal_naive"].mase,
        },
        seed=config.seed,
        seconds=seconds,
        best_baseline=best,
        methods={name: row._asdict() for name, row in table.items()},
        series=len(series),
        forecasts=len(values),
        horizon=config.horizon,
        best_step=chosen.best_step,
        parameters=results.count(chosen.best.params),
    )


def show(run_dir: Path) -> None:
    run = configs.read_json(run_dir / "results.json")
    print(f"--- {run['forecasts']} forecasts of {run['horizon']} steps ahead ({run_dir / 'results.json'})")
    print(f"{'method':<24}" + "".join(f"{name:>18}" for name in Scores._fields))
    for name, row in sorted(run["methods"].items(), key=lambda item: item[1]["mase"]):
        print(f"{name:<24}" + "".join(f"{row[field]:>18.4f}" for field in Scores._fields))
    print(f"Pictures: {run_dir / 'forecast.png'}, {run_dir / 'methods.png'}, {run_dir / 'learning_curve.png'}")
