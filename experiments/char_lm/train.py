"""A run from its config to its results."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments import training
from experiments.char_lm.config import MONITOR, CharLM
from experiments.char_lm.data import PLURAL, load_corpus, read_chunk
from experiments.char_lm.evaluate import Scorer, make_evaluate, report, show
from experiments.char_lm.model import make_model, training_mesh
from experiments.config import load
from experiments.files import write_json
from experiments.loop import Plan, fit
from experiments.runs import open_run_dir, show_finished

COLUMNS = {
    "loss": lambda metrics: f"{metrics['loss']:.3f}",
    "bits": lambda metrics: f"{metrics['loss'] / math.log(2):.3f}",
}


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    average: Any
    """The running average of the params over the steps."""
    carry: Any
    """The carry of each row of the batch."""


def make_optimizer(config: CharLM) -> optax.GradientTransformation:
    return training.make_optimizer(config.train, config.train.final_lr_fraction, config.train.beta2)


def initial_state(config: CharLM, model: rnnx.Layer) -> TrainState:
    tokens = jnp.zeros((config.train.batch, config.train.time), jnp.int32)
    start = training.initial_state(config.run.seed, lambda key: model.init(key, tokens), make_optimizer(config))
    return TrainState(*start, average=start.params, carry=model.initial_carry(start.params, tokens, None))


def make_train_step(
    config: CharLM, model: rnnx.Layer, split: int
) -> Callable[[TrainState, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    optimizer = make_optimizer(config)
    schedule = training.make_schedule(config.train, config.train.final_lr_fraction)

    def train_step(state: TrainState, text: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        reset_key, noise_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        inputs, targets, resets = read_chunk(config.train, split, text, state.step, reset_key)

        def loss_and_carry(params: Any) -> tuple[jax.Array, Any]:
            carry = jax.lax.stop_gradient(state.carry)
            carry, logits = rnnx.unroll(model, params, inputs, carry=carry, resets=resets, key=noise_key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean(), carry

        (loss, carry), gradient = jax.value_and_grad(loss_and_carry, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = training.update_average(state.average, params, state.step, config.train.ema)
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": schedule(state.step),
        }
        return TrainState(state.step + 1, state.key, params, optimizer_state, average, carry), metrics

    return train_step


def main(args: Sequence[str]) -> None:
    config = load(CharLM, args)
    corpus = load_corpus(config)
    run_dir = open_run_dir(config, corpus_sha256=corpus.sha256)
    if show_finished(run_dir, show):
        return
    write_json(run_dir / "vocab.json", corpus.vocab)

    batch, time = config.train.batch, config.train.time
    mesh = training_mesh(config)
    model = make_model(config, len(corpus.vocab.pieces))
    print(rnnx.summary(model, jax.ShapeDtypeStruct((batch, time), jnp.int32)))
    print(
        f"{config.data.corpus}: {len(corpus.text):,} {PLURAL[config.data.level]}, {len(corpus.vocab.pieces):,} "
        f"different ones; {corpus.split:,} to train on, {len(corpus.text) - corpus.split:,} to validate on. "
        f"Run folder: {run_dir}",
        flush=True,
    )
    if jax.device_count() > 1:
        print(
            f"Training on {mesh.size} of {jax.device_count()} {jax.default_backend().upper()} devices, as many as "
            f"divide the {batch} rows of a batch and the {config.run.eval_rows} of a validation evenly: "
            f"{batch // mesh.size} on each.",
            flush=True,
        )
    scorer = Scorer(model, corpus.text)
    fitted = fit(
        run_dir,
        functools.partial(initial_state, config, model),
        make_train_step(config, model, corpus.split),
        jnp.asarray(corpus.text),
        make_evaluate(config, corpus, scorer),
        Plan.of(config, monitor=MONITOR, items=PLURAL[config.data.level], items_per_step=batch * time),
        COLUMNS,
        mesh,
    )
    report(config, corpus, run_dir, model, fitted, scorer)
    show(run_dir)
