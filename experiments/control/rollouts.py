"""How a net plays: rollouts of continuing play to learn from, and whole episodes to score."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments.control.environments import Environment
from experiments.control.model import Decision, one_step

Choose = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, logits [batch, actions]) -> actions [batch]`."""


def greedy(key: jax.Array, logits: jax.Array) -> jax.Array:
    return logits.argmax(axis=-1)


def sampled(key: jax.Array, logits: jax.Array) -> jax.Array:
    return jax.random.categorical(key, logits)


def uniform(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Ignores the net."""
    return jax.random.randint(key, logits.shape[:-1], 0, logits.shape[-1])


class Players(NamedTuple):
    """The environments between two steps, `[envs, ...]` in every leaf."""

    state: Any
    observation: jax.Array
    start: jax.Array
    """Whether the observation begins an episode."""
    carry: Any
    """The carry of the net."""
    return_so_far: jax.Array
    """The return of the current episode up to here."""
    last_return: jax.Array
    """The return of the last episode that ended, zero before the first."""


class Transition(NamedTuple):
    """A step of the environments as it was played."""

    observation: jax.Array
    start: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    bootstrap: jax.Array
    """Where truncated, the value of what would have come next; otherwise zero."""


def collect(
    environment: Environment, net: rnnx.Layer, params: Any, players: Players, keys: jax.Array
) -> tuple[Players, Transition]:
    """Plays one step of all environments for each of the `keys`; the transitions are `[time, envs, ...]`."""
    envs = len(players.start)

    def step(now: Players, key: jax.Array) -> tuple[Players, Transition]:
        k_action, k_step = jax.random.split(key)
        carry, decision = one_step(net, params, now.carry, now.observation, now.start)
        action = sampled(k_action, decision.logits)
        state, outcome = jax.vmap(environment.step)(jax.random.split(k_step, envs), now.state, action)

        def value_of_next() -> jax.Array:
            return one_step(net, params, carry, outcome.final_observation, jnp.zeros(envs, bool))[1].value

        bootstrap = jax.lax.cond(outcome.truncated.any(), value_of_next, lambda: jnp.zeros(envs))
        transition = Transition(
            observation=now.observation,
            start=now.start,
            action=action,
            log_prob=log_prob(decision, action),
            value=decision.value,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            bootstrap=jnp.where(outcome.truncated, bootstrap, 0),
        )
        ended, total = outcome.terminated | outcome.truncated, now.return_so_far + outcome.reward
        last_return = jnp.where(ended, total, now.last_return)
        return Players(state, outcome.observation, ended, carry, jnp.where(ended, 0, total), last_return), transition

    return jax.lax.scan(step, players, keys)


def log_prob(decision: Decision, action: jax.Array) -> jax.Array:
    return -optax.softmax_cross_entropy_with_integer_labels(decision.logits, action)


class Episodes(NamedTuple):
    """An episode in each row, `[episodes, horizon, ...]`; steps after its end are to be ignored."""

    state: Any
    """The state of the environment, including what is not observed."""
    observation: jax.Array
    action: jax.Array
    decision: Decision
    reward: jax.Array
    """Zero after the end."""
    alive: jax.Array
    """Whether the step belongs to the episode."""

    @property
    def returns(self) -> jax.Array:
        """`[episodes]`."""
        return self.reward.sum(axis=1)


def play(
    environment: Environment, net: rnnx.Layer, params: Any, key: jax.Array, episodes: int, choose: Choose
) -> Episodes:
    k_reset, k_play = jax.random.split(key)
    state, observation = jax.vmap(environment.reset)(jax.random.split(k_reset, episodes))
    carry = net.initial_carry(params, observation[:, None], None)

    def step(now: Any, key: jax.Array) -> tuple[Any, Episodes]:
        state, observation, carry, alive = now
        k_action, k_step = jax.random.split(key)
        carry, decision = one_step(net, params, carry, observation, jnp.zeros(episodes, bool))
        action = choose(k_action, decision.logits)
        after, outcome = jax.vmap(environment.step)(jax.random.split(k_step, episodes), state, action)
        reward = jnp.where(alive, outcome.reward, 0)
        played = Episodes(state, observation, action, decision, reward, alive)
        return (after, outcome.observation, carry, alive & ~(outcome.terminated | outcome.truncated)), played

    keys = jax.random.split(k_play, environment.horizon)
    _, played = jax.lax.scan(step, (state, observation, carry, jnp.ones(episodes, bool)), keys)
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), played)
