"""Seeds and learning rates side by side: one compiled step trains all of them, and a plot shows which rate works.

python examples/sweep.py --out sweep.png

The task is the adding problem: output the sum of the two marked numbers of a sequence. Guessing 1 has a loss of 0.167.
"""

import argparse
import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import optax

import rnnx

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
GUESS = 1 / 6

model = rnnx.stack(rnnx.lstm(32), nn.Dense(1))
# With a learning rate that is part of the state, one optimiser serves all.
optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)


def draw(key: jax.Array, batch: int, time: int) -> tuple[jax.Array, jax.Array]:
    """Inputs `[batch, time, 2]`, numbers and marks, and targets `[batch]`."""
    k_numbers, k_first, k_second = jax.random.split(key, 3)
    numbers = jax.random.uniform(k_numbers, (batch, time))
    half = time // 2
    first = jax.random.randint(k_first, (batch,), 0, half)
    second = jax.random.randint(k_second, (batch,), half, time)
    marks = jax.nn.one_hot(first, time) + jax.nn.one_hot(second, time)
    return jnp.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1)


def start(seed: jax.Array, rate: jax.Array):
    params = model.init(jax.random.key(seed), jnp.zeros((1, 1, 2)))
    state = optimizer.init(params)
    state.hyperparams["learning_rate"] = rate
    return params, state


def train_step(params, state, key: jax.Array, batch: int, time: int):
    xs, targets = draw(key, batch, time)

    def loss(params):
        _, ys = rnnx.unroll(model, params, xs)
        return jnp.square(ys[:, -1, 0] - targets).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


def main(steps: int, seeds: int, batch: int, time: int, out: Path) -> np.ndarray:
    """Losses `[rates, seeds, steps]`."""
    grid = jnp.meshgrid(jnp.array(RATES), jnp.arange(seeds), indexing="ij")
    params, state = jax.vmap(jax.vmap(start))(grid[1], grid[0])
    one = functools.partial(train_step, batch=batch, time=time)
    # The members of a seed, whatever their rate, see the same batches.
    all_members = jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, 0, 0)), in_axes=(0, 0, None)), donate_argnums=(0, 1))
    losses = []
    for step in range(1, steps + 1):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), seeds)
        params, state, value = all_members(params, state, keys)
        losses.append(np.asarray(value))
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}: median loss", np.round(np.median(losses[-1], axis=1), 4), "at rates", RATES)
    curves = np.stack(losses, axis=-1)
    plot(curves, out)
    return curves


def plot(losses: np.ndarray, out: Path) -> None:
    figure, (curves, last) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    window = max(1, losses.shape[-1] // 50)
    smooth = losses[..., : losses.shape[-1] // window * window].reshape(*losses.shape[:2], -1, window).mean(axis=-1)
    steps = (np.arange(smooth.shape[-1]) + 1) * window
    for i, rate in enumerate(RATES):
        curves.plot(steps, np.median(smooth[i], axis=0), color=f"C{i}", label=f"{rate:g}")
        curves.fill_between(steps, smooth[i].min(axis=0), smooth[i].max(axis=0), color=f"C{i}", alpha=0.2)
        last.plot([rate] * losses.shape[1], smooth[i, :, -1], "o", color=f"C{i}", alpha=0.6)
    for axes in (curves, last):
        axes.axhline(GUESS, color="gray", linestyle=":", label="guessing 1")
        axes.set_yscale("log")
    curves.set(xlabel="step", ylabel="mean squared error", title="median and range over seeds")
    curves.legend(title="learning rate")
    last.set(xlabel="learning rate", xscale="log", title="at the end, every seed")
    figure.savefig(out, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--time", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("sweep.png"))
    main(**vars(parser.parse_args()))
