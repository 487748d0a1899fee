"""The evaluator for steps with a hand-written derivative: weight gradients are computed outside the loop."""

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
    swap_batch_time,
    zero_pads,
)

# The size of a chunk of the gradient: as many rows (time × batch) as a matrix product needs for full speed, but no more
# numbers per carry leaf than memory allows. Chunks that fit into a cache are faster than large ones.
ROWS = 4096
NUMBERS = 2**19


@evaluator
def fused_scan(cell: Cell, *, checkpoint_every: int | None = None) -> Layer:
    r"""Evaluates a cell sequentially, with a gradient that is faster and takes less memory than that of `scan`.

    The derivative of a step :math:`h_t = f(\theta, h_{t-1}, z_t)` has two parts:

    .. math::
        \dot h_t = \frac{\partial f}{\partial h} \dot h_{t-1} + d_t, \qquad
        d_t = \frac{\partial f}{\partial \theta} \dot\theta + \frac{\partial f}{\partial z} \dot z_t

    and only the first part is sequential. The input tangents d of all steps of a chunk are a single matrix product. In
    the transpose, the gradient, the loop computes only the cotangents of the gates, and the gradient of the weights is
    one matrix product per chunk. (`lax.scan` by itself adds to the gradient of the weights in every step.)

    Args:
        cell: a cell whose step is an `rnnx.LinearizedStep`: `rnnx.cells.lstm` (without options), `gru`, `elman`, and
            these in `rnnx.learned_carry` or `rnnx.weight_drop`. The layers `rnnx.lstm`, `rnnx.gru` and `rnnx.elman`
            use this evaluator by default.
        checkpoint_every: k, to keep only every k-th carry for the backward pass and recompute the steps in between:
            O(T/k + k) memory, at the cost of one more forward pass. Values do not depend on it.

    Returns:
        The Layer, with the params, carries and outputs of `scan`. Forward mode, second derivatives and `jax.vmap` over
        params or examples work. With a symbolic time axis (`jax.export`) it falls back to `scan`.

    Raises:
        TypeError: if the step of the cell is not a `LinearizedStep`; if `checkpoint_every` is not an integer.
        ValueError: if `checkpoint_every` is below 1.

    On a CPU, inputs are projected inside the loop: there, allocating memory for all projections costs more than it
    saves. On other platforms, all steps are projected at once.

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
            "fused_scan takes a cell whose step has a hand-written derivative (rnnx.LinearizedStep), such as "
            f"rnnx.cells.lstm(512), but got {cell!r}; rnnx.scan takes every cell"
        )
    if checkpoint_every is not None:
        check_count("fused_scan", "checkpoint_every", checkpoint_every)
    fallback = scan(cell, checkpoint_every=checkpoint_every)
    cell = with_output_checks(cell)
    runs = [_differentiable_run(cell, keep_carries) for keep_carries in (False, True)]

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
            return fallback.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)
        weights, steps, keys = prepare_inputs(cell, params, carry, xs, lengths, resets, key)
        inputs = steps.zs, steps.resets, steps.valid, keys
        run = runs[isinstance(resets, Segments)]

        def run_chunk(carry: Carry, inputs: PyTree) -> tuple[Carry, PyTree]:
            carry, ys, after = run(weights, carry, steps.initial, steps.pad_carry, *inputs)
            return carry, (ys, after)

        if checkpoint_every is None:
            carry, (ys, after) = run_chunk(carry, inputs)
        else:
            carry, (ys, after) = scan_in_chunks(run_chunk, carry, inputs, checkpoint_every, checkpoint=True)
        if isinstance(resets, Segments):
            carry = resets.final_carries(after)
        return carry, zero_pads(swap_batch_time(ys), lengths)

    return make_layer(cell, apply)


def _chunk_size(carry: Carry, time: int) -> int:
    """The number of steps per chunk; preferably a divisor of `time`, since a remainder needs its own compilation."""
    leaves = jax.tree.leaves(carry)
    batch, numbers = leaves[0].shape[0], max(leaf.size for leaf in leaves)
    size = min(ROWS // max(batch, 1), NUMBERS // max(numbers, 1)) if isinstance(batch, int) else 32
    size = min(time, max(8, size))
    divisors = [n for n in range(size, min(2 * size, time) + 1) if time % n == 0]
    return divisors[0] if divisors else -(-time // max(1, time // size))


def _differentiable_run(cell: Cell, keep_carries: bool) -> Callable[..., tuple[Carry, PyTree, Carry | None]]:
    """`(weights, carry, initial, pad_carry, xs, resets, valid, keys) -> (carry, ys, after)`, time-major.

    `after` holds the carry after every step if `keep_carries`, else it is None.
    """

    @jax.custom_jvp
    def run(*args: Any) -> tuple[Carry, PyTree, Carry | None]:
        carry, (ys, after, _) = _forward(cell, *args)
        return carry, ys, after if keep_carries else None

    def jvp(primals: Any, tangents: Any) -> Any:
        """Runs all steps first, then their tangents in chunks, which keep nothing else for the backward pass."""
        weights, carry, initial, pad_carry, xs, *others = primals
        final, (ys, after, residuals) = _forward(cell, *primals)
        tangents = jax.tree.map(lambda t: None if isinstance(t, SymbolicZero) else t, tangents)
        dweights, dcarry, dinitial, dpad_carry, dxs = tangents[:5]

        def chunk(state: tuple[Carry, Carry], inputs: Any) -> tuple[tuple[Carry, Carry], Any]:
            dcarry, carry = state
            (xs, *others), after, residuals, dxs = inputs
            primals = weights, carry, initial, pad_carry, xs, *others
            dcarry, dys, dafter = _chunk_jvp(
                cell, keep_carries, primals, after, residuals, (dweights, dcarry, dinitial, dpad_carry, dxs)
            )
            return (dcarry, jax.tree.map(lambda a: a[-1], after)), (dys, dafter)

        start = _instantiate(dcarry, carry), carry
        inputs = (xs, *others), after, residuals, dxs
        size = _chunk_size(carry, len(jax.tree.leaves(xs)[0]))
        (dfinal, _), (dys, dafter) = scan_in_chunks(chunk, start, inputs, size, checkpoint=True)
        return (final, ys, after if keep_carries else None), (dfinal, dys, dafter)

    run.defjvp(jvp, symbolic_zeros=True)
    return run


def _project_rows(cell: Cell, weights: Weights, x: PyTree, keys: Key | None) -> PyTree:
    return jax.vmap(cell.project, in_axes=(None, 0, None if keys is None else 0))(weights, x, keys)


def _project_all(cell: Cell, weights: Weights, xs: PyTree, keys: Key | None) -> PyTree:
    time, batch = jax.tree.leaves(xs)[0].shape[:2]
    keys = None if keys is None else jax.vmap(lambda k: jax.random.split(k, batch))(keys)
    return _split_time(_project_rows(cell, weights, _merge_time(xs), _merge_time(keys)), time)


def _forward(
    cell: Cell,
    weights: Weights,
    carry: Carry,
    initial: Carry,
    pad_carry: Carry,
    xs: PyTree,
    resets: Any,
    valid: Any,
    keys: Any,
) -> tuple[Carry, tuple[PyTree, Carry, PyTree]]:
    """Returns the final carry; and for every step the output, the carry after it, and what its derivative needs."""
    linearized: Any = cell.step
    batch = jax.tree.leaves(xs)[0].shape[1]
    dtype = float_dtype(xs)
    shared = _SharedArrays()

    def body(carry: Carry, z: PyTree, reset: Any, is_valid: Any) -> tuple[Carry, Any]:
        if reset is not None:
            carry = select(reset, initial, carry)
        before = carry if is_valid is None else select(is_valid, carry, pad_carry)
        after, y, residuals = jax.vmap(linearized.forward, in_axes=(None, 0, 0))(weights, before, z)
        after = cast_carry_like(before, after, cell)
        if is_valid is not None:
            after = select(is_valid, after, carry)
        return after, shared.deduplicate((cast_floats(y, dtype), after, residuals))

    def project_in_loop(carry: Carry, xs: PyTree) -> Any:
        def step(carry: Carry, inputs: Any) -> Any:
            x, step_key, reset, is_valid = inputs
            step_keys = None if step_key is None else jax.random.split(step_key, batch)
            return body(carry, _project_rows(cell, weights, x, step_keys), reset, is_valid)

        return jax.lax.scan(step, carry, (xs, keys, resets, valid))

    def project_first(carry: Carry, xs: PyTree) -> Any:
        zs = _project_all(cell, weights, xs, keys)
        return jax.lax.scan(lambda carry, inputs: body(carry, *inputs), carry, (zs, resets, valid))

    carry, kept = jax.lax.platform_dependent(carry, xs, cpu=project_in_loop, default=project_first)
    return carry, shared.restore(kept)


def _chunk_jvp(cell: Cell, keep_carries: bool, primals: Any, after: Carry, residuals: PyTree, tangents: Any) -> Any:
    """The tangents of a chunk's final carry, outputs and, if `keep_carries`, carries."""
    linearized: Any = cell.step
    weights, carry, initial, pad_carry, xs, resets, valid, keys = primals
    dweights, dcarry, dinitial, dpad_carry = map(_instantiate, tangents[:4], primals[:4])
    before = Steps(xs, carry, resets, initial, valid, pad_carry).previous_carries(after)
    dzs = _jvp(lambda w, xs: _project_all(cell, w, xs, keys), (weights, xs), (tangents[0], tangents[4]))
    over_steps = jax.vmap(linearized.input_tangent, in_axes=(None, 0, 0, 0))
    input_tangents = over_steps(dweights, _merge_time(dzs), _merge_time(before), _merge_time(residuals))
    input_tangents = _split_time(input_tangents, len(jax.tree.leaves(xs)[0]))

    # Without this, JAX would compute and keep all coefficients of the JVP in a loop of their own.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step_jvp(before: Carry, residuals: PyTree, dbefore: Carry, input_tangent: PyTree) -> tuple[Carry, PyTree]:
        return jax.vmap(linearized.jvp, in_axes=(None, 0, 0, 0, 0))(weights, before, residuals, dbefore, input_tangent)

    def body(dcarry: Carry, inputs: Any) -> Any:
        before, residuals, input_tangent, reset, is_valid = inputs
        if reset is not None:
            dcarry = select(reset, dinitial, dcarry)
        dbefore = dcarry if is_valid is None else select(is_valid, dcarry, dpad_carry)
        dafter, dy = step_jvp(before, residuals, dbefore, input_tangent)
        dafter = jax.tree.map(lambda d, c: d.astype(c.dtype), dafter, dcarry)
        if is_valid is not None:
            dafter = select(is_valid, dafter, dcarry)
        return dafter, (cast_floats(dy, float_dtype(xs)), dafter if keep_carries else None)

    dfinal, (dys, dafter) = jax.lax.scan(body, dcarry, (before, residuals, input_tangents, resets, valid))
    return dfinal, dys, dafter


