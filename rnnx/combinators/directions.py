"""Reversed and bidirectional layers."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from rnnx.arguments import validated
from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec, exportable
from rnnx.combinators._children import Merge, concatenate
from rnnx.combinators.branching import parallel_layers
from rnnx.interning import interned
from rnnx.memory import checked_init
from rnnx.pointwise import as_layer
from rnnx.sequences import flip, flip_resets


@interned
def reverse(layer: Layer | nn.Module) -> Layer:
    """Runs a layer from the last valid step to the first; `ys[:, t]` still belongs to `xs[:, t]`.

    Args:
        layer: the Layer to reverse.

    Returns:
        The Layer, with the same params and carry. The final carry is the one after step 0. Chunks run from right to
        left. A reset before step 0 is ignored, since no step follows it in this direction; if it marks the boundary to
        a chunk further left, start that chunk from the initial carry.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.reverse(rnnx.gru(4))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> bool(jnp.allclose(carry, ys[:, 0]))
        True
    """
    inner = as_layer(layer)

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        flipped = flip(xs, lengths)
        carry, ys = inner.apply(params, carry, flipped, lengths=lengths, resets=flip_resets(resets, lengths), key=key)
        return carry, flip(ys, lengths)

    other = {"forward": "backward", "backward": "forward"}
    directions = frozenset(other[d] for d in inner.spec.directions)
    spec = Spec("reverse", children=(("layer", inner),), directions=directions)
    return Layer(inner.init, inner.initial_carry, apply, spec)


@exportable
class BiCarry(NamedTuple):
    """The final carries of both directions: `forward` after the last valid step, `backward` after step 0."""

    forward: Carry
    backward: Carry


@interned
@validated
def bidirectional(
    forward: Layer | nn.Module, backward: Layer | nn.Module | None = None, *, merge: Merge = concatenate
) -> Layer:
    """Reads each sequence in both directions, and merges the two outputs of every step.

    Args:
        forward: the Layer that reads from left to right.
        backward: the Layer to run from right to left; default: a second one like `forward`, with its own params.
        merge: `(forward ys, backward ys) -> ys`; by default they are concatenated along their features; alternatives
            are `jnp.add`, `jnp.multiply` and `jnp.maximum`.

    Returns:
        The Layer. Params `{"forward": ..., "backward": ...}`; the final carry is a `BiCarry`. Both directions respect
        lengths and resets. It needs whole sequences: `unroll` raises if it is given a carry.

    Reference: M. Schuster and K. Paliwal, *Bidirectional recurrent neural networks*, IEEE Transactions on
    Signal Processing 45 (1997).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.bidirectional(rnnx.lstm(4))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.backward.h.shape, ys.shape
        ((2, 4), (2, 5, 8))
    """
    forward = as_layer(forward)
    backward = forward if backward is None else as_layer(backward)
    both = parallel_layers("bidirectional", (forward, reverse(backward)), merge)
    names = [name for name, _ in both.spec.children]

    def init(key: Key, xs: PyTree) -> Params:
        params = both.init(key, xs)
        return {"forward": params[names[0]], "backward": params[names[1]]}

    def inner_params(params: Params) -> Params:
        return {names[0]: params["forward"], names[1]: params["backward"]}

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> BiCarry:
        return BiCarry(*both.initial_carry(inner_params(params), xs, key))

    def apply(params: Params, carry: BiCarry, xs: PyTree, **options: Any) -> tuple[BiCarry, PyTree]:
        carry, ys = both.apply(inner_params(params), carry, xs, **options)
        return BiCarry(*carry), ys

    children = (("forward", forward), ("backward", backward))
    directions = frozenset({"forward", "backward"})
    spec = Spec("bidirectional", both.spec.options, children, directions=directions)
    return Layer(checked_init("bidirectional", init), initial_carry, apply, spec)
