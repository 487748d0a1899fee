"""The errors that a user can correct, and what the exceptions of other packages mean to a user."""

import errno
import importlib.util
import os
import re
import traceback
from pathlib import Path


class UserError(SystemExit):
    """Ends the program with exit status 1 and its message on stderr, without a traceback.

    The message says what was given, what was expected and what to do; a traceback would bury it.
    """


class UsageError(UserError):
    """A command line that cannot be read: exit status 2."""


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


def explained(error: BaseException) -> str | None:
    """What happened and what to do about it, in short; None for a bug in the program itself."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}. {_advice(error.errno)}"
    text = str(error).strip()
    of_tensorstore = re.search(r"os_error_code='(\d+)'", text)
    if of_tensorstore:  # tensorstore writes the checkpoints
        number = int(of_tensorstore.group(1))
        return f"{os.strerror(number)}. {_advice(number)}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED: Out of memory" in text:
        return f"There is not enough memory: {first_line(text)}. Lower --batch, --width or the like, or read less data."
    if isinstance(error, ValueError | TypeError) and _raised_by_rnnx(error):
        return f"{first_line(text)}."  # rnnx's messages say what was given and what was expected
    return None


def _raised_by_rnnx(error: Exception) -> bool:
    spec, frames = importlib.util.find_spec("rnnx"), traceback.extract_tb(error.__traceback__)
    if spec is None or spec.origin is None or not frames:
        return False
    return Path(spec.origin).parent in Path(frames[-1].filename).parents


def first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].rstrip(".")


def _advice(number: int) -> str:
    if number in FULL:
        return "Make room, and give the same command again: it resumes from what was saved."
    if number in FORBIDDEN:
        return "Give a place that you may read and write."
    return "Correct that path, or give another."
