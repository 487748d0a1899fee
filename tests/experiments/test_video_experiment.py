"""Moving digits at small size: the real config, shrunk."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from processes import ROOT
from sklearn.datasets import load_digits

import rnnx
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.settings import replace
from experiments.video import Video, data, evaluate, model, train
from experiments.video.baselines import baselines
from rnnx.testing import eps

pytestmark = pytest.mark.usefixtures("draw_quickly")

TINY = {"size": 12, "shortest": 2, "longest": 3, "seen": 2, "free": 3, "width": 3, "batch": 4, "steps": 2}
TINY |= {"eval-every": 1, "log-every": 1, "val-clips": 30, "test-clips": 40, "warmup": 1}
SMALL = replace(Video(), size=12, longest=4, shortest=2, width=3, seen=2, free=3)


@pytest.fixture(scope="module")
def split() -> data.Split:
    return data.load_digits()


@pytest.fixture(scope="module")
def clips(split: data.Split) -> data.Clips:
    return jax.device_get(data.draw(jax.random.key(0), split.train, 400, time=9, size=12))


def made(make: Callable[..., rnnx.Layer], *, memory: bool) -> tuple[rnnx.Layer, Any]:
    """A small net and its params."""
    layer = make(SMALL, memory=memory)
    return layer, jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 4, 12, 12, 1)))


def run(run_dir: Path, *overrides: str) -> dict[str, Any]:
    settings = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    train.main([str(ROOT / "configs/video/quick.py"), *settings, "--run-dir", str(run_dir), *overrides])
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def test_a_run_leaves_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    results = run(run_dir)
    scores = results["scores"]
    assert all(math.isfinite(score) for score in scores.values())
    assert scores["clip_accuracy"] <= min(scores["digit_accuracy"], scores["direction_accuracy"])
    net = results["classify"]["conv_lstm"]
    for name, classes in (("digit", 10), ("direction", 8)):
        counts = np.array(net[f"{name}_confusion"])
        assert counts.shape == (classes, classes)
        assert (counts.sum(), np.trace(counts) / 40) == (40, pytest.approx(scores[f"{name}_accuracy"]))
    mse = results["predict"]["next_frame_mse"]
    assert scores["times_better_than_copying"] == pytest.approx(mse["copying"] / mse["conv_lstm"])
    assert {len(row) for row in results["predict"]["next_frame_mse_by_frames_seen"].values()} == {4}
    assert {len(row) for row in results["predict"]["free_running_mse_by_step"].values()} == {3}
    assert results["images"] == {"train": 1257, "validation": 180, "test": 360}
    for task, net in itertools.product(("classify", "predict"), ("conv_lstm", "one_frame")):
        assert [row["step"] for row in read_metrics(run_dir / task / net) if "loss" in row] == [1, 2]
    for name in ("classify.png", "predict.png", "learning.png"):
        assert (run_dir / name).read_bytes().startswith(b"\x89PNG")
    with Image.open(run_dir / "predict.gif") as animation:
        assert animation.n_frames == 4  # the second to the fifth
    assert f"{scores['clip_accuracy']:.4f}" in capsys.readouterr().out
    assert run(run_dir) == results
    assert "is finished" in capsys.readouterr().out


def test_no_image_is_on_two_sides_and_each_digit_has_its_share(split: data.Split) -> None:
    known = load_digits()
    left = {np.trim_zeros(image.ravel()).tobytes() for image in known.images.astype(np.float32) / 16}
    parts = [{np.trim_zeros(image.ravel()).tobytes() for image in part.images} for part in split]
    assert [len(part.labels) for part in split] == [1257, 180, 360]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert len(parts[0] | parts[1] | parts[2]) == len(left) == 1797
    for digit, part in itertools.product(range(10), split):
        share = np.mean(part.labels == digit)
        assert share == pytest.approx(np.mean(known.target == digit), abs=0.01)


def test_ink_is_pushed_into_the_corner_and_measured(split: data.Split) -> None:
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 2:5, 3:7] = np.arange(12).reshape(3, 4) / 12  # of which the first has no ink
    pushed = data.push_into_corner(image, np.array([7]))
    assert pushed.sizes.tolist() == [[3, 4]]
    assert (pushed.images[0, :3, :4] == image[0, 2:5, 3:7]).all()
    assert pushed.images.sum() == image.sum()


def test_digits_move_by_a_pixel_and_bounce_where_their_ink_touches(clips: data.Clips) -> None:
    frames = clips.frames[..., 0]
    np.testing.assert_allclose(frames.sum(axis=(2, 3)), frames[:, :1].sum(axis=(2, 3)).repeat(9, 1), rtol=1e-5)
    bounces = 0
    for clip, direction in zip(frames, clips.direction):
        boxes = np.array([[(ink.any(1).nonzero()[0][k], ink.any(0).nonzero()[0][k]) for k in (0, -1)] for ink in clip])
        moves = np.diff(boxes[:, 0], axis=0)
        assert [data.MOVES[number].tolist() for number in direction[1:]] == moves.tolist()
        for t, (before, after) in enumerate(itertools.pairwise(moves), 1):
            touched = (boxes[t, 0] == 0) & (before < 0) | (boxes[t, 1] == 11) & (before > 0)
            assert (after == np.where(touched, -before, before)).all()
            bounces += touched.sum()
    assert bounces > 100


def test_the_place_of_a_digit_does_not_tell_its_direction(split: data.Split) -> None:
    clips = jax.device_get(data.draw(jax.random.key(1), split.train, 4000, time=3, size=16))
    columns = clips.frames[:, 2].sum(axis=(1, 3)) @ np.arange(16) / clips.frames[:, 2].sum(axis=(1, 2, 3))
    right, left = ([name in data.DIRECTIONS[d] for d in clips.direction[:, 2]] for name in ("right", "left"))
    away = (columns > 4) & (columns < 11)
    assert columns[away & right].mean() == pytest.approx(columns[away & left].mean(), abs=0.2)
    assert np.bincount(clips.direction[:, 2], minlength=8) / 4000 == pytest.approx(np.full(8, 1 / 8), abs=0.02)


def test_a_warp_keeps_the_middle_and_none_is_the_identity(split: data.Split) -> None:
    images, sizes = split.train.images[:6], split.train.sizes[:6]
    same = data.warp_images(jax.random.key(0), images, sizes, 0.0)
    np.testing.assert_allclose(same, images, atol=eps(64))
    point = np.zeros((6, 8, 8), np.float32)
    point[:, 3, 3] = 1
    moved = data.warp_images(jax.random.key(0), point, np.full((6, 2), 7), 0.2)
    np.testing.assert_allclose(moved[:, 3, 3], 1, atol=eps(64))
    assert np.abs(np.asarray(data.warp_images(jax.random.key(0), images, sizes, 0.2)) - images).max() > 0.2


def test_frames_beyond_the_length_change_no_answer(split: data.Split) -> None:
    examples = data.draw_examples(SMALL.data, 3, split.test, 20)
    layer, params = made(model.classifier, memory=True)
    answer = evaluate.make_classify(layer)
    beyond = jnp.arange(4)[None] >= examples.lengths[:, None]
    assert beyond.any()
    broken = examples._replace(frames=jnp.where(beyond[..., None, None, None], jnp.nan, examples.frames))
    for whole, cut in zip(answer(params, examples), answer(params, broken)):
        assert (whole == cut).all()
    length = int(examples.lengths[0])
    alone = jax.jit(lambda params, frames: model.classify(layer, params, frames))(params, examples.frames[:1, :length])
    np.testing.assert_allclose(alone.digit[0, -1], answer(params, examples).digit[0], atol=1e-5)


def test_only_the_net_with_memory_knows_earlier_frames(clips: data.Clips) -> None:
    frames = jnp.asarray(clips.frames[:2, :4])
    for memory in (True, False):
        for make in (model.classifier, model.predictor):
            layer, params = made(make, memory=memory)
            outputs = jax.jit(lambda params, frames, layer=layer: rnnx.unroll(layer, params, frames)[1])
            after, other = (np.asarray(outputs(params, x))[:, -1] for x in (frames, frames.at[:, :3].set(0)))
            assert (np.abs(after - other).max() > 1e-4) == memory


def test_a_rollout_reads_its_own_frames(clips: data.Clips) -> None:
    frames = jnp.asarray(clips.frames[:2, :2])
    layer, params = made(model.predictor, memory=True)
    free = jax.jit(lambda params, frames: model.rollout(layer, params, frames, 2))(params, frames)
    read = frames
    for _ in range(2):
        logits = jax.jit(lambda params, frames: rnnx.unroll(layer, params, frames)[1])(params, read)
        read = jnp.concatenate([read, jax.nn.sigmoid(logits[:, -1:])], axis=1)
    np.testing.assert_allclose(free, read[:, 2:], atol=1e-5)


def test_repeating_the_last_move_errs_at_bounces_only(clips: data.Clips) -> None:
    errors = baselines(clips.frames, 3)
    moves = data.MOVES[clips.direction]
    turned = (moves[:, 2:] != moves[:, 1:-1]).any(-1)
    assert ((errors["repeated_move"].next[:, 1:] > 1e-6) == turned).all()
    straight = ~turned[:, 1:].cumsum(axis=1).astype(bool)  # no bounce since the third frame
    assert (errors["repeated_move"].free[straight] < 1e-6).all()
    copied = [[np.mean((a - b) ** 2) for a, b in itertools.pairwise(clip)] for clip in clips.frames]
    np.testing.assert_allclose(errors["copying"].next, copied, rtol=1e-5)
    held = [[np.mean((clip[2] - later) ** 2) for later in clip[3:]] for clip in clips.frames]
    np.testing.assert_allclose(errors["copying"].free, held, rtol=1e-5)


def test_the_metrics_agree_with_plain_loops() -> None:
    rng = np.random.default_rng(0)
    logs = [np.log(rng.dirichlet(np.ones(n), 50)) for n in (10, 8)]
    digit, direction = rng.integers(0, 10, 50), rng.integers(0, 8, 50)
    predicted = model.Logits(*logs)
    nats = [-logs[0][i, digit[i]] - logs[1][i, direction[i]] for i in range(50)]
    np.testing.assert_allclose(evaluate.nll(predicted, jnp.array(digit), jnp.array(direction)), nats, rtol=1e-5)
    best = [(max(range(10), key=lambda k: a[k]), max(range(8), key=lambda k: b[k])) for a, b in zip(*logs)]
    both = [pair == truth for pair, truth in zip(best, zip(digit.tolist(), direction.tolist()))]
    assert evaluate.is_right(predicted, digit, direction).tolist() == both
    counts = np.zeros((8, 8), int)
    for (_, said), truth in zip(best, direction):
        counts[truth, said] += 1
    assert (evaluate.confusion(direction, logs[1]) == counts).all()


def test_an_image_is_upsampled_and_channels_become_pixels_place_by_place() -> None:
    image = jnp.arange(8.0).reshape(1, 2, 4)
    assert model.depth_to_space(image)[..., 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert model.upsample(jnp.array([[[1.0], [2.0]]]))[..., 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--steps", "0"], "--steps is 0, but must be 1 or more"),
        (["--size", "8"], "--size is 8, but must be a multiple of 4, and above the 8 pixels"),
        (["--size", "18"], "--size is 18, but must be a multiple of 4"),
        (["--shortest", "1"], "--shortest is 1, but must be 2 or more"),
        (["--shortest", "5"], "--longest is 3, but must be at least --shortest, 5"),
        (["--longest", "2"], "--longest is 2, but must be 3 or more"),
        (["--dropout", "1"], "--dropout is 1.0, but must be at least 0 and below 1"),
        (["--tasks", "predict", "predict"], "--tasks is predict predict, but must have"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", *overrides)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
