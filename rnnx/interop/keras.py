"""Converts weights from and to Keras 3: `SimpleRNN`, `LSTM`, `GRU` and `Bidirectional`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Layer, Params
from rnnx.interop._entries import (
    GATES,
    check_is_layer,
    check_weight,
    check_zero,
    convert_units,
    make_unit,
    reorder_gates,
    split_levels,
)
from rnnx.interop._units import Level, Unit, assemble, check_options, levels_of

CELLS = {"SimpleRNNCell": "elman", "LSTMCell": "lstm", "GRUCell": "gru"}
LAYERS = ("SimpleRNN", "LSTM", "GRU", "RNN")
WEIGHTLESS = ("InputLayer", "Masking", "Dropout")
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


def from_keras(layer: Any) -> tuple[Layer, Params]:
    """Converts recurrent layers of Keras to the equivalent Layer and its params.

    Args:
        layer: a built `SimpleRNN`, `LSTM` or `GRU`, an `RNN` of one of their cells, or a `Bidirectional` of one of
            these; or a list or a `Sequential` of them, the levels of a deeper network.

    Returns:
        `(layer, params)`; weights keep their dtype. A layer without bias gets zeros. For several levels the layer is a
        `rnnx.stack`, for a `Bidirectional` a `rnnx.bidirectional`.

    Raises:
        TypeError: for other layers. If a model has others, pass a list of its recurrent layers.
        ValueError: if a layer has no weights yet; if rnnx computes something else: other activations, `go_backwards`
            outside a `Bidirectional`, a `merge_mode` other than "concat".

    Layers without weights are skipped: dropout, and the masks of `Masking` and `Embedding(mask_zero=True)`; use
    `lengths=` instead. (Masks with gaps have no equivalent.) All outputs are returned, as with `return_sequences=True`,
    and those beyond the lengths are zero, as with `zero_output_for_mask=True`.

    Example::

        >>> import keras, rnnx  # doctest: +SKIP
        >>> net = keras.Sequential([keras.Input((None, 3)), keras.layers.GRU(4)])  # doctest: +SKIP
        >>> layer, params = rnnx.interop.from_keras(net)  # doctest: +SKIP
        >>> layer  # doctest: +SKIP
        gru(width=4)
    """
    levels = []
    for i, (forward, backward) in enumerate(_split_directions("from_keras", layer)):
        back = None if backward is None else _unit(f"from_keras, level {i} backward", backward, True)
        levels.append(Level(_unit(f"from_keras, level {i}", forward, False), back))
    return assemble(levels)


def to_keras(layer: Layer, params: Params, like: Any = None) -> Any:
    """Converts the weights of a layer to lists of arrays for `set_weights` of Keras layers.

    Args:
        layer: `rnnx.elman`, `rnnx.lstm` or `rnnx.gru`, `rnnx.bidirectional` of one of them, or a `rnnx.stack` of
            those.
        params: its params.
        like: the target Keras layers, built, in the form that `from_keras` takes: the weights are checked against
            them, and layers with `use_bias=False` get no biases.

    Returns:
        A list of NumPy arrays (those of the forward layer, then those of the backward one); for a stack, a list of
        such lists.

    Raises:
        ValueError: if the params do not fit the layer; if `like` has another kind, size, activation or `reset_after`,
            or lacks a bias that is not zero.
        TypeError: if `layer` is not a Layer, or `like` holds other layers.

    Example::

        >>> gru = keras.layers.GRU(4, return_sequences=True)  # doctest: +SKIP
        >>> gru.build((None, None, 3))  # doctest: +SKIP
        >>> gru.set_weights(rnnx.interop.to_keras(layer, params, like=gru))  # doctest: +SKIP
    """
    levels = levels_of(check_is_layer("to_keras", layer), params, "Keras")
    if like is not None:
        pairs = _split_directions("to_keras", like)
        for i, (forward, backward) in enumerate(pairs):
            _cell(f"to_keras, level {i}", forward, False)
            if backward is not None:
                _cell(f"to_keras, level {i} backward", backward, True)
        like = [forward if backward is None else (forward, backward) for forward, backward in pairs]
    results = convert_units(levels, _weights, like, "to_keras")
    flat = [
        [*one[0], *one[1]] if isinstance(one, tuple) else one for one in (results if len(levels) > 1 else [results])
    ]
    return flat if len(levels) > 1 else flat[0]


def _name(layer: Any) -> str:
    """The class name of a Keras layer; the empty string for any other object."""
    of = type(layer)
    return of.__name__ if of.__module__.startswith("keras.") else ""


def _split_directions(name: str, layer: Any) -> list[tuple[Any, Any]]:
    """The layers of each level: `(forward, backward or None)`."""
    layers = list(layer.layers) if _name(layer) == "Sequential" else layer
    layers = [one for one in layers if _name(one) not in WEIGHTLESS] if isinstance(layers, list) else [layers]
    pairs = []
    for one in layers:
        if _name(one) == "Bidirectional":
            if one.merge_mode != "concat":
                raise ValueError(
                    f"{name}: {one.name!r} has merge_mode={one.merge_mode!r}; only 'concat' can be converted"
                )
            pairs.append((one.forward_layer, one.backward_layer))
        else:
            pairs.append((one, None))
    return split_levels([pair if pair[1] is not None else pair[0] for pair in pairs], name)


def _cell(where: str, layer: Any, backward: bool) -> tuple[Any, str]:
    """Returns the cell of a layer and its kind; raises unless rnnx computes the same."""
    if _name(layer) not in LAYERS or _name(layer.cell) not in CELLS:
        got = f"an RNN of {type(layer.cell).__name__}" if _name(layer) == "RNN" else type(layer).__name__
        raise TypeError(
            f"{where}: expected SimpleRNN, LSTM or GRU, or a Bidirectional of one, but got {got}; if a model has other "
            "layers, pass a list of its recurrent ones"
        )
    cell, kind = layer.cell, CELLS[_name(layer.cell)]
    if layer.go_backwards != backward:
        raise ValueError(
            f"{where}: {layer.name!r} has go_backwards={layer.go_backwards}, which is converted only in the backward "
            "layer of a Bidirectional. (Convert it with go_backwards=False and wrap the layer in rnnx.reverse, whose "
            "outputs are in the order of the inputs.)"
        )
    expected = {"recurrent_activation": "sigmoid", "activation": "tanh"} if kind != "elman" else {}
    for option, value in expected.items():
        given = getattr(cell, option).__name__
        if given != value:
            raise ValueError(f"{where}: {layer.name!r} has {option}={given!r}, but rnnx.{kind} uses {value}")
    if kind == "elman" and _activation(cell) is None:
        raise ValueError(
            f"{where}: {layer.name!r} has the activation {cell.activation}, expected one of {[*ACTIVATIONS]}"
        )
    if not cell.built:
        raise ValueError(f"{where}: {layer.name!r} has no weights yet; build it, or call it once, before converting")
    return cell, kind


def _activation(cell: Any) -> Any:
    return ACTIVATIONS.get(cell.activation.__name__)


def _unit(where: str, layer: Any, backward: bool) -> Unit:
    cell, kind = _cell(where, layer, backward)
    width, columns = cell.units, GATES[kind] * cell.units
    kernel = check_weight(f"{where}: {layer.name}/kernel", _value(cell.kernel), (None, columns))
    recurrent = check_weight(f"{where}: {layer.name}/recurrent_kernel", _value(cell.recurrent_kernel), (width, columns))
    shape = _bias_shape(cell, kind)
    if cell.bias is None:
        bias = jnp.zeros(shape, kernel.dtype)
    else:
        bias = check_weight(f"{where}: {layer.name}/bias", _value(cell.bias), shape)
    ours = {"input_kernel": kernel, "recurrent_kernel": recurrent}
    if kind != "gru":
        ours["bias"] = bias
        return make_unit(kind, ours, **({"activation": _activation(cell)} if kind == "elman" else {}))
    order = (1, 0, 2)  # Keras orders the gates z, r, n
    ours = {name: reorder_gates(value, order) for name, value in ours.items()}
    if not cell.reset_after:
        return make_unit(kind, {**ours, "bias": reorder_gates(bias, order)}, reset_after=False)
    of_x, of_h = reorder_gates(bias[0], order), reorder_gates(bias[1], order)
    r_z, n = jnp.split(of_h, [2 * width])
    return make_unit(kind, {**ours, "bias": of_x.at[: 2 * width].add(r_z), "recurrent_bias": n})


def _bias_shape(cell: Any, kind: str) -> tuple[int, ...]:
    columns = GATES[kind] * cell.units
    return (2, columns) if kind == "gru" and cell.reset_after else (columns,)


def _value(variable: Any) -> Any:
    """The array of a variable: under the JAX backend the JAX array, which may be traced, else a NumPy array."""
    value = variable.value
    return value if isinstance(value, jax.Array) else variable.numpy()


def _weights(where: str, unit: Unit, like: Any) -> list[np.ndarray]:
    if unit.kind not in CELLS.values():
        raise ValueError(f"{where}: Keras has no layer like rnnx.{unit.kind}")
    check_options(unit, "Keras", ("reset_after", "activation"))
    p = {name: jnp.asarray(value) for name, value in unit.params.items()}
    if unit.kind == "gru":
        inner = p.pop("recurrent_bias", None)
        p = {name: reorder_gates(value, (1, 0, 2)) for name, value in p.items()}
        if inner is not None:
            p["bias"] = jnp.stack([p["bias"], jnp.concatenate([jnp.zeros_like(p["bias"][: 2 * inner.size]), inner])])
    weights = {"kernel": p["input_kernel"], "recurrent_kernel": p["recurrent_kernel"], "bias": p["bias"]}
    if like is not None:
        cell, width = like.cell, unit.options["width"]
        if (CELLS[_name(cell)], cell.units) != (unit.kind, width):
            raise ValueError(
                f"{where}: the layer has {unit.kind}(width={width}), but `like` has a {_name(like)} of {cell.units} "
                "units"
            )
        if unit.kind == "elman" and _activation(cell) is not unit.options.get("activation", jnp.tanh):
            raise ValueError(
                f"{where}: the activation of {like.name!r} is {cell.activation.__name__}, unlike that of the layer"
            )
        if unit.kind == "gru" and cell.reset_after != (weights["bias"].ndim == 2):
            raise ValueError(
                f"{where}: {like.name!r} has reset_after={cell.reset_after}, but the layer has {not cell.reset_after}; "
                "they cannot be converted into each other"
            )
        shapes = {"kernel": tuple(cell.kernel.shape), "recurrent_kernel": tuple(cell.recurrent_kernel.shape)}
        for name, shape in shapes.items():
            check_weight(f"{where}: {like.name}/{name}", weights[name], shape)
        if cell.bias is None:
            check_zero(where, "bias", weights.pop("bias"), f"{like.name!r} with use_bias=False")
    return [np.asarray(value) for value in weights.values()]
