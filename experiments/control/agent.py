"""The net that sees, remembers and acts, and the episodes that it plays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.control.config import Cell, Control
from experiments.control.environments import Environment


class Decision(NamedTuple):
    """What the net puts out at each step."""

    logits: jax.Array
    """`[..., actions]`."""
    value: jax.Array
    """`[...]`, the discounted reward that it expects from here on."""
    hidden: jax.Array
    """`[..., width]`, the output of the cell."""


def make_net(config: Control, cell: Cell, actions: int) -> rnnx.Layer:
    """Observations `[batch, time, features]` to Decisions."""
    width, tanh = config.width, rnnx.pointwise(jnp.tanh)
    cells: dict[Cell, Callable[[], rnnx.Layer]] = {
        "gru": lambda: rnnx.gru(width),
        "lstm": lambda: rnnx.lstm(width),
        "min_gru": lambda: rnnx.min_gru(width),
        "memoryless": lambda: rnnx.stack(nn.Dense(width), tanh),
    }
    # A policy that begins near to even odds tries everything.
    policy = nn.Dense(actions, kernel_init=nn.initializers.orthogonal(0.01))
    value = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))

    def decide(logits: jax.Array, value: jax.Array, hidden: jax.Array) -> Decision:
        return Decision(logits, value[..., 0], hidden)

    heads = rnnx.parallel(policy, value, rnnx.pointwise(lambda hidden: hidden), merge=decide)
    return rnnx.stack(nn.Dense(width), tanh, cells[cell](), heads)


def one_step(
    net: rnnx.Layer, params: Any, carry: Any, observation: jax.Array, fresh: jax.Array
) -> tuple[Any, Decision]:
    """A step of each row: observation `[batch, features]`, and whether it begins an episode, `[batch]`."""
    carry, decision = rnnx.unroll(net, params, observation[:, None], carry=carry, resets=fresh[:, None])
    return carry, jax.tree.map(lambda a: a[:, 0], decision)


Choose = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, logits [batch, actions]) -> actions [batch]`."""


def likeliest(key: jax.Array, logits: jax.Array) -> jax.Array:
    return logits.argmax(axis=-1)


def drawn(key: jax.Array, logits: jax.Array) -> jax.Array:
    return jax.random.categorical(key, logits)


def any_action(key: jax.Array, logits: jax.Array) -> jax.Array:
    """Does not ask the net."""
    return jax.random.randint(key, logits.shape[:-1], 0, logits.shape[-1])


class Episodes(NamedTuple):
    """Each row an episode, `[episodes, horizon, ...]`; what comes after its end is of no account."""

    state: Any
    """Of the environment, hidden things included."""
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
        seen = Episodes(state, observation, action, decision, reward, alive)
        return (after, outcome.observation, carry, alive & ~(outcome.terminated | outcome.truncated)), seen

    keys = jax.random.split(k_play, environment.horizon)
    _, seen = jax.lax.scan(step, (state, observation, carry, jnp.ones(episodes, bool)), keys)
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), seen)
