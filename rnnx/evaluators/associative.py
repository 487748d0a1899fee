"""Evaluation of associative cells in parallel over time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Apply, AssociativeCell, Carry, Cell, Layer, Params, PyTree, Weights, as_cell
from rnnx.checks import check_flag
from rnnx.evaluators._contract import check_act, check_product, with_output_checks
from rnnx.evaluators._lifting import Steps, evaluator, make_layer, parallel_apply
from rnnx.evaluators.scan import scan
from rnnx.linear import complex_product, elementwise, linear_scan
from rnnx.sequences import cast_floats, float_dtype, select, step_struct


@evaluator
def associative_scan(cell: AssociativeCell, *, sequential: bool | None = None) -> Layer:
    """Evaluates an associative cell in parallel over time, by a parallel scan.

    Args:
        cell: the cell, e.g. `rnnx.cells.lru(64)`.
        sequential: True to run one step at a time; False for a tree, which does more work, but in parallel over time.
            Default: sequential if the program is compiled for a CPU, else a tree. Values do not depend on it.

    Returns:
        The Layer. Its params are the cell's, its `ys` are `[batch, time, ...]`.

    Raises:
        TypeError: if `cell` is not an AssociativeCell; if its `act` does not fit the elements that `lift` returns.
        ValueError: if its `product` is not linear.

    The tree holds the elements of all steps in memory at once, and the states after them. It runs cells with linear
    steps (`rnnx.affine_cell`) by `rnnx.linear_scan`, and all others by `jax.lax.associative_scan` with their
    `combine`, in float32 or wider. Sequentially, `rnnx.linear_scan` runs linear cells whose state is a single real
    array and whose elements are no larger than the projected inputs; `rnnx.scan`, which holds one element at a time,
    runs the others. `rnnx.scan` also runs every cell under `jax.export` with a symbolic time axis.

    Noise: with a key, it draws the same numbers as `rnnx.scan`.

    References: G. Blelloch, *Prefix sums and their applications*, 1990; E. Martin and C. Cundy, *Parallelizing linear
    recurrent neural nets over sequence length*, ICLR 2018.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.associative_scan(rnnx.cells.lru(4), sequential=False)
        >>> xs = jnp.ones((2, 50, 4))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> carry, ys = rnnx.unroll(layer, params, xs)
        >>> carry.re.shape, ys.shape
        ((2, 4), (2, 50, 4))
    """
    if not isinstance(cell, AssociativeCell):
        hint = "; rnnx.scan takes any Cell" if isinstance(cell, Cell) else ""
        raise TypeError(f"associative_scan takes an AssociativeCell, e.g. rnnx.cells.lru(64), but got {cell!r}{hint}")
    check_flag("associative_scan", "sequential", sequential)
    step_by_step = scan(as_cell(cell)).apply
    cell = with_output_checks(cell)

    def apply_with(sequential: bool | None) -> Apply:
        def solve(weights: Weights, steps: Steps) -> tuple[Carry, PyTree]:
            elements = _vmap_steps(cell.lift)(weights, steps.zs)
            after = _tree(cell, elements, steps) if cell.product is None else _linear(cell, elements, steps, sequential)
            return after, _vmap_steps(cell.readout)(weights, after, steps.zs)

        return parallel_apply(cell, solve, step_by_step)

    as_tree, as_requested = apply_with(False), apply_with(sequential)

    @jax.jit
    def apply(params: Params, carry: Carry, xs: PyTree, **others: Any) -> tuple[Carry, PyTree]:
        def positional(apply: Apply) -> Callable[..., tuple[Carry, PyTree]]:
            return lambda params, carry, xs, others: apply(params, carry, xs, **others)

        if _has_small_elements(cell, params, xs) or sequential is False:
            return as_requested(params, carry, xs, **others)
        if sequential:
            return step_by_step(params, carry, xs, **others)
        cpu, default = positional(step_by_step), positional(as_tree)
        return jax.lax.platform_dependent(params, carry, xs, others, cpu=cpu, default=default)

    return make_layer(cell, apply)


def _has_small_elements(cell: AssociativeCell, params: Params, xs: PyTree) -> bool:
    """Whether a CPU should store the elements of all steps: linear maps of a single array, no larger than z.

    Larger ones (matrices, or one state per feature) are faster to compute one at a time, when needed.
    """

    x = step_struct(xs)

    def struct(params: Params) -> tuple[Carry, PyTree, PyTree]:
        weights = cell.prepare(params, None)
        z = cell.project(weights, jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), x), None)
        return cell.initial_carry(weights, x, None), z, cell.lift(weights, z)

    def size(tree: PyTree) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    carry, z, element = jax.eval_shape(struct, params)
    check_act(cell, carry, element)
    if cell.product not in (None, elementwise, complex_product):
        check_product(cell, carry, element)
    return cell.product is not None and len(jax.tree.leaves(carry)) == 1 and size(element) <= size(z)


def _vmap_steps(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Maps a function over `[time, batch]` of all its arguments but the first, the weights."""

    def mapped(weights: Weights, *arguments: PyTree) -> PyTree:
        return jax.vmap(jax.vmap(functools.partial(function, weights)))(*arguments)

    return mapped


def _linear(cell: AssociativeCell, elements: PyTree, steps: Steps, sequential: bool | None) -> Carry:
    assert cell.product is not None
    (a, b), product = elements, jax.vmap(cell.product)
    if steps.boundaries is not None:  # linear_scan sets the state to zero there, so `a` times the start goes into b
        start = steps.start_carries(jax.tree.map(jnp.zeros_like, b))
        b = select(steps.boundaries, jax.tree.map(jnp.add, b, jax.vmap(product)(a, start)), b)
    return linear_scan(a, b, steps.carry, product=product, resets=steps.boundaries, sequential=sequential)


def _tree(cell: AssociativeCell, elements: PyTree, steps: Steps) -> Carry:
    """Combines the steps since the last boundary, and applies the result to the carry at that boundary."""
    dtype = float_dtype(elements)
    elements = elements if dtype is None else cast_floats(elements, jnp.promote_types(dtype, jnp.float32))
    combined = jax.vmap(jax.vmap(cell.combine))

    def combine(left: Any, right: Any) -> Any:
        (one, cut), (two, cut_next) = left, right
        if cut is None:
            return combined(one, two), None
        one = select(cut_next, two, one)  # before combining: a step that diverged must not enter the product
        return select(cut_next, two, combined(one, two)), cut | cut_next

    products, _ = jax.lax.associative_scan(combine, (elements, steps.boundaries))
    time = jax.tree.leaves(elements)[0].shape[0]
    first = jax.tree.map(lambda c: jnp.broadcast_to(c, (time, *c.shape)), steps.carry)
    if steps.resets is not None:
        steps = steps._replace(resets=jax.lax.cumsum(steps.resets.astype(jnp.int32)) > 0)
    return jax.vmap(jax.vmap(cell.act))(steps.start_carries(first), products)
