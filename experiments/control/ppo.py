"""Proximal policy optimisation of a recurrent agent: rollout, advantages and updates in one step.

Reference: J. Schulman et al., *Proximal policy optimization algorithms*, arXiv 1707.06347 (2017).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments.control.agent import Decision, drawn, make_net, one_step
from experiments.control.config import Cell, Control
from experiments.control.environments import Environment


class World(NamedTuple):
    """The environments between two steps, `[envs, ...]` in every leaf."""

    state: Any
    observation: jax.Array
    fresh: jax.Array
    """Whether the observation begins an episode."""
    carry: Any
    """Of the net."""
    so_far: jax.Array
    """Return of the episode up to here."""
    returned: jax.Array
    """Return of the last episode that ended, zero before."""


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    world: World


class Transition(NamedTuple):
    """A step of the environments as it was played."""

    observation: jax.Array
    fresh: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    beyond: jax.Array
    """Where truncated, the value of what would have come next; else zero."""


class Batch(NamedTuple):
    """What a rollout teaches, `[envs, time, ...]`; the carry is that of its beginning, `[envs, ...]`."""

    carry: Any
    steps: Transition
    advantage: jax.Array
    goal: jax.Array
    """Of the value."""


def make_optimizer(config: Control) -> optax.GradientTransformation:
    steps = config.updates * config.epochs * config.minibatches
    schedule = optax.linear_schedule(config.learning_rate, 0.0, steps)
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(schedule, eps=1e-5))


def initial_state(config: Control, cell: Cell, environment: Environment, seed: jax.Array | int) -> TrainState:
    k_params, k_reset, key = jax.random.split(jax.random.key(seed), 3)
    net, envs = make_net(config, cell, environment.actions), config.envs
    state, observation = jax.vmap(environment.reset)(jax.random.split(k_reset, envs))
    params = net.init(k_params, observation[:, None])
    carry = net.initial_carry(params, observation[:, None], None)
    nothing = jnp.zeros(envs)
    world = World(state, observation, jnp.ones(envs, bool), carry, nothing, nothing)
    return TrainState(jnp.zeros((), jnp.int32), key, params, make_optimizer(config).init(params), world)


def collect(
    environment: Environment, net: rnnx.Layer, params: Any, world: World, keys: jax.Array
) -> tuple[World, Transition]:
    """Plays one step of all environments for each of the `keys`; the transitions are `[time, envs, ...]`."""
    envs = len(world.fresh)

    def step(world: World, key: jax.Array) -> tuple[World, Transition]:
        k_action, k_step = jax.random.split(key)
        carry, decision = one_step(net, params, world.carry, world.observation, world.fresh)
        action = drawn(k_action, decision.logits)
        state, outcome = jax.vmap(environment.step)(jax.random.split(k_step, envs), world.state, action)

        def value_beyond() -> jax.Array:
            return one_step(net, params, carry, outcome.last, jnp.zeros(envs, bool))[1].value

        beyond = jax.lax.cond(outcome.truncated.any(), value_beyond, lambda: jnp.zeros(envs))
        seen = Transition(
            observation=world.observation,
            fresh=world.fresh,
            action=action,
            log_prob=log_prob(decision, action),
            value=decision.value,
            reward=outcome.reward,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            beyond=jnp.where(outcome.truncated, beyond, 0),
        )
        ended, so_far = outcome.terminated | outcome.truncated, world.so_far + outcome.reward
        returned = jnp.where(ended, so_far, world.returned)
        return World(state, outcome.observation, ended, carry, jnp.where(ended, 0, so_far), returned), seen

    return jax.lax.scan(step, world, keys)


def log_prob(decision: Decision, action: jax.Array) -> jax.Array:
    return -optax.softmax_cross_entropy_with_integer_labels(decision.logits, action)


def advantages(config: Control, steps: Transition, value_after: jax.Array) -> jax.Array:
    """Generalised advantage estimation over `[time, envs]`; `value_after` `[envs]` is that of what follows.

    No credit crosses the border of two episodes. One whose time was up would have gone on, and its last step is
    credited with what was expected from there.
    """

    def back(after: tuple[jax.Array, jax.Array], step: Transition) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        advantage, value = after
        value = jnp.where(step.terminated, 0, jnp.where(step.truncated, step.beyond, value))
        surprise = config.reward_scale * step.reward + config.discount * value - step.value
        advantage = jnp.where(step.terminated | step.truncated, 0, advantage)
        advantage = surprise + config.discount * config.trace * advantage
        return (advantage, step.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(value_after), value_after), steps, reverse=True)[1]


def loss(config: Control, net: rnnx.Layer, params: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Reads the rollout again, from the carry it began with, and with the states reset where they were."""
    steps = batch.steps
    _, decision = rnnx.unroll(net, params, steps.observation, carry=batch.carry, resets=steps.fresh)
    change = log_prob(decision, steps.action) - steps.log_prob
    ratio = jnp.exp(change)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.ratio_clip, 1 + config.ratio_clip)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = jnp.square(decision.value - batch.goal).mean()
    log_probs = jax.nn.log_softmax(decision.logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1).mean()
    total = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
    metrics = {"value_loss": value_loss, "entropy": entropy, "divergence": (ratio - 1 - change).mean()}
    return total, {"loss": total, **metrics}


def make_train_step(
    config: Control, cell: Cell, environment: Environment
) -> Callable[[TrainState, None], tuple[TrainState, dict[str, jax.Array]]]:
    """One rollout and the updates by it. It can be vmapped over states: one for each seed."""
    net, optimizer = make_net(config, cell, environment.actions), make_optimizer(config)

    def update(learned: tuple[Any, Any], batch: Batch) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        params, state = learned
        gradient, metrics = jax.grad(lambda params: loss(config, net, params, batch), has_aux=True)(params)
        changes, state = optimizer.update(gradient, state, params)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        return (optax.apply_updates(params, changes), state), metrics

    def train_step(state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
        k_play, k_learn = jax.random.split(jax.random.fold_in(state.key, state.step))
        world, steps = collect(environment, net, state.params, state.world, jax.random.split(k_play, config.time))
        _, after = one_step(net, state.params, world.carry, world.observation, world.fresh)
        advantage = advantages(config, steps, after.value)
        rows = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (steps, advantage, advantage + steps.value))
        batch = Batch(state.world.carry, *rows)

        def epoch(learned: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
            parts = jax.random.permutation(key, config.envs).reshape(config.minibatches, -1)
            return jax.lax.scan(lambda c, part: update(c, jax.tree.map(lambda a: a[part], batch)), learned, parts)

        keys = jax.random.split(k_learn, config.epochs)
        (params, optimizer_state), metrics = jax.lax.scan(epoch, (state.params, state.optimizer), keys)
        shown = {name: values.mean() for name, values in metrics.items()}
        shown["train_return"] = world.returned.mean()
        return TrainState(state.step + 1, state.key, params, optimizer_state, world), shown

    return train_step
