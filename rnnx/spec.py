"""The name, options and parts of a Cell or Layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from rnnx.interning import Call

if TYPE_CHECKING:
    from rnnx.base import Layer

PyTree = Any
FORWARD = frozenset({"forward"})


class Spec(NamedTuple):
    """Describes a Cell or Layer to people and tools: in its repr, `rnnx.summary` and error messages.

    Attributes:
        name: the factory that made it; also its name among the params of a `stack`.
        options: the factory's arguments that differ from its defaults.
        children: the layers inside, by the name of their params.
        child_inputs: `(xs, ys) -> inputs`, what each child but the first reads: `xs` are the layer's inputs, `ys` the
            outputs of the child before it. None if all children read the layer's inputs.
        directions: the directions in which it reads the sequence: a subset of `{"forward", "backward"}`, empty for a
            layer that treats each step alone.
        call: the factory call that made it, which `pickle` stores; None if no factory made it.
    """

    name: str
    options: Mapping[str, Any] = {}
    children: tuple[tuple[str, Layer], ...] = ()
    child_inputs: Callable[[PyTree, PyTree], PyTree] | None = None
    directions: frozenset[str] = FORWARD
    call: Call | None = None

    @property
    def causal(self) -> bool:
        """Whether no output depends on future inputs, as `rnnx.generate` and streaming require."""
        return self.directions <= FORWARD

    @property
    def chunkable(self) -> bool:
        """Whether a carry can be passed on from chunk to chunk (for a reversed layer: from right to left)."""
        return len(self.directions) < 2

    def __hash__(self) -> int:  # so that a Layer can be a static argument of jax.jit
        return hash((self.name, self.children, self.directions))

    def __str__(self) -> str:
        options = [f"{key}={_show(value)}" for key, value in self.options.items()]
        if not self.children:
            return f"{self.name}({', '.join(options)})"
        lines = options + [f"{name}: {child.spec}" for name, child in self.children]
        return f"{self.name}(\n" + "\n".join(lines).replace("\n", "\n  ").join(("  ", "\n)"))


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    return getattr(value, "__name__", None) or repr(value)
