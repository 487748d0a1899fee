"""More plots of finished runs: the curves of several seeds, and an episode in motion."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from experiments.checkpoints import Checkpoints
from experiments.config import parse
from experiments.control.config import Control
from experiments.control.environments import make_environment
from experiments.control.evaluate import MONITOR, draw_curves, test
from experiments.control.rollouts import greedy
from experiments.control.train import initial_state
from experiments.errors import UserError
from experiments.files import showing
from experiments.runs import differences, read_results, saved_config, saved_settings
from experiments.settings import replace

COMMAND = "python -m experiments.control"


@dataclasses.dataclass(frozen=True)
class Curves:
    """Draws the learning curves of several seeds of a config into one plot."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """The run folders."""
    path: Path = Path("runs/control/curves.png")
    """The plot."""


def curves(args: Sequence[str]) -> None:
    options = parse(Curves, args, command=f"{COMMAND} curves")
    if not options.runs:
        raise UserError(f"No run was named. Give the folders of one or more: {COMMAND} curves RUN [RUN ...]")
    first, *others = [finished(run) for run in options.runs]
    for run, config in zip(options.runs[1:], others):
        changed = differences(saved_settings(first), saved_settings(replace(config, seed=first.run.seed)))
        if changed:
            raise UserError(f"{options.runs[0]} and {run} differ in more than the seed:\n{changed}")
    results = [read_results(run / "results.json") for run in options.runs]
    scores = []
    for run, found in zip(options.runs, results):
        with showing(run / "results.json", "Restore it from a backup."):
            scores.append({cell: row["mean_return"] for cell, row in found["cells"].items()})
    options.path.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(options.path, first, options.runs, results[0]["target"], scores)
    print(f"written to {options.path}")


@dataclasses.dataclass(frozen=True)
class Animate:
    """Draws an episode of each net of a CartPole run as a GIF."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder; animation.gif is written there."""


def animate(args: Sequence[str]) -> None:
    from experiments.control import plots  # not at the top: a second of start-up

    run = parse(Animate, args, command=f"{COMMAND} animate").run
    config = finished(run)
    if config.data.task != "cartpole":
        raise UserError(f"{run} is a run of {config.data.task}, but only those of cartpole can be animated.")
    environment, played = make_environment(config.data), {}
    for cell in config.model.cells:
        like = jax.eval_shape(functools.partial(initial_state, config, cell, environment, config.run.seed))
        best = Checkpoints(run / cell / "checkpoints", monitor=MONITOR, higher_is_better=True).best(like)
        played[cell] = test(replace(config, test_episodes=1), cell, environment, best.state.params, greedy)
    plots.animate(run / "animation.gif", played)
    print(f"written to {run / 'animation.gif'}")


def finished(run: Path) -> Control:
    """The config of a run."""
    if not (run / "results.json").exists():
        raise UserError(
            f"{run} is not the folder of a finished run: it has no results.json. Train one first: "
            f"{COMMAND} configs/control/quick.py"
        )
    return saved_config(run, Control)
