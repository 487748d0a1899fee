"""Converts weights from and to the recurrent cells of Flax, linen and nnx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rnnx.base import Layer, Params
from rnnx.interop._entries import (
    GATES,
    check_entries,
    check_is_layer,
    check_weight,
    check_zero,
    convert_units,
    make_unit,
    reorder_gates,
    split_levels,
)
from rnnx.interop._flax_cells import (
    CONV_FORGET_BIAS,
    IGFO,
    LINEN,
    MGU_WITHOUT_RESET,
    Layout,
    cell_and_layout,
    class_name,
    is_linen,
    is_one,
)
from rnnx.interop._units import EVERYWHERE, Level, Unit, assemble, check_options, levels_of


def from_flax(module: Any, params: Any = None) -> tuple[Layer, Params]:
    """Converts recurrent cells of Flax to the equivalent Layer and its params.

    Args:
        module: a `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` or `GRUCell` of linen or nnx, a `MGUCell` or
            `ConvLSTMCell` of linen, an `RNN` of one of them, or a `Bidirectional` of two; or a pair of cells
            `(forward, backward)`; or a list, the levels of a deeper network, each one of these.
        params: for linen, the params of the module: `variables["params"]`, or the part of it for this module (or the
            variables themselves), nested in pairs and lists like `module`. For nnx, whose modules hold their params:
            None.

    Returns:
        `(layer, params)`; weights keep their dtype. For several levels the layer is a `rnnx.stack`, for two directions
        a `rnnx.bidirectional`.

    Raises:
        TypeError: for other modules.
        ValueError: if rnnx computes something else (activations, a nonzero initial carry, `residual`, `reverse`,
            another merge, strides or padding of a `ConvLSTMCell`); if entries are missing or unexpected; if an array
            has the wrong shape: the message names the entry and both shapes.

    The carry of Flax's LSTM and ConvLSTM is (c, h); in rnnx it is `LSTMCarry(h, c)`. In rnnx, outputs beyond the
    lengths are zero. nnx's GRUCell has no bias b'_n inside the reset: it becomes zeros. MGUCell becomes
    `rnnx.mgu(reset_after=True)`, or `rnnx.ugrnn` without its `reset_gate`. ConvLSTMCell has two biases, and adds 1 to
    the forget gate at run time: the bias in rnnx is the sum of the three. Layers compute in the dtype of their inputs,
    whatever the module's `dtype`.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> xs = jnp.ones((2, 5, 3))
        >>> rnn = nn.RNN(nn.LSTMCell(4))
        >>> variables = rnn.init(jax.random.key(0), xs)
        >>> layer, params = rnnx.interop.from_flax(rnn, variables)
        >>> layer
        lstm(width=4)
        >>> bool(jnp.allclose(rnnx.unroll(layer, params, xs)[1], rnn.apply(variables, xs), atol=1e-6))
        True
    """
    modules = module if isinstance(module, list) else [module]
    given = params if isinstance(module, list) and params is not None else [params] * len(modules)
    if not isinstance(given, list) or len(given) != len(modules):
        got = f"a list of {len(given)}" if isinstance(given, list) else f"a {type(given).__name__}"
        raise ValueError(
            f"from_flax: for a list of {len(modules)} modules, params must be such a list too, but got {got}"
        )
    levels = []
    for i, (one, its) in enumerate(zip(modules, given)):
        where = f"from_flax, level {i}"
        forward, backward = _split_directions(where, one)
        if backward is None:
            levels.append(Level(_unit(where, forward, its)))
        else:
            of_forward, of_backward = _split_params(where, one, its)
            units = _unit(where, forward, of_forward), _unit(f"{where} backward", backward, of_backward)
            levels.append(Level(*units))
    return assemble(levels)


def to_flax(layer: Layer, params: Params, like: Any = None) -> Any:
    """Converts the weights of a layer to the params of Flax modules.

    Args:
        layer: `rnnx.elman`, `lstm`, `gru`, `mgu(reset_after=True)`, `ugrnn` or `conv_lstm`, `rnnx.bidirectional` of
            one of them, or a `rnnx.stack` of those.
        params: its params.
        like: the target modules, in the form that `from_flax` takes. Default: linen's `SimpleCell`, `LSTMCell`
            (`OptimizedLSTMCell` has the same params), `GRUCell`, `MGUCell` (without its `reset_gate` for `ugrnn`) and
            `ConvLSTMCell`.

    Returns:
        The params of one module for one layer, a pair for two directions, a list for several levels. Those of a linen
        `RNN` are `{"cell": ...}`, those of a `Bidirectional` `{"forward_rnn": ..., "backward_rnn": ...}`. For a module
        of nnx, pass them to `nnx.update(module, ...)`; `like` is not changed.

    Raises:
        ValueError: if the layer has no equivalent (a GRU or MGU that resets before the product, a ConvLSTM with
            peepholes, strides or a padding other than "SAME"); if the params do not fit the layer; if `like` has
            another kind, size or activation, or lacks a bias that is not zero (b'_n in nnx's GRUCell).
        TypeError: if `layer` is not a Layer, or `like` holds other modules.

    The forget bias b of a ConvLSTM is stored as b - 1, and the second of Flax's two biases as zero; converting back
    gives b, up to the rounding of that sum.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> xs = jnp.ones((2, 5, 3))
        >>> layer = rnnx.gru(4)
        >>> params = layer.init(jax.random.key(0), xs)
        >>> rnn = nn.RNN(nn.GRUCell(4))
        >>> weights = rnnx.interop.to_flax(layer, params, like=rnn)
        >>> rnn.apply({"params": weights}, xs).shape
        (2, 5, 4)
        >>> sorted(weights["cell"])
        ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
    """
    kinds = (*EVERYWHERE, "mgu", "ugrnn", "conv_lstm")
    levels = levels_of(check_is_layer("to_flax", layer), params, "Flax", kinds, _check_convolutions)
    if like is None:
        return convert_units(levels, _weights, None, "to_flax")
    modules = like if isinstance(like, list) else [like]
    sides = [_split_directions(f"to_flax, level {i}", one) for i, one in enumerate(modules)]
    nested = [forward if backward is None else (forward, backward) for forward, backward in sides]
    results = convert_units(levels, _weights, nested, "to_flax")
    results = results if len(levels) > 1 else [results]
    for i, module in enumerate(modules):
        if class_name(module) == "Bidirectional":
            results[i] = dict(zip(("forward_rnn", "backward_rnn"), results[i]))
    return results if len(levels) > 1 else results[0]


def _split_directions(where: str, module: Any) -> tuple[Any, Any]:
    if isinstance(module, tuple):
        return split_levels(module, where)[0]
    if class_name(module) != "Bidirectional":
        return module, None
    if module.merge_fn.__name__ != "_concatenate":
        raise ValueError(f"{where}: a Bidirectional must have the default merge_fn, but got {module.merge_fn}")
    return module.forward_rnn, module.backward_rnn


def _split_params(where: str, module: Any, params: Any) -> tuple[Any, Any]:
    if params is None or not (isinstance(module, tuple) or is_linen(module)):
        return params, params
    if isinstance(module, tuple):
        if not isinstance(params, tuple) or len(params) != 2:
            raise ValueError(f"{where}: params of a pair of modules must be a pair, but got {type(params).__name__}")
        return params
    given = check_entries(where, _unboxed(where, params), ("forward_rnn", "backward_rnn"))
    return given["forward_rnn"], given["backward_rnn"]


def _unboxed(where: str, params: Any) -> Mapping[str, Any]:
    """Extracts plain params from `variables`, without the boxes of partitioning metadata."""
    if not isinstance(params, Mapping):
        raise ValueError(f"{where}: params of a linen module must be a mapping, but got {type(params).__name__}")
    return nn.meta.unbox(params.get("params", params))


def _check_convolutions(layer: Layer) -> None:
    """Raises for a ConvLSTM that Flax's ConvLSTMCell cannot compute."""
    name, options = layer.spec.name, layer.spec.options
    if name != "conv_lstm":
        return
    if options.get("peephole"):
        raise ValueError(f"Flax's ConvLSTMCell has no peepholes, unlike\n{layer}")
    if not is_one(options.get("strides", 1)):
        raise ValueError(
            f"Flax's ConvLSTMCell strides its convolution of h too, so only strides of 1 work, unlike those of\n{layer}"
        )
    if options.get("padding", "SAME") != "SAME":
        raise ValueError(
            f"Flax's ConvLSTMCell pads h like x, and only 'SAME' keeps the image's size, unlike the padding of\n{layer}"
        )