class _SharedArrays:
    """Lets a loop write an array once that it returns in several places: h is an output, a carry and more."""

    def deduplicate(self, tree: PyTree) -> list[jax.Array]:
        leaves, self.structure = jax.tree.flatten(tree)
        distinct = {id(leaf): leaf for leaf in leaves}
        self.places = [list(distinct).index(id(leaf)) for leaf in leaves]
        return list(distinct.values())

    def restore(self, distinct: list[jax.Array]) -> PyTree:
        return jax.tree.unflatten(self.structure, [distinct[i] for i in self.places])


def _merge_time(tree: PyTree) -> PyTree:
    """Merges time and batch into one axis: a sum over both is then one matrix product."""
    return jax.tree.map(lambda a: a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]), tree)


def _split_time(tree: PyTree, time: int) -> PyTree:
    return jax.tree.map(lambda a: a.reshape(time, a.shape[0] // time, *a.shape[1:]), tree)


def _instantiate(tangents: PyTree, primals: PyTree) -> PyTree:
    """Replaces missing tangents (None) by zeros."""
    return jax.tree.map(lambda p, t: jnp.zeros_like(p) if t is None else t, primals, tangents)


def _jvp(function: Callable[..., PyTree], primals: PyTree, tangents: PyTree) -> PyTree:
    """The tangent of the result; computes nothing for arguments without tangent (None)."""
    leaves, structure = jax.tree.flatten(primals)
    dleaves = jax.tree.leaves(tangents, is_leaf=lambda t: t is None)
    active = [i for i, t in enumerate(dleaves) if t is not None]

    def of_active(*values: jax.Array) -> PyTree:
        filled = list(leaves)
        for i, leaf in zip(active, values):
            filled[i] = leaf
        return function(*jax.tree.unflatten(structure, filled))

    if not active:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(of_active))
    return jax.jvp(of_active, [leaves[i] for i in active], [dleaves[i] for i in active])[1]
