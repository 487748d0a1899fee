"""Trains cells on tasks of memory, and makes a table and pictures of the scores."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments import command, results, training
from experiments import config as configs
from experiments.errors import UserError
from experiments.loop import Fitted, Plan, fit
from experiments.memory.cells import CELLS, linear
from experiments.memory.settings import TASKS, Memory, check
from experiments.memory.tasks import Batch, Task, accuracy_by_length
from experiments.report import RECORDS as KEPT

COMMAND = "python -m experiments.memory"
CONFIGS = Path("configs/memory")
MONITOR = "updates_left"
COLUMNS = {"loss": lambda metrics: f"{metrics['loss']:.4f}"}
BINS = 50
"""Of the accuracy by length."""


def make_model(config: Memory, task: Task, cell: str) -> rnnx.Layer:
    make = CELLS[cell]
    if config.layers == 1:
        first = (nn.Dense(config.width),) if cell in linear else ()
        return rnnx.stack(*first, make(config.width), nn.Dense(task.outputs))
    dense = nn.Dense(2 * config.width), rnnx.pointwise(jax.nn.gelu), nn.Dense(config.width)
    block = (
        rnnx.residual(rnnx.stack(nn.LayerNorm(), make(config.width))),
        rnnx.residual(rnnx.stack(nn.LayerNorm(), *dense)),
    )
    return rnnx.stack(nn.Dense(config.width), *block * config.layers, nn.LayerNorm(), nn.Dense(task.outputs))


def make_optimizer(config: Memory) -> optax.GradientTransformation:
    return training.adamw(config.learning_rate, config.updates, warmup=config.warmup, clip=config.clip)


def initial_state(config: Memory, task: Task, model: rnnx.Layer) -> training.TrainState:
    """`step` counts updates."""
    example = jax.eval_shape(lambda: task.draw(jax.random.key(0), config.batch)).xs
    return training.initial_state(config.seed, lambda key: model.init(key, example), make_optimizer(config))


def make_train_step(
    config: Memory, task: Task, model: rnnx.Layer
) -> Callable[[training.TrainState, None], tuple[training.TrainState, dict[str, jax.Array]]]:
    """Several updates, each on sequences of its own; the metrics are their means."""

    def loss(params: Any, key: jax.Array, data: None) -> tuple[jax.Array, dict[str, jax.Array]]:
        batch = task.draw(key, config.batch)
        _, outputs = rnnx.unroll(model, params, batch.xs)
        return task.loss(outputs, batch), {}

    update = training.make_train_step(loss, make_optimizer(config))

    def train_step(state: training.TrainState, data: None) -> tuple[training.TrainState, dict[str, jax.Array]]:
        state, metrics = jax.lax.scan(lambda s, _: update(s, data), state, length=config.updates_per_step)
        return state, jax.tree.map(jnp.mean, metrics)

    return train_step


Measured = Callable[[Any, Batch], tuple[jax.Array, jax.Array, jax.Array]]
"""`(params, batch) -> (loss, score, accuracy by length)`."""


def make_measure(task: Task, model: rnnx.Layer) -> Measured:
    @jax.jit
    def measure(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        _, outputs = rnnx.unroll(model, params, batch.xs)
        return task.loss(outputs, batch), task.score(outputs, batch), accuracy_by_length(outputs, batch)

    return measure


def make_evaluate(config: Memory, task: Task, measure: Measured) -> Callable[[training.TrainState], dict[str, float]]:
    """Loss and score on sequences like those of training.

    The monitor falls with every look until the task is solved, and no further. So a patience of 1 ends a training when
    it is solved and not before, however long its loss has stood still; and the newest checkpoint is the best.
    """
    batch = task.draw(jax.random.key(config.seed + 1_000_000), config.eval_batch)

    def evaluate(state: training.TrainState) -> dict[str, float]:
        loss, score, _ = map(np.asarray, measure(state.params, batch))
        left = -1.0 if loss <= task.enough else float(config.updates - int(state.step))
        return {"val_loss": float(loss), "val_score": float(score), MONITOR: left}

    return evaluate


def final_score(config: Memory, task: Task, measure: Measured, params: Any) -> dict[str, Any]:
    """The score on new sequences; where lengths differ the accuracy by length too."""
    batch = task.test(jax.random.key(config.seed + 2_000_000), config.eval_batch)
    _, score, right = map(np.asarray, measure(params, batch))
    if task.longest is None:
        return {"score": float(score)}
    lengths = np.flatnonzero(~np.isnan(right)) + 1
    right = right[lengths - 1]
    bins = [part for part in np.array_split(np.arange(len(lengths)), BINS) if len(part)]
    return {
        "score": float(right[lengths > task.longest].mean()),
        "trained_to": task.longest,
        "by_length": [[int(lengths[part[-1]]), round(float(right[part].mean()), 4)] for part in bins],
    }


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Memory(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, configs.settings(config))
    if results.show_finished(run_dir, lambda: show(run_dir)):
        return
    rows, seconds = [], 0.0
    for task_name in config.tasks:
        task = TASKS[task_name](config)
        for cell in config.cells:
            folder = run_dir / task_name / cell
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{cell} on {in_line(task.title)}. Run folder: {folder}", flush=True)
            model = make_model(config, task, cell)
            measure = make_measure(task, model)
            fitted = fit_one(config, task, model, measure, folder)
            tested = final_score(config, task, measure, fitted.best.params)
            rows.append(row_of(task_name, task, cell, tested, fitted))
            seconds += fitted.seconds
    report(config, run_dir, rows, seconds)
    show(run_dir)


def fit_one(
    config: Memory, task: Task, model: rnnx.Layer, measure: Measured, folder: Path
) -> Fitted[training.TrainState]:
    # Made here, operation by operation: to compile it as a whole would take longer, for each cell and task anew.
    state = initial_state(config, task, model)
    return fit(
        folder,
        lambda: state,
        make_train_step(config, task, model),
        None,
        make_evaluate(config, task, measure),
        Plan(
            steps=config.updates // config.updates_per_step,
            eval_every=config.eval_every,
            log_every=1,
            monitor=MONITOR,
            patience=1,
            items="sequences",
            items_per_step=config.batch * config.updates_per_step,
        ),
        COLUMNS,
    )


def row_of(
    name: str, task: Task, cell: str, tested: dict[str, Any], fitted: Fitted[training.TrainState]
) -> dict[str, Any]:
    """What is kept of a training, as JSON."""
    return {
        "task": name,
        "title": task.title,
        "cell": cell,
        "metric": task.metric,
        **tested,
        "chance": task.chance,
        "solved": task.is_solved(tested["score"]),
        "way": round(task.way(tested["score"]), 4),
        "updates": int(fitted.best.step),
        "seconds": round(fitted.seconds, 1),
        "parameters": results.count(fitted.best.params),
    }


def report(config: Memory, run_dir: Path, rows: list[dict[str, Any]], seconds: float) -> None:
    """Draws the pictures; results.json comes last: it marks the end."""
    from experiments.memory import pictures  # not at the top: a second of start-up

    pictures.table(run_dir / "table.png", rows)
    chance = {name: TASKS[name](config).chance_loss for name in config.tasks}
    pictures.curves(run_dir / "curves.png", run_dir, rows, chance, config.updates_per_step)
    pictures.by_length(run_dir / "lengths.png", rows)
    scores = {f"{row['cell']}_{row['task']}": row for row in rows}
    judged = {name: row for name, row in scores.items() if name in config.judged_by} or scores
    results.finish(
        run_dir,
        {f"{name}_{row['metric']}": row["score"] for name, row in judged.items()},
        seed=config.seed,
        seconds=seconds,
        rows=rows,
        width=config.width,
        layers=config.layers,
        batch=config.batch,
        most_updates=config.updates,
    )


def in_line(title: str) -> str:
    return title.replace("\n", ", ")


def show(run_dir: Path) -> None:
    rows = configs.read_json(run_dir / "results.json")["rows"]
    drawn = [str(run_dir / name) for name in ("table.png", "curves.png", "lengths.png") if (run_dir / name).exists()]
    print(f"--- results ({run_dir / 'results.json'}; pictures: {', '.join(drawn)})")
    print(f"{'task':<44}{'cell':<18}{'score':>10}{'chance':>9}  {'':<10}{'updates':>8}{'seconds':>9}{'params':>9}")
    for row in rows:
        print(
            f"{in_line(row['title']):<44}{row['cell']:<18}{row['score']:>10.4f}{row['chance']:>9.4f}  "
            f"{'solved' if row['solved'] else '':<10}{row['updates']:>8,}{row['seconds']:>9.0f}{row['parameters']:>9,}"
        )


def table(args: Sequence[str]) -> None:
    """One table and its pictures of several runs, the seeds of a config among them."""
    paths = [Path(arg) for arg in args] or sorted(
        path for path in (KEPT / CONFIGS.name).glob("*.json") if not path.name.startswith("quick-")
    )
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise UserError(
            f"There is no {', '.join(missing) or 'run on record'}. Give the results.json of finished runs: "
            f"{COMMAND} table runs/memory/*/results.json"
        )
    from experiments.memory import pictures

    cells, names = list(dict.fromkeys([*Memory().cells, *CELLS])), list(TASKS)
    rows = []
    for path in paths:
        with configs.showing(path, "Give the results.json of finished runs."):
            rows += configs.read_results(path)["rows"]
    with configs.showing(paths[0].parent, "Give the results.json of finished runs."):
        rows.sort(key=lambda row: (names.index(row["task"]), cells.index(row["cell"])))
    folder = Path("runs") / CONFIGS.name
    folder.mkdir(parents=True, exist_ok=True)
    pictures.table(folder / "table.png", rows)
    pictures.by_length(folder / "lengths.png", rows)
    print(f"{'task':<44}{'cell':<18}{'metric':<10}{'mean':>9}{'worst':>9}{'best':>9}{'chance':>9}{'seeds':>7}")
    for (name, cell), seeds in pictures.grouped(rows).items():
        mean, best, worst = np.mean([row["score"] for row in seeds]), *pictures.best_and_worst(seeds)
        print(
            f"{in_line(name):<44}{cell:<18}{seeds[0]['metric']:<10}{mean:>9.4f}{worst:>9.4f}{best:>9.4f}"
            f"{seeds[0]['chance']:>9.4f}{len(seeds):>7}"
        )
    print(f"pictures: {folder / 'table.png'}, {folder / 'lengths.png'}")


def main(args: Sequence[str]) -> None:
    if args[:1] == ["table"]:
        table(args[1:])
    else:
        train(args)


if __name__ == "__main__":
    command.run(main)
