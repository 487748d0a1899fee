"""Layers made of layers. Each takes Layers (or Flax linen modules) and returns a Layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.dtypes import canonicalize_dtype

from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec, factory
from rnnx.pointwise import as_layer
from rnnx.sequences import flip, flip_resets, float_dtype, result_struct, split_key, zero_pads

Merge = Callable[..., PyTree]
"""`(*ys) -> ys`: makes one output of several."""


def output_struct(layer: Layer, params: Params, xs: PyTree) -> PyTree:
    """The shapes and dtypes of what `layer` makes of `xs`, without running it."""
    return result_struct(_outputs_of(layer), params, xs)


@functools.lru_cache(maxsize=1024)
def _outputs_of(layer: Layer) -> Callable[[Params, PyTree], PyTree]:
    """One function for each layer, so that `result_struct` can remember what it gave."""
    return lambda params, xs: layer.apply(params, layer.initial_carry(params, xs, None), xs)[1]


def _named(layers: tuple[Layer | nn.Module, ...]) -> tuple[tuple[str, Layer], ...]:
    lifted = [as_layer(layer) for layer in layers]
    return tuple((f"{i}_{layer.spec.name}", layer) for i, layer in enumerate(lifted))


def _directions(layers: tuple[tuple[str, Layer], ...]) -> frozenset[str]:
    return frozenset().union(*(layer.spec.directions for _, layer in layers))


def concatenate(*ys: jax.Array) -> jax.Array:
    """Joins outputs along their features: the usual merge."""
    return jnp.concatenate(ys, axis=-1)


def stack(*layers: Layer | nn.Module) -> Layer:
    """Layers one after the other, each reading what the one before it wrote.

    Args:
        *layers: Layers and Flax linen modules; a module is applied to each step by itself, and so is a function
            in `pointwise` (`rnnx.pointwise(jax.nn.relu)`).

    Returns:
        The Layer. Params are a dict by place and name, `{"0_Embed": ..., "1_lstm": ...}`; the carry is the tuple
        of the layers' carries (empty ones included, so that `carry[1]` is the state of the second layer).

    Raises:
        TypeError: for what is neither a Layer nor a linen module.
        ValueError: without any layer.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> lm = rnnx.stack(nn.Embed(65, 16), rnnx.lstm(32), rnnx.dropout(0.1), nn.Dense(65))
        >>> lm
        stack(
          0_Embed: Embed(num_embeddings=65, features=16)
          1_lstm: lstm(width=32)
          2_dropout: dropout(rate=0.1)
          3_Dense: Dense(features=65)
        )
        >>> tokens = jnp.zeros((2, 5), int)
        >>> carry, logits = rnnx.unroll(lm, lm.init(jax.random.key(0), tokens), tokens)
        >>> carry[1].h.shape, logits.shape
        ((2, 32), (2, 5, 65))
    """
    children = _named(layers)
    if not children:
        raise ValueError("stack needs at least one layer")

    def init(key: Key, xs: PyTree) -> Params:
        params = {}
        for (name, layer), k in zip(children, split_key(key, len(children))):
            params[name] = layer.init(k, xs)
            xs = output_struct(layer, params[name], xs)
        return params

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        carries = []
        for (name, layer), k in zip(children, split_key(key, len(children))):
            carries.append(layer.initial_carry(params[name], xs, k))
            xs = output_struct(layer, params[name], xs)
        return tuple(carries)

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        carries = []
        for (name, layer), c, k in zip(children, carry, split_key(key, len(children))):
            c, xs = layer.apply(params[name], c, xs, lengths=lengths, resets=resets, key=k)
            carries.append(c)
        return tuple(carries), xs

    spec = Spec("stack", children=children, chained=True, directions=_directions(children))
    return Layer(init, initial_carry, apply, spec)


def parallel(*layers: Layer | nn.Module, merge: Merge = concatenate) -> Layer:
    """Layers side by side, all reading the same input, their outputs merged.

    Args:
        *layers: Layers and Flax linen modules.
        merge: `(*ys) -> ys`; by default the outputs are joined along their features.

    Returns:
        The Layer. Params are a dict by place and name, `{"0_lstm": ..., "1_gru": ...}`; the carry is the tuple of
        the layers' carries.

    Raises:
        TypeError: for what is neither a Layer nor a linen module.
        ValueError: without any layer.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.parallel(rnnx.lstm(4), rnnx.gru(2))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 6)
    """
    children = _named(layers)
    if not children:
        raise ValueError("parallel needs at least one layer")

    def init(key: Key, xs: PyTree) -> Params:
        keys = split_key(key, len(children))
        return {name: layer.init(k, xs) for (name, layer), k in zip(children, keys)}

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        keys = split_key(key, len(children))
        return tuple(layer.initial_carry(params[name], xs, k) for (name, layer), k in zip(children, keys))

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        results = [
            layer.apply(params[name], c, xs, lengths=lengths, resets=resets, key=k)
            for (name, layer), c, k in zip(children, carry, split_key(key, len(children)))
        ]
        carries, ys = zip(*results)
        return tuple(carries), zero_pads(merge(*ys), lengths)

    options = {} if merge is concatenate else {"merge": merge}
    return Layer(init, initial_carry, apply, Spec("parallel", options, children, directions=_directions(children)))


def reverse(layer: Layer | nn.Module) -> Layer:
    """Walks each sequence from its last valid step to its first; `ys[:, t]` still belongs to `xs[:, t]`.

    Args:
        layer: the Layer to run backwards.

    Returns:
        The Layer, with the same params and carry. The final carry is the one after step 0. Chunks are taken
        from right to left. A reset before step 0 separates nothing here and is ignored: where it stands on the
        border to a chunk further left, that one begins with the initial carry.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.reverse(rnnx.gru(4))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> bool((carry == ys[:, 0]).all())
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


