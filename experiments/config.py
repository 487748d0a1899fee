"""Typed configs: a dataclass instance in a Python file, fields overridden on the command line."""

import contextlib
import dataclasses
import difflib
import json
import os
import runpy
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from experiments import locks
from experiments.environment import environment
from experiments.errors import UsageError, UserError, explained, first_line

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
        raise UsageError(
            f"The first argument must be a config file; {_known(directory)}.\n"
            f"Usage: {usage}\nAll settings: {command} --help"
        )
    return parse(type(default), args, command=usage, default=default), name


LAST_COUNTS = "Of an option that is given twice the last counts."


def parse(kind: type[Config], args: Sequence[str], *, command: str, default: Config | None = None) -> Config:
    """The options of a command line, each of its type, numbers finite and of 32 bits."""
    given: dict[str, str] = {}
    for arg, following in zip(args, [*args[1:], ""]):
        if arg.startswith("--") and len(arg) > 2:
            option, equals, value = arg.partition("=")
            option, value = option.replace("_", "-"), value if equals else following
            if given.setdefault(option, value) != value:
                print(f"{option} is given twice, {given[option]} and {value}. {LAST_COUNTS}", file=sys.stderr)
            given[option] = value
    for name, hint in get_type_hints(kind).items():
        option = f"--{name.replace('_', '-')}"
        if given.get(option) == "" and Path in (hint, *get_args(hint)):
            raise UsageError(f"{option} is empty, but must be a path.")
    about = f"{kind.__doc__} {LAST_COUNTS}"
    defaults: Any = {} if default is None else {"default": default}
    config = tyro.cli(kind, prog=command, args=list(args), description=about, **defaults)
    check_types(config)
    return config


def check_types(config: Any, where: str = "") -> None:
    """Refuses values of another type than their field's, which a config file may hold, and numbers out of range."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        wanted = _wanted(value, hint) or ("0 or more" if name == "seed" and value < 0 else None)
        if wanted is not None:
            raise UserError(f"{where}--{name.replace('_', '-')} is {value!r}, but must be {wanted}.")


def _wanted(value: Any, hint: Any) -> str | None:
    """What should stand in its place; None if the value is of the type."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        misfits = [_wanted(value, option) for option in options]
        return None if None in misfits else " or ".join(map(str, misfits))
    if origin is Literal:
        return None if isinstance(value, str) and value in options else f"one of {', '.join(options)}"
    if origin is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        return next((f"a tuple, each {wanted}" for item in value if (wanted := _wanted(item, options[0]))), None)
    if hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
        return None if fits else "a whole number, of 32 bits at most"
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return None if fits else "a finite number"
    return None if isinstance(value, hint) else "None" if hint is types.NoneType else f"a {hint.__name__}"


def _from_file(path: Path, kind: type[Config], directory: Path) -> Config:
    if not path.is_file():
        raise UserError(f"There is no config file {path}; {_known(directory)}.")
    try:
        config = runpy.run_path(str(path)).get("config")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a file may do, an exit among it
        raise UserError(_in_file(path, error, kind)) from None
    if not isinstance(config, kind):
        raise UserError(
            f"{path} must define `config = {kind.__name__}(...)`; there `config` is {type(config).__name__}."
        )
    check_types(config, f"{path}: ")
    return config