def _unit(where: str, module: Any, params: Any) -> Unit:
    cell, layout = cell_and_layout(where, module)
    names = (*layout.inputs, *layout.hidden)
    biased = {*getattr(layout, layout.bias_on), *([layout.inner] if layout.inner else [])}
    if not getattr(cell, "use_bias", True):
        biased = set()
    if is_linen(cell):
        if params is None:
            raise ValueError(f"{where}: a linen module holds no weights; pass its params too")
        width, given = cell.features, _unboxed(where, params)
        if class_name(module) == "RNN" and "cell" in given:
            given = given["cell"]
        features = None
    else:
        if params is not None:
            raise ValueError(f"{where}: a module of nnx holds its weights; leave params out")
        width, features = cell.hidden_features, cell.in_features
        given = {name: {"kernel": getattr(cell, name).kernel[...]} for name in names}
        for name in biased:
            given[name]["bias"] = getattr(cell, name).bias[...]
    given = check_entries(f"{where}: the params of a {class_name(cell)}", given, names)

    def array(name: str, entry: str, shape: tuple[int | None, ...]) -> jax.Array:
        found = check_entries(f"{where}: {name}", given[name], ("kernel", "bias") if name in biased else ("kernel",))
        return check_weight(f"{where}: {name}/{entry}", found[entry], shape)

    columns = _columns(layout, width)
    if layout.kind == "conv_lstm":
        size = tuple(cell.kernel_size)
        kernel = array("ih", "kernel", (*size, None, columns))
        bias = jnp.zeros((columns,), kernel.dtype)
        if biased:
            bias = array("ih", "bias", (columns,)) + array("hh", "bias", (columns,))
        convolutions = {
            "input_kernel": reorder_gates(kernel, IGFO),
            "recurrent_kernel": reorder_gates(array("hh", "kernel", (*size, width, columns)), IGFO),
            "bias": reorder_gates(bias, IGFO).at[width : 2 * width].add(CONV_FORGET_BIAS),
        }
        return make_unit(layout.kind, convolutions, kernel_size=size)
    kernels = []
    for name in layout.inputs:
        kernels.append(array(name, "kernel", (features, columns)))
        features = kernels[0].shape[0]
    ours = {
        "input_kernel": jnp.concatenate(kernels, axis=1),
        "recurrent_kernel": jnp.concatenate([array(n, "kernel", (width, columns)) for n in layout.hidden], axis=1),
        "bias": jnp.concatenate([array(n, "bias", (columns,)) for n in getattr(layout, layout.bias_on)]),
    }
    if layout.inner:
        ours["recurrent_bias"] = array(layout.inner, "bias", (width,))
    elif layout.kind == "gru":
        ours["recurrent_bias"] = jnp.zeros((width,), ours["bias"].dtype)
    options: dict[str, Any] = {"reset_after": True} if layout.kind == "mgu" else {}
    if layout.kind == "elman":
        options["activation"] = cell.activation_fn
    return make_unit(layout.kind, ours, **options)


