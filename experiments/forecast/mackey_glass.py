"""The Mackey-Glass series by echo-state networks in float64, with a readout in closed form: nothing is trained."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from experiments import runs
from experiments.files import read_json
from experiments.forecast.config import MackeyGlass, Reservoir
from experiments.runs import open_run_dir, show_finished


class Parts(NamedTuple):
    """Squashed series: `train` `[time]`, the others `[sequences, time]`; networks read the washout of the latter."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


SUBSTEPS = 10
"""Steps of the discretisation for each value of the series."""


def mackey_glass(seed: int, sequences: int, length: int, tau: int, settle: int = 1000) -> np.ndarray:
    """`[sequences, length]`: y' = 0.2 y(t - tau) / (1 + y(t - tau)^10) - 0.1 y in steps of 1/10, every tenth kept.

    Each begins from its own random history, near 1.2; the first `settle` values are dropped, to forget it.
    """
    delay = tau * SUBSTEPS
    history = 1.2 + 0.2 * (np.random.RandomState(seed).uniform(size=(delay, sequences)) - 0.5)

    def euler(state: Any, i: jax.Array) -> tuple[Any, jax.Array]:
        past, y = state  # `past` is a ring buffer: index i % delay holds the value of `delay` steps ago
        late = past[i % delay]
        following = y + (0.2 * late / (1 + late**10) - 0.1 * y) / SUBSTEPS
        return (past.at[i % delay].set(y), following), following

    count = (settle + length) * SUBSTEPS
    _, ys = jax.jit(lambda start: jax.lax.scan(euler, start, jnp.arange(count)))((history, history[-1]))
    return np.asarray(ys[::SUBSTEPS][settle:]).T


def squash(y: np.ndarray) -> np.ndarray:
    return np.tanh(y - 1)


def make_layers(model: Reservoir, seed: int) -> tuple[rnnx.Layer, rnnx.Layer]:
    """Two layers: from the last value `[..., 1]` to the states that the readout sees, and to the next value."""
    reservoir = rnnx.reservoir(
        model.width,
        leak=model.rate * model.decay,
        spectral_radius=model.spectral_radius / model.decay,
        density=model.density,
        input_scale=model.feedback_scale,
        bias_scale=model.bias_scale,
        seed=seed,
        state_dtype=jnp.float64,
    )
    squares = rnnx.pointwise(lambda h: jnp.concatenate([h, h**2], axis=-1))
    states = rnnx.stack(reservoir, squares) if model.squares else reservoir
    return states, rnnx.stack(states, nn.Dense(1, param_dtype=jnp.float64))


def readouts(states: jax.Array, targets: jax.Array, ridges: tuple[float, ...]) -> list[dict[str, jax.Array]]:
    """The params of the Dense for each ridge: least squares of `targets` `[time]` on `states` `[time, features]`.

    It uses singular values, as the products of states, `states.T @ states`, would lose half of the digits.
    """
    u, s, vt = jnp.linalg.svd(jnp.pad(states, ((0, 0), (0, 1)), constant_values=1), full_matrices=False)
    along = u.T @ targets
    weights = [vt.T @ (along * s / (s**2 + ridge * s[0] ** 2)) for ridge in ridges]
    return [{"kernel": w[:-1, None], "bias": w[-1:]} for w in weights]


def nrmse(truth: np.ndarray, forecasts: np.ndarray) -> np.ndarray:
    """`[sequences, steps]` to `[steps]`: root mean squared errors over the standard deviation of the truth."""
    return np.sqrt(np.mean((forecasts - truth) ** 2, axis=0)) / truth.std()


def make_rollout(config: MackeyGlass, network: rnnx.Layer, heard: jax.Array) -> Callable[[Any], np.ndarray]:
    """A function of the params: the network's own forecast after it has `heard` `[sequences, time]`."""
    # The states do not depend on the readout, so they are computed once for all ridges.
    xs = heard[..., None]
    untrained = network.init(jax.random.key(0), xs[:, :2])
    carry, _ = jax.jit(lambda: rnnx.unroll(network, untrained, xs[:, :-1]))()

    @jax.jit
    def run(params: Any) -> jax.Array:
        steps = config.data.steps_ahead
        return rnnx.generate(network, params, carry, xs[:, -1], steps=steps, sample=lambda key, y: y)[1][..., 0]

    return lambda params: np.asarray(run(params))


