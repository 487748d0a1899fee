"""The end of a run: scores on new episodes, pictures, results.json and the table that is printed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import config as configs
from experiments import results
from experiments.control.agent import Choose, Episodes, any_action, likeliest, make_net, play
from experiments.control.config import Cell, Control
from experiments.control.environments import Environment
from experiments.control.ppo import TrainState
from experiments.logs import read_metrics
from experiments.loop import Fitted
from experiments.published import PUBLISHED

MONITOR = "mean_return"
TEST = 2_000_000
"""Added to the seed of a run: episodes that no validation has seen."""


def report(config: Control, run_dir: Path, environment: Environment, fitted: Mapping[Cell, Fitted[TrainState]]) -> None:
    """Scores the best checkpoint of each cell on new episodes. Writes results.json last: it marks the end."""
    from experiments.control import pictures  # not at the top: a second of start-up

    played = {cell: test(config, cell, environment, run.best.params, likeliest) for cell, run in fitted.items()}
    cell, run = next(iter(fitted.items()))
    by_chance = test(config, cell, environment, run.best.params, any_action)
    rows = {cell: row_of(config, run_dir / cell, environment, run, played[cell]) for cell, run in fitted.items()}
    scores = {cell: row["mean_return"] for cell, row in rows.items()}
    draw_curves(run_dir / "learning_curve.png", config, [run_dir], environment.target, [scores])
    if config.task == "cartpole":
        told = {cell: tell_velocities(episodes) for cell, episodes in played.items()}
        for cell, told_by in told.items():
            rows[cell] |= {"cart_velocity_explained": told_by.cart, "pole_velocity_explained": told_by.pole}
        shown = {cell: played[cell] for cell in (next(iter(played)), "memoryless") if cell in played}
        shares = ", ".join(f"{cell} {told[cell].pole:.0%}" for cell in shown)
        pictures.cartpole_episode(
            run_dir / "episode.png",
            shown,
            {cell: told[cell].velocities for cell in shown},
            reward_scale=config.reward_scale,
            title=f"How fast the pole moves, told by the hidden units (share of the variance: {shares})",
        )
    else:
        means = ", ".join(f"{cell} {score:.2f}" for cell, score in scores.items())
        title = f"One bit, to be kept for {config.memory_length} steps; mean return: {means}"
        pictures.memory_chain_episode(run_dir / "episode.png", played, title=title)
    results.finish(
        run_dir,
        {f"{cell}_mean_return": score for cell, score in scores.items()},
        seed=config.seed,
        seconds=sum(run.seconds for run in fitted.values()),
        task=config.task,
        target=environment.target,
        random_mean_return=float(by_chance.returns.mean()),
        cells=rows,
        environment_steps=config.updates * config.envs * config.time,
        test_episodes=config.test_episodes,
    )


def test(config: Control, cell: Cell, environment: Environment, params: Any, choose: Choose) -> Episodes:
    """On the host."""
    net, key = make_net(config, cell, environment.actions), jax.random.key(config.seed + TEST)
    return jax.device_get(jax.jit(lambda p: play(environment, net, p, key, config.test_episodes, choose))(params))


def row_of(
    config: Control, folder: Path, environment: Environment, run: Fitted[TrainState], played: Episodes
) -> dict[str, Any]:
    validations = validations_of(folder)
    reached = [row["step"] for row in validations if row[MONITOR] >= environment.target]
    return {
        "mean_return": float(played.returns.mean()),
        "std_over_episodes": float(played.returns.std()),
        "least_return": float(played.returns.min()),
        "best_update": run.best_step,
        "last_validation": validations[-1][MONITOR],
        "environment_steps_to_target": reached[0] * config.envs * config.time if reached else None,
        "seconds": round(run.seconds, 1),
        "parameters": results.count(run.best.params),
    }


def validations_of(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder) if MONITOR in row]


class Told(NamedTuple):
    """What a linear function of the hidden units tells of what is not seen."""

    velocities: np.ndarray
    """`[episodes, time, 2]`, of the cart and of the pole."""
    cart: float
    """Share of the variance of its velocity that is explained."""
    pole: float


def tell_velocities(played: Episodes) -> Told:
    """The linear function is fitted on the second half of the episodes, and judged on the first."""
    units = np.concatenate([played.decision.hidden, np.ones_like(played.reward)[..., None]], axis=-1)
    truth = np.stack([played.state.x_dot, played.state.theta_dot], axis=-1)
    half = len(truth) // 2
    judged, fitted = played.alive.copy(), played.alive.copy()
    judged[half:] = fitted[:half] = False
    velocities = units @ np.linalg.lstsq(units[fitted], truth[fitted], rcond=None)[0]
    unexplained = np.square(velocities - truth)[judged].mean(axis=0) / truth[judged].var(axis=0)
    return Told(velocities, *(1 - unexplained).tolist())


def draw_curves(
    path: Path, config: Control, run_dirs: Sequence[Path], target: float, scores: Sequence[Mapping[Cell, float]]
) -> None:
    """Of several seeds; `scores` are the mean returns that each ended with."""
    from experiments.control import pictures  # not at the top: a second of start-up

    runs = []
    for run_dir in run_dirs:
        rows = {cell: validations_of(run_dir / cell) for cell in config.cells}
        runs.append({cell: np.array([row[MONITOR] for row in found]) for cell, found in rows.items()})
    steps = np.array([row["step"] for row in rows[config.cells[0]]]) * config.envs * config.time
    tasks = {
        "cartpole": "CartPole without its velocities",
        "memory_chain": f"MemoryChain, {config.memory_length} steps",
    }
    means = {cell: float(np.mean([score[cell] for score in scores])) for cell in config.cells}
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else f"seed {config.seed}"
    title = f"{tasks[config.task]}, {seeds}: " + ", ".join(f"{cell} {round(mean, 2):g}" for cell, mean in means.items())
    pictures.learning_curves(path, steps, runs, target=target, title=title)


def show(run_dir: Path, name: str) -> None:
    run = configs.read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; {run_dir / 'learning_curve.png'}, {run_dir / 'episode.png'})")
    print(f"mean return over {run['test_episodes']} episodes; target {run['target']:g}, ", end="")
    print(f"random actions {run['random_mean_return']:.2f}; {run['environment_steps']:,} environment steps")
    print(f"{'cell':<12}{'mean return':>12}{'least':>8}{'steps to target':>17}{'seconds':>9}  published")
    for cell, row in run["cells"].items():
        steps = row["environment_steps_to_target"]
        published = PUBLISHED.get(("control", name, f"{cell}_mean_return"), [])
        print(
            f"{cell:<12}{row['mean_return']:>12.2f}{row['least_return']:>8.0f}"
            f"{'never' if steps is None else f'{steps:,}':>17}{row['seconds']:>9.0f}  "
            + ("; ".join(f"{p.figure:g} ({p.source})" for p in published) or "-")
        )
