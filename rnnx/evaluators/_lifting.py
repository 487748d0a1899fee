"""What the evaluators share: params and carries of a batch, and all steps at once for the parallel evaluators."""

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
from rnnx.memory import checked_init
from rnnx.meshes import with_varying_inputs
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
    swap_batch_time,
    valid_steps,
    widen_integers,
    zero_pads,
)


class Steps(NamedTuple):
    """All steps of a batch, time-major: the input of an evaluator that computes them in parallel.

    Attributes:
        zs: `[time, batch, ...]`, the projected inputs; pads hold a copy of the row's first step.
        carry: `[batch, ...]`, the incoming carry.
        resets: `[time, batch]` booleans, or None.
        initial: `[batch, ...]`, the initial carry, which a reset puts in place; None without resets.
        valid: `[time, batch]` booleans, or None without pads.
        pad_carry: `[batch, ...]`, the carry before a row's first step; None without pads. Pads repeat that step from
            that carry: it is the only pair of input and carry at which the step and its gradient are known to be
            defined.
    """

    zs: PyTree
    carry: Carry
    resets: jax.Array | None
    initial: Carry | None
    valid: jax.Array | None
    pad_carry: Carry | None

    @property
    def boundaries(self) -> jax.Array | None:
        """`[time, batch]`: the steps that do not continue from the step before; None if all do."""
        if self.resets is None:
            return None if self.valid is None else ~self.valid
        return self.resets if self.valid is None else self.resets | ~self.valid

    def start_carries(self, previous: Carry) -> Carry:
        """Replaces `previous`, `[time, batch, ...]`, at the boundaries by the carries that the steps start from."""
        time = jax.tree.leaves(self.zs)[0].shape[0]

        def at_all_steps(carry: Carry) -> Carry:
            return jax.tree.map(lambda a: jnp.broadcast_to(a, (time, *a.shape)), carry)

        if self.resets is not None:
            previous = select(self.resets, at_all_steps(self.initial), previous)
        if self.valid is not None:
            previous = select(self.valid, previous, at_all_steps(self.pad_carry))
        return previous

    def previous_carries(self, after: Carry) -> Carry:
        """The carry before every step, `[time, batch, ...]`, given the carry after every step."""
        shifted = jax.tree.map(lambda first, a: jnp.concatenate([first[None], a[:-1]]), self.carry, after)
        return self.start_carries(shifted)


Solve = Callable[[Weights, Steps], tuple[Carry, PyTree]]
"""`(weights, steps) -> (after, ys)`: the carry after every step and its output, both `[time, batch, ...]`."""


def batched_initial_carry(cell: Cell | AssociativeCell, weights: Weights, xs: PyTree, key: Key | None) -> Carry:
    """Makes the initial carry of every row: `[batch, ...]`."""
    batch, _ = batch_and_time(xs)
    x = step_struct(xs)
    if key is None:  # all rows are equal: compute one
        carry = cell.initial_carry(weights, x, None)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, *jnp.shape(a))), carry)
    return jax.vmap(lambda k: cell.initial_carry(weights, x, k))(jax.random.split(key, batch))


def make_layer(cell: Cell | AssociativeCell, apply: Apply) -> Layer:
    """Makes the Layer of a cell, run by `apply`."""

    def init(key: Key, xs: PyTree) -> Params:
        return cell.init(key, step_struct(xs))

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        return batched_initial_carry(cell, cell.prepare(params, None), xs, key)

    return Layer(checked_init(cell.spec, init, initial_carry), initial_carry, with_varying_inputs(apply), cell.spec)


P = ParamSpec("P")


def evaluator(make: Callable[P, Layer]) -> Callable[P, Layer]:
    """Decorates a function `(cell, *, options) -> Layer`: adds these options to the spec of the cell.

    Equal calls return the same Layer, as with `rnnx.factory`.
    """
    given_options = options_of(make)

    @functools.wraps(make)
    def named(*args: P.args, **kwargs: P.kwargs) -> Layer:
        layer = make(*args, **kwargs)
        options = {name: value for name, value in given_options(*args, **kwargs).items() if name != "cell"}
        return layer._replace(spec=layer.spec._replace(options={**layer.spec.options, **options}))

    return interned(named)


def first_step_carry(carry: Carry, initial: Carry | None, resets: jax.Array | None, lengths: jax.Array) -> Carry:
    """The carry before each row's first step, with `resets` `[batch, time]`; an empty row borrows another's."""
    if resets is not None:
        carry = select(resets[:, :1].any(axis=1), initial, carry)
    return borrow_rows(carry, lengths)


