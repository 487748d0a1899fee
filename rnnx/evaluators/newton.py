"""Newton's method: all steps of any cell at once, in a few rounds, each of which is parallel in time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree, Weights
from rnnx.checks import (
    check_count,
    check_function,
    check_number,
    check_params,
    checked_carry,
    checked_lengths,
    checked_resets,
    checked_xs,
)
from rnnx.evaluators._contract import with_output_checks
from rnnx.evaluators._lifting import (
    Steps,
    cast_carry_like,
    evaluator,
    finalize_outputs,
    make_layer,
    parallel_apply,
    project_all_steps,
)
from rnnx.evaluators.scan import scan
from rnnx.hints import explained
from rnnx.linear import linear_scan
from rnnx.sequences import batch_and_time, checked_key, select

Jacobian = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""`(f, h) -> J`: the derivative of f, from `(n,)` to `(n,)`, at h: a matrix `(n, n)`, or its diagonal `(n,)`."""


def full(f: Callable[[jax.Array], jax.Array], h: jax.Array) -> jax.Array:
    """The Jacobian `(n, n)` of f at h: the fewest rounds, and work and memory that grow with n cubed and squared."""
    return jax.jacfwd(f)(h)


def diagonal(f: Callable[[jax.Array], jax.Array], h: jax.Array) -> jax.Array:
    """The diagonal `(n,)` of the Jacobian of f at h: more rounds, each in the memory of a few carries."""
    _, push = jax.linearize(f, h)

    def entry(i: jax.Array) -> jax.Array:
        return push(jnp.zeros_like(h).at[i].set(1))[i]

    return jax.lax.map(entry, jnp.arange(h.size))


class NewtonInfo(NamedTuple):
    """How `newton_solve` went.

    Attributes:
        iterations: how many rounds it took.
        residual: max|f_t(h_{t-1}) - h_t| over all steps, relative to the largest |h| of the same leaf of the carry up
            to that step, for the h_t that the last round left; what is returned is f_t(h_{t-1}).
        converged: whether that, and the estimated error, came below the tolerance.
    """

    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array


