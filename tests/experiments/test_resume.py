"""Exact resume: whatever stops a run, the same command ends with the same bits."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from processes import EVAL_EVERY, STEPS, assert_identical, copy_unreported, damage, final_state, train, wait_until

from experiments.logs import read_metrics


def finish(corpus: Path, run_dir: Path) -> str:
    process = train(corpus, run_dir)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def assert_same_run(corpus: Path, run_dir: Path, undisturbed: Path) -> None:
    assert_identical(final_state(corpus, run_dir), final_state(corpus, undisturbed))
    assert read_metrics(run_dir) == read_metrics(undisturbed)
    scores = [
        json.loads((run / "results.json").read_text(encoding="utf-8"))["scores"]["val_nats_per_char"]
        for run in (run_dir, undisturbed)
    ]
    assert scores[0] == scores[1]


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def logged(run_dir: Path, step: int) -> Callable[[], bool]:
    return lambda: any(row["step"] >= step for row in read_metrics(run_dir))


def test_killed_again_and_again(corpus: Path, tmp_path: Path, finished: tuple[Path, str]) -> None:
    run_dir = tmp_path / "run"
    checkpoints = run_dir / "checkpoints"

    # Before there is any checkpoint.
    process = train(corpus, run_dir)
    wait_until(logged(run_dir, 5), process)
    kill(process)

    # During the writing of a checkpoint: what is written stands in a folder of its own until it is
    # whole. The moment is short, so that it takes an attempt or two.
    for _ in range(6):
        process = train(corpus, run_dir)
        before = set(checkpoints.glob("*tmp*"))
        wait_until(lambda before=before: bool(set(checkpoints.glob("*tmp*")) - before), process)
        kill(process)
        if list(checkpoints.glob("*tmp*")):
            break
    assert list(checkpoints.glob("*tmp*"))

    # Between two checkpoints, some way after the first one that this process finished.
    process = train(corpus, run_dir)
    newest = max([0, *(int(path.name) for path in checkpoints.glob("[0-9]*") if path.name.isdigit())])
    wait_until(lambda: (checkpoints / str(newest + EVAL_EVERY)).exists(), process)
    wait_until(logged(run_dir, newest + EVAL_EVERY + 5), process)
    kill(process)

    output = finish(corpus, run_dir)
    assert "Resuming" in output
    assert not list(checkpoints.glob("*tmp*"))
    assert_same_run(corpus, run_dir, finished[0])


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
    assert_identical(final_state(corpus, run_dir), final_state(corpus, finished[0]))
    steps = [row["step"] for row in read_metrics(run_dir) if "loss" in row]
    assert steps == sorted({*range(5, STEPS + 1, 5), *saved})


def test_a_damaged_newest_checkpoint_is_passed_over(corpus: Path, tmp_path: Path, finished: tuple[Path, str]) -> None:
    undisturbed = finished[0]
    run_dir = copy_unreported(undisturbed, tmp_path / "run")
    damage(run_dir / "checkpoints" / str(STEPS))
    output = finish(corpus, run_dir)
    assert f"Checkpoint {STEPS} is damaged" in output
    assert f"Falling back to the previous good checkpoint, step {STEPS - EVAL_EVERY}" in output
    assert list((run_dir / "damaged_checkpoints").iterdir())
    assert_same_run(corpus, run_dir, undisturbed)
