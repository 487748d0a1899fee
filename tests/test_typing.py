"""Type checkers find wrong arguments in a user's program, and nothing to say of a right one."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = [ROOT / "tests" / "typing" / name for name in ("right.py", "wrong.py")]
WRONG = {i for i, line in enumerate(PROGRAMS[1].read_text(encoding="utf-8").splitlines(), 1) if "  # wrong" in line}


def run(*command):
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout


def by_mypy():
    printed = run("mypy", "--config-file=", "--ignore-missing-imports", *map(str, PROGRAMS))
    return re.findall(r"(right|wrong)\.py:(\d+): error: ", printed), printed


def by_pyright():
    printed = run("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, PROGRAMS))
    found = json.loads(printed)["generalDiagnostics"]
    errors = [(Path(e["file"]).stem, e["range"]["start"]["line"] + 1) for e in found if e["severity"] == "error"]
    return errors, printed


@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_wrong_arguments_are_errors_and_right_ones_are_not(check):
    errors, printed = check()
    assert len(WRONG) >= 15
    assert {int(line) for name, line in errors if name == "wrong"} == WRONG, printed
    assert not [line for name, line in errors if name == "right"], printed


def test_the_right_program_runs():
    with jax.numpy_rank_promotion("allow"):
        assert runpy.run_path(str(PROGRAMS[0]))["out"].ndim == 3
