"""The text as numbers, and what of it a step reads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.char_lm.settings import CharLM
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
    text = read_corpus(config.corpus)
    pieces = pieces_of(text, config.level)
    split = int(len(pieces) * config.train_fraction)
    for part, given, needed, settings in (
        (
            "train on",
            split,
            max(config.batch * config.time, config.eval_warmup),
            "--batch or --time",
        ),
        ("validate on", len(pieces) - split, config.eval_rows + 1, "--eval-rows"),
    ):
        if given < needed:
            raise UserError(
                f"The corpus {config.corpus!r} has {len(pieces):,} {PLURAL[config.level]}. That leaves {given:,} "
                f"to {part} (train_fraction is {config.train_fraction}), but {needed:,} are needed. "
                f"Give a longer text, or lower {settings}."
            )
    if config.level == "char" and len(set(pieces)) < 2:
        raise UserError(
            f"The corpus {config.corpus!r} has no other character than {pieces[0]!r}: nothing is to be foretold. Give "
            "another text."
        )
    # Words that only the validation text has are unknown; every character is known.
    known = pieces[:split] if config.level == "word" else pieces
    vocab = vocabulary(known, config.level, most=config.words)
    return Corpus(encode(pieces, vocab), vocab, split, digest(text))


def read_chunk(
    config: CharLM, split: int, text: jax.Array, step: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inputs, targets and resets `[batch, time]` of a step.

    The training text is a circle. Row b walks it from b/batch of the way round, `time` characters
    per step, so that its state is that of the text it has just read. Everything follows from the
    number of the step: there is no position to save. States are fresh where the circle closes, as
    what stands there does not follow from what went before.
    """
    starts = np.array([row * split // config.batch for row in range(config.batch)], np.int32)
    first = (step * config.time) % split + starts
    places = (first[:, None] + jnp.arange(config.time + 1)[None]) % split
    chunk = text[places]
    anew = jax.random.bernoulli(key, config.reset_probability, (config.batch, 1))
    resets = (places[:, :-1] == 0) | (anew & (jnp.arange(config.time) == 0)[None])
    return chunk[:, :-1], chunk[:, 1:], resets