def scan_in_chunks(
    chunk: Callable[[Carry, PyTree], tuple[Carry, PyTree]],
    carry: Carry,
    inputs: PyTree,
    size: int,
    *,
    checkpoint: bool = False,
) -> tuple[Carry, PyTree]:
    """Scans `chunk`, a function of `size` steps, over inputs `[time, ...]`; the remainder runs last, as one call.

    With `checkpoint`, only the carry and inputs of each chunk are kept for the backward pass.
    """

    def maybe_checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.checkpoint(function, prevent_cse=False) if checkpoint else function

    time = jax.tree.leaves(inputs)[0].shape[0]
    chunks = time // size
    if chunks * size == time and chunks == 1:
        return maybe_checkpoint(chunk)(carry, inputs)
    rest = jax.tree.map(lambda a: a[chunks * size :], inputs)
    if chunks == 0:
        return maybe_checkpoint(chunk)(carry, rest)
    # Flat outside the loop: XLA copies an array with an axis of length 1 (a single row) before slicing it.
    flat = jax.tree.map(lambda a: a[: chunks * size].reshape(chunks, size * math.prod(a.shape[1:])), inputs)

    @maybe_checkpoint
    def body(carry: Carry, flat: PyTree) -> tuple[Carry, PyTree]:
        return chunk(carry, jax.tree.map(lambda part, a: part.reshape(size, *a.shape[1:]), flat, inputs))

    carry, ys = jax.lax.scan(body, carry, flat)
    ys = jax.tree.map(lambda a: a.reshape(chunks * size, *a.shape[2:]), ys)
    if chunks * size == time:
        return carry, ys
    carry, last = maybe_checkpoint(chunk)(carry, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def cast_carry_like(reference: Carry, carry: Carry, cell: Cell) -> Carry:
    """Casts the carry that a step returned to the dtypes of `reference`, the one it was given.

    Raises an error that names the cell if structures, shapes or kinds of dtype differ.
    """
    structures: list[Any] = [jax.tree.structure(reference), jax.tree.structure(carry)]
    leaves = jax.tree.leaves(reference), jax.tree.leaves(carry)
    shapes = [[f"{a.dtype}{list(a.shape[1:])}" for a in side] for side in leaves]
    fits = structures[0] == structures[1] and all(
        r.shape == a.shape and (r.dtype == a.dtype or (_is_float(r) and _is_float(a))) for r, a in zip(*leaves)
    )
    if not fits:
        raise TypeError(
            f"{cell.spec.name}: step was given a carry {shapes[0]} in {structures[0]}, but returned {shapes[1]} in "
            f"{structures[1]}; initial_carry and step must agree"
        )
    return jax.tree.map(lambda r, a: a.astype(r.dtype), reference, carry)


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def prepare_inputs(
    cell: Cell | AssociativeCell,
    params: Params,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | Segments | None,
    key: Key | None,
) -> tuple[Weights, Steps, Key | None]:
    """Turns the arguments of `Layer.apply` into weights, `Steps` and a key for each step.

    The `zs` of these steps are the inputs, not projected yet; pads are filled with the row's first input.
    """
    _, time = batch_and_time(xs)
    boundaries = resets.resets if isinstance(resets, Segments) else resets
    if lengths is not None:
        check_lengths(lengths, xs)
    if boundaries is not None:
        check_resets(boundaries, xs)
    prepare_key, initial_key, project_key = split_key(key, 3)
    weights = cell.prepare(params, prepare_key)
    valid, pad_carry, initial = None, None, None
    if boundaries is not None:
        initial = batched_initial_carry(cell, weights, xs, initial_key)
    if lengths is not None:
        valid = valid_steps(lengths, time)
        boundaries = None if boundaries is None else boundaries & valid
        pad_carry = first_step_carry(carry, initial, boundaries, lengths)
        xs = fill_pads(xs, lengths)
    xs, boundaries, valid = swap_batch_time((xs, boundaries, valid))
    keys = None if project_key is None else jax.random.split(project_key, time)  # the same keys as in scan
    return weights, Steps(xs, carry, boundaries, initial, valid, pad_carry), keys


def project_all_steps(
    cell: Cell | AssociativeCell,
    params: Params,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | Segments | None,
    key: Key | None,
) -> tuple[Weights, Steps]:
    """Turns the arguments of `Layer.apply`, with at least one step, into weights and `Steps` with projected inputs."""
    batch, _ = batch_and_time(xs)
    weights, steps, keys = prepare_inputs(cell, params, carry, xs, lengths, resets, key)
    keys = None if keys is None else jax.vmap(lambda k: jax.random.split(k, batch))(keys)
    over_rows = jax.vmap(cell.project, in_axes=(None, 0, None if keys is None else 0))
    zs = jax.vmap(over_rows, in_axes=(None, 0, None if keys is None else 0))(weights, steps.zs, keys)
    return weights, steps._replace(zs=zs)


def finalize_outputs(
    after: Carry,
    ys: PyTree,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | Segments | None,
) -> tuple[Carry, PyTree]:
    """Turns carries and outputs of all steps, `[time, batch, ...]`, into what `Layer.apply` returns."""
    batch, time = batch_and_time(xs)
    ys = swap_batch_time(cast_floats(ys, float_dtype(xs)))
    after = jax.tree.map(lambda a, c: a.astype(c.dtype), after, carry)
    if isinstance(resets, Segments):
        final = resets.final_carries(after)
    elif lengths is None:
        final = jax.tree.map(lambda a: a[-1], after)
    else:
        last, rows = jnp.clip(widen_integers(lengths) - 1, 0, time - 1), jnp.arange(batch)
        final = select(lengths > 0, jax.tree.map(lambda a: a[last, rows], after), carry)
    return final, zero_pads(ys, lengths)


def parallel_apply(cell: Cell | AssociativeCell, solve: Solve, sequential: Apply) -> Apply:
    """Makes the `Layer.apply` that evaluates a cell by `solve`, over all steps at once.

    It uses `sequential`, the `apply` of a step-by-step evaluator, when there are no steps, and when their number is
    symbolic: a tree cannot halve an unknown number of steps.
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
            return sequential(params, carry, xs, lengths=lengths, resets=resets, key=key)
        weights, steps = project_all_steps(cell, params, carry, xs, lengths, resets, key)
        after, ys = solve(weights, steps)
        return finalize_outputs(after, ys, carry, xs, lengths, resets)

    return apply
