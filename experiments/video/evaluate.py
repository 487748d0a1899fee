"""The scores: the share of clips classified correctly, and the errors of predicted frames."""

import functools
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments import runs
from experiments.files import read_json
from experiments.logs import read_metrics
from experiments.loop import Fitted
from experiments.training import TrainState
from experiments.video import data
from experiments.video.baselines import Errors, baselines, error
from experiments.video.config import Task, Video
from experiments.video.data import DIRECTIONS, Examples, Split, draw_examples
from experiments.video.model import NETS, Logits, classify, make_model, predict_next, rollout

MONITORS = {"classify": "val_nll", "predict": "val_mse"}
FIRST = 2
"""Frames that are needed to predict the next one: from a single one no motion can be seen."""
Scores = dict[str, float]


def nll(logits: Logits, digit: jax.Array, direction: jax.Array) -> jax.Array:
    """Nats of digit and direction together, in the shape of either."""
    nats = optax.softmax_cross_entropy_with_integer_labels
    return nats(logits.digit, digit) + nats(logits.direction, direction)


def is_right(logits: Logits, digit: Any, direction: Any) -> Any:
    """Whether both are predicted correctly."""
    return (logits.digit.argmax(-1) == digit) & (logits.direction.argmax(-1) == direction)


def make_classify(layer: rnnx.Layer) -> Callable[[Any, Examples], Logits]:
    """The logits at the end of each clip; the frames beyond have no influence."""

    @jax.jit
    def last(params: Any, examples: Examples) -> Logits:
        logits = classify(layer, params, examples.frames, examples.lengths)
        return jax.tree.map(lambda a: a[jnp.arange(len(a)), examples.lengths - 1], logits)

    return lambda params, examples: in_batches(functools.partial(last, params), examples)


