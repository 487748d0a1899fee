"""Runs of the real configs, made small, for the tests that look at what they leave behind."""

import random
from pathlib import Path

import pytest
from processes import train


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of a few words: enough structure for a loss that falls."""
    draw = random.Random(0)
    words = ["the", "cat", "dog", "sees", "hears", "a", "bird", "tree", "and"]
    lines = (" ".join(draw.choices(words, k=6)).capitalize() + ".\n" for _ in range(300))
    path = tmp_path_factory.mktemp("corpus") / "tiny.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run that nothing disturbed."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    process = train(corpus, run_dir)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return run_dir, output
