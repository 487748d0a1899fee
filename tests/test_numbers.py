"""What numbers can do to a layer: extreme ones, and those of few digits."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from registry import BATCH, CASES, FEATURES, TIME, Case
from rnnx.testing import assert_close, merge_floats, perturbed, split_floats

# Cells of the tests' own, with a root and a norm that have no derivative at 0.
DEFINED_EVERYWHERE = [case for case in CASES if case.name not in {"own cell", "partial cell"}]

OF_ANY_DTYPE = [
    case for case in CASES if "param_dtype" in inspect.signature(getattr(rnnx, case.name, dict.get)).parameters
]


def to_dtype(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def kernels_times(params: Any, factor: float) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, a: a * factor if "kernel" in jax.tree_util.keystr(path) else a, params
    )


@pytest.mark.parametrize("case", DEFINED_EVERYWHERE, ids=lambda case: case.name)
def test_gradients_are_finite_whatever_comes(case: Case):
    """Inputs of 1e4 and 1e-30, kernels 10,000 times as large, params and inputs in every precision."""
    layer = case.make()
    k_params, k_xs = jax.random.split(jax.random.key(0))
    xs = case.inputs(k_xs, BATCH, TIME)
    params = perturbed(jax.jit(layer.init)(k_params, xs))

    @jax.jit
    def both(params: Any, xs: Any) -> Any:
        numbers, rest = split_floats(xs)

        def loss(params: Any, numbers: Any) -> Any:
            _, ys = rnnx.unroll(layer, params, merge_floats(numbers, rest))
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


@pytest.mark.parametrize("case", OF_ANY_DTYPE, ids=lambda case: case.name)
def test_params_in_few_digits_are_those_of_float32_rounded(case: Case):
    """In bfloat16 by itself random numbers are few, and the decompositions behind orthogonal kernels do not exist."""
    make = getattr(rnnx, case.name)
    xs = case.inputs(jax.random.key(0), BATCH, TIME)
    width = FEATURES if case.name in {"rg_lru", "lru", "s4d", "s5", "s6", "causal_conv"} else 4
    options = {"state": 4} if case.name in {"s4d", "s5"} else {}
    full = make(width, **options).init(jax.random.key(1), xs)
    half = make(width, param_dtype=jnp.bfloat16, **options).init(jax.random.key(1), xs)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half))
    assert_close(to_dtype(half, jnp.float32), to_dtype(to_dtype(full, jnp.bfloat16), jnp.float32), 0.01)
