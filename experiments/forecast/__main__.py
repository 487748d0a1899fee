"""Starts a run of the kind that the config file describes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import command
from experiments import config as configs
from experiments.forecast import mackey_glass, train
from experiments.forecast.settings import Forecast, MackeyGlass, Settings

COMMAND = "python -m experiments.forecast"
CONFIGS = Path("configs/forecast")


def run(args: Sequence[str]) -> None:
    default = Forecast() if args and args[0].startswith("-") else Settings()
    config, name = configs.load(default, args, command=COMMAND, directory=CONFIGS)
    run_dir = configs.run_folder(config, name, CONFIGS)
    trains: dict[type, Callable[..., None]] = {Forecast: train.train, MackeyGlass: mackey_glass.train}
    trains[type(config)](config, run_dir)


def main(args: Sequence[str]) -> None:
    run(args)


if __name__ == "__main__":
    command.run(main)