@evaluator
def newton_scan(
    cell: Cell,
    *,
    jacobian: Jacobian = full,
    damping: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int = 50,
) -> Layer:
    r"""Evaluates any cell in parallel over time, by Newton's method on the carries of all steps at once.

    The carries h_1, ..., h_T are the solution of the equations h_t = f_t(h_{t-1}). A round linearises each step at the
    present guess and solves what comes of it, a linear recurrence, by a parallel scan:

    .. math::
        r_t = f_t(h_{t-1}) - h_t, \qquad
        d_t = (1 - \kappa) J_t d_{t-1} + r_t, \qquad
        h_t \leftarrow h_t + d_t, \qquad
        \kappa = \text{damping} \cdot \min(1, \max_t |r_t| / |h_t|)

    with J_t the Jacobian of f_t (or its diagonal). The first guess is the initial carry at every step. After n rounds
    the first n steps are right, whatever J and :math:`\kappa` are; where small changes of the state die out as the
    steps go on, all of them are after a few.

    Args:
        cell: any Cell. Of its carry, floating leaves are solved for; integers and booleans are taken from round to
            round as the step makes them, which converges where they stay the same from one reset to the next.
        jacobian: `rnnx.evaluators.newton.full`, or `rnnx.evaluators.newton.diagonal`: quasi-Newton, which needs more
            rounds, but far less memory in each where n is large; or any function like these.
        damping: between 0 and 1. 0 is Newton's method. More lets a change reach less far ahead, so that a guess at
            which the steps expand does not throw later steps off: a few tenths save rounds where the net is excitable,
            and cost next to none elsewhere, since :math:`\kappa` goes to 0 with the residual, as in Levenberg-Marquardt
            methods. With diagonal Jacobians it changes little.
        tolerance: of the relative error; default: eps ** 0.8 of the coarsest dtype in carry and projected input
            (float32: 3e-6, float64: 3e-13).
        max_iterations: after so many rounds without success, the steps are walked one by one, as by `rnnx.scan`.

    Returns:
        The Layer. Its params, carry and results are those of `rnnx.scan(cell)`.

    Raises:
        TypeError: for what is not a Cell, and for options of other types; when it runs, for a carry with complex
            numbers or PRNG keys in it.
        ValueError: for a damping outside [0, 1], a tolerance that is not above 0, or `max_iterations` below 1.

    **It never gives up silently**: where the error does not come below the tolerance (a chaotic net, spikes, NaN in the
    inputs), the steps are walked after all, under `lax.cond`. Under `jax.vmap` over params both branches always run.
    The error of a round's result is estimated from the size of d and r, and from how fast that falls from round to
    round. Where a carry is so sensitive that rounding alone leaves a larger error, the rounds never end well, and the
    result is that of the walk.

    **Derivatives** are not those of the rounds, but of the solution, exactly: its tangents obey the recurrence
    dh_t = J_t dh_{t-1} + (what tangents of params and inputs do to f_t), linear, whose full J makes a parallel scan
    again; with diagonal Jacobians it is walked.

    **When it pays**: on accelerators, for long sequences of few batched rows and small carries (n up to some tens, n
    being all the numbers of a carry: 2H in an LSTM). A round with full J costs n times the arithmetic of a step and
    n ** 3 for the scan, and holds `[time, batch, n, n]` a few times over. On a CPU of few cores it is slower than
    `rnnx.scan`. With a symbolic time axis (`jax.export`) it is `rnnx.scan`.

    References: Y. H. Lim et al., *Parallelizing non-linear sequential models over the sequence length* (DEER), ICLR
    2024, arXiv 2309.12252; X. Gonzalez et al., *Towards scalable and stable parallelization of nonlinear RNNs*, NeurIPS
    2024, arXiv 2407.19115, for diagonal Jacobians and for damping, which there is a Kalman smoother; J. Fan and Y.
    Yuan, *On the quadratic convergence of the Levenberg-Marquardt method without nonsingularity assumption*, Computing
    74 (2005), for damping that goes with the residual; F. Danieli et al., *ParaRNN*, arXiv 2510.21450.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.newton_scan(rnnx.cells.gru(4))
        >>> xs = jax.random.normal(jax.random.key(0), (2, 30, 3))
        >>> params = layer.init(jax.random.key(1), xs)
        >>> _, ys = rnnx.unroll(layer, params, xs)
        >>> _, wanted = rnnx.unroll(rnnx.scan(rnnx.cells.gru(4)), params, xs)
        >>> bool(jnp.allclose(ys, wanted, atol=1e-5))
        True
        >>> rnnx.newton_scan(rnnx.cells.gru(4), jacobian=rnnx.evaluators.newton.diagonal, damping=0.2)
        gru(width=4, jacobian=diagonal, damping=0.2)
    """
    _check("newton_scan", cell, jacobian, damping, tolerance, max_iterations)
    walk, cell = scan(cell).apply, with_output_checks(cell)

    def solve(weights: Weights, steps: Steps) -> tuple[Carry, PyTree]:
        fixed = jax.lax.stop_gradient((weights, steps))
        state, info = _find(cell, *fixed, jacobian, damping, tolerance, max_iterations)
        state = jax.lax.cond(info.converged, lambda: state, lambda: _walk(cell, *fixed))
        return _results(cell, weights, steps, state, jacobian)

    return make_layer(cell, parallel_apply(cell, solve, walk))


