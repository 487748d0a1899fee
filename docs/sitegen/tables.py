"""Tables of all cells, and of the times measured in the recorded runs in `experiments/records/speed/`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sitegen import cell_table

RECORDS = Path(__file__).parents[2] / "experiments" / "records" / "speed"

Row = dict[str, Any]


def make(name: str) -> str:
    """The table of that name, in Markdown."""
    return TABLES[name]()


def read(run: str, section: str) -> list[Row]:
    rows = json.loads((RECORDS / f"{run}.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["section"] == section]


def table(head: list[str], rows: list[list[str]]) -> str:
    """All columns but the first are numbers, aligned to the right."""
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def time(row: Row | None) -> str:
    if row is None:
        return "not measured"
    return f"{row['grad_ms']:,.0f} ms" if row["grad_ms"] >= 100 else f"{row['grad_ms']:.3g} ms"


def shape(row: Row) -> str:
    return str(row["shape"]).replace(",", ", ")


def fused() -> str:
    lines = []
    for run in ("cpu2", "h100"):
        rows = read(run, "growth")
        for plain in (row for row in rows if row["library"] == "rnnx scan"):
            own = next(row for row in rows if row["library"] == "rnnx" and row["shape"] == plain["shape"])
            cells = [
                time(own),
                time(plain),
                f"{plain['grad_ratio']:.2f}",
                *(f"{r['temp_mb']:.0f} MB" for r in (own, plain)),
            ]
            lines.append([f"{run}: {shape(plain)}", *cells])
    return table(["shape", "fused", "plain", "plain / fused", "memory, fused", "memory, plain"], lines)


def checkpoints() -> str:
    rows = read("cpu2", "memory")
    return table(
        ["evaluator", "loss and gradient", "memory"],
        [[f"`{row['library'].replace('rnnx ', '')}`", time(row), f"{row['temp_mb']:.0f} MB"] for row in rows],
    )


def linear() -> str:
    names = ["rnnx", "scan", "associative_scan", "floor"]
    lines = []
    for run in ("cpu2", "h100"):
        rows = read(run, "linear")
        for size in dict.fromkeys(row["shape"] for row in rows):
            of = {row["library"]: row for row in rows if row["shape"] == size}
            lines.append([f"{run}: {size.replace(',', ', ')}", *(time(of.get(name)) for name in names)])
    return table(["shape", "`rnnx.linear_scan`", "`lax.scan`", "`lax.associative_scan`", "moving the bytes"], lines)


def devices() -> str:
    rows = read("cpu2", "devices")
    lines = []
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        lines.append([f"{one['cell']}: {shape(one)}", time(one), time(two), f"{two['grad_ratio']:.2f}"])
    return table(["shape", "one device", "two devices", "two / one"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "cells": cell_table.table,
    "fused": fused,
    "checkpoints": checkpoints,
    "linear": linear,
    "devices": devices,
}
