"""Hints in errors for names, keywords and calls that other libraries use, with the equivalent in rnnx."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_WIDTH = "the width is the first argument: rnnx.{name}(256)"
_INPUT = "the input size is read from xs: params = layer.init(key, xs)"
_DEPTH = "to stack layers: rnnx.stack(rnnx.{name}(256), rnnx.{name}(256))"
_AXES = "arrays are always [batch, time, ...]"
_RETURNS = "rnnx.unroll always returns both, (carry, ys): the final state and the outputs of all steps"
_BIAS = "there is always a bias, initialised to zero"
_DROPOUT = "dropout is a separate layer: rnnx.stack(rnnx.{name}(256), rnnx.dropout(0.5))"
_CARRY = "to continue from a state, pass carry: rnnx.unroll(layer, params, xs, carry=carry)"
_LENGTHS = (
    "padded rows take lengths: rnnx.unroll(layer, params, xs, lengths=lengths); from a mask: lengths=mask.sum(axis=1)"
)
_RESETS = "resets are True where an episode begins: rnnx.unroll(layer, params, xs, resets=resets)"
_KEY = "randomness comes from a key: layer.init(key, xs), and rnnx.unroll(layer, params, xs, key=key) for dropout"
_TRAINING = "there is no training flag: dropout is on if a key is given, rnnx.unroll(layer, params, xs, key=key)"
_REVERSE = "rnnx.reverse(layer) reads from right to left; outputs keep the order of the inputs"
_BOTH = "rnnx.bidirectional(rnnx.{name}(256)) reads in both directions"
_DTYPE = "param_dtype= is the dtype of params and carry; outputs have the dtype of xs"

KEYWORDS = {
    **dict.fromkeys(("hidden_size", "hidden_dim", "hidden_features", "hidden", "n_hidden", "num_hidden"), _WIDTH),
    **dict.fromkeys(("units", "num_units", "n_units", "features", "out_features", "num_features"), _WIDTH),
    **dict.fromkeys(("output_size", "output_dim", "out_channels", "filters", "d_model", "dim", "embed_dim"), _WIDTH),
    **dict.fromkeys(("input_size", "input_dim", "input_shape", "in_features", "in_channels", "n_inputs"), _INPUT),
    **dict.fromkeys(("num_layers", "n_layers", "layers", "depth"), _DEPTH),
    **dict.fromkeys(("batch_first", "time_major", "batch_axis", "time_axis"), _AXES),
    **dict.fromkeys(("return_sequences", "return_state", "return_carry", "return_all"), _RETURNS),
    **dict.fromkeys(("bias", "use_bias", "with_bias"), _BIAS),
    **dict.fromkeys(("dropout", "dropout_rate", "p"), _DROPOUT),
    "recurrent_dropout": "it wraps the cell: rnnx.scan(rnnx.recurrent_dropout(rnnx.cells.{name}(256), 0.25))",
    **dict.fromkeys(("bidirectional",), _BOTH),
    **dict.fromkeys(("go_backwards", "reverse", "keep_order"), _REVERSE),
    **dict.fromkeys(
        ("initial_state", "initial_carry", "init_carry", "init_state", "hx", "h0", "h_0", "state", "hidden_state"),
        _CARRY,
    ),
    "stateful": _CARRY,
    **dict.fromkeys(("mask", "masks", "padding_mask", "attention_mask"), _LENGTHS),
    **dict.fromkeys(("seq_lengths", "seq_lens", "sequence_length", "sequence_lengths", "lens", "length"), _LENGTHS),
    **dict.fromkeys(("reset", "done", "dones", "is_first", "terminals", "episode_starts"), _RESETS),
    **dict.fromkeys(("key", "rng", "rngs", "seed", "prng_key"), _KEY),
    **dict.fromkeys(("training", "train", "is_training", "deterministic", "inference"), _TRAINING),
    **dict.fromkeys(("dtype", "compute_dtype"), _DTYPE),
    "unroll": "unroll is an option of the evaluator: rnnx.scan(rnnx.cells.{name}(256), unroll=8)",
    "proj_size": "use projection=: rnnx.lstm(256, projection=64)",
    "unit_forget_bias": "use forget_bias=: rnnx.lstm(256, forget_bias=1.0)",
    **dict.fromkeys(
        ("nonlinearity", "activation", "activation_fn"), "rnnx.elman takes one: rnnx.elman(256, activation=jax.nn.relu)"
    ),
    **dict.fromkeys(("kernel_initializer", "weight_init", "w_init"), "kernel_init= initialises the input kernel"),
    **dict.fromkeys(
        ("recurrent_initializer", "recurrent_init"), "recurrent_kernel_init= initialises the recurrent kernel"
    ),
    "bias_initializer": "bias_init= initialises the bias",
    "return_sequence": _RETURNS,
    "name": "a layer is named after its factory; in a stack its params are under '0_{name}'",
}
"""Keywords that rnnx does not have, or that belong to another function."""

_IN_LINEN = "use the one in flax.linen: rnnx.stack(rnnx.lstm(256), nn.Dense(10)), with import flax.linen as nn"
_UNROLL = "rnnx.unroll(layer, params, xs) runs a layer"

NAMES = {
    **dict.fromkeys(("RNN", "SimpleRNN", "VanillaRNN", "RNNCell", "SimpleCell", "SimpleRNNCell"), "rnnx.elman(width)"),
    **dict.fromkeys(("OptimizedLSTMCell", "CuDNNLSTM"), "rnnx.lstm(width)"),
    **dict.fromkeys(("ConvLSTM", "ConvLSTMCell", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), "rnnx.conv_lstm(width)"),
    **dict.fromkeys(("BiLSTM", "BidirectionalLSTM", "bilstm"), "rnnx.bidirectional(rnnx.lstm(width))"),
    **dict.fromkeys(
        ("Sequential", "StackedRNNCells", "StackedRNN", "MultiRNNCell", "DeepRNN"),
        "rnnx.stack(rnnx.lstm(256), rnnx.lstm(256))",
    ),
    **dict.fromkeys(("Dense", "Linear", "Embed", "Embedding", "LayerNorm", "BatchNorm", "Conv", "nn"), _IN_LINEN),
    **dict.fromkeys(("TimeDistributed", "Lambda"), "rnnx.pointwise(function)"),
    **dict.fromkeys(("dynamic_rnn", "dynamic_unroll", "static_unroll", "apply", "run", "call"), _UNROLL),
    **dict.fromkeys(("init", "Module"), "params = layer.init(key, xs) initialises the params of a layer"),
    **dict.fromkeys(("pad_sequence", "pad_sequences"), "rnnx.pad(sequences)"),
    **dict.fromkeys(("pack_sequence", "pack_padded_sequence", "PackedSequence"), "rnnx.pack(sequences)"),
    **dict.fromkeys(("pad_packed_sequence", "unpack_sequence"), "rnnx.unpack(packed, ys)"),
    **dict.fromkeys(("Masking", "mask"), _LENGTHS),
    **dict.fromkeys(("Mamba", "mamba"), "rnnx.s6(width)"),
    **dict.fromkeys(("S4", "s4"), "rnnx.s4d(width)"),
    **dict.fromkeys(("xLSTM", "xlstm"), "rnnx.slstm(width) and rnnx.mlstm(width)"),
    **dict.fromkeys(("ESN", "esn", "EchoState", "EchoStateNetwork"), "rnnx.reservoir(width)"),
    **dict.fromkeys(("LIF", "lif", "LSNN", "SNN"), "rnnx.alif(width)"),
    "scaled_identity": "rnnx.cells.scaled_identity(1.0)",
}
"""Names that `rnnx` does not have, and the equivalent of each."""


def explain_name(module: str, name: str, public: Iterable[str]) -> str:
    """Explains a name that a module does not have."""
    public = list(public)
    if name.startswith("_"):
        return f"module {module!r} has no attribute {name!r}"
    normalized = _normalize(name)
    ours = next((ours for ours in public if normalized in (_normalize(ours), f"{_normalize(ours)}cell")), None)
    if name in NAMES:
        hint = NAMES[name]
    elif ours and name != ours and ours.islower():
        kind = f"{module}.cells" if name.endswith("Cell") and module == "rnnx" else module
        hint = f"functions make layers and cells: {kind}.{ours}(...)"
    else:
        close = difflib.get_close_matches(name.lower(), public, n=3)
        hint = f"did you mean {' or '.join(f'{module}.{one}' for one in close)}?" if close else f"see {module}.__all__"
    return f"{module} has no {name}: {hint}"


def explain_call(make: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Explains a call whose arguments do not fit the signature of `make`."""
    parameters = inspect.signature(make).parameters
    name = make.__name__
    unknown = [keyword for keyword in kwargs if keyword not in parameters]
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if unknown:
        return f"{name} got {unknown[0]}=, which it does not take; {_keyword_hint(name, unknown[0], parameters)}"
    if len(args) > len(positional):
        counts = f"{len(args)} positional arguments, but takes {len(positional)}: {', '.join(positional) or 'none'}"
        if positional[:1] == ["width"] and len(args) == 2:
            return f"{name} got {counts}; {_INPUT}, and {_WIDTH.format(name=name)}"
        others = ", ".join(p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY)
        return f"{name} got {counts}{f'; by keyword it takes {others}' if others else ''}"
    duplicates = [given for given in positional[: len(args)] if given in kwargs]
    if duplicates:
        return f"{name} got {duplicates[0]} twice, as a positional argument and as {duplicates[0]}="
    missing = [
        p.name for p in parameters.values() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    missing = [one for one in missing if one not in kwargs and one not in positional[: len(args)]]
    return f"{name} needs {' and '.join(missing)}: rnnx.{name}{_example(parameters)}"


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function: explains the error of a call that does not fit its signature."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            check_call(function, args, kwargs)
            raise

    return wrapped


def check_call(make: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raises, with an explanation, if the arguments do not fit the signature of `make`."""
    try:
        inspect.signature(make).bind(*args, **kwargs)
    except TypeError:
        raise TypeError(explain_call(make, args, kwargs)) from None


def _keyword_hint(name: str, keyword: str, parameters: Mapping[str, inspect.Parameter]) -> str:
    hint, takes = KEYWORDS.get(keyword), _keywords(parameters)
    misleading = (hint == _WIDTH and "width" not in parameters) or (hint == _DROPOUT and "rate" in parameters)
    if hint is not None and not misleading:
        return hint.format(name=name if "width" in parameters else "lstm")
    close = difflib.get_close_matches(keyword, parameters, n=1)
    return f"did you mean {close[0]}=? It takes {takes}" if close else f"it takes {takes}"


def _keywords(parameters: Mapping[str, inspect.Parameter]) -> str:
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return ", ".join(f"{stars.get(p.kind, '')}{name}" for name, p in parameters.items()) or "nothing"


def _example(parameters: Mapping[str, inspect.Parameter]) -> str:
    required = [p for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return f"({', '.join(f'{p.name}={p.name}' if p.kind is p.KEYWORD_ONLY else p.name for p in required)})"


def _normalize(name: str) -> str:
    return name.replace("_", "").lower()
