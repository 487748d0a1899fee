"""Assigns weights to units, and checks that the units of a cell are separable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Cell, Params, PyTree
from rnnx.online.learner import Floats, join, split

Owner = Callable[[str, tuple[int, ...], int], Any]
"""`(path, shape, units) -> integers that broadcast to the shape`, or None: see `columns`."""


def columns(path: str, shape: tuple[int, ...], units: int) -> np.ndarray | None:
    """Assigns the columns of a weight to units, as in most cells: unit j owns the columns j, j + H, j + 2H, ...

    Args:
        path: the path of the weight, e.g. `"recurrent_kernel"`, `"decay.re"`.
        shape: its shape.
        units: the number of units, H.

    Returns:
        Integers in [0, H) that broadcast to `shape`. None if the size of the last axis is not a multiple of H: such a
        weight must not act on the next carry (it may act on y).

    Example::

        >>> import rnnx
        >>> rnnx.online.columns("bias", (6,), 3).tolist()
        [0, 1, 2, 0, 1, 2]
    """
    return np.arange(shape[-1]) % units if shape and shape[-1] % units == 0 else None


def units_of(s: Floats) -> int:
    return jax.tree.leaves(s)[0].shape[0]


def owners_of(owner: Owner, w: Floats, units: int) -> dict[str, np.ndarray]:
    """The owners of each owned weight, with as many dimensions as the weight."""
    found = {path: owner(path, leaf.shape, units) for path, leaf in w.items()}
    owners = {path: np.asarray(unit) for path, unit in found.items() if unit is not None}
    return {path: unit.reshape((1,) * (w[path].ndim - unit.ndim) + unit.shape) for path, unit in owners.items()}


REMEDY = "rnnx.online.rtrl and rnnx.online.uoro take any cell"
DRAWS = 3  # at a single random point, a nonlinear unit may happen to be flat


def check_ownership(name: str, cell: Cell, local: Cell, kernel: str, owner: Owner, params: Params, x: PyTree) -> None:
    """Raises if a weight acts on a unit other than its owner, or if units interact other than through the kernel.

    It checks the first and the last unit at random points: derivatives that should be zero are exactly zero.

    Args:
        name: the name of the learner, for errors.
        cell, local: the cell; and the same cell with units that do not interact through the kernel.
        kernel, owner: as in `rnnx.online.snap1`.
        params, x: the cell's params, and one step of one example; only their shapes matter.
    """
    weights = jax.eval_shape(lambda p: cell.prepare(p, None), params)
    w, s = split(weights)[0], split(jax.eval_shape(lambda w: cell.initial_carry(w, x, None), weights))[0]
    shapes = {leaf.shape for leaf in s.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        found = ", ".join(f"{path or 'carry'} {leaf.shape}" for path, leaf in s.items())
        raise ValueError(
            f"{name}: each leaf of the carry must hold one number per unit, (H,), but the carry of {cell.spec.name} "
            f"has {found}; {REMEDY}"
        )
    units = units_of(s)
    owners = owners_of(owner, w, units)
    for path, owned in owners.items():
        if owned.ndim != w[path].ndim or any(b not in (1, a) for a, b in zip(w[path].shape, owned.shape)):
            raise ValueError(
                f"{name}: for {path} of shape {w[path].shape}, owner returned shape {owned.shape}, which does not "
                "broadcast to it"
            )
    derivatives = jax.jit(_derivatives(cell, local, x))
    random = np.random.default_rng(0)

    def drawn(a: Any) -> np.ndarray:
        floating = jnp.issubdtype(a.dtype, jnp.floating)
        return random.normal(size=a.shape).astype(a.dtype) if floating else np.zeros(a.shape, a.dtype)

    owned_by = {path: owners.get(path, np.array(-1)) for path in w}
    with jax.ensure_compile_time_eval():  # params may be traced; the random numbers are not
        for unit in [*{0, units - 1}] * DRAWS:
            cotangent = {path: (np.arange(units) == unit) * drawn(leaf) for path, leaf in s.items()}
            by_w, by_w_initially, by_s = derivatives(*jax.tree.map(drawn, (params, s, x)), cotangent)
            for path, owned in owned_by.items():
                others = np.broadcast_to(owned != unit, w[path].shape)
                if any(_is_nonzero(by[path], others) for by in (by_w, by_w_initially)):
                    raise ValueError(
                        f"{name}: in {cell.spec.name}, elements of {path or 'the weights'} {w[path].shape} act on "
                        "units that do not own them (by default, unit j modulo H owns column j). Pass owner= if "
                        "another rule holds; or use a variant of the cell in which each element acts on one unit "
                        f"(gru and mgu: reset_after=True; lstm: no layer_norm, no projection). {REMEDY}"
                    )
            if any(_is_nonzero(leaf, np.arange(units) != unit) for leaf in by_s.values()):
                raise ValueError(
                    f"{name}: in {cell.spec.name}, units interact other than through a product with the matrix "
                    f"{kernel!r} of the weights; pass the name of that matrix, (H, gates * H), as kernel=. {REMEDY}"
                )


def _derivatives(cell: Cell, local: Cell, x: PyTree) -> Callable[..., tuple[Floats, Floats, Floats]]:
    """Makes the function that maps a cotangent of the carry to those of the weights and of the carry before it.

    The function takes `(params, carry before, x, cotangent)`. It returns the cotangents of the weights through a step
    and through the initial carry, and that of the carry. The `x` given here is only for shapes.
    """

    def derivatives(params: Params, s: Floats, now: PyTree, cotangent: Floats) -> tuple[Floats, Floats, Floats]:
        w, rest_w = split(cell.prepare(params, None))

        def initial(w: Floats) -> tuple[Floats, PyTree]:
            return split(cell.initial_carry(join(w, rest_w), x, None))

        _, initial_vjp, rest_s = jax.vjp(initial, w, has_aux=True)

        def after(cell: Cell, w: Floats, s: Floats) -> Floats:
            weights = join(w, rest_w)
            return split(cell.step(weights, join(s, rest_s), cell.project(weights, now, None))[0])[0]

        (by_w,) = jax.vjp(lambda w: after(cell, w, s), w)[1](cotangent)
        (by_s,) = jax.vjp(lambda s: after(local, w, s), s)[1](cotangent)
        return by_w, initial_vjp(cotangent)[0], by_s

    return derivatives


def _is_nonzero(derivative: jax.Array, others: np.ndarray) -> bool:
    return bool((np.asarray(derivative) != 0)[others].any())  # NaN counts: it does not prove independence
