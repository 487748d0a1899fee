"""A quantile forecaster: how much will be used in each of the next 24 hours, and how certain is that?

python examples/quantile_forecast.py --out forecast.png

The series is hourly, with a daily and a weekly cycle and noise that is larger by day. A GRU reads 3 days, and a head
gives nine quantiles of each next hour, trained with the pinball loss. A quantile is calibrated if its level is the
part of the outcomes below it: see the right plot. A naive forecast, the same hours a week earlier, is scored as well.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnx

CONTEXT, HORIZON, WEEK = 72, 24, 168
LEVELS = np.array([0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95])


def make_series(rng: np.random.Generator, hours: int) -> np.ndarray:
    t = np.arange(hours)
    day = np.maximum(np.sin(2 * np.pi * (t / 24 - 0.3)), -0.5)
    level = 1 + 0.8 * day * np.where(t % WEEK < 120, 1.0, 0.5)
    drift = np.zeros(hours)
    for i, shock in enumerate(rng.normal(0, 0.05, hours)):
        drift[i] = 0.97 * drift[i - 1] + shock
    return (level + drift + rng.normal(0, 1, hours) * (0.05 + 0.15 * (day > 0))).astype(np.float32)


def features(series: np.ndarray) -> np.ndarray:
    """The value, and the hours of the day and of the week as angles, `[hours, 5]`."""
    t = np.arange(len(series))[:, None] * 2 * np.pi / np.array([24, WEEK])
    return np.concatenate([series[:, None], np.sin(t), np.cos(t)], axis=1).astype(np.float32)


encoder = rnnx.stack(rnnx.gru(32), rnnx.dropout(0.1))
head = nn.Dense(HORIZON * len(LEVELS))
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))


def forecast(params, xs: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Quantiles `[batch, horizon, levels]` of what follows xs `[batch, context, 5]`."""
    _, ys = rnnx.unroll(encoder, params["encoder"], xs, key=key)
    out = head.apply(params["head"], ys[:, -1]).reshape(-1, HORIZON, len(LEVELS))
    steps = jnp.concatenate([out[..., :1], 0.2 * jax.nn.softplus(out[..., 1:])], axis=-1)
    return jnp.cumsum(steps, axis=-1)  # of positive numbers, so quantiles never cross


def pinball(quantiles: jax.Array, outcomes: jax.Array) -> jax.Array:
    """Smallest where a part of `level` of the outcomes lies below; at level 0.5, half of the absolute error."""
    error = outcomes[..., None] - quantiles
    return jnp.maximum(LEVELS * error, (LEVELS - 1) * error).mean()


@jax.jit
def train_step(params, state, xs: jax.Array, outcomes: jax.Array, key: jax.Array):
    value, gradient = jax.value_and_grad(lambda p: pinball(forecast(p, xs, key), outcomes))(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


def main(steps: int, batch: int, out: Path) -> tuple[float, float, np.ndarray]:
    """The pinball losses of the net and of the naive forecast, and the part of the outcomes below each quantile."""
    rng = np.random.default_rng(0)
    series = make_series(rng, 3 * 365 * 24)
    inputs, test = features(series), len(series) - 60 * 24  # the last 60 days are not learned from

    def windows(starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return inputs[starts[:, None] + np.arange(CONTEXT)], series[starts[:, None] + CONTEXT + np.arange(HORIZON)]

    k_encoder, k_head, k_noise = jax.random.split(jax.random.key(0), 3)
    params = {"encoder": encoder.init(k_encoder, inputs[None, :CONTEXT]), "head": head.init(k_head, jnp.zeros((1, 32)))}
    state = optimizer.init(params)
    for step in range(1, steps + 1):
        drawn = windows(rng.integers(0, test - CONTEXT - HORIZON, batch))
        params, state, loss = train_step(params, state, *drawn, jax.random.fold_in(k_noise, step))
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}: pinball loss {loss:.4f}")

    starts = np.arange(test, len(series) - CONTEXT - HORIZON + 1, 6)
    xs, outcomes = windows(starts)
    quantiles = jax.jit(forecast)(params, xs)
    week_before = series[starts[:, None] + CONTEXT - WEEK + np.arange(HORIZON)][..., None]
    scores = [float(pinball(q, outcomes)) for q in (quantiles, week_before)]
    below = np.asarray((outcomes[..., None] < quantiles).mean(axis=(0, 1)))
    print(f"pinball loss in the last 60 days: {scores[0]:.4f}; naive: {scores[1]:.4f}")
    print("part of the outcomes below:", ", ".join(f"{b:.0%} ({q:.0%})" for b, q in zip(below, LEVELS)))
    plot(series[starts[0] : starts[0] + CONTEXT], outcomes[0], np.asarray(quantiles[0]), below, out)
    return *scores, below


def plot(read: np.ndarray, outcome: np.ndarray, quantiles: np.ndarray, below: np.ndarray, out: Path) -> None:
    figure, after = Figure(figsize=(11, 3.5), layout="constrained"), np.arange(HORIZON)
    fan, calibration = figure.subplots(1, 2, width_ratios=(2, 1))
    fan.plot(np.arange(-CONTEXT, 0), read, color="black")
    for i in range(len(LEVELS) // 2):
        fan.fill_between(after, quantiles[:, i], quantiles[:, -1 - i], color="C0", alpha=0.2, linewidth=0)
    fan.plot(after, quantiles[:, len(LEVELS) // 2], color="C0", label="median, and the middle 20, 50, 80 and 90 %")
    fan.plot(after, outcome, color="black", linestyle=":", label="what came")
    fan.set(xlabel="hours from now", ylabel="use")
    fan.legend(loc="upper left")
    calibration.plot([0, 1], [0, 1], color="gray", linestyle=":")
    calibration.plot(LEVELS, below, "o-")
    calibration.set(xlabel="level of a quantile", ylabel="part of the outcomes below")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("forecast.png"))
    main(**vars(parser.parse_args()))
