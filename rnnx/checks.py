"""Argument checks for the public functions: errors name the argument, its value, what was expected and a remedy."""

from __future__ import annotations

import functools
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

from rnnx.arguments import Integer, describe
from rnnx.base import Carry, Layer, Params, PyTree
from rnnx.sequences import batch_and_time, cached_eval_shape, concrete_values, widen_integers


def check_count(where: str, name: str, value: Any, least: int = 1) -> None:
    """Raises unless `value` is an integer of at least `least`; booleans do not count."""
    Integer(least)(f"{where}: {name}", value)


def check_number(where: str, name: str, value: Any) -> None:
    """Raises unless `value` is a real number, in Python or in an array; booleans and NaN do not count."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        fits = value.ndim == 0 and any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer))
    else:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not fits or (not isinstance(value, jax.core.Tracer) and value != value):
        raise TypeError(f"{where}: {name} is {describe(value)}, but it must be a number")


def check_flag(where: str, name: str, value: Any) -> None:
    """Raises unless `value` is True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{where}: {name} is {describe(value)}, but it must be True, False or None")


def check_function(where: str, name: str, value: Any, signature: str) -> None:
    if not callable(value):
        raise TypeError(f"{where}: {name} is {describe(value)}, but it must be a function {signature}")


def is_numeric(leaf: Any) -> bool:
    """Whether `leaf` is an array, or a `ShapeDtypeStruct`, of numbers or booleans; not of objects, strings or keys."""
    return (
        hasattr(leaf, "shape") and _of_numbers(getattr(leaf, "dtype", None)) and not isinstance(leaf, np.ma.MaskedArray)
    )


@functools.cache
def _of_numbers(dtype: Any) -> bool:
    return dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_))


def as_array(value: Any, name: str, expected: str = "numbers or booleans") -> jax.Array:
    """Converts a value to a JAX array; raises if that fails or loses digits."""
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray) and value.dtype in (np.int64, np.uint64) and value.size:
        low, high, bounds = int(value.min()), int(value.max()), jnp.iinfo(canonicalize_dtype(value.dtype))
        if low < bounds.min or high > bounds.max:
            raise ValueError(
                f"{name} holds integers between {low} and {high}, but JAX stores integers in {bounds.bits} bits; "
                'use smaller ones, or set jax.config.update("jax_enable_x64", True)'
            )
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        hint = ", a masked array; fill it with .filled(0)" if isinstance(value, np.ma.MaskedArray) else ""
        raise TypeError(f"{name} must be an array of {expected}, but got {describe(value)}{hint}") from None


def as_arrays(tree: PyTree, name: str) -> PyTree:
    """Converts the leaves of a pytree to JAX arrays."""
    return jax.tree.map(lambda leaf: as_array(leaf, name), tree)


def checked_xs(xs: PyTree) -> PyTree:
    """Converts `xs` to JAX arrays; raises unless all are `[batch, time, ...]`."""
    xs = as_arrays(xs, "xs")
    check_shapes(xs)
    return xs


def check_shapes(xs: PyTree) -> None:
    """Raises unless `xs` is a pytree of arrays, or of `jax.ShapeDtypeStruct`, `[batch, time, ...]`."""
    leaves = jax.tree.leaves(xs)
    if not leaves:
        raise ValueError(f"xs holds no array: {xs!r}")
    for x in leaves:
        if not is_numeric(x):
            raise TypeError(f"xs must be arrays of numbers [batch, time, ...], but got {describe(x)}")
        if len(x.shape) < 2:
            raise ValueError(f"xs must be [batch, time, ...], but a leaf has shape {x.shape}; add axes: x[None]")
        if x.shape[:2] != leaves[0].shape[:2]:
            raise ValueError(f"the leaves of xs differ in [batch, time]: {leaves[0].shape[:2]} and {x.shape[:2]}")


def check_params(layer: Layer, params: Params, xs: PyTree) -> None:
    """Raises unless the params are those of this layer for inputs of this shape."""
    expected = cached_eval_shape(layer.init, key_struct(), xs)
    problem = tree_difference(params, expected) or dtype_difference(params, expected)
    if problem:
        inputs = jax.tree.map(jnp.shape, xs)
        raise ValueError(
            f"the params do not fit this layer and xs of shape {inputs}: {problem}. Create them by layer.init(key, xs) "
            f"of the same layer, with xs of the same feature size. The layer is\n{layer}"
        )


