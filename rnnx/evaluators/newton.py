"""Newton's method: evaluates any cell in parallel over time, in a few iterations over all steps."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from rnnx.base import ArrayLike, AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree, Weights
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
from rnnx.evaluators._lifting import Steps, evaluator, finalize_outputs, make_layer, parallel_apply, project_all_steps
from rnnx.evaluators._newton_equations import Jacobian, diagonal, full, solve_sequentially
from rnnx.evaluators._newton_solver import NewtonInfo, carries_and_outputs, newton_iterations
from rnnx.evaluators.scan import scan
from rnnx.hints import explained
from rnnx.sequences import batch_and_time, checked_key

__all__ = ["Jacobian", "NewtonInfo", "diagonal", "full", "newton_scan", "newton_solve"]


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

    The carries h_1, ..., h_T are the solution of the equations h_t = f_t(h_{t-1}). Each iteration linearises every step
    at the current guess, and solves the resulting linear recurrence by a parallel scan:

    .. math::
        r_t = f_t(h_{t-1}) - h_t, \qquad
        d_t = (1 - \kappa) J_t d_{t-1} + r_t, \qquad
        h_t \leftarrow h_t + d_t, \qquad
        \kappa = \text{damping} \cdot \min(1, \max_t |r_t| / |h_t|)

    where J_t is the Jacobian of f_t, or its diagonal. The initial guess is the initial carry at every step. After n
    iterations the first n steps are exact, for any J and :math:`\kappa`. If the effect of small perturbations of the
    state decays over time, a few iterations are enough for all steps.

    Args:
        cell: any Cell. The method solves for the floating leaves of the carry. Integers and booleans are updated by
            the step in each iteration, which converges if they stay constant between resets.
        jacobian: `rnnx.evaluators.newton.full`, or `rnnx.evaluators.newton.diagonal`: quasi-Newton, with more
            iterations, but far less memory in each if n is large; or any function with the same signature.
        damping: between 0 and 1. 0 is Newton's method. With more damping, a change propagates less far ahead, so a
            guess at which the steps expand does not disturb later steps. A few tenths save iterations if the network is
            excitable, and cost almost none otherwise: :math:`\kappa` goes to 0 with the residual, as in
            Levenberg-Marquardt methods. With diagonal Jacobians it changes little.
        tolerance: the relative error to reach; default: eps ** 0.8 of the coarsest dtype in carry and projected input
            (float32: 3e-6, float64: 3e-13).
        max_iterations: the number of iterations after which it falls back to a sequential scan.

    Returns:
        The Layer. Its params, carry and results are those of `rnnx.scan(cell)`.

    Raises:
        TypeError: if `cell` is not a Cell, or an option has the wrong type; when it runs, if the carry holds complex
            numbers or PRNG keys.
        ValueError: if `damping` is outside [0, 1], `tolerance` is not above 0, or `max_iterations` is below 1.

    **It never fails silently**: if the error does not fall below the tolerance (a chaotic network, spikes, NaN in the
    inputs), it falls back to a sequential scan, under `lax.cond`. Under `jax.vmap` over params both branches always
    run. The error after an iteration is estimated from the size of d and r, and from how fast they fall between
    iterations. If a carry is so sensitive that rounding alone causes a larger error, the iterations never converge, and
    the result is that of the sequential scan.

    **Derivatives** are exact: they are those of the solution, not of the iterations. The tangents of the solution obey
    the linear recurrence dh_t = J_t dh_{t-1} + (the tangent of f_t due to params and inputs). With the full J it is
    solved by another parallel scan; with diagonal Jacobians, sequentially.

    **When it pays off**: on accelerators, for long sequences, few rows and small carries (n up to some tens, where n
    counts all numbers of a carry: 2H in an LSTM). An iteration with the full J costs n times the arithmetic of a step,
    plus n ** 3 for the scan, and holds a few arrays `[time, batch, n, n]`. On a CPU with few cores it is slower than
    `rnnx.scan`. With a symbolic time axis (`jax.export`) it falls back to `rnnx.scan`.

    References: Y. H. Lim et al., *Parallelizing non-linear sequential models over the sequence length* (DEER), ICLR
    2024, arXiv 2309.12252; X. Gonzalez et al., *Towards scalable and stable parallelization of nonlinear RNNs*, NeurIPS
    2024, arXiv 2407.19115, for diagonal Jacobians and for damping, there in the form of a Kalman smoother; J. Fan and
    Y. Yuan, *On the quadratic convergence of the Levenberg-Marquardt method without nonsingularity assumption*,
    Computing 74 (2005), for damping proportional to the residual; F. Danieli et al., *ParaRNN*, arXiv 2510.21450.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.newton_scan(rnnx.cells.gru(4))
        >>> xs = jax.random.normal(jax.random.key(0), (2, 30, 3))
        >>> params = layer.init(jax.random.key(1), xs)
        >>> _, ys = rnnx.unroll(layer, params, xs)
        >>> _, expected = rnnx.unroll(rnnx.scan(rnnx.cells.gru(4)), params, xs)
        >>> bool(jnp.allclose(ys, expected, atol=1e-5))
        True
        >>> rnnx.newton_scan(rnnx.cells.gru(4), jacobian=rnnx.evaluators.newton.diagonal, damping=0.2)
        gru(width=4, jacobian=diagonal, damping=0.2)
    """
    _check("newton_scan", cell, jacobian, damping, tolerance, max_iterations)
    sequential, cell = scan(cell).apply, with_output_checks(cell)

    def solve(weights: Weights, steps: Steps) -> tuple[Carry, PyTree]:
        fixed = jax.lax.stop_gradient((weights, steps))
        state, info = newton_iterations(cell, *fixed, jacobian, damping, tolerance, max_iterations)
        state = jax.lax.cond(info.converged, lambda: state, lambda: solve_sequentially(cell, *fixed))
        return carries_and_outputs(cell, weights, steps, state, jacobian)

    return make_layer(cell, parallel_apply(cell, solve, sequential))


