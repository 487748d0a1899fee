"""What the cell pages are made from: the factories, the input each cell takes, the shapes of its params."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp

import rnnx

KINDS = (rnnx.Cell, rnnx.AssociativeCell)


def makers() -> dict[str, Callable[..., Any]]:
    """The functions of `rnnx.cells` that make a cell, by name."""
    found = {name: getattr(rnnx.cells, name) for name in rnnx.cells.__all__}
    return {
        name: make
        for name, make in found.items()
        if callable(make) and not isinstance(make, type) and get_type_hints(make).get("return") in KINDS
    }


@dataclasses.dataclass(frozen=True)
class Traced:
    """A cell of some width, with shapes in place of arrays."""

    cell: rnnx.Cell
    x: Any
    params: Any
    weights: Any
    carry: Any

    def count(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


@functools.cache
def traced(name: str, features: int, width: int) -> Traced:
    """The cell with its default options, for the first kind of input that it takes."""
    cell, refusals = makers()[name](width), []
    cell = rnnx.as_cell(cell) if isinstance(cell, rnnx.AssociativeCell) else cell
    for x in inputs(features, width):
        try:
            params = jax.eval_shape(lambda key, x=x: cell.init(key, x), jax.random.key(0))
            weights = jax.eval_shape(lambda params: cell.prepare(params, None), params)
            carry = jax.eval_shape(lambda weights, x=x: cell.initial_carry(weights, x, None), weights)
        except (TypeError, ValueError) as refusal:
            refusals.append(str(refusal))
        else:
            return Traced(cell, x, params, weights, carry)
    raise ValueError(f"{name} takes no input known here: " + "; ".join(refusals))


def inputs(features: int, width: int) -> list[Any]:
    """Inputs of one step to try: features, as many features as units, features with the elapsed time, an image."""
    x = jax.ShapeDtypeStruct((features,), jnp.float32)
    return [
        x,
        jax.ShapeDtypeStruct((width,), jnp.float32),
        {"x": x, "dt": jax.ShapeDtypeStruct((), jnp.float32)},
        jax.ShapeDtypeStruct((16, 16, features), jnp.float32),
    ]


def evaluator(name: str) -> str:
    """The evaluator of `rnnx.<name>`, with its default options."""
    module = getattr(rnnx, name)(8).apply.__module__
    return {"fused": "fused_scan", "associative": "associative_scan"}.get(module.rpartition(".")[2], "scan")
