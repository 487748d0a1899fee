"""A disk that is full, or files that may not grow: what was kept is told, and the same command goes on afterwards."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments import files, runs
from experiments.errors import UserError
from experiments.loop import Fitted, Plan, fit


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may have more bytes than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = 20_000
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def training(folder: Path) -> Fitted[dict[str, jax.Array]]:
    """Six steps, with a checkpoint after every second one; the state does not shrink when it is compressed."""

    def initial_state() -> dict[str, jax.Array]:
        return {"step": jnp.zeros((), jnp.int32), "x": jax.random.normal(jax.random.key(0), (20_000,))}

    def step(state: dict[str, jax.Array], data: None) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        return {"step": state["step"] + 1, "x": state["x"] * 0.9}, {"loss": state["x"].mean()}

    plan = Plan(steps=6, eval_every=2, log_every=1, monitor="loss")
    folder.mkdir(exist_ok=True)
    return fit(folder, initial_state, step, None, lambda state: {"loss": float(state["x"].std())}, plan, {})


def test_files_that_may_not_grow(tmp_path: Path, small_files: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (small_files, hard))
    with pytest.raises(
        UserError, match=r"Stopped at step \d: File too large\. Make room.*No checkpoint was saved yet in"
    ):
        training(tmp_path / "run")
    files.write_json(tmp_path / "whole.json", {"a": 1})
    for write in (files.write_json, lambda path, value: files.write_text(path, str(value))):
        with pytest.raises(OSError, match=r"whole\.json"):
            write(tmp_path / "whole.json", "x" * 2 * small_files)
    assert files.read_json(tmp_path / "whole.json") == {"a": 1}
    assert not list(tmp_path.glob("*.partial"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert training(tmp_path / "run").last_step == 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 230 kB; where none can be made, as who is not root cannot, a folder of any size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=230k", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    undisturbed = training(tmp_path / "undisturbed")
    if small_disk.is_mount():
        with pytest.raises(
            UserError, match=r"No space left on device\..*The checkpoint of step [24] is kept in"
        ) as told:
            training(small_disk / "run")
        assert str(small_disk / "run" / "checkpoints") in str(told.value)
        subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    resumed = training(small_disk / "run")
    assert resumed.last_step == 6
    assert (resumed.best["x"] == undisturbed.best["x"]).all()
    runs.finish(small_disk / "run", {"loss": 1.0}, seed=0, seconds=1.0)
    if small_disk.is_mount():
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(UserError, match=r"--run-dir .* cannot be used: .*Read-only file system\. Give a place"):
            runs.begin_or_resume(small_disk / "other", {}, {})
        shown: list[Path] = []
        assert runs.show_finished(small_disk / "run", shown.append)  # which needs no more than to read
        assert shown
