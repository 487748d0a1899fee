"""Arrays that no memory can hold are refused before anything is allocated."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable
from typing import Any

import jax

from rnnx.arguments import gibibytes, shown
from rnnx.base import Key, Params, PyTree
from rnnx.checks import check_shapes
from rnnx.sequences import checked_key, result_struct

Init = Callable[[Key, PyTree], Params]

NOTHING: Any = object()


def check_memory(who: str, what: str, count: int, there_is: int) -> None:
    """Raises where so many bytes are more than there is memory in all."""
    if count > there_is:
        raise ValueError(
            f"{who}: {what} would take {gibibytes(count)}, but the memory here is {gibibytes(there_is)}; give smaller "
            "sizes"
        )


def affordable(who: Any, init: Init, carry: Callable[[Params, PyTree, None], PyTree] | None = None) -> Init:
    """The `init` of a Layer: raises for what is no key or no batch, and where its params or the carry cannot be held.

    Within `jax.jit` and the like nothing is asked: what is only traced takes no memory, and what is compiled may be
    spread over many devices.
    """

    def checked_init(key: Key, xs: PyTree = NOTHING) -> Params:
        if xs is NOTHING:
            raise TypeError("init takes a key and inputs, arrays or shapes: layer.init(jax.random.key(0), xs)")
        key = checked_key(key)
        check_shapes(xs)
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, xs))):
            params = result_struct(checked_init, key, xs)
            check_memory(f"{who}", f"its params, {_largest(params)},", size_of(params), device_memory())
            if carry is not None:
                state = result_struct(carry, params, xs, None)
                check_memory(f"{who}", f"its carry, {_largest(state)},", size_of(state), device_memory())
        return init(key, xs)

    return checked_init


def _largest(tree: PyTree) -> str:
    """The largest array of a tree, in words."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    path, leaf = max(leaves, key=lambda one: size_of(one[1]), default=((), None))
    return f"most of all {jax.tree_util.keystr(path)} {shown(leaf)}".replace("  ", " ")


def size_of(tree: PyTree) -> int:
    """The bytes of the arrays."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@functools.cache
def device_memory() -> int:
    """The bytes of the memory of the first device; of a CPU those of the machine."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return limit or host_memory()


@functools.cache
def host_memory() -> int:
    """The bytes of the memory of the machine, as far as the system tells."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else sys.maxsize
