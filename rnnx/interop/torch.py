"""Converts weights from and to torch.nn.RNN, LSTM and GRU."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import describe
from rnnx.base import Layer, Params
from rnnx.interop._units import Level, Unit, assemble, check_options, levels_of

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
ENTRY = re.compile(r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l(\d+)(_reverse)?)?")

CELL = (("",),)
"""The suffixes of a cell's entries: one layer and one direction, so an empty suffix."""


def from_torch(module: Any) -> tuple[Layer, Params]:
    """Converts a torch module to the equivalent Layer and its params.

    Args:
        module: a `torch.nn.RNN`, `LSTM` or `GRU`, with any number of layers and directions, with or without biases and
            `proj_size`; or an `RNNCell`, `LSTMCell` or `GRUCell`. It is not changed, and shares no memory with the
            params.

    Returns:
        `(layer, params)`: `rnnx.elman`, `lstm` or `gru`; `bidirectional` of it for both directions; a `stack` of those
        for several layers, with `rnnx.dropout` between them if the module has dropout (active if there is a key,
        whether the module is in train or eval mode). Params have the module's dtype.

        torch's two biases are added, except for the b'_n of a GRU (n's part of `bias_hh`), which is rnnx's
        `recurrent_bias`; without biases (`bias=False`) those of rnnx are zero. `batch_first` does not matter: in rnnx,
        xs are always `[batch, time, features]`. torch's final `h_n[layer * directions + direction]` is the `h` in the
        carry of that layer and direction, and `c_n` the `c`: with two layers and both directions, `h_n[1]` is
        `carry[0].backward.h`.

    Raises:
        TypeError: for anything else, including state dicts, files and subclasses.
        ValueError: if an entry of the module is missing, unknown, or does not fit the others in shape or dtype; the
            message names it. For float64 if JAX is not in x64 mode.

    To convert weights in a file, load them into a module without unpickling code (`torch.load` with
    `weights_only=True`, or `safetensors`), or pass plain arrays to `rnnx.interop.from_torch_arrays`.

    Example (with torch)::

        lstm = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
        layer, params = rnnx.interop.from_torch(lstm)
        carry, ys = rnnx.unroll(layer, params, xs)  # equals lstm(xs)
    """
    if isinstance(module, Mapping):
        raise TypeError(
            "from_torch takes a module, but got a state dict, which does not tell its kind: build the module, "
            "load_state_dict, and pass it; or call from_torch_arrays(state_dict, mode=...)"
        )
    if isinstance(module, str | bytes | os.PathLike):
        raise TypeError(
            f"from_torch takes a module, but got {module!r}; it opens no files, since unpickling may run code: build "
            "the module, load its weights with torch.load(path, weights_only=True), and pass the module"
        )
    import torch

    nets = (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
    cells = (torch.nn.RNNCell, torch.nn.LSTMCell, torch.nn.GRUCell)
    if type(module) in nets:
        mode, projection, rate = module.mode, module.proj_size or None, module.dropout
        suffixes = _suffixes(module.num_layers, module.bidirectional)
    elif type(module) in cells:
        kind = type(module).__name__.removesuffix("Cell")
        mode = f"RNN_{module.nonlinearity.upper()}" if kind == "RNN" else kind
        projection, rate, suffixes = None, 0.0, CELL
    elif isinstance(module, nets):
        raise TypeError(
            f"{type(module).__name__} is a subclass of torch's recurrent nets and may compute something else; if it "
            f"does not, call from_torch_arrays(module.state_dict(), mode={module.mode!r})"
        )
    else:
        modules = module.named_modules() if isinstance(module, torch.nn.Module) else ()
        inside = [name for name, m in modules if type(m) in (*nets, *cells)]
        hint = f"; it contains {inside}: pass one of those" if inside else ""
        raise TypeError(
            "from_torch takes a torch.nn.RNN, LSTM, GRU, RNNCell, LSTMCell or GRUCell, but got "
            f"{type(module).__name__}{hint}"
        )
    form = _Architecture(mode, module.input_size, module.hidden_size, bool(module.bias), projection, suffixes)
    return _convert(form, module.state_dict(), rate)


def from_torch_arrays(arrays: Mapping[str, Any], *, mode: str) -> tuple[Layer, Params]:
    """Converts weights in torch's layout, under torch's names, like `from_torch`, but without torch.

    Args:
        arrays: a state dict of a `torch.nn.RNN`, `LSTM` or `GRU` (or of one of the cells), as NumPy arrays or
            tensors: `{"weight_ih_l0": ..., "weight_hh_l0": ..., "bias_ih_l0": ..., "bias_hh_l0": ...}`, for the second
            direction `weight_ih_l0_reverse`, and so on. Layers, directions, widths and `proj_size` are read from names
            and shapes. From a larger model, select the entries of one net and remove the prefix::

                {name.removeprefix("encoder."): a for name, a in state.items() if name.startswith("encoder.")}
        mode: the kind of net, which the weights do not show: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU", as in the
            module's own `mode`.

    Returns:
        `(layer, params)` as from `from_torch`, without dropout, which the weights do not show.

    Raises:
        ValueError: for an unknown mode; if an entry is missing, unknown, or does not fit the others in shape or dtype;
            the message names it. (It cannot detect that the last layers are missing altogether; `from_torch` knows
            their number.) For float64 if JAX is not in x64 mode.

    Example::

        >>> import jax.numpy as jnp, numpy as np, rnnx
        >>> from rnnx.interop.torch import from_torch_arrays
        >>> random = np.random.default_rng(0)
        >>> shapes = {"weight_ih_l0": (12, 3), "weight_hh_l0": (12, 4), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
        >>> arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        >>> layer, params = from_torch_arrays(arrays, mode="GRU")
        >>> layer
        gru(width=4)
        >>> carry, ys = rnnx.unroll(layer, params, jnp.ones((2, 5, 3)))
        >>> ys.shape
        (2, 5, 4)
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"from_torch_arrays takes a dict of arrays under torch's names, but got {describe(arrays)}")
    if mode not in GATES:
        raise ValueError(f"mode is {mode!r}, but it must be one of {list(GATES)}")
    found = {name: ENTRY.fullmatch(name) for name in arrays}
    unknown = [name for name, match in found.items() if match is None]
    if unknown:
        raise ValueError(
            f"{unknown} are not entries of a torch.nn.RNN, LSTM or GRU (e.g. weight_ih_l0, bias_hh_l1_reverse); pass "
            "only those of one net, without a prefix"
        )
    matches = [match for match in found.values() if match is not None]
    numbers = [int(match[2]) for match in matches if match[2] is not None]
    reverse = any(match[3] for match in matches)
    # With a layer number too large for so few entries, no long list is made; the entry is rejected below.
    suffixes = _suffixes(min(1 + max(numbers), len(arrays)), reverse) if numbers else CELL
    projected = f"weight_hr{suffixes[0][0]}" if any(match[1] == "weight_hr" for match in matches) else None
    features = _columns(arrays, f"weight_ih{suffixes[0][0]}")
    state = _columns(arrays, f"weight_hh{suffixes[0][0]}")
    width, projection = (_columns(arrays, projected), state) if projected else (state, None)
    bias = any(match[1].startswith("bias") for match in matches)
    return _convert(_Architecture(mode, features, width, bias, projection, suffixes), arrays, 0.0)


def to_torch(layer: Layer, params: Params, *, bias: bool = True) -> dict[str, Any]:
    """Converts a layer's weights to a state dict for the equivalent torch module.

    Args:
        layer: `rnnx.elman` (with tanh or relu), `lstm` (with or without `projection`) or `gru`; `bidirectional` of
            one of them; or a `stack` of those, all of one kind and width, and all in one or all in both directions.
            `rnnx.dropout` in it is left out. Its structure is read from its `spec`.
        params: its params.
        bias: whether the module has biases; with False, all biases of the layer must be zero.

    Returns:
        A dict of tensors on the CPU, in the dtypes of the params, for `load_state_dict` of a `torch.nn.RNN`, `LSTM`
        or `GRU` built with matching `num_layers`, `bidirectional`, `proj_size`, `nonlinearity` and `bias`. (The entries
        of an `RNNCell`, `LSTMCell` or `GRUCell` have no suffix `_l0`.) The bias goes to `bias_ih`; `bias_hh` is zero
        except for the b'_n of a GRU, so converting to torch and back gives exactly the same params.

    Raises:
        ValueError: if no torch module computes the layer, or the params do not fit it.

    Example (with torch)::

        layer = rnnx.stack(rnnx.gru(5), rnnx.gru(5))
        params = layer.init(jax.random.key(0), xs)
        gru = torch.nn.GRU(xs.shape[-1], 5, num_layers=2, batch_first=True)
        gru.load_state_dict(rnnx.interop.to_torch(layer, params))
    """
    import torch

    def tensor(array: np.ndarray) -> Any:
        if array.dtype == jnp.bfloat16:  # torch cannot convert NumPy's bfloat16
            return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
        return torch.tensor(array)

    return {name: tensor(array) for name, array in to_torch_arrays(layer, params, bias=bias).items()}


def to_torch_arrays(layer: Layer, params: Params, *, bias: bool = True) -> dict[str, np.ndarray]:
    """Converts a layer's weights like `to_torch`, but to NumPy arrays, and without torch.

    Args:
        layer, params, bias: as in `to_torch`.

    Returns:
        Arrays in torch's layout, under torch's names.

    Raises:
        ValueError: if no torch module computes the layer, or the params do not fit it.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> from rnnx.interop.torch import to_torch_arrays
        >>> layer = rnnx.elman(4)
        >>> params = layer.init(jax.random.key(0), jnp.ones((2, 5, 3)))
        >>> for name, array in to_torch_arrays(layer, params).items():
        ...     print(name, array.shape)
        weight_ih_l0 (4, 3)
        weight_hh_l0 (4, 4)
        bias_ih_l0 (4,)
        bias_hh_l0 (4,)
    """
    if not isinstance(bias, bool):
        raise TypeError(f"to_torch: bias is {describe(bias)}, but it must be True or False")
    levels = [[unit for unit in level if unit is not None] for level in levels_of(layer, params, "torch")]
    described = {_signature(unit) for level in levels for unit in level}
    if len(described) > 1 or len({len(level) for level in levels}) > 1:
        raise ValueError(
            "all layers of a torch module have the same kind, width and number of directions, unlike those of\n"
            f"{layer}\nConvert its layers separately, each for its own module"
        )
    arrays: dict[str, np.ndarray] = {}
    for level, suffixes in zip(levels, _suffixes(len(levels), len(levels[0]) == 2)):
        for unit, suffix in zip(level, suffixes):
            entries = _entries(unit)
            if not bias and (entries.pop("bias_ih").any() | entries.pop("bias_hh").any()):
                raise ValueError(
                    f"to_torch: bias is False, but the biases of {unit.kind} are not zero; pass bias=True, or a layer "
                    "with zero biases"
                )
            arrays |= {name + suffix: array for name, array in entries.items()}
    return arrays


class _Architecture(NamedTuple):
    """The architecture of a torch net: it determines the entries of the state dict and their shapes."""

    mode: str
    features: int
    width: int
    bias: bool
    projection: int | None
    suffixes: tuple[tuple[str, ...], ...]  # of each layer: one per direction

    def shapes(self) -> dict[str, tuple[int, ...]]:
        columns, state = GATES[self.mode] * self.width, self.projection or self.width
        shapes: dict[str, tuple[int, ...]] = {}
        features = self.features
        for level in self.suffixes:
            for suffix in level:
                shapes[f"weight_ih{suffix}"] = (columns, features)
                shapes[f"weight_hh{suffix}"] = (columns, state)
                if self.bias:
                    shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (columns,)
                if self.projection:
                    shapes[f"weight_hr{suffix}"] = (self.projection, self.width)
            features = state * len(level)
        return shapes

    def __str__(self) -> str:
        options = ["bidirectional"] if len(self.suffixes[0]) == 2 else []
        options += [] if self.bias else ["no biases"]
        options += [f"proj_size {self.projection}"] if self.projection else []
        layers = "a cell" if self.suffixes == CELL else f"{len(self.suffixes)} layer(s)"
        return ", ".join([f"{self.mode} of width {self.width} for {self.features} features: {layers}", *options])


def _suffixes(layers: int, both: bool) -> tuple[tuple[str, ...], ...]:
    return tuple((f"_l{k}", f"_l{k}_reverse") if both else (f"_l{k}",) for k in range(layers))


def _columns(arrays: Mapping[str, Any], name: str) -> int:
    """The number of columns of a matrix, which determines other shapes."""
    if name not in arrays:
        raise ValueError(f"the entry {name} is missing; there are {list(arrays)}")
    shape = tuple(np.shape(arrays[name]))
    if len(shape) != 2:
        raise ValueError(f"the entry {name} has shape {shape}, expected a matrix (rows, columns)")
    return shape[1]


def _convert(form: _Architecture, arrays: Mapping[str, Any], dropout_rate: float) -> tuple[Layer, Params]:
    if form.projection and form.mode != "LSTM":
        raise ValueError(f"there are entries weight_hr of a projection, which only an LSTM has, but this is {form}")
    checked = _check_arrays(form, arrays)
    levels = [Level(*(_unit(form, checked, suffix) for suffix in level)) for level in form.suffixes]
    return assemble(levels, dropout_rate=dropout_rate)


def _check_arrays(form: _Architecture, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts the entries to NumPy arrays; raises if one is missing, unknown, or has another shape or dtype."""
    expected = form.shapes()
    unknown = sorted(set(arrays) - set(expected))
    if unknown:
        raise ValueError(f"unexpected entries {unknown} for {form}; it has {list(expected)}")
    for name, shape in expected.items():
        if name not in arrays:
            raise ValueError(f"the entry {name} of shape {shape} is missing from {form}; there are {list(arrays)}")
        given = tuple(np.shape(arrays[name]))
        if given != shape:
            raise ValueError(f"the entry {name} has shape {given}, expected {shape} in {form}")
    checked = {name: _array(arrays[name]) for name in expected}
    first = next(iter(checked))
    for name, array in checked.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"the entry {name} is {array.dtype}, expected floating numbers")
        if array.dtype != checked[first].dtype:
            raise ValueError(
                f"the entry {name} is {array.dtype}, but {first} is {checked[first].dtype}: dtypes must be equal"
            )
    return checked


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor
        if getattr(value, "is_meta", False):
            raise ValueError(
                "the weights are on torch's meta device, which stores no values; load them first, e.g. with "
                'module.to_empty(device="cpu") and load_state_dict'
            )
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # torch cannot convert it to NumPy
            import torch

            return value.view(torch.int16).numpy().view(jnp.bfloat16)
        return value.numpy()
    return np.asarray(value)


