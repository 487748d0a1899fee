"""The character model as a process of its own, on a config of the project made small."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.char_lm import CharLM
from experiments.char_lm.model import make_model
from experiments.char_lm.train import initial_state
from experiments.checkpoints import Checkpoints
from experiments.settings import replace

ROOT = Path(__file__).parents[2]
STEPS = 160
EVAL_EVERY = 20
TINY = (
    f"--steps {STEPS} --eval-every {EVAL_EVERY} --log-every 5 --warmup 10 --patience 0 --width 8 --embed 4 --batch 2 "
    "--time 8 --train-fraction 0.9 --eval-rows 4 --eval-chars 400 --eval-warmup 16 --sample-length 40"
).split()


def arguments(corpus: Path, run_dir: Path, *overrides: str) -> list[str]:
    config = str(ROOT / "configs/char_lm/kjv.py")
    return [config, *TINY, "--corpus", str(corpus), "--run-dir", str(run_dir), *overrides]


def start(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.char_lm", *args]
    # Most of the time of so small a run goes into making its code fast.
    env = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train(corpus: Path, run_dir: Path, *overrides: str) -> subprocess.Popen[str]:
    return start(*arguments(corpus, run_dir, *overrides))


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Looks as often as it can: what is waited for may last a few milliseconds."""
    deadline = time.monotonic() + 90
    while not happened():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def final_state(corpus: Path, run_dir: Path, batch: int = 2) -> Any:
    """All of the newest checkpoint: weights, optimiser, average, carry, key and step."""
    config = replace(CharLM(), width=8, embed=4, batch=batch, time=8)
    model = make_model(config, len(set(corpus.read_text(encoding="utf-8"))))
    like = jax.eval_shape(lambda: initial_state(config, model))
    restored = Checkpoints(run_dir / "checkpoints", monitor="val_loss").resume(like)
    assert restored is not None
    return restored.state


def assert_identical(a: Any, b: Any) -> None:
    """Bit by bit."""

    def compare(x: jax.Array, y: jax.Array) -> None:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()

    jax.tree.map(compare, a, b)


def copy_unreported(source: Path, target: Path) -> Path:
    """A copy of a finished run as it stood just before its report."""
    shutil.copytree(source, target)
    (target / "results.json").unlink()
    return target


def damage(checkpoint: Path) -> None:
    """Turns a few bits of its arrays round."""
    files = [path for path in (checkpoint / "state").rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
