"""A run that trains: series -> windows -> nets -> fit -> scores beside the baselines."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from experiments import config as configs
from experiments import training
from experiments.forecast import mackey_glass
from experiments.forecast.config import Forecast, MackeyGlass
from experiments.forecast.data import load
from experiments.forecast.evaluate import MONITOR, make_evaluate, report, show
from experiments.forecast.model import Nets, crps, make_forecast, make_nets
from experiments.forecast.windows import Windows, split, stretches, to_learn_from
from experiments.loop import Plan, fit
from experiments.runs import open_run_dir, show_finished

COLUMNS = {"crps": lambda metrics: f"{metrics['loss']:.4f}"}


def make_loss(config: Forecast, nets: Nets) -> training.Loss:
    """The mean over members, each with its own batch; their gradients are independent."""

    def of_member(params: Any, key: jax.Array, data: Windows) -> jax.Array:
        batch_key, noise_key = jax.random.split(key)
        rows = jax.random.randint(batch_key, (config.train.batch,), 0, len(data.lengths))
        outputs = nets.apply(params, data.inputs[rows], data.lengths[rows], noise_key)
        counted = data.counted[rows]
        return jnp.where(counted, crps(config.model, outputs, data.targets[rows]), 0).sum() / counted.sum()

    def loss(params: Any, key: jax.Array, data: Windows) -> tuple[jax.Array, dict]:
        keys = jax.random.split(key, config.model.members)
        return jax.vmap(of_member, (0, 0, None))(params, keys, data).mean(), {}

    return loss


def main(args: Sequence[str]) -> None:
    """Starts a run of the kind that the config file describes."""
    config = configs.load(Forecast, args, MackeyGlass)
    if isinstance(config, MackeyGlass):
        mackey_glass.run(config)
    else:
        train(config)


def train(config: Forecast) -> None:
    series = load(config.data)
    parts = split(config.data, series)
    values = hashlib.sha256(b"".join(one.values.tobytes() for one in series)).hexdigest()
    run_dir = open_run_dir(config, values_sha256=values)
    if show_finished(run_dir, show):
        return

    nets, (batch, members) = make_nets(config.model, config.data), (config.train.batch, config.model.members)
    print(rnnx.summary(nets.encoder, jax.ShapeDtypeStruct((batch, config.data.context, 2), jnp.float32)))
    print(
        f"{config.data.data}: {len(series)} series; windows: {len(parts.train.origin):,} to train on, "
        f"{len(parts.validation.origin):,} for validation, {len(parts.test.origin):,} for the test. {members} "
        f"nets. Run folder: {run_dir}",
        flush=True,
    )
    optimizer = training.make_optimizer(config.train)
    initial_state = functools.partial(training.initial_state, config.run.seed, nets.init, optimizer)
    step, forecast = training.make_train_step(make_loss(config, nets), optimizer), make_forecast(config.model, nets)
    evaluate = make_evaluate(config.data, forecast, series, parts.validation)
    plan = Plan.of(config, monitor=MONITOR, items="windows", items_per_step=batch * members)
    chosen = fit(run_dir, initial_state, step, jax.tree.map(jnp.asarray, parts.train), evaluate, plan, COLUMNS)
    outputs = np.array(forecast(chosen.best.params, parts.test.inputs, parts.test.lengths))
    seconds = chosen.seconds
    parts_of_test = stretches(config.data, config.train.refits, series, parts.test)
    for number, (held_out, rows) in enumerate(parts_of_test, 1):
        print(f"Training again for {chosen.best_step} steps, {number} of {len(parts_of_test)}.", flush=True)
        data = jax.tree.map(jnp.asarray, to_learn_from(config.data, series, held_out))
        again = dataclasses.replace(plan, steps=chosen.best_step, eval_every=chosen.best_step)
        fitted = fit(run_dir / f"refit{number}", initial_state, step, data, evaluate, again, COLUMNS)
        outputs[rows] = np.asarray(forecast(fitted.best.params, parts.test.inputs, parts.test.lengths))[rows]
        seconds += fitted.seconds
    report(config, run_dir, series, parts.test, outputs, chosen, seconds)
    show(run_dir)
