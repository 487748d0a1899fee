"""A run from its config to its results."""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

import rnnx
from experiments import config as configs
from experiments import results
from experiments.char_lm.corpus import NAMES, PLURAL, Corpus, load_corpus
from experiments.char_lm.model import TrainState, initial_state, make_model, make_train_step, training_devices
from experiments.char_lm.quality import quality
from experiments.char_lm.scoring import MONITOR, Scorer, final_score, make_evaluate
from experiments.char_lm.settings import COMMAND, CONFIGS, LATER, CharLM, check
from experiments.char_lm.writing import default_prime, stream
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit
from experiments.text import UNKNOWN, decode

COLUMNS = {
    "loss": lambda metrics: f"{metrics['loss']:.3f}",
    "bits": lambda metrics: f"{metrics['loss'] / math.log(2):.3f}",
}


def train(args: Sequence[str]) -> None:
    config, name = configs.load(CharLM(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    corpus = load_corpus(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, {**configs.settings(config), "corpus_sha256": corpus.sha256}, LATER)
    if results.show_finished(run_dir, lambda: show(run_dir, characters=400)):
        return

    configs.write_json(run_dir / "vocab.json", corpus.vocab)
    devices = training_devices(config.batch)
    model = make_model(config, len(corpus.vocab.pieces))
    example = jax.ShapeDtypeStruct((config.batch, config.time), jnp.int32)
    print(rnnx.summary(model, example))
    print(
        f"{config.corpus}: {len(corpus.text):,} {PLURAL[config.level]}, {len(corpus.vocab.pieces):,} different ones; "
        f"{corpus.split:,} to train on, {len(corpus.text) - corpus.split:,} to validate on. "
        f"Run folder: {run_dir}",
        flush=True,
    )
    if jax.device_count() > 1:
        print(
            f"Training on {len(devices)} of {jax.device_count()} {devices[0].platform.upper()} devices, as many as "
            f"divide the {config.batch} rows of a batch evenly: {config.batch // len(devices)} on each.",
            flush=True,
        )
    scorer = Scorer(model, corpus.text)
    fitted = fit(
        run_dir,
        functools.partial(initial_state, config, model),
        make_train_step(config, model, corpus.split),
        jnp.asarray(corpus.text),
        make_evaluate(config, corpus, scorer),
        Plan(
            steps=config.steps,
            eval_every=config.eval_every,
            log_every=config.log_every,
            monitor=MONITOR,
            patience=config.patience,
            items=PLURAL[config.level],
            items_per_step=config.batch * config.time,
        ),
        COLUMNS,
        devices,
    )
    report(config, corpus, run_dir, model, fitted, scorer)
    show(run_dir)


def report(
    config: CharLM,
    corpus: Corpus,
    run_dir: Path,
    model: rnnx.Layer,
    fitted: Fitted[TrainState],
    scorer: Scorer,
) -> None:
    """Scores and samples the best checkpoint. Writes results.json last: it marks the end."""
    from experiments.plots import learning_curve  # not at the top: a second of start-up

    print("Scoring the best checkpoint on the whole validation text.", flush=True)
    params = fitted.best.average
    nats = final_score(corpus, scorer, params)
    learning_curve(
        run_dir / "learning_curve.png",
        read_metrics(run_dir),
        train="loss",
        validation=MONITOR,
        label=f"nats per {NAMES[config.level]}",
        title=f"{run_dir.name}: final score {nats:.4f} nats per {NAMES[config.level]}",
    )
    text = "".join(
        stream(
            model,
            params,
            corpus.vocab,
            default_prime(corpus.vocab),
            length=config.sample_length,
            sample=rnnx.sampler(config.sample_temperature),
            seed=config.seed,
        )
    )
    configs.write_text(run_dir / "sample.txt", text)
    held_out = "".join(decode(corpus.text[corpus.split :][: config.sample_length].tolist(), corpus.vocab))
    training = "".join(decode(corpus.text[: corpus.split].tolist(), corpus.vocab))
    results.finish(
        run_dir,
        {f"val_nats_per_{config.level}": nats},
        seed=config.seed,
        seconds=fitted.seconds,
        val_bits=nats / math.log(2),
        val_tokens=len(corpus.text) - corpus.split - 1,
        train_tokens=fitted.last_step * config.batch * config.time,
        quality={"sample": quality(text, training), "held_out": quality(held_out, training)},
        unknown_share=unknown_share(corpus),
        best_step=fitted.best_step,
        steps=fitted.last_step,
        parameters=results.count(params),
        corpus=config.corpus,
        corpus_sha256=corpus.sha256,
    )


def unknown_share(corpus: Corpus) -> float:
    """Of the held-out words, those that the training text does not have."""
    pieces = corpus.vocab.pieces
    return float((corpus.text[corpus.split :] == pieces.index(UNKNOWN)).mean()) if UNKNOWN in pieces else 0.0


def show(run_dir: Path, characters: int | None = None) -> None:
    run = configs.read_json(run_dir / "results.json")
    text = (run_dir / "sample.txt").read_text(encoding="utf-8")
    print(f"--- sample (all of it: {run_dir / 'sample.txt'})")
    print(text[:characters])
    print(f"--- results ({run_dir / 'results.json'})")
    if "quality" not in run:  # of a run before this was looked at
        print(json.dumps(run, indent=2))
        return
    ((metric, nats),) = run["scores"].items()
    print(
        f"{metric.replace('_', ' ')} {nats:.4f} ({run['val_bits']:.4f} bits), best at step {run['best_step']:,}; "
        f"trained on {run['train_tokens']:,} in {run['seconds']:.0f} s"
    )
    of_sample, of_text = run["quality"]["sample"], run["quality"]["held_out"]
    print(
        f"of its words {of_sample['known_words']:.1%} occur in the training text (of the held-out text's "
        f"{of_text['known_words']:.1%}); longest passage copied from there: {of_sample['longest_copy']} characters"
    )
