"""Compares results, and reports what differs, at which step of which row, and by how much.

Only three kinds of results are equal to the bit: those of the same compiled program on the same inputs (a resumed run,
a stream that uses the same compiled step, pads with other contents); numbers that were moved but not computed (weights
converted to another library and back, a carry that no step changed); and arithmetic without rounding (dropout of ones,
small integers). All others differ by rounding: XLA fuses each program differently, depending on processor and version,
and so rounds differently. This includes a function alone and within another, the same layer with and without an option
that should change nothing, and two outputs of one program. Compare such results by `assert_close` with a tolerance of a
few `eps`; compare choices made from them (e.g. the most likely token) only if the candidates differ by more than that.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import PyTree

TOLERANCE = 2e-5


def eps(units: float, dtype: Any = jnp.float32) -> float:
    """A tolerance of `units` rounding errors."""
    return units * float(jnp.finfo(dtype).eps)


def assert_close(
    a: PyTree,
    b: PyTree,
    tolerance: float = TOLERANCE,
    *,
    what: str = "the result",
    than: str = "the expected result",
    axes: tuple[str, ...] = (),
) -> None:
    """Checks that `max|a - b| <= tolerance * max|b|` for each array, and that all numbers are finite.

    Args:
        a, b: pytrees of arrays with the same structure: the result, and the expected one.
        tolerance: relative to the largest number of each array of `b`; 0 for equality.
        what, than: what `a` and `b` are called in the message.
        axes: names of the first axes, such as `("row", "step")`, with which the message locates the first error.

    Raises:
        AssertionError: if they differ; the message names the leaf, the place, the error and the largest value.
    """
    structures: list[Any] = [jax.tree.structure(a), jax.tree.structure(b)]
    if structures[0] != structures[1]:
        raise AssertionError(f"{what} has the structure {structures[0]}, but {than} has {structures[1]}")
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        _assert_arrays_close(np.asarray(x), np.asarray(y), tolerance, what + jax.tree_util.keystr(path), than, axes)


def _assert_arrays_close(
    x: np.ndarray, y: np.ndarray, tolerance: float, what: str, than: str, axes: tuple[str, ...]
) -> None:
    if x.shape != y.shape:
        raise AssertionError(f"{what} has shape {x.shape}, but {than} has {y.shape}")
    if not x.size or x.dtype == jax.dtypes.float0:
        return
    dtype = np.complex128 if np.iscomplexobj(x) else np.float64
    x, y = x.astype(dtype), y.astype(dtype)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.all():
        i = tuple(np.argwhere(~finite)[0])
        raise AssertionError(f"{what}{_place(i, axes)} is {x[i]:.3g} where {than} has {y[i]:.3g}: not finite")
    error, scale = np.abs(x - y), np.abs(y).max()
    error = error.max(axis=tuple(range(min(len(axes), x.ndim), x.ndim)))  # at each place
    wrong = error > tolerance * max(scale, 1e-6)
    if wrong.any():
        first, worst = tuple(np.argwhere(wrong)[0]), np.unravel_index(error.argmax(), error.shape)
        largest = "" if first == worst else f"; the largest error is {error[worst]:.3g}{_place(worst, axes)}"
        raise AssertionError(
            f"{what}{_place(first, axes)} is off by {error[first]:.3g} from {than}, whose largest number is "
            f"{scale:.3g}{largest}"
        )


def assert_dtypes(tree: PyTree, expected: Any, *, what: str) -> None:
    """Checks that every floating leaf has the dtype `expected`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != expected:
            raise AssertionError(
                f"{what}{jax.tree_util.keystr(path)} is {leaf.dtype}, but it should be {jnp.dtype(expected)}"
            )


def _place(index: tuple[Any, ...], axes: tuple[str, ...]) -> str:
    where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=False))
    return f" at {where}" if where else ""
