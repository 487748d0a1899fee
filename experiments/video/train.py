"""A run from its config to its results: each task is learned by a net with memory and by one without it."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import rnnx
from experiments import training
from experiments.config import load
from experiments.loop import Fitted, Plan, fit
from experiments.runs import open_run_dir, show_finished
from experiments.training import TrainState
from experiments.video.config import Task, Video
from experiments.video.data import Digits, Split, draw, load_digits
from experiments.video.evaluate import MONITORS, is_right, make_evaluate, nll, prediction_errors, report, show
from experiments.video.model import NETS, classify, make_model

COLUMNS = {
    "classify": {"nats": lambda m: f"{m['loss']:.3f}", "right": lambda m: f"{m['accuracy']:.1%}"},
    "predict": {"mean squared error": lambda m: f"{m['squared_error']:.5f}"},
}


def make_loss(config: Video, task: Task, layer: rnnx.Layer) -> training.Loss:
    size = {"time": config.data.longest, "size": config.data.size}

    def of_classes(params: Any, key: jax.Array, digits: Digits) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss after every frame from the second on, so that a clip teaches more than its last frame alone."""
        clips_key, dropout_key = jax.random.split(key)
        clips = draw(clips_key, digits, config.train.batch, warp=config.train.warp, **size)
        logits = jax.tree.map(lambda a: a[:, 1:], classify(layer, params, clips.frames, key=dropout_key))
        direction = clips.direction[:, 1:]
        digit = jnp.broadcast_to(clips.digit[:, None], direction.shape)
        return nll(logits, digit, direction).mean(), {"accuracy": is_right(logits, digit, direction).mean()}

    def of_next_frames(params: Any, key: jax.Array, digits: Digits) -> tuple[jax.Array, dict[str, jax.Array]]:
        nats, squared = prediction_errors(layer, params, draw(key, digits, config.train.batch, **size).frames)
        return nats.mean(), {"squared_error": squared.mean()}

    return of_classes if task == "classify" else of_next_frames


def fit_one(config: Video, split: Split, run_dir: Path, task: Task, net: str) -> Fitted[TrainState]:
    folder, layer, train = run_dir / task / net, make_model(config, task, net), config.train
    frames = jax.ShapeDtypeStruct((1, config.data.longest, config.data.size, config.data.size, 1), jnp.float32)
    print(f"{task}, {net}: {train.steps:,} updates of {train.batch} clips. Run folder: {folder}")
    print(rnnx.summary(layer, frames), flush=True)
    optimizer = training.make_optimizer(train)
    return fit(
        folder,
        functools.partial(training.initial_state, config.run.seed, lambda key: layer.init(key, frames), optimizer),
        training.make_train_step(make_loss(config, task, layer), optimizer),
        jax.tree.map(jnp.asarray, split.train),
        make_evaluate(config, split, task, layer),
        Plan.of(config, monitor=MONITORS[task], items="clips", items_per_step=train.batch),
        COLUMNS[task],
    )


def main(args: Sequence[str]) -> None:
    config = load(Video, args)
    split = load_digits()
    run_dir = open_run_dir(config)
    if show_finished(run_dir, show):
        return
    tasks = config.data.tasks
    fitted = {task: {net: fit_one(config, split, run_dir, task, net) for net in NETS} for task in tasks}
    report(config, run_dir, split, fitted)
    show(run_dir)
