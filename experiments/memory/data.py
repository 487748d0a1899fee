"""The tasks: each draws its batches from a key, and defines how answers are scored.

Networks read from left to right, so what follows the last step that is asked for changes nothing, and no lengths are
needed.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.memory.config import Data

SYMBOLS = 8
"""Number of symbols in copy and in delayed recall."""
COPIED = 10
"""Symbols to copy."""
VOCABULARY = 16
"""Size of the vocabulary of selective copy: a blank, 14 tokens and a marker."""
MODULUS = 5
OPERATORS = 3
"""Plus, minus, times."""


class Batch(NamedTuple):
    """`xs` `[batch, time, features]`; `targets` `[batch, time]`, classes or numbers; `asked` `[batch, time]` booleans:
    the steps at which the target is asked for, and is one."""

    xs: jax.Array
    targets: jax.Array
    asked: jax.Array


Draw = Callable[[jax.Array, int], Batch]
"""`(key, batch) -> Batch`."""


class Task(NamedTuple):
    """What is asked, and how the answer is scored."""

    title: str
    draw: Draw
    """For training and validation."""
    outputs: int
    metric: str
    """How it is scored: by mse, loss (nats per step) or accuracy."""
    chance: float
    """The score without memory."""
    chance_loss: float
    """The loss without memory."""
    enough: float
    """The validation loss at which training ends."""
    longer: Draw | None = None
    """For the score, if lengths differ."""
    longest: int | None = None
    """If lengths differ: the longest in training. The score is over longer sequences only."""

    @property
    def test(self) -> Draw:
        return self.longer or self.draw

    @property
    def perfect(self) -> float:
        return 1.0 if self.metric == "accuracy" else 0.0

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        return (squared_error if self.metric == "mse" else cross_entropy)(outputs, batch)

    def score(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        return (accuracy if self.metric == "accuracy" else self.loss)(outputs, batch)

    def is_solved(self, score: float) -> bool:
        return score >= 0.99 if self.metric == "accuracy" else score <= 0.01

    def way(self, score: float) -> float:
        """The share of the way from chance to perfect, between 0 and 1."""
        return min(max((score - self.chance) / (self.perfect - self.chance), 0.0), 1.0)


def squared_error(outputs: jax.Array, batch: Batch) -> jax.Array:
    return jnp.mean((outputs[..., 0] - batch.targets) ** 2, where=batch.asked)


def cross_entropy(outputs: jax.Array, batch: Batch) -> jax.Array:
    """Nats per step that is asked for."""
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs, batch.targets)
    return jnp.mean(nats, where=batch.asked)


def accuracy(outputs: jax.Array, batch: Batch) -> jax.Array:
    """The share of the steps asked for that are right."""
    return jnp.mean(outputs.argmax(-1) == batch.targets, where=batch.asked)


def accuracy_by_length(outputs: jax.Array, batch: Batch) -> jax.Array:
    """`[time]`: the accuracy at each step, NaN where nothing is asked.

    After t steps, a network that reads from left to right gives the same answer as to a sequence of length t.
    """
    return jnp.mean(outputs.argmax(-1) == batch.targets, axis=0, where=batch.asked)


def at_step(step: jax.Array | int, shape: tuple[int, ...]) -> jax.Array:
    """Booleans `[batch, time]` which are true at one step of each row."""
    return jnp.broadcast_to(jnp.arange(shape[1])[None] == jnp.reshape(jnp.asarray(step), (-1, 1)), shape)


def draw_adding(key: jax.Array, batch: int, *, length: int) -> Batch:
    """Numbers from [0, 1), two of them marked, one in each half: their sum is asked for at the last step."""
    k_values, k_first, k_second = jax.random.split(key, 3)
    values = jax.random.uniform(k_values, (batch, length))
    first = jax.random.randint(k_first, (batch,), 0, length // 2)
    second = jax.random.randint(k_second, (batch,), length // 2, length)
    marked = (at_step(first, values.shape) | at_step(second, values.shape)).astype(values.dtype)
    total = (values * marked).sum(axis=1, keepdims=True)
    xs = jnp.stack([values, marked], axis=-1)
    return Batch(xs, jnp.broadcast_to(total, values.shape), at_step(length - 1, values.shape))


def draw_copy(key: jax.Array, batch: int, *, delay: int) -> Batch:
    """Ten symbols of eight; `delay` steps, the last a delimiter; ten blanks, during which the symbols are recalled.

    All `delay + 20` steps count: before the recall the target is the blank.
    """
    symbols = jax.random.randint(key, (batch, COPIED), 0, SYMBOLS)
    blank, delimiter = SYMBOLS, SYMBOLS + 1
    waiting = jnp.full((batch, delay), blank).at[:, -1].set(delimiter)
    blanks = jnp.full((batch, COPIED), blank)
    tokens = jnp.concatenate([symbols, waiting, blanks], axis=1)
    targets = jnp.concatenate([jnp.full((batch, delay + COPIED), blank), symbols], axis=1)
    return Batch(jax.nn.one_hot(tokens, SYMBOLS + 2), targets, jnp.ones(tokens.shape, bool))


def draw_parity(key: jax.Array, batch: int, *, length: int, everywhere: bool = False) -> Batch:
    """Bits: is the number of ones odd? Asked at the end of 1 to `length` bits; if `everywhere`, after every bit."""
    k_bits, k_length = jax.random.split(key)
    bits = jax.random.randint(k_bits, (batch, length), 0, 2)
    last = jax.random.randint(k_length, (batch,), 0, length)
    asked = jnp.ones(bits.shape, bool) if everywhere else at_step(last, bits.shape)
    return Batch(jax.nn.one_hot(bits, 2), jnp.cumsum(bits, axis=1) % 2, asked)


def draw_arithmetic(key: jax.Array, batch: int, *, length: int, everywhere: bool = False) -> Batch:
    """Digits below 5 with +, - or * between them: the value modulo 5, products before sums.

    Sequences have odd lengths up to `length`; if `everywhere`, the value is asked for after every digit.
    """
    k_digits, k_operators, k_length = jax.random.split(key, 3)
    count = (length + 1) // 2
    digits = jax.random.randint(k_digits, (count, batch), 0, MODULUS)
    operators = jax.random.randint(k_operators, (count, batch), 0, OPERATORS).at[0].set(0)  # 0 + the first digit

    def read(state: tuple[jax.Array, jax.Array], item: tuple[jax.Array, jax.Array]) -> tuple[tuple, jax.Array]:
        """`total` is the sum of the finished terms, `term` is the product that may go on."""
        (total, term), (operator, digit) = state, item
        product = operator == 2
        total = jnp.where(product, total, total + term) % MODULUS
        term = jnp.where(product, term * digit, jnp.where(operator == 1, -digit, digit)) % MODULUS
        return (total, term), (total + term) % MODULUS

    nothing = jnp.zeros((batch,), digits.dtype)
    _, values = jax.lax.scan(read, (nothing, nothing), (operators, digits))
    # In time: operator, digit, operator, digit, ... without the first operator.
    tokens, targets = (
        jnp.stack(pair, axis=1).reshape(2 * count, batch).T[:, 1:]
        for pair in ((operators + MODULUS, digits), (jnp.zeros_like(values), values))
    )
    ends = at_step(2 * jax.random.randint(k_length, (batch,), 0, count), tokens.shape)
    after_digits = jnp.broadcast_to(jnp.arange(tokens.shape[1]) % 2 == 0, tokens.shape)
    return Batch(jax.nn.one_hot(tokens, MODULUS + OPERATORS), targets, after_digits if everywhere else ends)


def draw_selective_copy(key: jax.Array, batch: int, *, length: int, tokens: int) -> Batch:
    """Tokens at random places among `length`, blanks elsewhere; then as many markers, at which they are asked for."""
    k_places, k_tokens = jax.random.split(key)
    _, places = jax.lax.top_k(jax.random.uniform(k_places, (batch, length)), tokens)
    symbols = jax.random.randint(k_tokens, (batch, tokens), 1, VOCABULARY - 1)
    rows = jnp.arange(batch)[:, None]
    heard = jnp.zeros((batch, length), symbols.dtype).at[rows, jnp.sort(places, axis=1)].set(symbols)
    markers = jnp.full((batch, tokens), VOCABULARY - 1)
    targets = jnp.concatenate([jnp.zeros_like(heard), symbols], axis=1)
    asked = jnp.broadcast_to(jnp.arange(length + tokens) >= length, targets.shape)
    return Batch(jax.nn.one_hot(jnp.concatenate([heard, markers], axis=1), VOCABULARY), targets, asked)


def draw_recall(key: jax.Array, batch: int, *, delay: int) -> Batch:
    """A symbol of eight with a flag, `delay` symbols without one, then a second flag: which was the first symbol?"""
    symbols = jax.random.randint(key, (batch, delay + 2), 0, SYMBOLS)
    ask = delay + 1
    shown = jax.nn.one_hot(symbols, SYMBOLS).at[:, ask].set(0)
    flags = jnp.stack([at_step(0, symbols.shape), at_step(ask, symbols.shape)], axis=-1)
    xs = jnp.concatenate([shown, flags.astype(shown.dtype)], axis=-1)
    return Batch(xs, jnp.broadcast_to(symbols[:, :1], symbols.shape), at_step(ask, symbols.shape))


def classes(title: str, draw: Draw, outputs: int, choices: int, enough: float = 1e-3) -> Task:
    """A task scored by accuracy, with `choices` equally likely answers."""
    return Task(title, draw, outputs, "accuracy", 1 / choices, math.log(choices), enough)


def make_task(name: str, data: Data) -> Task:
    bind, trained, tested = functools.partial, data.train_length, data.test_length
    match name:
        case "adding":
            chance = 1 / 6  # the variance of the sum of two uniform numbers
            draw = bind(draw_adding, length=data.adding_length)
            return Task(f"adding\nT = {data.adding_length}", draw, 1, "mse", chance, chance, enough=2e-3)
        case "copy":
            plateau = COPIED * math.log(SYMBOLS) / (data.copy_delay + 2 * COPIED)
            draw = bind(draw_copy, delay=data.copy_delay)
            return Task(f"copy\nT = {data.copy_delay}", draw, SYMBOLS + 1, "loss", plateau, plateau, enough=2e-3)
        case "selective_copy":
            length, tokens = data.selective_length, data.selective_tokens
            draw = bind(draw_selective_copy, length=length, tokens=tokens)
            return classes(f"selective copy\n{tokens} of {length}", draw, VOCABULARY, VOCABULARY - 2)
        case "recall":
            draw = bind(draw_recall, delay=data.recall_delay)
            return classes(f"delayed recall\nT = {data.recall_delay}", draw, SYMBOLS, SYMBOLS)
    asks, choices, title = {
        "parity": (draw_parity, 2, "parity"),
        "arithmetic": (draw_arithmetic, MODULUS, f"arithmetic mod {MODULUS}"),
    }[name]
    title = f"{title}\nT = {trained}, tested to {tested}"
    task = classes(title, bind(asks, length=trained), choices, choices, enough=1e-4)
    return task._replace(longer=bind(asks, length=tested, everywhere=True), longest=trained)
