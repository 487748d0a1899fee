"""Defines a law: a function that checks a layer under test, and the error that it raises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax


class LawBroken(AssertionError):
    """A layer or cell breaks a law of `rnnx.base`.

    The message says which law, at which step of which row, by how much, and what usually causes it.

    Attributes:
        law: the name of the law, such as `"reset"`.
    """

    def __init__(self, law: str, finding: str, cause: str | None) -> None:
        super().__init__(f"{law}: {finding}." + (f" Usual cause: {cause}." if cause else ""))
        self.law = law


T = TypeVar("T")
P = ParamSpec("P")


def law(
    cause: str, *, of_errors: bool = False
) -> Callable[[Callable[Concatenate[T, P], None]], Callable[Concatenate[T, P], None]]:
    """Decorates a law: its errors become a `LawBroken` with the law's name and the usual cause.

    `of_errors`: whether `cause` is also the usual cause of other exceptions, not only of failed comparisons.
    """

    def decorate(check: Callable[Concatenate[T, P], None]) -> Callable[Concatenate[T, P], None]:
        name = getattr(check, "__name__", "law")

        @functools.wraps(check)
        def checked(subject: T, *args: P.args, **kwargs: P.kwargs) -> None:
            try:
                with jax.default_matmul_precision("highest"):  # GPUs and TPUs default to 10 mantissa bits or fewer
                    check(subject, *args, **kwargs)
            except AssertionError as error:
                raise LawBroken(name, str(error), cause) from None
            except Exception as error:
                finding = f"it raised {type(error).__name__}: {_first_line(error)}"
                raise LawBroken(name, finding, cause if of_errors else None) from error

        return checked

    return decorate


def _first_line(error: Any) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
