"""Reads back a trained run."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax

import rnnx
from experiments.char_lm.config import MONITOR, CharLM
from experiments.char_lm.data import PLURAL
from experiments.char_lm.model import make_model
from experiments.checkpoints import Checkpoints
from experiments.errors import UserError
from experiments.files import parsed
from experiments.runs import saved_config
from experiments.text import Vocabulary, pieces_of, unknown, vocabulary_from


class Trained(NamedTuple):
    config: CharLM
    vocab: Vocabulary
    model: rnnx.Layer
    params: Any
    """The running average of the weights, from the best checkpoint."""


def read_vocabulary(run: Path) -> Vocabulary:
    if not (run / "config.json").exists():
        raise UserError(
            f"{run} is not the folder of a run: it has no config.json. "
            f"Train one first: python -m experiments.char_lm configs/char_lm/kjv.py"
        )
    return parsed(run / "vocab.json", vocabulary_from)


def check_text(run: Path, vocab: Vocabulary, text: str, what: str) -> None:
    """Raises UserError if the text is empty or has pieces outside the vocabulary."""
    strange = unknown(pieces_of(text, vocab.level), vocab)
    if strange or not text:
        listed = ", ".join(map(repr, strange))
        fault = f"has {PLURAL[vocab.level]} that the model does not know: {listed}" if text else "is empty"
        known = vocab.pieces if vocab.level == "char" else f"{run / 'vocab.json'}"
        raise UserError(f"The {what} {text!r} {fault}. Those it knows: {''.join(known)!r}")


def read_trained(run: Path, vocab: Vocabulary) -> Trained:
    from experiments.char_lm.train import initial_state  # not at the top: it imports this module, by way of sampling

    config = saved_config(run, CharLM)
    model = make_model(config, len(vocab.pieces))
    like = jax.eval_shape(functools.partial(initial_state, config, model))
    params = Checkpoints(run / "checkpoints", monitor=MONITOR).best(like).state.average
    return Trained(config, vocab, model, params)
