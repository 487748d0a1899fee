"""Which digit moves in which direction: loss, evaluation and test."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments.video import data
from experiments.video.data import DIRECTIONS, Digits, Split
from experiments.video.model import DIGITS, NETS, Task, classifier, in_parts
from experiments.video.settings import Video

COLUMNS = {"nats": lambda m: f"{m['loss']:.3f}", "right": lambda m: f"{m['accuracy']:.1%}"}


class Judged(NamedTuple):
    """Logits `[..., 10]` and `[..., 8]`."""

    digit: Any
    direction: Any


def judge(
    layer: rnnx.Layer,
    params: Any,
    frames: jax.Array,
    lengths: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Judged:
    """After each frame, `[n, time, ...]`; the key is for dropout."""
    _, logits = rnnx.unroll(layer, params, frames, lengths=lengths, key=key)
    return Judged(logits[..., :DIGITS], logits[..., DIGITS:])


def nll(judged: Judged, digit: jax.Array, direction: jax.Array) -> jax.Array:
    """Nats of digit and direction together, in the shape of both."""
    nats = optax.softmax_cross_entropy_with_integer_labels
    return nats(judged.digit, digit) + nats(judged.direction, direction)


def right(judged: Judged, digit: Any, direction: Any) -> Any:
    """Whether both are told right."""
    return (judged.digit.argmax(-1) == digit) & (judged.direction.argmax(-1) == direction)


class Questions(NamedTuple):
    """Clips with `lengths` `[n]`: only so many frames of each are to be read. `direction` `[n]` is that of the last."""

    frames: jax.Array
    lengths: jax.Array
    digit: jax.Array
    direction: jax.Array


def ask(config: Video, seed: int, digits: Digits, count: int) -> Questions:
    clips_key, lengths_key = jax.random.split(jax.random.key(seed))
    clips = data.draw(clips_key, digits, count, time=config.longest, size=config.size)
    lengths = jax.random.randint(lengths_key, (count,), config.shortest, config.longest + 1)
    return Questions(clips.frames, lengths, clips.digit, clips.direction[jnp.arange(count), lengths - 1])


def make_answer(layer: rnnx.Layer) -> Callable[[Any, Questions], Judged]:
    """What the net says at the end of each clip; the frames beyond have no influence."""

    @jax.jit
    def last(params: Any, questions: Questions) -> Judged:
        judged = judge(layer, params, questions.frames, questions.lengths)
        return jax.tree.map(lambda a: a[jnp.arange(len(a)), questions.lengths - 1], judged)

    return lambda params, questions: in_parts(functools.partial(last, params), questions)


def make_task(config: Video, split: Split, *, memory: bool) -> Task:
    layer = classifier(config, memory=memory)
    answer, validation = make_answer(layer), ask(config, data.VALIDATION_SEED, split.validation, config.val_clips)

    def loss(params: Any, key: jax.Array, digits: Digits) -> tuple[jax.Array, dict[str, jax.Array]]:
        """It is asked after every frame from the second on: so a clip teaches more than by its last frame alone."""
        clips_key, dropout_key = jax.random.split(key)
        clips = data.draw(clips_key, digits, config.batch, time=config.longest, size=config.size, warp=config.warp)
        judged = jax.tree.map(lambda a: a[:, 1:], judge(layer, params, clips.frames, key=dropout_key))
        direction = clips.direction[:, 1:]
        digit = jnp.broadcast_to(clips.digit[:, None], direction.shape)
        return nll(judged, digit, direction).mean(), {"accuracy": right(judged, digit, direction).mean()}

    def evaluate(params: Any) -> dict[str, float]:
        labels = validation.digit, validation.direction
        judged = answer(params, validation)
        return {"val_nll": float(nll(judged, *labels).mean()), "val_accuracy": float(right(judged, *labels).mean())}

    return Task(layer, loss, evaluate, "val_nll", COLUMNS)


def report(
    config: Video, run_dir: Path, split: Split, params: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores and details of the nets on the test, and their picture; `params` are those of "conv_lstm" and
    "one_frame"."""
    from experiments.video import pictures  # not at the top: a second of start-up

    questions = ask(config, data.TEST_SEED, split.test, config.test_clips)
    labels = questions.digit, questions.direction
    details: dict[str, Any] = {}
    answers = {}
    for net, memory in NETS.items():
        answers[net] = judged = make_answer(classifier(config, memory=memory))(params[net], questions)
        details[net] = {
            "clip_accuracy": float(right(judged, *labels).mean()),
            "digit_accuracy": float((judged.digit.argmax(-1) == questions.digit).mean()),
            "direction_accuracy": float((judged.direction.argmax(-1) == questions.direction).mean()),
            "nll": float(nll(judged, *labels).mean()),
            "digit_confusion": confusion(questions.digit, judged.digit).tolist(),
            "direction_confusion": confusion(questions.direction, judged.direction).tolist(),
        }
    judged_by = ("clip_accuracy", "digit_accuracy", "direction_accuracy")
    scores = {name: details["conv_lstm"][name] for name in judged_by}
    scores["clip_accuracy_of_one_frame"] = details["one_frame"]["clip_accuracy"]
    details["directions"] = DIRECTIONS
    pictures.classified(run_dir / "classify.png", jax.device_get(questions), answers, details)
    return scores, details


def confusion(labels: Any, logits: np.ndarray) -> np.ndarray:
    """Counts `[classes, classes]`, a row for each true class."""
    from sklearn.metrics import confusion_matrix  # not at the top: a second of start-up

    return confusion_matrix(labels, logits.argmax(-1), labels=range(logits.shape[1]))