class BiCarry(NamedTuple):
    """The final carries of both directions: `forward` after the last valid step, `backward` after step 0."""

    forward: Carry
    backward: Carry


def bidirectional(
    forward: Layer | nn.Module, backward: Layer | nn.Module | None = None, *, merge: Merge = concatenate
) -> Layer:
    """Reads each sequence in both directions and merges what each says about every step.

    Args:
        forward: the Layer that reads from left to right.
        backward: the Layer that reads from right to left; default: another of the same kind, with params of
            its own.
        merge: `(forward ys, backward ys) -> ys`; by default they are joined along their features; `jnp.add`,
            `jnp.multiply` and `jnp.maximum` are others.

    Returns:
        The Layer. Params `{"forward": ..., "backward": ...}`; the final carry is a `BiCarry`. Lengths and
        resets are honoured in both directions. It needs whole sequences: `unroll` refuses a carry for it.

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
    both = parallel(forward, reverse(backward), merge=merge)
    names = [name for name, _ in both.spec.children]

    def init(key: Key, xs: PyTree) -> Params:
        params = both.init(key, xs)
        return {"forward": params[names[0]], "backward": params[names[1]]}

    def renamed(params: Params) -> Params:
        return {names[0]: params["forward"], names[1]: params["backward"]}

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> BiCarry:
        return BiCarry(*both.initial_carry(renamed(params), xs, key))

    def apply(params: Params, carry: BiCarry, xs: PyTree, **options: Any) -> tuple[BiCarry, PyTree]:
        carry, ys = both.apply(renamed(params), carry, xs, **options)
        return BiCarry(*carry), ys

    children = (("forward", forward), ("backward", backward))
    directions = frozenset({"forward", "backward"})
    return Layer(init, initial_carry, apply, Spec("bidirectional", both.spec.options, children, directions=directions))


def repeat(layer: Layer | nn.Module, n: int) -> Layer:
    """`n` layers of one kind, one after the other, with params of their own: a deep stack at the compile time of one.

    Args:
        layer: a Layer whose outputs have the shape and dtype of its inputs.
        n: how many.

    Returns:
        The Layer. Params are those of `layer` with a leading axis of size `n`; each leaf of the carry is
        `[batch, n, ...]`.

    Raises:
        ValueError: for `n` below 1; in `init` and `apply` when outputs do not look like inputs.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.repeat(rnnx.residual(rnnx.gru(4)), 8)
        >>> xs = jnp.ones((2, 5, 4))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> params["bias"].shape
        (8, 12)
        >>> carry, ys = rnnx.unroll(layer, params, xs)
        >>> carry.shape
        (2, 8, 4)
    """
    inner = as_layer(layer)
    if n < 1:
        raise ValueError(f"repeat: n is {n}, but it must be 1 or more")

    def shapes(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda a: f"{canonicalize_dtype(a.dtype).name}{list(a.shape)}", tree)

    def check(params: Params, xs: PyTree) -> None:
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), params)
        made = shapes(output_struct(inner, one, xs))
        if made != shapes(xs):
            raise ValueError(
                f"repeat: each layer's output must look like its input, but {inner.spec.name} makes {made} of "
                f"{shapes(xs)}; put an nn.Dense before it, or after it inside a stack, to make the widths equal"
            )

    def init(key: Key, xs: PyTree) -> Params:
        params = jax.vmap(lambda k: inner.init(k, xs))(jax.random.split(key, n))
        check(params, xs)
        return params

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        keys = None if key is None else jax.random.split(key, n)
        in_axes = (0, None if key is None else 0)
        one = jax.vmap(lambda p, k: inner.initial_carry(p, xs, k), in_axes, out_axes=1, axis_size=n)
        return one(params, keys)

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        check(params, xs)

        def body(xs: PyTree, layer: tuple[Params, Carry, Key | None]) -> tuple[PyTree, Carry]:
            p, c, k = layer
            c, ys = inner.apply(p, c, xs, lengths=lengths, resets=resets, key=k)
            return ys, c

        keys = None if key is None else jax.random.split(key, n)
        by_layer = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), carry)
        ys, by_layer = jax.lax.scan(body, xs, (params, by_layer, keys), length=n)
        return jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), by_layer), ys

    spec = Spec("repeat", {"n": n}, (("layer", inner),), directions=inner.spec.directions)
    return Layer(init, initial_carry, apply, spec)


def residual(layer: Layer | nn.Module) -> Layer:
    """Adds the input to the output: `ys = xs + layer(xs)`.

    Args:
        layer: a Layer whose outputs have the shape of its inputs.

    Returns:
        The Layer, with the same params and carry.

    Raises:
        ValueError: when outputs and inputs differ in shape.

    Reference: K. He et al., *Deep residual learning for image recognition*, CVPR 2016.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.residual(rnnx.gru(3))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 3)
    """
    inner = as_layer(layer)

    def apply(params: Params, carry: Carry, xs: PyTree, **options: Any) -> tuple[Carry, PyTree]:
        carry, ys = inner.apply(params, carry, xs, **options)
        before, after = jax.tree.map(jnp.shape, xs), jax.tree.map(jnp.shape, ys)
        if before != after:
            raise ValueError(
                f"residual: {inner.spec.name} makes {after} of {before}, which cannot be added; make the widths equal"
            )
        return carry, jax.tree.map(jnp.add, zero_pads(xs, options.get("lengths")), ys)

    spec = Spec("residual", children=(("layer", inner),), directions=inner.spec.directions)
    return Layer(inner.init, inner.initial_carry, apply, spec)


@factory
def dropout(rate: float) -> Layer:
    """Sets each number to zero with probability `rate` and scales the rest up, when there is a key.

    Args:
        rate: between 0 and 1, below 1. Every feature of every step is drawn by itself.

    Returns:
        The Layer, without params or carry. With `key=None` it passes its input on. In a pytree of inputs it
        leaves integers as they are.

    Raises:
        ValueError: for a rate outside [0, 1), and for inputs that are nothing but integers.

    Reference: N. Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*,
    JMLR 15 (2014); for recurrent nets between the layers only: W. Zaremba et al., arXiv 1409.2329.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.dropout(0.5)
        >>> _, ys = rnnx.unroll(layer, {}, jnp.ones((1, 100, 100)), key=jax.random.key(0))
        >>> sorted(set(ys.ravel().tolist()))
        [0.0, 2.0]
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: the rate is {rate}, but it must lie in [0, 1)")

    def drop(x: jax.Array, key: Key) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0).astype(x.dtype)

    def init(key: Key, xs: PyTree) -> Params:
        return {}

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        return ()

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        if float_dtype(xs) is None:
            raise ValueError("dropout was given nothing but integers: put it after the nn.Embed, not before")
        if key is not None and rate > 0:
            leaves, structure = jax.tree.flatten(xs)
            dropped = [drop(x, k) for x, k in zip(leaves, split_key(key, len(leaves)))]
            xs = jax.tree.unflatten(structure, dropped)
        return carry, zero_pads(xs, lengths)

    return Layer(init, initial_carry, apply, Spec("dropout", directions=frozenset()))
