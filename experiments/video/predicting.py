"""The next frame from those before it: loss, evaluation, free running and test."""

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
from experiments.video.data import Digits, Split
from experiments.video.model import NETS, Task, in_parts, predictor
from experiments.video.settings import Video

FIRST = 2
"""Frames that are needed to foretell the next one: from a single one no motion can be seen."""
COLUMNS = {"mean squared error": lambda m: f"{m['squared_error']:.5f}"}


def foretold(layer: rnnx.Layer, params: Any, frames: jax.Array) -> jax.Array:
    """Logits of `frames[:, 1:]`, each from the true frames before it."""
    return rnnx.unroll(layer, params, frames[:, :-1])[1]


def free_run(layer: rnnx.Layer, params: Any, frames: jax.Array, steps: int) -> jax.Array:
    """`steps` frames after those given: the first is made from these, each later one from the net's own before it."""
    carry, _ = rnnx.unroll(layer, params, frames[:, :-1])
    _, made = rnnx.generate(
        layer, params, carry, frames[:, -1], steps=steps, sample=lambda key, logits: jax.nn.sigmoid(logits)
    )
    return made


def make_task(config: Video, split: Split, *, memory: bool) -> Task:
    layer = predictor(config, memory=memory)

    def errors(params: Any, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Loss and squared error of the foretold frames, `[n]`."""
        logits, wanted = foretold(layer, params, frames)[:, FIRST - 1 :], frames[:, FIRST:]
        squared = jnp.square(jax.nn.sigmoid(logits) - wanted)
        nats = optax.sigmoid_binary_cross_entropy(logits, wanted)
        return nats.mean(axis=(1, 2, 3, 4)), squared.mean(axis=(1, 2, 3, 4))

    def loss(params: Any, key: jax.Array, digits: Digits) -> tuple[jax.Array, dict[str, jax.Array]]:
        clips = data.draw(key, digits, config.batch, time=config.longest, size=config.size)
        value, squared = errors(params, clips.frames)
        return value.mean(), {"squared_error": squared.mean()}

    squared_errors = jax.jit(lambda params, frames: errors(params, frames)[1])
    key = jax.random.key(data.VALIDATION_SEED)
    validation = data.draw(key, split.validation, config.val_clips, time=config.longest, size=config.size).frames

    def evaluate(params: Any) -> dict[str, float]:
        return {"val_mse": float(in_parts(functools.partial(squared_errors, params), validation).mean())}

    return Task(layer, loss, evaluate, "val_mse", COLUMNS)


def shifted(frames: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Frames `[n, size, size, 1]` moved by rows and columns `[n, 2]`; what leaves a side is gone."""
    size = frames.shape[1]
    padded = np.pad(frames, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.empty_like(frames)
    for i, (down, across) in enumerate(moves):
        out[i] = padded[i, 1 - down : 1 - down + size, 1 - across : 1 - across + size]
    return out


def last_move(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The move, of the eight, that makes `after` of `before` with the least squared error: `[n, 2]`."""
    errors = np.stack(
        [np.square(shifted(before, np.tile(m, (len(before), 1))) - after).sum(axis=(1, 2, 3)) for m in data.MOVES]
    )
    return data.MOVES[errors.argmin(axis=0)]


class Errors(NamedTuple):
    """Mean squared errors: `next` `[n, time - 1]` of each frame but the first, and `free` `[n, steps]` of those that
    are made after the frames shown."""

    next: np.ndarray
    free: np.ndarray


def baselines(frames: np.ndarray, seen: int) -> dict[str, Errors]:
    """What is reached by the last frame, and by moving it on as it moved last; the latter errs where a digit bounces.

    In the first of the next frames there is no last move, so that the last frame stands for it.
    """
    copied = error(frames[:, :-1], frames[:, 1:])
    free = error(frames[:, seen - 1 : seen], frames[:, seen:])
    moves = [last_move(frames[:, t - 1], frames[:, t]) for t in range(1, frames.shape[1] - 1)]
    on = np.stack([shifted(frames[:, t], move) for t, move in enumerate(moves, 1)], axis=1)
    moved = np.concatenate([copied[:, :1], error(on, frames[:, 2:])], axis=1)
    now, further = frames[:, seen - 1], []
    for _ in range(frames.shape[1] - seen):
        now = shifted(now, moves[seen - 2])
        further.append(now)
    return {
        "copying": Errors(copied, free),
        "repeated_move": Errors(moved, error(np.stack(further, axis=1), frames[:, seen:])),
    }


def error(made: Any, true: Any) -> Any:
    """Mean squared error of each frame, `[n, time]`."""
    return ((made - true) ** 2).mean(axis=(2, 3, 4))


def make_run(config: Video, layer: rnnx.Layer, params: Any) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """From whole clips each next frame, and those that it makes after the frames shown."""

    @jax.jit
    def run(params: Any, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        free = free_run(layer, params, frames[:, : config.seen], frames.shape[1] - config.seen)
        return jax.nn.sigmoid(foretold(layer, params, frames)), free

    return functools.partial(run, params)


def report(
    config: Video, run_dir: Path, split: Split, params: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores and details of the nets on the test, their picture and film; `params` are those of "conv_lstm" and
    "one_frame"."""
    from experiments.video import pictures  # not at the top: a second of start-up

    time = max(config.longest, config.seen + config.free)
    clips = data.draw(jax.random.key(data.TEST_SEED), split.test, config.test_clips, time=time, size=config.size)
    frames = np.asarray(clips.frames)
    errors, made = baselines(frames, config.seen), {}
    for net, memory in NETS.items():
        made[net] = in_parts(make_run(config, predictor(config, memory=memory), params[net]), frames)
        errors[net] = Errors(error(made[net][0], frames[:, 1:]), error(made[net][1], frames[:, config.seen :]))

    # Judged are as many frames as in training; that those beyond are foretold too is seen in the details.
    mse = {name: float(e.next[:, FIRST - 1 : config.longest - 1].mean()) for name, e in errors.items()}
    free_mse = {name: float(e.free[:, : config.free].mean()) for name, e in errors.items()}
    scores = {
        "times_better_than_copying": mse["copying"] / mse["conv_lstm"],
        "times_better_by_repeated_move": mse["copying"] / max(mse["repeated_move"], 1e-9),  # exact if no clip bounces
        "times_better_by_one_frame": mse["copying"] / mse["one_frame"],
        "times_better_running_free": free_mse["copying"] / free_mse["conv_lstm"],
    }
    details = {
        "seen": config.seen,
        "free": config.free,
        "next_frame_mse": mse,
        "free_running_mse": free_mse,
        "next_frame_mse_by_frames_seen": {name: e.next.mean(axis=0).tolist() for name, e in errors.items()},
        "free_running_mse_by_step": {name: e.free.mean(axis=0).tolist() for name, e in errors.items()},
    }
    following, free = made["conv_lstm"]
    shown = np.concatenate([following[:, : config.seen - 1], free], axis=1)
    pictures.predicted(run_dir / "predict.png", frames, shown, details, config.seen, scores)
    pictures.film(run_dir / "predict.gif", frames, shown, config.seen)
    return scores, details
