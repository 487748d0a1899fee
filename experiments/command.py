"""How every command runs: failing output does not end it, and a user's error is reported in one sentence."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments.errors import UsageError, UserError, explained

Main = Callable[[Sequence[str]], None]


def run(main: Main, **subcommands: Main) -> None:
    """Calls the subcommand that the first argument names, or else `main`, with the command-line arguments.

    Exit status 1 and a sentence on stderr for an error that the user can correct, 2 for wrong usage.
    """
    args = sys.argv[1:]
    if args and args[0] in subcommands:
        main, args = subcommands[args[0]], args[1:]
    with lasting_output():
        try:
            main(args)
        except UsageError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("Interrupted.", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            sentence = explained(error)
            if sentence is None:
                raise
            raise UserError(sentence) from None


class LastingStream(io.TextIOWrapper):
    """Escapes characters that its encoding lacks, and carries on when its reader is gone or the disk is full."""

    lost = False

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        self.lost = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())  # also takes what is still buffered
        os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Within this context stdout and stderr are `LastingStream`s, if they are files."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_lasting(stream) for stream in before)
    try:
        yield
    finally:
        for own, stream in zip((sys.stdout, sys.stderr), before):
            if own is not stream:
                own.flush()
                own.detach()
        sys.stdout, sys.stderr = before


def _lasting(stream: Any) -> Any:
    if stream is None:  # closed by the parent process
        return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):  # in a test or a notebook
        return stream
    stream.flush()
    return LastingStream(
        stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


def unread(stream: object) -> bool:
    """Whether output to this stream is lost, for instance because its reader is gone."""
    return isinstance(stream, LastingStream) and stream.lost