def one_network(config: MackeyGlass, seed: int, data: Parts) -> dict[str, Any]:
    """Its ridge, chosen on validation series, and its rollouts over the test series."""
    states, network = make_layers(config.model, seed)
    xs = jnp.asarray(data.train)[None, :-1, None]
    ys = jax.jit(lambda xs: rnnx.unroll(states, states.init(jax.random.key(0), xs), xs)[1][0])(xs)
    fits = readouts(ys[config.data.washout :], jnp.asarray(data.train[config.data.washout + 1 :]), config.model.ridges)
    dense = [{**network.init(jax.random.key(0), xs[:, :2]), "1_Dense": fitted} for fitted in fits]

    heard, truth = np.split(data.validation, [config.data.washout], axis=1)
    validate = make_rollout(config, network, jnp.asarray(heard))
    errors = [nrmse(truth, validate(params))[-1] for params in dense]
    best = int(np.nanargmin(errors))
    heard, truth = np.split(data.test, [config.data.washout], axis=1)
    rollouts = make_rollout(config, network, jnp.asarray(heard))(dense[best])
    return {
        "ridge": config.model.ridges[best],
        "validation": errors[best],
        "rollouts": rollouts,
        "errors": nrmse(truth, rollouts),
    }


def load_data(config: MackeyGlass) -> Parts:
    """The three parts come from different seeds, so that they are independent."""
    length = config.data.washout + config.data.steps_ahead
    seeds = np.random.RandomState(config.run.seed).randint(2**31, size=3)
    return Parts(
        squash(mackey_glass(seeds[0], 1, config.data.washout + config.data.train + 1, config.data.tau)[0]),
        squash(mackey_glass(seeds[1], config.data.sequences, length, config.data.tau)),
        squash(mackey_glass(seeds[2], 2 * config.data.sequences, length, config.data.tau)),
    )


def run(config: MackeyGlass) -> None:
    run_dir = open_run_dir(config)
    if show_finished(run_dir, show):
        return
    started = time.monotonic()
    with jax.enable_x64(True):
        data = load_data(config)
        networks = []
        for n in range(config.model.networks):
            networks.append(one_network(config, config.run.seed * config.model.networks + n, data))
            row = networks[-1]
            print(
                f"network {n + 1} of {config.model.networks}: NRMSE after {config.data.steps_ahead} steps "
                f"{row['errors'][-1]:.2e} (validation {row['validation']:.2e} with ridge {row['ridge']:g}), "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
    report(config, run_dir, data, networks, time.monotonic() - started)
    show(run_dir)


def report(config: MackeyGlass, run_dir: Path, data: Parts, networks: Sequence[dict[str, Any]], seconds: float) -> None:
    from experiments.forecast import plots  # not at the top: a second of start-up

    errors = np.stack([row["errors"] for row in networks])
    truth = data.test[:, config.data.washout :]
    median = int(np.argsort(errors[:, -1])[len(errors) // 2])
    plots.rollout(run_dir / "rollout.png", truth[0], networks[median]["rollouts"][0], errors)
    # Jaeger's series is tanh(y - 1), as it is here; the inverse gives y.
    unsquashed = [nrmse(np.arctanh(truth), np.arctanh(row["rollouts"]))[-1] for row in networks]
    runs.finish(
        run_dir,
        {f"median_nrmse{config.data.steps_ahead}": np.median(errors[:, -1])},
        seed=config.run.seed,
        seconds=seconds,
        steps_ahead=config.data.steps_ahead,
        networks=[
            {"nrmse": row["errors"][-1], "validation_nrmse": row["validation"], "ridge": row["ridge"]}
            for row in networks
        ],
        nrmse_one_step=np.median(errors[:, 0]),
        median_nrmse_of_y=np.median(unsquashed),
        train=config.data.train,
        test_series=len(truth),
        readout_numbers=(2 if config.model.squares else 1) * config.model.width + 1,
    )


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    errors = sorted(row["nrmse"] for row in run["networks"])
    print(f"--- results ({run_dir / 'results.json'}; plot: {run_dir / 'rollout.png'})")
    print(
        f"NRMSE after {run['steps_ahead']} steps of free-running forecast, over {run['test_series']} series: median of "
        f"{len(errors)} networks {next(iter(run['scores'].values())):.2e}, from {errors[0]:.2e} to {errors[-1]:.2e}"
    )
    print("Jaeger, GMD Report 148 (tau 17, 84 steps): 2.8e-04 with 3,000 training steps, 1.2e-04 with 21,000")
