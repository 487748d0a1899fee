"""The environments of `experiments.control` are those of gymnax: the same episodes from the same keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.control import Data
from experiments.control.environments import Environment, make_environment

gymnax = pytest.importorskip("gymnax")


def followed(environment: Environment, game: Any, params: Any, see: Any, steps: int) -> int:
    """Plays both side by side, every number equal; the number of episodes that ended."""
    key = jax.random.key(0)
    (state, observation), (seen, theirs) = environment.reset(key), game.reset(key, params)
    ended = 0
    for step in range(steps):
        np.testing.assert_array_equal(observation, see(seen))
        key, action = jax.random.fold_in(key, step), jnp.array(step // 3 % 2)
        state, (observation, reward, terminated, truncated, last) = environment.step(key, state, action)
        seen, theirs, *outcome, info = game.step(key, theirs, action, params)
        for name in state._fields:
            np.testing.assert_array_equal(getattr(state, name), np.squeeze(getattr(theirs, TRANSLATED.get(name, name))))
        np.testing.assert_array_equal(last, see(info["final_observation"]))
        assert [float(reward), bool(terminated), bool(truncated | terminated)] == [
            float(outcome[0]), bool(outcome[1]), bool(outcome[1] | outcome[2])
        ]  # fmt: skip
        ended += bool(terminated | truncated)
    return ended


TRANSLATED = {"bit": "context"}


def test_cartpole():
    """Operation by operation: compiled as wholes, the two are different programs, and fall on different days."""
    game, params = gymnax.make("CartPole-v1")
    limits = jnp.array([params.x_threshold, params.theta_threshold_radians])
    with jax.disable_jit():
        environment = make_environment(Data(task="cartpole"))
        assert followed(environment, game, params, lambda seen: seen[jnp.array([0, 2])] / limits, 60) > 0


def test_memory_chain():
    game, params = gymnax.make("MemoryChain-bsuite")
    params = params.replace(memory_length=4, max_steps_in_episode=6)
    environment = make_environment(Data(task="memory_chain", memory_length=4))
    environment = environment._replace(step=jax.jit(environment.step))
    assert followed(environment, game, params, lambda seen: seen, 40) == 8
