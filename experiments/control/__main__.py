"""Command line: train, or draw more of runs that were trained."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import command, results
from experiments import config as configs
from experiments.checkpoints import Checkpoints
from experiments.control.agent import drawn, likeliest, make_net, play
from experiments.control.config import Cell, Control, check
from experiments.control.environments import Environment, make_environment
from experiments.control.ppo import TrainState, initial_state, make_train_step
from experiments.control.reports import MONITOR, draw_curves, report, show, test
from experiments.errors import UserError
from experiments.loop import Plan, fit

COMMAND = "python -m experiments.control"
CONFIGS = Path("configs/control")
COLUMNS = {"return": lambda metrics: f"{metrics['train_return']:.2f}"}
VALIDATION = 1_000_000
"""Added to the seed of a run: episodes of their own."""


def make_evaluate(config: Control, cell: Cell, environment: Environment) -> Callable[[TrainState], dict[str, float]]:
    """The mean and the least return with actions drawn from the policy: among agents whose likeliest actions are all
    right, the surest is the best. The episodes begin alike each time."""
    net, key = make_net(config, cell, environment.actions), jax.random.key(config.seed + VALIDATION)

    @jax.jit
    def score(params: Any) -> dict[str, jax.Array]:
        returns = play(environment, net, params, key, config.eval_episodes, drawn).returns
        return {MONITOR: returns.mean(), "least_return": returns.min()}

    return lambda state: {name: float(value) for name, value in score(state.params).items()}


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Control(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, configs.settings(config))
    if results.show_finished(run_dir, lambda: show(run_dir, name)):
        return

    environment = make_environment(config)
    fitted = {}
    for cell in config.cells:
        folder = run_dir / cell
        folder.mkdir(exist_ok=True)
        steps = config.updates * config.envs * config.time
        print(f"{cell}: {steps:,} steps of {config.envs} environments in all. Run folder: {folder}", flush=True)
        fitted[cell] = fit(
            folder,
            functools.partial(initial_state, config, cell, environment, config.seed),
            make_train_step(config, cell, environment),
            None,
            make_evaluate(config, cell, environment),
            Plan(
                steps=config.updates,
                eval_every=config.eval_every,
                log_every=config.log_every,
                monitor=MONITOR,
                higher_is_better=True,
                items="environment steps",
                items_per_step=config.envs * config.time,
            ),
            COLUMNS,
        )
    report(config, run_dir, environment, fitted)
    show(run_dir, name)


@dataclasses.dataclass(frozen=True)
class Curves:
    """Draws the learning curves of several seeds of a config into one picture."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The run folders."""
    path: Path = Path("runs/control/curves.png")
    """The picture."""


def curves_command(args: Sequence[str]) -> None:
    options = configs.parse(Curves, args, command=f"{COMMAND} curves")
    if not options.runs:
        raise UserError(f"No run was named. Give the folders of one or more: {COMMAND} curves RUN [RUN ...]")
    saved = [finished(run) for run in options.runs]
    for run, config in zip(options.runs[1:], saved[1:]):
        changed = configs.differences(
            *({k: v for k, v in configs.settings(c).items() if k != "seed"} for c in (saved[0], config))
        )
        if changed:
            raise UserError(f"{options.runs[0]} and {run} differ in more than the seed:\n{changed}")
    found = [configs.read_results(run / "results.json") for run in options.runs]
    scores = []
    for path, one in zip(options.runs, found):
        with configs.showing(path / "results.json", "Put back a copy of it."):
            scores.append({cell: row["mean_return"] for cell, row in one["cells"].items()})
    options.path.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(options.path, saved[0], options.runs, found[0]["target"], scores)
    print(f"written to {options.path}")


@dataclasses.dataclass(frozen=True)
class Animate:
    """Draws an episode of each net of a CartPole run as a GIF."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder; animation.gif is written there."""


def animate_command(args: Sequence[str]) -> None:
    from experiments.control import pictures  # not at the top: a second of start-up

    run = configs.parse(Animate, args, command=f"{COMMAND} animate").run
    config = finished(run)
    if config.task != "cartpole":
        raise UserError(f"{run} is a run of {config.task}, but only those of cartpole have carts to be drawn.")
    environment, played = make_environment(config), {}
    for cell in config.cells:
        like = jax.eval_shape(functools.partial(initial_state, config, cell, environment, config.seed))
        best = Checkpoints(run / cell / "checkpoints", monitor=MONITOR, higher_is_better=True).best(like)
        played[cell] = test(
            dataclasses.replace(config, test_episodes=1), cell, environment, best.state.params, likeliest
        )
    pictures.carts(run / "animation.gif", played)
    print(f"written to {run / 'animation.gif'}")


def finished(run: Path) -> Control:
    """The config of a run."""
    if not (run / "results.json").exists():
        raise UserError(
            f"{run} is not the folder of a finished run: it has no results.json. Train one first: "
            f"{COMMAND} {CONFIGS / 'quick.py'}"
        )
    return configs.saved_config(run, Control)


def main(args: Sequence[str]) -> None:
    commands = {"curves": curves_command, "animate": animate_command}
    command = commands.get(args[0]) if args else None
    if command:
        command(args[1:])
    else:
        train(args)


if __name__ == "__main__":
    command.run(main)
