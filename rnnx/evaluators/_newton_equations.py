"""The equations `h_t = f_t(h_{t-1})` that Newton's method solves: carries as vectors, residuals and Jacobians."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Carry, Cell, PyTree, Weights
from rnnx.evaluators._lifting import Steps, cast_carry_like
from rnnx.linear import linear_scan
from rnnx.sequences import select

Jacobian = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""`(f, h) -> J`: the derivative of f, from `(n,)` to `(n,)`, at h: a matrix `(n, n)`, or its diagonal `(n,)`."""


def full(f: Callable[[jax.Array], jax.Array], h: jax.Array) -> jax.Array:
    """The Jacobian `(n, n)` of f at h: fewest iterations, but O(n³) work and O(n²) memory per step."""
    return jax.jacfwd(f)(h)


def diagonal(f: Callable[[jax.Array], jax.Array], h: jax.Array) -> jax.Array:
    """The diagonal `(n,)` of the Jacobian of f at h: more iterations, each in the memory of a few carries."""
    _, push = jax.linearize(f, h)

    def entry(i: jax.Array) -> jax.Array:
        return push(jnp.zeros_like(h).at[i].set(1))[i]

    return jax.lax.map(entry, jnp.arange(h.size))


class State(NamedTuple):
    """The carries of all steps: floating leaves concatenated, in float32 or wider, and the other leaves."""

    h: jax.Array  # [time, batch, n]
    rest: list[jax.Array]


class VectorStep(NamedTuple):
    """A cell's step on vectors, for one row at one step; `over_all_steps` maps these functions over steps and rows."""

    split: Callable[[Carry], State]
    join: Callable[[State], Carry]
    advance: Callable[[Weights, PyTree, list[jax.Array], jax.Array], State]  # (weights, z, rest, h) -> the next state
    ends: np.ndarray  # where each leaf but the last ends in the vector


def vector_step(cell: Cell, steps: Steps) -> VectorStep:
    """Makes the `VectorStep` of a cell; raises for a carry that Newton's method cannot solve for."""
    leaves, structure = jax.tree.flatten(steps.carry)
    for leaf in leaves:
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
            raise TypeError(
                f"newton_scan: the carry of {cell.spec.name} holds {leaf.dtype}, but newton_scan solves for real "
                "numbers only; use rnnx.scan"
            )
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    floats = [leaf for leaf, is_float in zip(leaves, floating) if is_float]
    dtype = jnp.result_type(jnp.float32, *(leaf.dtype for leaf in floats))
    ends = np.cumsum([int(np.prod(leaf.shape[1:])) for leaf in floats])[:-1].astype(int)

    def split(carry: Carry) -> State:
        parts = list(zip(jax.tree.leaves(carry), floating))
        numbers = [leaf.ravel().astype(dtype) for leaf, is_float in parts if is_float]
        return State(
            jnp.concatenate([jnp.zeros(0, dtype), *numbers]),
            [leaf for leaf, is_float in parts if not is_float],
        )

    def join(state: State) -> Carry:
        numbers, others = iter(jnp.split(state.h, ends)), iter(state.rest)
        joined = [
            next(numbers).reshape(leaf.shape[1:]).astype(leaf.dtype) if is_float else next(others)
            for leaf, is_float in zip(leaves, floating)
        ]
        return jax.tree.unflatten(structure, joined)

    def advance(weights: Weights, z: PyTree, rest: list[jax.Array], h: jax.Array) -> State:
        before = join(State(h, rest))
        return split(cast_carry_like(before, cell.step(weights, before, z)[0], cell))

    return VectorStep(split, join, advance, ends)


def over_all_steps(f: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(f))


def previous_states(vector: VectorStep, steps: Steps, state: State) -> State:
    """The state before every step, given the state after every step."""
    return over_all_steps(vector.split)(steps.previous_carries(over_all_steps(vector.join)(state)))


def advance_all(vector: VectorStep, weights: Weights, steps: Steps, state: State) -> State:
    """Applies every step to the state that the step before it ended with."""
    before = previous_states(vector, steps, state)
    return over_all_steps(functools.partial(vector.advance, weights))(steps.zs, before.rest, before.h)


def jacobians_of(vector: VectorStep, weights: Weights, steps: Steps, state: State, jacobian: Jacobian) -> jax.Array:
    """The Jacobian of every step with respect to the carry before it: `[time, batch, n, n]` or `[time, batch, n]`."""

    def of_one(z: PyTree, rest: list[jax.Array], h: jax.Array) -> jax.Array:
        return jacobian(lambda h: vector.advance(weights, z, rest, h).h, h)

    before = previous_states(vector, steps, state)
    jacobians = over_all_steps(of_one)(steps.zs, before.rest, before.h)
    n = before.h.shape[-1]
    if jacobians.shape[2:] not in ((n,), (n, n)):
        raise ValueError(f"newton_scan: jacobian returned shape {jacobians.shape[2:]}, expected ({n}, {n}) or ({n},)")
    return jacobians


def solve_linear(a: jax.Array, boundaries: jax.Array | None, b: jax.Array) -> jax.Array:
    """Solves d_t = a_t d_{t-1} + b_t in parallel, for matrices or diagonals a; d_t = b_t at step 0 and boundaries."""
    a = a.at[0].set(0)  # step 0 has no predecessor: not even 0 times infinity may enter
    if a.ndim == b.ndim:
        return linear_scan(a, b, jnp.zeros_like(b[0]), resets=boundaries, sequential=False)
    product, b = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST), b[..., None]
    return linear_scan(a, b, jnp.zeros_like(b[0]), product=product, resets=boundaries, sequential=False)[..., 0]


def solve_sequentially(cell: Cell, weights: Weights, steps: Steps) -> State:
    """Computes the state after every step by a sequential scan."""
    vector = vector_step(cell, steps)

    def body(carry: Carry, inputs: Any) -> tuple[Carry, State]:
        z, reset, is_valid = inputs
        before = carry if reset is None else select(reset, steps.initial, carry)
        before = before if is_valid is None else select(is_valid, before, steps.pad_carry)
        after = cast_carry_like(carry, jax.vmap(cell.step, in_axes=(None, 0, 0))(weights, before, z)[0], cell)
        return after, jax.vmap(vector.split)(after)

    return jax.lax.scan(body, steps.carry, (steps.zs, steps.resets, steps.valid))[1]
