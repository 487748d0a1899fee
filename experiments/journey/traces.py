"""What a net does on its way, from its weights and the equations of its cells: `rnnx.unroll` tells only where it ends.

Arrays are NumPy's; n is the number of sequences, T that of time steps.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Weights = Mapping[str, np.ndarray]


class Plane(NamedTuple):
    """Two numbers of the state, and the moves that each step makes with them.

    Attributes:
        name: of the plane.
        moves: names of the K moves of a step.
        points: `[n, T, K + 1, 2]`, before the first move of a step and after each.
    """

    name: str
    moves: tuple[str, ...]
    points: np.ndarray


class Trace(NamedTuple):
    """`planes` in the order of computation; `gates`, of each name `[n, T, 2]`; `ends` `[n, 2 or 4]`, what the readout
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


def elman_points(w: Weights, xs: np.ndarray) -> np.ndarray:
    """`[n, T, 4, 2]`, from inputs `[n, T, D]`."""
    h, points = np.zeros((len(xs), 2), xs.dtype), []
    for x in xs.swapaxes(0, 1):
        points.append(elman_moves(w, h, x))
        h = points[-1][:, -1]
    return np.stack(points, axis=1)


def elman(w: Weights, xs: np.ndarray) -> Trace:
    points = elman_points(w, xs)
    return Trace((Plane("hidden state h", ELMAN_MOVES, points),), {}, points[:, -1, -1])


def stacked(params: Mapping[str, Weights], xs: np.ndarray) -> Trace:
    first = elman_points(params["0_elman"], xs)
    second = elman_points(params["1_elman"], first[:, :, -1])
    planes = Plane("first layer", ELMAN_MOVES, first), Plane("second layer", ELMAN_MOVES, second)
    return Trace(planes, {}, second[:, -1, -1])


def bidirectional(params: Mapping[str, Weights], xs: np.ndarray) -> Trace:
    """Of the backward direction too, step t is the one that reads `xs[:, t]`; its first is T - 1, its last is 0."""
    forward = elman_points(params["forward"], xs)
    backward = elman_points(params["backward"], xs[:, ::-1])[:, ::-1]
    planes = (
        Plane("forward", ELMAN_MOVES, forward),
        Plane("backward (from step 4 to 1)", ELMAN_MOVES, backward),
    )
    return Trace(planes, {}, np.concatenate([forward[:, -1, -1], backward[:, 0, -1]], axis=-1))


def gru(w: Weights, xs: np.ndarray) -> Trace:
    """The state first goes to the candidate n, then back towards where it was, as far as z says."""
    h, points, gates = np.zeros((len(xs), 2), xs.dtype), [], []
    for x in xs.swapaxes(0, 1):
        x_r, x_z, x_n = np.split(x @ w["input_kernel"] + w["bias"], 3, axis=-1)
        h_r, h_z, h_n = np.split(h @ w["recurrent_kernel"], 3, axis=-1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = np.tanh(x_n + r * (h_n + w["recurrent_bias"]))
        points.append(np.stack([h, n, (1 - z) * n + z * h], axis=-2))
        gates.append((r, z, n))
        h = points[-1][:, -1]
    moves = "to the candidate n", "back by the update gate z"
    path = np.stack(points, axis=1)
    named = {name: np.stack(values, axis=1) for name, values in zip("rzn", zip(*gates))}
    return Trace((Plane("hidden state h", moves, path),), named, path[:, -1, -1])


def lstm(w: Weights, xs: np.ndarray) -> Trace:
    """The memory c is shrunk by f and moved by i g; what is shown of it is squashed by tanh and shrunk by o."""
    h = c = np.zeros((len(xs), 2), xs.dtype)
    memory, shown, gates = [], [], []
    for x in xs.swapaxes(0, 1):
        i, f, g, o = np.split(x @ w["input_kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, axis=-1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        memory.append(np.stack([c, f * c, f * c + i * g], axis=-2))
        c = memory[-1][:, -1]
        shown.append(np.stack([c, np.tanh(c), o * np.tanh(c)], axis=-2))
        h = shown[-1][:, -1]
        gates.append((i, f, g, o))
    planes = (
        Plane("memory c", ("forget gate: f c", "input gate: + i g"), np.stack(memory, axis=1)),
        Plane("hidden state h", ("squashed: tanh c", "output gate: o tanh c"), np.stack(shown, axis=1)),
    )
    named = {name: np.stack(values, axis=1) for name, values in zip("ifgo", zip(*gates))}
    return Trace(planes, named, h)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2


def trace_of(net: str, params: Any, xs: np.ndarray) -> Trace:
    """All that the net does while it reads `xs` `[n, T, 2]`."""
    walks: dict[str, Callable[[Any, np.ndarray], Trace]] = {
        "elman": elman,
        "gru": gru,
        "lstm": lstm,
        "stacked": stacked,
        "bidirectional": bidirectional,
    }
    return walks[net](params, xs)
