"""Nothing relies on JAX's choice of a dtype where two meet: all runs under `jax_numpy_dtype_promotion="strict"`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import rnnx
from experiments.char_lm import CharLM
from experiments.char_lm.model import make_model
from experiments.char_lm.train import initial_state, make_train_step
from experiments.settings import replace
from registry import BATCH, CASES, TIME, Case
from rnnx.testing import merge_floats, split_floats


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_strict_promotion(case: Case):
    """Values and gradients with lengths, resets and noise, in one dtype."""
    layer, key = case.make(), jax.random.key(0)
    xs = case.inputs(key, BATCH, TIME)
    lengths, resets = jnp.array([TIME, 4, 0, 1]), jnp.zeros((BATCH, TIME), bool)

    def both(params: Any, xs: Any, noise: Any) -> Any:
        numbers, rest = split_floats(xs)

        def loss(params: Any, numbers: Any) -> Any:
            _, ys = rnnx.unroll(layer, params, merge_floats(numbers, rest), lengths=lengths, resets=resets, key=noise)
            return sum((y.astype(jnp.float32).mean() for y in jax.tree.leaves(ys)), jnp.zeros(()))

        return jax.grad(loss, argnums=(0, 1))(params, numbers)

    with jax.numpy_dtype_promotion("strict"):
        params = jax.eval_shape(layer.init, key, xs)
        for noise in (None, key):
            jax.eval_shape(both, params, xs, noise)


def test_the_training_step_of_the_character_model():
    config = replace(CharLM(), batch=2, time=4, width=8, embed=4)
    model = make_model(config, 10)
    step = make_train_step(config, model, 50)
    with jax.numpy_dtype_promotion("strict"):
        state = jax.eval_shape(lambda: initial_state(config, model))
        jax.eval_shape(step, state, jnp.zeros(60, jnp.int32))
