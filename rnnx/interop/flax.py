"""Weights from and to the recurrent cells of Flax, linen and nnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros

from rnnx.base import Layer, Params
from rnnx.interop._entries import GATES, by_level, by_unit, entries, is_layer, needs_zero, reordered, unit_of, weight
from rnnx.interop._units import EVERYWHERE, Level, Unit, assembled, check_options, levels_of


class Layout(NamedTuple):
    """How a cell keeps its weights: submodules with one kernel each, of one gate or of all of them.

    Attributes:
        kind: the name of the rnnx factory.
        inputs, hidden: the submodules that read x and h, in the order of our gates.
        bias_on: which of the two have the biases.
        inner: the other submodule with a bias, if there is one: our `recurrent_bias`, or of a ConvLSTM added to `bias`.
    """

    kind: str
    inputs: tuple[str, ...]
    hidden: tuple[str, ...]
    bias_on: str
    inner: str | None = None


LSTM = Layout("lstm", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"), "hidden")
LINEN = {
    "SimpleCell": Layout("elman", ("i",), ("h",), "inputs"),
    "LSTMCell": LSTM,
    "OptimizedLSTMCell": LSTM,
    "GRUCell": Layout("gru", ("ir", "iz", "in"), ("hr", "hz", "hn"), "inputs", inner="hn"),
    "MGUCell": Layout("mgu", ("if", "in"), ("hf", "hn"), "inputs", inner="hn"),
    "ConvLSTMCell": Layout("conv_lstm", ("ih",), ("hh",), "inputs", inner="hh"),
}
MGU_WITHOUT_RESET = Layout("ugrnn", ("if", "in"), ("hf", "hn"), "inputs")
NNX = {
    "SimpleCell": Layout("elman", ("dense_i",), ("dense_h",), "inputs"),
    "LSTMCell": LSTM._replace(inputs=("ii", "if_", "ig", "io")),
    "OptimizedLSTMCell": Layout("lstm", ("dense_i",), ("dense_h",), "hidden"),
    "GRUCell": Layout("gru", ("dense_i",), ("dense_h",), "inputs"),
}

IGFO = (0, 2, 1, 3)  # from ConvLSTMCell's order of gates to ours and back: g and f change places
CONV_FORGET_BIAS = 1.0  # what ConvLSTMCell adds to f at run time


def from_flax(module: Any, params: Any = None) -> tuple[Layer, Params]:
    """The Layer that computes what recurrent cells of Flax do, with their weights.

    Args:
        module: a `SimpleCell`, `LSTMCell`, `OptimizedLSTMCell` or `GRUCell` of linen or nnx, a `MGUCell` or
            `ConvLSTMCell` of linen, an `RNN` of one of them, or a `Bidirectional` of two; a pair of cells is
            `(forward, backward)`, and a list has the levels of a deeper net, each one of these.
        params: of linen, the module's params, `variables["params"]` or what of it belongs to the module (or the
            variables themselves), in pairs and lists like `module`. Modules of nnx have theirs inside: None.

    Returns:
        `(layer, params)`, the dtype of the weights kept. Of several levels the layer is a `rnnx.stack`, of two
        directions a `rnnx.bidirectional`.

    Raises:
        TypeError: for other modules.
        ValueError: for what rnnx computes otherwise (activations, an initial carry that is not zero, `residual`,
            `reverse`, another merge, strides or padding of a `ConvLSTMCell`), for missing or superfluous entries, and
            arrays of a wrong shape: the message names the entry and both shapes.

    A carry of Flax's LSTM is (c, h), here it is `LSTMCarry(h, c)`; so it is with the ConvLSTM. Outputs beyond the
    lengths are zero here. nnx's GRUCell has no bias b'_n within the reset: it becomes zeros. MGUCell becomes
    `rnnx.mgu(reset_after=True)`, without its `reset_gate` `rnnx.ugrnn`. ConvLSTMCell has two biases, and adds 1 to
    the forget gate when it runs: the bias here is the sum of the three. Layers compute in the dtype of their inputs,
    whatever the module's `dtype` says.

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
        came = f"{len(given)} of them" if isinstance(given, list) else f"a {type(given).__name__}"
        raise ValueError(
            f"from_flax: for a list of {len(modules)} modules params are a list like it, but came as {came}"
        )
    levels = []
    for i, (one, its) in enumerate(zip(modules, given)):
        where = f"from_flax, level {i}"
        forward, backward = _sides(where, one)
        if backward is None:
            levels.append(Level(_unit(where, forward, its)))
        else:
            of_forward, of_backward = _params_of_sides(where, one, its)
            units = _unit(where, forward, of_forward), _unit(f"{where} backward", backward, of_backward)
            levels.append(Level(*units))
    return assembled(levels)


