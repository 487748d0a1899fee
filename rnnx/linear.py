"""Linear recurrences `h_t = a_t h_{t-1} + b_t`, and cells whose steps have this form."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnx.arguments import describe
from rnnx.base import ArrayLike, AssociativeCell, Carry, Key, Params, PyTree, Weights, associative_cell, exportable
from rnnx.checks import as_array, as_arrays, check_flag, check_function, is_numeric
from rnnx.hints import explained
from rnnx.sequences import select

Product = Callable[[PyTree, PyTree], PyTree]
"""`(a, h) -> a h`: linear in each, and associative, so that `(a a') h` is `a (a' h)`."""


def elementwise(a: jax.Array, h: jax.Array) -> jax.Array:
    """`a * h`, elementwise; `a` may lack trailing axes of `h`."""
    return a.reshape(a.shape + (1,) * (h.ndim - a.ndim)) * h


@exportable
class Complex(NamedTuple):
    """A complex number as two real ones.

    This keeps every leaf of a carry real, and XLA:CPU was seen to run pairs faster than its own complex numbers.
    """

    re: jax.Array
    im: jax.Array


def complex_product(a: Complex, h: Complex) -> Complex:
    """The elementwise product of complex numbers stored as pairs of real ones."""
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
    product: Product = elementwise,
    **others: Any,
) -> AssociativeCell:
    """Makes an AssociativeCell with steps `h_t = a_t h_{t-1} + b_t`, which evaluators run by `rnnx.linear_scan`.

    Args:
        init, initial_carry, readout: as in `rnnx.associative_cell`.
        lift: `(weights, z) -> (a, b)`; b has the shapes of the carry.
        product: the product `a h`: `(a, h) -> h` as in `rnnx.linear_scan`; default: elementwise.
        others: `prepare`, `project`, `step` and `name`, as in `rnnx.associative_cell`.

    Returns:
        The AssociativeCell, with `combine` and `act` made from `product`.

    Example:
        A leaky sum with a learned decay::

            >>> import jax, jax.numpy as jnp, rnnx
            >>> def leaky_sum():
            ...     def init(key, x):
            ...         return {"keep": jnp.full(x.shape, 0.5)}
            ...     def initial_carry(params, x, key):
            ...         return jnp.zeros_like(params["keep"])
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

    functions = {"init": init, "initial_carry": initial_carry, "lift": lift, "readout": readout, "product": product}
    for name, function in functions.items():
        check_function("affine_cell", name, function, "as in rnnx.AssociativeCell")

    def act(h: Carry, element: Affine) -> Carry:
        a, b = element
        return _add(product(a, h), b)

    def combine(left: Affine, right: Affine) -> Affine:
        return Affine(product(right[0], left[0]), act(left[1], right))

    return associative_cell(init, initial_carry, lift, combine, act, readout, **others)._replace(product=product)


