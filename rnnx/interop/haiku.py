"""Converts weights from and to Haiku: `hk.VanillaRNN`, `hk.LSTM` and `hk.GRU`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.arguments import describe
from rnnx.base import Layer, Params
from rnnx.interop._entries import (
    check_entries,
    check_is_layer,
    check_weight,
    convert_units,
    make_unit,
    reorder_gates,
    split_levels,
)
from rnnx.interop._units import Level, Unit, assemble, check_options, levels_of

MODULES = {"elman": "vanilla_rnn", "lstm": "lstm", "gru": "gru"}
LSTM_FORGET_BIAS = 1.0  # Haiku's LSTM adds this to f at run time


def from_haiku(params: Mapping[str, Mapping[str, Any]], names: Any = None) -> tuple[Layer, Params]:
    """Converts recurrent modules of Haiku to the equivalent Layer and its params.

    Args:
        params: the result of the `init` of `hk.transform`: `{module name: {name: array}}`. Other modules in it are
            ignored.
        names: the name of the recurrent module in Haiku, `"lstm"` or `"my_net/~/lstm_1"`; or a pair of names
            `(forward, backward)`; or a list, the levels of a deeper network, each a name or such a pair, since params
            do not record the order of modules. Default: the only recurrent module.

    Returns:
        `(layer, params)`; weights keep their dtype. The entries identify a module: a GRU has `w_i`, `w_h` and `b`, an
        LSTM one inner `linear`, a VanillaRNN `linear` and `linear_1` (it becomes
        `rnnx.elman(activation=jax.nn.relu)`). For several levels the layer is a `rnnx.stack`, for a pair a
        `rnnx.bidirectional`.

    Raises:
        ValueError: if a name does not exist; if an entry is missing or unexpected; if an array has the wrong shape (the
            message names it and both shapes); if there are several modules and no `names`.

    Haiku's LSTM adds 1 to the forget gate at run time; in rnnx this is part of the bias. Its GRU resets before the
    recurrent product, like `rnnx.gru(reset_after=False)`, and its z is the weight of the new state, so the sign of z's
    weights changes.

    Example::

        >>> import haiku as hk, jax, jax.numpy as jnp, rnnx  # doctest: +SKIP
        >>> xs = jnp.ones((5, 2, 3))  # doctest: +SKIP
        >>> def net(xs):  # doctest: +SKIP
        ...     lstm = hk.LSTM(4)
        ...     return hk.dynamic_unroll(lstm, xs, lstm.initial_state(2))
        >>> hk_net = hk.transform(net)  # doctest: +SKIP
        >>> hk_params = hk_net.init(jax.random.key(0), xs)  # doctest: +SKIP
        >>> layer, params = rnnx.interop.from_haiku(hk_params)  # doctest: +SKIP
        >>> layer  # doctest: +SKIP
        lstm(width=4)
    """
    if not isinstance(params, Mapping) or not all(isinstance(module, Mapping) for module in params.values()):
        raise TypeError(
            f"from_haiku takes the params of a network, {{module name: {{name: array}}}}, but got {describe(params)}"
        )
    if names is None:
        found = _modules(params)
        if len(found) != 1:
            raise ValueError(
                f"from_haiku: params have the recurrent modules {found}; pass their names, in the order in which they "
                "run: names=['lstm', 'lstm_1'] (or a pair of names for two directions)"
            )
        names = found[0]
    levels = []
    for forward, backward in split_levels(names, "from_haiku"):
        levels.append(Level(_unit(params, forward), None if backward is None else _unit(params, backward)))
    return assemble(levels)


def to_haiku(layer: Layer, params: Params, names: Any = None) -> dict[str, dict[str, jax.Array]]:
    """Converts the weights of a layer to the params of Haiku modules.

    Args:
        layer: `rnnx.lstm`, `rnnx.gru(reset_after=False)` or `rnnx.elman(activation=jax.nn.relu)`,
            `rnnx.bidirectional` of one of them, or a `rnnx.stack` of those.
        params: its params.
        names: the names of the modules, in the form that `from_haiku` takes. Default: the names that Haiku gives to
            modules created in this order, forward before backward: `lstm`, `lstm_1`, ...

    Returns:
        `{module name: {name: array}}`, to merge into the params of a transformed function.

    Raises:
        ValueError: if the layer has no equivalent (a GRU that resets after the product, an Elman network without relu
            units); if the params do not fit the layer; if the number of names differs from that of modules.
        TypeError: if `layer` is not a Layer.

    A forget bias b is stored as b - 1; converting back gives b, up to the rounding of that sum.

    Example::

        >>> hk_params = {**hk_params, **rnnx.interop.to_haiku(layer, params)}  # doctest: +SKIP
        >>> ys, state = hk_net.apply(hk_params, None, xs)  # doctest: +SKIP
    """
    levels = levels_of(check_is_layer("to_haiku", layer), params, "Haiku")
    modules: dict[str, dict[str, jax.Array]] = {}
    count: Counter[str] = Counter()

    def place(where: str, unit: Unit, name: str | None) -> None:
        if name is None:
            name = MODULES.get(unit.kind, unit.kind)
            count[name] += 1
            name = name if count[name] == 1 else f"{name}_{count[name] - 1}"
        if not isinstance(name, str):
            raise TypeError(f"{where}: names has {describe(name)}, expected the name of a module, e.g. 'lstm'")
        modules.update(_weights(where, unit, name))

    convert_units(levels, place, names, "to_haiku")
    return modules


def _modules(params: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of modules that look recurrent."""
    found = {name for name, module in params.items() if set(module) == {"w_i", "w_h", "b"}}
    for name, module in params.items():
        head, _, tail = name.rpartition("/")
        inner = tail == "linear" and f"{head}/linear_1" in params
        if head and (inner or (tail == "linear" and head.rpartition("/")[2].startswith("lstm") and "b" in module)):
            found.add(head)
    return sorted(found)


