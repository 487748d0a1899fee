"""A run from its config to its results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command, results, training
from experiments import config as configs
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit
from experiments.translate.data import Symbols, Translations, bucketed, load
from experiments.translate.decoding import Translator
from experiments.translate.model import make_loss, make_model
from experiments.translate.scoring import error_rates
from experiments.translate.settings import COMMAND, CONFIGS, Translate, check

MONITOR = "val_error_rate"
COLUMNS = {"nats per symbol": lambda metrics: f"{metrics['loss']:.3f}"}
SHOWN = 6


class TrainState(NamedTuple):
    """Of the training, and the running average of the weights."""

    training: training.TrainState
    average: Any


def make_train_step(
    config: Translate, step: Callable[[training.TrainState, Any], tuple[training.TrainState, dict[str, jax.Array]]]
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    def train_step(state: TrainState, data: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        # An average that began at the random weights would carry them along for long.
        decay = jnp.minimum(config.ema, (1 + state.training.step) / (10 + state.training.step))
        now, metrics = step(state.training, data)
        return TrainState(now, optax.incremental_update(now.params, state.average, 1 - decay)), metrics

    return train_step


def make_evaluate(
    config: Translate, translate: Translator, right: Mapping[Symbols, Sequence[Symbols]]
) -> Callable[[TrainState], dict[str, float]]:
    part = dict(list(right.items())[: config.eval_sources])

    def evaluate(state: TrainState) -> dict[str, float]:
        rates = error_rates(translate(state.average, list(part), beam=1), part)
        return {f"val_{name}": rate for name, rate in rates.items()}

    return evaluate


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Translate(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    data = load(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, {**configs.settings(config), "data_sha256": data.sha256})
    if results.show_finished(run_dir, lambda: show(run_dir)):
        return

    model, buckets = make_model(config, data), bucketed(data)
    sizes = tuple(len(bucket.source) for bucket in buckets)
    optimizer = training.adamw(
        config.learning_rate, config.steps, warmup=config.warmup, weight_decay=config.weight_decay
    )
    print(
        f"{config.data}: {len(data.train):,} sources to train on ({sum(sizes):,} pairs), {len(data.validation):,} to "
        f"validate, {len(data.test):,} to test on; {len(data.sources)} and {len(data.targets)} symbols. Run folder: "
        f"{run_dir}",
        flush=True,
    )

    def initial_state() -> TrainState:
        state = training.initial_state(config.seed, model.init, optimizer)
        return TrainState(state, state.params)

    translate = Translator(model, data)
    fitted = fit(
        run_dir,
        initial_state,
        make_train_step(config, training.make_train_step(make_loss(config, model, sizes), optimizer)),
        jax.tree.map(jnp.asarray, buckets),
        make_evaluate(config, translate, data.validation),
        Plan(
            steps=config.steps,
            eval_every=config.eval_every,
            log_every=config.log_every,
            monitor=MONITOR,
            items="pairs",
            items_per_step=config.batch,
        ),
        COLUMNS,
    )
    report(config, run_dir, data, translate, fitted)
    show(run_dir)


def report(
    config: Translate, run_dir: Path, data: Translations, translate: Translator, fitted: Fitted[TrainState]
) -> None:
    """Scores the best checkpoint on the test, greedily and by beam search. Writes results.json last."""
    from experiments.plots import learning_curve  # not at the top: a second of start-up
    from experiments.translate import pictures

    print(f"Translating {len(data.test):,} test sources, with one hypothesis and with {config.beam}.", flush=True)
    params, sources = fitted.best.average, list(data.test)
    written = {beam: translate(params, sources, beam=beam) for beam in (1, config.beam)}
    greedy, searched = (error_rates(written[beam], data.test) for beam in (1, config.beam))
    learning_curve(
        run_dir / "learning_curve.png",
        read_metrics(run_dir),
        train="loss",
        validation=MONITOR,
        label="training: nats per symbol; validation: error rate",
        title=f"{run_dir.name}: {searched['error_rate']:.1%} of test sources wrong",
    )
    drawn = np.random.default_rng(config.seed).choice(len(sources), min(SHOWN, len(sources)), replace=False)
    maps = []
    for i in drawn:
        target, weights = translate.attention(params, sources[i])
        maps.append((sources[i], target, weights, target in data.test[sources[i]]))
    pictures.attention(run_dir / "attention.png", maps, f"{run_dir.name}: where the decoder looked as it wrote")
    results.finish(
        run_dir,
        {name: searched[name] for name in ("symbol_error_rate", "error_rate")},
        seed=config.seed,
        seconds=fitted.seconds,
        greedy=greedy,
        beam=config.beam,
        test_sources=len(sources),
        examples=[
            {"source": "".join(sources[i]), "written": " ".join(written[config.beam][i])} for i in drawn.tolist()
        ],
        best_step=fitted.best_step,
        steps=fitted.last_step,
        parameters=results.count(params),
        data_sha256=data.sha256,
    )


def show(run_dir: Path) -> None:
    run = configs.read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; pictures: attention.png, learning_curve.png)")
    print(f"{'':<24}{'symbols wrong':>15}{'sources wrong':>15}")
    for name, rates in (("one hypothesis", run["greedy"]), (f"beam search, {run['beam']}", run["scores"])):
        print(f"{name:<24}{rates['symbol_error_rate']:>15.2%}{rates['error_rate']:>15.2%}")
    for example in run["examples"]:
        print(f"    {example['source']:<24} {example['written']}")


def main(args: Sequence[str]) -> None:
    train(args)


if __name__ == "__main__":
    command.run(main)
