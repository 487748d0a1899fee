"""Running a layer over a batch of sequences, with its arguments checked at the edge."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Carry, Key, Layer, Params, PyTree
from rnnx.pointwise import as_layer
from rnnx.sequences import batch_and_time, concrete, result_struct, split_key


def unroll(
    layer: Layer,
    params: Params,
    xs: PyTree,
    *,
    carry: Carry | None = None,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
    key: Key | None = None,
) -> tuple[Carry, PyTree]:
    """Runs a layer over a batch of sequences.

    Args:
        layer: what to run.
        params: from `layer.init(key, xs)`.
        xs: a pytree of `[batch, time, ...]`.
        carry: where to go on from, as returned by an earlier call; default: the layer's initial carry. Wrap it
            in `jax.lax.stop_gradient` to truncate back-propagation there.
        lengths: `[batch]` integers: how many steps of each row are valid. What lies beyond them has no
            influence, on values or gradients, whatever it holds. Default: all.
        resets: `[batch, time]` booleans: put the initial carry in place before that step (episode and segment
            borders).
        key: for dropout and other noise. Default: none, deterministic.

    Returns:
        `(carry, ys)`: the carry after the last valid step, leaves `[batch, ...]`; the outputs `[batch, time,
        ...]`, zero beyond the lengths.

    Raises:
        ValueError: when the shapes of any argument do not fit the layer or each other; when `lengths` holds a
            number below 0 or above the number of steps. Numbers can only be looked at outside of `jax.jit`:
            inside, lengths are clamped.
        TypeError: when `layer` is neither a Layer nor a linen module, `lengths` are not integers, `resets` not
            booleans.

    Example:
        Two chunks of a long stream::

            >>> import jax, jax.numpy as jnp, rnnx
            >>> layer = rnnx.lstm(4)
            >>> xs = jax.random.normal(jax.random.key(0), (2, 10, 3))
            >>> params = layer.init(jax.random.key(1), xs)
            >>> carry, first = rnnx.unroll(layer, params, xs[:, :6])
            >>> carry, second = rnnx.unroll(layer, params, xs[:, 6:], carry=carry)
            >>> _, whole = rnnx.unroll(layer, params, xs)
            >>> bool(jnp.allclose(whole, jnp.concatenate([first, second], axis=1), atol=1e-6))
            True
    """
    layer, xs = as_layer(layer), checked_xs(xs)
    check_params(layer, params, xs)
    lengths = _checked_lengths(lengths, xs)
    resets = _checked_resets(resets, xs)
    carry_key, apply_key = split_key(key, 2)
    if carry is None:
        carry = layer.initial_carry(params, xs, carry_key)
    else:
        carry = checked_carry(layer, params, xs, carry)
    return layer.apply(params, carry, xs, lengths=lengths, resets=resets, key=apply_key)


def checked_xs(xs: PyTree) -> PyTree:
    """`xs` as JAX arrays, all of them `[batch, time, ...]`."""
    xs = jax.tree.map(jnp.asarray, xs)
    leaves = jax.tree.leaves(xs)
    if not leaves:
        raise ValueError(f"xs holds no array: {xs!r}")
    for x in leaves:
        if jnp.ndim(x) < 2:
            raise ValueError(f"xs must be [batch, time, ...], but a leaf has shape {jnp.shape(x)}; add axes: x[None]")
        if x.shape[:2] != leaves[0].shape[:2]:
            raise ValueError(f"the leaves of xs differ in [batch, time]: {leaves[0].shape[:2]} and {x.shape[:2]}")
    return xs


def check_params(layer: Layer, params: Params, xs: PyTree) -> None:
    """Raises where the params are not those of this layer for inputs like these."""
    wanted = result_struct(layer.init, _key_struct(), xs)
    problem = _difference(params, wanted)
    if problem:
        inputs = jax.tree.map(jnp.shape, xs)
        raise ValueError(
            f"the params do not fit this layer and xs of shape {inputs}: {problem}. Params must come from "
            f"layer.init(key, xs) of the same layer, with xs of the same feature size. The layer is\n{layer}"
        )


@functools.cache
def _key_struct() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def checked_carry(layer: Layer, params: Params, xs: PyTree, carry: Carry) -> Carry:
    """The carry in the dtypes that the layer keeps it in; raises where it does not fit layer and batch."""
    if not layer.spec.chunkable:
        raise ValueError(
            f"a carry was passed to {layer.spec.name}, which reads time in both directions: it has no state to go on "
            "from; leave carry out and give it whole sequences"
        )
    wanted = result_struct(layer.initial_carry, params, xs, None)
    problem = _difference(carry, wanted)
    for given, leaf in zip(jax.tree.leaves(carry), jax.tree.leaves(wanted)) if problem is None else ():
        if jnp.issubdtype(jnp.result_type(given), jnp.floating) != jnp.issubdtype(leaf.dtype, jnp.floating):
            problem = f"a leaf is {jnp.result_type(given)}, but {leaf.dtype} is wanted"
    if problem:
        raise ValueError(
            f"the carry does not fit xs of batch size {batch_and_time(xs)[0]}: {problem}. Pass the carry that the last "
            "unroll of this layer returned for the same rows, or leave it out to start afresh"
        )
    return jax.tree.map(lambda given, leaf: jnp.asarray(given, leaf.dtype), carry, wanted)


def _difference(given: PyTree, wanted: PyTree) -> str | None:
    """The first place where two pytrees differ in structure or shape, in words."""
    paths_given = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(given)}
    paths_wanted = {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_leaves_with_path(wanted)}
    for path, leaf in paths_wanted.items():
        if path not in paths_given:
            return f"{path or 'the array'} of shape {leaf.shape} is wanted but missing (given: {list(paths_given)})"
        if jnp.shape(paths_given[path]) != leaf.shape:
            return f"{path or 'the array'} has shape {jnp.shape(paths_given[path])}, but {leaf.shape} is wanted"
    extra = [path for path in paths_given if path not in paths_wanted]
    if extra:
        return f"{extra} given but not wanted (wanted: {list(paths_wanted)})"
    structures: list[Any] = [jax.tree.structure(given), jax.tree.structure(wanted)]
    if structures[0] != structures[1]:
        return f"the structure is {structures[0]}, but {structures[1]} is wanted"
    return None


def _checked_lengths(lengths: Any, xs: PyTree) -> jax.Array | None:
    if lengths is None:
        return None
    batch, time = batch_and_time(xs)
    values = concrete(lengths)
    lengths = jnp.asarray(lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths must be integers, but are {lengths.dtype}; convert with lengths.astype(int)")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths has shape {lengths.shape}, but xs has batch size {batch}: ({batch},) is wanted")
    if values is not None and values.size:
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > time:
            raise ValueError(f"lengths lie between {low} and {high}, but xs has {time} steps: 0 to {time} are wanted")
    return jnp.clip(lengths, 0, time)


def _checked_resets(resets: Any, xs: PyTree) -> jax.Array | None:
    if resets is None:
        return None
    resets = jnp.asarray(resets)
    if resets.dtype != jnp.bool_:
        raise TypeError(f"resets must be booleans, but are {resets.dtype}; convert with resets.astype(bool)")
    if resets.shape != batch_and_time(xs):
        raise ValueError(f"resets has shape {resets.shape}, but xs has [batch, time] = {batch_and_time(xs)}")
    return resets