def to_flax(layer: Layer, params: Params, like: Any = None) -> Any:
    """A layer's weights as the params of Flax modules.

    Args:
        layer: `rnnx.elman`, `lstm`, `gru`, `mgu(reset_after=True)`, `ugrnn` or `conv_lstm`, `rnnx.bidirectional` of
            one of them, or a `rnnx.stack` of those.
        params: its params.
        like: the modules that they are for, in the form that `from_flax` takes. Default: linen's `SimpleCell`,
            `LSTMCell` (`OptimizedLSTMCell` has the same params), `GRUCell`, `MGUCell` (of `ugrnn` without its
            `reset_gate`) and `ConvLSTMCell`.

    Returns:
        The params of one module for one layer, a pair for two directions, a list for several levels; those of a
        linen `RNN` are `{"cell": ...}`, those of a `Bidirectional` `{"forward_rnn": ..., "backward_rnn": ...}`. For a
        module of nnx they are what `nnx.update(module, ...)` takes; the module itself is left as it is.

    Raises:
        ValueError: for a layer without a counterpart (a GRU or MGU which resets before the product, a ConvLSTM with
            peepholes, strides or a padding other than "SAME"), for params that do not fit the layer, and where `like`
            has another kind, size or activation, or no place for a bias which is not zero (b'_n in nnx's GRUCell).
        TypeError: when `layer` is no Layer, or `like` holds other modules.

    A forget bias b of a ConvLSTM is stored as b - 1, and the other of Flax's two biases is zero; back again it is b,
    but for the rounding of that sum.

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
    levels = levels_of(is_layer("to_flax", layer), params, "Flax", kinds, _check_convolutions)
    if like is None:
        return by_unit(levels, _weights, None, "to_flax")
    modules = like if isinstance(like, list) else [like]
    sides = [_sides(f"to_flax, level {i}", one) for i, one in enumerate(modules)]
    nested = [forward if backward is None else (forward, backward) for forward, backward in sides]
    results = by_unit(levels, _weights, nested, "to_flax")
    results = results if len(levels) > 1 else [results]
    for i, module in enumerate(modules):
        if _name(module) == "Bidirectional":
            results[i] = dict(zip(("forward_rnn", "backward_rnn"), results[i]))
    return results if len(levels) > 1 else results[0]


def _name(module: Any) -> str:
    """The class of a module of Flax's own, without its path; of any other object the empty string."""
    of = type(module)
    return of.__name__ if of.__module__.startswith(("flax.linen.", "flax.nnx.")) else ""


def _is_linen(module: Any) -> bool:
    return type(module).__module__.startswith("flax.linen.")


def _sides(where: str, module: Any) -> tuple[Any, Any]:
    if isinstance(module, tuple):
        return by_level(module, where)[0]
    if _name(module) != "Bidirectional":
        return module, None
    if module.merge_fn.__name__ != "_concatenate":
        raise ValueError(f"{where}: a Bidirectional is converted with its default merge_fn, not {module.merge_fn}")
    return module.forward_rnn, module.backward_rnn


def _params_of_sides(where: str, module: Any, params: Any) -> tuple[Any, Any]:
    if params is None or not (isinstance(module, tuple) or _is_linen(module)):
        return params, params
    if isinstance(module, tuple):
        if not isinstance(params, tuple) or len(params) != 2:
            raise ValueError(f"{where}: params of a pair of modules are a pair, but came as {type(params).__name__}")
        return params
    given = entries(where, _unboxed(where, params), ("forward_rnn", "backward_rnn"))
    return given["forward_rnn"], given["backward_rnn"]


