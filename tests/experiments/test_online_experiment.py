"""The comparison of online learners at small size: the real config, shrunk."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import ROOT, assert_identical

from experiments.checkpoints import Checkpoints
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.online import Data, Online, train
from experiments.online.config import Method
from experiments.online.data import initial_stream, read
from experiments.online.evaluate import MONITOR, make_evaluate
from experiments.settings import replace

TINY = {"width": 4, "bits": 1, "batch": 2, "chunk": 16, "steps": 4, "eval-every": 2, "log-every": 2}
TINY |= {"eval-batch": 4, "eval-time": 40}


def arguments(run_dir: Path, *overrides: str) -> list[str]:
    settings = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    return [str(ROOT / "configs/online/quick.py"), *settings, "--run-dir", str(run_dir), *overrides]


def tiny(method: Method, **changes: Any) -> tuple[Online, Any, Any]:
    config = replace(Online(), width=4, bits=1, batch=2, chunk=16, **changes)
    return config, train.initial_state(config, method), jax.jit(train.make_train_step(config, method))


def final_state(run_dir: Path, method: Method) -> Any:
    config = replace(Online(), width=4, bits=1, batch=2, chunk=16)
    like = jax.eval_shape(lambda: train.initial_state(config, method))
    restored = Checkpoints(run_dir / method / "checkpoints", monitor=MONITOR).resume(like)
    assert restored is not None
    return restored.state


def test_a_run_leaves_a_complete_folder_and_one_cut_short_ends_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("uoro", "bptt_short")
    run_dir, cut = tmp_path / "run", tmp_path / "cut"
    train.main(arguments(run_dir, "--methods", *methods))
    output = capsys.readouterr().out
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert tuple(results["methods"]) == methods
    assert results["time_steps"] == 64
    assert results["methods"]["bptt_short"]["memory_numbers_per_stream"] == 8
    for method, row in results["methods"].items():
        assert f"{method:<12}{row['nats_per_bit']:>14.4f}" in output
        scores = [line["step"] for line in read_metrics(run_dir / method) if MONITOR in line]
        assert scores == [2, 4]
    assert (run_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    train.main(arguments(run_dir, "--methods", *methods))
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="width: saved 4, given 5"):
        train.main(arguments(run_dir, "--methods", *methods, "--width", "5"))

    class Killed(Exception):
        pass

    save = Checkpoints.save

    def save_once(self: Checkpoints, step: int, *rest: Any) -> None:
        if step > 2:
            raise Killed
        save(self, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_once)
        with pytest.raises(Killed):
            train.main(arguments(cut, "--methods", *methods))
    train.main(arguments(cut, "--methods", *methods))
    assert "Resuming" in capsys.readouterr().out
    for method in methods:
        assert_identical(final_state(cut, method), final_state(run_dir, method))


def test_the_stream_asks_for_the_bits_of_its_last_cue() -> None:
    data = Data(bits=3, shortest=2, longest=4)
    _, window = read(data, initial_stream(data, 5), jax.random.split(jax.random.key(0), 200))
    xs, (bits, asked) = jax.tree.map(np.asarray, window)
    gaps = set()
    for row in range(5):
        cues = np.flatnonzero(np.abs(xs[:, row, :3]).all(axis=1))
        asks = np.flatnonzero(asked[:, row])
        assert (xs[:, row, :3] != 0).any(axis=1).sum() == len(cues)
        assert (cues[1:] == asks[: len(cues) - 1] + 1).all()
        for cue, ask in zip(cues, asks):
            assert (bits[ask, row] == xs[cue, row, :3]).all()
            gaps.add(int(ask - cue))
    assert gaps == {2, 3, 4}
    assert set(np.unique(xs[..., 3:])) == {-1, 1}


@pytest.mark.parametrize("method", ["rtrl", "bptt_short"])
def test_a_short_window_never_hears_the_cue(method: Method) -> None:
    _, state, step = tiny(method, shortest=4, longest=6, short_window=4)
    for _ in range(3):
        state, _ = step(state, None)
    kernel = state.params["cell"]["input_kernel"]
    assert (kernel[1] != 0).any()  # of the distractor
    assert (kernel[0] == 0).all() == (method == "bptt_short")


@pytest.mark.parametrize("method", ["rtrl", "snap1", "eprop", "uoro", "bptt", "bptt_short"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_every_method_takes_every_cell(method: Method, cell: Any) -> None:
    config = replace(Online(), width=4, bits=1, batch=2, chunk=16, cell=cell)
    state = jax.eval_shape(lambda: train.initial_state(config, method))
    after, metrics = jax.eval_shape(train.make_train_step(config, method), state, None)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {"loss"}


def test_the_score_of_one_who_knows_nothing_is_chance() -> None:
    config, state, _ = tiny("bptt")
    nothing = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    assert make_evaluate(config, 0, 500)(nothing)[MONITOR] == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--steps", "0"], "--steps is 0, but must be 1 or more"),
        (["--learning-rate", "0"], "--learning-rate is 0.0, but must be above 0"),
        (["--longest", "2"], "--longest is 2, but must be at least --shortest"),
        (["--short-window", "5"], "--short-window is 5, but must divide --chunk, 16"),
        (["--eval-time", "5"], "--eval-time is 5, but must be above --longest"),
        (["--methods", "rtrl", "rtrl"], "--methods is rtrl rtrl, but must have one name or more, each once"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        train.main(arguments(tmp_path / "run", *overrides))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
