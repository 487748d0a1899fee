"""Validates the arguments of factories against the annotations of their parameters.

`int` means a whole number, 1 or more; `float` a finite number; `bool` True or False; `DType` a floating dtype. A
check in the annotation specifies other ranges, and functions: `Annotated[int, Integer(0)]`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import reprlib
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

P = ParamSpec("P")
R = TypeVar("R")

MAX_INT = 2**31 - 1


class Check(Protocol):
    """`(where, value) -> value`: returns the value as the factory takes it; raises if it is invalid."""

    def __call__(self, where: str, value: Any, /) -> Any: ...


def validated(make: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function: validates its arguments against their annotations, except for defaults."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        checks = checks_of(make)
        for name, value in bound.arguments.items():
            if name in checks and value is not signature.parameters[name].default:
                bound.arguments[name] = checks[name](f"{make.__name__}: {name}", value)
        return make(*bound.args, **bound.kwargs)

    return wrapped


@functools.cache
def checks_of(make: Callable[..., Any]) -> dict[str, Check]:
    """Returns the check of each parameter that has one."""
    hints = typing.get_type_hints(make, include_extras=True)
    found = {name: _check_of(hint) for name, hint in hints.items() if name != "return"}
    return {name: check for name, check in found.items() if check is not None}


def _check_of(hint: Any) -> Check | None:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = typing.get_args(hint)
        [check, *_] = [*filter(None, map(_check_of, parts)), None]
        return _Optional(check) if check is not None and type(None) in parts else check
    if typing.get_origin(hint) is Annotated:
        return next((part for part in hint.__metadata__ if callable(part)), None)
    return DEFAULT_CHECKS.get(hint)


@dataclasses.dataclass(frozen=True)
class _Optional:
    check: Check

    def __call__(self, where: str, value: Any) -> Any:
        return None if value is None else self.check(where, value)


@dataclasses.dataclass(frozen=True)
class Integer:
    """Accepts a whole number between `least` and `most`, also NumPy's; not booleans or arrays."""

    least: int = 1
    most: int = MAX_INT
    why: str = ""

    def __call__(self, where: str, value: Any) -> int:
        expected = f"a whole number, {self.least} or more"
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise TypeError(f"{where} is {describe(value)}, but it must be {expected}{_conversion_hint(value, 'int')}")
        number = int(value)
        if number < self.least:
            raise ValueError(f"{where} is {_digits(number)}, but it must be {expected}")
        if number > self.most:
            why = self.why or f"that many float32 numbers would take {gibibytes(4 * number)}"
            raise ValueError(f"{where} is {_digits(number)}, but it must be {self.most} or less: {why}")
        return number


