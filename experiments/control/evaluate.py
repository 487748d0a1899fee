"""The scores: returns over new episodes, and what a linear probe reads from the hidden units."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import runs
from experiments.control.config import Cell, Control
from experiments.control.environments import Environment
from experiments.control.model import make_net
from experiments.control.rollouts import Choose, Episodes, greedy, play, sampled, uniform
from experiments.files import read_json
from experiments.logs import read_metrics
from experiments.loop import Fitted

MONITOR = "mean_return"
VALIDATION, TEST = 1_000_000, 2_000_000
"""Added to the seed of a run, so that validations and test have different episodes."""


def make_evaluate(config: Control, cell: Cell, environment: Environment) -> Callable[[Any], dict[str, float]]:
    """The mean and the lowest return with actions drawn from the policy: among agents whose likeliest actions are all
    right, the most confident one is the best. The episodes start from the same states each time."""
    net, key = make_net(config.model, cell, environment.actions), jax.random.key(config.run.seed + VALIDATION)

    @jax.jit
    def score(params: Any) -> dict[str, jax.Array]:
        returns = play(environment, net, params, key, config.run.eval_episodes, sampled).returns
        return {MONITOR: returns.mean(), "least_return": returns.min()}

    return lambda state: {name: float(value) for name, value in score(state.params).items()}


def report(config: Control, run_dir: Path, environment: Environment, fitted: Mapping[Cell, Fitted[Any]]) -> None:
    """Scores the best checkpoint of each cell on new episodes. Writes results.json last: it marks the end."""
    from experiments.control import plots  # not at the top: a second of start-up

    played = {cell: test(config, cell, environment, run.best.params, greedy) for cell, run in fitted.items()}
    cell, run = next(iter(fitted.items()))
    at_random = test(config, cell, environment, run.best.params, uniform)
    rows = {cell: row_of(config, run_dir / cell, environment, run, played[cell]) for cell, run in fitted.items()}
    scores = {cell: row["mean_return"] for cell, row in rows.items()}
    draw_curves(run_dir / "learning_curve.png", config, [run_dir], environment.target, [scores])
    if config.data.task == "cartpole":
        probes = {cell: probe_velocities(episodes) for cell, episodes in played.items()}
        for cell, probe in probes.items():
            rows[cell] |= {"cart_velocity_explained": probe.cart, "pole_velocity_explained": probe.pole}
        shown = {cell: played[cell] for cell in (next(iter(played)), "memoryless") if cell in played}
        shares = ", ".join(f"{cell} {probes[cell].pole:.0%}" for cell in shown)
        plots.cartpole_episode(
            run_dir / "episode.png",
            shown,
            {cell: probes[cell].velocities for cell in shown},
            reward_scale=config.train.reward_scale,
            title=f"How fast the pole moves, by a linear probe of the hidden units (variance explained: {shares})",
        )
    else:
        means = ", ".join(f"{cell} {score:.2f}" for cell, score in scores.items())
        title = f"One bit, to be kept for {config.data.memory_length} steps; mean return: {means}"
        plots.memory_chain_episode(run_dir / "episode.png", played, title=title)
    runs.finish(
        run_dir,
        {f"{cell}_mean_return": score for cell, score in scores.items()},
        seed=config.run.seed,
        seconds=sum(run.seconds for run in fitted.values()),
        task=config.data.task,
        target=environment.target,
        random_mean_return=float(at_random.returns.mean()),
        cells=rows,
        environment_steps=config.train.updates * config.train.envs * config.train.time,
        test_episodes=config.run.test_episodes,
    )


def test(config: Control, cell: Cell, environment: Environment, params: Any, choose: Choose) -> Episodes:
    """The test episodes, on the host."""
    net, key = make_net(config.model, cell, environment.actions), jax.random.key(config.run.seed + TEST)
    return jax.device_get(jax.jit(lambda p: play(environment, net, p, key, config.run.test_episodes, choose))(params))


def row_of(
    config: Control, folder: Path, environment: Environment, run: Fitted[Any], played: Episodes
) -> dict[str, Any]:
    validations = validations_of(folder)
    reached = [row["step"] for row in validations if row[MONITOR] >= environment.target]
    return {
        "mean_return": float(played.returns.mean()),
        "std_over_episodes": float(played.returns.std()),
        "least_return": float(played.returns.min()),
        "best_update": run.best_step,
        "last_validation": validations[-1][MONITOR],
        "environment_steps_to_target": reached[0] * config.train.envs * config.train.time if reached else None,
        "seconds": round(run.seconds, 1),
        "parameters": runs.count(run.best.params),
    }


def validations_of(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder) if MONITOR in row]


class Probe(NamedTuple):
    """A linear estimate of unobserved quantities from the hidden units."""

    velocities: np.ndarray
    """`[episodes, time, 2]`, of the cart and of the pole."""
    cart: float
    """Share of the variance of the cart's velocity that is explained."""
    pole: float


def probe_velocities(played: Episodes) -> Probe:
    """The linear function is fitted on the second half of the episodes, and scored on the first."""
    units = np.concatenate([played.decision.hidden, np.ones_like(played.reward)[..., None]], axis=-1)
    truth = np.stack([played.state.x_dot, played.state.theta_dot], axis=-1)
    half = len(truth) // 2
    scored, fitted = played.alive.copy(), played.alive.copy()
    scored[half:] = fitted[:half] = False
    velocities = units @ np.linalg.lstsq(units[fitted], truth[fitted], rcond=None)[0]
    unexplained = np.square(velocities - truth)[scored].mean(axis=0) / truth[scored].var(axis=0)
    return Probe(velocities, *(1 - unexplained).tolist())


def draw_curves(
    path: Path, config: Control, run_dirs: Sequence[Path], target: float, scores: Sequence[Mapping[Cell, float]]
) -> None:
    """Draws the learning curves of several seeds; `scores` are the final mean returns of each."""
    from experiments.control import plots  # not at the top: a second of start-up

    validations = [
        {cell: [row[MONITOR] for row in validations_of(run_dir / cell)] for cell in config.model.cells}
        for run_dir in run_dirs
    ]
    longest = max((validations_of(run_dirs[0] / cell) for cell in config.model.cells), key=len)
    tasks = {
        "cartpole": "CartPole without its velocities",
        "memory_chain": f"MemoryChain, {config.data.memory_length} steps",
    }
    seeds = f"{len(run_dirs)} seeds" if len(run_dirs) > 1 else f"seed {config.run.seed}"
    means = [f"{cell} {round(float(np.mean([row[cell] for row in scores])), 2):g}" for cell in config.model.cells]
    title = f"{tasks[config.data.task]}, {seeds}: {', '.join(means)}"
    environment_steps = np.array([row["step"] for row in longest]) * config.train.envs * config.train.time
    plots.learning_curves(path, environment_steps, validations, target=target, title=title)


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; {run_dir / 'learning_curve.png'}, {run_dir / 'episode.png'})")
    print(f"mean return over {run['test_episodes']} episodes; target {run['target']:g}, ", end="")
    print(f"random actions {run['random_mean_return']:.2f}; {run['environment_steps']:,} environment steps")
    print(f"{'cell':<12}{'mean return':>12}{'least':>8}{'steps to target':>17}{'seconds':>9}")
    for cell, row in run["cells"].items():
        steps = row["environment_steps_to_target"]
        print(
            f"{cell:<12}{row['mean_return']:>12.2f}{row['least_return']:>8.0f}"
            f"{'never' if steps is None else f'{steps:,}':>17}{row['seconds']:>9.0f}"
        )
