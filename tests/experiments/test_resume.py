"""Exact resume: whatever stops a run, the same command ends with the same bits."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from processes import EVAL_EVERY, STEPS, train, wait_until

from experiments.logs import read_metrics
from soak import EXPERIMENTS, Soak, bits


def finish(corpus: Path, run_dir: Path) -> str:
    process = train(corpus, run_dir)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def logged(run_dir: Path, step: int) -> Callable[[], bool]:
    return lambda: any(row["step"] >= step for row in read_metrics(run_dir))


def test_killed_at_any_moment_with_damaged_checkpoints(tmp_path: Path) -> None:
    """The soak, for a moment, with a seed by which it kills while saving, starting and training."""
    shorter = EXPERIMENTS["char_lm"].replace(
        "--steps 600 --eval-every 60", f"--steps {STEPS} --eval-every {EVAL_EVERY}"
    )
    tally = Soak(3, 26, {"char_lm": shorter}, 1, tmp_path).run()
    assert not tally.mismatches
    assert tally.kills == 3
    assert tally.damaged


def test_signals_save_and_exit_cleanly(corpus: Path, tmp_path: Path, finished: tuple[Path, str]) -> None:
    run_dir = tmp_path / "run"
    saved = []
    for number, after in ((signal.SIGINT, 25), (signal.SIGTERM, 75)):
        process = train(corpus, run_dir)
        wait_until(logged(run_dir, after), process)
        os.kill(process.pid, number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert f"{number.name}: saved step" in output
        assert "same command resumes" in output
        saved.append(int(output.split("saved step ")[1].split()[0]))
        assert after <= saved[-1] < STEPS
        assert (run_dir / "checkpoints" / str(saved[-1])).is_dir()
    assert f"from step {saved[0]}" in output

    assert f"from step {saved[1]}" in finish(corpus, run_dir)
    newest = [run / "checkpoints" / str(STEPS) / "state" for run in (run_dir, finished[0])]
    assert bits(newest[0]) == bits(newest[1])
    steps = [row["step"] for row in read_metrics(run_dir) if "loss" in row]
    assert steps == sorted({*range(5, STEPS + 1, 5), *saved})
