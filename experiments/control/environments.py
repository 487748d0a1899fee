"""The two tasks of gymnax, as pure functions of one environment; `jax.vmap` makes many of one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp

from experiments.control.config import Control


class Outcome(NamedTuple):
    """What a step led to. Where it ended the episode, the next one has already begun."""

    observation: jax.Array
    """What the next action is chosen by."""
    reward: jax.Array
    terminated: jax.Array
    """Nothing more can be won."""
    truncated: jax.Array
    """The time was up: there would have been more to win."""
    last: jax.Array
    """As `observation`, but of the episode of this step, even where that has ended."""


class Environment(NamedTuple):
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]
    """`key -> (state, observation)`."""
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, Outcome]]
    """`(key, state, action) -> (state, outcome)`."""
    actions: int
    horizon: int
    """Steps after which each episode has ended."""
    target: float
    """A mean return by which the task counts as solved."""


def make_environment(config: Control) -> Environment:
    return {"cartpole": cartpole, "memory_chain": memory_chain}[config.task](config)


def cartpole(config: Control) -> Environment:
    """CartPole-v1 of which only the place of the cart and the angle of the pole are seen, as shares of their limits."""
    game, params = gymnax.make("CartPole-v1")
    limits = jnp.array([params.x_threshold, params.theta_threshold_radians])
    return adapted(game, params, lambda seen: seen[jnp.array([0, 2])] / limits, params.max_steps_in_episode, 475.0)


def memory_chain(config: Control) -> Environment:
    """A bit at the beginning; the action `memory_length` steps later must be the same: 1, else -1.

    gymnax shows the observation of the state before the step, so that the bit is seen twice.
    """
    game, params = gymnax.make("MemoryChain-bsuite")
    horizon = config.memory_length + 1
    params = params.replace(memory_length=config.memory_length, max_steps_in_episode=horizon + 1)
    return adapted(game, params, lambda seen: seen, horizon, 0.95)


def adapted(game: Any, params: Any, see: Callable[[jax.Array], jax.Array], horizon: int, target: float) -> Environment:
    def reset(key: jax.Array) -> tuple[Any, jax.Array]:
        observation, state = game.reset(key, params)
        return typed(state), see(observation)

    def step(key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Outcome]:
        observation, state, reward, terminated, truncated, info = game.step(key, state, action, params)
        reward = jnp.asarray(reward, jnp.float32)
        return typed(state), Outcome(
            see(observation), reward, terminated, truncated & ~terminated, see(info["final_observation"])
        )

    return Environment(reset, step, game.num_actions, horizon, target)


def typed(state: Any) -> Any:
    """Python numbers in a state make arrays of weak type, and the state of a compiled loop another one each time."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)
