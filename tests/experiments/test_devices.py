"""The character model on several devices: the same run as on one, whatever number of them it goes on with."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from processes import assert_identical, final_state, train, wait_until

from experiments.char_lm import model
from experiments.char_lm.config import CharLM
from experiments.logs import read_metrics
from experiments.settings import replace

STEPS, EVAL_EVERY, BATCH = 30, 10, 8
# Noise would differ. Evaluations read 37 chunks: dispatched at once they would deadlock on several CPU devices.
SHORT = (
    f"--steps {STEPS} --eval-every {EVAL_EVERY} --batch {BATCH} --dropout 0 --time 8 --train-fraction 0.5 "
    "--eval-rows 8 --eval-chars 37000"
).split()


@pytest.fixture
def start(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], Any]:
    text = tmp_path / "text.txt"
    text.write_text(corpus.read_text() * 10)

    def start(devices: int, name: str) -> Any:
        monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(devices))
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        return train(text, tmp_path / name, *SHORT)

    return start


def test_a_run_is_the_same_on_any_number_of_devices(
    corpus: Path, tmp_path: Path, start: Callable[[int, str], Any]
) -> None:
    def finish(devices: int, name: str) -> str:
        process = start(devices, name)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert (f"Training on {devices} of {devices} CPU devices" in output) == (devices > 1)
        return output

    def assert_close(name: str, other: str) -> None:
        states = [numbers(final_state(corpus, tmp_path / run, BATCH)) for run in (name, other)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *states)
        scores = [json.loads((tmp_path / run / "results.json").read_text())["val_bits"] for run in (name, other)]
        assert math.isclose(*scores, rel_tol=1e-4)

    def kill_on(devices: int, name: str) -> None:
        process = start(devices, name)
        wait_until(lambda: (tmp_path / name / "checkpoints" / str(EVAL_EVERY)).exists(), process)
        wait_until(lambda: any(row["step"] > EVAL_EVERY for row in read_metrics(tmp_path / name)), process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    finish(1, "one")
    finish(2, "two")
    assert_close("two", "one")

    kill_on(2, "two to two")
    shutil.copytree(tmp_path / "two to two", tmp_path / "two to eight")
    assert final_state(corpus, tmp_path / "two to two", BATCH).step >= EVAL_EVERY  # read here, on one device
    for devices, name in ((2, "two to two"), (8, "two to eight")):
        assert "Resuming" in finish(devices, name)
        assert_close(name, "one")
    assert_identical(*(final_state(corpus, tmp_path / run, BATCH) for run in ("two", "two to two")))


def numbers(state: Any) -> Any:
    return state._replace(key=jax.random.key_data(state.key))


ROWS = [(1, 1), (2, 2), (3, 3), (7, 7), (10, 10), (12, 12), (16, 16), (17, 17), (16, 2)]


def test_as_many_devices_as_divide_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "devices", lambda: [jax.local_devices(backend="cpu")[0]] * 8)
    monkeypatch.setattr(model, "Mesh", lambda devices, names: devices)
    sizes = [model.training_mesh(replace(CharLM(), batch=batch, eval_rows=rows)).size for batch, rows in ROWS]
    assert sizes == [1, 2, 3, 7, 5, 6, 8, 1, 2]
