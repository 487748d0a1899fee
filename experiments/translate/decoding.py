"""Targets from a trained model by beam search; with a single hypothesis it is greedy decoding."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.translate.data import EDGES, STOP, Symbols, Translations, numbered
from experiments.translate.model import Seq2Seq

LONGEST = EDGES[-1]


class Written(NamedTuple):
    """The hypotheses, best first: `tokens` `[batch, beam, LONGEST]`, zero from the end on; `log_prob` `[batch, beam]`,
    of all of them, the end included; `weights` `[batch, beam, LONGEST, source]`, the attention of the decoder."""

    tokens: jax.Array
    log_prob: jax.Array
    weights: jax.Array


def search(model: Seq2Seq, params: Any, source: jax.Array, lengths: jax.Array, *, beam: int) -> Written:
    """Keeps the `beam` hypotheses `[batch, beam]` that are likeliest so far; one that has ended stays as it is."""
    batch = len(source)
    memory = jax.tree.map(lambda a: jnp.repeat(a, beam, axis=0), model.encode(params, source, lengths))
    rows = jnp.arange(batch)[:, None]

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(batch, beam, *a.shape[1:]), tree)

    def joined(tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(batch * beam, *a.shape[2:]), tree)

    def read(carry: Any, token: jax.Array) -> Any:
        """What follows each hypothesis: the decoder's carry, log-probabilities `[batch, beam, symbols]`, weights."""
        carry, logits, weights = model.decode(params, memory, carry, token.reshape(-1, 1))
        return split(carry), split(jax.nn.log_softmax(logits[:, 0])), split(weights[:, 0])

    def step(now: Any, place: jax.Array) -> tuple[Any, None]:
        (carry, log_probs, weights), written, over = now
        ended = jnp.where(jnp.arange(log_probs.shape[-1]) == STOP, 0, -jnp.inf)
        follow = jnp.where(over[..., None], ended, log_probs) + written.log_prob[..., None]
        best, which = jax.lax.top_k(follow.reshape(batch, -1), beam)
        parent, token = which // log_probs.shape[-1], (which % log_probs.shape[-1]).astype(jnp.int32)
        carry, weights, over, tokens, looked = jax.tree.map(
            lambda a: a[rows, parent], (carry, weights, over, written.tokens, written.weights)
        )
        written = Written(tokens.at[:, :, place].set(token), best, looked.at[:, :, place].set(weights))
        return (read(joined(carry), token), written, over | (token == STOP)), None

    tokens = jnp.zeros((batch, beam, LONGEST), jnp.int32)
    begun = read(None, tokens[..., 0])
    # All hypotheses are still the same: all but the first get probability zero.
    log_prob = jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf), (batch, beam))
    written = Written(tokens, log_prob, jnp.zeros((batch, beam, LONGEST, source.shape[1])))
    begin = begun, written, jnp.zeros((batch, beam), bool)
    (_, written, _), _ = jax.lax.scan(step, begin, jnp.arange(LONGEST))
    return written


class Translator:
    """The best target of each source; compiled once for each number of hypotheses."""

    BATCH = 256

    def __init__(self, model: Seq2Seq, data: Translations) -> None:
        self._data = data
        self._search = jax.jit(functools.partial(search, model), static_argnames="beam")

    def __call__(self, params: Any, sources: Sequence[Symbols], *, beam: int) -> list[Symbols]:
        numbers, lengths = numbered(sources, self._data.sources, LONGEST)
        found: list[Symbols] = []
        for start in range(0, len(sources), self.BATCH):
            own = slice(start, start + self.BATCH)
            short = self.BATCH - len(lengths[own])
            # The last batch is filled up with sources of one pad, to have the compiled shape.
            batch = np.pad(numbers[own], ((0, short), (0, 0))), np.pad(lengths[own], (0, short), constant_values=1)
            tokens = np.asarray(self._search(params, *batch, beam=beam).tokens[:, 0])
            found += [self._symbols(row) for row in tokens[: len(lengths[own])]]
        return found

    def attention(self, params: Any, source: Symbols) -> tuple[Symbols, np.ndarray]:
        """The target of a source by a single hypothesis, and each symbol's attention, `[target, source]`."""
        numbers, lengths = numbered([source], self._data.sources, LONGEST)
        written = self._search(params, numbers, lengths, beam=1)
        target = self._symbols(np.asarray(written.tokens[0, 0]))
        return target, np.asarray(written.weights[0, 0])[: len(target), : len(source)]

    def _symbols(self, tokens: np.ndarray) -> Symbols:
        end = int(np.argmax(tokens == STOP)) if (tokens == STOP).any() else len(tokens)
        return tuple(self._data.targets[token - 1] for token in tokens[:end])