@explained
def newton_solve(
    cell: Cell,
    params: Params,
    carry: Carry,
    xs: PyTree,
    *,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
    key: Key | None = None,
    jacobian: Jacobian = full,
    damping: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int = 50,
) -> tuple[Carry, PyTree, NewtonInfo]:
    """`newton_scan` with a report, and without the walk where it has not converged: to see how a cell behaves in it.

    Args:
        cell, jacobian, damping, tolerance, max_iterations: as in `newton_scan`.
        params: of the cell.
        carry: `[batch, ...]`, e.g. from `rnnx.scan(cell).initial_carry(params, xs, None)`.
        xs, lengths, resets: as in `rnnx.unroll`.
        key: as in `Layer.apply`: all its own.

    Returns:
        `(carry, ys, info)`: as from `rnnx.unroll`, and a `NewtonInfo`. Where `info.converged` is false, carry and ys
        are what the rounds came to, right for the first `info.iterations` steps, and so are derivatives. No step at
        all is solved in no round.

    Raises:
        TypeError, ValueError: as `newton_scan` and `rnnx.unroll`; ValueError too when the number of steps is symbolic.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> cell, xs = rnnx.cells.gru(4), jax.random.normal(jax.random.key(0), (2, 30, 3))
        >>> layer = rnnx.scan(cell)
        >>> params = layer.init(jax.random.key(1), xs)
        >>> carry, ys, info = rnnx.newton_solve(cell, params, layer.initial_carry(params, xs, None), xs)
        >>> ys.shape, bool(info.converged), int(info.iterations) < 10
        ((2, 30, 4), True, True)
    """
    _check("newton_solve", cell, jacobian, damping, tolerance, max_iterations)
    layer, xs = scan(cell), checked_xs(xs)
    check_params(layer, params, xs)
    carry = checked_carry(layer, params, xs, carry)
    lengths, resets = checked_lengths(lengths, xs), checked_resets(resets, xs)
    key = None if key is None else checked_key(key)
    _, time = batch_and_time(xs)
    if not isinstance(time, int):
        raise ValueError(f"newton_solve needs a known number of steps, but it is {time}; use rnnx.scan there")
    return _solve(cell, jacobian, damping, tolerance, max_iterations, params, carry, xs, lengths, resets, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _solve(
    cell: Cell,
    jacobian: Jacobian,
    damping: float,
    tolerance: float | None,
    max_iterations: int,
    params: Params,
    carry: Carry,
    xs: PyTree,
    lengths: jax.Array | None,
    resets: jax.Array | None,
    key: Key | None,
) -> tuple[Carry, PyTree, NewtonInfo]:
    _, time = batch_and_time(xs)
    if time == 0:
        carry, ys = scan(cell).apply(params, carry, xs, lengths=lengths, resets=resets, key=key)
        return carry, ys, NewtonInfo(jnp.zeros((), int), jnp.zeros(()), jnp.ones((), bool))
    cell = with_output_checks(cell)
    weights, steps = project_all_steps(cell, params, carry, xs, lengths, resets, key)
    fixed = jax.lax.stop_gradient((weights, steps))
    state, info = _find(cell, *fixed, jacobian, damping, tolerance, max_iterations)
    after, ys = _results(cell, weights, steps, state, jacobian)
    return *finalize_outputs(after, ys, carry, xs, lengths, resets), info


def _check(
    name: str, cell: Cell, jacobian: Jacobian, damping: float, tolerance: float | None, max_iterations: int
) -> None:
    if not isinstance(cell, Cell):
        hint = "; rnnx.as_cell makes a Cell of it" if isinstance(cell, AssociativeCell) else ""
        raise TypeError(f"{name} takes a Cell, e.g. rnnx.cells.gru(16), but got {cell!r}{hint}")
    check_function(name, "jacobian", jacobian, "(f, h) -> J")
    check_number(name, "damping", damping)
    if not 0 <= damping <= 1:
        raise ValueError(f"{name}: damping is {damping}, but it must lie between 0 (none) and 1")
    if tolerance is not None:
        check_number(name, "tolerance", tolerance)
        if not tolerance > 0:
            raise ValueError(f"{name}: tolerance is {tolerance}, but it must be above 0 (None: as the dtype allows)")
    check_count(name, "max_iterations", max_iterations)


class _State(NamedTuple):
    """The carries of all steps: their floating numbers side by side, in float32 or wider, and the other leaves."""

    h: jax.Array  # [time, batch, n]
    rest: list[jax.Array]


class _Flat(NamedTuple):
    """A cell's step as a function of a vector, for one row at one time; `over_all` maps such over steps and rows."""

    split: Callable[[Carry], _State]
    join: Callable[[_State], Carry]
    advance: Callable[[Weights, PyTree, list[jax.Array], jax.Array], _State]  # (weights, z, rest, h) -> what comes next
    ends: np.ndarray  # where each leaf but the last ends in the vector


def _flat(cell: Cell, steps: Steps) -> _Flat:
    leaves, structure = jax.tree.flatten(steps.carry)
    for leaf in leaves:
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise TypeError(
                f"newton_scan: the carry of {cell.spec.name} holds {leaf.dtype}, but it can solve only for real "
                "numbers; use rnnx.scan"
            )
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    floats = [leaf for leaf, is_float in zip(leaves, floating) if is_float]
    wide = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in floats))
    ends = np.cumsum([int(np.prod(leaf.shape[1:])) for leaf in floats])[:-1].astype(int)

    def split(carry: Carry) -> _State:
        parts = list(zip(jax.tree.leaves(carry), floating))
        numbers = [leaf.ravel().astype(wide) for leaf, is_float in parts if is_float]
        return _State(
            jnp.concatenate([jnp.zeros(0, wide), *numbers]), [leaf for leaf, is_float in parts if not is_float]
        )

    def join(state: _State) -> Carry:
        numbers, others = iter(jnp.split(state.h, ends)), iter(state.rest)
        joined = [
            next(numbers).reshape(leaf.shape[1:]).astype(leaf.dtype) if is_float else next(others)
            for leaf, is_float in zip(leaves, floating)
        ]
        return jax.tree.unflatten(structure, joined)

    def advance(weights: Weights, z: PyTree, rest: list[jax.Array], h: jax.Array) -> _State:
        before = join(_State(h, rest))
        return split(cast_carry_like(before, cell.step(weights, before, z)[0], cell))

    return _Flat(split, join, advance, ends)


