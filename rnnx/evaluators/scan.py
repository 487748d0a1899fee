"""The plain evaluator: one `lax.scan` over time. Every other evaluator is held against it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree
from rnnx.checks import check_count
from rnnx.evaluators._contract import checked
from rnnx.evaluators._lifting import arranged, evaluator, in_chunks, layer_of, like
from rnnx.sequences import Segments, batch_and_time, cast_floats, float_dtype, select, swapped


@evaluator
def scan(cell: Cell, *, unroll: int = 1, checkpoint_every: int | None = None) -> Layer:
    """Evaluates a cell step after step, over a batch.

    Args:
        cell: the cell, e.g. `rnnx.cells.lstm(512)`.
        unroll: how many steps to put in one iteration of the compiled loop (as in `lax.scan`): larger bodies
            save loop overhead and cost compile time. Values do not depend on it.
        checkpoint_every: keep the carry only every so many steps for the backward pass and recompute what
            lies between: memory for the gradient falls from O(T) to O(T/k + k) steps, for one more
            forward pass. With 1 the carries are all that is kept of every step. Values do not depend on it.

    Returns:
        The Layer. Its params are the cell's, its `ys` are `[batch, time, ...]`.

    Raises:
        ValueError: when `unroll` or `checkpoint_every` is below 1.
        TypeError: for what is not a Cell; when `unroll` or `checkpoint_every` is no whole number; when a function of
            the cell returns something else than `rnnx.Cell` says, such as a carry of another shape than it was given.

    Others are `rnnx.fused_scan`, `rnnx.associative_scan`, `rnnx.newton_scan`; each says which cells it takes.

    Under `jax.export` with a symbolic time axis, `unroll` and `checkpoint_every` have no effect.

    Noise: with a key, `initial_carry` draws for each sequence by itself, and once more for all that comes after
    a reset within the call. `prepare` gets a key when the cell runs, and none for the carry it begins with.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.cells.gru(4), checkpoint_every=16)
        >>> xs = jnp.ones((2, 50, 3))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> carry, ys = rnnx.unroll(layer, params, xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 50, 4))
    """
    if not isinstance(cell, Cell):
        hint = "; rnnx.as_cell makes a Cell of it" if isinstance(cell, AssociativeCell) else ""
        raise TypeError(f"scan takes a Cell, e.g. rnnx.cells.lstm(512), but got {cell!r}{hint}")
    check_count("scan", "unroll", unroll)
    if checkpoint_every is not None:
        check_count("scan", "checkpoint_every", checkpoint_every)
    cell = checked(cell)

    @jax.jit  # so that calls outside of jax.jit, in a stream say, are not compiled again and again
    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | Segments | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        batch, time = batch_and_time(xs)
        weights, given, keys = arranged(cell, params, carry, xs, lengths, resets, key)
        dtype, segments = float_dtype(xs), resets if isinstance(resets, Segments) else None

        def body(carry: Carry, inputs: tuple[Any, ...]) -> tuple[Carry, tuple[PyTree, Carry | None]]:
            x, reset, is_valid, step_key = inputs
            if reset is not None:
                carry = select(reset, given.fresh, carry)
            before = carry if is_valid is None else select(is_valid, carry, given.start)
            keys = None if step_key is None else jax.random.split(step_key, batch)
            z = jax.vmap(cell.project, in_axes=(None, 0, None if keys is None else 0))(weights, x, keys)
            after, y = jax.vmap(cell.step, in_axes=(None, 0, 0))(weights, before, z)
            after, y = like(carry, after, cell), cast_floats(y, dtype)
            if is_valid is not None:
                after = select(is_valid, after, carry)
                y = select(is_valid, y, jax.tree.map(jnp.zeros_like, y))
            return after, (y, None if segments is None else after)

        inputs = given.zs, given.resets, given.valid, keys
        carry, (ys, carries) = _scan(body, carry, inputs, time, unroll, checkpoint_every)
        if segments is not None:
            carry = segments.carries(carries)
        return carry, swapped(ys)

    return layer_of(cell, apply)


def _scan(body: Any, carry: Carry, inputs: PyTree, time: Any, unroll: int, every: int | None) -> tuple[Carry, PyTree]:
    """`lax.scan`, with the steps in checkpointed chunks of `every` and what is left over after them."""
    if not isinstance(time, int):  # symbolic: it cannot be cut into a known number of pieces
        return jax.lax.scan(body, carry, inputs)
    if every is None:
        return jax.lax.scan(body, carry, inputs, unroll=unroll)

    if every == 1:
        return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), carry, inputs, unroll=unroll)

    def chunk(carry: Carry, inputs: PyTree) -> tuple[Carry, PyTree]:
        return jax.lax.scan(body, carry, inputs, unroll=unroll)

    return in_chunks(chunk, carry, inputs, every, checkpoint=True)
