"""The text as numbers, and the part of it that a step reads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.char_lm.config import CharLM, Train
from experiments.errors import UserError
from experiments.text import Vocabulary, digest, encode, pieces_of, read_corpus, vocabulary

NAMES = {"char": "character", "byte": "byte", "word": "word"}
PLURAL = {level: f"{name}s" for level, name in NAMES.items()}


class Corpus(NamedTuple):
    """A text as numbers: what comes before `split` is trained on, the rest is for validation."""

    text: np.ndarray
    vocab: Vocabulary
    split: int
    sha256: str


def load_corpus(config: CharLM) -> Corpus:
    data, train, run = config.data, config.train, config.run
    text = read_corpus(data.corpus)
    pieces = pieces_of(text, data.level)
    split = int(len(pieces) * data.train_fraction)
    for part, given, needed, settings in (
        ("train on", split, max(train.batch * train.time, run.eval_warmup), "--batch or --time"),
        ("validate on", len(pieces) - split, run.eval_rows + 1, "--eval-rows"),
    ):
        if given < needed:
            raise UserError(
                f"The corpus {data.corpus!r} has {len(pieces):,} {PLURAL[data.level]}. That leaves {given:,} "
                f"to {part} (train_fraction is {data.train_fraction}), but {needed:,} are needed. "
                f"Give a longer text, or lower {settings}."
            )
    if data.level == "char" and len(set(pieces)) < 2:
        raise UserError(
            f"The corpus {data.corpus!r} has no other character than {pieces[0]!r}: there is nothing to predict. Give "
            "another text."
        )
    # Words that only the validation text has are unknown; every character is known.
    known = pieces[:split] if data.level == "word" else pieces
    vocab = vocabulary(known, data.level, most=data.words)
    return Corpus(encode(pieces, vocab), vocab, split, digest(text))


def read_chunk(
    train: Train, split: int, text: jax.Array, step: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inputs, targets and resets `[batch, time]` of a step.

    The training text is read as a circle. Row b starts at b/batch of it and reads `time` characters per step, so its
    state always belongs to the text just read. The position is computed from the step number and is not saved. The
    state is reset where the circle closes, since the beginning of the text does not continue its end.
    """
    starts = np.array([row * split // train.batch for row in range(train.batch)], np.int32)
    first = (step * train.time) % split + starts
    places = (first[:, None] + jnp.arange(train.time + 1)[None]) % split
    chunk = text[places]
    at_random = jax.random.bernoulli(key, train.reset_probability, (train.batch, 1))
    resets = (places[:, :-1] == 0) | (at_random & (jnp.arange(train.time) == 0)[None])
    return chunk[:, :-1], chunk[:, 1:], resets
