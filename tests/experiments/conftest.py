"""Runs of the real configs, made small, for the tests that look at what they leave behind."""

from pathlib import Path

import pytest
from processes import train

from soak import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny.txt")


@pytest.fixture(scope="session")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run that nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    process = train(corpus, run_dir)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return run_dir, output