@functools.cache
def key_struct() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def checked_carry(layer: Layer, params: Params, xs: PyTree, carry: Carry) -> Carry:
    """Casts the carry to the dtypes that the layer uses; raises if it does not fit layer and batch."""
    if not layer.spec.chunkable:
        raise ValueError(
            f"a carry was passed to {layer.spec.name}, which reads time in both directions and cannot continue from a "
            "carry; leave carry out and pass whole sequences"
        )
    carry = as_arrays(carry, "carry")
    expected = cached_eval_shape(layer.initial_carry, params, xs, None)
    problem = tree_difference(carry, expected)
    for given, leaf in zip(jax.tree.leaves(carry), jax.tree.leaves(expected)) if problem is None else ():
        if jnp.issubdtype(given.dtype, jnp.floating) != jnp.issubdtype(leaf.dtype, jnp.floating):
            problem = f"a leaf is {given.dtype}, expected {leaf.dtype}"
    if problem:
        raise ValueError(
            f"the carry does not fit xs of batch size {batch_and_time(xs)[0]}: {problem}. Pass the carry that the last "
            "unroll of this layer returned for the same rows, or leave it out to start from the initial carry"
        )
    return jax.tree.map(lambda given, leaf: jnp.asarray(given, leaf.dtype), carry, expected)


def tree_difference(given: PyTree, expected: PyTree) -> str | None:
    """Describes the first difference in structure or shape between two pytrees; None if there is none."""
    paths_given = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(given)}
    paths_expected = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(expected)}
    for path, leaf in paths_expected.items():
        if path not in paths_given:
            return f"{path or 'the array'} of shape {leaf.shape} is missing (given: {list(paths_given)})"
        if np.shape(paths_given[path]) != leaf.shape:
            return f"{path or 'the array'} has shape {np.shape(paths_given[path])}, expected {leaf.shape}"
    extra = [path for path in paths_given if path not in paths_expected]
    if extra:
        return f"unexpected {extra} (expected: {list(paths_expected)})"
    structures: list[Any] = [jax.tree.structure(given), jax.tree.structure(expected)]
    if structures[0] != structures[1]:
        return f"the structure is {structures[0]}, expected {structures[1]}"
    return None


def dtype_difference(given: PyTree, expected: PyTree) -> str | None:
    """Describes the first leaf that is not a real floating array though one is expected; None if there is none."""
    for (path, leaf), one in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(expected)):
        dtype = getattr(leaf, "dtype", None)
        if dtype != one.dtype and not (dtype is not None and jnp.issubdtype(dtype, jnp.floating)):
            return f"{jax.tree_util.keystr(path) or 'the array'} is {describe(leaf)}, expected {one.dtype}"
    return None


def checked_lengths(lengths: Any, xs: PyTree) -> jax.Array | None:
    """Converts lengths to `[batch]` integers; checks values that are known, and clamps traced ones."""
    if lengths is None:
        return None
    known, lengths = lengths, as_array(lengths, "lengths", "integers")
    check_lengths(lengths, xs)
    _, time = batch_and_time(xs)
    values, lengths = concrete_values(known), widen_integers(lengths)
    if values is None:
        return jnp.clip(lengths, 0, time)
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > time:
            raise ValueError(f"lengths lie between {low} and {high}, but xs has {time} steps: they must be 0 to {time}")
    return lengths


def check_lengths(lengths: jax.Array, xs: PyTree) -> None:
    """Checks the dtype and shape of lengths."""
    batch, _ = batch_and_time(xs)
    if lengths.dtype == jnp.bool_:
        raise TypeError(
            f"lengths must be integers, but are booleans {lengths.shape}; for a mask of valid steps [batch, time] with "
            "padding on the right, pass lengths=mask.sum(axis=1)"
        )
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths must be integers, but are {lengths.dtype}; convert with lengths.astype(int)")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {lengths.shape}, expected ({batch},): xs has batch size {batch}")


def checked_resets(resets: Any, xs: PyTree) -> jax.Array | None:
    """Converts resets to an array; raises unless it is `[batch, time]` booleans."""
    if resets is None:
        return None
    resets = as_array(resets, "resets", "booleans")
    check_resets(resets, xs)
    return resets


def check_resets(resets: jax.Array, xs: PyTree) -> None:
    """Checks the dtype and shape of resets."""
    if resets.dtype != jnp.bool_:
        raise TypeError(f"resets must be booleans, but are {resets.dtype}; convert with resets.astype(bool)")
    if resets.shape != batch_and_time(xs):
        raise ValueError(f"resets has shape {resets.shape}, expected {batch_and_time(xs)}, the [batch, time] of xs")
