"""Weights from and to Equinox: `eqx.nn.LSTMCell` and `eqx.nn.GRUCell`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Layer, Params
from rnnx.interop._entries import GATES, by_level, by_unit, is_layer, needs_zero, unit_of, weight
from rnnx.interop._units import Level, Unit, assembled, check_options, levels_of

KINDS = {"LSTMCell": "lstm", "GRUCell": "gru"}


def from_equinox(cell: Any) -> tuple[Layer, Params]:
    """The Layer that computes what Equinox cells do when they are scanned, with their weights.

    Args:
        cell: an `eqx.nn.LSTMCell` or an `eqx.nn.GRUCell`; a pair of them is `(forward, backward)`, and a list has
            the levels of a deeper net, each a cell or such a pair.

    Returns:
        `(layer, params)`, the dtype of the weights kept. A cell without bias gets zeros. Of several levels the
        layer is a `rnnx.stack`, of a pair a `rnnx.bidirectional`.

    Raises:
        TypeError: for anything else than these cells.
        ValueError: for an array of a wrong shape; the message names it and both shapes.

    The hidden state of a scanned cell is `LSTMCarry(h, c)` here, in the same order.

    Example::

        >>> import equinox as eqx, jax, jax.numpy as jnp, rnnx  # doctest: +SKIP
        >>> cell = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))  # doctest: +SKIP
        >>> layer, params = rnnx.interop.from_equinox(cell)  # doctest: +SKIP
        >>> layer  # doctest: +SKIP
        gru(width=4)
    """
    levels = []
    for i, (forward, backward) in enumerate(by_level(cell, "from_equinox")):
        back = None if backward is None else _unit(f"from_equinox, level {i} backward", backward)
        levels.append(Level(_unit(f"from_equinox, level {i}", forward), back))
    return assembled(levels)


def to_equinox(layer: Layer, params: Params, like: Any = None) -> Any:
    """A layer's weights in Equinox: as arrays by name, or as cells.

    Args:
        layer: `rnnx.lstm` or `rnnx.gru`, `rnnx.bidirectional` of one of them, or a `rnnx.stack` of those.
        params: its params.
        like: cells of the sizes wanted, in the form that `from_equinox` takes; their own weights do not matter.

    Returns:
        With `like`, cells with these weights (those given stay as they are). Without, for each cell a dict
        `{"weight_ih": ..., "weight_hh": ..., "bias": ...}`, and `"bias_n"` of a GRU. One cell for one layer, a pair
        for two directions, a list for several levels.

    Raises:
        ValueError: for a layer without a counterpart (a GRU which resets before the product, a simple recurrent
            network), for params that do not fit the layer, and where `like` has other sizes or no biases.
        TypeError: when `layer` is no Layer, or `like` holds something else than cells.

    Example::

        >>> cell = rnnx.interop.to_equinox(layer, params, like=cell)  # doctest: +SKIP
        >>> carry = cell(jnp.ones(3), jnp.zeros(4))  # doctest: +SKIP
    """
    return by_unit(levels_of(is_layer("to_equinox", layer), params, "Equinox"), _weights, like, "to_equinox")


def _kind(where: str, cell: Any) -> str:
    of = type(cell)
    if not of.__module__.startswith("equinox.") or of.__name__ not in KINDS:
        raise TypeError(f"{where}: eqx.nn.LSTMCell and eqx.nn.GRUCell can be converted, but got {of.__name__}")
    return KINDS[of.__name__]


def _unit(where: str, cell: Any) -> Unit:
    kind = _kind(where, cell)
    width, rows = cell.hidden_size, GATES[kind] * cell.hidden_size
    w_input = weight(f"{where}: weight_ih", cell.weight_ih, (rows, cell.input_size))
    w_recurrent = weight(f"{where}: weight_hh", cell.weight_hh, (rows, width))
    dtype = w_input.dtype

    def bias(name: str, size: int) -> jax.Array:
        value = getattr(cell, name)
        return jnp.zeros((size,), dtype) if value is None else weight(f"{where}: {name}", value, (size,))

    params = {"input_kernel": w_input.T, "recurrent_kernel": w_recurrent.T, "bias": bias("bias", rows)}
    if kind == "gru":
        params["recurrent_bias"] = bias("bias_n", width)
    return unit_of(kind, params)


def _weights(where: str, unit: Unit, like: Any) -> Any:
    if unit.kind not in KINDS.values():
        raise ValueError(f"{where}: Equinox has no cell like rnnx.{unit.kind}; it has an LSTM and a GRU")
    check_options(unit, "Equinox", ("reset_after",))
    p = unit.params
    if unit.kind == "gru" and "recurrent_bias" not in p:
        raise ValueError(
            f"{where}: Equinox's GRU resets after the recurrent product, this one (reset_after=False) before it; "
            "neither can be converted into the other"
        )
    names = {"weight_ih": p["input_kernel"].T, "weight_hh": p["recurrent_kernel"].T, "bias": p["bias"]}
    if unit.kind == "gru":
        names["bias_n"] = p["recurrent_bias"]
    if like is None:
        return names
    if _kind(where, like) != unit.kind:
        raise ValueError(f"{where}: the layer has an {unit.kind} where `like` has an eqx.nn.{type(like).__name__}")
    rows = GATES[unit.kind] * like.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, like.input_size), "weight_hh": (rows, like.hidden_size)}
    shapes |= {"bias": (rows,), "bias_n": (like.hidden_size,)}
    names = {name: weight(f"{where}: {name}", value, shapes[name]) for name, value in names.items()}
    for name in ("bias", "bias_n"):
        if name in names and getattr(like, name) is None:
            needs_zero(where, name, names.pop(name), "an Equinox cell with use_bias=False")
    # A cell is a pytree whose leaves are its arrays, by the names of its attributes.
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(structure, [names[path[-1].name] for path, _ in leaves])
