"""The scores, the plots of what the states do, and the table."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from experiments import runs
from experiments.files import read_json
from experiments.journey.config import Journey, Net
from experiments.journey.data import Sequences, Split
from experiments.journey.model import Classifier, make_model
from experiments.journey.traces import Trace, trace_of
from experiments.loop import Fitted
from experiments.training import TrainState

MONITOR = "val_loss"
TITLES: dict[Net, str] = {
    "elman": "An Elman network of two units",
    "gru": "A GRU of two units",
    "lstm": "An LSTM of two units",
    "stacked": "Two Elman layers of two units each",
    "bidirectional": "An Elman network of two units in each direction",
}


def score(model: Classifier, params: Any, sequences: Sequences) -> dict[str, jax.Array]:
    """The mean loss in nats and the share of sequences that are classified correctly."""
    logits = model.logits(params, sequences.xs)
    losses = optax.sigmoid_binary_cross_entropy(logits, sequences.labels)
    return {"loss": losses.mean(), "accuracy": ((logits > 0) == sequences.labels).mean()}


def make_score_all(model: Classifier, sequences: Sequences) -> Callable[[Any], dict[str, np.ndarray]]:
    """Scores the params `[restarts, ...]` of all restarts."""
    scores = jax.jit(jax.vmap(lambda params: score(model, params, sequences)))
    return lambda params: jax.device_get(scores(params))


def make_evaluate(model: Classifier, sequences: Sequences) -> Callable[[TrainState], dict[str, float]]:
    score_all = make_score_all(model, sequences)

    def evaluate(state: TrainState) -> dict[str, float]:
        scores = score_all(state.params)
        best = scores["loss"].argmin()
        return {MONITOR: scores["loss"][best], "val_accuracy": scores["accuracy"][best]}

    return evaluate


def choose_restart(config: Journey, data: Split, net: Net, run: Fitted[TrainState]) -> tuple[Any, dict[str, Any]]:
    """The params of the restart with the lowest validation loss, and the record of its training."""
    model = make_model(net)
    val, test = (make_score_all(model, part)(run.best.params) for part in (data.val, data.test))
    best = int(val["loss"].argmin())
    params = jax.tree.map(lambda leaf: np.asarray(leaf[best]), run.best.params)
    return params, {
        "test_accuracy": float(test["accuracy"][best]),
        "test_nats": float(test["loss"][best]),
        "val_accuracy": float(val["accuracy"][best]),
        "restart": best,
        "val_accuracy_of_restarts": [round(float(value), 4) for value in val["accuracy"]],
        "restarts_at_99_percent": int((val["accuracy"] >= 0.99).sum()),
        "parameters": runs.count(params),
        "best_update": run.best_step * config.train.updates_per_step,
        "seconds": round(run.seconds, 1),
    }


def report(config: Journey, run_dir: Path, data: Split, fitted: Mapping[Net, Fitted[TrainState]]) -> None:
    """Scores and draws the best restart of each net. Writes results.json last: it marks the end."""
    from experiments.journey import plots  # not at the top: a second of start-up
    from experiments.plots import learning_curve

    rows: dict[Net, dict[str, Any]] = {}
    drawn: dict[str, tuple[Trace, plots.Readout, float]] = {}
    for net, run in fitted.items():
        params, rows[net] = choose_restart(config, data, net, run)
        accuracy = rows[net]["test_accuracy"]
        trace, readout = trace_of(net, params["net"], data.test.xs), plots.readout_of(params)
        drawn[net] = trace, readout, accuracy
        title = f"{TITLES[net]}: {accuracy:.2%} of the test sequences classified right"
        plots.journey(run_dir / f"{net}_journey.png", title, trace, readout, *data.test)
        if net == "elman":
            points = trace.planes[0].points
            plots.elman_plane(run_dir / "elman_plane.png", params["net"], data.test.xs, points)
            if config.run.animate:
                from experiments.journey.animation import animate

                print("Drawing the animation.", flush=True)
                animate(run_dir / "elman_journey.gif", points, readout, *data.test)
        learning_curve(
            run_dir / net,
            MONITOR,
            label="nats",
            title=f"{run_dir.name}, {net}: the best of {config.train.restarts} restarts",
        )
    plots.final_states(run_dir / "final_states.png", drawn, data.test.labels)
    runs.finish(
        run_dir,
        scores_of({net: row["test_accuracy"] for net, row in rows.items()}),
        seed=config.run.seed,
        seconds=sum(run.seconds for run in fitted.values()),
        nets=rows,
        noise=config.data.noise,
        restarts=config.train.restarts,
        updates=config.train.updates,
        test_sequences=config.data.test_sequences,
    )


def scores_of(accuracies: Mapping[Net, float]) -> dict[str, float]:
    """The test accuracy, named by net if there are several."""
    if len(accuracies) == 1:
        return {"test_accuracy": next(iter(accuracies.values()))}
    return {f"{net}_test_accuracy": accuracy for net, accuracy in accuracies.items()}


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'})")
    print(f"{'net':<15}{'test accuracy':>13}{'nats':>9}{'parameters':>12}{'seconds':>9}  restarts with 99 %")
    for net, row in run["nets"].items():
        print(
            f"{net:<15}{row['test_accuracy']:>13.2%}{row['test_nats']:>9.4f}{row['parameters']:>12}"
            f"{row['seconds']:>9.1f}  {row['restarts_at_99_percent']} of {run['restarts']}"
        )
    print(f"{'chance':<15}{0.5:>13.2%}{np.log(2):>9.4f}")
    for plot in sorted([*run_dir.glob("*.png"), *run_dir.glob("*.gif")]):
        print(plot)
