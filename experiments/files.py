"""Text and JSON files, written whole or not at all and named in errors when damaged; data that packages bring."""

import contextlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from experiments.errors import UserError, explained, first_line

Read = TypeVar("Read")


def write_text(path: Path, text: str) -> None:
    """Writes by renaming a finished file, so that a kill or a full disk leaves either the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        # A file name in another encoding may hold lone surrogates; their escapes are valid JSON.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def parsed(path: Path, parse: Callable[[Any], Read]) -> Read:
    """`parse(contents of a JSON file)`; `parse` raises ValueError or TypeError for contents that cannot be right."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{explained(error)}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({first_line(str(error))}). Restore it from a backup, or start a new run with another "
            "--run-dir."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    return parsed(path, _object)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"it holds a {type(value).__name__}, but expected an object")
    return value


@contextlib.contextmanager
def showing(path: Path, advice: str) -> Iterator[None]:
    """Reports an error raised while a file's contents are shown as damage to that file."""
    try:
        yield
    except (OSError, LookupError, ArithmeticError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be shown ({type(error).__name__}: {first_line(str(error))}): part of it is missing, "
            f"damaged or of another version. {advice}"
        ) from None


def package_folder(package: str, data: str) -> Path:
    """The folder of the package that brings `data`. The package is not imported, as that may take seconds."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise UserError(f"{data!r} comes with the package {name}, which is not installed: pip install {name}")
    return Path(spec.submodule_search_locations[0])
