"""Caches the results of factories: equal calls return the same object, so JAX finds what it compiled for it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib
import inspect
import pickle
import sys
import threading
import types
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

import flax.linen as nn
import jax
import numpy as np
from jax.dtypes import canonicalize_dtype

from rnnx.hints import explain_call

P = ParamSpec("P")
R = TypeVar("R")

CACHE_SIZE = 256  # results; an evicted layer is made, and compiled, again on the next call
MAX_BYTES = 2**16  # a result that refers to larger arrays is not cached
MAX_OBJECTS = 20_000  # a result that refers to more objects is not cached: searching it for arrays takes too long


class Call:
    """The call of a factory that made a Cell or a Layer: this is what `pickle` stores.

    Attributes:
        make, args, kwargs: the factory and its arguments.
        functions: the functions of the result. If `_replace` changed them, the result no longer comes from this call.
    """

    def __init__(self, make: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.make, self.args, self.kwargs = make, args, dict(kwargs)
        self.functions: tuple[Any, ...] = ()

    def __call__(self) -> Any:
        return self.make(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.make.__name__}({', '.join(arguments)})"


def reduced(made: Any) -> tuple[Any, ...]:
    """Reduces a Cell or a Layer, for `pickle`, to the call that made it; raises if no factory did."""
    call = made.spec.call
    if call is None or call.functions != _functions(made):
        raise pickle.PicklingError(
            f"{type(made).__name__} {made.spec.name} consists of functions, which cannot be pickled: save its params "
            "and make it again, or make it in a function decorated by @rnnx.factory, whose results can be pickled"
        )
    kwargs = {name: _portable(value) for name, value in call.kwargs.items()}
    return _called, (call.make, tuple(map(_portable, call.args)), kwargs)


def _called(make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return make(*args, **kwargs)


class _Recipe:
    """Pickles as a call, and unpickles as the result of the call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.parts = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def _portable(value: Any) -> Any:
    """Converts a value to a picklable form: linen modules refer to local functions, and `jax.nn.relu` is an object."""
    if type(value) is tuple:
        return tuple(map(_portable, value))
    if isinstance(value, nn.Module):
        fields = [f for f in dataclasses.fields(value) if f.init and f.name != "parent"]
        given = {f.name: getattr(value, f.name) for f in fields if getattr(value, f.name) is not f.default}
        return _Recipe(_called, type(value), (), {name: _portable(v) for name, v in given.items()})
    module, name = str(getattr(value, "__module__", "")), str(getattr(value, "__name__", ""))
    if callable(value) and getattr(sys.modules.get(module), name, None) is value:
        return _Recipe(_by_name, module, name)
    return value


def _by_name(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _functions(made: Any) -> tuple[Any, ...]:
    return tuple(part for name, part in made._asdict().items() if name != "spec")


def interned(make: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that makes a Cell or a Layer: equal calls return the same object.

    Arguments are equal if they have the same type and value; functions (initialisers, merges) only if they are the
    same function. The last `CACHE_SIZE` results are cached, except those with unhashable arguments and those that refer
    to large arrays.
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> R:
        return call_once(made, make, signature, args, kwargs)

    return made


def call_once(
    made: Callable[..., R],
    make: Callable[..., R],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> R:
    """Returns the cached result of an equal call; else calls `make`, and records the call `made(...)` in the result."""
    try:
        bound = signature.bind(*map(_unbound, args), **{name: _unbound(value) for name, value in kwargs.items()})
    except TypeError:
        raise TypeError(explain_call(made, args, kwargs)) from None
    call = Call(made, bound.args, bound.kwargs)
    bound.apply_defaults()
    # Dtypes depend on whether x64 mode is on.
    key = make, canonicalize_dtype(float), *map(_typed, bound.args), *map(_typed, bound.kwargs.values())
    try:
        hash(key)
    except TypeError:
        return _with_call(make(*call.args, **call.kwargs), call)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        result = _with_call(make(*call.args, **call.kwargs), call)
        if _is_small(result):
            _cache[key] = result
            while len(_cache) > CACHE_SIZE:
                _cache.popitem(last=False)
        return result


_cache: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
_lock = threading.RLock()


def _unbound(value: Any) -> Any:
    """Detaches a linen module from the module in which it was made."""
    return value.clone(parent=None) if isinstance(value, nn.Module) and value.parent is not None else value


def _typed(value: Any) -> Any:
    """Pairs the value with its type, since 1, 1.0 and True are equal."""
    plain = isinstance(value, tuple) and not hasattr(value, "spec")
    return type(value), tuple(map(_typed, value)) if plain else value


def _with_call(result: Any, call: Call) -> Any:
    call.functions = _functions(result)
    return result._replace(spec=result.spec._replace(call=call))


def _is_small(result: Any) -> bool:
    """Whether the functions of a result refer to no tracer and to no large arrays."""
    left, seen, size = [result], set[int](), 0
    while left:
        value = left.pop()
        if id(value) in seen or value is None or isinstance(value, str | int | float | type | types.ModuleType):
            continue
        seen.add(id(value))
        if isinstance(value, jax.core.Tracer) or len(seen) > MAX_OBJECTS:
            return False
        if isinstance(value, np.ndarray | jax.Array):
            size += value.nbytes
            if size > MAX_BYTES:
                return False
        else:
            left.extend(_references(value))
    return True


def _references(value: Any) -> Iterable[Any]:
    """The objects that an object refers to."""
    if isinstance(value, tuple | list | set | frozenset):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    parts = [*getattr(value, "__dict__", {}).values(), getattr(value, "__wrapped__", None)]
    if isinstance(value, types.FunctionType):
        parts += [value.__closure__, value.__defaults__, value.__kwdefaults__]
    if isinstance(value, types.CellType):
        with contextlib.suppress(ValueError):  # an unbound name
            parts.append(value.cell_contents)
    return parts
