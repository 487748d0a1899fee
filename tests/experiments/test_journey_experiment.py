"""The journey of the hidden state at small size: the real config, shrunk."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from processes import ROOT

import rnnx
from experiments import plots
from experiments.errors import UserError
from experiments.journey import Journey, animation, evaluate, train
from experiments.journey import plots as journey_plots
from experiments.journey.config import Net
from experiments.journey.data import draw, load_data
from experiments.journey.model import make_model
from experiments.journey.traces import elman_moves, trace_of
from experiments.logs import read_metrics
from experiments.settings import replace

pytestmark = pytest.mark.usefixtures("draw_quickly")

NETS = ("elman", "gru", "lstm", "stacked", "bidirectional")
TINY = {"restarts": 2, "updates": 4, "updates-per-step": 2, "eval-every": 1, "batch": 8}
TINY |= {"train-sequences": 32, "val-sequences": 16, "test-sequences": 24}


def arguments(run_dir: Path, *overrides: str) -> list[str]:
    settings = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    return [str(ROOT / "configs/journey/quick.py"), *settings, "--run-dir", str(run_dir), *overrides]


def test_a_run_leaves_a_complete_folder_and_an_animation_can_be_asked_for_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}
    report = train.report
    monkeypatch.setattr(train, "report", lambda *args: (kept.update(args[3]), report(*args)))
    run_dir = tmp_path / "run"
    train.main(arguments(run_dir))
    first = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    row = first["nets"]["elman"]
    best, accuracy = score_by_hand(kept["elman"].best.params)
    assert (row["restart"], row["test_accuracy"]) == (best, pytest.approx(accuracy))
    assert first["scores"] == {"test_accuracy": row["test_accuracy"]}
    assert len(row["val_accuracy_of_restarts"]) == 2
    assert row["val_accuracy"] == pytest.approx(row["val_accuracy_of_restarts"][row["restart"]], abs=1e-4)
    assert row["parameters"] == 2 * (2 + 2 + 1) + 2 + 1
    assert f"{row['test_accuracy']:.2%}" in capsys.readouterr().out
    assert [line["step"] for line in read_metrics(run_dir / "elman") if evaluate.MONITOR in line] == [1, 2]
    for name in ("elman_journey.png", "elman_plane.png", "final_states.png", "elman/learning_curve.png"):
        with Image.open(run_dir / name) as picture:
            assert min(picture.size) > 50
    assert not list(run_dir.glob("*.gif"))

    train.main(arguments(run_dir))
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="batch: saved 8, given 9"):
        train.main(arguments(run_dir, "--batch", "9"))
    shown = [animation.Moment(0, 1, 0.5), animation.Moment(3, 2, 1.0, near=1.0)]
    monkeypatch.setattr(animation, "moments", lambda steps: shown)
    for module, name in ((journey_plots, "journey"), (journey_plots, "elman_plane"), (plots, "learning_curve")):
        monkeypatch.setattr(module, name, lambda *args, **options: None)
    train.main(arguments(run_dir, "--animate"))
    assert json.loads((run_dir / "results.json").read_text(encoding="utf-8")) == first
    with Image.open(run_dir / "elman_journey.gif") as drawn:
        assert drawn.n_frames == len(shown)


def score_by_hand(params: Any) -> tuple[int, float]:
    """The restart with the lowest validation loss and its test accuracy; shares no code with the experiment's score."""
    data = load_data(replace(Journey(), train_sequences=32, val_sequences=16, test_sequences=24))
    losses, accuracies = [], []
    for restart in range(2):
        w = jax.tree.map(lambda leaf, restart=restart: np.asarray(leaf[restart], np.float64), params)
        kernel, bias = w["readout"]["kernel"][:, 0], w["readout"]["bias"]
        val, test = (trace_of("elman", w["net"], part.xs).ends @ kernel + bias for part in (data.val, data.test))
        p = 1 / (1 + np.exp(-val))
        losses.append(-np.log(np.where(data.val.labels == 1, p, 1 - p)).mean())
        accuracies.append(((test > 0) == (data.test.labels == 1)).mean())
    best = int(np.argmin(losses))
    return best, accuracies[best]


def test_gates_two_planes_and_both_directions_are_drawn(tmp_path: Path) -> None:
    data = draw(16, 0.1, np.random.default_rng(0))
    drawn = {}
    for net in ("lstm", "bidirectional"):  # gates and two planes; four numbers at the end
        params = jax.device_get(make_model(net).init(jax.random.key(0)))
        trace, readout = trace_of(net, params["net"], data.xs), journey_plots.readout_of(params)
        drawn[net] = trace, readout, 0.5
    journey_plots.journey(tmp_path / "journey.png", "lstm", *drawn["lstm"][:2], *data)
    assert (tmp_path / "journey.png").read_bytes().startswith(b"\x89PNG")
    journey_plots.final_states(tmp_path / "final.png", drawn, data.labels)
    with Image.open(tmp_path / "final.png") as picture:
        assert picture.width > 100


