"""The evaluator for cells that bring the derivative of their step: a gradient without a sum in the loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from rnnx.base import Carry, Cell, Key, Layer, LinearizedStep, Params, PyTree, Weights
from rnnx.checks import check_count
from rnnx.evaluators._contract import with_output_checks
from rnnx.evaluators._lifting import Steps, cast_carry_like, evaluator, make_layer, prepare_inputs, scan_in_chunks
from rnnx.evaluators.scan import scan
from rnnx.sequences import (
    Segments,
    batch_and_time,
    cast_floats,
    float_dtype,
    select,
    swapped,
    zero_pads,
)

# Of a chunk of the gradient: as many rows (of any time) as a matrix product needs to run at full speed, unless its
# carries have so many numbers that memory counts for more. Chunks that fit into a cache are quicker than large ones.
ROWS = 4096
NUMBERS = 2**19


@evaluator
def fused_scan(cell: Cell, *, checkpoint_every: int | None = None) -> Layer:
    r"""Evaluates a cell step after step, with a gradient that is faster and takes less memory than that of `scan`.

    Of a step :math:`h_t = f(\theta, h_{t-1}, z_t)` the derivative falls in two:

    .. math::
        \dot h_t = \frac{\partial f}{\partial h} \dot h_{t-1} + d_t, \qquad
        d_t = \frac{\partial f}{\partial \theta} \dot\theta + \frac{\partial f}{\partial z} \dot z_t

    and only the first part has to walk through time. The drive d of all steps of a chunk is a single product of
    matrices, so transposed, in the gradient, the loop gives the cotangents of the gates alone, and the gradient of the
    weights is one product per chunk. (`lax.scan` by itself adds to the gradient of the weights in every step.)

    Args:
        cell: a cell whose step is an `rnnx.LinearizedStep`: `rnnx.cells.lstm` (without options), `gru`, `elman`, and
            these in `rnnx.learned_carry` or `rnnx.weight_drop`. The layers `rnnx.lstm`, `gru`, `elman` come so.
        checkpoint_every: keep for the backward pass only the carry before every so many steps, and run them again
            there: O(T/k + k) memory for one more forward pass. Values do not depend on it.

    Returns:
        The Layer, with the params, carries and outputs of `scan`. Forward mode, second derivatives and `jax.vmap` over
        params or examples work. With a symbolic time axis (`jax.export`) it is `scan`.

    Raises:
        TypeError: for a cell without the derivative of its step; when `checkpoint_every` is no whole number.
        ValueError: when `checkpoint_every` is below 1.

    The inputs are projected within the loop on a CPU, where fresh memory for all of them costs more than it saves, and
    for all steps at once elsewhere.

    References: J. Appleyard, T. Kociský and P. Blunsom, *Optimizing performance of recurrent neural networks on GPUs*,
    arXiv 1604.01946 (the weight gradient after the loop).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.fused_scan(rnnx.cells.gru(4), checkpoint_every=16)
        >>> xs = jnp.ones((2, 50, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 50, 4))
    """
    if not isinstance(cell, Cell) or not isinstance(cell.step, LinearizedStep):
        raise TypeError(
            f"fused_scan takes a cell that brings the derivative of its step, such as rnnx.cells.lstm(512), but got "
            f"{cell!r}; rnnx.scan takes every cell"
        )
    if checkpoint_every is not None:
        check_count("fused_scan", "checkpoint_every", checkpoint_every)
    plain = scan(cell, checkpoint_every=checkpoint_every)
    cell = with_output_checks(cell)
    runs = [_steps(cell, keep) for keep in (False, True)]

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
        if not isinstance(time, int) or time < 2:
            return plain.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)
        weights, given, keys = prepare_inputs(cell, params, carry, xs, lengths, resets, key)
        inputs = given.zs, given.resets, given.valid, keys
        run = runs[isinstance(resets, Segments)]

        def steps(carry: Carry, inputs: PyTree) -> tuple[Carry, PyTree]:
            carry, ys, after = run(weights, carry, given.initial, given.pad_carry, *inputs)
            return carry, (ys, after)

        if checkpoint_every is None:
            carry, (ys, after) = steps(carry, inputs)
        else:
            carry, (ys, after) = scan_in_chunks(steps, carry, inputs, checkpoint_every, checkpoint=True)
        if isinstance(resets, Segments):
            carry = resets.carries(after)
        return carry, zero_pads(swapped(ys), lengths)

    return make_layer(cell, apply)


def _chunk_size(carry: Carry, time: int) -> int:
    """Rather a number that divides the time: what is left over compiles anew."""
    leaves = jax.tree.leaves(carry)
    batch, numbers = leaves[0].shape[0], max(leaf.size for leaf in leaves)
    wanted = min(ROWS // max(batch, 1), NUMBERS // max(numbers, 1)) if isinstance(batch, int) else 32
    wanted = min(time, max(8, wanted))
    divisors = [size for size in range(wanted, min(2 * wanted, time) + 1) if time % size == 0]
    return divisors[0] if divisors else -(-time // max(1, time // wanted))


def _steps(cell: Cell, keep: bool) -> Callable[..., tuple[Carry, PyTree, Carry | None]]:
    """`(weights, carry, fresh, start, xs, resets, valid, keys) -> (carry, ys, after)`, time-major.

    `after` are the carries after every step, if they are to be kept.
    """
    linearized: Any = cell.step

    def project(weights: Weights, x: PyTree, keys: Key | None) -> PyTree:
        """Over one axis."""
        return jax.vmap(cell.project, in_axes=(None, 0, None if keys is None else 0))(weights, x, keys)

    def project_all(weights: Weights, xs: PyTree, keys: Key | None) -> PyTree:
        steps, batch = jax.tree.leaves(xs)[0].shape[:2]
        keys = None if keys is None else jax.vmap(lambda k: jax.random.split(k, batch))(keys)
        return _unflat(project(weights, _flat(xs), _flat(keys)), steps)

    def forward(
        weights: Weights, carry: Carry, fresh: Carry, start: Carry, xs: PyTree, resets: Any, valid: Any, keys: Any
    ) -> tuple[Carry, tuple[PyTree, Carry, PyTree]]:
        """The final carry, and of every step the output, the carry after it, and what its derivative needs."""
        batch = jax.tree.leaves(xs)[0].shape[1]
        dtype = float_dtype(xs)
        shared = _Shared()

        def body(carry: Carry, z: PyTree, reset: Any, is_valid: Any) -> tuple[Carry, Any]:
            if reset is not None:
                carry = select(reset, fresh, carry)
            before = carry if is_valid is None else select(is_valid, carry, start)
            after, y, saved = jax.vmap(linearized.run, in_axes=(None, 0, 0))(weights, before, z)
            after = cast_carry_like(before, after, cell)
            if is_valid is not None:
                after = select(is_valid, after, carry)
            return after, shared.once((cast_floats(y, dtype), after, saved))

        def projecting(carry: Carry, xs: PyTree) -> Any:
            def step(carry: Carry, inputs: Any) -> Any:
                x, step_key, reset, is_valid = inputs
                step_keys = None if step_key is None else jax.random.split(step_key, batch)
                return body(carry, project(weights, x, step_keys), reset, is_valid)

            return jax.lax.scan(step, carry, (xs, keys, resets, valid))

        def projected(carry: Carry, xs: PyTree) -> Any:
            zs = project_all(weights, xs, keys)
            return jax.lax.scan(lambda carry, inputs: body(carry, *inputs), carry, (zs, resets, valid))

        carry, kept = jax.lax.platform_dependent(carry, xs, cpu=projecting, default=projected)
        return carry, shared.all(kept)

    @jax.custom_jvp
    def run(*args: Any) -> tuple[Carry, PyTree, Carry | None]:
        carry, (ys, after, _) = forward(*args)
        return carry, ys, after if keep else None

    def rule(primals: Any, tangents: Any) -> Any:
        """The steps at once; their tangents by chunks, whose insides are not kept for the backward pass."""
        weights, carry, fresh, start, xs, *others = primals
        final, (ys, after, saved) = forward(*primals)
        moved = jax.tree.map(lambda t: None if isinstance(t, SymbolicZero) else t, tangents)
        dweights, dcarry, dfresh, dstart, dxs = moved[:5]

        def chunk(state: tuple[Carry, Carry], inputs: Any) -> tuple[tuple[Carry, Carry], Any]:
            dcarry, carry = state
            (xs, *others), after, saved, dxs = inputs
            primals = weights, carry, fresh, start, xs, *others
            dcarry, dys, dafter = pushed(primals, after, saved, (dweights, dcarry, dfresh, dstart, dxs))
            return (dcarry, jax.tree.map(lambda a: a[-1], after)), (dys, dafter)

        begin = _arrays(dcarry, carry), carry
        inputs = (xs, *others), after, saved, dxs
        size = _chunk_size(carry, len(jax.tree.leaves(xs)[0]))
        (dfinal, _), (dys, dafter) = scan_in_chunks(chunk, begin, inputs, size, checkpoint=True)
        return (final, ys, after if keep else None), (dfinal, dys, dafter)

    def pushed(primals: Any, after: Carry, saved: PyTree, tangents: Any) -> Any:
        weights, carry, fresh, start, xs, resets, valid, keys = primals
        dweights, dcarry, dfresh, dstart = map(_arrays, tangents[:4], primals[:4])
        before = Steps(xs, carry, resets, fresh, valid, start).previous_carries(after)
        dzs = _tangent(lambda w, xs: project_all(w, xs, keys), (weights, xs), (tangents[0], tangents[4]))
        over_steps = jax.vmap(linearized.drive, in_axes=(None, 0, 0, 0))
        drives = _unflat(over_steps(dweights, _flat(dzs), _flat(before), _flat(saved)), len(jax.tree.leaves(xs)[0]))

        # Else JAX would compute, and keep, every coefficient of the push in a loop of its own.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def push(before: Carry, saved: PyTree, dbefore: Carry, drive: PyTree) -> tuple[Carry, PyTree]:
            return jax.vmap(linearized.push, in_axes=(None, 0, 0, 0, 0))(weights, before, saved, dbefore, drive)

        def body(dcarry: Carry, inputs: Any) -> Any:
            before, saved, drive, reset, is_valid = inputs
            if reset is not None:
                dcarry = select(reset, dfresh, dcarry)
            dbefore = dcarry if is_valid is None else select(is_valid, dcarry, dstart)
            dafter, dy = push(before, saved, dbefore, drive)
            dafter = jax.tree.map(lambda d, c: d.astype(c.dtype), dafter, dcarry)
            if is_valid is not None:
                dafter = select(is_valid, dafter, dcarry)
            return dafter, (cast_floats(dy, float_dtype(xs)), dafter if keep else None)

        dfinal, (dys, dafter) = jax.lax.scan(body, dcarry, (before, saved, drives, resets, valid))
        return dfinal, dys, dafter

    run.defjvp(rule, symbolic_zeros=True)
    return run


class _Shared:
    """Lets a loop write an array once that it gives under several names: h is output, carry and more."""

    def once(self, tree: PyTree) -> list[jax.Array]:
        leaves, self.structure = jax.tree.flatten(tree)
        distinct = {id(leaf): leaf for leaf in leaves}
        self.places = [list(distinct).index(id(leaf)) for leaf in leaves]
        return list(distinct.values())

    def all(self, distinct: list[jax.Array]) -> PyTree:
        return jax.tree.unflatten(self.structure, [distinct[i] for i in self.places])


def _flat(tree: PyTree) -> PyTree:
    """Time and batch as one axis: what is summed up over both is then one product of matrices."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), tree)


def _unflat(tree: PyTree, steps: int) -> PyTree:
    return jax.tree.map(lambda a: a.reshape(steps, a.shape[0] // steps, *a.shape[1:]), tree)


def _arrays(tangents: PyTree, primals: PyTree) -> PyTree:
    """Zeros where there is no tangent, since it is not differentiated by that."""
    return jax.tree.map(lambda p, t: jnp.zeros_like(p) if t is None else t, primals, tangents)


def _tangent(function: Callable[..., PyTree], primals: PyTree, tangents: PyTree) -> PyTree:
    """The tangent of the result; nothing is computed for what has none (None)."""
    leaves, structure = jax.tree.flatten(primals)
    moved = jax.tree.leaves(tangents, is_leaf=lambda t: t is None)
    places = [i for i, t in enumerate(moved) if t is not None]

    def of(*changing: jax.Array) -> PyTree:
        filled = list(leaves)
        for i, leaf in zip(places, changing):
            filled[i] = leaf
        return function(*jax.tree.unflatten(structure, filled))

    if not places:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of))
    return jax.jvp(of, [leaves[i] for i in places], [moved[i] for i in places])[1]
