"""Weights from and to Haiku: `hk.VanillaRNN`, `hk.LSTM` and `hk.GRU`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.arguments import shown
from rnnx.base import Layer, Params
from rnnx.interop._entries import by_level, by_unit, entries, is_layer, reordered, unit_of, weight
from rnnx.interop._units import Level, Unit, assembled, check_options, levels_of

MODULES = {"elman": "vanilla_rnn", "lstm": "lstm", "gru": "gru"}
LSTM_FORGET_BIAS = 1.0  # what Haiku's LSTM adds to f at run time


def from_haiku(params: Mapping[str, Mapping[str, Any]], names: Any = None) -> tuple[Layer, Params]:
    """The Layer that computes what recurrent modules of Haiku do, with their weights.

    Args:
        params: what the `init` of `hk.transform` gave: `{module name: {name: array}}`. Other modules in it are left
            alone.
        names: of the recurrent module as Haiku has it, `"lstm"` or `"my_net/~/lstm_1"`; a pair of names is
            `(forward, backward)`, and a list has the levels of a deeper net, each a name or such a pair: the order
            in which modules run cannot be read from params. Default: the only one there is.

    Returns:
        `(layer, params)`, the dtype of the weights kept. A module is told by its entries: a GRU has `w_i`, `w_h` and
        `b`, an LSTM one inner `linear`, a VanillaRNN `linear` and `linear_1` (which becomes
        `rnnx.elman(activation=jax.nn.relu)`). Of several levels the layer is a `rnnx.stack`, of a pair a
        `rnnx.bidirectional`.

    Raises:
        ValueError: for a name that is not there, a missing or superfluous entry, an array of a wrong shape (the
            message names it and both shapes), and where there are several modules and no `names`.

    Haiku's LSTM adds 1 to the forget gate when it runs: here it is in the bias. Its GRU resets before the recurrent
    product, as `rnnx.gru(reset_after=False)` does, and z lets in what is new, so that the sign of its weights
    changes.

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
            f"from_haiku takes a net's params, a dict of dicts by module and name, but {shown(params)} came"
        )
    if names is None:
        found = _modules(params)
        if len(found) != 1:
            raise ValueError(
                f"from_haiku: params have the recurrent modules {found}; say which, in the order in which they run: "
                "names=['lstm', 'lstm_1'] (and a pair of names for two directions)"
            )
        names = found[0]
    levels = []
    for forward, backward in by_level(names, "from_haiku"):
        levels.append(Level(_unit(params, forward), None if backward is None else _unit(params, backward)))
    return assembled(levels)


def to_haiku(layer: Layer, params: Params, names: Any = None) -> dict[str, dict[str, jax.Array]]:
    """A layer's weights as the params of Haiku modules.

    Args:
        layer: `rnnx.lstm`, `rnnx.gru(reset_after=False)` or `rnnx.elman(activation=jax.nn.relu)`,
            `rnnx.bidirectional` of one of them, or a `rnnx.stack` of those.
        params: its params.
        names: of the modules, in the form that `from_haiku` takes. Default: those that Haiku gives to modules made
            in this order, forward before backward: `lstm`, `lstm_1`, ...

    Returns:
        `{module name: {name: array}}`, to be merged into the params of a transformed function.

    Raises:
        ValueError: for a layer without a counterpart (a GRU which resets after the product, an Elman network
            whose units are not relu), for params that do not fit the layer, and for as many names as there are not
            modules.
        TypeError: when `layer` is no Layer.

    A forget bias b is stored as b - 1; back again it is b, but for the rounding of that sum.

    Example::

        >>> hk_params = {**hk_params, **rnnx.interop.to_haiku(layer, params)}  # doctest: +SKIP
        >>> ys, state = hk_net.apply(hk_params, None, xs)  # doctest: +SKIP
    """
    levels = levels_of(is_layer("to_haiku", layer), params, "Haiku")
    modules: dict[str, dict[str, jax.Array]] = {}
    count: Counter[str] = Counter()

    def place(where: str, unit: Unit, name: str | None) -> None:
        if name is None:
            name = MODULES.get(unit.kind, unit.kind)
            count[name] += 1
            name = name if count[name] == 1 else f"{name}_{count[name] - 1}"
        if not isinstance(name, str):
            raise TypeError(f"{where}: names is {shown(name)} there, but the name of a module is wanted, e.g. 'lstm'")
        modules.update(_weights(where, unit, name))

    by_unit(levels, place, names, "to_haiku")
    return modules


