"""Runs of the real configs, made small, for the tests that look at what they leave behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
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


@pytest.fixture(scope="module")
def draw_quickly() -> Iterator[None]:
    """Plots that no one looks at, small and without their layout."""
    savefig = Figure.savefig

    def save_small(figure: Figure, *args: Any, dpi: float, **options: Any) -> None:
        savefig(figure, *args, dpi=20 if dpi == 150 else dpi, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_small)
        patch.setattr(Figure, "set_layout_engine", lambda *args, **options: None)
        yield
