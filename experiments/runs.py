"""The folder of a run: config.json and environment.json when it begins, results.json when it ends."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax

from experiments import locks
from experiments.environment import environment
from experiments.errors import UserError, explained
from experiments.files import read_json, showing, write_json
from experiments.settings import Experiment, check_types, flat, hints, is_number, replace

Config = TypeVar("Config", bound=Experiment)


def open_run_dir(config: Experiment, **inputs: str) -> Path:
    """Makes the folder of the run and returns it; it must not hold another run.

    A run resumes only with the settings that it began with: otherwise no single command could reproduce it. config.json
    keeps the settings, together with `inputs`, the digests of what the run reads. Each setting is stored under its own
    name, without its group, so a setting can move to another group without affecting runs.
    """
    run_dir = config.run.run_dir
    assert run_dir is not None, "experiments.config.load sets it"
    begin_or_resume(run_dir, {**saved_settings(config), **inputs}, config.added)
    return run_dir


def saved_settings(config: Any) -> dict[str, Any]:
    """The settings that define a run, as JSON returns them; the run folder is not one of them."""
    settings = {name: value for name, value in flat(config).items() if name != "run_dir"}
    return json.loads(json.dumps(settings, default=str))


def begin_or_resume(run_dir: Path, settings: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    """`added`: settings introduced later, with the values that older runs, begun without them, had."""
    path = run_dir / "config.json"
    if not (run_dir / "results.json").exists():
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            locks.hold(run_dir / "lock", str(run_dir))
        except OSError as error:
            raise UserError(f"--run-dir {run_dir} cannot be used: {explained(error)}") from None
    rest = [name for name in ("results.json", "checkpoints", "metrics.jsonl") if (run_dir / name).exists()]
    if rest and not path.exists():
        raise UserError(
            f"{run_dir} holds {rest[0]}, but its config.json is gone. Restore it from a backup, or give another "
            "--run-dir."
        )
    if path.exists():
        changed = differences({**added, **read_json(path)}, settings)
        if changed:
            raise UserError(
                f"{run_dir} holds a run with other settings:\n{changed}\n"
                "Give the saved settings to go on with that run, or another --run-dir to begin a new one."
            )
        _note_environment(run_dir / "environment.json")
        return
    write_json(run_dir / "environment.json", environment())
    write_json(path, settings)  # last, because it marks the folder as a run's


def _note_environment(path: Path) -> None:
    """Prints what has changed since the run began: other versions and devices may round differently."""
    began = read_json(path) if path.exists() else {}
    now = environment()
    changed = [f"{name} {value} (now {now[name]})" for name, value in began.items() if now.get(name, value) != value]
    if changed:
        print(
            f"This run was begun with {', '.join(changed)}: it goes on, but its numbers may differ in the last bits.",
            flush=True,
        )


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """A line for each setting that differs, empty if none does."""
    absent = object()

    def show(value: Any) -> str:
        return "absent" if value is absent else json.dumps(value, ensure_ascii=False)

    return "\n".join(
        f"  {name}: saved {show(saved.get(name, absent))}, given {show(given.get(name, absent))}"
        for name in sorted({*saved, *given})
        if saved.get(name, absent) != given.get(name, absent)
    )


def saved_config(run_dir: Path, kind: type[Config]) -> Config:
    """The config of a run, from the flat list of settings in its config.json."""
    path = run_dir / "config.json"
    saved = {**kind.added, **read_json(path)}
    names = [name for name in hints(kind) if name != "run_dir"]
    missing = [name for name in names if name not in saved]
    if missing:
        raise UserError(
            f"{path} has no {', '.join(missing)}: it is not the config of a {kind.__name__}. Restore it from a backup."
        )
    tuples = {name: tuple(value) for name, value in saved.items() if isinstance(value, list)}
    config = replace(kind(), **{name: {**saved, **tuples}[name] for name in names})
    check_types(config, f"{path}: ")
    return config


def finish(run_dir: Path, scores: Mapping[str, float], *, seed: int, seconds: float, **more: Any) -> None:
    """Writes results.json, which marks a run as finished; a run whose scores are not finite is not finished.

    Args:
        run_dir: folder of the run.
        scores: the few numbers that the run is judged by; `experiments.report` makes a row of each.
        seed: the seed of the run.
        seconds: how long it took, evaluations and compilation included.
        more: anything else worth keeping, as values that JSON can hold.
    """
    scores = {name: float(value) for name, value in scores.items()}
    broken = {name: value for name, value in scores.items() if not math.isfinite(value)}
    if broken or not scores:
        raise UserError(
            f"The run in {run_dir} has no score: {broken or 'none was given'}. Nothing was written; look at its "
            "metrics.jsonl, and begin a new run with another --run-dir."
        )
    results = {"scores": scores, "seed": seed, "seconds": round(seconds, 1), **more, "environment": environment()}
    write_json(run_dir / "results.json", results)


def read_results(path: Path) -> dict[str, Any]:
    """The results.json of a finished run, checked: its scores must be finite numbers."""
    run = read_json(path)
    scores = run.get("scores")
    numbers = list(scores.values()) if isinstance(scores, dict) else []
    if not numbers or "seed" not in run or not all(map(is_number, [*numbers, run.get("seconds")])):
        raise UserError(
            f"{path} is not that of a finished run: it must hold scores, seed and seconds. Restore it from a "
            "backup; or remove it, and the same command writes it again."
        )
    return run


def show_finished(run_dir: Path, show: Callable[[Path], None]) -> bool:
    """Whether the run is finished; if it is, `show` prints its results."""
    path = run_dir / "results.json"
    if not path.exists():
        return False
    read_results(path)
    print(f"{run_dir} is finished; its results:\n")
    with showing(path, "Remove it, and the same command makes it again from the checkpoints."):
        show(run_dir)
    return True


def count(params: Any) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
