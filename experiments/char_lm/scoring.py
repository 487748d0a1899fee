"""The loss on text that was not trained on."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments.char_lm.corpus import Corpus
from experiments.char_lm.model import TrainState
from experiments.char_lm.settings import CharLM

MONITOR = "val_loss"


class Scorer:
    """The mean loss, in nats per character, on given places of a text."""

    def __init__(self, model: rnnx.Layer, text: np.ndarray) -> None:
        self._model, self._text = model, text

        def chunk(
            params: Any, carry: Any, inputs: jax.Array, targets: jax.Array, scored: jax.Array
        ) -> tuple[Any, jax.Array]:
            carry, logits = rnnx.unroll(model, params, inputs, carry=carry)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return carry, jnp.where(scored, losses, 0.0).sum()

        self._chunk = functools.cache(lambda placement: jax.jit(chunk, out_shardings=placement))

    def __call__(self, params: Any, places: np.ndarray, scored: np.ndarray, chunk: int) -> float:
        """Reads the characters at `places` [rows, length] and scores the one after each.

        `chunk` places at a time, with the state kept: logits for all at once would fill the
        memory. The sum is taken in the host's double precision.
        """
        padded = ((0, 0), (0, -places.shape[1] % chunk))
        places = np.pad(places, padded)
        valid = np.pad(scored, padded)
        inputs, targets = self._text[places], self._text[places + 1]
        placement = jax.tree.leaves(params)[0].sharding  # during training a copy on each device
        carry = jax.device_put(self._model.initial_carry(params, inputs[:, :chunk], None), placement)
        score = self._chunk(placement)
        total = 0.0
        for start in range(0, places.shape[1], chunk):
            now = slice(start, start + chunk)
            read = jax.device_put((inputs[:, now], targets[:, now], valid[:, now]), placement)
            carry, loss = score(params, carry, *read)
            total += float(loss)  # waits, as several CPU devices must not be dispatched far ahead: see rnnx.sharded
        return total / int(scored.sum())


def make_evaluate(config: CharLM, corpus: Corpus, scorer: Scorer) -> Callable[[TrainState], dict[str, float]]:
    """A fast estimate of the validation loss, for early stopping and the choice of the best.

    The final score reads one stream, which leaves most of a processor idle; here stretches of
    it are read side by side.
    """
    held_out = len(corpus.text) - corpus.split
    length = max(1, min(held_out - 1, config.eval_chars) // config.eval_rows)
    starts = [corpus.split + r * (held_out - 1) // config.eval_rows for r in range(config.eval_rows)]
    offsets = np.arange(-config.eval_warmup, length)
    places = np.array(starts)[:, None] + offsets
    scored = np.broadcast_to(offsets >= 0, places.shape)

    def evaluate(state: TrainState) -> dict[str, float]:
        return {MONITOR: scorer(state.average, places, scored, chunk=128)}

    return evaluate


def final_score(corpus: Corpus, scorer: Scorer, params: Any) -> float:
    """The loss over the whole validation text as one stream from a fresh state."""
    places = np.arange(corpus.split, len(corpus.text) - 1)[None]
    return scorer(params, places, np.ones_like(places, bool), chunk=2048)
