"""What the converters of Keras, Flax, Haiku and Equinox share: single weights checked, and nets walked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Layer, Params
from rnnx.interop._units import Level, Unit, kept_array

GATES: Mapping[str, int] = {"elman": 1, "lstm": 4, "gru": 3, "mgu": 2, "ugrnn": 2, "conv_lstm": 4}


def weight(where: str, value: Any, shape: Sequence[int | None]) -> jax.Array:
    """The array, its dtype kept, once its shape is found right; None in `shape` stands for any size."""
    value = value if isinstance(value, jax.Array) else np.asarray(value)
    wanted = tuple(shape)
    if len(value.shape) != len(wanted) or any(w is not None and n != w for n, w in zip(value.shape, wanted)):
        shown = ", ".join("any" if w is None else str(w) for w in wanted) + ("," if len(wanted) == 1 else "")
        raise ValueError(f"{where} has the shape {tuple(value.shape)}, but ({shown}) is wanted")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{where} is {value.dtype}{list(value.shape)}, but weights are real floating numbers")
    return kept_array(value, f"{where} is")


def entries(where: str, given: Any, names: Iterable[str]) -> Mapping[str, Any]:
    """The mapping, once it is found to have these entries and no others."""
    wanted = sorted(names)
    came = sorted(given) if isinstance(given, Mapping) else type(given).__name__
    if came != wanted:
        raise ValueError(f"{where} should have the entries {wanted}, but came as {came}")
    return given


def reordered(kernel: jax.Array, order: Sequence[int]) -> jax.Array:
    """The gates' blocks, the last axis cut into as many, in another order."""
    blocks = jnp.split(kernel, len(order), axis=-1)
    return jnp.concatenate([blocks[k] for k in order], axis=-1)


def unit_of(kind: str, params: Params, **options: Any) -> Unit:
    """The unit of these params; its width is that of the bias."""
    return Unit(kind, {"width": params["bias"].size // GATES[kind], **options}, params)


def needs_zero(where: str, name: str, bias: jax.Array, target: str) -> None:
    """Raises where a target cannot hold a bias which is not zero."""
    if isinstance(bias, jax.core.Tracer):
        raise ValueError(f"{where}: {target} has no place for {name}, and in a traced function it may be anything")
    if np.any(np.asarray(bias)):
        raise ValueError(f"{where}: {target} has no place for {name} {tuple(bias.shape)}, which is not all zero")


def by_level(nest: Any, name: str) -> list[tuple[Any, Any]]:
    """A list has the levels, and a pair both directions of one: `[(forward, backward or None), ...]`."""
    levels = nest if isinstance(nest, list) else [nest]
    for level in levels:
        if isinstance(level, tuple) and len(level) != 2:
            raise ValueError(
                f"{name}: a tuple is the pair (forward, backward) of one level, but there is one of {len(level)}; "
                "levels, one after the other, are a list"
            )
    if not levels:
        raise ValueError(f"{name} was given an empty list")
    return [level if isinstance(level, tuple) else (level, None) for level in levels]


def by_unit(levels: Sequence[Level], convert: Callable[[str, Unit, Any], Any], like: Any, name: str) -> Any:
    """`convert(where, unit, its part of like)` of each, in the form that `by_level` takes apart."""
    likes = [(None, None)] * len(levels) if like is None else by_level(like, name)
    ways = [1 + (level.backward is not None) for level in levels]
    wanted = ways if like is None else [1 + (backward is not None) for _, backward in likes]
    if ways != wanted:
        raise ValueError(f"{name}: the layer's levels have {ways} directions, but those of `like` have {wanted}")
    results = []
    for i, (level, (forward, backward)) in enumerate(zip(levels, likes)):
        one = convert(f"{name}, level {i}", level.forward, forward)
        if level.backward is not None:
            one = (one, convert(f"{name}, level {i} backward", level.backward, backward))
        results.append(one)
    return results if len(results) > 1 else results[0]


def is_layer(name: str, layer: Any) -> Layer:
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} takes a Layer, e.g. rnnx.lstm(512), and its params, but got {layer!r}")
    return layer
