"""Typed configs: a dataclass instance in a Python file, fields overridden on the command line."""

import dataclasses
import json
import os
import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from experiments.errors import UserError

Config = TypeVar("Config")


def load(default: Config, args: Sequence[str], *, command: str, directory: Path) -> tuple[Config, str]:
    """Returns the config that the command line describes, and the name of its file.

    `args` is a config file followed by overrides. The file defines `config`, an instance of
    `type(default)`. Without a file only `--help` is answered, from the values of `default`.
    `directory` is where the error for a missing file looks for the ones to offer.
    """
    name = "default"
    usage = f"{command} CONFIG.py [overrides]"
    if args and not args[0].startswith("-"):
        default, name = _from_file(Path(args[0]), type(default), directory), Path(args[0]).stem
        usage = f"{command} {args[0]}"
        args = args[1:]
    elif not {"-h", "--help"} & set(args):
        raise UserError(
            f"The first argument must be a config file; {_known(directory)}.\n"
            f"Usage: {usage}\nAll settings: {command} --help"
        )
    return tyro.cli(type(default), prog=usage, default=default, args=list(args)), name


def _from_file(path: Path, kind: type[Config], directory: Path) -> Config:
    if not path.is_file():
        raise UserError(f"There is no config file {path}; {_known(directory)}.")
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, kind):
        raise UserError(
            f"{path} must define `config = {kind.__name__}(...)`; there `config` is {type(config).__name__}."
        )
    return config


def _known(directory: Path) -> str:
    found = ", ".join(str(path) for path in sorted(directory.glob("*.py")))
    return f"known ones: {found}" if found else f"{directory} holds none either"


Rule = tuple[str, str, Callable[[Any], bool]]
"""Names of fields, separated by spaces; what is wanted of them, in words; whether a value is that."""


def check(config: Any, rules: Iterable[Rule]) -> None:
    """Refuses numbers that cannot be meant."""
    for names, wanted, accepted in rules:
        for name in names.split():
            value = getattr(config, name)
            if not accepted(value):
                raise UserError(f"--{name.replace('_', '-')} is {value}, but must be {wanted}.")


def write_json(path: Path, value: Any) -> None:
    """Writes by renaming a finished file, so that a killed process leaves the old one or the new."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}). Put back a copy of it, or start anew with another --run-dir."
        ) from None


def as_json(config: Any) -> dict[str, Any]:
    """The fields of a config as values that JSON returns unchanged."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def settings(config: Any) -> dict[str, Any]:
    """What makes a run what it is; where it is kept does not."""
    return {name: value for name, value in as_json(config).items() if name != "run_dir"}


def run_folder(config: Any, name: str, directory: Path) -> Path:
    """Where the run is kept: config.run_dir, or runs/<experiment>/<name of the config>-seed<seed>."""
    return config.run_dir or Path("runs") / directory.name / f"{name}-seed{config.seed}"


def claim(run_dir: Path, settings: Mapping[str, Any], later: Mapping[str, Any] | None = None) -> None:
    """Makes `run_dir` the folder of a run with these settings; it may hold no other run.

    A run goes on only under the settings that it began with: anything else would be a run that
    no one command can make again. `later` are settings that came to the experiment afterwards, with
    the values that runs without them had.
    """
    path = run_dir / "config.json"
    if path.exists():
        saved = {**(later or {}), **read_json(path)}
        changed = differences(saved, settings)
        if changed:
            raise UserError(
                f"{run_dir} holds a run with other settings:\n{changed}\n"
                "Give the saved settings to go on with that run, "
                "or another --run-dir to begin a new one."
            )
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """A line for each setting that differs, empty if none does."""
    absent = object()

    def show(value: Any) -> str:
        return "absent" if value is absent else json.dumps(value, ensure_ascii=False)

    return "\n".join(
        f"  {name}: saved {show(saved.get(name, absent))}, given {show(given.get(name, absent))}"
        for name in sorted({*saved, *given})
        if saved.get(name, absent) != given.get(name, absent)
    )
