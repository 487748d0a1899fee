"""Memory checks: raise before allocating arrays that do not fit."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

from rnnx.arguments import describe, gibibytes
from rnnx.base import Key, Params, PyTree
from rnnx.checks import check_shapes
from rnnx.sequences import cached_eval_shape, checked_key

Init = Callable[[Key, PyTree], Params]

_MISSING: Any = object()


def check_memory(where: str, what: str, size: int, available: int) -> None:
    """Raises if `size` bytes exceed the `available` memory."""
    if size > available:
        raise ValueError(
            f"{where}: {what} would take {gibibytes(size)}, but the memory here is {gibibytes(available)}; use smaller "
            "sizes"
        )


def checked_init(where: Any, init: Init, initial_carry: Callable[[Params, PyTree, None], PyTree] | None = None) -> Init:
    """Wraps the `init` of a Layer: raises for an invalid key or batch, and if params or carry do not fit into memory.

    Memory is not checked under `jax.jit` and other transforms: traced values take none, and compiled ones may be
    distributed over several devices.
    """

    def wrapped(key: Key, xs: PyTree = _MISSING) -> Params:
        if xs is _MISSING:
            raise TypeError("init takes a key and inputs, arrays or shapes: layer.init(jax.random.key(0), xs)")
        key = checked_key(key)
        check_shapes(xs)
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, xs))):
            params = cached_eval_shape(wrapped, key, xs)
            check_memory(f"{where}", f"its params, {_largest(params)},", byte_size(params), device_memory())
            if initial_carry is not None:
                carry = cached_eval_shape(initial_carry, params, xs, None)
                check_memory(f"{where}", f"its carry, {_largest(carry)},", byte_size(carry), device_memory())
        return init(key, xs)

    return wrapped


def _largest(tree: PyTree) -> str:
    """Describes the largest array of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    path, leaf = max(leaves, key=lambda one: byte_size(one[1]), default=((), None))
    return f"mostly {jax.tree_util.keystr(path)} {describe(leaf)}".replace("  ", " ")


def byte_size(tree: PyTree) -> int:
    """The size of the arrays in bytes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@functools.cache
def device_memory() -> int:
    """The memory of the first device in bytes; for a CPU, that of the machine."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or host_memory()


@functools.cache
def host_memory() -> int:
    """The memory of the machine in bytes, if the system reports it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize
