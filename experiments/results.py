"""How a run ends: results.json, written last of all."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments import config as configs
from experiments.environment import environment
from experiments.errors import UserError


def finish(run_dir: Path, scores: Mapping[str, float], *, seed: int, seconds: float, **more: Any) -> None:
    """Writes results.json, the mark of a finished run; a run whose scores are no numbers is not finished.

    Args:
        run_dir: folder of the run.
        scores: what the run is judged by, a few numbers: `experiments.report` makes a row of each.
        seed: of the run.
        seconds: that it took, evaluations and compilation included.
        more: whatever else is worth keeping, as JSON takes it.
    """
    scores = {name: float(value) for name, value in scores.items()}
    broken = {name: value for name, value in scores.items() if not math.isfinite(value)}
    if broken or not scores:
        raise UserError(
            f"The run in {run_dir} has no score: {broken or 'none was given'}. Nothing was written; look at its "
            "metrics.jsonl, and begin a new run with another --run-dir."
        )
    results = {"scores": scores, "seed": seed, "seconds": round(seconds, 1), **more, "environment": environment()}
    configs.write_json(run_dir / "results.json", results)


def show_finished(run_dir: Path, show: Callable[[], None]) -> bool:
    """Whether the run is finished; then `show` prints its results."""
    path = run_dir / "results.json"
    if not path.exists():
        return False
    configs.read_results(path)
    print(f"{run_dir} is finished; its results:\n")
    with configs.showing(path, "Remove it, and the same command makes it again from the checkpoints."):
        show()
    return True


def count(params: Any) -> int:
    """Numbers in all."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
