"""Linear recurrences `h_t = a_t h_{t-1} + b_t`, and the cells whose steps are of that form."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnx.arguments import shown
from rnnx.base import AssociativeCell, Carry, Key, Params, PyTree, Weights, associative_cell, exportable
from rnnx.checks import array, arrays, check_flag, check_function, holds_numbers
from rnnx.hints import explained
from rnnx.sequences import select

Times = Callable[[PyTree, PyTree], PyTree]
"""`(a, h) -> a h`: linear in each, and associative, so that `(a a') h` is `a (a' h)`."""


def elementwise(a: jax.Array, h: jax.Array) -> jax.Array:
    """`a * h`, number by number; `a` may lack trailing axes of `h`."""
    return a.reshape(a.shape + (1,) * (h.ndim - a.ndim)) * h


@exportable
class Complex(NamedTuple):
    """A complex number as two real ones.

    So every leaf of a carry stays real, and XLA:CPU was seen to run pairs quicker than its own complex numbers.
    """

    re: jax.Array
    im: jax.Array


def in_pairs(a: Complex, h: Complex) -> Complex:
    """The product of complex numbers, number by number."""
    return Complex(a.re * h.re - a.im * h.im, a.re * h.im + a.im * h.re)


class Affine(NamedTuple):
    """The map `h -> a h + b`."""

    a: PyTree
    b: PyTree


@explained
def affine_cell(
    init: Callable[[Key, PyTree], Params],
    initial_carry: Callable[[Weights, PyTree, Key | None], Carry],
    lift: Callable[[Weights, PyTree], Affine],
    readout: Callable[[Weights, Carry, PyTree], PyTree],
    *,
    times: Times = elementwise,
    **others: Any,
) -> AssociativeCell:
    """An AssociativeCell whose steps are `h_t = a_t h_{t-1} + b_t`, which evaluators run by `rnnx.linear_scan`.

    Args:
        init, initial_carry, readout: as in `rnnx.associative_cell`.
        lift: `(weights, z) -> (a, b)`; b has the shapes of the carry.
        times: what `a h` means: `(a, h) -> h` as in `rnnx.linear_scan`; by default number by number.
        others: `prepare`, `project`, `step` and `name`, as in `rnnx.associative_cell`.

    Returns:
        The AssociativeCell, with `combine` and `act` made from `times`.

    Example:
        A running sum, which forgets at the rate of a learned constant::

            >>> import jax, jax.numpy as jnp, rnnx
            >>> def leaky_sum():
            ...     def init(key, x):
            ...         return {"keep": jnp.full(x.shape, 0.5)}
            ...     def initial_carry(params, x, key):
            ...         return jnp.zeros(x.shape)
            ...     def lift(params, x):
            ...         return params["keep"], x
            ...     def readout(params, h, x):
            ...         return h
            ...     return rnnx.affine_cell(init, initial_carry, lift, readout)
            >>> layer = rnnx.associative_scan(leaky_sum())
            >>> xs = jnp.ones((1, 3, 1))
            >>> rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)[1].ravel().tolist()
            [1.0, 1.5, 1.75]
    """

    functions = {"init": init, "initial_carry": initial_carry, "lift": lift, "readout": readout, "times": times}
    for name, function in functions.items():
        check_function("affine_cell", name, function, "as in rnnx.AssociativeCell")

    def act(h: Carry, element: Affine) -> Carry:
        a, b = element
        return _add(times(a, h), b)

    def combine(left: Affine, right: Affine) -> Affine:
        return Affine(times(right[0], left[0]), act(left[1], right))

    return associative_cell(init, initial_carry, lift, combine, act, readout, **others)._replace(times=times)


@explained
def linear_scan(
    a: PyTree,
    b: PyTree,
    h0: PyTree,
    *,
    times: Times = elementwise,
    resets: jax.Array | None = None,
    sequential: bool | None = None,
) -> PyTree:
    r"""All states of a linear recurrence, and its gradient at about the price of one more.

    .. math::
        h_t = a_t h_{t-1} + b_t

    Args:
        a: `[time, ...]`. By default numbers, real or complex, that multiply those of h; trailing axes that it lacks
            are shared.
        b: `[time, ...]`, each step in the shape of h.
        h0: `[...]`, the state before the first step.
        times: `(a, h) -> a h` for one step. `jnp.matmul` for matrices `a` `[time, ..., n, n]` and states
            `[..., n, m]`; `rnnx.linear.in_pairs` where a, b and h0 are complex numbers as pairs of real ones
            (`rnnx.linear.Complex`); any other function that is linear in each and associative, also of pytrees.
        resets: `[time, ...]` booleans over the leading axes of h: the steps before which the state is put to zero,
            whatever it was. (To go on from another state there, add `a_t` times it to `b_t`.)
        sequential: step after step, or as a tree by `jax.lax.associative_scan`: more work, in parallel. By default
            as the platform wants it for which the program is compiled: on a CPU sequentially, else as a tree.

    Returns:
        The states `[time, ...]` after every step, in the widest dtype of the three, but computed in float32 or more; of
        no step, none.

    Raises:
        ValueError: when the numbers of steps differ, or the shapes of b, h0 and `a h0`, or those of resets and h0.
        TypeError: when none of the three is floating or complex, or `resets` are not booleans.

    The gradient is written as what it is, another such recurrence from right to left; derivatives of all kinds and
    orders work. With a symbolic number of steps it goes step after step.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> rnnx.linear_scan(jnp.full(4, 0.5), jnp.ones(4), jnp.array(2.0)).tolist()
        [2.0, 2.0, 2.0, 2.0]
        >>> quarter = jnp.array([[0.0, -1.0], [1.0, 0.0]])
        >>> a, b = jnp.stack([quarter] * 3), jnp.zeros((3, 2, 1))
        >>> rnnx.linear_scan(a, b, jnp.array([[1.0], [0.0]]), times=jnp.matmul)[:, :, 0].tolist()
        [[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    """
    check_function("linear_scan", "times", times, "(a, h) -> a h")
    check_flag("linear_scan", "sequential", sequential)
    a, b, h0 = arrays(a, "linear_scan: a"), arrays(b, "linear_scan: b"), arrays(h0, "linear_scan: h0")
    resets = None if resets is None else array(resets, "linear_scan: resets", "booleans")
    if not all(jax.tree.leaves(tree) for tree in (a, b, h0)):
        raise ValueError("linear_scan: a, b and h0 must be arrays, or pytrees of them, but one of them holds none")
    for x in jax.tree.leaves((a, b, h0)):
        if not holds_numbers(x):
            raise TypeError(f"linear_scan: a, b and h0 must be numbers, but {shown(x)} came")
    dtype = jnp.result_type(*jax.tree.leaves((a, b, h0)))
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"linear_scan: a, b and h0 are {dtype}, but floating or complex numbers are wanted among them")
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:  # of a long sum, less would keep next to nothing
        full = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (a, b, h0))
        h = linear_scan(*full, times=times, resets=resets, sequential=sequential)
        return jax.tree.map(lambda x: x.astype(dtype), h)
    a, b, h0 = jax.tree.map(lambda x: jnp.asarray(x, dtype), (a, b, h0))
    time = _check(times, a, b, h0, resets)
    if isinstance(time, int) and time == 0:
        return b
    first, cut = _at(0, a), None if resets is None else resets[0]
    b = jax.tree.map(lambda b, start: b.at[0].add(start), b, times(first, _cut(cut, h0)))
    pack, unpack = _packing(h0)
    walk, walk_back = _walks(times, pack, unpack)
    climb, climb_back = _climbs(times, pack, unpack)

    def run(by_steps: Callable[..., Any], as_tree: Callable[..., Any], b: jax.Array) -> jax.Array:
        if sequential or not isinstance(time, int):
            return by_steps(a, b, resets)
        if sequential is None:
            return jax.lax.platform_dependent(a, b, resets, cpu=by_steps, default=as_tree)
        return as_tree(a, b, resets)

    # The states solve h_t - a_t h_{t-1} = b_t, a system of linear equations. From how that is multiplied, solved, and
    # solved when transposed, JAX derives all else: in its derivatives too `a` is fixed within a loop, and what a
    # change of `a` does is computed outside of it, for all steps at once.
    def multiply(h: jax.Array) -> jax.Array:
        before, later = jax.vmap(unpack)(h[:-1]), jax.tree.map(lambda x: x[1:], a)
        before = before if resets is None else _unless(resets[1:], before)
        return jnp.concatenate([h[:1], h[1:] - jax.vmap(pack)(jax.vmap(times)(later, before))])

    def solve(_: Any, b: jax.Array) -> jax.Array:
        return run(walk, climb, b)

    def solve_transposed(_: Any, g: jax.Array) -> jax.Array:
        return run(walk_back, climb_back, g)

    h = jax.lax.custom_linear_solve(multiply, jax.vmap(pack)(b), solve, solve_transposed)
    return jax.vmap(unpack)(h)


def _packing(like: PyTree) -> tuple[Callable[[PyTree], jax.Array], Callable[[jax.Array], PyTree]]:
    """One array of the numbers of a state, and back: JAX solves for several only if all have derivatives."""
    leaves, structure = jax.tree.flatten(like)
    if len(leaves) == 1:
        return lambda h: jax.tree.leaves(h)[0], lambda x: jax.tree.unflatten(structure, [x])
    borders = list(itertools.accumulate(leaf.size for leaf in leaves))[:-1]

    def unpack(x: jax.Array) -> PyTree:
        parts = zip(jnp.split(x, borders), leaves)
        return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])

    return lambda h: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(h)]), unpack


def _walks(times: Times, pack: Any, unpack: Any) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The recurrence from zero on, and its transpose, step after step.

    Each writes into what it was given, and does little in a step: XLA:CPU makes one kernel of a loop so small.
    """

    def walk(a: PyTree, b: jax.Array, resets: jax.Array | None) -> jax.Array:
        def body(t: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            hs, h = state
            a_t, cut = _at(t, (a, resets))
            h = pack(times(a_t, _cut(cut, unpack(h)))) + _at(t, hs)
            return jax.lax.dynamic_update_index_in_dim(hs, h, t, 0), h

        return jax.lax.fori_loop(1, b.shape[0], body, (b, _at(0, b)))[0]

    def walk_back(a: PyTree, g: jax.Array, resets: jax.Array | None) -> jax.Array:
        last = g.shape[0] - 1

        def body(i: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            hs, h = state
            t = last - 1 - i
            a_t, cut = _at(t + 1, (a, resets))
            h = pack(_cut(cut, _transposed(times, a_t, unpack(h)))) + _at(t, hs)
            return jax.lax.dynamic_update_index_in_dim(hs, h, t, 0), h

        return jax.lax.fori_loop(0, last, body, (g, _at(last, g)))[0]

    return walk, walk_back


def _climbs(times: Times, pack: Any, unpack: Any) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The recurrence from zero on, and its transpose, as trees of combined steps.

    An element is `(a, b, cut)`, the map `h -> a h + b`, or `h -> b` where there is a reset in it. JAX does not
    differentiate through this, so `where` may come after a product that is of no use, infinite as it may be.
    """
    product = jax.vmap(times)

    def climb(a: PyTree, b: jax.Array, resets: jax.Array | None) -> jax.Array:
        def combine(left: Any, right: Any) -> Any:
            (a, b, cut), (a_next, b_next, cut_next) = left, right
            return product(a_next, a), _add(_cut(cut_next, product(a_next, b)), b_next), _either(cut, cut_next)

        return jax.vmap(pack)(jax.lax.associative_scan(combine, (a, jax.vmap(unpack)(b), resets))[1])

    def climb_back(a: PyTree, g: jax.Array, resets: jax.Array | None) -> jax.Array:
        def combine(later: Any, earlier: Any) -> Any:
            (a_next, g_next, cut_next), (a, g, cut) = later, earlier
            passed = _cut(cut, jax.vmap(functools.partial(_transposed, times))(a, g_next))
            return product(a_next, a), _add(passed, g), _either(cut, cut_next)

        a, resets = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), (a, resets))  # what lies after a step
        return jax.vmap(pack)(jax.lax.associative_scan(combine, (a, jax.vmap(unpack)(g), resets), reverse=True)[1])

    return climb, climb_back


def _transposed(times: Times, a: PyTree, g: PyTree) -> PyTree:
    """What `h` gets of the cotangent `g` of `a h`."""
    return jax.linear_transpose(lambda h: times(a, h), g)(g)[0]


def _add(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, x, y)


def _unless(cut: jax.Array, h: PyTree) -> PyTree:
    return select(cut, jax.tree.map(jnp.zeros_like, h), h)


def _cut(cut: jax.Array | None, h: PyTree) -> PyTree:
    return h if cut is None else _unless(cut, h)


def _either(x: jax.Array | None, y: jax.Array | None) -> jax.Array | None:
    return None if x is None or y is None else x | y


def _at(t: Any, tree: PyTree) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, t, keepdims=False), tree)


def _shapes(tree: PyTree) -> PyTree:
    """Without what else may differ, such as how arrays lie on devices."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _check(times: Times, a: PyTree, b: PyTree, h0: PyTree, resets: jax.Array | None) -> Any:
    """The number of steps; raises where the shapes do not fit."""
    if resets is not None:
        _check_resets(resets, h0)
    times_of = {jnp.shape(x)[:1] for x in jax.tree.leaves((a, b, resets))}
    if len(times_of) != 1 or () in times_of:
        shown = [jnp.shape(x) for x in jax.tree.leaves((a, b, resets))]
        raise ValueError(f"linear_scan: a, b and resets must be [time, ...] with as many steps, but are {shown}")
    step = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), x) for x in (a, b)]
    h = _shapes(h0)
    try:
        result = _shapes(jax.eval_shape(times, step[0], h)) if h == step[1] else "..."
    except (TypeError, ValueError) as error:
        raise ValueError(f"linear_scan: times(a, h) fails with a step of a, {step[0]}, and h, {h}: {error}") from error
    if h != step[1] or h != result:
        raise ValueError(
            f"linear_scan: h0, every step of b, and a h0 must have the same structure and shapes, but they are {h}, "
            f"{step[1]} and {result}"
        )
    return times_of.pop()[0]


def _check_resets(resets: jax.Array, h0: PyTree) -> None:
    if resets.dtype != jnp.bool_:
        raise TypeError(f"linear_scan: resets must be booleans, but are {resets.dtype}; resets.astype(bool)")
    axes = resets.shape[1:]
    for h in jax.tree.leaves(h0):
        if h.shape[: len(axes)] != axes:
            raise ValueError(
                f"linear_scan: resets has shape {resets.shape}, but [time] and leading axes of h0 {h.shape} are wanted"
            )