@pytest.mark.parametrize("net", NETS)
def test_every_net_is_trained_by_the_same_step(net: Net) -> None:
    config, model = replace(Journey(), restarts=2, batch=8, updates=4, updates_per_step=2), make_model(net)
    data = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, draw(16, 0.1, np.random.default_rng(0))))
    state = jax.eval_shape(lambda: train.initial_states(config, model))
    after, metrics = jax.eval_shape(train.make_train_step(config, model), state, data)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {"loss", "accuracy", "gradient_norm"}


def test_scores_are_named_by_net_where_there_are_several() -> None:
    assert evaluate.scores_of({"gru": 0.5}) == {"test_accuracy": 0.5}
    assert evaluate.scores_of({"elman": 0.5, "gru": 1.0}) == {"elman_test_accuracy": 0.5, "gru_test_accuracy": 1.0}


@pytest.mark.parametrize("net", NETS)
def test_a_trace_ends_where_the_net_itself_ends(net: Net) -> None:
    """At every length, so at every step; with weights large enough that a gate in the wrong place shows."""
    xs = draw(8, 0.5, np.random.default_rng(1)).xs
    model = make_model(net)
    params = jax.tree.map(
        lambda leaf: 2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), model.init(jax.random.key(0))
    )
    for steps in (1, 2, 4):
        trace = trace_of(net, jax.device_get(params["net"]), xs[:, :steps])
        ends = model.states(params["net"], jnp.asarray(xs[:, :steps]))
        np.testing.assert_allclose(trace.ends, ends, atol=2e-6)
    readout = journey_plots.readout_of(jax.device_get(params))
    np.testing.assert_allclose(trace.ends @ readout.kernel + readout.bias, model.logits(params, xs), atol=2e-5)
    for plane in trace.planes:
        assert plane.points.shape == (8, 4, len(plane.moves) + 1, 2)
    assert all(gate.shape == (8, 4, 2) for gate in trace.gates.values())


def test_the_memory_of_an_lstm_and_each_output_of_two_directions_are_those_of_unroll() -> None:
    xs = draw(8, 0.5, np.random.default_rng(2)).xs
    lstm, both = rnnx.lstm(2), rnnx.bidirectional(rnnx.elman(2))
    params = lstm.init(jax.random.key(3), xs)
    carry, _ = rnnx.unroll(lstm, params, xs)
    memory, hidden = trace_of("lstm", params, xs).planes
    np.testing.assert_allclose(memory.points[:, -1, -1], carry.c, atol=2e-6)
    assert (hidden.points[:, :, 0] == memory.points[:, :, -1]).all()
    params = both.init(jax.random.key(4), xs)
    _, ys = rnnx.unroll(both, params, xs)
    planes = trace_of("bidirectional", jax.device_get(params), xs).planes
    np.testing.assert_allclose(np.concatenate([plane.points[:, :, -1] for plane in planes], axis=-1), ys, atol=2e-6)


@pytest.mark.parametrize("net", ["gru", "lstm"])
def test_each_move_is_that_of_its_gate(net: Net) -> None:
    xs = draw(8, 0.5, np.random.default_rng(2)).xs
    trace = trace_of(net, make_model(net).init(jax.random.key(3))["net"], xs)
    before, moved, after = np.moveaxis(trace.planes[0].points, 2, 0)
    assert (before[:, 1:] == after[:, :-1]).all()
    gates = trace.gates
    if net == "gru":
        expected = gates["n"], (1 - gates["z"]) * gates["n"] + gates["z"] * before
    else:
        expected = gates["f"] * before, gates["f"] * before + gates["i"] * gates["g"]
        hidden = trace.planes[1].points
        np.testing.assert_allclose(hidden[:, :, 2], gates["o"] * np.tanh(after), atol=2e-6)
    np.testing.assert_allclose((moved, after), expected, atol=2e-6)


def test_the_moves_of_an_elman_step_by_hand() -> None:
    w = {
        "recurrent_kernel": np.array([[0.0, 1.0], [-1.0, 0.0]]),  # a quarter turn
        "input_kernel": np.array([[2.0, 0.0], [0.0, 3.0]]),
        "bias": np.array([0.5, 0.0]),
    }
    points = elman_moves(w, np.array([1.0, 0.0]), np.array([1.0, -1.0]))
    assert points[:3].tolist() == [[1, 0], [0, 1], [2.5, -2]]
    assert points[3] == pytest.approx([math.tanh(2.5), math.tanh(-2)])


