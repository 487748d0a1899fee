"""Autoregressive generation: each output of a layer becomes its next input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.arguments import describe
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
from rnnx.meshes import explicit_batch_axes, explicit_mesh, run_on_rows, vary_alike
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
    """Generates a sequence autoregressively: feeds each output back as the next input.

    Args:
        layer: a causal layer, or a Flax linen module.
        params: its params.
        carry: the carry *before* `last` is read, e.g. from `unroll` over all steps of the prompt but the last.
        last: the first input, leaves `[batch, ...]`.
        steps: the number of steps to generate; may be 0.
        sample: `(key, y) -> x`, from the outputs of one step `[batch, ...]` to the next inputs: `rnnx.sampler()` for
            logits over tokens, `lambda key, y: y` for a forecast.
        key: for sampling; not needed if `sample` is deterministic.

    Returns:
        `(carry, xs)`: the carry before the last new step is read (so `generate` can continue from it, with
        `xs[:, -1]` as `last`), and the new steps `[batch, steps, ...]`.

    Raises:
        TypeError: if `steps` is not an integer; if `sample` returns floats for tokens, or tokens for floats.
        ValueError: if the layer is not causal; if params, carry or `last` do not fit it, or the samples differ in shape
            from `last`; if tokens in `last` lie outside the vocabulary (concrete arrays only).

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> lm = rnnx.stack(nn.Embed(5, 8), rnnx.gru(8), nn.Dense(5))
        >>> prompt = jnp.array([[0, 3, 1]])
        >>> params = lm.init(jax.random.key(0), prompt)
        >>> carry, _ = rnnx.unroll(lm, params, prompt[:, :-1])
        >>> carry, text = rnnx.generate(
        ...     lm, params, carry, prompt[:, -1], steps=4, sample=rnnx.sampler(), key=jax.random.key(1)
        ... )
        >>> text.shape
        (1, 4)
    """
    layer = as_layer(layer)
    if not layer.spec.causal:
        raise ValueError(f"generate needs a causal layer, but this one reads from right to left:\n{layer}")

    check_count("generate", "steps", steps, 0)
    check_function("generate", "sample", sample, "(key, y) -> x")
    key = None if key is None else checked_key(key)
    last = widen_integers(as_arrays(last, "last"))  # tokens of a large vocabulary do not fit into 8 bits
    if any(not leaf.ndim for leaf in jax.tree.leaves(last)):
        raise ValueError("generate: last must be [batch, ...], but a leaf has shape (); pass one input per row")
    xs = checked_xs(jax.tree.map(lambda a: a[:, None], last))
    check_params(layer, params, xs)
    carry = checked_carry(layer, params, xs, carry)
    mesh = explicit_mesh((params, carry, last))
    if mesh is None and all(concrete_values(leaf) is not None for leaf in jax.tree.leaves(last)):
        layer.apply(params, carry, xs)  # one step outside the loop, where the values of tokens can be checked

    def step(params: Params, state: tuple[Carry, PyTree], key: Key | None) -> tuple[tuple[Carry, PyTree], PyTree]:
        carry, x = state
        carry, ys = layer.apply(params, carry, jax.tree.map(lambda a: a[:, None], x))
        next_x = sample(key, jax.tree.map(lambda a: a[:, 0], ys))
        shapes, expected = (jax.tree.map(jnp.shape, tree) for tree in (next_x, x))
        if shapes != expected:
            raise ValueError(
                f"generate: sample returned shape {shapes}, but the layer reads shape {expected}; sample must turn the "
                "layer's outputs into its inputs (rnnx.sampler() draws tokens from logits)"
            )
        for a, b in zip(jax.tree.leaves(next_x), jax.tree.leaves(x)):
            if jnp.issubdtype(jnp.result_type(a), jnp.floating) != jnp.issubdtype(b.dtype, jnp.floating):
                raise TypeError(f"generate: sample returned {jnp.result_type(a)}, but the layer reads {b.dtype}")
        next_x = jax.tree.map(lambda a, b: a.astype(b.dtype), next_x, x)
        return (carry, next_x), next_x

    check_memory("generate", f"{steps} steps", steps * (byte_size(last) + (0 if key is None else 8)), device_memory())

    def run(params: Params, rows: tuple[Carry, PyTree], key: Key | None) -> tuple[Carry, PyTree]:
        params, rows, key = vary_alike(params, rows, key)
        keys = None if key is None else jax.random.split(key, steps)
        (carry, _), xs = jax.lax.scan(functools.partial(step, params), rows, keys, length=steps)
        return carry, jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), xs)

    rows = carry, last
    if mesh is None:
        return run(params, rows, key)
    return run_on_rows(run, mesh, explicit_batch_axes(rows), params, rows, key)


@explained
def sampler(
    temperature: float = 1.0, *, top_k: int | None = None, top_p: float | None = None
) -> Callable[[Key, jax.Array], jax.Array]:
    """Makes a function that samples tokens from logits.

    Args:
        temperature: divides the logits: below 1 sharper, above 1 flatter; 0 takes the most likely token (greedy).
        top_k: sample only from the k most likely tokens, ties with the last of them included (Fan et al. 2018).
        top_p: nucleus sampling: sample only from the smallest set of tokens with a total probability of at least p,
            ties with the last of them included (Holtzman et al. 2020).

    Returns:
        `(key, logits [..., V]) -> tokens [...]`, for `generate`. It accepts logits of any floating dtype and computes
        in float32 or wider. (Logits in 16 bits have many ties, which `top_k` and `top_p` keep together.)

    Raises:
        TypeError: if options are not numbers; from the function, if logits are not floating, or the key is missing
            (unless the temperature is 0).
        ValueError: if `temperature` is negative, `top_k` is below 1, or `top_p` is outside (0, 1].

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
            raise TypeError(f"sampler: logits is {describe(logits)}, but it must be floating numbers [..., tokens]")
        if temperature == 0:
            return jnp.argmax(logits, axis=-1)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
        logits = jnp.where(shifted < 0, shifted / temperature, 0)  # 0 / 0 at the maximum if temperature rounds to 0
        if top_k is not None:
            k = min(top_k, logits.shape[-1])
            threshold = jax.lax.top_k(logits, k)[0][..., -1:]
            logits = jnp.where(logits < threshold, -jnp.inf, logits)
        if top_p is not None:
            descending = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
            probabilities = jax.nn.softmax(descending, axis=-1)
            cumulative = jnp.cumsum(probabilities, axis=-1) - probabilities
            threshold = jnp.min(jnp.where(cumulative < top_p, descending, jnp.inf), axis=-1, keepdims=True)
            logits = jnp.where(logits < threshold, -jnp.inf, logits)
        return jax.random.categorical(checked_key(key), logits, axis=-1)

    return sample
