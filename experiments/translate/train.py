"""A run from its config to its results."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments import training
from experiments.config import load as load_config
from experiments.loop import Plan, fit
from experiments.runs import open_run_dir, show_finished
from experiments.translate.config import Translate
from experiments.translate.data import STOP, Pairs, bucketed, load
from experiments.translate.decoding import Translator
from experiments.translate.evaluate import MONITOR, make_evaluate, report, show
from experiments.translate.model import Seq2Seq, make_model

COLUMNS = {"nats per symbol": lambda metrics: f"{metrics['loss']:.3f}"}


class TrainState(NamedTuple):
    """The state of the training, and the running average of the weights."""

    training: training.TrainState
    average: Any


def pair_loss(config: Translate, model: Seq2Seq, params: Any, key: jax.Array | None, pairs: Pairs) -> jax.Array:
    """Nats per symbol of the targets, their end included."""
    k_encoder, k_decoder = (None, None) if key is None else jax.random.split(key)
    memory = model.encode(params, pairs.source, pairs.source_lengths, k_encoder)
    begun = jnp.pad(pairs.target[:, :-1], ((0, 0), (1, 0)), constant_values=STOP)
    _, logits, _ = model.decode(params, memory, None, begun, k_decoder)
    smooth = config.train.label_smoothing if key is not None else 0.0
    expected = optax.smooth_labels(jax.nn.one_hot(pairs.target, logits.shape[-1]), smooth)
    counted = jnp.arange(pairs.target.shape[1])[None] <= pairs.target_lengths[:, None]
    return jnp.where(counted, optax.softmax_cross_entropy(logits, expected), 0).sum() / counted.sum()


def make_loss(config: Translate, model: Seq2Seq, sizes: tuple[int, ...]) -> training.Loss:
    """The loss of a batch from one bucket, drawn by the buckets' sizes: no step pads to the longest pair of all."""

    def of_bucket(i: int, params: Any, key: jax.Array, data: tuple[Pairs, ...]) -> jax.Array:
        k_rows, k_noise = jax.random.split(key)
        rows = jax.random.randint(k_rows, (config.train.batch,), 0, sizes[i])
        return pair_loss(config, model, params, k_noise, jax.tree.map(lambda array: array[rows], data[i]))

    branches = [functools.partial(of_bucket, i) for i in range(len(sizes))]

    def loss(params: Any, key: jax.Array, data: tuple[Pairs, ...]) -> tuple[jax.Array, dict[str, jax.Array]]:
        k_bucket, k_batch = jax.random.split(key)
        bucket = jax.random.categorical(k_bucket, jnp.log(jnp.array(sizes, jnp.float32)))
        return jax.lax.switch(bucket, branches, params, k_batch, data), {}

    return loss


def initial_state(config: Translate, model: Seq2Seq) -> TrainState:
    state = training.initial_state(config.run.seed, model.init, training.make_optimizer(config.train))
    return TrainState(state, state.params)


def make_train_step(
    config: Translate, model: Seq2Seq, sizes: tuple[int, ...]
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    step = training.make_train_step(make_loss(config, model, sizes), training.make_optimizer(config.train))

    def train_step(state: TrainState, data: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        now, metrics = step(state.training, data)
        average = training.update_average(state.average, now.params, state.training.step, config.train.ema)
        return TrainState(now, average), metrics

    return train_step


def main(args: Sequence[str]) -> None:
    config = load_config(Translate, args)
    data = load(config.data)
    run_dir = open_run_dir(config, data_sha256=data.sha256)
    if show_finished(run_dir, show):
        return

    model, buckets = make_model(config.model, data), bucketed(data)
    sizes = tuple(len(bucket.source) for bucket in buckets)
    print(
        f"{config.data.data}: {len(data.train):,} sources to train on ({sum(sizes):,} pairs), {len(data.validation):,} "
        f"to validate, {len(data.test):,} to test on; {len(data.sources)} and {len(data.targets)} symbols. Run folder: "
        f"{run_dir}",
        flush=True,
    )
    translate = Translator(model, data)
    fitted = fit(
        run_dir,
        functools.partial(initial_state, config, model),
        make_train_step(config, model, sizes),
        jax.tree.map(jnp.asarray, buckets),
        make_evaluate(config, translate, data.validation),
        Plan.of(config, monitor=MONITOR, items="pairs", items_per_step=config.train.batch),
        COLUMNS,
    )
    report(config, run_dir, data, translate, fitted)
    show(run_dir)