def _unboxed(where: str, params: Any) -> Mapping[str, Any]:
    """Plain params: out of `variables`, and of the boxes of partitioning metadata."""
    if not isinstance(params, Mapping):
        raise ValueError(f"{where}: params of a linen module are a mapping, but came as {type(params).__name__}")
    return nn.meta.unbox(params.get("params", params))


def _cell(where: str, module: Any) -> tuple[Any, Layout]:
    """The cell in the module, and its layout, once it computes what we compute."""
    name, linen = _name(module), _is_linen(module)
    if name == "RNN":
        if module.reverse:
            raise ValueError(
                f"{where}: an RNN with reverse=True; convert its cell, and put rnnx.reverse around the layer"
            )
        return _cell(where, module.cell)
    layouts = LINEN if linen else NNX
    if name not in layouts:
        raise TypeError(
            f"{where}: {', '.join(layouts)}, an RNN of one of them and a Bidirectional of two can be converted, "
            f"but got {type(module).__module__}.{type(module).__name__}"
        )
    layout = layouts[name]
    if name == "MGUCell" and not module.reset_gate:
        layout = MGU_WITHOUT_RESET
    if name == "ConvLSTMCell" and not _is_one(1 if module.strides is None else module.strides):
        raise ValueError(
            f"{where}: a ConvLSTMCell with strides={module.strides!r} cannot be converted: they stride its convolution "
            "of h too, which never shrinks the image in rnnx.conv_lstm"
        )
    if name == "ConvLSTMCell" and module.padding != "SAME":
        raise ValueError(
            f"{where}: a ConvLSTMCell with padding={module.padding!r} cannot be converted: it pads h like x, and "
            "rnnx.conv_lstm pads h with 'SAME'"
        )
    wanted = {"gate_fn": jax.nn.sigmoid, "activation_fn": jnp.tanh, "residual": False}
    for option, value in wanted.items():
        came = getattr(module, option, value)
        if came is not value and not (option == "activation_fn" and layout.kind == "elman"):
            raise ValueError(f"{where}: a {name} with {option}={came!r} cannot be converted; rnnx has {value!r} there")
    if module.carry_init not in (None, zeros):
        raise ValueError(f"{where}: a {name} with a carry_init of its own; rnnx.{layout.kind} begins with zeros")
    return module, layout


def _is_one(sizes: int | Sequence[int]) -> bool:
    return all(size == 1 for size in (sizes if isinstance(sizes, Sequence) else (sizes,)))


def _check_convolutions(layer: Layer) -> None:
    """Raises for a ConvLSTM that computes what Flax's cannot."""
    name, options = layer.spec.name, layer.spec.options
    if name != "conv_lstm":
        return
    if options.get("peephole"):
        raise ValueError(f"Flax's ConvLSTMCell has no peepholes, so it has no place for those of\n{layer}")
    if not _is_one(options.get("strides", 1)):
        raise ValueError(
            f"Flax's ConvLSTMCell strides its convolution of h too, so its only strides that work are 1, not those of\n"
            f"{layer}"
        )
    if options.get("padding", "SAME") != "SAME":
        raise ValueError(
            f"Flax's ConvLSTMCell pads h like x, and only 'SAME' keeps the image's size, not the padding of\n{layer}"
        )


def _unit(where: str, module: Any, params: Any) -> Unit:
    cell, layout = _cell(where, module)
    names = (*layout.inputs, *layout.hidden)
    biased = {*getattr(layout, layout.bias_on), *([layout.inner] if layout.inner else [])}
    if not getattr(cell, "use_bias", True):
        biased = set()
    if _is_linen(cell):
        if params is None:
            raise ValueError(f"{where}: a linen module has no weights of its own; give its params too")
        width, given = cell.features, _unboxed(where, params)
        if _name(module) == "RNN" and "cell" in given:
            given = given["cell"]
        features = None
    else:
        if params is not None:
            raise ValueError(f"{where}: a module of nnx has its weights inside; leave params out")
        width, features = cell.hidden_features, cell.in_features
        given = {name: {"kernel": getattr(cell, name).kernel[...]} for name in names}
        for name in biased:
            given[name]["bias"] = getattr(cell, name).bias[...]
    given = entries(f"{where}: the params of a {_name(cell)}", given, names)

    def array(name: str, entry: str, shape: tuple[int | None, ...]) -> jax.Array:
        wanted = ("kernel", "bias") if name in biased else ("kernel",)
        return weight(f"{where}: {name}/{entry}", entries(f"{where}: {name}", given[name], wanted)[entry], shape)

    columns = _columns(layout, width)
    if layout.kind == "conv_lstm":
        size = tuple(cell.kernel_size)
        kernel = array("ih", "kernel", (*size, None, columns))
        bias = jnp.zeros((columns,), kernel.dtype)
        if biased:
            bias = array("ih", "bias", (columns,)) + array("hh", "bias", (columns,))
        convolutions = {
            "input_kernel": reordered(kernel, IGFO),
            "recurrent_kernel": reordered(array("hh", "kernel", (*size, width, columns)), IGFO),
            "bias": reordered(bias, IGFO).at[width : 2 * width].add(CONV_FORGET_BIAS),
        }
        return unit_of(layout.kind, convolutions, kernel_size=size)
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
    return unit_of(layout.kind, ours, **options)


