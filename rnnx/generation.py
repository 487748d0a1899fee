"""Closed-loop generation: what a layer says becomes what it hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.arguments import shown
from rnnx.base import Carry, Key, Layer, Params, PyTree
from rnnx.checks import (
    as_array,
    as_arrays,
    check_count,
    check_function,
    check_number,
    check_params,
    checked_carry,
    checked_xs,
)
from rnnx.hints import explained
from rnnx.memory import byte_size, check_memory, device_memory
from rnnx.pointwise import as_layer
from rnnx.sequences import checked_key, concrete_values, widen_integers


@explained
def generate(
    layer: Layer,
    params: Params,
    carry: Carry,
    last: PyTree,
    *,
    steps: int,
    sample: Callable[[Any, PyTree], PyTree],
    key: Key | None = None,
) -> tuple[Carry, PyTree]:
    """Feeds each output back as the next input.

    Args:
        layer: a causal layer, or a Flax linen module.
        params: its params.
        carry: the state *before* `last` is read, e.g. from `unroll` over all of the prime but its last step.
        last: the input to begin with, leaves `[batch, ...]`.
        steps: how many new steps to make; 0 makes none.
        sample: `(key, y) -> x`, from one step's outputs `[batch, ...]` to the next inputs: `rnnx.sampler()` for
            logits over tokens, `lambda key, y: y` for a forecast.
        key: for the sampling; a `sample` that draws nothing needs none.

    Returns:
        `(carry, xs)`: the carry before the last of the new steps is read (so that `generate` can go on from
        there, with `xs[:, -1]` as `last`), and the new steps `[batch, steps, ...]`.

    Raises:
        TypeError: for `steps` that are no whole number, or a `sample` that gives floats for tokens or the reverse.
        ValueError: when the layer looks into the future; when params, carry or `last` do not fit it, or the
            samples do not look like `last`; when tokens in `last` lie outside the vocabulary (on concrete arrays).

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> lm = rnnx.stack(nn.Embed(5, 8), rnnx.gru(8), nn.Dense(5))
        >>> prime = jnp.array([[0, 3, 1]])
        >>> params = lm.init(jax.random.key(0), prime)
        >>> carry, _ = rnnx.unroll(lm, params, prime[:, :-1])
        >>> carry, text = rnnx.generate(
        ...     lm, params, carry, prime[:, -1], steps=4, sample=rnnx.sampler(), key=jax.random.key(1)
        ... )
        >>> text.shape
        (1, 4)
    """
    layer = as_layer(layer)
    if not layer.spec.causal:
        raise ValueError(f"generate needs a layer that looks only backwards in time, but this one does not:\n{layer}")

    check_count("generate", "steps", steps, 0)
    check_function("generate", "sample", sample, "(key, y) -> x")
    key = None if key is None else checked_key(key)
    last = widen_integers(as_arrays(last, "last"))  # a token of a large vocabulary does not fit into eight bits
    if any(not leaf.ndim for leaf in jax.tree.leaves(last)):
        raise ValueError("generate: last must be [batch, ...], but a leaf has shape (); give one number for each row")
    xs = checked_xs(jax.tree.map(lambda a: a[:, None], last))
    check_params(layer, params, xs)
    carry = checked_carry(layer, params, xs, carry)
    if all(concrete_values(leaf) is not None for leaf in jax.tree.leaves(last)):
        layer.apply(params, carry, xs)  # one step outside of the loop, where the values of tokens can be looked at

    def step(state: tuple[Carry, PyTree], key: Key | None) -> tuple[tuple[Carry, PyTree], PyTree]:
        carry, x = state
        carry, ys = layer.apply(params, carry, jax.tree.map(lambda a: a[:, None], x))
        following = sample(key, jax.tree.map(lambda a: a[:, 0], ys))
        came, wanted = (jax.tree.map(jnp.shape, tree) for tree in (following, x))
        if came != wanted:
            raise ValueError(
                f"generate: sample gave {came}, but what the layer reads has the shape {wanted}; the layer's outputs "
                "must be what it takes as inputs, or sample must make it of them (rnnx.sampler() draws tokens)"
            )
        for a, b in zip(jax.tree.leaves(following), jax.tree.leaves(x)):
            if jnp.issubdtype(jnp.result_type(a), jnp.floating) != jnp.issubdtype(b.dtype, jnp.floating):
                raise TypeError(f"generate: sample gave {jnp.result_type(a)}, but the layer reads {b.dtype}")
        following = jax.tree.map(lambda a, b: a.astype(b.dtype), following, x)
        return (carry, following), following

    check_memory("generate", f"{steps} steps", steps * (byte_size(last) + (0 if key is None else 8)), device_memory())
    keys = None if key is None else jax.random.split(key, steps)
    (carry, _), xs = jax.lax.scan(step, (carry, last), keys, length=steps)
    return carry, jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), xs)


@explained
def sampler(
    temperature: float = 1.0, *, top_k: int | None = None, top_p: float | None = None
) -> Callable[[Key, jax.Array], jax.Array]:
    """Draws tokens from logits.

    Args:
        temperature: divides the logits: below 1 surer, above 1 bolder; 0 takes the likeliest token.
        top_k: draw only among the k likeliest tokens, and those as likely as the last of them (Fan et al. 2018).
        top_p: draw only among the fewest tokens whose probabilities reach p together, and those as likely as the last
            of them (Holtzman et al. 2020).

    Returns:
        `(key, logits [..., V]) -> tokens [...]`, for `generate`. It computes in float32 or more: logits may come in any
        precision. (Of rounded ones many are equal, and stay together in `top_k` and `top_p`.)

    Raises:
        TypeError: for options that are no numbers; from the function, for logits that are not floating, and for no key
            (unless the temperature is 0).
        ValueError: for a negative temperature, a `top_k` below 1, or a `top_p` outside (0, 1].

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> int(rnnx.sampler(0.5, top_k=1)(jax.random.key(0), jnp.array([0.0, 2.0, 1.0])))
        1
    """
    check_number("sampler", "temperature", temperature)
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}, but it must be 0 or more")
    if top_k is not None:
        check_count("sampler", "top_k", top_k)
    if top_p is not None:
        check_number("sampler", "top_p", top_p)
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, but it must lie in (0, 1] (None for all tokens)")

    def sample(key: Key, logits: jax.Array) -> jax.Array:
        logits = as_array(logits, "sampler: logits", "floating numbers")
        if not jnp.issubdtype(logits.dtype, jnp.floating) or not logits.ndim or not logits.shape[-1]:
            raise TypeError(f"sampler: logits is {shown(logits)}, but floating numbers [..., tokens] are wanted")
        if temperature == 0:
            return jnp.argmax(logits, axis=-1)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        below = logits - jnp.max(logits, axis=-1, keepdims=True)
        logits = jnp.where(below < 0, below / temperature, 0)  # of the largest, 0 / 0 at a temperature that rounds to 0
        if top_k is not None:
            k = min(top_k, logits.shape[-1])
            least = jax.lax.top_k(logits, k)[0][..., -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        if top_p is not None:
            descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
            probabilities = jax.nn.softmax(descending, axis=-1)
            before = jnp.cumsum(probabilities, axis=-1) - probabilities
            least = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
            logits = jnp.where(logits < least, -jnp.inf, logits)
        return jax.random.categorical(checked_key(key), logits, axis=-1)

    return sample