def _modules(params: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of what look like recurrent modules."""
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
        f"from_haiku: there is no module {name!r}: neither {name} itself (a GRU) nor {name}/linear (an LSTM), "
        f"with {name}/linear_1 (a VanillaRNN); the modules are {sorted(params)}"
    )


def _gru(name: str, module: Any) -> Unit:
    """Its gates come as z, r, n."""
    given = entries(f"from_haiku: {name}", module, ("w_i", "w_h", "b"))
    recurrent = weight(f"from_haiku: {name}/w_h", given["w_h"], (None, None))
    width = recurrent.shape[0]
    recurrent = weight(f"from_haiku: {name}/w_h", recurrent, (width, 3 * width))
    kernel = weight(f"from_haiku: {name}/w_i", given["w_i"], (None, 3 * width))
    bias = weight(f"from_haiku: {name}/b", given["b"], (3 * width,))
    ours = {"input_kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
    return unit_of("gru", {key: _z_r_exchanged(v, z=0) for key, v in ours.items()}, reset_after=False)


def _z_r_exchanged(v: jax.Array, z: int) -> jax.Array:
    """r before z instead of z before r, or back, with the sign of z (block number `z`) changed: 1 - σ(v) is σ(-v)."""
    blocks = jnp.split(v, 3, axis=-1)
    blocks[z] = -blocks[z]
    return jnp.concatenate([blocks[1], blocks[0], blocks[2]], axis=-1)


def _lstm(name: str, module: Any) -> Unit:
    """Its gates come as i, g, f, o, in one kernel for x and h."""
    given = entries(f"from_haiku: {name}", module, ("w", "b"))
    bias = weight(f"from_haiku: {name}/b", given["b"], (None,))
    width = bias.size // 4
    kernel = weight(f"from_haiku: {name}/w", given["w"], (None, 4 * width))
    if bias.size % 4 or kernel.shape[0] <= width:
        raise ValueError(
            f"from_haiku: {name}/w has the shape {kernel.shape} and {name}/b {bias.shape}, but those of an LSTM of H "
            "units with D inputs are (D + H, 4H) and (4H,)"
        )
    kernel, bias = reordered(kernel, (0, 2, 1, 3)), reordered(bias, (0, 2, 1, 3))
    *xs, hs = jnp.split(kernel, [kernel.shape[0] - width])
    bias = bias.at[width : 2 * width].add(LSTM_FORGET_BIAS)
    return unit_of("lstm", {"input_kernel": xs[0], "recurrent_kernel": hs, "bias": bias})


def _elman(name: str, of_x: Any, of_h: Any) -> Unit:
    """Its two biases are summed; with `double_bias=False` there is but one."""
    x = entries(f"from_haiku: {name}/linear", of_x, ("w", "b"))
    h = entries(f"from_haiku: {name}/linear_1", of_h, ("w", "b") if "b" in of_h else ("w",))
    bias = weight(f"from_haiku: {name}/linear/b", x["b"], (None,))
    width = bias.size
    kernel = weight(f"from_haiku: {name}/linear/w", x["w"], (None, width))
    recurrent = weight(f"from_haiku: {name}/linear_1/w", h["w"], (width, width))
    if "b" in h:
        bias = bias + weight(f"from_haiku: {name}/linear_1/b", h["b"], (width,))
    return unit_of(
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
        return {f"{name}/linear": {"w": reordered(kernel, (0, 2, 1, 3)), "b": reordered(bias, (0, 2, 1, 3))}}
    if unit.kind == "gru":
        if "recurrent_bias" in p:
            raise ValueError(
                f"{where}: Haiku's GRU resets before the recurrent product, this one (reset_after=True) after it; "
                "neither can be converted into the other"
            )
        kernels = {"w_i": p["input_kernel"], "w_h": p["recurrent_kernel"], "b": p["bias"]}
        return {name: {key: _z_r_exchanged(v, z=1) for key, v in kernels.items()}}
    activation = unit.options.get("activation", jnp.tanh)
    if activation is not jax.nn.relu:
        raise ValueError(
            f"{where}: the units of Haiku's VanillaRNN are relu, those of this rnnx.elman "
            f"{getattr(activation, '__name__', activation)}"
        )
    return {
        f"{name}/linear": {"w": p["input_kernel"], "b": p["bias"]},
        f"{name}/linear_1": {"w": p["recurrent_kernel"], "b": jnp.zeros_like(p["bias"])},
    }
