"""Converts weights from and to Equinox: `eqx.nn.LSTMCell` and `eqx.nn.GRUCell`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Layer, Params
from rnnx.interop._entries import (
    GATES,
    check_is_layer,
    check_weight,
    check_zero,
    convert_units,
    make_unit,
    split_levels,
)
from rnnx.interop._units import Level, Unit, assemble, check_options, levels_of

KINDS = {"LSTMCell": "lstm", "GRUCell": "gru"}


def from_equinox(cell: Any) -> tuple[Layer, Params]:
    """Converts Equinox cells to the Layer that computes what they compute when scanned, and its params.

    Args:
        cell: an `eqx.nn.LSTMCell` or an `eqx.nn.GRUCell`; or a pair `(forward, backward)` of them; or a list, the
            levels of a deeper network, each a cell or such a pair.

    Returns:
        `(layer, params)`; weights keep their dtype. A cell without bias gets zeros. For several levels the layer is a
        `rnnx.stack`, for a pair a `rnnx.bidirectional`.

    Raises:
        TypeError: if `cell` is anything other than these cells.
        ValueError: if an array has the wrong shape; the message names it and both shapes.

    The hidden state of a scanned LSTM cell becomes `LSTMCarry(h, c)`, in the same order.

    Example::

        >>> import equinox as eqx, jax, jax.numpy as jnp, rnnx  # doctest: +SKIP
        >>> cell = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))  # doctest: +SKIP
        >>> layer, params = rnnx.interop.from_equinox(cell)  # doctest: +SKIP
        >>> layer  # doctest: +SKIP
        gru(width=4)
    """
    levels = []
    for i, (forward, backward) in enumerate(split_levels(cell, "from_equinox")):
        back = None if backward is None else _unit(f"from_equinox, level {i} backward", backward)
        levels.append(Level(_unit(f"from_equinox, level {i}", forward), back))
    return assemble(levels)


def to_equinox(layer: Layer, params: Params, like: Any = None) -> Any:
    """Converts the weights of a layer to Equinox: to arrays by name, or to cells.

    Args:
        layer: `rnnx.lstm` or `rnnx.gru`, `rnnx.bidirectional` of one of them, or a `rnnx.stack` of those.
        params: its params.
        like: cells of the right sizes, in the form that `from_equinox` takes; their own weights do not matter.

    Returns:
        With `like`, new cells with these weights (`like` is not changed). Without, for each cell a dict
        `{"weight_ih": ..., "weight_hh": ..., "bias": ...}`, for a GRU also `"bias_n"`. One cell for one layer, a pair
        for two directions, a list for several levels.

    Raises:
        ValueError: if the layer has no equivalent (a GRU that resets before the product, an Elman network); if the
            params do not fit the layer; if `like` has other sizes or lacks biases.
        TypeError: if `layer` is not a Layer, or `like` holds anything other than cells.

    Example::

        >>> cell = rnnx.interop.to_equinox(layer, params, like=cell)  # doctest: +SKIP
        >>> carry = cell(jnp.ones(3), jnp.zeros(4))  # doctest: +SKIP
    """
    return convert_units(
        levels_of(check_is_layer("to_equinox", layer), params, "Equinox"), _weights, like, "to_equinox"
    )


def _kind(where: str, cell: Any) -> str:
    of = type(cell)
    if not of.__module__.startswith("equinox.") or of.__name__ not in KINDS:
        raise TypeError(f"{where} takes eqx.nn.LSTMCell and eqx.nn.GRUCell, but got {of.__name__}")
    return KINDS[of.__name__]


def _unit(where: str, cell: Any) -> Unit:
    kind = _kind(where, cell)
    width, rows = cell.hidden_size, GATES[kind] * cell.hidden_size
    w_input = check_weight(f"{where}: weight_ih", cell.weight_ih, (rows, cell.input_size))
    w_recurrent = check_weight(f"{where}: weight_hh", cell.weight_hh, (rows, width))
    dtype = w_input.dtype

    def bias(name: str, size: int) -> jax.Array:
        value = getattr(cell, name)
        return jnp.zeros((size,), dtype) if value is None else check_weight(f"{where}: {name}", value, (size,))

    params = {"input_kernel": w_input.T, "recurrent_kernel": w_recurrent.T, "bias": bias("bias", rows)}
    if kind == "gru":
        params["recurrent_bias"] = bias("bias_n", width)
    return make_unit(kind, params)


def _weights(where: str, unit: Unit, like: Any) -> Any:
    if unit.kind not in KINDS.values():
        raise ValueError(f"{where}: Equinox has no cell like rnnx.{unit.kind}, only an LSTM and a GRU")
    check_options(unit, "Equinox", ("reset_after",))
    p = unit.params
    if unit.kind == "gru" and "recurrent_bias" not in p:
        raise ValueError(
            f"{where}: Equinox's GRU resets after the recurrent product, but this one (reset_after=False) before it; "
            "they cannot be converted into each other"
        )
    names = {"weight_ih": p["input_kernel"].T, "weight_hh": p["recurrent_kernel"].T, "bias": p["bias"]}
    if unit.kind == "gru":
        names["bias_n"] = p["recurrent_bias"]
    if like is None:
        return names
    if _kind(where, like) != unit.kind:
        raise ValueError(f"{where}: the layer has {unit.kind}, but `like` has eqx.nn.{type(like).__name__}")
    rows = GATES[unit.kind] * like.hidden_size
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, like.input_size), "weight_hh": (rows, like.hidden_size)}
    shapes |= {"bias": (rows,), "bias_n": (like.hidden_size,)}
    names = {name: check_weight(f"{where}: {name}", value, shapes[name]) for name, value in names.items()}
    for name in ("bias", "bias_n"):
        if name in names and getattr(like, name) is None:
            check_zero(where, name, names.pop(name), "an Equinox cell with use_bias=False")
    # A cell is a pytree: its leaves are its arrays, under the names of its attributes.
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree.unflatten(structure, [names[path[-1].name] for path, _ in leaves])
