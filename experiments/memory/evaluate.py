"""The scores, and the table of several runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rnnx
from experiments import runs
from experiments.errors import UserError
from experiments.files import read_json, showing
from experiments.loop import Fitted
from experiments.memory.config import CELLS, TASKS, Memory, Model
from experiments.memory.data import Batch, Task, accuracy_by_length, make_task
from experiments.report import RECORDS
from experiments.training import TrainState

MONITOR = "updates_left"
BINS = 50
"""Bins of the accuracy by length."""
Measured = Callable[[Any, Batch], tuple[jax.Array, jax.Array, jax.Array]]
"""`(params, batch) -> (loss, score, accuracy by length)`."""


def make_measure(task: Task, model: rnnx.Layer) -> Measured:
    @jax.jit
    def measure(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        _, outputs = rnnx.unroll(model, params, batch.xs)
        return task.loss(outputs, batch), task.score(outputs, batch), accuracy_by_length(outputs, batch)

    return measure


def make_evaluate(config: Memory, task: Task, measure: Measured) -> Callable[[TrainState], dict[str, float]]:
    """Loss and score on sequences like those of training.

    The monitor falls with every evaluation until the task is solved, and no further. So a patience of 1 ends training
    when the task is solved and not before, however long the loss was flat; and the newest checkpoint is the best.
    """
    batch = task.draw(jax.random.key(config.run.seed + 1_000_000), config.run.eval_batch)

    def evaluate(state: TrainState) -> dict[str, float]:
        loss, score, _ = map(np.asarray, measure(state.params, batch))
        left = -1.0 if loss <= task.enough else float(config.train.updates - int(state.step))
        return {"val_loss": float(loss), "val_score": float(score), MONITOR: left}

    return evaluate


def final_score(config: Memory, task: Task, measure: Measured, params: Any) -> dict[str, Any]:
    """The score on new sequences; if lengths differ, the accuracy by length too."""
    batch = task.test(jax.random.key(config.run.seed + 2_000_000), config.run.eval_batch)
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


def row_of(name: str, task: Task, cell: str, tested: dict[str, Any], fitted: Fitted[TrainState]) -> dict[str, Any]:
    """The record of a training, as JSON."""
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
        "parameters": runs.count(fitted.best.params),
    }


def report(config: Memory, run_dir: Path, rows: list[dict[str, Any]], seconds: float) -> None:
    """Draws the plots; results.json comes last: it marks the end."""
    from experiments.memory import plots  # not at the top: a second of start-up

    plots.table(run_dir / "table.png", rows)
    chance = {name: make_task(name, config.data).chance_loss for name in config.data.tasks}
    plots.curves(run_dir / "curves.png", run_dir, rows, chance, config.train.updates_per_step)
    plots.by_length(run_dir / "lengths.png", rows)
    scores = {f"{row['cell']}_{row['task']}": row for row in rows}
    judged = {name: row for name, row in scores.items() if name in config.run.judged_by} or scores
    runs.finish(
        run_dir,
        {f"{name}_{row['metric']}": row["score"] for name, row in judged.items()},
        seed=config.run.seed,
        seconds=seconds,
        rows=rows,
        width=config.model.width,
        layers=config.model.layers,
        batch=config.train.batch,
        most_updates=config.train.updates,
    )


def in_line(title: str) -> str:
    return title.replace("\n", ", ")


def show(run_dir: Path) -> None:
    rows = read_json(run_dir / "results.json")["rows"]
    drawn = [str(run_dir / name) for name in ("table.png", "curves.png", "lengths.png") if (run_dir / name).exists()]
    print(f"--- results ({run_dir / 'results.json'}; plots: {', '.join(drawn)})")
    print(f"{'task':<44}{'cell':<18}{'score':>10}{'chance':>9}  {'':<10}{'updates':>8}{'seconds':>9}{'params':>9}")
    for row in rows:
        print(
            f"{in_line(row['title']):<44}{row['cell']:<18}{row['score']:>10.4f}{row['chance']:>9.4f}  "
            f"{'solved' if row['solved'] else '':<10}{row['updates']:>8,}{row['seconds']:>9.0f}{row['parameters']:>9,}"
        )


def main(args: Sequence[str]) -> None:
    """A table and plots of several runs, which may be seeds of one config."""
    paths = [Path(arg) for arg in args] or sorted(
        path for path in (RECORDS / "memory").glob("*.json") if not path.name.startswith("quick-")
    )
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        raise UserError(
            f"There is no {', '.join(missing) or 'run on record'}. Give the results.json of finished runs: "
            "python -m experiments.memory table runs/memory/*/results.json"
        )
    from experiments.memory import plots

    cells = list(dict.fromkeys([*Model().cells, *CELLS]))
    rows = []
    for path in paths:
        with showing(path, "Give the results.json of finished runs."):
            rows += runs.read_results(path)["rows"]
    with showing(paths[0].parent, "Give the results.json of finished runs."):
        rows.sort(key=lambda row: (TASKS.index(row["task"]), cells.index(row["cell"])))
    folder = Path("runs/memory")
    folder.mkdir(parents=True, exist_ok=True)
    plots.table(folder / "table.png", rows)
    plots.by_length(folder / "lengths.png", rows)
    print(f"{'task':<44}{'cell':<18}{'metric':<10}{'mean':>9}{'worst':>9}{'best':>9}{'chance':>9}{'seeds':>7}")
    for (name, cell), seeds in plots.grouped(rows).items():
        mean, best, worst = np.mean([row["score"] for row in seeds]), *plots.best_and_worst(seeds)
        print(
            f"{in_line(name):<44}{cell:<18}{seeds[0]['metric']:<10}{mean:>9.4f}{worst:>9.4f}{best:>9.4f}"
            f"{seeds[0]['chance']:>9.4f}{len(seeds):>7}"
        )
    print(f"plots: {folder / 'table.png'}, {folder / 'lengths.png'}")