def _columns(layout: Layout, width: int) -> int:
    """The columns of one submodule's kernel."""
    return GATES[layout.kind] * width // len(layout.inputs)


def _weights(where: str, unit: Unit, like: Any) -> dict[str, Any]:
    known = ("reset_after", "activation", "kernel_size", "strides", "padding", "peephole", "peephole_init")
    check_options(unit, "Flax", known)
    p = unit.params
    if unit.kind in ("gru", "mgu") and "recurrent_bias" not in p:
        raise ValueError(
            f"{where}: Flax's {unit.kind.upper()}Cell resets after the recurrent product, this one (reset_after=False) "
            "before it; neither can be converted into the other"
        )
    if like is None:
        layouts = (*LINEN.values(), MGU_WITHOUT_RESET)
        cell, layout = None, next(layout for layout in layouts if layout.kind == unit.kind)
    else:
        cell, layout = _cell(where, like)
        _check_fit(where, unit, cell, layout)

    weights: dict[str, dict[str, jax.Array]] = {name: {} for name in (*layout.inputs, *layout.hidden)}
    if layout.kind == "conv_lstm":
        width = unit.options["width"]
        bias = reordered(jnp.asarray(p["bias"]).at[width : 2 * width].add(-CONV_FORGET_BIAS), IGFO)
        weights["ih"]["kernel"] = reordered(jnp.asarray(p["input_kernel"]), IGFO)
        weights["hh"]["kernel"] = reordered(jnp.asarray(p["recurrent_kernel"]), IGFO)
        if cell is None or cell.use_bias:
            weights["ih"]["bias"], weights["hh"]["bias"] = bias, jnp.zeros_like(bias)
        else:
            needs_zero(where, "bias (less the 1 of the forget gate)", bias, "ConvLSTMCell(use_bias=False)")
        return {"cell": weights} if _name(like) == "RNN" else weights
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
        needs_zero(where, "recurrent_bias", p["recurrent_bias"], "nnx.GRUCell")
    if cell is not None and _name(like) == "RNN":
        return {"cell": weights}
    return weights


def _check_fit(where: str, unit: Unit, cell: Any, layout: Layout) -> None:
    name, activation = _name(cell), unit.options.get("activation", jnp.tanh)
    width = cell.features if _is_linen(cell) else cell.hidden_features
    if (layout.kind, width) != (unit.kind, unit.options["width"]):
        reset = ", without reset_gate" if layout is MGU_WITHOUT_RESET else ""
        raise ValueError(
            f"{where}: the layer has {unit.kind}(width={unit.options['width']}) where `like` has {name} with {width} "
            f"units{reset}"
        )
    size = jnp.shape(unit.params["input_kernel"])[:-2]
    if unit.kind == "conv_lstm" and tuple(cell.kernel_size) != size:
        raise ValueError(f"{where}: the layer's kernel_size is {size}, that of `like` {tuple(cell.kernel_size)}")
    if unit.kind == "elman" and cell.activation_fn is not activation:
        raise ValueError(f"{where}: the units of the layer are {activation}, those of `like` {cell.activation_fn}")
    if not _is_linen(cell):
        columns = _columns(layout, width) * len(layout.inputs)
        weight(f"{where}: input_kernel", unit.params["input_kernel"], (cell.in_features, columns))
