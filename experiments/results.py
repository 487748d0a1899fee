"""As `experiments.runs`, for experiments whose config is still one flat dataclass."""

from collections.abc import Callable
from pathlib import Path

from experiments import runs
from experiments.runs import count, finish

__all__ = ["count", "finish", "show_finished"]


def show_finished(run_dir: Path, show: Callable[[], None]) -> bool:
    return runs.show_finished(run_dir, lambda _: show())
