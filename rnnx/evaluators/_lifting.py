"""What evaluators share: params and carries of a batch, and all steps laid out at once for those that do not walk."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp

from rnnx.base import Apply, AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree, Weights, options_of
from rnnx.checks import check_lengths, check_resets
from rnnx.interning import interned
from rnnx.memory import affordable
from rnnx.sequences import (
    Segments,
    batch_and_time,
    borrow_rows,
    cast_floats,
    fill_pads,
    float_dtype,
    select,
    split_key,
    step_struct,
    swapped,
    valid_steps,
    widened,
    zero_pads,
)


class Steps(NamedTuple):
    """All steps of a batch at once, time-major, as an evaluator gets them that does not walk through time.

    Attributes:
        zs: `[time, batch, ...]`, the projected inputs; in a row's pads stand those of its first step.
        carry: `[batch, ...]`, what came in.
        resets: `[time, batch]` booleans, or None.
        fresh: `[batch, ...]`, what takes the carry's place at a reset; None without resets.
        valid: `[time, batch]` booleans, or None where there are no pads.
        start: `[batch, ...]`, the state from which a row's first step is taken; None where there are no pads. In the
            pads that step is taken over and over: it is the one pair of input and state of which it is certain that
            the step, and its gradient, are defined.
    """

    zs: PyTree
    carry: Carry
    resets: jax.Array | None
    fresh: Carry | None
    valid: jax.Array | None
    start: Carry | None

    @property
    def borders(self) -> jax.Array | None:
        """`[time, batch]`: the steps that do not go on from the one before them; None where all do."""
        if self.resets is None:
            return None if self.valid is None else ~self.valid
        return self.resets if self.valid is None else self.resets | ~self.valid

    def begin(self, before: Carry) -> Carry:
        """Puts the carries that steps start from at the borders into `before`, `[time, batch, ...]`."""
        time = jax.tree.leaves(self.zs)[0].shape[0]

        def everywhere(carry: Carry) -> Carry:
            return jax.tree.map(lambda a: jnp.broadcast_to(a, (time, *a.shape)), carry)

        if self.resets is not None:
            before = select(self.resets, everywhere(self.fresh), before)
        if self.valid is not None:
            before = select(self.valid, before, everywhere(self.start))
        return before

    def before(self, after: Carry) -> Carry:
        """The carries `[time, batch, ...]` that the steps start from, given those that they end with."""
        shifted = jax.tree.map(lambda first, a: jnp.concatenate([first[None], a[:-1]]), self.carry, after)
        return self.begin(shifted)


Solve = Callable[[Weights, Steps], tuple[Carry, PyTree]]
"""`(weights, steps) -> (after, ys)`: the carry after every step and its output, both `[time, batch, ...]`."""


def fresh_carry(cell: Cell | AssociativeCell, weights: Weights, xs: PyTree, key: Key | None) -> Carry:
    """The initial carry of every row: `[batch, ...]`."""
    batch, _ = batch_and_time(xs)
    x = step_struct(xs)
    if key is None:  # every row is the same: compute it once
        carry = cell.initial_carry(weights, x, None)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *jnp.shape(a))), carry)
    return jax.vmap(lambda k: cell.initial_carry(weights, x, k))(jax.random.split(key, batch))


def layer_of(cell: Cell | AssociativeCell, apply: Apply) -> Layer:
    """The Layer of a cell that `apply` runs."""

    def init(key: Key, xs: PyTree) -> Params:
        return cell.init(key, step_struct(xs))

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        return fresh_carry(cell, cell.prepare(params, None), xs, key)

    return Layer(affordable(cell.spec, init, initial_carry), initial_carry, apply, cell.spec)


P = ParamSpec("P")


def evaluator(make: Callable[P, Layer]) -> Callable[P, Layer]:
    """Decorates a function `(cell, *, options) -> Layer`: the spec tells these options beside those of the cell.

    Equal calls give the same Layer, as with `rnnx.factory`.
    """
    chosen = options_of(make)

    @functools.wraps(make)
    def named(*args: P.args, **kwargs: P.kwargs) -> Layer:
        layer = make(*args, **kwargs)
        options = {name: value for name, value in chosen(*args, **kwargs).items() if name != "cell"}
        return layer._replace(spec=layer.spec._replace(options={**layer.spec.options, **options}))

    return interned(named)


def start_of(carry: Carry, fresh: Carry | None, resets: jax.Array | None, lengths: jax.Array) -> Carry:
    """The state from which a row's first step is taken, with `resets` `[batch, time]`; an empty row borrows one."""
    if resets is not None:
        carry = select(resets[:, :1].any(axis=1), fresh, carry)
    return borrow_rows(carry, lengths)


