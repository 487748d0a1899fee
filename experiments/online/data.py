"""The stream of cues, distractors and queries."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.online.config import Data


class Stream(NamedTuple):
    """Where each row of the batch is: `wait` `[batch]`, steps until the query, and the `bits` `[batch, n]`."""

    wait: jax.Array
    bits: jax.Array


class Target(NamedTuple):
    """`bits` `[..., n]`, -1 or 1, and whether they are `asked` for at this step, `[...]`."""

    bits: jax.Array
    asked: jax.Array


def initial_stream(data: Data, batch: int) -> Stream:
    return Stream(jnp.zeros(batch, jnp.int32), jnp.ones((batch, data.bits)))


def advance(data: Data, stream: Stream, key: jax.Array) -> tuple[Stream, tuple[jax.Array, Target]]:
    """One time step of every row: the input `[batch, 2 bits]` and its target."""
    k_bits, k_gap, k_noise = jax.random.split(key, 3)
    begins = stream.wait == 0
    shape = stream.bits.shape
    bits = jnp.where(begins[:, None], jax.random.rademacher(k_bits, shape, jnp.float32), stream.bits)
    gap = jax.random.randint(k_gap, shape[:1], data.shortest, data.longest + 1)
    wait = jnp.where(begins, gap, stream.wait - 1)
    cue = jnp.where(begins[:, None], bits, 0)
    x = jnp.concatenate([cue, jax.random.rademacher(k_noise, shape, jnp.float32)], axis=1)
    return Stream(wait, bits), (x, Target(bits, wait == 0))


def read(data: Data, stream: Stream, keys: jax.Array) -> tuple[Stream, tuple[jax.Array, Target]]:
    """A time step for each key; the time axis comes first."""
    return jax.lax.scan(functools.partial(advance, data), stream, keys)