@dataclasses.dataclass(frozen=True)
class Real:
    """Accepts a finite number from `low` to `high`, inclusive; `above` and `below` are exclusive bounds."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __call__(self, where: str, value: Any) -> float:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            hint = _conversion_hint(value, "float")
            raise TypeError(f"{where} is {describe(value)}, but it must be {self.expected}{hint}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        inside = self.low <= number <= self.high and self.above < number < self.below
        if not math.isfinite(number) or not inside:
            raise ValueError(f"{where} is {number}, but it must be {self.expected}")
        return number

    @property
    def expected(self) -> str:
        if math.isinf(self.high) and math.isinf(self.below):
            floor = f", {self.low:g} or more" if math.isfinite(self.low) else ""
            return f"a finite number{f' above {self.above:g}' if math.isfinite(self.above) else floor}"
        low = f"({self.above:g}" if self.above >= self.low else f"[{self.low:g}"
        return f"a number in {low}, {f'{self.below:g})' if self.below <= self.high else f'{self.high:g}]'}"


@dataclasses.dataclass(frozen=True)
class Function:
    """Accepts a function of that many arguments (None: any number), like the example."""

    arguments: int | None
    example: str

    def __call__(self, where: str, value: Any) -> Any:
        if not callable(value):
            raise TypeError(f"{where} is {describe(value)}, but it must be a function, such as {self.example}")
        if self.arguments is not None:
            try:
                inspect.signature(value).bind(*[None] * self.arguments)
            except ValueError:  # some built-in functions lack a signature
                pass
            except TypeError as error:
                raise TypeError(
                    f"{where} is {describe(value)}, which cannot be called with {self.arguments} argument(s) "
                    f"({error}); it must be a function like {self.example}"
                ) from None
        return value


def flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where} is {describe(value)}, but it must be True or False")
    return bool(value)


def floating(where: str, value: Any) -> Any:
    """Accepts a floating dtype, or its name."""
    try:
        dtype = None if value is None or isinstance(value, np.ndarray | jax.Array) else jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None:
        raise TypeError(f"{where} is {describe(value)}, but it must be a floating dtype, such as jnp.float32")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{where} is {dtype.name}, but it must be a floating dtype, such as jnp.float32")
    return dtype


_initializer = Function(3, "jax.nn.initializers.zeros, (key, shape, dtype) -> array")
_activation = Function(1, "jax.nn.relu, x -> y")


def initializer(where: str, value: Any) -> Callable[..., jax.Array]:
    """Accepts a function that returns arrays of the shape it is given."""
    function = _initializer(where, value)

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        array = function(key, shape, jnp.promote_types(dtype, jnp.float32))  # 16 bits hold few distinct random numbers
        if not _is_array(array) or jnp.shape(array) != tuple(shape):
            raise ValueError(
                f"{where} returned {_describe(array)}, expected an array of shape {tuple(shape)}; it must be a "
                f"function like {_initializer.example}"
            )
        return jnp.asarray(array, dtype)

    return init


def activation(where: str, value: Any) -> Callable[[jax.Array], jax.Array]:
    """Accepts a function that keeps the shape of its argument."""
    function = _activation(where, value)

    def activate(x: jax.Array) -> jax.Array:
        y = function(x)
        if not _is_array(y) or jnp.shape(y) != jnp.shape(x):
            raise ValueError(
                f"{where} returned {_describe(y)} for an array of shape {jnp.shape(x)}, but it must keep the shape, as "
                "jax.nn.relu does"
            )
        return y

    return activate


DEFAULT_CHECKS: dict[Any, Check] = {int: Integer(), float: Real(), bool: flag, np.dtype: floating}

Positive = Annotated[float, Real(above=0)]
NonNegative = Annotated[float, Real(low=0)]
Rate = Annotated[float, Real(low=0, below=1)]
DType = Annotated[DTypeLike, floating]
"""A floating dtype: `jnp.bfloat16`, `"float32"`, ..."""
UnitInterval = Annotated[float, Real(above=0, high=1)]
UNROLLED = "each one is compiled separately"
Layers = Annotated[int, Integer(1, 1000, UNROLLED)]
Activation = Annotated[Callable[[jax.Array], jax.Array], activation]


def ascending(name: str, **values: float) -> None:
    """Raises unless the values are in ascending order."""
    if list(values.values()) != sorted(values.values()):
        given = " and ".join(f"{option} is {value}" for option, value in values.items())
        raise ValueError(f"{name}: {given}, but it must be {' <= '.join(values)}")


def gibibytes(count: int) -> str:
    size = count / 2**30 if count < 2**500 else math.inf
    return f"{size:.3g} GiB"


def describe(value: Any) -> str:
    """Describes a value in an error message: dtype and shape of an array, else an abbreviated repr and the type."""
    if isinstance(value, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, types.FunctionType | type):
        return f"the {'class' if isinstance(value, type) else 'function'} {value.__name__}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{_digits(value)} (int)"
    return f"{reprlib.repr(value)} ({type(value).__name__})"


def _digits(number: int) -> str:
    return str(number) if abs(number) < 10**40 else f"a number of {number.bit_length()} bits"


def _conversion_hint(value: Any, kind: str) -> str:
    scalar = isinstance(value, np.ndarray | jax.Array) and value.shape == () and not isinstance(value, jax.core.Tracer)
    return f"; convert the array by {kind}(...)" if scalar else ""


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.number | jax.Array | int | float)


def _describe(value: Any) -> str:
    return f"an array of shape {jnp.shape(value)}" if _is_array(value) else describe(value)