def _unit(params: Mapping[str, Mapping[str, Any]], name: str) -> Unit:
    inner = [tail for tail in ("linear", "linear_1") if f"{name}/{tail}" in params]
    if name in params:
        return _gru(name, params[name])
    if inner == ["linear"]:
        return _lstm(f"{name}/linear", params[f"{name}/linear"])
    if inner == ["linear", "linear_1"]:
        return _elman(name, params[f"{name}/linear"], params[f"{name}/linear_1"])
    raise ValueError(
        f"from_haiku: there is no module {name!r}: neither {name} (a GRU), nor {name}/linear (an LSTM), nor also "
        f"{name}/linear_1 (a VanillaRNN); the modules are {sorted(params)}"
    )


def _gru(name: str, module: Any) -> Unit:
    """Converts a GRU, whose gates are ordered z, r, n."""
    given = check_entries(f"from_haiku: {name}", module, ("w_i", "w_h", "b"))
    recurrent = check_weight(f"from_haiku: {name}/w_h", given["w_h"], (None, None))
    width = recurrent.shape[0]
    recurrent = check_weight(f"from_haiku: {name}/w_h", recurrent, (width, 3 * width))
    kernel = check_weight(f"from_haiku: {name}/w_i", given["w_i"], (None, 3 * width))
    bias = check_weight(f"from_haiku: {name}/b", given["b"], (3 * width,))
    ours = {"input_kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
    return make_unit("gru", {key: _swap_z_and_r(v, z=0) for key, v in ours.items()}, reset_after=False)


def _swap_z_and_r(v: jax.Array, z: int) -> jax.Array:
    """Swaps the blocks of z and r, and changes the sign of z (block number `z`): 1 - σ(v) is σ(-v)."""
    blocks = jnp.split(v, 3, axis=-1)
    blocks[z] = -blocks[z]
    return jnp.concatenate([blocks[1], blocks[0], blocks[2]], axis=-1)


def _lstm(name: str, module: Any) -> Unit:
    """Converts an LSTM, whose gates are ordered i, g, f, o, in one kernel for x and h."""
    given = check_entries(f"from_haiku: {name}", module, ("w", "b"))
    bias = check_weight(f"from_haiku: {name}/b", given["b"], (None,))
    width = bias.size // 4
    kernel = check_weight(f"from_haiku: {name}/w", given["w"], (None, 4 * width))
    if bias.size % 4 or kernel.shape[0] <= width:
        raise ValueError(
            f"from_haiku: {name}/w has shape {kernel.shape} and {name}/b {bias.shape}, expected (D + H, 4H) and (4H,), "
            "as in an LSTM of H units with D inputs"
        )
    kernel, bias = reorder_gates(kernel, (0, 2, 1, 3)), reorder_gates(bias, (0, 2, 1, 3))
    *xs, hs = jnp.split(kernel, [kernel.shape[0] - width])
    bias = bias.at[width : 2 * width].add(LSTM_FORGET_BIAS)
    return make_unit("lstm", {"input_kernel": xs[0], "recurrent_kernel": hs, "bias": bias})


def _elman(name: str, of_x: Any, of_h: Any) -> Unit:
    """Converts a VanillaRNN; sums its two biases (with `double_bias=False` there is only one)."""
    x = check_entries(f"from_haiku: {name}/linear", of_x, ("w", "b"))
    h = check_entries(f"from_haiku: {name}/linear_1", of_h, ("w", "b") if "b" in of_h else ("w",))
    bias = check_weight(f"from_haiku: {name}/linear/b", x["b"], (None,))
    width = bias.size
    kernel = check_weight(f"from_haiku: {name}/linear/w", x["w"], (None, width))
    recurrent = check_weight(f"from_haiku: {name}/linear_1/w", h["w"], (width, width))
    if "b" in h:
        bias = bias + check_weight(f"from_haiku: {name}/linear_1/b", h["b"], (width,))
    return make_unit(
        "elman", {"input_kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}, activation=jax.nn.relu
    )


def _weights(where: str, unit: Unit, name: str) -> dict[str, dict[str, jax.Array]]:
    if unit.kind not in MODULES:
        raise ValueError(f"{where}: Haiku has no module like rnnx.{unit.kind}")
    check_options(unit, "Haiku", ("reset_after", "activation"))
    p = unit.params
    if unit.kind == "lstm":
        kernel = jnp.concatenate([p["input_kernel"], p["recurrent_kernel"]])
        width = unit.options["width"]
        bias = p["bias"].at[width : 2 * width].add(-LSTM_FORGET_BIAS)
        return {f"{name}/linear": {"w": reorder_gates(kernel, (0, 2, 1, 3)), "b": reorder_gates(bias, (0, 2, 1, 3))}}
    if unit.kind == "gru":
        if "recurrent_bias" in p:
            raise ValueError(
                f"{where}: Haiku's GRU resets before the recurrent product, but this one (reset_after=True) after it; "
                "they cannot be converted into each other"
            )
        kernels = {"w_i": p["input_kernel"], "w_h": p["recurrent_kernel"], "b": p["bias"]}
        return {name: {key: _swap_z_and_r(v, z=1) for key, v in kernels.items()}}
    activation = unit.options.get("activation", jnp.tanh)
    if activation is not jax.nn.relu:
        raise ValueError(
            f"{where}: the activation of Haiku's VanillaRNN is relu, but that of this rnnx.elman is "
            f"{getattr(activation, '__name__', activation)}"
        )
    return {
        f"{name}/linear": {"w": p["input_kernel"], "b": p["bias"]},
        f"{name}/linear_1": {"w": p["recurrent_kernel"], "b": jnp.zeros_like(p["bias"])},
    }
