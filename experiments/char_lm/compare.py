"""Compares several cells under one config: their losses, and a text that each writes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from experiments import locks, runs
from experiments.char_lm import train
from experiments.char_lm.config import MONITOR, Cell
from experiments.config import parse
from experiments.files import write_text
from experiments.settings import Natural, check_names


@dataclasses.dataclass(frozen=True)
class Compare:
    """Trains each cell with the same settings; those after `--` override the config."""

    config: Annotated[Path, tyro.conf.Positional]
    """The config file."""
    cells: tuple[Cell, ...] = get_args(Cell)
    """The cells to compare."""
    seed: Natural = 0
    """The seed that all cells share."""
    run_dir: Path | None = None
    """Folder, which holds one for each cell; default runs/char_lm/<config's name>-compared-seed<seed>."""


def main(args: Sequence[str]) -> None:
    split = args.index("--") if "--" in args else len(args)
    overrides = args[split + 1 :]
    options = parse(Compare, args[:split], command="python -m experiments.char_lm compare")
    check_names("cells", options.cells)
    run_dir = options.run_dir or Path("runs/char_lm") / f"{options.config.stem}-compared-seed{options.seed}"
    run_dir.mkdir(parents=True, exist_ok=True)
    locks.hold(run_dir / "lock", str(run_dir))
    finished: dict[str, Any] = {}
    for cell in options.cells:
        given = ["--cell", cell, "--seed", str(options.seed), "--run-dir", str(run_dir / cell)]
        train.main([str(options.config), *overrides, *given])
        finished[cell] = runs.read_results(run_dir / cell / "results.json")
    draw_curves(run_dir, finished)
    write_text(run_dir / "samples.md", samples(run_dir, finished))
    metric = next(iter(next(iter(finished.values()))["scores"]))
    runs.finish(
        run_dir,
        {f"{cell}_{metric}": run["scores"][metric] for cell, run in finished.items()},
        seed=options.seed,
        seconds=sum(run["seconds"] for run in finished.values()),
        parameters={cell: run["parameters"] for cell, run in finished.items()},
        quality={cell: run["quality"] for cell, run in finished.items()},
    )
    print(
        f"\n{table(finished)}\n\nCurves: {run_dir / 'learning_curves.png'}; what each wrote: {run_dir / 'samples.md'}"
    )


def draw_curves(run_dir: Path, runs: Mapping[str, Any]) -> None:
    """The validation losses of all cells, the best one first in the legend."""
    from experiments.plots import validation_curves  # not at the top: a second of start-up

    run_dirs = {}
    for cell in sorted(runs, key=lambda cell: next(iter(runs[cell]["scores"].values()))):
        ((metric, nats),) = runs[cell]["scores"].items()
        run_dirs[f"{cell}: {nats:.3f} with {runs[cell]['parameters']:,} parameters"] = run_dir / cell
    title = f"{run_dir.name}: validation, and final score"
    path = run_dir / "learning_curves.png"
    validation_curves(path, run_dirs, MONITOR, xlabel="step", ylabel=metric.replace("_", " "), title=title)


def table(runs: Mapping[str, Any]) -> str:
    """The losses and the quality of each sample; the last row is the quality of the held-out text."""
    lines = [f"{'cell':<10}{'nats':>8}{'parameters':>12}{'seconds':>9}{'known words':>13}{'distinct':>10}{'copied':>8}"]
    for cell, run in runs.items():
        (nats,) = run["scores"].values()
        head = f"{cell:<10}{nats:>8.4f}{run['parameters']:>12,}{run['seconds']:>9.0f}"
        lines.append(head + of_quality(run["quality"]["sample"]))
    last = list(runs.values())[-1]
    lines.append(f"{'held out':<39}" + of_quality(last["quality"]["held_out"]))
    return "\n".join(lines)


def of_quality(row: Mapping[str, float]) -> str:
    return f"{row['known_words']:>13.1%}{row['distinct_words']:>10.1%}{row['longest_copy']:>8}"


def samples(run_dir: Path, runs: Mapping[str, Any]) -> str:
    """A page with what each cell wrote."""
    written = [f"# {run_dir.name}\n\n```\n{table(runs)}\n```\n"]
    for cell in runs:
        text = (run_dir / cell / "sample.txt").read_text(encoding="utf-8")
        written.append(f"## {cell}\n\n```\n{text}\n```\n")
    return "\n".join(written)