@explained
def linear_scan(
    a: PyTree,
    b: PyTree,
    h0: PyTree,
    *,
    product: Product = elementwise,
    resets: ArrayLike | None = None,
    sequential: bool | None = None,
) -> PyTree:
    r"""Computes all states of a linear recurrence; its gradient costs about as much as one more recurrence.

    .. math::
        h_t = a_t h_{t-1} + b_t

    Args:
        a: `[time, ...]`. By default real or complex numbers that multiply h elementwise, broadcast over trailing axes
            that a lacks.
        b: `[time, ...]`, each step in the shape of h.
        h0: `[...]`, the state before the first step.
        product: `(a, h) -> a h` for one step. Use `jnp.matmul` for matrices `a` `[time, ..., n, n]` and states
            `[..., n, m]`; `rnnx.linear.complex_product` if a, b and h0 are complex numbers stored as pairs of real ones
            (`rnnx.linear.Complex`); or any function, also of pytrees, that is linear in each argument and associative.
        resets: `[time, ...]` booleans over the leading axes of h: the state is set to zero before these steps,
            whatever it was. (To continue from another state there, add `a_t` times that state to `b_t`.)
        sequential: True to run one step at a time; False for a tree (`jax.lax.associative_scan`), which does more work,
            but in parallel. Default: sequential if the program is compiled for a CPU, else a tree.

    Returns:
        The states `[time, ...]` after every step, in the widest dtype of a, b and h0, computed in float32 or wider.

    Raises:
        ValueError: if a, b and resets differ in the number of steps; if the shapes of b, h0 and `a h0` differ, or
            resets do not fit h0.
        TypeError: if none of a, b and h0 is floating or complex, or if `resets` are not booleans.

    The gradient is computed as another linear recurrence, from right to left; derivatives of all kinds and orders
    work. With a symbolic number of steps it runs sequentially.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> rnnx.linear_scan(jnp.full(4, 0.5), jnp.ones(4), jnp.array(2.0)).tolist()
        [2.0, 2.0, 2.0, 2.0]
        >>> quarter = jnp.array([[0.0, -1.0], [1.0, 0.0]])
        >>> a, b = jnp.stack([quarter] * 3), jnp.zeros((3, 2, 1))
        >>> rnnx.linear_scan(a, b, jnp.array([[1.0], [0.0]]), product=jnp.matmul)[:, :, 0].tolist()
        [[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    """
    check_function("linear_scan", "product", product, "(a, h) -> a h")
    check_flag("linear_scan", "sequential", sequential)
    a, b, h0, resets = _convert_arguments(a, b, h0, resets)
    dtype = jnp.result_type(*jax.tree.leaves((a, b, h0)))
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:  # 16 bits lose too much of a long sum
        full = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (a, b, h0))
        h = linear_scan(*full, product=product, resets=resets, sequential=sequential)
        return jax.tree.map(lambda x: x.astype(dtype), h)
    a, b, h0 = jax.tree.map(lambda x: jnp.asarray(x, dtype), (a, b, h0))
    time = _check_shapes(product, a, b, h0, resets)
    if isinstance(time, int) and time == 0:
        return b
    first, cut = _at(0, a), None if resets is None else resets[0]
    b = jax.tree.map(lambda b, start: b.at[0].add(start), b, product(first, _cut(cut, h0)))
    pack, unpack = _ravel_state(h0)
    sequential_solve, sequential_transpose = _sequential(product, pack, unpack)
    tree_solve, tree_transpose = _tree(product, pack, unpack)

    def run(one_by_one: Callable[..., Any], as_tree: Callable[..., Any], b: jax.Array) -> jax.Array:
        if sequential or not isinstance(time, int):
            return one_by_one(a, b, resets)
        if sequential is None:
            return jax.lax.platform_dependent(a, b, resets, cpu=one_by_one, default=as_tree)
        return as_tree(a, b, resets)

    # The states solve the linear system h_t - a_t h_{t-1} = b_t. JAX derives all derivatives from its product, its
    # solution and the solution of its transpose. So `a` is constant inside the loops of the derivatives too; the
    # effect of a change of `a` is computed outside, for all steps at once.
    def multiply(h: jax.Array) -> jax.Array:
        before, later = jax.vmap(unpack)(h[:-1]), jax.tree.map(lambda x: x[1:], a)
        before = _cut(None if resets is None else resets[1:], before)
        return jnp.concatenate([h[:1], h[1:] - jax.vmap(pack)(jax.vmap(product)(later, before))])

    def solve(_: Any, b: jax.Array) -> jax.Array:
        return run(sequential_solve, tree_solve, b)

    def solve_transposed(_: Any, g: jax.Array) -> jax.Array:
        return run(sequential_transpose, tree_transpose, g)

    h = jax.lax.custom_linear_solve(multiply, jax.vmap(pack)(b), solve, solve_transposed)
    return jax.vmap(unpack)(h)


def _convert_arguments(
    a: PyTree, b: PyTree, h0: PyTree, resets: ArrayLike | None
) -> tuple[PyTree, PyTree, PyTree, jax.Array | None]:
    """Converts the arguments to JAX arrays; raises if they are not numbers, or none is floating or complex."""
    a, b, h0 = as_arrays(a, "linear_scan: a"), as_arrays(b, "linear_scan: b"), as_arrays(h0, "linear_scan: h0")
    resets = None if resets is None else as_array(resets, "linear_scan: resets", "booleans")
    if not all(jax.tree.leaves(tree) for tree in (a, b, h0)):
        raise ValueError("linear_scan: a, b and h0 must be arrays, or pytrees of arrays, but one of them has no leaf")
    for x in jax.tree.leaves((a, b, h0)):
        if not is_numeric(x):
            raise TypeError(f"linear_scan: a, b and h0 must be numbers, but got {describe(x)}")
    dtype = jnp.result_type(*jax.tree.leaves((a, b, h0)))
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(f"linear_scan: a, b and h0 are {dtype}, but one of them must be floating or complex")
    return a, b, h0, resets


def _ravel_state(h0: PyTree) -> tuple[Callable[[PyTree], jax.Array], Callable[[jax.Array], PyTree]]:
    """Functions from a state to one array, and back: JAX solves for several arrays only if all have derivatives."""
    leaves, structure = jax.tree.flatten(h0)
    if len(leaves) == 1:
        return lambda h: jax.tree.leaves(h)[0], lambda x: jax.tree.unflatten(structure, [x])
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))[:-1]

    def unpack(x: jax.Array) -> PyTree:
        parts = zip(jnp.split(x, ends), leaves)
        return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])

    return lambda h: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(h)]), unpack


