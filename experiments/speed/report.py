"""Shows the rows as tables and a picture, and writes them to a file."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # draws into files, without a screen

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter
from rich.console import Console
from rich.table import Table

from experiments.errors import UserError
from experiments.files import parsed, write_text
from experiments.speed.bars import bars, slower
from experiments.speed.measure import Row

TITLES = {
    "nets": "{cell} at batch,time,features,width {shape}",
    "stream": "streaming generation: {cell}, batch,time,features,width {shape}",
    "linear": "h_t = a_t h_(t-1) + b_t at time,batch,width {shape}",
    "growth": "growth with time: {cell}",
    "memory": "memory: {cell} {shape}",
    "compile": "compile time: {cell} {shape}",
    "devices": "two CPU devices: {cell} {shape}",
}
KEYS = ("library", "cell", "shape", "forward_ms", "grad_ms", "temp_mb", "compile_s")
COLORS = {
    "rnnx": "tab:red",
    "rnnx scan": "lightcoral",
    "linen": "tab:blue",
    "nnx": "tab:cyan",
    "haiku": "tab:green",
    "equinox": "tab:olive",
    "keras": "tab:purple",
    "torch": "tab:orange",
    "memax": "tab:brown",
    "scan": "lightcoral",
    "associative_scan": "tab:gray",
    "floor": "black",
}


def groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each table, with its title."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(TITLES[row["section"]].format(**row), []).append(row)
    yield from found.items()


def print_rows(console: Console, rows: Sequence[Row]) -> None:
    for title, group in groups(rows):
        console.print(_table(title, group))


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = _columns(rows)
    for name in columns:
        table.add_column(name, justify="left" if name in ("", "note") else "right")
    for row in rows:
        table.add_row(
            *(cells[rows.index(row)] for cells in columns.values()), style="bold" if row["library"] == "rnnx" else None
        )
    return table


def _columns(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The columns by heading; those without any entry are left out."""
    library = [row["library"] if row["section"] != "growth" else f"{row['library']} {row['shape']}" for row in rows]
    of_what = {
        "forward ms": [_spread(row, "forward") for row in rows],
        "×": [_number(row["forward_ratio"], ".2f") for row in rows],
        "loss+gradient ms": [_spread(row, "grad") for row in rows],
        "× ": [_number(row["grad_ratio"], ".2f") for row in rows],
        "µs per step": [_number(row.get("us_per_step"), ".1f") for row in rows],
        "×  ": [_number(row.get("per_step_ratio"), ".2f") for row in rows],
        "steps per s": [_number(row.get("steps_per_s"), ",.0f") for row in rows],
        "temp MB": [_number(row["temp_mb"], ".1f") for row in rows],
        "compile s": [_number(row["compile_s"], ".2f") for row in rows],
        "×   ": [_number(row.get("compile_ratio"), ".2f") for row in rows],
        "note": [row.get("note") or "" for row in rows],
    }
    return {"": library} | {name: cells for name, cells in of_what.items() if any(cells)}


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _spread(row: Row, of: str) -> str:
    median, quartiles = row[f"{of}_ms"], row[f"{of}_quartiles_ms"]
    return "" if median is None else f"{_short(median)} [{_short(quartiles[0])}, {_short(quartiles[1])}]"


def _short(ms: float) -> str:
    return format(ms, ".0f" if ms >= 100 else ".1f" if ms >= 10 else ".2f" if ms >= 0.1 else ".3f")


def print_bars(console: Console, rows: Sequence[Row]) -> None:
    table = Table(
        title="bars: how many times as fast as the other, or what part of it", title_justify="left", title_style="bold"
    )
    for name in ("", "expected", "reached", ""):
        table.add_column(name, overflow="fold")
    for bar in bars([row for row in rows if row.get("device", "cpu") == "cpu"]):
        table.add_row(bar.what, bar.expected, bar.reached, "[green]holds[/]" if bar.holds else "[red]missed[/]")
    if table.row_count:
        console.print(table)
    for line in slower(rows):
        console.print(f"faster than rnnx: {line}")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes a list of objects, one per line; the file is renamed when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(path, f"[\n{lines}\n]\n")


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not {"section", *KEYS} <= set(row):
        return False
    words = [row.get(name) for name in ("section", "library", "cell", "shape", "note", "device")]
    # A table of very long words takes minutes.
    return all(word is None or (isinstance(word, str) and len(word) < 1000) for word in words)


def read_rows(path: Path) -> list[Row]:
    rows = parsed(path, lambda value: value)
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise UserError(f"{path} holds no rows of this experiment; give a file that --json wrote.")
    return rows


COLUMNS = 3


def draw(path: Path, rows: Sequence[Row]) -> None:
    """A panel for each net, and one for each linear recurrence; in a full run, each shape has a line of panels."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        if row["section"] == "nets":
            panels.setdefault(f"{row['cell']}, B,T,I,H = {row['shape']}", []).append(row)
        elif row["section"] == "linear":
            panels.setdefault(f"linear recurrence, T,B,H = {row['shape']}", []).append(row)
    if not panels:
        return
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    size = (5.2 * columns, 2.6 * lines + 0.6)
    figure, axes = plt.subplots(lines, columns, figsize=size, layout="constrained", squeeze=False)
    for one in axes.flat[len(panels) :]:
        one.axis("off")
    for one, (title, group) in zip(axes.flat, panels.items()):
        _bars(one, title, group)
    figure.suptitle("ms of loss+gradient, and (dark) of the forward pass; in brackets: ratio to the first", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axes: Any, title: str, rows: Sequence[Row]) -> None:
    rows = rows[::-1]  # from the bottom up
    places = range(len(rows))
    colors = [COLORS.get(row["library"], "tab:gray") for row in rows]
    axes.barh(places, [row["grad_ms"] for row in rows], color=colors, alpha=0.45)
    axes.barh(places, [row["forward_ms"] for row in rows], color=colors, alpha=0.6)
    for place, row in zip(places, rows):
        axes.text(
            row["grad_ms"] * 1.05, place, f"{_short(row['grad_ms'])} ({row['grad_ratio']:.2f})", va="center", fontsize=7
        )
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(places, [row["library"] + (" *" if _differs(row) else "") for row in rows], fontsize=8)
    axes.set_xscale("log")
    smallest = min(row["forward_ms"] for row in rows)
    axes.set_xlim(smallest / 1.5, max(row["grad_ms"] for row in rows) * 4)
    axes.xaxis.set_minor_formatter(NullFormatter())  # within less than a decade the labels would overlap
    axes.tick_params(axis="x", labelsize=7)
    notes = [f"* {row['note']}" for row in rows if _differs(row)]
    axes.set_title("; ".join([title, *notes]), fontsize=8, loc="left")


def _differs(row: Row) -> bool:
    return bool(row.get("note")) and row["library"] != "floor"
