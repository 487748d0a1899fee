"""Trains the nets of each task, and makes scores and pictures of them."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import rnnx
from experiments import command, results, training
from experiments import config as configs
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit
from experiments.video import classifying, predicting
from experiments.video.data import Split, load_digits
from experiments.video.model import NETS
from experiments.video.settings import Video, check

COMMAND = "python -m experiments.video"
CONFIGS = Path("configs/video")
Nets = Mapping[str, Fitted[training.TrainState]]
TASKS: dict[str, Any] = {"classify": classifying, "predict": predicting}


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Video(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    split = load_digits()
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, configs.settings(config))
    if results.show_finished(run_dir, lambda: show(run_dir)):
        return
    fitted: dict[str, Nets] = {}
    for task in config.tasks:
        fitted[task] = {net: fit_one(config, split, run_dir, task, net) for net in NETS}
    report(config, run_dir, split, fitted)
    show(run_dir)


def fit_one(config: Video, split: Split, run_dir: Path, name: str, net: str) -> Fitted[training.TrainState]:
    folder = run_dir / name / net
    folder.mkdir(parents=True, exist_ok=True)
    task = TASKS[name].make_task(config, split, memory=NETS[net])
    frames = jax.ShapeDtypeStruct((1, config.longest, config.size, config.size, 1), jnp.float32)
    print(f"{name}, {net}: {config.steps:,} updates of {config.batch} clips. Run folder: {folder}")
    print(rnnx.summary(task.layer, frames), flush=True)
    optimizer = training.adamw(
        config.learning_rate, config.steps, warmup=config.warmup, weight_decay=config.weight_decay
    )
    return fit(
        folder,
        functools.partial(training.initial_state, config.seed, lambda key: task.layer.init(key, frames), optimizer),
        training.make_train_step(task.loss, optimizer),
        jax.tree.map(jnp.asarray, split.train),
        lambda state: task.evaluate(state.params),
        Plan(
            steps=config.steps,
            eval_every=config.eval_every,
            log_every=config.log_every,
            monitor=task.monitor,
            items="clips",
            items_per_step=config.batch,
        ),
        task.columns,
    )


def report(config: Video, run_dir: Path, split: Split, fitted: Mapping[str, Nets]) -> None:
    """Scores the best weights of each net on the test. Writes results.json last: it marks the end."""
    from experiments.video import pictures  # not at the top: a second of start-up

    scores: dict[str, float] = {}
    details: dict[str, Any] = {}
    for task, nets in fitted.items():
        own, details[task] = TASKS[task].report(
            config, run_dir, split, {net: run.best.params for net, run in nets.items()}
        )
        scores |= own
    pictures.learning(run_dir / "learning.png", {t: {n: read_metrics(run_dir / t / n) for n in NETS} for t in fitted})
    runs = [(task, net, run) for task, nets in fitted.items() for net, run in nets.items()]
    results.finish(
        run_dir,
        scores,
        seed=config.seed,
        seconds=sum(run.seconds for *_, run in runs),
        **details,
        trainings=[
            {
                "task": task,
                "net": net,
                "best_step": run.best_step,
                "steps": run.last_step,
                "seconds": round(run.seconds, 1),
                "parameters": results.count(run.best.params),
            }
            for task, net, run in runs
        ],
        images={part: len(digits.labels) for part, digits in split._asdict().items()},
    )


def show(run_dir: Path) -> None:
    run = configs.read_json(run_dir / "results.json")
    drawn = [str(path) for path in sorted([*run_dir.glob("*.png"), *run_dir.glob("*.gif")])]
    print(f"--- results ({run_dir / 'results.json'}; pictures: {', '.join(drawn)})")
    for score, value in run["scores"].items():
        print(f"{score.replace('_', ' '):<36}{value:>9.4f}")
    for row in run["trainings"]:
        print(
            f"{row['task']}, {row['net']}: {row['parameters']:,} parameters, best at step {row['best_step']:,} of "
            f"{row['steps']:,}, {row['seconds']:.0f} s"
        )


def main(args: Sequence[str]) -> None:
    train(args)


if __name__ == "__main__":
    command.run(main)
