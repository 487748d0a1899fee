"""The recipes in examples/ run, short as they are, at tiny size."""

import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def as_users_run_jax():
    with jax.numpy_rank_promotion("allow"):
        yield


def recipe(name):
    (path,) = [path for path in EXAMPLES if path.stem == name]
    return runpy.run_path(str(path))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_recipe_is_short_and_tested(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 120
    assert f"python examples/{path.name}" in source
    assert f'recipe("{path.stem}")' in Path(__file__).read_text(encoding="utf-8")


def test_the_classifier_learns_something_of_order():
    assert recipe("packed_classifier")["main"](steps=180, texts=64, length=64) > 0.8


def test_the_sweep_trains_every_member(tmp_path):
    losses = recipe("sweep")["main"](steps=12, seeds=2, batch=8, time=6, out=tmp_path / "sweep.png")
    assert losses.shape == (5, 2, 12)
    assert np.isfinite(losses).all()
    assert len({float(loss) for loss in losses[:, :, -1].ravel()}) == 10  # each has its own rate and seed
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_the_agent_remembers_which_arm():
    assert recipe("recurrent_ppo")["main"](updates=12, envs=64) > 0.8


def test_the_decoder_writes_some_dates(tmp_path):
    seq2seq = recipe("seq2seq")
    assert seq2seq["main"](steps=2, batch=8, out=tmp_path / "attention.png") >= 0
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_translating_step_by_step_decodes_as_training_does(tmp_path):
    seq2seq = recipe("seq2seq")
    _, (source, lengths, _) = seq2seq["draw"](np.random.default_rng(0), 4)
    params = seq2seq["model"].init(jax.random.key(0), source, lengths, np.zeros((4, 10), np.int32))
    tokens, weights = seq2seq["translate"](params, source, lengths)
    logits = seq2seq["model"].apply(params, source, lengths, tokens)
    np.testing.assert_array_equal(logits.argmax(axis=-1), tokens)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert all((row[:, length:] == 0).all() for row, length in zip(np.asarray(weights), lengths))


def test_the_forecaster_beats_the_week_before(tmp_path):
    net, naive, below = recipe("quantile_forecast")["main"](steps=100, batch=32, out=tmp_path / "forecast.png")
    assert net < naive
    assert (np.diff(below) >= 0).all()
    assert (tmp_path / "forecast.png").read_bytes().startswith(b"\x89PNG")


def test_the_exported_monitor_finds_the_wrong_value_where_rnnx_is_not_installed(tmp_path):
    found = recipe("streaming")["main"](steps=100, out=tmp_path / "step.jax")
    assert any("client1" in alarm for alarm in found)
    block = "import sys; sys.modules.update(rnnx=None, flax=None); sys.argv[1:] = ['--serve', 'step.jax']; "
    path = next(path for path in EXAMPLES if path.stem == "streaming")
    command = [sys.executable, "-c", f"{block}import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"]
    lines = "a 0.1\nb 0.5\na 0.2\na 99\n"
    served = subprocess.run(command, cwd=tmp_path, input=lines, capture_output=True, text=True, check=True)
    assert served.stdout.startswith("line 4: a sent 99.00")
