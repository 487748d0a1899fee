"""A run from its config to its results: proximal policy optimization (PPO) of a recurrent agent.

Reference: J. Schulman et al., *Proximal policy optimization algorithms*, arXiv 1707.06347 (2017).
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments.config import load
from experiments.control.config import Cell, Control, Train
from experiments.control.environments import Environment, make_environment
from experiments.control.evaluate import MONITOR, make_evaluate, report, show
from experiments.control.model import make_net, one_step
from experiments.control.rollouts import Players, Transition, collect, log_prob
from experiments.loop import Fitted, Plan, fit
from experiments.runs import open_run_dir, show_finished

COLUMNS = {"return": lambda metrics: f"{metrics['train_return']:.2f}"}


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    players: Players


class Batch(NamedTuple):
    """A rollout to learn from, `[envs, time, ...]`; the carry is the one at its beginning, `[envs, ...]`."""

    carry: Any
    steps: Transition
    advantage: jax.Array
    value_target: jax.Array


def make_optimizer(train: Train) -> optax.GradientTransformation:
    schedule = optax.linear_schedule(train.learning_rate, 0.0, train.updates * train.epochs * train.minibatches)
    return optax.chain(optax.clip_by_global_norm(train.clip), optax.adam(schedule, eps=1e-5))


def initial_state(config: Control, cell: Cell, environment: Environment, seed: jax.Array | int) -> TrainState:
    k_params, k_reset, key = jax.random.split(jax.random.key(seed), 3)
    net, envs = make_net(config.model, cell, environment.actions), config.train.envs
    state, observation = jax.vmap(environment.reset)(jax.random.split(k_reset, envs))
    params = net.init(k_params, observation[:, None])
    carry = net.initial_carry(params, observation[:, None], None)
    zero = jnp.zeros(envs)
    players = Players(state, observation, jnp.ones(envs, bool), carry, zero, zero)
    return TrainState(jnp.zeros((), jnp.int32), key, params, make_optimizer(config.train).init(params), players)


def advantages(train: Train, steps: Transition, value_after: jax.Array) -> jax.Array:
    """Generalized advantage estimation over `[time, envs]`; `value_after` `[envs]` is the value of what follows.

    No credit crosses from one episode to the next. A truncated episode would have gone on, so its last step is credited
    with the value expected from there.
    """

    def back(after: tuple[jax.Array, jax.Array], step: Transition) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        advantage, value = after
        value = jnp.where(step.terminated, 0, jnp.where(step.truncated, step.bootstrap, value))
        error = train.reward_scale * step.reward + train.discount * value - step.value
        advantage = jnp.where(step.terminated | step.truncated, 0, advantage)
        advantage = error + train.discount * train.trace * advantage
        return (advantage, step.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(value_after), value_after), steps, reverse=True)[1]


def loss(train: Train, net: rnnx.Layer, params: Any, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Reads the rollout again, from the carry it began with, and with the states reset at the same steps."""
    steps = batch.steps
    _, decision = rnnx.unroll(net, params, steps.observation, carry=batch.carry, resets=steps.start)
    change = log_prob(decision, steps.action) - steps.log_prob
    ratio = jnp.exp(change)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - train.ratio_clip, 1 + train.ratio_clip)
    policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = jnp.square(decision.value - batch.value_target).mean()
    log_probs = jax.nn.log_softmax(decision.logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1).mean()
    total = policy_loss + train.value_weight * value_loss - train.entropy_weight * entropy
    metrics = {"value_loss": value_loss, "entropy": entropy, "divergence": (ratio - 1 - change).mean()}
    return total, {"loss": total, **metrics}


def make_train_step(
    config: Control, cell: Cell, environment: Environment
) -> Callable[[TrainState, None], tuple[TrainState, dict[str, jax.Array]]]:
    """One rollout and the updates from it. It can be vmapped over states, one for each seed."""
    train = config.train
    net, optimizer = make_net(config.model, cell, environment.actions), make_optimizer(train)

    def update(learned: tuple[Any, Any], batch: Batch) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        params, state = learned
        gradient, metrics = jax.grad(lambda params: loss(train, net, params, batch), has_aux=True)(params)
        changes, state = optimizer.update(gradient, state, params)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        return (optax.apply_updates(params, changes), state), metrics

    def train_step(state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
        k_play, k_learn = jax.random.split(jax.random.fold_in(state.key, state.step))
        players, steps = collect(environment, net, state.params, state.players, jax.random.split(k_play, train.time))
        _, after = one_step(net, state.params, players.carry, players.observation, players.start)
        advantage = advantages(train, steps, after.value)
        rows = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (steps, advantage, advantage + steps.value))
        batch = Batch(state.players.carry, *rows)

        def epoch(learned: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
            parts = jax.random.permutation(key, train.envs).reshape(train.minibatches, -1)
            return jax.lax.scan(lambda c, part: update(c, jax.tree.map(lambda a: a[part], batch)), learned, parts)

        keys = jax.random.split(k_learn, train.epochs)
        (params, optimizer_state), metrics = jax.lax.scan(epoch, (state.params, state.optimizer), keys)
        shown = {name: values.mean() for name, values in metrics.items()}
        shown["train_return"] = players.last_return.mean()
        return TrainState(state.step + 1, state.key, params, optimizer_state, players), shown

    return train_step


def fit_one(config: Control, environment: Environment, run_dir: Path, cell: Cell) -> Fitted[TrainState]:
    folder, train = run_dir / cell, config.train
    steps = train.envs * train.time
    print(
        f"{cell}: {train.updates * steps:,} steps of {train.envs} environments in all. Run folder: {folder}", flush=True
    )
    return fit(
        folder,
        functools.partial(initial_state, config, cell, environment, config.run.seed),
        make_train_step(config, cell, environment),
        None,
        make_evaluate(config, cell, environment),
        Plan.of(config, monitor=MONITOR, higher_is_better=True, items="environment steps", items_per_step=steps),
        COLUMNS,
    )


def main(args: Sequence[str]) -> None:
    config = load(Control, args)
    run_dir = open_run_dir(config)
    if show_finished(run_dir, show):
        return
    environment = make_environment(config.data)
    fitted = {cell: fit_one(config, environment, run_dir, cell) for cell in config.model.cells}
    report(config, run_dir, environment, fitted)
    show(run_dir)
