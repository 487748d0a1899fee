"""Compiling and timing, and the resulting rows."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Row = dict[str, Any]
Tick = Callable[[float], None]
"""Called with the share of a case that is done, between 0 and 1."""

SHORTEST = 0.01
"""Least duration of a timing in seconds: clock and scheduler are not precise enough for less."""


class Case(NamedTuple):
    """What is measured together: all the functions that are compared with each other."""

    section: str
    label: str
    measure: Callable[[Tick], list[Row]]


class Compiled(NamedTuple):
    """A program for arguments of certain shapes."""

    program: Any
    seconds: float
    temp_mb: float

    def on(self, *args: Any) -> Callable[[], Any]:
        """The program as a function without arguments that waits for its results."""
        return lambda: jax.block_until_ready(self.program(*args))


def compiled(function: Callable[..., Any], *args: Any) -> Compiled:
    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory: Any = program.memory_analysis()
    return Compiled(program, seconds, memory.temp_size_in_bytes / 1e6)


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, budget: float, rounds: int, tick: Tick = lambda done: None
) -> dict[str, np.ndarray]:
    """Seconds of each call in each round.

    Rounds go on for `budget` seconds, and there are at least `rounds` of them.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, math.ceil(SHORTEST / _seconds(call, 1)))
    names, random = list(calls), np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in names}
    start, done = time.perf_counter(), 0
    while done < rounds or (time.perf_counter() - start) * (1 + 1 / done) < budget:
        for i in random.permutation(len(names)):
            times[names[i]].append(_seconds(calls[names[i]], repeats[names[i]]))
        done += 1
        tick(min(1.0, max((time.perf_counter() - start) / max(budget, 1e-9), 0.0) if done >= rounds else done / rounds))
    return {name: np.array(of) for name, of in times.items()}


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def row(
    section: str,
    library: str,
    cell: str,
    shape: object,
    *,
    forward: np.ndarray | None = None,
    grad: np.ndarray | None = None,
    base_forward: np.ndarray | None = None,
    base_grad: np.ndarray | None = None,
    temp_mb: float | None = None,
    compile_s: float | None = None,
    **more: Any,
) -> Row:
    """One measurement. Times are seconds in each round; `base_...` are the times that ratios divide by.

    A ratio above 1 means that this one takes longer.
    """
    timed = forward if forward is not None else grad
    return {
        "section": section,
        "library": library,
        "cell": cell,
        "shape": str(shape),
        "forward_ms": _median_ms(forward),
        "grad_ms": _median_ms(grad),
        "temp_mb": temp_mb,
        "compile_s": compile_s,
        "forward_quartiles_ms": _quartiles_ms(forward),
        "grad_quartiles_ms": _quartiles_ms(grad),
        "forward_ratio": _ratio(forward, base_forward),
        "grad_ratio": _ratio(grad, base_grad),
        "rounds": None if timed is None else len(timed),
        "device": jax.devices()[0].device_kind,
        **more,
    }


def both(section: str, library: str, cell: str, shape: object, times: Mapping[str, np.ndarray], **more: Any) -> Row:
    """Forward and gradient of a library, from the times of the calls `"forward NAME"` and `"gradient NAME"`."""
    return row(
        section,
        library,
        cell,
        shape,
        forward=times[f"forward {library}"],
        grad=times[f"gradient {library}"],
        base_forward=times["forward rnnx"],
        base_grad=times["gradient rnnx"],
        **more,
    )


def _median_ms(seconds: np.ndarray | None) -> float | None:
    return None if seconds is None else float(np.median(seconds) * 1e3)


def _quartiles_ms(seconds: np.ndarray | None) -> list[float] | None:
    return None if seconds is None else [float(q * 1e3) for q in np.quantile(seconds, [0.25, 0.75])]


def _ratio(seconds: np.ndarray | None, base: np.ndarray | None) -> float | None:
    return None if seconds is None or base is None else float(np.median(seconds / base))
