"""Several cells under one config: their losses, and what each of them writes."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from experiments import config as configs
from experiments import locks, results
from experiments.char_lm.scoring import MONITOR
from experiments.char_lm.settings import COMMAND, Cell
from experiments.char_lm.training import train
from experiments.errors import UserError
from experiments.logs import read_metrics


@dataclasses.dataclass(frozen=True)
class Compare:
    """Trains each cell with the same settings; what follows `--` overrides these."""

    config: Annotated[Path, tyro.conf.Positional]
    """The config file."""
    cells: tuple[Cell, ...] = get_args(Cell)
    """Which cells."""
    seed: int = 0
    """Of all of them."""
    run_dir: Path | None = None
    """Folder, with one for each cell in it; default runs/char_lm/<config's name>-compared-seed<seed>."""


def compare(args: Sequence[str]) -> None:
    split = args.index("--") if "--" in args else len(args)
    options, overrides = configs.parse(Compare, args[:split], command=f"{COMMAND} compare"), args[split + 1 :]
    if len(set(options.cells)) < len(options.cells) or not options.cells:
        raise UserError(f"--cells is {' '.join(options.cells) or 'empty'}, but must name each cell once.")
    run_dir = options.run_dir or Path("runs/char_lm") / f"{options.config.stem}-compared-seed{options.seed}"
    run_dir.mkdir(parents=True, exist_ok=True)
    locks.hold(run_dir / "lock", str(run_dir))
    runs: dict[str, Any] = {}
    for cell in options.cells:
        given = ["--cell", cell, "--seed", str(options.seed), "--run-dir", str(run_dir / cell)]
        train([str(options.config), *overrides, *given])
        runs[cell] = configs.read_results(run_dir / cell / "results.json")
    curves(run_dir, runs)
    configs.write_text(run_dir / "samples.md", samples(run_dir, runs))
    metric = next(iter(next(iter(runs.values()))["scores"]))
    results.finish(
        run_dir,
        {f"{cell}_{metric}": run["scores"][metric] for cell, run in runs.items()},
        seed=options.seed,
        seconds=sum(run["seconds"] for run in runs.values()),
        parameters={cell: run["parameters"] for cell, run in runs.items()},
        quality={cell: run["quality"] for cell, run in runs.items()},
    )
    print(f"\n{table(runs)}\n\nCurves: {run_dir / 'learning_curves.png'}; what each wrote: {run_dir / 'samples.md'}")


def table(runs: Mapping[str, Any]) -> str:
    """The losses, and the quality of what was written; last that of the text which was held out."""
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


def curves(run_dir: Path, runs: Mapping[str, Any]) -> None:
    """Draws the validations of all cells into one picture, the best one first in the legend."""
    from experiments import plots  # not at the top: a second of start-up

    figure, axes = plots.plt.subplots(figsize=(8, 4.5), layout="constrained")
    for cell in sorted(runs, key=lambda cell: next(iter(runs[cell]["scores"].values()))):
        rows = [row for row in read_metrics(run_dir / cell) if MONITOR in row]
        (nats,) = runs[cell]["scores"].values()
        axes.plot(
            [row["step"] for row in rows],
            [row[MONITOR] for row in rows],
            marker="o",
            markersize=3,
            label=f"{cell}: {nats:.3f} with {runs[cell]['parameters']:,} parameters",
        )
    (metric,) = next(iter(runs.values()))["scores"]
    axes.set(xlabel="step", ylabel=metric.replace("_", " "), title=f"{run_dir.name}: validation, and final score")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(run_dir / "learning_curves.png", dpi=150)
    plots.plt.close(figure)
