"""What numbers can do to a layer: extreme ones, and those of few digits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from checks import joined, shaken, split
from registry import BATCH, CASES, TIME, Case

# Cells of the tests' own, with a root and a norm that have no derivative at 0.
DEFINED_EVERYWHERE = [case for case in CASES if case.name not in {"own cell", "partial cell"}]


def to_dtype(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def kernels_times(params: Any, factor: float) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, a: a * factor if "kernel" in jax.tree_util.keystr(path) else a, params
    )


@pytest.fixture
def compile_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("compile_quickly")
@pytest.mark.parametrize("case", DEFINED_EVERYWHERE, ids=lambda case: case.name)
def test_gradients_are_finite_whatever_comes(case: Case):
    """Inputs of 1e4 and 1e-30, kernels 10,000 times as large, params and inputs in every precision."""
    layer = case.make()
    k_params, k_xs = jax.random.split(jax.random.key(0))
    xs = case.inputs(k_xs, BATCH, TIME)
    params = shaken(jax.jit(layer.init)(k_params, xs))

    @jax.jit
    def both(params: Any, xs: Any) -> Any:
        numbers, rest = split(xs)

        def loss(params: Any, numbers: Any) -> Any:
            _, ys = rnnx.unroll(layer, params, joined(numbers, rest))
            return sum(y.astype(jnp.float32).mean() for y in jax.tree.leaves(ys)), ys

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, numbers)

    def scaled(xs: Any, factor: float) -> Any:
        return jax.tree.map(lambda x: x * factor if jnp.issubdtype(x.dtype, jnp.floating) else x, xs)

    situations = {
        "inputs of 1e4": (params, scaled(xs, 1e4)),
        "inputs of 1e-30": (params, scaled(xs, 1e-30)),
        "large kernels": (kernels_times(params, 1e4), xs),
        "large params": (jax.tree.map(lambda a: a * 1e4, params), xs),
        "bfloat16": (to_dtype(params, jnp.bfloat16), to_dtype(xs, jnp.bfloat16)),
        "float16": (to_dtype(params, jnp.float16), to_dtype(xs, jnp.float16)),
        "float16 inputs": (params, to_dtype(xs, jnp.float16)),
    }
    for name, arguments in situations.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(both(*arguments)):
            where = jax.tree_util.keystr(path)
            assert np.isfinite(np.asarray(leaf, np.float32)).all(), f"{name}: {where}"
