"""Applies a Flax linen module, or a function, to every time step, as a Layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from rnnx.arguments import describe
from rnnx.base import AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree, Spec
from rnnx.interning import interned
from rnnx.memory import checked_init
from rnnx.sequences import (
    batch_and_time,
    cast_floats,
    concrete_values,
    fill_pads,
    float_dtype,
    split_key,
    step_struct,
    widen_integers,
    zero_pads,
)


def as_layer(layer: Any) -> Layer:
    """Returns a Layer unchanged, and converts a Flax linen module by `pointwise`; for others, raises with a hint."""
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, nn.RNNCellBase):
        hint = "; rnnx.scan(rnnx.linen.as_cell(cell)) converts it; rnnx.lstm(width), ... are the recurrent layers here"
    elif isinstance(layer, nn.Module):
        return pointwise(layer)
    elif isinstance(layer, Cell):
        hint = "; rnnx.scan(cell) makes a Layer of it"
    elif isinstance(layer, AssociativeCell):
        hint = "; rnnx.scan(rnnx.as_cell(cell)) makes a Layer of it"
    elif is_factory(layer):
        hint = f"; call it to make one: rnnx.{layer.__name__}(...)"
    elif isinstance(layer, type) and issubclass(layer, nn.Module):
        hint = f"; it is a class, call it to make a module: nn.{layer.__name__}(...)"
    elif isinstance(layer, list | tuple):
        hint = "; pass the layers as separate arguments: stack(*layers)"
    elif type(layer).__module__.startswith("flax.nnx"):
        hint = "; rnnx layers take modules of flax.linen, not flax.nnx"
    elif callable(layer):
        hint = "; rnnx.pointwise(function) applies a function of one step to every step"
    else:
        hint = ""
    given = getattr(layer, "__name__", None) or repr(layer)
    if isinstance(layer, nn.Module) or type(layer).__module__.startswith("flax.nnx"):
        given = f"a {type(layer).__module__.split('.')[1]} module {type(layer).__name__}"
    raise TypeError(f"expected a Layer or a flax.linen module, but got {given}{hint}")


def is_factory(function: Any) -> bool:
    """Whether a function is annotated to return a Layer or a cell."""
    return getattr(function, "__annotations__", {}).get("return") in _FACTORY_RESULTS


_FACTORY_RESULTS = (Layer, Cell, AssociativeCell, "Layer", "Cell", "AssociativeCell")


@interned
def pointwise(module: nn.Module | Callable[[PyTree], PyTree]) -> Layer:
    """Applies a Flax linen module, or a function, to each time step separately, so it cannot mix steps.

    Combinators call it on every module they are given: `rnnx.stack(nn.Embed(65, 16), ..., nn.Dense(65))`.

    Args:
        module: any linen module whose only variables are params, or a function without params (`jax.nn.relu`). It
            gets one step `[...]`, without batch or time.

    Returns:
        The Layer. Its params are the module's, its carry is empty. Outputs are cast to the dtype of the inputs, if
        those are floating. The module gets `key` as its `dropout` rng, split over the steps. With `key=None` it gets no
        rng, so prefer `rnnx.dropout` to `nn.Dropout`: it is then deterministic.

    Raises:
        TypeError: if `module` is neither a linen module nor a function; if the input of an `nn.Embed` is not integers.
        ValueError: in `init`, if the module has other collections than params (`batch_stats`, ...).
        ValueError: if tokens given to an `nn.Embed` lie outside its vocabulary. Only concrete arrays can be checked;
            under `jax.jit`, tokens are clamped to the vocabulary.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.pointwise(nn.Dense(7))
        >>> xs = jnp.ones((2, 5, 3))
        >>> _, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 7)
    """
    if not callable(module) or isinstance(module, Layer):
        raise TypeError(f"pointwise takes a flax.linen module or a function of one step, but got {module!r}")
    if is_factory(module) or (isinstance(module, type) and issubclass(module, nn.Module)):
        raise TypeError(
            f"pointwise takes a flax.linen module or a function of one step, but got {module.__name__}; call it to "
            f"make one: {module.__name__}(...)"
        )
    if not isinstance(module, nn.Module):
        module = _Function(module)
    spec = _spec(module)

    def init(key: Key, xs: PyTree) -> Params:
        params_key, dropout_key = split_key(key, 2)
        if isinstance(module, nn.Embed):
            _check_tokens(xs)
        x = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), step_struct(xs))
        y, variables = _init_with_output(spec, module, {"params": params_key, "dropout": dropout_key}, x)
        if not jax.tree.leaves(y) or not all(isinstance(leaf, jax.Array | float | int) for leaf in jax.tree.leaves(y)):
            raise TypeError(f"pointwise: {spec.name} returned {describe(y)} for one step, expected arrays")
        others = sorted(set(variables) - {"params"})
        if others:
            raise ValueError(
                f"{spec.name} has the collections {others} besides its params, but a Layer has only params; use a "
                "module without them (e.g. nn.LayerNorm instead of nn.BatchNorm)"
            )
        return variables.get("params", {})

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
        if isinstance(module, nn.Embed):
            _check_tokens(xs)
            xs = _clip_tokens(module, xs, lengths)
        xs = fill_pads(xs, lengths)

        def one(x: PyTree, key: Key | None) -> PyTree:
            return module.apply({"params": params}, x, rngs=None if key is None else {"dropout": key})

        keys = None if key is None else jax.random.split(key, batch_and_time(xs))
        in_axes = (0, None if key is None else 0)
        ys = jax.vmap(jax.vmap(one, in_axes), in_axes)(xs, keys)
        return carry, zero_pads(cast_floats(ys, float_dtype(xs)), lengths)

    return Layer(checked_init(spec, init), initial_carry, apply, spec)


def _init_with_output(
    spec: Spec, module: nn.Module, rngs: dict[str, Key], x: PyTree
) -> tuple[PyTree, Mapping[str, Params]]:
    """Initialises a module on one step; raises with a hint if that fails."""
    try:
        return module.init_with_output(rngs, x)
    except (TypeError, ValueError, IndexError, AttributeError, ArithmeticError, AssertionError, FlaxError) as error:
        shapes, reason = jax.tree.map(jnp.shape, x), (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = next((hint for kind, hint in HINTS.items() if isinstance(module, kind)), "")
        raise ValueError(
            f"pointwise: {spec.name} fails on one step of shape {shapes}, without batch and time: {reason}{hint}"
        ) from error


HINTS = {
    nn.Dropout: "; use rnnx.dropout(rate)",
    nn.BatchNorm: "; nn.LayerNorm() normalises each step separately",
    nn.Conv: "; to convolve over time, use rnnx.causal_conv(width), or nn.Dense(width) after rnnx.window(size)",
    nn.MultiHeadDotProductAttention: "; for attention over time, use rnnx.gla(width) or rnnx.delta_net(width)",
}


class _Function(nn.Module):
    function: Callable[[PyTree], PyTree]

    def __call__(self, x: PyTree) -> PyTree:
        return self.function(x)


def _spec(module: nn.Module) -> Spec:
    if isinstance(module, _Function):
        return Spec(getattr(module.function, "__name__", "function"), directions=frozenset())
    hidden = {"name", "parent"}
    fields = [f for f in dataclasses.fields(module) if f.name not in hidden]
    options = {f.name: getattr(module, f.name) for f in fields if getattr(module, f.name) is not f.default}
    return Spec(type(module).__name__, options, directions=frozenset())


def _check_tokens(tokens: PyTree) -> None:
    if not hasattr(tokens, "dtype") or not jnp.issubdtype(tokens.dtype, jnp.integer):
        hint = ", or one-hot vectors by xs.argmax(axis=-1)" if getattr(tokens, "ndim", 2) > 2 else ""
        raise TypeError(
            f"nn.Embed takes integers, tokens [batch, time], but xs is {describe(tokens)}; convert by "
            f"xs.astype(int){hint}"
        )


def _clip_tokens(embed: nn.Embed, tokens: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """Clips tokens to the vocabulary; raises for known values outside it, except in pads."""
    top = embed.num_embeddings - 1
    values, valid = concrete_values(tokens), None if lengths is None else concrete_values(lengths)
    if values is not None and valid is not None:
        values = values[np.arange(values.shape[1]) < valid[:, None]]
    if values is not None and values.size and (lengths is None or valid is not None):
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > top:
            raise ValueError(
                f"tokens lie between {low} and {high}, but the vocabulary of {embed.num_embeddings} has only 0 to "
                f"{top}; check the encoding, or pass lengths if these are pads"
            )
    return jnp.clip(widen_integers(tokens), 0, top)
