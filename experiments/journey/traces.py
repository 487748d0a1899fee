"""The states and gates of a net while it reads, as `rnnx.expose` gives them, and the moves between the states.

Arrays are NumPy's; n is the number of sequences, T that of time steps.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import rnnx
from experiments.journey.config import Net
from experiments.journey.model import UNITS

Weights = Mapping[str, np.ndarray]


class Plane(NamedTuple):
    """Two numbers of the state, and the moves that each step makes with them.

    Attributes:
        name: the name of the plane.
        moves: names of the K moves of a step.
        points: `[n, T, K + 1, 2]`, before the first move of a step and after each.
    """

    name: str
    moves: tuple[str, ...]
    points: np.ndarray


class Trace(NamedTuple):
    """`planes` in the order of computation; `gates`, `[n, T, 2]` for each name; `ends` `[n, 2 or 4]`, what the readout
    reads."""

    planes: tuple[Plane, ...]
    gates: Mapping[str, np.ndarray]
    ends: np.ndarray


ELMAN_MOVES = "recurrent transform: R h", "input transform: + W x + b", "activation: tanh"


def elman_moves(w: Weights, h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """One step of the states h `[..., 2]`: `[..., 4, 2]`, h and where each of the three moves takes it."""
    turned = h @ w["recurrent_kernel"]
    moved = turned + x @ w["input_kernel"] + w["bias"]
    return np.stack([h, turned, moved, np.tanh(moved)], axis=-2)


def expose(cell: rnnx.Cell, params: Any, xs: np.ndarray, *gates: str) -> tuple[dict[str, np.ndarray], Any]:
    """The gates `[n, T, 2]` by name, and the carry after each step."""
    _, ys = rnnx.unroll(rnnx.scan(rnnx.expose(cell, *gates, "carry")), params, xs)
    ys = jax.device_get(ys)
    return {name: ys[name] for name in gates}, ys["carry"]


def previous(states: np.ndarray) -> np.ndarray:
    """The state before each step, from those after each step; the first is zero."""
    return np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)


def elman_plane(name: str, w: Weights, xs: np.ndarray) -> Plane:
    _, h = expose(rnnx.cells.elman(UNITS), w, xs)
    return Plane(name, ELMAN_MOVES, elman_moves(w, previous(h), xs))


def gru(w: Weights, xs: np.ndarray) -> Trace:
    """The state first goes to the candidate n, then back towards where it was, as far as z says."""
    gates, h = expose(rnnx.cells.gru(UNITS), w, xs, "r", "z", "n")
    moves = "to the candidate n", "back by the update gate z"
    points = np.stack([previous(h), gates["n"], h], axis=-2)
    return Trace((Plane("hidden state h", moves, points),), gates, h[:, -1])


def lstm(w: Weights, xs: np.ndarray) -> Trace:
    """The memory c is shrunk by f and moved by i g; the hidden state is c squashed by tanh and shrunk by o."""
    gates, (h, c) = expose(rnnx.cells.lstm(UNITS), w, xs, "i", "f", "g", "o")
    memory = np.stack([previous(c), gates["f"] * previous(c), c], axis=-2)
    hidden = np.stack([c, np.tanh(c), h], axis=-2)
    planes = (
        Plane("memory c", ("forget gate: f c", "input gate: + i g"), memory),
        Plane("hidden state h", ("squashed: tanh c", "output gate: o tanh c"), hidden),
    )
    return Trace(planes, gates, h[:, -1])


def trace_of(net: Net, params: Any, xs: np.ndarray) -> Trace:
    """All that the net does while it reads `xs` `[n, T, 2]`.

    In the backward direction too, step t is the one that reads `xs[:, t]`; its first is T - 1, its last is 0.
    """
    if net in ("gru", "lstm"):
        return {"gru": gru, "lstm": lstm}[net](params, xs)
    if net == "elman":
        planes: tuple[Plane, ...] = (elman_plane("hidden state h", params, xs),)
    elif net == "stacked":
        first = elman_plane("first layer", params["0_elman"], xs)
        planes = first, elman_plane("second layer", params["1_elman"], first.points[:, :, -1])
    else:
        forward = elman_plane("forward", params["forward"], xs)
        backward = elman_plane("backward (from step 4 to 1)", params["backward"], xs[:, ::-1])
        planes = forward, backward._replace(points=backward.points[:, ::-1])
        return Trace(planes, {}, np.concatenate([forward.points[:, -1, -1], backward.points[:, -1, -1]], axis=-1))
    return Trace(planes, {}, planes[-1].points[:, -1, -1])