def in_chunks(
    chunk: Callable[[Carry, PyTree], tuple[Carry, PyTree]],
    carry: Carry,
    inputs: PyTree,
    size: int,
    *,
    checkpoint: bool = False,
) -> tuple[Carry, PyTree]:
    """`lax.scan` of a function of `size` steps over inputs `[time, ...]`; what is left over comes last, by itself.

    With `checkpoint`, of a chunk nothing is kept for the backward pass but its carry and inputs.
    """

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.checkpoint(function, prevent_cse=False) if checkpoint else function

    time = jax.tree.leaves(inputs)[0].shape[0]
    chunks = time // size
    if chunks * size == time and chunks == 1:
        return kept(chunk)(carry, inputs)
    rest = jax.tree.map(lambda a: a[chunks * size :], inputs)
    if chunks == 0:
        return kept(chunk)(carry, rest)
    # Flat outside of the loop: XLA copies an array with an axis of length 1 (a single row) before it is cut up.
    flat = jax.tree.map(lambda a: a[: chunks * size].reshape(chunks, size * math.prod(a.shape[1:])), inputs)

    @kept
    def body(carry: Carry, flat: PyTree) -> tuple[Carry, PyTree]:
        return chunk(carry, jax.tree.map(lambda part, a: part.reshape(size, *a.shape[1:]), flat, inputs))

    carry, ys = jax.lax.scan(body, carry, flat)
    ys = jax.tree.map(lambda a: a.reshape(chunks * size, *a.shape[2:]), ys)
    if chunks * size == time:
        return carry, ys
    carry, last = kept(chunk)(carry, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def like(before: Carry, after: Carry, cell: Cell) -> Carry:
    """The new carry in the old one's dtypes; an error that names the cell when they do not match at all."""
    structures: list[Any] = [jax.tree.structure(before), jax.tree.structure(after)]
    leaves = jax.tree.leaves(before), jax.tree.leaves(after)
    shown = [[f"{a.dtype}{list(a.shape[1:])}" for a in side] for side in leaves]
    fits = structures[0] == structures[1] and all(
        b.shape == a.shape and (b.dtype == a.dtype or (_is_float(b) and _is_float(a))) for b, a in zip(*leaves)
    )
    if not fits:
        raise TypeError(
            f"{cell.spec.name}: step was given a carry {shown[0]} in {structures[0]}, but returned {shown[1]} in "
            f"{structures[1]}; initial_carry and step must agree"
        )
    return jax.tree.map(lambda b, a: a.astype(b.dtype), before, after)


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def arranged(
    cell: Cell | AssociativeCell,
    params: Params,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | Segments | None,
    key: Key | None,
) -> tuple[Weights, Steps, Key | None]:
    """The arguments of `Layer.apply` as the weights and all the steps of a cell; and a key for each step.

    What stands for `zs` are the inputs, not yet projected; in a row's pads its first one.
    """
    _, time = batch_and_time(xs)
    borders = resets.resets if isinstance(resets, Segments) else resets
    if lengths is not None:
        check_lengths(lengths, xs)
    if borders is not None:
        check_resets(borders, xs)
    prepare_key, fresh_key, project_key = split_key(key, 3)
    weights = cell.prepare(params, prepare_key)
    valid, start, fresh = None, None, None
    if borders is not None:
        fresh = fresh_carry(cell, weights, xs, fresh_key)
    if lengths is not None:
        valid = valid_steps(lengths, time)
        borders = None if borders is None else borders & valid
        start = start_of(carry, fresh, borders, lengths)
        xs = fill_pads(xs, lengths)
    xs, borders, valid = swapped((xs, borders, valid))
    keys = None if project_key is None else jax.random.split(project_key, time)  # those that scan draws
    return weights, Steps(xs, carry, borders, fresh, valid, start), keys


def laid_out(
    cell: Cell | AssociativeCell,
    params: Params,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | Segments | None,
    key: Key | None,
) -> tuple[Weights, Steps]:
    """The arguments of `Layer.apply`, for at least one step, as the weights and all the steps of a cell."""
    batch, _ = batch_and_time(xs)
    weights, steps, keys = arranged(cell, params, carry, xs, lengths, resets, key)
    keys = None if keys is None else jax.vmap(lambda k: jax.random.split(k, batch))(keys)
    over_rows = jax.vmap(cell.project, in_axes=(None, 0, None if keys is None else 0))
    zs = jax.vmap(over_rows, in_axes=(None, 0, None if keys is None else 0))(weights, steps.zs, keys)
    return weights, steps._replace(zs=zs)


def gathered(
    after: Carry,
    ys: PyTree,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | Segments | None,
) -> tuple[Carry, PyTree]:
    """What `Layer.apply` returns, from carries and outputs of all steps, `[time, batch, ...]`, and its arguments."""
    batch, time = batch_and_time(xs)
    ys = swapped(cast_floats(ys, float_dtype(xs)))
    after = jax.tree.map(lambda a, c: a.astype(c.dtype), after, carry)
    if isinstance(resets, Segments):
        final = resets.carries(after)
    elif lengths is None:
        final = jax.tree.map(lambda a: a[-1], after)
    else:
        last, rows = jnp.clip(widened(lengths) - 1, 0, time - 1), jnp.arange(batch)
        final = select(lengths > 0, jax.tree.map(lambda a: a[last, rows], after), carry)
    return final, zero_pads(ys, lengths)


def at_once(cell: Cell | AssociativeCell, solve: Solve, plain: Apply) -> Apply:
    """The `Layer.apply` that evaluates a cell by `solve`, over all steps at once.

    `plain` is that of an evaluation that walks: used for no step at all, and where the number of steps is symbolic, so
    cannot be halved again and again.
    """

    @jax.jit
    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | Segments | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        _, time = batch_and_time(xs)
        if not isinstance(time, int) or time == 0:
            return plain(params, carry, xs, lengths=lengths, resets=resets, key=key)
        weights, steps = laid_out(cell, params, carry, xs, lengths, resets, key)
        after, ys = solve(weights, steps)
        return gathered(after, ys, carry, xs, lengths, resets)

    return apply
