"""Newton's method for all steps of a cell, and the exact derivative of the solution."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Carry, Cell, PyTree, Weights
from rnnx.evaluators._lifting import Steps
from rnnx.evaluators._newton_equations import (
    Jacobian,
    State,
    advance_all,
    full,
    jacobians_of,
    over_all_steps,
    previous_states,
    solve_linear,
    vector_step,
)
from rnnx.meshes import vary_alike
from rnnx.sequences import select


class NewtonInfo(NamedTuple):
    """How `newton_solve` converged.

    Attributes:
        iterations: the number of iterations.
        residual: max|f_t(h_{t-1}) - h_t| over all steps, relative to the largest |h| of the same carry leaf up to that
            step, where h_t is the state after the last iteration; the function returns f_t(h_{t-1}).
        converged: whether the residual and the estimated error are below the tolerance.
    """

    iterations: jax.Array
    residual: jax.Array
    converged: jax.Array


def newton_iterations(
    cell: Cell,
    weights: Weights,
    steps: Steps,
    jacobian: Jacobian,
    damping: float,
    tolerance: float | None,
    max_iterations: int,
) -> tuple[State, NewtonInfo]:
    """Iterates Newton's method, from the incoming carry at every step, or the initial one after a reset."""
    vector = vector_step(cell, steps)
    time = jax.tree.leaves(steps.zs)[0].shape[0]
    guess = jax.tree.map(lambda c: jnp.broadcast_to(c, (time, *c.shape)), steps.carry)
    if steps.resets is not None:
        initial = jax.tree.map(lambda c: jnp.broadcast_to(c, (time, *c.shape)), steps.initial)
        guess = select(jnp.cumsum(steps.resets, axis=0) > 0, initial, guess)
    first = over_all_steps(vector.split)(steps.start_carries(guess))
    limits = jnp.finfo(first.h.dtype)
    allowed = _default_tolerance(steps) if tolerance is None else tolerance

    def relative(error: jax.Array, h: jax.Array) -> jax.Array:
        error, size = (_largest_by_leaf(a, vector.ends) for a in (error, h))
        return (error / (_largest_so_far(size, steps.boundaries) + limits.tiny)).max(initial=0)

    def unfinished(carry: Any) -> jax.Array:
        _, iterations, _, error = carry
        return (iterations < max_iterations) & (error > allowed)  # False for NaN, which no iteration would repair

    def iterate(carry: Any) -> Any:
        state, iterations, last, _ = carry
        ahead = advance_all(vector, weights, steps, state)
        residual = ahead.h - state.h
        kept = 1 - damping * jnp.minimum(1, relative(residual, ahead.h)) if damping else 1
        jacobians = kept * jacobians_of(vector, weights, steps, state, jacobian)
        change = solve_linear(jacobians, steps.boundaries, residual)
        change = jnp.where(jnp.isfinite(change), change, residual)  # where it overflowed, a plain step is safe
        h = state.h + change
        size = relative(jnp.maximum(jnp.abs(change), jnp.abs(residual)), h)
        for old, new in zip(state.rest, ahead.rest):
            size = jnp.where((old == new).all(), size, limits.max)
        # With the full Jacobian, `size` is about the error before this iteration, and the error after it is far
        # smaller. Otherwise changes fall like rate ** iteration at best: future ones sum to rate / (1 - rate) of it.
        rate = jnp.clip(size / last, 0, 0.9)
        return State(h, ahead.rest), iterations + 1, size, size * jnp.maximum(1, rate / (1 - rate))

    largest, unknown = jnp.array(limits.max, first.h.dtype), jnp.full((), jnp.inf, first.h.dtype)
    start = vary_alike(first, jnp.zeros((), int), largest, unknown)
    state, iterations, _, error = jax.lax.while_loop(unfinished, iterate, start)
    # One more plain step costs no more than the check, and returns values that only a step gives: spikes of 0 or 1.
    ahead = advance_all(vector, weights, steps, state)
    residual = relative(ahead.h - state.h, state.h)
    return ahead, NewtonInfo(iterations, residual, (error <= allowed) & (residual <= allowed))


def _largest_by_leaf(h: jax.Array, ends: np.ndarray) -> jax.Array:
    """The largest absolute value in each leaf of the carry: `[time, batch, leaves]`."""
    return jnp.stack([part.max(axis=-1, initial=0) for part in jnp.split(jnp.abs(h), ends, axis=-1)], axis=-1)


def _largest_so_far(size: jax.Array, boundaries: jax.Array | None) -> jax.Array:
    """The running maximum since the last boundary: small early states of a growing one count as much as late ones."""
    if boundaries is None:
        return jax.lax.cummax(size)

    def combine(left: Any, right: Any) -> Any:
        (size1, cut1), (size2, cut2) = left, right
        return select(cut2, size2, jnp.maximum(size1, size2)), cut1 | cut2

    return jax.lax.associative_scan(combine, (size, boundaries))[0]


def _default_tolerance(steps: Steps) -> float:
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((steps.zs, steps.carry))}
    floating = [float(jnp.finfo(dtype).eps) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max(floating, default=float(jnp.finfo(jnp.float32).eps)) ** 0.8


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solution(cell: Cell, in_parallel: bool, weights: Weights, steps: Steps, state: State) -> jax.Array:
    """Returns `state.h`, differentiable as the solution: a function of weights and steps, however it was found."""
    return state.h


@_solution.defjvp
def _solution_jvp(cell: Cell, in_parallel: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    weights, steps, state = primals
    h = _solution(cell, in_parallel, *primals)  # so that the derivatives below can be differentiated again
    state, vector = State(h, state.rest), vector_step(cell, steps)
    _, input_tangent = jax.jvp(
        lambda weights, steps: advance_all(vector, weights, steps, state).h, primals[:2], tangents[:2]
    )
    if in_parallel:
        return h, solve_linear(jacobians_of(vector, weights, steps, state, full), steps.boundaries, input_tangent)

    def body(dh: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        z, before, boundary, input_tangent = inputs
        dh = dh if boundary is None else select(boundary, jnp.zeros_like(dh), dh)
        advance = jax.vmap(lambda z, rest, h: vector.advance(weights, z, rest, h).h)
        dh = jax.jvp(lambda h: advance(z, before.rest, h), (before.h,), (dh,))[1] + input_tangent
        return dh, dh

    inputs = steps.zs, previous_states(vector, steps, state), steps.boundaries, input_tangent
    return h, jax.lax.scan(body, jnp.zeros_like(h[0]), inputs)[1]


def carries_and_outputs(
    cell: Cell, weights: Weights, steps: Steps, state: State, jacobian: Jacobian
) -> tuple[Carry, PyTree]:
    """The carry after every step and its output, differentiable, from a state found without derivatives."""
    vector = vector_step(cell, steps)
    in_parallel = jax.eval_shape(lambda: jacobians_of(vector, weights, steps, state, jacobian)).ndim == 4
    after = over_all_steps(vector.join)(State(_solution(cell, in_parallel, weights, steps, state), state.rest))
    over_rows = jax.vmap(cell.step, in_axes=(None, 0, 0))
    _, ys = jax.vmap(over_rows, in_axes=(None, 0, 0))(weights, steps.previous_carries(after), steps.zs)
    return after, ys
