"""The bars: targets, and what the rows of a run reached; a bar that was not measured is left out."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.speed.measure import Row
from experiments.speed.peers import JAX_PEERS
from experiments.speed.shapes import LINEAR, ON_TWO_DEVICES


class Bar(NamedTuple):
    """One target, and what was reached."""

    what: str
    expected: str
    reached: str
    holds: bool


class Fastest(NamedTuple):
    """The fastest JAX peer in one case; above 1 it takes longer than rnnx."""

    ratio: float
    peer: str
    cell: str
    shape: str

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.peer}, {self.cell} {self.shape})"


def bars(rows: Sequence[Row]) -> list[Bar]:
    found = [
        *_beside_jax(rows),
        *_beside_torch(rows),
        *_memory_of_linen(rows),
        *_devices(rows),
        *_linear(rows),
        *_checkpoints(rows),
        *_growth(rows),
        *_compile(rows),
    ]
    return [bar for bar in found if bar is not None]


def select(rows: Iterable[Row], section: str, **expected: str) -> list[Row]:
    return [r for r in rows if r["section"] == section and all(r[key] == value for key, value in expected.items())]


def fastest(rows: Sequence[Row], key: str) -> list[Fastest]:
    """For each net the JAX peer with the smallest ratio, of those that compute the same function (relu is cheaper)."""
    nets: dict[tuple[str, str], list[Fastest]] = {}
    for r in select(rows, "nets"):
        if r["library"] in JAX_PEERS and not r["note"]:
            nets.setdefault((r["cell"], r["shape"]), []).append(Fastest(r[key], r["library"], r["cell"], r["shape"]))
    return [min(of) for of in nets.values()]


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(r) for r in ratios]
    return math.exp(sum(logs) / len(logs))


def at_least(what: str, expected: float, reached: float, detail: str = "", aim: str = "") -> Bar:
    return Bar(what, f"≥ {expected:.2f}{aim}", f"{reached:.2f}{detail}", reached >= expected)


def at_most(what: str, expected: float, reached: float, detail: str = "") -> Bar:
    return Bar(what, f"≤ {expected:.2f}", f"{reached:.2f}{detail}", reached <= expected)


def _beside_jax(rows: Sequence[Row]) -> Iterable[Bar]:
    gradient, forward = fastest(rows, "grad_ratio"), fastest(rows, "forward_ratio")
    if not gradient:
        return
    for shape in dict.fromkeys(f.shape for f in gradient):
        there = [f.ratio for f in gradient if f.shape == shape]
        what = f"loss+gradient beside the fastest JAX peer, geometric mean of {len(there)} cells at {shape}"
        yield at_least(what, 1.10, geometric_mean(there), aim=" (aim 1.2)")
    mean = geometric_mean(f.ratio for f in gradient)
    yield at_least(
        f"loss+gradient beside the fastest JAX peer, geometric mean of {len(gradient)} nets",
        1.10,
        mean,
        aim=" (aim 1.2)",
    )
    yield _none_below("loss+gradient beside the fastest JAX peer, each net", gradient)
    yield _none_below("forward beside the fastest JAX peer, each net", forward)


def _none_below(what: str, found: Sequence[Fastest], expected: float = 0.95) -> Bar:
    below = sorted(f for f in found if f.ratio < expected)
    shown = "; ".join(map(str, below)) if below else f"lowest {min(found)}"
    return Bar(what, f"≥ {expected:.2f}", shown, not below)


def _beside_torch(rows: Sequence[Row]) -> Iterable[Bar]:
    for cell, expected, aim in (("lstm", 0.95, " (aim 1.05)"), ("gru", 2.0, "")):
        found = {r["shape"]: r["grad_ratio"] for r in select(rows, "nets", library="torch", cell=cell)}
        if found:
            each = ", ".join(f"{shape}: {ratio:.2f}" for shape, ratio in found.items())
            what = f"loss+gradient beside torch.nn.{cell.upper()}, geometric mean of {len(found)} shapes"
            yield at_least(what, expected, geometric_mean(found.values()), f" ({each})", aim)


def _memory_of_linen(rows: Sequence[Row]) -> Iterable[Bar]:
    for theirs in select(rows, "nets", library="linen"):
        if theirs["shape"].endswith(",512"):
            (mine,) = select(rows, "nets", library="rnnx", cell=theirs["cell"], shape=theirs["shape"])
            detail = f" ({mine['temp_mb']:.0f} and {theirs['temp_mb']:.0f} MB)"
            what = f"temp memory of loss+gradient beside linen, {theirs['cell']} {theirs['shape']}"
            yield at_most(what, 0.7, mine["temp_mb"] / theirs["temp_mb"], detail)


def _devices(rows: Sequence[Row]) -> Iterable[Bar]:
    for shape in map(str, ON_TWO_DEVICES):
        for r in select(rows, "devices", library="rnnx.sharded", shape=shape):
            what = f"loss+gradient on two devices beside one, {r['cell']} {shape}"
            yield at_least(what, 1.4, 1 / r["grad_ratio"], f" (forward {1 / r['forward_ratio']:.2f})")


def _linear(rows: Sequence[Row]) -> Iterable[Bar]:
    for shape in map(str, LINEAR):
        found = {r["library"]: r["grad_ratio"] for r in select(rows, "linear", shape=shape)}
        for peer, expected in (("memax", 2.5), ("associative_scan", 2.5), ("scan", 1.2)):
            if peer in found:
                detail = f" ({1 / found['floor']:.1f} times the time to move the bytes)"
                what = f"gradient of the linear recurrence beside {peer}, {shape}"
                yield at_least(what, expected, found[peer], detail)


def _checkpoints(rows: Sequence[Row]) -> Iterable[Bar]:
    found = select(rows, "memory")
    if found:
        plain, kept = found
        what = f"{kept['library']} beside the plain one, lstm {kept['shape']}"
        detail = f" ({kept['temp_mb']:.0f} and {plain['temp_mb']:.0f} MB)"
        yield at_most(f"{what}: temp memory", 0.16, kept["temp_mb"] / plain["temp_mb"], detail)
        yield at_most(f"{what}: time", 1.2, kept["grad_ratio"])


def _growth(rows: Sequence[Row]) -> Iterable[Bar]:
    found = select(rows, "growth")
    for r in found:
        if r.get("per_step_ratio", 1.0) != 1.0:
            detail = f" ({r['us_per_step']:.1f} µs)"
            ratio = max(r["per_step_ratio"], 1 / r["per_step_ratio"])
            yield at_most(f"loss+gradient per step beside that of T = 256, {r['shape']}", 1.4, ratio, detail)
        elif r["library"] == "rnnx scan":
            yield at_least(f"loss+gradient beside plain autodiff, lstm {r['shape']}", 1.7, r["grad_ratio"])


def _compile(rows: Sequence[Row]) -> Iterable[Bar]:
    for r in select(rows, "compile"):
        if r["library"] != "rnnx":
            yield at_most(f"compile time of {r['library']} beside one layer, {r['cell']}", 2.0, r["compile_ratio"])


def slower(rows: Sequence[Row]) -> list[str]:
    """Where another library takes less time than rnnx."""
    found = []
    for r in rows:
        if r["library"] in (*JAX_PEERS, "torch", "memax"):
            for what, key in (("forward", "forward_ratio"), ("loss+gradient", "grad_ratio")):
                if r[key] is not None and r[key] < 1:
                    what = "a stream" if r["section"] == "stream" else what
                    note = f", {r['note']}" if r.get("note") else ""
                    found.append(
                        f"{r['library']}{note}: {what} of {r['cell']} at {r['shape']}, {r[key]:.2f} of the time"
                    )
    return found