def _over_all(f: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(f))


def _before(flat: _Flat, steps: Steps, state: _State) -> _State:
    """The carries that the steps start from, given those that they end with."""
    return _over_all(flat.split)(steps.previous_carries(_over_all(flat.join)(state)))


def _advanced(flat: _Flat, weights: Weights, steps: Steps, state: _State) -> _State:
    """The carries that the steps end with, given those that the steps before them ended with."""
    before = _before(flat, steps, state)
    return _over_all(functools.partial(flat.advance, weights))(steps.zs, before.rest, before.h)


def _jacobians(flat: _Flat, weights: Weights, steps: Steps, state: _State, jacobian: Jacobian) -> jax.Array:
    """Of every step by the carry before it: `[time, batch, n, n]` or `[time, batch, n]`."""

    def of_one(z: PyTree, rest: list[jax.Array], h: jax.Array) -> jax.Array:
        return jacobian(lambda h: flat.advance(weights, z, rest, h).h, h)

    before = _before(flat, steps, state)
    jacobians = _over_all(of_one)(steps.zs, before.rest, before.h)
    n = before.h.shape[-1]
    if jacobians.shape[2:] not in ((n,), (n, n)):
        raise ValueError(f"newton_scan: jacobian gave shape {jacobians.shape[2:]}, but ({n}, {n}) or ({n},) is wanted")
    return jacobians


def _recurrence(a: jax.Array, borders: jax.Array | None, b: jax.Array) -> jax.Array:
    """d_t = a_t d_{t-1} + b_t, and d_t = b_t at first and at borders, for matrices or diagonals a; as a tree."""
    a = a.at[0].set(0)  # nothing comes in there: not even 0 times an infinity
    if a.ndim == b.ndim:
        return linear_scan(a, b, jnp.zeros_like(b[0]), resets=borders, sequential=False)
    times, b = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST), b[..., None]
    return linear_scan(a, b, jnp.zeros_like(b[0]), times=times, resets=borders, sequential=False)[..., 0]


def _find(
    cell: Cell,
    weights: Weights,
    steps: Steps,
    jacobian: Jacobian,
    damping: float,
    tolerance: float | None,
    max_iterations: int,
) -> tuple[_State, NewtonInfo]:
    """Newton's rounds, from the carry that came in, or the fresh one after a reset, at every step."""
    flat = _flat(cell, steps)
    time = jax.tree.leaves(steps.zs)[0].shape[0]
    guess = jax.tree.map(lambda c: jnp.broadcast_to(c, (time, *c.shape)), steps.carry)
    if steps.resets is not None:
        fresh = jax.tree.map(lambda c: jnp.broadcast_to(c, (time, *c.shape)), steps.initial)
        guess = select(jnp.cumsum(steps.resets, axis=0) > 0, fresh, guess)
    first = _over_all(flat.split)(steps.start_carries(guess))
    limits = jnp.finfo(first.h.dtype)
    allowed = _default_tolerance(steps) if tolerance is None else tolerance

    def relative(error: jax.Array, h: jax.Array) -> jax.Array:
        error, size = (_largest_by_leaf(a, flat.ends) for a in (error, h))
        return (error / (_largest_so_far(size, steps.boundaries) + limits.tiny)).max(initial=0)

    def unfinished(carry: Any) -> jax.Array:
        _, iterations, _, error = carry
        return (iterations < max_iterations) & (error > allowed)  # NaN is not: no further round would mend it

    def next_round(carry: Any) -> Any:
        state, iterations, last, _ = carry
        ahead = _advanced(flat, weights, steps, state)
        residual = ahead.h - state.h
        kept = 1 - damping * jnp.minimum(1, relative(residual, ahead.h)) if damping else 1
        jacobians = kept * _jacobians(flat, weights, steps, state, jacobian)
        change = _recurrence(jacobians, steps.boundaries, residual)
        change = jnp.where(jnp.isfinite(change), change, residual)  # overflowed: one plain step there is safe
        h = state.h + change
        size = relative(jnp.maximum(jnp.abs(change), jnp.abs(residual)), h)
        for old, new in zip(state.rest, ahead.rest):
            size = jnp.where((old == new).all(), size, limits.max)
        # With the full Jacobian, `size` is about the error before this round, and after it less by far. Otherwise
        # changes fall like rate ** round at best, so that those yet to come add up to rate / (1 - rate) of this one.
        rate = jnp.clip(size / last, 0, 0.9)
        return _State(h, ahead.rest), iterations + 1, size, size * jnp.maximum(1, rate / (1 - rate))

    start = first, jnp.zeros((), int), limits.max, jnp.full((), jnp.inf, first.h.dtype)
    state, iterations, _, error = jax.lax.while_loop(unfinished, next_round, start)
    # One plain step more costs no more than the check, and gives what only a step gives: spikes that are 0 or 1.
    ahead = _advanced(flat, weights, steps, state)
    residual = relative(ahead.h - state.h, state.h)
    return ahead, NewtonInfo(iterations, residual, (error <= allowed) & (residual <= allowed))


