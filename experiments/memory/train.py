"""A run from its config to its results: each cell is trained on each task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import rnnx
from experiments import training
from experiments.config import load
from experiments.loop import Fitted, Plan, fit
from experiments.memory.config import Memory
from experiments.memory.data import Task, make_task
from experiments.memory.evaluate import (
    MONITOR,
    Measured,
    final_score,
    in_line,
    make_evaluate,
    make_measure,
    report,
    row_of,
    show,
)
from experiments.memory.model import make_model
from experiments.runs import open_run_dir, show_finished
from experiments.training import TrainState

COLUMNS = {"loss": lambda metrics: f"{metrics['loss']:.4f}"}


def initial_state(config: Memory, task: Task, model: rnnx.Layer) -> TrainState:
    """`step` counts updates."""
    example = jax.eval_shape(lambda: task.draw(jax.random.key(0), config.train.batch)).xs
    optimizer = training.make_optimizer(config.train)
    return training.initial_state(config.run.seed, lambda key: model.init(key, example), optimizer)


def make_train_step(config: Memory, task: Task, model: rnnx.Layer) -> training.Step:
    """Several updates, each on new sequences; the metrics are averaged over them."""

    def loss(params: Any, key: jax.Array, data: None) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch = task.draw(key, config.train.batch)
        _, outputs = rnnx.unroll(model, params, batch.xs)
        return task.loss(outputs, batch), {}

    update = training.make_train_step(loss, training.make_optimizer(config.train))
    return training.in_chunks(update, config.train.updates_per_step)


def fit_one(config: Memory, task: Task, model: rnnx.Layer, measure: Measured, folder: Path) -> Fitted[TrainState]:
    # Made eagerly: compiling it for each cell and task would take longer.
    state = initial_state(config, task, model)
    sequences = config.train.batch * config.train.updates_per_step
    return fit(
        folder,
        lambda: state,
        make_train_step(config, task, model),
        None,
        make_evaluate(config, task, measure),
        Plan.of(config, monitor=MONITOR, items="sequences", items_per_step=sequences),
        COLUMNS,
    )


def main(args: Sequence[str]) -> None:
    config = load(Memory, args)
    run_dir = open_run_dir(config)
    if show_finished(run_dir, show):
        return
    rows, seconds = [], 0.0
    for name in config.data.tasks:
        task = make_task(name, config.data)
        for cell in config.model.cells:
            folder = run_dir / name / cell
            print(f"{cell} on {in_line(task.title)}. Run folder: {folder}", flush=True)
            model = make_model(config.model, task.outputs, cell)
            measure = make_measure(task, model)
            fitted = fit_one(config, task, model, measure, folder)
            tested = final_score(config, task, measure, fitted.best.params)
            rows.append(row_of(name, task, cell, tested, fitted))
            seconds += fitted.seconds
    report(config, run_dir, rows, seconds)
    show(run_dir)