@explained
def newton_solve(
    cell: Cell,
    params: Params,
    carry: Carry,
    xs: PyTree,
    *,
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    key: Key | None = None,
    jacobian: Jacobian = full,
    damping: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int = 50,
) -> tuple[Carry, PyTree, NewtonInfo]:
    """Runs `newton_scan` without its sequential fallback, and reports how it converged.

    Args:
        cell, jacobian, damping, tolerance, max_iterations: as in `newton_scan`.
        params: of the cell.
        carry: `[batch, ...]`, e.g. from `rnnx.scan(cell).initial_carry(params, xs, None)`.
        xs, lengths, resets: as in `rnnx.unroll`.
        key: as in `Layer.apply`, used for this call alone.

    Returns:
        `(carry, ys, info)`: as from `rnnx.unroll`, and a `NewtonInfo`. If `info.converged` is false, carry and ys are
        the state of the last iteration, exact for the first `info.iterations` steps, and so are the derivatives. With
        no steps there are no iterations.

    Raises:
        TypeError, ValueError: as `newton_scan` and `rnnx.unroll`; ValueError also if the number of steps is symbolic.

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
        raise ValueError(f"newton_solve needs a known number of steps, but got {time}; use rnnx.scan instead")
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
    state, info = newton_iterations(cell, *fixed, jacobian, damping, tolerance, max_iterations)
    after, ys = carries_and_outputs(cell, weights, steps, state, jacobian)
    return *finalize_outputs(after, ys, carry, xs, lengths, resets), info


def _check(
    name: str, cell: Cell, jacobian: Jacobian, damping: float, tolerance: float | None, max_iterations: int
) -> None:
    if not isinstance(cell, Cell):
        hint = "; rnnx.as_cell converts it to a Cell" if isinstance(cell, AssociativeCell) else ""
        raise TypeError(f"{name} takes a Cell, e.g. rnnx.cells.gru(16), but got {cell!r}{hint}")
    check_function(name, "jacobian", jacobian, "(f, h) -> J")
    check_number(name, "damping", damping)
    if not 0 <= damping <= 1:
        raise ValueError(f"{name}: damping is {damping}, but it must lie between 0 (none) and 1")
    if tolerance is not None:
        check_number(name, "tolerance", tolerance)
        if not tolerance > 0:
            raise ValueError(f"{name}: tolerance is {tolerance}, but it must be above 0 (None: by the dtype)")
    check_count(name, "max_iterations", max_iterations)