def _in_file(path: Path, error: BaseException, kind: Any) -> str:
    """The error with the line of the config file that it comes from."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    number, line = (own[-1].lineno, own[-1].line) if own else (None, None)
    what = f"{type(error).__name__}: {first_line(str(error))}"
    if isinstance(error, SyntaxError) and error.filename == str(path):
        number, line, what = error.lineno, error.text, f"{type(error).__name__}: {error.msg}"
    elif isinstance(error, SystemExit):
        what = f"it ends the program (SystemExit: {error.code})"
    elif isinstance(error, TypeError) and "unexpected keyword argument" in what:
        near = difflib.get_close_matches(what.split("'")[-2], [f.name for f in dataclasses.fields(kind)])
        what += f" (is {' or '.join(near)} meant?)" if near else ""
    where = f"{path}:{number}" if number else f"{path}"
    shown = f"\n    {line.strip()[:160]}" if line and line.strip() else ""
    return f"{where}: {what}. Correct the config file.{shown}"


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


def note_warmup(config: Any, steps: str = "steps") -> None:
    """Says so where a warm-up outlasts the training: meant as a rule for a quick try alone."""
    given = getattr(config, steps)
    if config.warmup > given:
        print(
            f"--warmup is {config.warmup}, above --{steps}, {given}: the learning rate does not reach its peak.",
            file=sys.stderr,
        )


def write_text(path: Path, text: str) -> None:
    """Writes by renaming a finished file, so that a killed process or a full disk leaves the old one or the new."""
    partial = path.with_name(path.name + ".partial")
    try:
        # A file name of another encoding may hold half a character; its escape is JSON's own.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


Read = TypeVar("Read")


def parsed(path: Path, parse: Callable[[Any], Read]) -> Read:
    """`parse(what a file of JSON holds)`; of what cannot be right in it, `parse` raises ValueError or TypeError."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{explained(error)}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({first_line(str(error))}). Put back a copy of it, or start anew with another "
            "--run-dir."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    return parsed(path, _object)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"it holds a {type(value).__name__}, where an object is wanted")
    return value


def saved_config(run_dir: Path, kind: type[Config], later: Mapping[str, Any] | None = None) -> Config:
    """The config of a run, from its config.json; `later` as for `claim`."""
    path = run_dir / "config.json"
    saved, fields = {**(later or {}), **read_json(path)}, [name for name in get_type_hints(kind) if name != "run_dir"]
    missing = [name for name in fields if name not in saved]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: it is not that of a {kind.__name__}. Put back a copy.")
    tuples = {name: tuple(value) for name, value in saved.items() if isinstance(value, list)}
    config = kind(**{name: {**saved, **tuples}[name] for name in fields})
    check_types(config, f"{path}: ")
    return config


@contextlib.contextmanager
def showing(path: Path, advice: str) -> Iterator[None]:
    """What does not fit while the contents of a file are shown is a fault of the file."""
    try:
        yield
    except (OSError, LookupError, ArithmeticError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be shown ({type(error).__name__}: {first_line(str(error))}): something of it is gone, "
            f"damaged or of another version. {advice}"
        ) from None


def read_results(path: Path) -> dict[str, Any]:
    """The results.json of a finished run, its scores finite numbers."""
    run = read_json(path)
    scores = run.get("scores")
    numbers = list(scores.values()) if isinstance(scores, dict) else []
    if not numbers or "seed" not in run or any(_wanted(number, float) for number in [*numbers, run.get("seconds")]):
        raise UserError(
            f"{path} is not that of a finished run: scores, seed and seconds are wanted in it. Put back a copy of it; "
            "or remove it, and the same command writes it again."
        )
    return run


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
    if not (run_dir / "results.json").exists():
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            locks.hold(run_dir / "lock", str(run_dir))
        except OSError as error:
            raise UserError(f"--run-dir {run_dir} cannot be used: {explained(error)}") from None
    rest = [name for name in ("results.json", "checkpoints", "metrics.jsonl") if (run_dir / name).exists()]
    if rest and not path.exists():
        raise UserError(
            f"{run_dir} holds {rest[0]}, but its config.json is gone. Put that back, or give another --run-dir."
        )
    if path.exists():
        saved = {**(later or {}), **read_json(path)}
        changed = differences(saved, settings)
        if changed:
            raise UserError(
                f"{run_dir} holds a run with other settings:\n{changed}\n"
                "Give the saved settings to go on with that run, "
                "or another --run-dir to begin a new one."
            )
        _note_environment(run_dir / "environment.json")
        return
    write_json(run_dir / "environment.json", environment())
    write_json(path, settings)  # last, as it makes the folder that of a run


def _note_environment(path: Path) -> None:
    """Prints what is not as it was when the run began: another program rounds in its own way."""
    began = read_json(path) if path.exists() else {}
    now = environment()
    changed = [f"{name} {value} (now {now[name]})" for name, value in began.items() if now.get(name, value) != value]
    if changed:
        print(
            f"This run was begun with {', '.join(changed)}: it goes on, but not to the same bits as it would have.",
            flush=True,
        )


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
