"""Checks that the libraries compute the same: otherwise there is nothing to compare."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import rnnx
from experiments.errors import UserError
from experiments.speed import peers
from experiments.speed.peers.net import Prepared, prepared
from experiments.speed.peers.rnnx import net, plain
from experiments.speed.shapes import Shape

TOLERANCE = 1e-3
"""Largest difference allowed, relative to the largest number in an array. Float32 rounding stays far below it."""


def random_net(cell: str, shape: Shape) -> tuple[Any, jax.Array]:
    """Params and inputs. Biases are random, so that a misplaced one is found, except b'_n, which is zero, as nnx's GRU
    does not have it."""
    k_params, k_bias, k_xs = jax.random.split(jax.random.key(0), 3)
    xs = jax.random.normal(k_xs, shape[:3])
    params = plain(cell, shape.width).init(k_params, xs)
    params["bias"] += 0.1 * jax.random.normal(k_bias, params["bias"].shape)
    return params, xs


def check(cell: str, nets: Mapping[str, Prepared], params: Any, xs: jax.Array) -> float:
    """Compares outputs and gradients of the timed programs with those of rnnx's cell under the plain scan.

    Returns the largest difference, relative to the largest number of each array; raises UserError if it is too large.
    """
    references: dict[str, Prepared] = {}
    worst = 0.0
    for name, each in nets.items():
        options = str(each.layer)
        if options not in references:  # there are two if a library computes a cell differently
            references[options] = (
                nets[peers.PLAIN] if name == "rnnx" and peers.PLAIN in nets else _plain(each, params, xs)
            )
        reference = references[options]
        actual = each.forward(), each.gradient()[1]
        expected = reference.forward(), each.pulled(reference.gradient()[1])
        worst = max(worst, _checked(name, cell, actual, expected))
    return worst


def _plain(each: Prepared, params: Any, xs: jax.Array) -> Prepared:
    """The library's cell in rnnx, under the plain evaluator."""
    layer = rnnx.scan(getattr(rnnx.cells, each.layer.spec.name)(**each.layer.spec.options))
    expected = jax.eval_shape(layer.init, jax.random.key(0), xs)
    return prepared(net(layer, {name: params[name] for name in expected}), xs)


def _checked(name: str, cell: str, actual: Any, expected: Any) -> float:
    leaves, of_rnnx = jax.tree.leaves(actual), jax.tree.leaves(expected)
    found = max(relative(a, b) for a, b in zip(leaves, of_rnnx, strict=True))
    if not found <= TOLERANCE:
        raise UserError(
            f"{name} and rnnx DO NOT AGREE on the same weights: outputs or gradients of {cell} differ by {found:.2g} "
            f"of the largest number, where {TOLERANCE:g} is allowed. They are not timed: one of the two is "
            "wrong, or rnnx.interop converts the weights wrongly. To leave the library out: --libraries."
        )
    return found


def relative(actual: Any, expected: Any) -> float:
    as_numpy = [a.detach().cpu() if hasattr(a, "detach") else a for a in (actual, expected)]
    actual, expected = (np.asarray(a, np.float64) for a in as_numpy)
    if actual.shape != expected.shape:
        return float("inf")
    difference = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-12)
    return float(difference) if np.isfinite(difference) else float("inf")


def check_streams(cell: str, loops: Mapping[str, Callable[[], Any]]) -> None:
    """Compares the first steps of closed loops of one sequence; later ones may diverge, as small differences grow."""

    def first(loop: Callable[[], Any], steps: int = 16) -> np.ndarray:
        ys = np.asarray(loop())
        return ys.reshape(-1, ys.shape[-1])[:steps]

    expected = first(loops["rnnx"])
    for name, loop in loops.items():
        if not peers.note(name, cell):
            _checked(name, cell, first(loop), expected)
