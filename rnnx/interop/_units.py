"""The common form of all conversions: the levels of a network, each with one recurrent layer per direction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

import rnnx.layers
from rnnx.base import Layer, Params
from rnnx.checks import check_params
from rnnx.combinators.directions import bidirectional
from rnnx.combinators.noise import dropout
from rnnx.combinators.stacking import stack

KINDS: Mapping[str, Callable[..., Layer]] = {
    "elman": rnnx.layers.elman,
    "lstm": rnnx.layers.lstm,
    "gru": rnnx.layers.gru,
    "mgu": rnnx.layers.mgu,
    "ugrnn": rnnx.layers.ugrnn,
    "conv_lstm": rnnx.layers.conv_lstm,
}

EVERYWHERE = ("elman", "lstm", "gru")
"""The kinds that can be converted to every library; the modules of some libraries add others."""

WITHOUT_EFFECT = frozenset(
    {
        *("width", "param_dtype", "kernel_init", "recurrent_kernel_init", "bias_init", "forget_bias"),
        *("unroll", "checkpoint_every"),
    }
)
"""Options that affect only initialisation or evaluation, or that the shapes of the params determine."""


class Unit(NamedTuple):
    """One recurrent layer in one direction: the name and options of its rnnx factory, and its params."""

    kind: str
    options: Mapping[str, Any]
    params: Params


class Level(NamedTuple):
    """One level of a network: a recurrent layer and, if bidirectional, the one that reads from right to left."""

    forward: Unit
    backward: Unit | None = None


def levels_of(
    layer: Layer,
    params: Params,
    library: str,
    kinds: Sequence[str] = EVERYWHERE,
    check: Callable[[Layer], None] = lambda recurrent: None,
) -> list[Level]:
    """Splits a layer, by its spec, into levels; raises if the library has no equivalent.

    The recurrent layers must be of these `kinds`; `check` may raise for each of them before the params are checked. The
    params must have the structure and shapes that `layer.init` returns; otherwise an error names the first difference.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"expected a Layer, e.g. rnnx.lstm(512), and its params, but got {layer!r}")
    places = _find_recurrent(layer, library, kinds)
    for level in places:
        for recurrent, _ in level:
            kind, options = recurrent.spec.name, recurrent.spec.options
            known = inspect.signature(KINDS[kind]).parameters  # wrappers of a cell add others
            check_options(Unit(kind, options, {}), library, known)
            check(recurrent)
    _check_params(layer, params, places[0][0][0].spec.name)

    def unit(child: Layer, path: tuple[str, ...]) -> Unit:
        inner = params
        for key in path:
            inner = inner[key]
        return Unit(child.spec.name, child.spec.options, inner)

    return [Level(*(unit(*place) for place in level)) for level in places]


def assemble(levels: Sequence[Level], *, dropout_rate: float = 0.0) -> tuple[Layer, Params]:
    """Makes the layer and params of some levels: a single layer for one level, else a stack.

    The params are new JAX arrays, not views of the given ones; the factories get their dtype.
    """
    layers: list[Layer] = []
    params: list[Params] = []
    for i, (forward, backward) in enumerate(levels):
        if i and dropout_rate:
            layers.append(dropout(dropout_rate))
            params.append({})
        if backward is None:
            layers.append(_layer_of(forward))
            params.append(forward.params)
        else:
            layers.append(bidirectional(_layer_of(forward), _layer_of(backward)))
            params.append({"forward": forward.params, "backward": backward.params})
    if len(layers) == 1:
        layer, whole = layers[0], params[0]
    else:
        layer = stack(*layers)
        whole = {name: p for (name, _), p in zip(layer.spec.children, params)}
    whole = jax.tree.map(as_owned_array, whole)
    _check_params(layer, whole, levels[0].forward.kind)
    return layer, whole


def check_options(unit: Unit, library: str, known: Collection[str] = ()) -> None:
    """Raises if an option, other than the `known` ones, changes what the unit computes."""
    for option, value in unit.options.items():
        if option not in WITHOUT_EFFECT and option not in known:
            raise ValueError(
                f"{unit.kind} with {option}={value!r} has no equivalent in {library}: it computes another function, "
                "which no choice of weights reproduces"
            )


def _find_recurrent(
    layer: Layer, library: str, kinds: Sequence[str], path: tuple[str, ...] = ()
) -> list[list[tuple[Layer, tuple[str, ...]]]]:
    """Finds the layers of each level, one or two, and the paths of their params."""
    spec = layer.spec
    if spec.name in kinds and not spec.children:
        return [[(layer, path)]]
    if spec.name == "bidirectional" and spec.options:
        raise ValueError(
            f"{library} concatenates the outputs of both directions along their features, but this layer has another "
            f"merge:\n{layer}"
        )
    if spec.name == "bidirectional":
        sides = [_find_recurrent(child, library, kinds, (*path, key)) for key, child in spec.children]
        if all(len(side) == 1 and len(side[0]) == 1 for side in sides):
            return [[side[0][0] for side in sides]]
    if spec.name == "stack":
        recurrent = [(key, child) for key, child in spec.children if child.spec.name != "dropout"]
        levels = [level for key, child in recurrent for level in _find_recurrent(child, library, kinds, (*path, key))]
        if levels:
            return levels
    raise ValueError(
        f"{spec.name} has no equivalent in {library}: only rnnx.{', '.join(kinds[:-1])} and {kinds[-1]}, bidirectional "
        "of one of them, and stacks of those can be converted (dropout between them is left out); remove other layers "
        f"and convert the rest, each with its own params. The layer is\n{layer}"
    )


def _check_params(layer: Layer, params: Params, kind: str) -> None:
    """Checks the params against those of the layer; infers the input shape from its first layer, of this kind."""
    kernels = [(_place(path), np.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    kernels = [(place, shape) for place, shape in kernels if place[-1][1] == "input_kernel"]
    shape = min(kernels, default=((), (1, 1)))[1]
    step = shape[:1] or (1,)
    if kind == "conv_lstm":
        step = shape[:-1] if len(shape) > 2 else (1, 1)  # images of the kernel's size: any size works
    check_params(layer, params, jax.ShapeDtypeStruct((1, 1, *step), jnp.float32))


def _place(path: Any) -> tuple[tuple[int, str], ...]:
    """A sort key for paths, in which "10_gru" comes after "2_gru"."""
    keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
    numbers = [key.partition("_")[0] for key in keys]
    return tuple((int(number) if number.isdigit() else 0, key) for number, key in zip(numbers, keys)) or ((0, ""),)


def _layer_of(unit: Unit) -> Layer:
    return KINDS[unit.kind](**{"param_dtype": unit.params["input_kernel"].dtype, **unit.options})


def as_owned_array(value: Any, what: str = "the weights are") -> jax.Array:
    """Copies a value to a new JAX array of the same dtype; raises if JAX would round it."""
    dtype = np.dtype(value.dtype)
    if canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"{what} {dtype}, which JAX would round to {canonicalize_dtype(dtype)}: convert within "
            "jax.enable_x64(True), or after jax.config.update('jax_enable_x64', True), or cast them first"
        )
    return jnp.array(value)