def _unit(form: _Architecture, arrays: Mapping[str, np.ndarray], suffix: str) -> Unit:
    kernel, recurrent = arrays[f"weight_ih{suffix}"], arrays[f"weight_hh{suffix}"]
    none = np.zeros(kernel.shape[:1], kernel.dtype)
    b_x, b_h = (arrays.get(f"{name}{suffix}", none) for name in ("bias_ih", "bias_hh"))
    params = {"input_kernel": kernel.T, "recurrent_kernel": recurrent.T}
    options: dict[str, Any] = {"width": form.width}
    if form.mode == "GRU":
        params["recurrent_bias"] = b_h[2 * form.width :]
        b_h = np.where(np.arange(len(b_h)) < 2 * form.width, b_h, none)
    # Where one bias is zero, take the other: a sum would turn -0.0 into 0.0.
    params["bias"] = np.where(b_h == 0, b_x, b_x + b_h)
    if form.projection:
        options["projection"] = form.projection
        params["projection_kernel"] = arrays[f"weight_hr{suffix}"].T
    if form.mode == "RNN_RELU":
        options["activation"] = jax.nn.relu
    return Unit({"LSTM": "lstm", "GRU": "gru"}.get(form.mode, "elman"), options, params)


def _entries(unit: Unit) -> dict[str, np.ndarray]:
    """The entries of one layer in one direction, without their suffix."""
    w = {name: np.asarray(p) for name, p in unit.params.items()}
    none = np.zeros_like(w["bias"])
    entries = {
        "weight_ih": w["input_kernel"].T,
        "weight_hh": w["recurrent_kernel"].T,
        "bias_ih": w["bias"],
        "bias_hh": none,
    }
    if unit.kind == "gru":
        entries["bias_hh"] = np.concatenate([none[: -w["recurrent_bias"].size], w["recurrent_bias"]])
    if "projection_kernel" in w:
        entries["weight_hr"] = w["projection_kernel"].T
    return {name: array.copy(order="C") for name, array in entries.items()}


def _signature(unit: Unit) -> tuple[Any, ...]:
    """The properties that all layers of a torch module share; raises if torch has no equivalent."""
    if unit.kind == "gru" and not unit.options.get("reset_after", True):
        raise ValueError(
            "gru(reset_after=False) applies the reset gate before the recurrent product, but torch's GRU after it; "
            "they cannot be converted into each other"
        )
    activation = unit.options.get("activation", jnp.tanh)
    if unit.kind == "elman" and activation not in (jnp.tanh, jax.lax.tanh, jax.nn.relu):
        raise ValueError(f"torch.nn.RNN has tanh and relu, but got elman with {activation}")
    check_options(unit, "torch", ("activation", "projection", "reset_after"))
    nonlinearity = activation is jax.nn.relu if unit.kind == "elman" else None
    return unit.kind, unit.params["recurrent_kernel"].shape, unit.options.get("projection"), nonlinearity