def _columns(layout: Layout, width: int) -> int:
    """The number of columns of one submodule's kernel."""
    return GATES[layout.kind] * width // len(layout.inputs)


def _weights(where: str, unit: Unit, like: Any) -> dict[str, Any]:
    known = ("reset_after", "activation", "kernel_size", "strides", "padding", "peephole", "peephole_init")
    check_options(unit, "Flax", known)
    p = unit.params
    if unit.kind in ("gru", "mgu") and "recurrent_bias" not in p:
        raise ValueError(
            f"{where}: Flax's {unit.kind.upper()}Cell resets after the recurrent product, but this one "
            "(reset_after=False) before it; they cannot be converted into each other"
        )
    if like is None:
        layouts = (*LINEN.values(), MGU_WITHOUT_RESET)
        cell, layout = None, next(layout for layout in layouts if layout.kind == unit.kind)
    else:
        cell, layout = cell_and_layout(where, like)
        _check_fit(where, unit, cell, layout)

    weights: dict[str, dict[str, jax.Array]] = {name: {} for name in (*layout.inputs, *layout.hidden)}
    if layout.kind == "conv_lstm":
        width = unit.options["width"]
        bias = reorder_gates(jnp.asarray(p["bias"]).at[width : 2 * width].add(-CONV_FORGET_BIAS), IGFO)
        weights["ih"]["kernel"] = reorder_gates(jnp.asarray(p["input_kernel"]), IGFO)
        weights["hh"]["kernel"] = reorder_gates(jnp.asarray(p["recurrent_kernel"]), IGFO)
        if cell is None or cell.use_bias:
            weights["ih"]["bias"], weights["hh"]["bias"] = bias, jnp.zeros_like(bias)
        else:
            check_zero(where, "bias (minus the 1 of the forget gate)", bias, "ConvLSTMCell(use_bias=False)")
        return {"cell": weights} if class_name(like) == "RNN" else weights
    blocks = len(layout.inputs)
    parts = {
        (layout.inputs, "kernel"): p["input_kernel"],
        (layout.hidden, "kernel"): p["recurrent_kernel"],
        (getattr(layout, layout.bias_on), "bias"): p["bias"],
    }
    for (names, entry), whole in parts.items():
        for name, block in zip(names, jnp.split(jnp.asarray(whole), blocks, axis=-1)):
            weights[name][entry] = block
    if layout.inner:
        weights[layout.inner]["bias"] = jnp.asarray(p["recurrent_bias"])
    elif layout.kind == "gru":
        check_zero(where, "recurrent_bias", p["recurrent_bias"], "nnx.GRUCell")
    if cell is not None and class_name(like) == "RNN":
        return {"cell": weights}
    return weights


def _check_fit(where: str, unit: Unit, cell: Any, layout: Layout) -> None:
    name, activation = class_name(cell), unit.options.get("activation", jnp.tanh)
    width = cell.features if is_linen(cell) else cell.hidden_features
    if (layout.kind, width) != (unit.kind, unit.options["width"]):
        reset = ", without reset_gate" if layout is MGU_WITHOUT_RESET else ""
        raise ValueError(
            f"{where}: the layer has {unit.kind}(width={unit.options['width']}), but `like` has {name} with {width} "
            f"units{reset}"
        )
    size = jnp.shape(unit.params["input_kernel"])[:-2]
    if unit.kind == "conv_lstm" and tuple(cell.kernel_size) != size:
        raise ValueError(f"{where}: the layer's kernel_size is {size}, but that of `like` is {tuple(cell.kernel_size)}")
    if unit.kind == "elman" and cell.activation_fn is not activation:
        raise ValueError(f"{where}: the layer's activation is {activation}, but that of `like` is {cell.activation_fn}")
    if not is_linen(cell):
        columns = _columns(layout, width) * len(layout.inputs)
        check_weight(f"{where}: input_kernel", unit.params["input_kernel"], (cell.in_features, columns))
