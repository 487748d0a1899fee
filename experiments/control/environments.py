"""The two tasks as pure functions of a single environment; `jax.vmap` batches them.

Dynamics and random numbers are those of gymnax 1.0 (CartPole-v1, MemoryChain-bsuite), against which they are tested.
References: A. G. Barto, R. S. Sutton and C. W. Anderson, IEEE SMC 13 (1983); I. Osband et al., *Behaviour suite for
reinforcement learning*, arXiv 1908.03568 (2019).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from experiments.control.config import Data

State = TypeVar("State")


class Outcome(NamedTuple):
    """The outcome of a step. If it ended the episode, the next one has already begun."""

    observation: jax.Array
    """What the next action is chosen by."""
    reward: jax.Array
    terminated: jax.Array
    """The episode is over: no more reward could follow."""
    truncated: jax.Array
    """The time was up: more reward could have followed."""
    final_observation: jax.Array
    """Like `observation`, but always of this step's episode, even if that has ended."""


class Environment(NamedTuple):
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]
    """`key -> (state, observation)`."""
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, Outcome]]
    """`(key, state, action) -> (state, outcome)`."""
    actions: int
    horizon: int
    """Steps after which each episode has ended."""
    target: float
    """The mean return at which the task counts as solved."""


def make_environment(data: Data) -> Environment:
    return {"cartpole": cartpole, "memory_chain": memory_chain}[data.task](data)


class Cart(NamedTuple):
    """The state of CartPole: the cart's position in metres, the pole's angle in radians, and how fast they change."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    time: jax.Array


class Physics(NamedTuple):
    """The constants of CartPole, in metres, kilograms and seconds."""

    gravity: float = 9.8
    pole_mass: float = 0.1
    total_mass: float = 1.1
    length: float = 0.5
    pole_mass_length: float = 0.05
    push: float = 10.0
    tau: float = 0.02


@jax.jit  # the constants are arguments: as literals, XLA would round differently from gymnax
def move_cart(cart: Cart, action: jax.Array, of: Physics) -> Cart:
    force = of.push * action - of.push * (1 - action)
    cos, sin = jnp.cos(cart.theta), jnp.sin(cart.theta)
    common = (force + of.pole_mass_length * cart.theta_dot**2 * sin) / of.total_mass
    angular = (of.gravity * sin - cos * common) / (of.length * (4 / 3 - of.pole_mass * cos**2 / of.total_mass))
    linear = common - of.pole_mass_length * angular * cos / of.total_mass
    return Cart(
        cart.x + of.tau * cart.x_dot,
        cart.x_dot + of.tau * linear,
        cart.theta + of.tau * cart.theta_dot,
        cart.theta_dot + of.tau * angular,
        cart.time + 1,
    )


def cartpole(data: Data) -> Environment:
    """CartPole-v1 of which only the cart's position and the pole's angle are observed, as shares of their limits."""
    x_limit, theta_limit, horizon = 2.4, math.radians(12), 500

    def initial(key: jax.Array) -> Cart:
        x, x_dot, theta, theta_dot = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return Cart(x, x_dot, theta, theta_dot, jnp.zeros((), jnp.int32))

    def observe(cart: Cart) -> jax.Array:
        return jnp.array([cart.x, cart.theta]) / jnp.array([x_limit, theta_limit])

    def fallen(cart: Cart) -> jax.Array:
        return (abs(cart.x) > x_limit) | (abs(cart.theta) > theta_limit)

    def transition(cart: Cart, action: jax.Array) -> tuple[Cart, Step]:
        after = move_cart(cart, action, Physics())
        return after, Step(observe(after), 1.0 - fallen(cart), fallen(after), after.time >= horizon)

    return with_auto_reset(initial, observe, transition, horizon, 475.0)


class Chain(NamedTuple):
    """The state of MemoryChain."""

    bit: jax.Array
    """0 or 1."""
    time: jax.Array


def memory_chain(data: Data) -> Environment:
    """A bit at the beginning; the action `memory_length` steps later must match it: reward 1, otherwise -1.

    The observation after a step is that of the state before it, so the bit is seen twice. (bsuite's task may have
    several bits; the second number would then say which one is asked for.)
    """
    length = data.memory_length

    def initial(key: jax.Array) -> Chain:
        bit = jax.random.bernoulli(jax.random.split(key)[0], 0.5, (1,))[0]
        return Chain(bit.astype(jnp.int32), jnp.zeros((), jnp.int32))

    def observe(chain: Chain) -> jax.Array:
        shown = jnp.where(chain.time == 0, 2 * chain.bit - 1, 0)
        return jnp.array([1 - chain.time / length, 0.0, shown])

    def transition(chain: Chain, action: jax.Array) -> tuple[Chain, Step]:
        asked, right = chain.time >= length, action == chain.bit
        reward = jnp.where(asked, jnp.where(right, 1.0, -1.0), 0.0)
        after = Chain(chain.bit, chain.time + 1)
        return after, Step(observe(chain), reward, after.time == length + 1, jnp.array(False))

    return with_auto_reset(initial, observe, transition, length + 1, 0.95)


class Step(NamedTuple):
    """The outcome of a step, before any new episode begins."""

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    time_is_up: jax.Array


def with_auto_reset(
    initial: Callable[[jax.Array], State],
    observe: Callable[[State], jax.Array],
    transition: Callable[[State, jax.Array], tuple[State, Step]],
    horizon: int,
    target: float,
) -> Environment:
    """An environment that starts a new episode after each that has ended. Both tasks have two actions."""

    def reset(key: jax.Array) -> tuple[State, jax.Array]:
        state = initial(key)
        return state, observe(state)

    def step(key: jax.Array, state: State, action: jax.Array) -> tuple[State, Outcome]:
        state, (final, reward, terminated, time_is_up) = transition(state, action)
        ended = terminated | time_is_up
        new = reset(jax.random.split(key)[1])
        state, observation = jax.tree.map(lambda new, old: jnp.where(ended, new, old), new, (state, final))
        return state, Outcome(observation, reward, terminated, time_is_up & ~terminated, final)

    return Environment(reset, step, 2, horizon, target)
