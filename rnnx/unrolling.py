"""Runs a layer over a batch of sequences, after checking the arguments."""

from __future__ import annotations

from rnnx.base import ArrayLike, Carry, Key, Layer, Params, PyTree
from rnnx.checks import check_params, checked_carry, checked_lengths, checked_resets, checked_xs
from rnnx.hints import explained
from rnnx.meshes import explicit_batch_axes, explicit_mesh, run_on_rows
from rnnx.pointwise import as_layer
from rnnx.sequences import split_key


@explained
def unroll(
    layer: Layer,
    params: Params,
    xs: PyTree,
    *,
    carry: Carry | None = None,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    key: Key | None = None,
) -> tuple[Carry, PyTree]:
    """Runs a layer over a batch of sequences.

    Args:
        layer: the Layer to run, or a Flax linen module.
        params: from `layer.init(key, xs)`.
        xs: a pytree of `[batch, time, ...]`. NaN and infinities are computed with like any other number.
        carry: the state to continue from, as returned by an earlier call; default: the layer's initial carry. Wrap it
            in `jax.lax.stop_gradient` to truncate back-propagation there.
        lengths: `[batch]` integers, an array or a list: the number of valid steps of each row. Whatever lies beyond has
            no effect on values or gradients. Default: all steps are valid. (From a mask of valid steps, with padding on
            the right: `mask.sum(axis=1)`.)
        resets: `[batch, time]` booleans: reset to the initial carry before these steps (boundaries of episodes or
            segments).
        key: for dropout and other noise. Default: none, deterministic.

    Returns:
        `(carry, ys)`: the carry after the last valid step, leaves `[batch, ...]`; and the outputs `[batch, time, ...]`,
        zero beyond the lengths.

    Raises:
        ValueError: if the shape of an argument does not fit the layer or the other arguments; if `lengths` holds a
            number below 0 or above the number of steps. Values can be checked only outside `jax.jit`; inside, lengths
            are clamped.
        TypeError: if `layer` is neither a Layer nor a linen module; if `lengths` are not integers, or `resets` not
            booleans; if `key` is not a single key of `jax.random`; if any other argument is not an array.

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
    lengths = checked_lengths(lengths, xs)
    resets = checked_resets(resets, xs)
    if carry is not None:
        carry = checked_carry(layer, params, xs, carry)

    def run(params: Params, rows: PyTree, key: Key | None) -> tuple[Carry, PyTree]:
        carry, xs, lengths, resets = rows
        carry_key, apply_key = split_key(key, 2)
        if carry is None:
            carry = layer.initial_carry(params, xs, carry_key)
        return layer.apply(params, carry, xs, lengths=lengths, resets=resets, key=apply_key)

    rows = carry, xs, lengths, resets
    mesh = explicit_mesh((params, rows))
    if mesh is None:
        return run(params, rows, key)
    return run_on_rows(run, mesh, explicit_batch_axes(rows), params, rows, key)
