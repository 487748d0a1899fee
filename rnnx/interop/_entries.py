"""Helpers of the converters for Keras, Flax, Haiku and Equinox: checks of single weights, and nested modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Layer, Params
from rnnx.interop._units import Level, Unit, as_owned_array

GATES: Mapping[str, int] = {"elman": 1, "lstm": 4, "gru": 3, "mgu": 2, "ugrnn": 2, "conv_lstm": 4}


def check_weight(where: str, value: Any, shape: Sequence[int | None]) -> jax.Array:
    """Converts a weight to an array of the same dtype; raises unless it is floating and of this shape (None: any)."""
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    expected = tuple(shape)
    if len(value.shape) != len(expected) or any(w is not None and n != w for n, w in zip(value.shape, expected)):
        sizes = ", ".join("any" if w is None else str(w) for w in expected) + ("," if len(expected) == 1 else "")
        raise ValueError(f"{where} has shape {tuple(value.shape)}, expected ({sizes})")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{where} is {value.dtype}{list(value.shape)}, but weights must be real floating numbers")
    return as_owned_array(value, f"{where} is")


def check_entries(where: str, given: Any, names: Iterable[str]) -> Mapping[str, Any]:
    """Returns the mapping; raises unless it has exactly these entries."""
    expected = sorted(names)
    found = sorted(given) if isinstance(given, Mapping) else type(given).__name__
    if found != expected:
        raise ValueError(f"{where} must have the entries {expected}, but got {found}")
    return given


def reorder_gates(kernel: jax.Array, order: Sequence[int]) -> jax.Array:
    """Reorders the gates: splits the last axis into as many blocks, and joins them in this order."""
    blocks = jnp.split(kernel, len(order), axis=-1)
    return jnp.concatenate([blocks[k] for k in order], axis=-1)


def make_unit(kind: str, params: Params, **options: Any) -> Unit:
    """Makes a unit of params; reads its width from the bias."""
    return Unit(kind, {"width": params["bias"].size // GATES[kind], **options}, params)


def check_zero(where: str, name: str, bias: jax.Array, target: str) -> None:
    """Raises unless a bias that the target does not have is zero."""
    if isinstance(bias, jax.core.Tracer):
        raise ValueError(f"{where}: {target} has no {name}, and the values of a traced one are unknown")
    if np.any(np.asarray(bias)):
        raise ValueError(f"{where}: {target} has no {name}, but that of the layer, {tuple(bias.shape)}, is not zero")


def split_levels(nest: Any, name: str) -> list[tuple[Any, Any]]:
    """Splits a list of levels, or a single one, into `[(forward, backward or None), ...]`; a pair is bidirectional."""
    levels = nest if isinstance(nest, list) else [nest]
    for level in levels:
        if isinstance(level, tuple) and len(level) != 2:
            raise ValueError(
                f"{name}: a tuple must be the pair (forward, backward) of one level, but got {len(level)} elements; "
                "pass several levels as a list"
            )
    if not levels:
        raise ValueError(f"{name} got an empty list")
    return [level if isinstance(level, tuple) else (level, None) for level in levels]


def convert_units(levels: Sequence[Level], convert: Callable[[str, Unit, Any], Any], like: Any, name: str) -> Any:
    """Applies `convert(where, unit, its part of like)` to each unit; nests the results as `split_levels` takes them."""
    likes = [(None, None)] * len(levels) if like is None else split_levels(like, name)
    directions = [1 + (level.backward is not None) for level in levels]
    expected = directions if like is None else [1 + (backward is not None) for _, backward in likes]
    if directions != expected:
        raise ValueError(
            f"{name}: the layer's levels have {directions} directions, but those of `like` have {expected}"
        )
    results = []
    for i, (level, (forward, backward)) in enumerate(zip(levels, likes)):
        one = convert(f"{name}, level {i}", level.forward, forward)
        if level.backward is not None:
            one = (one, convert(f"{name}, level {i} backward", level.backward, backward))
        results.append(one)
    return results if len(results) > 1 else results[0]


def check_is_layer(name: str, layer: Any) -> Layer:
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} takes a Layer, e.g. rnnx.lstm(512), and its params, but got {layer!r}")
    return layer
