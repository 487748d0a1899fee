"""A run from its config to its results: each net is trained from several initialisations at once."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments import training
from experiments.config import load
from experiments.journey.config import Journey, Net
from experiments.journey.data import Sequences, Split, load_data
from experiments.journey.evaluate import MONITOR, make_evaluate, report, score, show
from experiments.journey.model import Classifier, make_model
from experiments.loop import Fitted, Plan, fit
from experiments.runs import open_run_dir, show_finished
from experiments.settings import replace
from experiments.training import TrainState

COLUMNS = {
    "loss": lambda metrics: f"{metrics['loss']:.3f}",
    "accuracy": lambda metrics: f"{metrics['accuracy']:.1%}",
}


def initial_states(config: Journey, model: Classifier) -> TrainState:
    """A state for each restart; every leaf is `[restarts, ...]`."""
    optimizer, restarts = training.make_optimizer(config.train), config.train.restarts
    start = jax.vmap(lambda seed: training.initial_state(seed, model.init, optimizer))
    return start(config.run.seed * restarts + jnp.arange(restarts))


def make_train_step(
    config: Journey, model: Classifier
) -> Callable[[TrainState, Sequences], tuple[TrainState, dict[str, jax.Array]]]:
    """Several updates of all restarts; the metrics are those of the restart that does best."""

    def loss(params: Any, key: jax.Array, data: Sequences) -> tuple[jax.Array, dict[str, jax.Array]]:
        rows = jax.random.randint(key, (config.train.batch,), 0, len(data.labels))
        scores = score(model, params, Sequences(data.xs[rows], data.labels[rows]))
        return scores["loss"], {"accuracy": scores["accuracy"]}

    update = jax.vmap(training.make_train_step(loss, training.make_optimizer(config.train)), in_axes=(0, None))

    def train_step(state: TrainState, data: Sequences) -> tuple[TrainState, dict[str, jax.Array]]:
        state, metrics = jax.lax.scan(lambda s, _: update(s, data), state, length=config.train.updates_per_step)
        means = {name: values.mean(axis=0) for name, values in metrics.items()}
        best = means["loss"].argmin()
        return state, {name: values[best] for name, values in means.items()}

    return train_step


def fit_one(config: Journey, data: Split, run_dir: Path, net: Net) -> Fitted[TrainState]:
    folder, model, train = run_dir / net, make_model(net), config.train
    print(f"{net}: {train.restarts} restarts of {train.updates:,} updates. Run folder: {folder}", flush=True)
    return fit(
        folder,
        functools.partial(initial_states, config, model),
        make_train_step(config, model),
        jax.tree.map(jnp.asarray, data.train),
        make_evaluate(model, data.val),
        Plan.of(config, monitor=MONITOR, items="updates", items_per_step=train.updates_per_step),
        COLUMNS,
    )


def main(args: Sequence[str]) -> None:
    config = load(Journey, args)
    run_dir = open_run_dir(replace(config, animate=False))  # an animation can be asked for later
    to_animate = config.run.animate and not (run_dir / "elman_journey.gif").exists()
    if not to_animate and show_finished(run_dir, show):
        return
    data = load_data(config)
    report(config, run_dir, data, {net: fit_one(config, data, run_dir, net) for net in config.model.nets})
    show(run_dir)
