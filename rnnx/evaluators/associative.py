"""Evaluation in parallel over time, of cells whose steps can be combined."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Apply, AssociativeCell, Carry, Cell, Layer, Params, PyTree, Weights, as_cell
from rnnx.checks import check_flag
from rnnx.evaluators._contract import check_act, check_times, checked
from rnnx.evaluators._lifting import Steps, at_once, evaluator, layer_of
from rnnx.evaluators.scan import scan
from rnnx.linear import elementwise, in_pairs, linear_scan
from rnnx.sequences import cast_floats, float_dtype, select, step_struct


@evaluator
def associative_scan(cell: AssociativeCell, *, sequential: bool | None = None) -> Layer:
    """Evaluates a cell whose steps combine over all steps at once.

    Args:
        cell: the cell, e.g. `rnnx.cells.lru(64)`.
        sequential: step after step, or as a tree: more work, in parallel over time. By default as the platform wants
            it for which the program is compiled: on a CPU sequentially, else as a tree. Values do not depend on it.

    Returns:
        The Layer. Its params are the cell's, its `ys` are `[batch, time, ...]`.

    Raises:
        TypeError: for what is not an AssociativeCell; when its `act` does not fit what its `lift` makes.
        ValueError: when its `times` is not linear.

    As a tree, the elements of all steps are in memory at once, and the states after them: cells of linear steps
    (`rnnx.affine_cell`) run by `rnnx.linear_scan`, others by `jax.lax.associative_scan` of their `combine`, in float32
    or more. Sequentially, `rnnx.linear_scan` takes the linear ones with a state of one real array, whose elements are
    no larger than their projected inputs; the rest go by `rnnx.scan`, which makes one element at a time, as all do
    under `jax.export` with a symbolic time axis.

    Noise: with a key, what is drawn is what `rnnx.scan` draws.

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
    plain = scan(as_cell(cell)).apply
    cell = checked(cell)

    def solved(sequential: bool | None) -> Apply:
        def solve(weights: Weights, steps: Steps) -> tuple[Carry, PyTree]:
            elements = _everywhere(cell.lift)(weights, steps.zs)
            after = _tree(cell, elements, steps) if cell.times is None else _linear(cell, elements, steps, sequential)
            return after, _everywhere(cell.readout)(weights, after, steps.zs)

        return at_once(cell, solve, plain)

    as_tree, at_will = solved(False), solved(sequential)

    @jax.jit
    def apply(params: Params, carry: Carry, xs: PyTree, **others: Any) -> tuple[Carry, PyTree]:
        def by(apply: Apply) -> Callable[..., tuple[Carry, PyTree]]:
            return lambda params, carry, xs, others: apply(params, carry, xs, **others)

        if _is_light(cell, params, xs) or sequential is False:
            return at_will(params, carry, xs, **others)
        if sequential:
            return plain(params, carry, xs, **others)
        return jax.lax.platform_dependent(params, carry, xs, others, cpu=by(plain), default=by(as_tree))

    return layer_of(cell, apply)


def _is_light(cell: AssociativeCell, params: Params, xs: PyTree) -> bool:
    """Whether the elements of all steps are worth writing down on a CPU: linear maps of one array, not larger than z.

    Larger ones (matrices, or a state for every feature) are made quicker one at a time, where they are needed.
    """

    x = step_struct(xs)

    def parts(params: Params) -> tuple[Carry, PyTree, PyTree]:
        weights = cell.prepare(params, None)
        z = cell.project(weights, jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), x), None)
        return cell.initial_carry(weights, x, None), z, cell.lift(weights, z)

    def size(tree: PyTree) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    carry, z, element = jax.eval_shape(parts, params)
    check_act(cell, carry, element)
    if cell.times not in (None, elementwise, in_pairs):
        check_times(cell, carry, element)
    return cell.times is not None and len(jax.tree.leaves(carry)) == 1 and size(element) <= size(z)


def _everywhere(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Over `[time, batch]` of all arguments but the first, the weights."""

    def over(weights: Weights, *arguments: PyTree) -> PyTree:
        within = functools.partial(function, weights)
        return jax.vmap(jax.vmap(within))(*arguments)

    return over


def _linear(cell: AssociativeCell, elements: PyTree, steps: Steps, sequential: bool | None) -> Carry:
    assert cell.times is not None
    (a, b), times = elements, jax.vmap(cell.times)
    if steps.borders is not None:  # there the state is put to zero, and `a` times what it should be goes into b
        begun = steps.begin(jax.tree.map(jnp.zeros_like, b))
        b = select(steps.borders, jax.tree.map(jnp.add, b, jax.vmap(times)(a, begun)), b)
    return linear_scan(a, b, steps.carry, times=times, resets=steps.borders, sequential=sequential)


def _tree(cell: AssociativeCell, elements: PyTree, steps: Steps) -> Carry:
    """The product of the steps since the last border, acting on the state that came in there."""
    dtype = float_dtype(elements)
    elements = elements if dtype is None else cast_floats(elements, jnp.promote_types(dtype, jnp.float32))
    combined = jax.vmap(jax.vmap(cell.combine))

    def combine(left: Any, right: Any) -> Any:
        (one, cut), (two, cut_next) = left, right
        if cut is None:
            return combined(one, two), None
        one = select(cut_next, two, one)  # before they are combined: a step that diverged must not come near
        return select(cut_next, two, combined(one, two)), cut | cut_next

    products, _ = jax.lax.associative_scan(combine, (elements, steps.borders))
    time = jax.tree.leaves(elements)[0].shape[0]
    first = jax.tree.map(lambda c: jnp.broadcast_to(c, (time, *c.shape)), steps.carry)
    if steps.resets is not None:
        steps = steps._replace(resets=jax.lax.cumsum(steps.resets.astype(jnp.int32)) > 0)
    return jax.vmap(jax.vmap(cell.act))(steps.begin(first), products)
