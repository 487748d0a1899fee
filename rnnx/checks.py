"""What is asked of arguments at every door: the error says which one, what came, what was wanted, and what to do."""

from __future__ import annotations

import functools
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype

from rnnx.arguments import Whole, shown
from rnnx.base import Carry, Layer, Params, PyTree
from rnnx.sequences import batch_and_time, concrete, result_struct, widened


def check_count(where: str, name: str, value: Any, least: int = 1) -> None:
    """Raises for what is not a whole number of at least `least`; True and False are none."""
    Whole(least)(f"{where}: {name}", value)


def check_number(where: str, name: str, value: Any) -> None:
    """Raises for what is not one real number, in Python or in an array; True, False and NaN are none."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        fits = value.ndim == 0 and any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer))
    else:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not fits or (not isinstance(value, jax.core.Tracer) and value != value):
        raise TypeError(f"{where}: {name} is {shown(value)}, but a number is wanted")


def check_flag(where: str, name: str, value: Any) -> None:
    """Raises for what is not True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{where}: {name} is {shown(value)}, but True, False or None is wanted")


def check_function(where: str, name: str, value: Any, signature: str) -> None:
    if not callable(value):
        raise TypeError(f"{where}: {name} is {shown(value)}, but a function {signature} is wanted")


def holds_numbers(leaf: Any) -> bool:
    """Whether it is an array, or the shape of one, of numbers or booleans: no object, string, mask or key."""
    return (
        hasattr(leaf, "shape") and _of_numbers(getattr(leaf, "dtype", None)) and not isinstance(leaf, np.ma.MaskedArray)
    )


@functools.cache
def _of_numbers(dtype: Any) -> bool:
    return dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_))


def array(value: Any, name: str, wanted: str = "numbers or booleans") -> jax.Array:
    """The value as a JAX array; raises where that cannot be."""
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray) and value.dtype in (np.int64, np.uint64) and value.size:
        low, high, bounds = int(value.min()), int(value.max()), jnp.iinfo(canonicalize_dtype(value.dtype))
        if low < bounds.min or high > bounds.max:
            raise ValueError(
                f"{name} holds integers between {low} and {high}, but JAX keeps them in {bounds.bits} bits; "
                'make them smaller, or set jax.config.update("jax_enable_x64", True)'
            )
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        hint = ", masked; .filled(0) makes one of it" if isinstance(value, np.ma.MaskedArray) else ""
        raise TypeError(f"{name} must be an array of {wanted}, but {shown(value)} came{hint}") from None


def arrays(tree: PyTree, name: str) -> PyTree:
    """The leaves as JAX arrays."""
    return jax.tree.map(lambda leaf: array(leaf, name), tree)


def checked_xs(xs: PyTree) -> PyTree:
    """`xs` as JAX arrays, all of them `[batch, time, ...]`."""
    xs = arrays(xs, "xs")
    check_shapes(xs)
    return xs


def check_shapes(xs: PyTree) -> None:
    """Raises for what is no pytree of arrays, or of `jax.ShapeDtypeStruct`, `[batch, time, ...]`."""
    leaves = jax.tree.leaves(xs)
    if not leaves:
        raise ValueError(f"xs holds no array: {xs!r}")
    for x in leaves:
        if not holds_numbers(x):
            raise TypeError(f"xs must be arrays of numbers [batch, time, ...], but {shown(x)} came")
        if len(x.shape) < 2:
            raise ValueError(f"xs must be [batch, time, ...], but a leaf has shape {x.shape}; add axes: x[None]")
        if x.shape[:2] != leaves[0].shape[:2]:
            raise ValueError(f"the leaves of xs differ in [batch, time]: {leaves[0].shape[:2]} and {x.shape[:2]}")


def check_params(layer: Layer, params: Params, xs: PyTree) -> None:
    """Raises where the params are not those of this layer for inputs like these."""
    wanted = result_struct(layer.init, key_struct(), xs)
    problem = difference(params, wanted) or not_floating(params, wanted)
    if problem:
        inputs = jax.tree.map(jnp.shape, xs)
        raise ValueError(
            f"the params do not fit this layer and xs of shape {inputs}: {problem}. Params must come from "
            f"layer.init(key, xs) of the same layer, with xs of the same feature size. The layer is\n{layer}"
        )