def prediction_errors(layer: rnnx.Layer, params: Any, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss and squared error of the next frames, `[n]`."""
    logits, expected = predict_next(layer, params, frames)[:, FIRST - 1 :], frames[:, FIRST:]
    squared = jnp.square(jax.nn.sigmoid(logits) - expected)
    nats = optax.sigmoid_binary_cross_entropy(logits, expected)
    return nats.mean(axis=(1, 2, 3, 4)), squared.mean(axis=(1, 2, 3, 4))


def in_batches(function: Callable[[Any], Any], inputs: Any, batch: int = 250) -> Any:
    """`function(inputs)`, computed for `batch` clips at a time and joined: trees of arrays with leading axis [n]."""
    parts = []
    for start in range(0, len(jax.tree.leaves(inputs)[0]), batch):
        own = jax.tree.map(operator.itemgetter(slice(start, start + batch)), inputs)
        parts.append(jax.device_get(function(own)))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def make_evaluate(config: Video, split: Split, task: Task, layer: rnnx.Layer) -> Callable[[TrainState], Scores]:
    count, size = config.run.val_clips, {"time": config.data.longest, "size": config.data.size}
    if task == "classify":
        answer = make_classify(layer)
        examples = draw_examples(config.data, data.VALIDATION_SEED, split.validation, count)
        labels = examples.digit, examples.direction

        def classification(state: TrainState) -> Scores:
            logits = answer(state.params, examples)
            right = is_right(logits, *labels)
            return {"val_nll": float(nll(logits, *labels).mean()), "val_accuracy": float(right.mean())}

        return classification

    squared_errors = jax.jit(lambda params, frames: prediction_errors(layer, params, frames)[1])
    frames = data.draw(jax.random.key(data.VALIDATION_SEED), split.validation, count, **size).frames
    return lambda state: {"val_mse": float(in_batches(functools.partial(squared_errors, state.params), frames).mean())}


Params = Mapping[str, Any]
"""The params of each of NETS."""


def report_classify(config: Video, run_dir: Path, split: Split, params: Params) -> tuple[Scores, dict[str, Any]]:
    """Scores and details of the nets on the test set, and their plot."""
    from experiments.video import plots  # not at the top: a second of start-up

    examples = draw_examples(config.data, data.TEST_SEED, split.test, config.run.test_clips)
    labels = examples.digit, examples.direction
    details: dict[str, Any] = {}
    answers = {}
    for net in NETS:
        answers[net] = logits = make_classify(make_model(config, "classify", net))(params[net], examples)
        details[net] = {
            "clip_accuracy": float(is_right(logits, *labels).mean()),
            "digit_accuracy": float((logits.digit.argmax(-1) == examples.digit).mean()),
            "direction_accuracy": float((logits.direction.argmax(-1) == examples.direction).mean()),
            "nll": float(nll(logits, *labels).mean()),
            "digit_confusion": confusion(examples.digit, logits.digit).tolist(),
            "direction_confusion": confusion(examples.direction, logits.direction).tolist(),
        }
    scores = {name: details["conv_lstm"][name] for name in ("clip_accuracy", "digit_accuracy", "direction_accuracy")}
    scores["clip_accuracy_of_one_frame"] = details["one_frame"]["clip_accuracy"]
    details["directions"] = DIRECTIONS
    plots.classified(run_dir / "classify.png", jax.device_get(examples), answers["conv_lstm"], details)
    return scores, details


def confusion(labels: Any, logits: np.ndarray) -> np.ndarray:
    """Counts `[classes, classes]`, a row for each true class."""
    from sklearn.metrics import confusion_matrix  # not at the top: a second of start-up

    return confusion_matrix(labels, logits.argmax(-1), labels=range(logits.shape[1]))


def make_predict(config: Video, net: str, params: Any) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """A function from whole clips to each next frame, and to the rollout after the frames shown."""
    layer, seen = make_model(config, "predict", net), config.data.seen

    @jax.jit
    def predict(params: Any, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        free = rollout(layer, params, frames[:, :seen], frames.shape[1] - seen)
        return jax.nn.sigmoid(predict_next(layer, params, frames)), free

    return functools.partial(predict, params)


def report_predict(config: Video, run_dir: Path, split: Split, params: Params) -> tuple[Scores, dict[str, Any]]:
    """Scores and details of the nets on the test set, their plot and animation."""
    from experiments.video import plots  # not at the top: a second of start-up

    seen, free, longest = config.data.seen, config.data.free, config.data.longest
    size = {"time": max(longest, seen + free), "size": config.data.size}
    frames = np.asarray(data.draw(jax.random.key(data.TEST_SEED), split.test, config.run.test_clips, **size).frames)
    errors, made = baselines(frames, seen), {}
    for net in NETS:
        made[net] = in_batches(make_predict(config, net, params[net]), frames)
        errors[net] = Errors(error(made[net][0], frames[:, 1:]), error(made[net][1], frames[:, seen:]))

    # As many frames as in training are scored; the details also have those beyond.
    mse = {name: float(e.next[:, FIRST - 1 : longest - 1].mean()) for name, e in errors.items()}
    free_mse = {name: float(e.free[:, :free].mean()) for name, e in errors.items()}
    scores = {
        "times_better_than_copying": mse["copying"] / mse["conv_lstm"],
        "times_better_by_repeated_move": mse["copying"] / max(mse["repeated_move"], 1e-9),  # exact if no clip bounces
        "times_better_by_one_frame": mse["copying"] / mse["one_frame"],
        "times_better_running_free": free_mse["copying"] / free_mse["conv_lstm"],
    }
    details = {
        "seen": seen,
        "free": free,
        "next_frame_mse": mse,
        "free_running_mse": free_mse,
        "next_frame_mse_by_frames_seen": {name: e.next.mean(axis=0).tolist() for name, e in errors.items()},
        "free_running_mse_by_step": {name: e.free.mean(axis=0).tolist() for name, e in errors.items()},
    }
    following, rolled_out = made["conv_lstm"]
    shown = np.concatenate([following[:, : seen - 1], rolled_out], axis=1)
    plots.predicted(run_dir / "predict.png", frames, shown, details, scores)
    plots.animate(run_dir / "predict.gif", frames, shown, seen)
    return scores, details


def report(config: Video, run_dir: Path, split: Split, fitted: Mapping[Task, Mapping[str, Fitted[TrainState]]]) -> None:
    """Scores the best weights of each net on the test set. Writes results.json last: it marks the end."""
    from experiments.video import plots  # not at the top: a second of start-up

    scores: Scores = {}
    details: dict[str, Any] = {}
    for task, nets in fitted.items():
        of_task = {"classify": report_classify, "predict": report_predict}[task]
        own, details[task] = of_task(config, run_dir, split, {net: run.best.params for net, run in nets.items()})
        scores |= own
    plots.learning(run_dir / "learning.png", {t: {n: read_metrics(run_dir / t / n) for n in NETS} for t in fitted})
    trainings = [(task, net, run) for task, nets in fitted.items() for net, run in nets.items()]
    runs.finish(
        run_dir,
        scores,
        seed=config.run.seed,
        seconds=sum(run.seconds for *_, run in trainings),
        **details,
        trainings=[
            {
                "task": task,
                "net": net,
                "best_step": run.best_step,
                "steps": run.last_step,
                "seconds": round(run.seconds, 1),
                "parameters": runs.count(run.best.params),
            }
            for task, net, run in trainings
        ],
        images={part: len(digits.labels) for part, digits in split._asdict().items()},
    )


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    drawn = [str(path) for path in sorted([*run_dir.glob("*.png"), *run_dir.glob("*.gif")])]
    print(f"--- results ({run_dir / 'results.json'}; plots: {', '.join(drawn)})")
    for score, value in run["scores"].items():
        print(f"{score.replace('_', ' '):<36}{value:>9.4f}")
    for row in run["trainings"]:
        print(
            f"{row['task']}, {row['net']}: {row['parameters']:,} parameters, best at step {row['best_step']:,} of "
            f"{row['steps']:,}, {row['seconds']:.0f} s"
        )
