"""rnnx measured beside other libraries; what is measured, and how: `experiments/speed/__init__.py`.

python -m experiments.speed --quick
python -m experiments.speed --json FILE
python -m experiments.speed --read FILE
JAX_PLATFORMS=cuda python -m experiments.speed --json FILE
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # before JAX is imported

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from experiments import command, config
from experiments.errors import UserError
from experiments.files import showing
from experiments.speed import linear, nets, own, peers, report
from experiments.speed.measure import Case, Row
from experiments.speed.shapes import (
    CELLS,
    LINEAR,
    QUICK_CASES,
    QUICK_SECTIONS,
    SECTIONS,
    SHAPES,
    Plan,
    parse,
)

CASES: dict[str, Callable[[Plan], list[Case]]] = {
    "nets": nets.cases,
    "stream": nets.stream_cases,
    "linear": linear.cases,
    "growth": own.growth_cases,
    "memory": own.memory_cases,
    "compile": own.compile_cases,
    "devices": own.device_cases,
}
Section = Literal["nets", "stream", "linear", "growth", "memory", "compile", "devices"]
CellName = Literal["elman", "lstm", "gru"]
LibraryName = Literal["rnnx", "rnnx scan", "linen", "nnx", "haiku", "equinox", "keras", "torch"]
assert tuple(CASES) == SECTIONS


@dataclasses.dataclass(frozen=True)
class Speed:
    """Measures rnnx beside every peer that is installed, on the CPU; on a GPU with JAX_PLATFORMS=cuda."""

    quick: bool = False
    """Fewer cases for a shorter time: below a minute on two cores."""
    only: tuple[Section, ...] = ()
    """Sections to measure. Default: all; with --quick nets and linear."""
    shapes: tuple[str, ...] = ()
    """Shapes of the nets, as batch,time,features,width. Default: those of the bars."""
    cells: tuple[CellName, ...] = ()
    """Cells to measure. Default: all."""
    libraries: tuple[LibraryName, ...] = ()
    """Libraries to measure. Default: all that are installed. rnnx itself is always included."""
    budget: float | None = None
    """Seconds of timing for each case, compiling not counted. Default: 20, with --quick 1."""
    rounds: int = 3
    """Least number of rounds for each case, however long they take."""
    json: Path | None = None
    """File to write: a list with one object per measurement."""
    png: Path = Path("runs/speed/speed.png")
    """The picture of nets and linear recurrences."""
    read: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Measure nothing, and show a file that --json wrote."""


def make_plan(options: Speed, console: Console) -> Plan:
    if options.rounds < 1:
        raise UserError(f"--rounds is {options.rounds}, but must be 1 or more.")
    if options.budget is not None and options.budget < 0:
        raise UserError(f"--budget is {options.budget}, but must be 0 or more.")
    cells = options.cells or (("lstm",) if options.quick else CELLS)
    every = tuple((cell, parse(shape)) for shape in options.shapes for cell in options.cells or CELLS)
    if not every:
        known = QUICK_CASES if options.quick else [(cell, shape) for shape in SHAPES for cell in CELLS]
        every = tuple((cell, shape) for cell, shape in known if not options.cells or cell in options.cells)
    asked = [name for name in peers.LIBRARIES if name in (options.libraries or peers.LIBRARIES) or name == "rnnx"]
    every_section = tuple(name for name in SECTIONS if name != "devices" or jax.default_backend() == "cpu")
    sections: tuple[str, ...] = options.only or (QUICK_SECTIONS if options.quick else every_section)
    expected = {name: peers.LIBRARIES[name] for name in asked} if {"nets", "stream"} & set(sections) else {}
    if "linear" in sections:
        expected["memax"] = peers.MEMAX
    for name, library in expected.items():
        if not peers.installed(library):
            console.print(f"[yellow]{name} is not installed and left out: pip install {library.pip}[/]")
    libraries = tuple(name for name in asked if peers.installed(peers.LIBRARIES[name]))
    budget = options.budget if options.budget is not None else 1.0 if options.quick else 20.0
    return Plan(sections, every, cells, libraries, LINEAR[2:] if options.quick else LINEAR, budget, options.rounds)


def measure(plan: Plan, console: Console, keep: Callable[[list[Row]], None]) -> list[Row]:
    cases = [case for section in plan.sections for case in CASES[section](plan)]
    rows: list[Row] = []
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        whole = progress.add_task("all", total=len(cases))
        part = progress.add_task("", total=1.0)
        for case in cases:
            progress.update(part, description=f"{case.section}: {case.label}", completed=0.0)
            jax.clear_caches()
            gc.collect()
            found = case.measure(lambda done: progress.update(part, completed=done))
            report.print_rows(progress.console, found)
            rows += found
            keep(rows)
            progress.advance(whole)
    return rows


def show(options: Speed, console: Console, rows: list[Row]) -> None:
    if options.read:
        report.print_rows(console, rows)
    report.draw(options.png, rows)
    console.print("medians and quartiles; ×: the median, over the rounds, of a time divided by that of the first line")
    report.print_bars(console, rows)


def main(args: Sequence[str] | None = None) -> None:
    start = time.perf_counter()
    options = config.parse(Speed, sys.argv[1:] if args is None else args, command="python -m experiments.speed")
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.read:
        rows = report.read_rows(options.read)
        with showing(options.read, "Give a file that --json wrote."):
            show(options, console, rows)
    else:
        jax.config.update("jax_enable_compilation_cache", False)  # a cached program would take no time to compile

        def keep(rows: list[Row]) -> None:
            if options.json:
                report.write_rows(options.json, rows)

        for path in (options.json, options.png):  # fail now, not after the first case
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.open("ab").close()

        with jax.default_matmul_precision("highest"):  # full float32 on a GPU too, where the default is less
            rows = measure(make_plan(options, console), console, keep)
        show(options, console, rows)
    written = " and ".join(str(path) for path in (options.json, options.png) if path)
    console.print(f"written to {written}, {time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    command.run(main)
