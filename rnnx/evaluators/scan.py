"""The plain evaluator: one `lax.scan` over time, and the reference for every other evaluator."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree
from rnnx.checks import check_count
from rnnx.evaluators._contract import with_output_checks
from rnnx.evaluators._lifting import cast_carry_like, evaluator, make_layer, prepare_inputs, scan_in_chunks
from rnnx.sequences import Segments, batch_and_time, cast_floats, float_dtype, select, swap_batch_time


@evaluator
def scan(cell: Cell, *, unroll: int = 1, checkpoint_every: int | None = None) -> Layer:
    """Evaluates a cell sequentially, one step at a time, over a batch.

    Args:
        cell: the cell, e.g. `rnnx.cells.lstm(512)`.
        unroll: the number of steps per iteration of the compiled loop, as in `lax.scan`: larger bodies save loop
            overhead and cost compile time. Values do not depend on it.
        checkpoint_every: k, to keep only every k-th carry for the backward pass and recompute the steps in between.
            The memory of the gradient falls from O(T) to O(T/k + k) steps, at the cost of one more forward pass. With
            1, only the carry of each step is kept. Values do not depend on it.

    Returns:
        The Layer. Its params are the cell's, its `ys` are `[batch, time, ...]`.

    Raises:
        ValueError: if `unroll` or `checkpoint_every` is below 1.
        TypeError: if `cell` is not a Cell; if `unroll` or `checkpoint_every` is not an integer; if a function of the
            cell does not return what `rnnx.Cell` specifies, e.g. if `step` returns a carry of another shape than it
            was given.

    The other evaluators are `rnnx.fused_scan`, `rnnx.associative_scan` and `rnnx.newton_scan`; each documents which
    cells it takes.

    Under `jax.export` with a symbolic time axis, `unroll` and `checkpoint_every` have no effect.

    Noise: with a key, `initial_carry` draws independently for each sequence, and once more for everything after a
    reset within the call. `prepare` gets a key when the cell runs, but none when it computes the carry of the first
    step.

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
        hint = "; rnnx.as_cell converts it to a Cell" if isinstance(cell, AssociativeCell) else ""
        raise TypeError(f"scan takes a Cell, e.g. rnnx.cells.lstm(512), but got {cell!r}{hint}")
    check_count("scan", "unroll", unroll)
    if checkpoint_every is not None:
        check_count("scan", "checkpoint_every", checkpoint_every)
    cell = with_output_checks(cell)

    @jax.jit  # so that calls outside jax.jit, e.g. in streaming, compile only once
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
        weights, steps, keys = prepare_inputs(cell, params, carry, xs, lengths, resets, key)
        dtype, segments = float_dtype(xs), resets if isinstance(resets, Segments) else None

        def body(carry: Carry, inputs: tuple[Any, ...]) -> tuple[Carry, tuple[PyTree, Carry | None]]:
            x, reset, is_valid, step_key = inputs
            if reset is not None:
                carry = select(reset, steps.initial, carry)
            before = carry if is_valid is None else select(is_valid, carry, steps.pad_carry)
            keys = None if step_key is None else jax.random.split(step_key, batch)
            z = jax.vmap(cell.project, in_axes=(None, 0, None if keys is None else 0))(weights, x, keys)
            after, y = jax.vmap(cell.step, in_axes=(None, 0, 0))(weights, before, z)
            after, y = cast_carry_like(carry, after, cell), cast_floats(y, dtype)
            if is_valid is not None:
                after = select(is_valid, after, carry)
                y = select(is_valid, y, jax.tree.map(jnp.zeros_like, y))
            return after, (y, None if segments is None else after)

        inputs = steps.zs, steps.resets, steps.valid, keys
        carry, (ys, carries) = _scan(body, carry, inputs, time, unroll, checkpoint_every)
        if segments is not None:
            carry = segments.final_carries(carries)
        return carry, swap_batch_time(ys)

    return make_layer(cell, apply)


def _scan(body: Any, carry: Carry, inputs: PyTree, time: Any, unroll: int, every: int | None) -> tuple[Carry, PyTree]:
    """`lax.scan`, in checkpointed chunks of `every` steps and a remainder."""
    if not isinstance(time, int):  # symbolic: it cannot be split into a known number of chunks
        return jax.lax.scan(body, carry, inputs)
    if every is None:
        return jax.lax.scan(body, carry, inputs, unroll=unroll)

    if every == 1:
        return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), carry, inputs, unroll=unroll)

    def chunk(carry: Carry, inputs: PyTree) -> tuple[Carry, PyTree]:
        return jax.lax.scan(body, carry, inputs, unroll=unroll)

    return scan_in_chunks(chunk, carry, inputs, every, checkpoint=True)
