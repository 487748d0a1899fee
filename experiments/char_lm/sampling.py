"""Lets a trained model continue a text."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import rnnx
from experiments.char_lm.trained import check_text, read_trained, read_vocabulary
from experiments.command import unread
from experiments.config import parse
from experiments.errors import UserError
from experiments.settings import Count, Natural
from experiments.text import Vocabulary, decode, encode, pieces_of


def stream(
    model: rnnx.Layer,
    params: Any,
    vocab: Vocabulary,
    prime: str,
    *,
    length: int,
    sample: Callable[[jax.Array, jax.Array], jax.Array],
    seed: int,
) -> Iterator[str]:
    """Yields `length` characters (bytes, words) that follow the prime, each as soon as it is drawn.

    The prime is read by the same compiled single step that draws the rest.
    """

    @functools.partial(jax.jit, donate_argnums=1)
    def step(params: Any, carry: Any, token: jax.Array, index: np.int32) -> tuple[Any, jax.Array]:
        carry, logits = rnnx.unroll(model, params, token[:, None], carry=carry)
        key = jax.random.fold_in(jax.random.key(seed), index)
        return carry, sample(key, logits[:, 0]).astype(jnp.int32)

    def drawn_tokens() -> Iterator[int]:
        tokens = encode(pieces_of(prime, vocab.level), vocab)
        carry = model.initial_carry(params, tokens[None, :1], None)
        for token in tokens:
            carry, drawn = step(params, carry, token[None], np.int32(0))
        for index in range(1, length + 1):
            shown = drawn
            if index < length:
                carry, drawn = step(params, carry, drawn, np.int32(index))
            yield int(shown[0])

    return decode(drawn_tokens(), vocab)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Lets a trained run continue a text."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    prime: str | None = None
    """The text to continue; default: a line break."""
    length: Count = 500
    """Characters (bytes, words) to write."""
    temperature: float = 0.8
    """Below 1 safer, above 1 bolder; 0 takes the likeliest each time."""
    top_k: int | None = None
    """Draw only from the k likeliest."""
    top_p: float | None = None
    """Draw only from the smallest set of likeliest ones whose total probability reaches this."""
    seed: Natural = 0
    """The same seed draws the same text."""


def main(args: Sequence[str]) -> None:
    options = parse(Sample, args, command="python -m experiments.char_lm sample")
    vocab = read_vocabulary(options.run)
    prime = default_prime(vocab) if options.prime is None else options.prime
    check_text(options.run, vocab, prime, "prime")
    try:
        draw = rnnx.sampler(options.temperature, top_k=options.top_k, top_p=options.top_p)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    _, _, model, params = read_trained(options.run, vocab)
    sys.stdout.write(prime.lstrip("\n"))
    drawn = stream(model, params, vocab, prime, length=options.length, sample=draw, seed=options.seed)
    try:
        for character in drawn:
            sys.stdout.write(character)
            sys.stdout.flush()
            if unread(sys.stdout):  # for example, `head` has read enough
                return
    except KeyboardInterrupt:
        pass
    sys.stdout.write("\n")


def default_prime(vocab: Vocabulary) -> str:
    return "\n" if "\n" in vocab.pieces else vocab.pieces[-1]
