"""Recurrent PPO in Flax linen: an agent that has to remember what it saw at the beginning of an episode.

python examples/recurrent_ppo.py

A T-maze: the first observation says which arm holds the reward, the corridor says nothing, and at its end the agent
chooses an arm: +1 for the correct one, -1 for the other. Without memory the mean return is 0 at best.
Reference: J. Schulman et al., *Proximal policy optimization algorithms*, arXiv 1707.06347 (2017).
"""

import argparse
import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import rnnx

CORRIDOR, TIME, EPOCHS, MINIBATCHES, DISCOUNT, TRACE, CLIP = 8, 32, 4, 4, 0.99, 0.95, 0.2


class Agent(nn.Module):  # observations [batch, time, 3] to logits [batch, time, 2] and values [batch, time]
    @nn.compact
    def __call__(self, xs, resets, carry=None):
        carry, ys = rnnx.linen.RNN(rnnx.gru(32))(nn.tanh(nn.Dense(32)(xs)), carry=carry, resets=resets)
        return carry, nn.Dense(2)(ys), nn.Dense(1)(ys)[..., 0]


Maze = collections.namedtuple("Maze", "arm position")  # [envs] each
# What was seen and done, [time, envs, ...]; an episode begins at `first`: the memory is cleared before that step.
Step = collections.namedtuple("Step", "seen first action log_prob value reward done")
agent = Agent()
optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(3e-3))


def observe(maze: Maze) -> jax.Array:
    cue = jax.nn.one_hot(maze.arm, 2) * (maze.position == 0)[:, None]
    return jnp.concatenate([cue, (maze.position == CORRIDOR)[:, None]], axis=-1)


def move(maze: Maze, action: jax.Array, key: jax.Array):
    done = maze.position == CORRIDOR
    reward = jnp.where(done, jnp.where(action == maze.arm, 1.0, -1.0), 0.0)
    arm = jnp.where(done, jax.random.randint(key, maze.arm.shape, 0, 2), maze.arm)
    return Maze(arm, jnp.where(done, 0, maze.position + 1)), reward, done


def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    return -optax.softmax_cross_entropy_with_integer_labels(logits, action)


def play(params, players, key: jax.Array):
    """One step of every environment: a sequence of one step, with the carry passed on."""
    (carry, maze, first), (k_action, k_maze) = players, jax.random.split(key)
    seen = observe(maze)
    carry, logits, value = agent.apply(params, seen[:, None], first[:, None], carry)
    action = jax.random.categorical(k_action, logits[:, 0])
    maze, reward, done = move(maze, action, k_maze)
    return (carry, maze, done), Step(seen, first, action, log_prob(logits[:, 0], action), value[:, 0], reward, done)


def advantages(steps: Step, last_value: jax.Array) -> jax.Array:
    """Generalised advantage estimation, [time, envs]: nothing is credited across the end of an episode."""

    def back(after, step: Step):
        advantage, value = jax.tree.map(lambda a: jnp.where(step.done, 0, a), after)
        advantage = step.reward + DISCOUNT * (value + TRACE * advantage) - step.value
        return (advantage, step.value), advantage

    return jax.lax.scan(back, (jnp.zeros_like(last_value), last_value), steps, reverse=True)[1]


def loss(params, carry, steps: Step, advantage: jax.Array) -> jax.Array:
    """Reads whole rows [envs, time, ...] again, from the carry that the rollout began with."""
    _, logits, value = agent.apply(params, steps.seen, steps.first, carry)
    ratio = jnp.exp(log_prob(logits, steps.action) - steps.log_prob)
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * scaled).mean()
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1).mean()
    return 0.5 * jnp.square(value - steps.value - advantage).mean() - policy - 0.01 * entropy


@jax.jit
def update(params, state, players, key: jax.Array):
    (k_play, k_learn), start = jax.random.split(key), players[0]
    players, steps = jax.lax.scan(lambda p, k: play(params, p, k), players, jax.random.split(k_play, TIME))
    _, after = play(params, players, key)  # for the value of what comes next
    rows = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (steps, advantages(steps, after.value)))

    def minibatch(learned, envs):
        params, state = learned
        batch = jax.tree.map(lambda a: a[envs], (start, *rows))
        changes, state = optimizer.update(jax.grad(loss)(params, *batch), state)
        return (optax.apply_updates(params, changes), state), None

    order = jnp.concatenate([jax.random.permutation(k, len(players[2])) for k in jax.random.split(k_learn, EPOCHS)])
    learned, _ = jax.lax.scan(minibatch, (params, state), order.reshape(EPOCHS * MINIBATCHES, -1))
    return *learned, players, steps.reward.sum() / steps.done.sum()


def main(updates: int, envs: int) -> float:
    k_params, k_arm, k_play = jax.random.split(jax.random.key(0), 3)
    maze = Maze(jax.random.randint(k_arm, (envs,), 0, 2), jnp.zeros(envs, jnp.int32))
    first = jnp.ones(envs, bool)
    (carry, *_), params = agent.init_with_output(k_params, observe(maze)[:, None], first[:, None])
    state, players = optimizer.init(params), (carry, maze, first)
    for number, key in enumerate(jax.random.split(k_play, updates), 1):
        params, state, players, mean_return = update(params, state, players, key)
        if number % 10 == 0 or number == updates:
            print(f"update {number}/{updates}: mean return {mean_return:.2f}")
    return float(mean_return)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--envs", type=int, default=64)
    main(**vars(parser.parse_args()))