def _largest_by_leaf(h: jax.Array, ends: np.ndarray) -> jax.Array:
    """The largest size among the numbers of each leaf of the carry: `[time, batch, leaves]`."""
    return jnp.stack([part.max(axis=-1, initial=0) for part in jnp.split(jnp.abs(h), ends, axis=-1)], axis=-1)


def _largest_so_far(size: jax.Array, borders: jax.Array | None) -> jax.Array:
    """Over the steps since the last border: of a state that grows, the small beginnings count as much as the end."""
    if borders is None:
        return jax.lax.cummax(size)

    def combine(left: Any, right: Any) -> Any:
        (size1, cut1), (size2, cut2) = left, right
        return select(cut2, size2, jnp.maximum(size1, size2)), cut1 | cut2

    return jax.lax.associative_scan(combine, (size, borders))[0]


def _default_tolerance(steps: Steps) -> float:
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((steps.zs, steps.carry))}
    floating = [float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max(floating, default=float(jnp.finfo(jnp.float32).eps)) ** 0.8


def _walk(cell: Cell, weights: Weights, steps: Steps) -> _State:
    """The carries after all steps, one after the other."""
    flat = _flat(cell, steps)

    def body(carry: Carry, inputs: Any) -> tuple[Carry, _State]:
        z, reset, is_valid = inputs
        before = carry if reset is None else select(reset, steps.initial, carry)
        before = before if is_valid is None else select(is_valid, before, steps.pad_carry)
        after = cast_carry_like(carry, jax.vmap(cell.step, in_axes=(None, 0, 0))(weights, before, z)[0], cell)
        return after, jax.vmap(flat.split)(after)

    return jax.lax.scan(body, steps.carry, (steps.zs, steps.resets, steps.valid))[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solution(cell: Cell, in_parallel: bool, weights: Weights, steps: Steps, state: _State) -> jax.Array:
    """`state.h`, as the solution that it is: a function of weights and steps, however it was found."""
    return state.h


@_solution.defjvp
def _solution_jvp(cell: Cell, in_parallel: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    weights, steps, state = primals
    h = _solution(cell, in_parallel, *primals)  # so that the derivatives below can be derived again
    state, flat = _State(h, state.rest), _flat(cell, steps)
    _, drive = jax.jvp(lambda weights, steps: _advanced(flat, weights, steps, state).h, primals[:2], tangents[:2])
    if in_parallel:
        return h, _recurrence(_jacobians(flat, weights, steps, state, full), steps.boundaries, drive)

    def body(dh: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        z, before, border, driven = inputs
        dh = dh if border is None else select(border, jnp.zeros_like(dh), dh)
        advance = jax.vmap(lambda z, rest, h: flat.advance(weights, z, rest, h).h)
        dh = jax.jvp(lambda h: advance(z, before.rest, h), (before.h,), (dh,))[1] + driven
        return dh, dh

    inputs = steps.zs, _before(flat, steps, state), steps.boundaries, drive
    return h, jax.lax.scan(body, jnp.zeros_like(h[0]), inputs)[1]


def _results(cell: Cell, weights: Weights, steps: Steps, state: _State, jacobian: Jacobian) -> tuple[Carry, PyTree]:
    """The carry after every step and its output, from a state that was found without derivatives."""
    flat = _flat(cell, steps)
    in_parallel = jax.eval_shape(lambda: _jacobians(flat, weights, steps, state, jacobian)).ndim == 4
    after = _over_all(flat.join)(_State(_solution(cell, in_parallel, weights, steps, state), state.rest))
    over_rows = jax.vmap(cell.step, in_axes=(None, 0, 0))
    _, ys = jax.vmap(over_rows, in_axes=(None, 0, 0))(weights, steps.previous_carries(after), steps.zs)
    return after, ys