def _sequential(product: Product, pack: Any, unpack: Any) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The recurrence from a zero state and its transpose, one step at a time.

    Both update their input in place and do little per step: XLA:CPU compiles so small a loop into one kernel.
    """

    def solve(a: PyTree, b: jax.Array, resets: jax.Array | None) -> jax.Array:
        def body(t: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            hs, h = state
            a_t, cut = _at(t, (a, resets))
            h = pack(product(a_t, _cut(cut, unpack(h)))) + _at(t, hs)
            return jax.lax.dynamic_update_index_in_dim(hs, h, t, 0), h

        return jax.lax.fori_loop(1, b.shape[0], body, (b, _at(0, b)))[0]

    def transpose(a: PyTree, g: jax.Array, resets: jax.Array | None) -> jax.Array:
        last = g.shape[0] - 1

        def body(i: Any, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            hs, h = state
            t = last - 1 - i
            a_t, cut = _at(t + 1, (a, resets))
            h = pack(_cut(cut, _transposed(product, a_t, unpack(h)))) + _at(t, hs)
            return jax.lax.dynamic_update_index_in_dim(hs, h, t, 0), h

        return jax.lax.fori_loop(0, last, body, (g, _at(last, g)))[0]

    return solve, transpose


def _tree(product: Product, pack: Any, unpack: Any) -> tuple[Callable[..., jax.Array], Callable[..., jax.Array]]:
    """The recurrence from a zero state and its transpose, as trees of combined steps.

    An element is `(a, b, cut)`: the map `h -> a h + b`, or `h -> b` if it contains a reset. JAX does not differentiate
    through this, so `where` may discard a product afterwards, even an infinite one.
    """
    combined = jax.vmap(product)

    def solve(a: PyTree, b: jax.Array, resets: jax.Array | None) -> jax.Array:
        def combine(left: Any, right: Any) -> Any:
            (a, b, cut), (a_next, b_next, cut_next) = left, right
            return combined(a_next, a), _add(_cut(cut_next, combined(a_next, b)), b_next), _either(cut, cut_next)

        return jax.vmap(pack)(jax.lax.associative_scan(combine, (a, jax.vmap(unpack)(b), resets))[1])

    def transpose(a: PyTree, g: jax.Array, resets: jax.Array | None) -> jax.Array:
        def combine(later: Any, earlier: Any) -> Any:
            (a_next, g_next, cut_next), (a, g, cut) = later, earlier
            passed = _cut(cut, jax.vmap(functools.partial(_transposed, product))(a, g_next))
            return combined(a_next, a), _add(passed, g), _either(cut, cut_next)

        a, resets = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), (a, resets))  # those of the next step
        return jax.vmap(pack)(jax.lax.associative_scan(combine, (a, jax.vmap(unpack)(g), resets), reverse=True)[1])

    return solve, transpose


def _transposed(product: Product, a: PyTree, g: PyTree) -> PyTree:
    """The cotangent of `h`, given the cotangent `g` of `a h`."""
    return jax.linear_transpose(lambda h: product(a, h), g)(g)[0]


def _add(x: PyTree, y: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, x, y)


def _cut(cut: jax.Array | None, h: PyTree) -> PyTree:
    """Sets `h` to zero where `cut` is true."""
    return h if cut is None else select(cut, jax.tree.map(jnp.zeros_like, h), h)


def _either(x: jax.Array | None, y: jax.Array | None) -> jax.Array | None:
    return None if x is None or y is None else x | y


def _at(t: Any, tree: PyTree) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, t, keepdims=False), tree)


def _shapes(tree: PyTree) -> PyTree:
    """Shapes and dtypes alone, without what else may differ, such as sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _check_shapes(product: Product, a: PyTree, b: PyTree, h0: PyTree, resets: jax.Array | None) -> Any:
    """Returns the number of steps; raises if the shapes do not fit."""
    if resets is not None:
        _check_resets(resets, h0)
    steps_of = {jnp.shape(x)[:1] for x in jax.tree.leaves((a, b, resets))}
    if len(steps_of) != 1 or () in steps_of:
        shapes = [jnp.shape(x) for x in jax.tree.leaves((a, b, resets))]
        raise ValueError(f"linear_scan: a, b and resets must be [time, ...] with equal time, but have shapes {shapes}")
    step = [jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), x) for x in (a, b)]
    h = _shapes(h0)
    try:
        result = _shapes(jax.eval_shape(product, step[0], h)) if h == step[1] else "..."
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"linear_scan: product(a, h) fails with a step of a, {step[0]}, and h, {h}: {error}"
        ) from error
    if h != step[1] or h != result:
        raise ValueError(
            f"linear_scan: h0, every step of b, and a h0 must have the same structure and shapes, but they are {h}, "
            f"{step[1]} and {result}"
        )
    return steps_of.pop()[0]


def _check_resets(resets: jax.Array, h0: PyTree) -> None:
    if resets.dtype != jnp.bool_:
        raise TypeError(f"linear_scan: resets must be booleans, but are {resets.dtype}; use resets.astype(bool)")
    axes = resets.shape[1:]
    for h in jax.tree.leaves(h0):
        if h.shape[: len(axes)] != axes:
            raise ValueError(
                f"linear_scan: resets has shape {resets.shape}, expected [time] and leading axes of h0 {h.shape}"
            )
