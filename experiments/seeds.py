"""Runs one config with several seeds, on all cores at once: a process for each seed, each on its own core.

python -m experiments.seeds EXPERIMENT configs/EXPERIMENT/CONFIG.py --seeds 0 1 2 [--record] [-- overrides]

The matrices of a recurrent net are small: two seeds, each on its own core, take about as long as one, while one seed on
two cores is hardly faster. Finished seeds are not run again; a stopped one resumes.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.live import Live
from rich.table import Table

from experiments import command, locks
from experiments.__main__ import experiments
from experiments.config import parse
from experiments.errors import UserError
from experiments.files import write_text
from experiments.report import RECORDS
from experiments.runs import read_results

CORES = tuple(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0])


@dataclasses.dataclass(frozen=True)
class Options:
    """Runs a config with several seeds; what follows `--` goes to the experiment."""

    experiment: Annotated[str, tyro.conf.Positional]
    """As in python -m experiments.EXPERIMENT."""
    config: Annotated[Path, tyro.conf.Positional]
    """The config file."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds to run."""
    cores: tuple[int, ...] = CORES
    """The cores to use, with one seed at a time on each."""
    record: bool = False
    """Copy each results.json to experiments/records/, from which the table in docs/results.md is made."""


@dataclasses.dataclass
class Run:
    seed: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    core: int = -1

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def finished(self) -> bool:
        path = self.folder / "results.json"
        return path.exists() and bool(read_results(path))

    def last_line(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return next((line for line in reversed(lines) if line.strip()), "")


def start(run: Run, options: Options, overrides: Sequence[str], core: int) -> None:
    line = [sys.executable, "-m", f"experiments.{options.experiment}", str(options.config), *overrides]
    line += ["--seed", str(run.seed), "--run-dir", str(run.folder)]
    with run.log.open("wb") as log:
        run.process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(run.process.pid, {core})
    run.core = core


def status_table(runs: list[Run]) -> Table:
    table = Table("seed", "", "last line")
    for run in runs:
        state = "finished" if run.finished else "running" if run.process else "waiting"
        table.add_row(str(run.seed), state, run.last_line()[:100])
    return table


def check(options: Options) -> None:
    known = [name for name in experiments() if name != "speed"]
    if options.experiment not in known:
        raise UserError(f"There is no experiment {options.experiment!r}; there are {', '.join(known)}.")
    if not options.config.is_file():
        raise UserError(f"There is no config file {options.config}.")
    for setting, given in (("seeds", options.seeds), ("cores", options.cores)):
        if len(set(given)) < len(given) or not given:
            got = " ".join(map(str, given)) or "empty"
            raise UserError(f"--{setting} is {got}, but must have one number or more, each once.")
    if min(options.seeds) < 0:
        raise UserError(f"--seeds is {' '.join(map(str, options.seeds))}, but each must be 0 or more.")
    absent = sorted(set(options.cores) - set(CORES))
    if absent:
        raise UserError(f"--cores has {absent}, but this process may use {sorted(CORES)}.")


def main(args: Sequence[str]) -> None:
    split = args.index("--") if "--" in args else len(args)
    options, overrides = parse(Options, args[:split], command="python -m experiments.seeds"), args[split + 1 :]
    check(options)
    name = options.config.stem
    runs = [Run(seed, Path("runs") / options.experiment / f"{name}-seed{seed}") for seed in options.seeds]
    for run in runs:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        locks.hold(run.log.with_suffix(".log.lock"), f"{run.log}")
    waiting, free = [run for run in runs if not run.finished], list(options.cores)
    with Live(status_table(runs), transient=True) as live:
        try:
            while waiting or any(run.process and run.process.poll() is None for run in runs):
                for run in runs:
                    if run.process and run.process.poll() is not None and run.core >= 0:
                        free.append(run.core)
                        run.core = -1
                while waiting and free:
                    start(waiting.pop(0), options, overrides, free.pop(0))
                live.update(status_table(runs))
                time.sleep(0.5)
        finally:
            for run in runs:
                if run.process and run.process.poll() is None:
                    run.process.terminate()  # it saves, and the same command resumes it
                    run.process.wait()
            live.update(status_table(runs))
    broken = [run for run in runs if not run.finished]
    if broken:
        raise UserError(
            "\n\n".join(f"Seed {run.seed} did not finish: {run.last_line()}\n({run.log})" for run in broken)
        )
    for run in runs:
        print(f"seed {run.seed}: {run.folder / 'results.json'}")
        if options.record:
            recorded = RECORDS / options.experiment / f"{name}-seed{run.seed}.json"
            recorded.parent.mkdir(parents=True, exist_ok=True)
            write_text(recorded, (run.folder / "results.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    command.run(main)
