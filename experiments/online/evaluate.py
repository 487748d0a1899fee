"""The scores: nats and accuracy per bit that is asked for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from experiments import runs
from experiments.files import read_json
from experiments.loop import Fitted
from experiments.online.config import Method, Online
from experiments.online.data import initial_stream, read
from experiments.online.model import losses, make_cell

MONITOR = "val_nats_per_bit"


def make_evaluate(config: Online, seed: int, batch: int) -> Callable[[Any], dict[str, float]]:
    """Nats and accuracy per bit on `batch` separate streams, with fixed params."""
    layer = rnnx.scan(make_cell(config.model))

    @jax.jit
    def score(params: Any) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(seed), config.run.eval_time)
        _, window = read(config.data, initial_stream(config.data, batch), keys)
        xs, targets = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), window)
        _, ys = rnnx.unroll(layer, params["cell"], xs)
        readout = params["readout"]
        logits = ys @ readout["kernel"] + jnp.broadcast_to(readout["bias"], targets.bits.shape)
        right = jnp.where(targets.asked[..., None], logits * targets.bits > 0, False)
        asked = targets.asked.sum() * config.data.bits
        return {MONITOR: losses(readout, ys, targets).sum() / asked, "val_accuracy": right.sum() / asked}

    return lambda state: {name: float(value) for name, value in score(state.params).items()}


def report(config: Online, run_dir: Path, fitted: Mapping[Method, Fitted[Any]]) -> None:
    """Scores the best checkpoint of each method. Writes results.json last: it marks the end."""
    from experiments import plots  # not at the top: a second of start-up

    train, seed = config.train, config.run.seed
    evaluate = make_evaluate(config, seed + 2_000_000, 4 * config.run.eval_batch)
    rows = {}
    for method, run in fitted.items():
        scores = evaluate(run.best)
        rows[method] = {
            "nats_per_bit": scores[MONITOR],
            "accuracy": scores["val_accuracy"],
            "best_step": run.best_step,
            "seconds": round(run.seconds, 1),
            # Kept between updates; within its window, back-propagation also keeps every step.
            "memory_numbers_per_stream": floats(run.best.memory) // train.batch,
        }
    plots.validation_curves(
        run_dir / "learning_curve.png",
        {method: run_dir / method for method in fitted},
        MONITOR,
        per_step=train.chunk,
        chance=float(np.log(2)),
        xlabel="time steps",
        ylabel="nats per bit",
        ylim=(0, 1),
        title=f"{run_dir.name}: validation",
    )
    runs.finish(
        run_dir,
        {f"{method}_nats_per_bit": row["nats_per_bit"] for method, row in rows.items()},
        seed=seed,
        seconds=sum(run.seconds for run in fitted.values()),
        methods=rows,
        steps=train.steps,
        time_steps=train.steps * train.chunk,
        streams=train.batch,
        parameters=floats(next(iter(fitted.values())).best.params),
    )


def floats(tree: Any) -> int:
    """The number of floating-point numbers."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating))


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; curves: {run_dir / 'learning_curve.png'})")
    print(f"{'method':<12}{'nats per bit':>14}{'accuracy':>10}{'seconds':>9}{'numbers kept per stream':>25}")
    for method, row in run["methods"].items():
        print(
            f"{method:<12}{row['nats_per_bit']:>14.4f}{row['accuracy']:>10.1%}{row['seconds']:>9.0f}"
            f"{row['memory_numbers_per_stream']:>25,}"
        )