@functools.cache
def key_struct() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def checked_carry(layer: Layer, params: Params, xs: PyTree, carry: Carry) -> Carry:
    """The carry in the dtypes that the layer keeps it in; raises where it does not fit layer and batch."""
    if not layer.spec.chunkable:
        raise ValueError(
            f"a carry was passed to {layer.spec.name}, which reads time in both directions: it has no state to go on "
            "from; leave carry out and give it whole sequences"
        )
    carry = arrays(carry, "carry")
    wanted = result_struct(layer.initial_carry, params, xs, None)
    problem = difference(carry, wanted)
    for given, leaf in zip(jax.tree.leaves(carry), jax.tree.leaves(wanted)) if problem is None else ():
        if jnp.issubdtype(given.dtype, jnp.floating) != jnp.issubdtype(leaf.dtype, jnp.floating):
            problem = f"a leaf is {given.dtype}, but {leaf.dtype} is wanted"
    if problem:
        raise ValueError(
            f"the carry does not fit xs of batch size {batch_and_time(xs)[0]}: {problem}. Pass the carry that the last "
            "unroll of this layer returned for the same rows, or leave it out to start afresh"
        )
    return jax.tree.map(lambda given, leaf: jnp.asarray(given, leaf.dtype), carry, wanted)


def difference(given: PyTree, wanted: PyTree) -> str | None:
    """The first place where two pytrees differ in structure or shape, in words."""
    paths_given = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(given)}
    paths_wanted = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(wanted)}
    for path, leaf in paths_wanted.items():
        if path not in paths_given:
            return f"{path or 'the array'} of shape {leaf.shape} is wanted but missing (given: {list(paths_given)})"
        if np.shape(paths_given[path]) != leaf.shape:
            return f"{path or 'the array'} has shape {np.shape(paths_given[path])}, but {leaf.shape} is wanted"
    extra = [path for path in paths_given if path not in paths_wanted]
    if extra:
        return f"{extra} given but not wanted (wanted: {list(paths_wanted)})"
    structures: list[Any] = [jax.tree.structure(given), jax.tree.structure(wanted)]
    if structures[0] != structures[1]:
        return f"the structure is {structures[0]}, but {structures[1]} is wanted"
    return None


def not_floating(given: PyTree, wanted: PyTree) -> str | None:
    """The first leaf, of two trees alike, that is no real floating array though one is wanted, in words."""
    for (path, leaf), one in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(wanted)):
        dtype = getattr(leaf, "dtype", None)
        if dtype != one.dtype and not (dtype is not None and jnp.issubdtype(dtype, jnp.floating)):
            return f"{jax.tree_util.keystr(path) or 'the array'} is {shown(leaf)}, but {one.dtype} is wanted"
    return None


def checked_lengths(lengths: Any, xs: PyTree) -> jax.Array | None:
    """`[batch]` integers; those that are known are looked at, those that are not are clamped."""
    if lengths is None:
        return None
    known, lengths = lengths, array(lengths, "lengths", "integers")
    check_lengths(lengths, xs)
    _, time = batch_and_time(xs)
    values, lengths = concrete(known), widened(lengths)
    if values is None:
        return jnp.clip(lengths, 0, time)
    if values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > time:
            raise ValueError(f"lengths lie between {low} and {high}, but xs has {time} steps: 0 to {time} are wanted")
    return lengths


def check_lengths(lengths: jax.Array, xs: PyTree) -> None:
    """What can be seen of lengths without their values."""
    batch, _ = batch_and_time(xs)
    if lengths.dtype == jnp.bool_:
        raise TypeError(
            f"lengths must be integers, but are booleans {lengths.shape}; of a mask of the valid steps [batch, time], "
            "of rows padded on the right, give lengths=mask.sum(axis=1)"
        )
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths must be integers, but are {lengths.dtype}; convert with lengths.astype(int)")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {lengths.shape}, but xs has batch size {batch}: ({batch},) is wanted")


def checked_resets(resets: Any, xs: PyTree) -> jax.Array | None:
    """`[batch, time]` booleans."""
    if resets is None:
        return None
    resets = array(resets, "resets", "booleans")
    check_resets(resets, xs)
    return resets


def check_resets(resets: jax.Array, xs: PyTree) -> None:
    """What can be seen of resets without their values."""
    if resets.dtype != jnp.bool_:
        raise TypeError(f"resets must be booleans, but are {resets.dtype}; convert with resets.astype(bool)")
    if resets.shape != batch_and_time(xs):
        raise ValueError(f"resets has shape {resets.shape}, but xs has [batch, time] = {batch_and_time(xs)}")
