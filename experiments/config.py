"""The command line of an experiment: a config file, which is Python, and settings that override it."""

import dataclasses
import difflib
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tyro

from experiments.errors import UsageError, UserError, first_line
from experiments.settings import Experiment, check_types, hints, own_hints, replace

Config = TypeVar("Config")
Of = TypeVar("Of", bound=Experiment)
LAST_COUNTS = "Of an option that is given twice the last counts."


def load(kind: Any, args: Sequence[str], *others: Any) -> Any:
    """The checked config that the command line describes; its `run.run_dir` is set.

    `args` is a config file followed by overrides. The file defines `config`, an instance of `kind` or of one of
    `others`. Without a file, only `--help` works, for `kind`.
    """
    experiment = kind.experiment()
    command, folder = f"python -m experiments.{experiment}", Path("configs") / experiment
    default, path = kind(), None
    if args and not args[0].startswith("-"):
        path, args = Path(args[0]), args[1:]
        default = _from_file(path, (kind, *others), folder)
    elif not {"-h", "--help"} & set(args):
        raise UsageError(
            f"The first argument must be a config file; {_known(folder)}.\n"
            f"Usage: {command} CONFIG.py [overrides]\nAll settings: {command} --help"
        )
    example = f"{command} {path or next(iter(sorted(folder.glob('*.py'))), 'CONFIG.py')}"
    usage = f"{command} {path or 'CONFIG.py [overrides]'}"
    examples = [example, f"{example} --seed 1 --run-dir runs/mine"]
    config = parse(type(default), args, command=usage, default=default, examples=examples)
    config.check()
    name = path.stem if path else "default"
    run_dir = config.run.run_dir or Path("runs") / experiment / f"{name}-seed{config.run.seed}"
    return replace(config, run_dir=run_dir)


def parse(
    kind: type[Config],
    args: Sequence[str],
    *,
    command: str,
    default: Config | None = None,
    examples: Sequence[str] = (),
) -> Config:
    """Parses the options of a command line, and checks their types and ranges."""
    given: dict[str, str] = {}
    for arg, following in zip(args, [*args[1:], ""]):
        if arg.startswith("--") and len(arg) > 2:
            option, equals, value = arg.partition("=")
            option, value = option.replace("_", "-"), value if equals else following
            if given.setdefault(option, value) != value:
                print(f"{option} is given twice, {given[option]} and {value}. {LAST_COUNTS}", file=sys.stderr)
            given[option] = value
    for name, hint in hints(kind).items():
        option = f"--{name.replace('_', '-')}"
        if given.get(option) == "" and Path in (hint, *get_args(hint)):
            raise UsageError(f"{option} is empty, but must be a path.")
    about = f"{kind.__doc__} {LAST_COUNTS}"
    defaults: Any = {} if default is None else {"default": default}
    flat = (tyro.conf.OmitArgPrefixes,)  # --steps, not --train.steps
    try:
        config = tyro.cli(kind, prog=command, args=list(args), description=about, config=flat, **defaults)
    except SystemExit as end:
        if not end.code and examples:
            print("Examples:", *examples, sep="\n  ")
        raise
    check_types(config)
    return config


def _from_file(path: Path, kinds: tuple[Any, ...], folder: Path) -> Any:
    if not path.is_file():
        raise UserError(f"There is no config file {path}; {_known(folder)}.")
    try:
        config = runpy.run_path(str(path)).get("config")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a config file may do anything, even exit
        raise UserError(_in_file(path, error, kinds[0])) from None
    if not isinstance(config, kinds):
        raise UserError(
            f"{path} must define `config = {' or '.join(f'{kind.__name__}(...)' for kind in kinds)}`; there `config` "
            f"is {type(config).__name__}."
        )
    check_types(config, f"{path}: ")
    return config


def _in_file(path: Path, error: BaseException, kind: Any) -> str:
    """The error, with the line of the config file that caused it."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    number, line = (own[-1].lineno, own[-1].line) if own else (None, None)
    what = f"{type(error).__name__}: {first_line(str(error))}"
    if isinstance(error, SyntaxError) and error.filename == str(path):
        number, line, what = error.lineno, error.text, f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, SystemExit):
        what = f"it ends the program (SystemExit: {error.code})"
    elif isinstance(error, TypeError) and "unexpected keyword argument" in what:
        near = _near(what.split("'")[-2], kind)
        what += f" (is {' or '.join(near)} meant?)" if near else ""
    where = f"{path}:{number}" if number else f"{path}"
    shown = f"\n    {line.strip()[:160]}" if line and line.strip() else ""
    return f"{where}: {what}. Correct the config file.{shown}"


def _near(name: str, kind: Any) -> list[str]:
    """The settings with similar names, each written with its group as in a config file."""
    groups: dict[str, Any] = {group: hint for group, hint in own_hints(kind).items() if dataclasses.is_dataclass(hint)}
    written = {one: f"{group}={hint.__name__}({one}=...)" for group, hint in groups.items() for one in hints(hint)}
    return [written[one] for one in difflib.get_close_matches(name, written)]


def _known(folder: Path) -> str:
    found = ", ".join(str(path) for path in sorted(folder.glob("*.py")))
    return f"known ones: {found}" if found else f"{folder} holds none either"
