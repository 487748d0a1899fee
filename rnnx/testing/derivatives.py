"""The laws of derivatives: every parameter gets a gradient, and derivatives match the values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import PyTree
from rnnx.testing.comparing import assert_close
from rnnx.testing.inputs import is_float, merge_floats, perturbed, split_floats, weighted_sum
from rnnx.testing.law import law
from rnnx.testing.subject import Subject

STEP = 1e-4  # of a central difference in float64, whose error then is about STEP ** 2
DIFFERENCE_TOLERANCE = 1e-5
MODES_TOLERANCE = 1e-9
LEAST_GRADIENT = 1e-6


@law(
    "a parameter that is unused, or used only behind jax.lax.stop_gradient, a comparison or an argmax; if it is meant "
    "to stay fixed, name it in no_gradient, or keep it out of the params"
)
def gradients(s: Subject) -> None:
    """Every parameter gets a gradient, except those named in `no_gradient`."""
    by_params = s.run_with_gradient(s.params, s.carry, s.xs, s.lengths, s.resets)[1][0]
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(by_params)
    }
    unknown = set(s.no_gradient) - set(leaves)
    if unknown:
        raise AssertionError(f"no_gradient names {sorted(unknown)}, but the params are {sorted(leaves)}")
    for name, leaf in leaves.items():
        largest = float(np.abs(leaf).max(initial=0))
        if name not in s.no_gradient and leaf.size and not largest > LEAST_GRADIENT:
            raise AssertionError(
                f"the parameter {name!r} gets no gradient: the largest number in it is {largest:.3g}, over "
                f"{len(s.lengths)} rows of {s.resets.shape[1]} steps"
            )


@law(
    "a hand-written derivative (jax.custom_jvp, jax.custom_vjp, rnnx.LinearizedStep) that does not match the values, "
    "or has no forward mode (jax.custom_vjp); jax.lax.stop_gradient; or a cast to float32, since this law computes in "
    "float64. For discontinuous steps, such as spikes, pass smooth=False",
    of_errors=True,
)
def derivatives(s: Subject, *, reverse_over_reverse: bool = False) -> None:
    """Forward and reverse mode agree, in a random direction in float64; if smooth, also with central differences.

    The second derivative is computed forward over reverse; with `reverse_over_reverse`, in that way too, which takes as
    long as everything else.
    """
    with jax.enable_x64(True):
        floats, rest = split_floats(_double((s.params, s.carry)))
        xs = _double(s.xs)
        direction = jax.tree.map(np.asarray, perturbed(jax.tree.map(np.zeros_like, floats), seed=11))

        def loss(floats: PyTree) -> jax.Array:
            params, carry = merge_floats(floats, rest)
            result = s.apply(params, carry, xs, s.lengths, s.resets)
            return weighted_sum(result)

        def reverse(floats: PyTree) -> jax.Array:
            pairs = zip(jax.tree.leaves(jax.grad(loss)(floats)), jax.tree.leaves(direction))
            return sum((jnp.vdot(a, b) for a, b in pairs), jnp.zeros(()))

        @s.jit
        def derivatives(floats: PyTree) -> Any:
            value, forward = jax.jvp(loss, (floats,), (direction,))
            first, second = jax.jvp(reverse, (floats,), (direction,))
            return value, first, forward, second

        def at(step: float) -> Any:
            return derivatives(jax.tree.map(lambda a, d: a + step * d, floats, direction))

        value, first, forward, second = at(0.0)
        (value_ahead, first_ahead, *_), (value_behind, first_behind, *_) = at(STEP), at(-STEP)
        if s.smooth:
            _assert_derivative("first derivative in reverse mode", first, value_ahead, value_behind, value)
            _assert_derivative("first derivative in forward mode", forward, value_ahead, value_behind, value)
            _assert_derivative("second derivative", second, first_ahead, first_behind, value)
        assert_close(first, forward, MODES_TOLERANCE, what="first derivative in reverse mode", than="forward mode")
        if reverse_over_reverse:
            again = s.jit(jax.grad(reverse))(floats)
            twice = sum(map(jnp.vdot, jax.tree.leaves(again), jax.tree.leaves(direction)))
            assert_close(twice, second, MODES_TOLERANCE, what="reverse over reverse", than="forward over reverse")


def _double(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: np.asarray(a, np.float64) if is_float(a) else np.asarray(a), tree)


def _assert_derivative(what: str, ours: Any, ahead: Any, behind: Any, value: Any) -> None:
    difference = float(ahead - behind) / (2 * STEP)
    error, largest = abs(float(ours) - difference), max(abs(difference), 0.1 * abs(float(value)))
    if not error <= DIFFERENCE_TOLERANCE * largest:
        raise AssertionError(
            f"the {what}, of a weighted sum of the outputs and the final carry in a random direction of params and "
            f"carry, is {float(ours):.6g}, but central differences give {difference:.6g}"
        )