def test_a_move_of_the_animation_goes_from_where_the_last_one_ended() -> None:
    xs = draw(2, 0.1, np.random.default_rng(0)).xs
    params = rnnx.elman(2).init(jax.random.key(0), xs)
    points = trace_of("elman", jax.device_get(params), xs).planes[0].points
    seen = list(animation.moments(4))
    assert (animation.place(points, seen[0]) == 0).all()
    np.testing.assert_allclose(animation.place(points, seen[-1]), points[:, -1, -1], atol=1e-6)
    for before, after in itertools.pairwise(seen):
        if (before.step, before.move) != (after.step, after.move):
            np.testing.assert_allclose(animation.place(points, before), animation.place(points, after), atol=1e-6)


def test_sequences_visit_the_square_in_all_eight_orders_and_parts_share_no_draw() -> None:
    xs, labels = draw(16, 0.0, np.random.default_rng(0))
    assert xs[0].tolist() == [[-1, -1], [-1, 1], [1, 1], [1, -1]]  # upwards from the lower left: clockwise
    assert xs[1].tolist() == [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    assert labels.tolist() == [0, 1] * 8
    assert len(np.unique(xs[:8].reshape(8, -1), axis=0)) == 8
    for x, label in zip(xs, labels):  # the signed area is negative for clockwise
        following = np.roll(x, -1, axis=0)
        area = (x[:, 0] * following[:, 1] - x[:, 1] * following[:, 0]).sum() / 2
        assert area == (-4 if label == 0 else 4)
    data = load_data(replace(Journey(), noise=0.1))
    assert [len(part.labels) for part in data] == [2048, 2048, 4096]
    noise = data.train.xs - draw(2048, 0.0, np.random.default_rng(0)).xs
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    rows = np.concatenate([part.xs.reshape(-1, 8) for part in data])
    assert len(np.unique(rows, axis=0)) == len(rows)
    again, other = (load_data(replace(Journey(), noise=0.1, seed=seed)) for seed in (0, 1))
    assert (again.test.xs == data.test.xs).all()
    assert (other.test.xs != data.test.xs).any()


def test_restarts_begin_apart_and_know_nothing_of_each_other() -> None:
    config = replace(Journey(), restarts=3, batch=8, updates=4, updates_per_step=2)
    model = make_model("elman")
    data = jax.tree.map(jnp.asarray, draw(32, 0.1, np.random.default_rng(0)))
    states = train.initial_states(config, model)
    kernels = np.asarray(states.params["net"]["input_kernel"])
    assert len(np.unique(kernels[:, 0, 0])) == 3
    train_step = jax.jit(train.make_train_step(config, model))
    after, _ = train_step(states, data)
    assert after.step.tolist() == [2, 2, 2]
    # One beside other company comes out the same.
    others, _ = train_step(jax.tree.map(lambda leaf: leaf[np.array([0, 0, 2])], states), data)
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(others.params)):
        np.testing.assert_allclose(a[2], b[2], rtol=1e-5)
        np.testing.assert_allclose(b[1], b[0], rtol=1e-5)
    assert (after.params["net"]["input_kernel"][1] != others.params["net"]["input_kernel"][1]).any()


def test_one_who_knows_nothing_scores_chance() -> None:
    model = make_model("gru")
    nothing = jax.tree.map(jnp.zeros_like, model.init(jax.random.key(0)))
    scores = evaluate.score(model, nothing, draw(16, 0.1, np.random.default_rng(0)))
    assert float(scores["loss"]) == pytest.approx(math.log(2), rel=1e-6)
    assert float(scores["accuracy"]) == 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--restarts", "0"], "--restarts is 0, but must be 1 or more"),
        (["--test-sequences", "7"], "--test-sequences is 7, but must be 8 or more"),
        (["--noise", "-1"], "--noise is -1.0, but must be 0 or more"),
        (["--learning-rate", "0"], "--learning-rate is 0.0, but must be above 0"),
        (["--updates-per-step", "3"], "--updates is 4, but must be a multiple of --updates-per-step, 3"),
        (["--nets", "gru", "gru"], "--nets is gru gru, but must have one name or more, each once"),
        (["--nets", "gru", "--animate"], "--animate shows the Elman network, but --nets is gru"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        train.main(arguments(tmp_path / "run", *overrides))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
