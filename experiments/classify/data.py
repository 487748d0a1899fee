"""Labelled sequences: time series from `.ts` files, texts from lines of `label<TAB>text`, and their encoding."""

import collections
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnnx
from experiments.classify.config import Data, Fill
from experiments.errors import UserError
from experiments.files import package_folder
from experiments.text import read_file

MOST_BYTES = 4e9
"""Largest size of the padded training set, which stays on the device."""
UNKNOWN = 0
"""The number of a character that training never saw."""


class Examples(NamedTuple):
    """Each item is a text or a series `[len, channels]`; the labels are in the same order."""

    items: list[Any]
    labels: list[str]


class Dataset(NamedTuple):
    """The sets to train on, to choose weights by (this one may be empty) and to score on."""

    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...]
    sha256: str


class Encoded(NamedTuple):
    """Examples as a network reads them: each sequence is `[len, channels]` floats or `[len]` character numbers."""

    sequences: list[np.ndarray]
    labels: np.ndarray


class Batch(NamedTuple):
    """Padded sequences: `xs` `[batch, time, channels]` or `[batch, time]`, with `lengths` and `labels` `[batch]`."""

    xs: Any
    lengths: Any
    labels: Any


def load(data: Data, seed: int) -> Dataset:
    """Reads known data, a `.ts` file with its test file, or a file of texts, and splits data without a test set.

    Splits are drawn by the seed, each class separately. `smallest_class` and `test_fraction` apply to data without a
    test set.
    """
    dataset = _load(data, seed)
    if data.fill == "refuse":
        refuse_gaps(dataset)
    return dataset


def _load(data: Data, seed: int) -> Dataset:
    name, test = data.data, data.test_data
    if name == "tzdata":
        if test is not None:
            raise UserError(f"The data 'tzdata' is split by the seed; leave out --test-data {test}.")
        everything = read_tzdata()
    elif name == "japanese_vowels" or Path(name).suffix == ".ts":
        train, held_out = (read_ts(path) for path in series_files(name, test))
        channels = {items[0].shape[1] for items in (train.items, held_out.items)}
        if len(channels) > 1:
            raise UserError(
                f"The series of {name!r} have {channels} channels in training and test; both need the same."
            )
        return split_off_validation(train, held_out, data.validation_fraction, seed)
    else:
        everything = read_texts(Path(name))
        if test is not None:
            return split_off_validation(everything, read_texts(test), data.validation_fraction, seed)
    everything = with_enough(distinct(everything), data.smallest_class)
    train, held_out = split(everything, data.test_fraction, seed)
    # The validation fraction is a share of all examples, not of those left after the test split.
    return split_off_validation(train, held_out, data.validation_fraction / (1 - data.test_fraction), seed)


def series_files(name: str, test: Path | None) -> tuple[Path, Path]:
    """The training and the test file; unless given, the test file is beside the training file."""
    train = japanese_vowels() if name == "japanese_vowels" else Path(name)
    if test is None:
        if not train.name.endswith("_TRAIN.ts"):
            raise UserError(
                f"There is no test file for {train}: its name does not end in _TRAIN.ts. Give --test-data FILE.ts."
            )
        test = train.with_name(train.name.removesuffix("_TRAIN.ts") + "_TEST.ts")
    return train, test


def japanese_vowels() -> Path:
    folder = package_folder("aeon", "japanese_vowels")
    return folder / "datasets/data/JapaneseVowels/JapaneseVowels_TRAIN.ts"


def read_ts(path: Path) -> Examples:
    """A file in the format of the UCR and UEA archives: `channel:channel:...:label`, missing values as `?` or NaN."""
    declared: list[str] | None = None
    items: list[np.ndarray] = []
    labels: list[str] = []
    in_data = False
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line, where = line.strip(), f"{path}, line {number}"
        if not line or line.startswith("#"):
            continue
        if not in_data:
            tag, *words = line.split()
            match tag.lower():
                case "@classlabel" if words and words[0].lower() == "true":
                    declared = words[1:]
                case "@timestamps" if words and words[0].lower() == "true":
                    raise UserError(f"{where}: series with time stamps cannot be read; give evenly spaced values.")
                case "@data":
                    if declared is None:
                        raise UserError(
                            f"{path} has no class labels: expected a line like '@classLabel true a b' before @data."
                        )
                    in_data = True
            continue
        *channels, label = (part.strip() for part in line.split(":"))
        if label not in (declared or [label]):
            raise UserError(
                f"{where}: its label is {label[:80]!r}, but @classLabel names {', '.join(declared or [])[:200]}."
            )
        items.append(series(channels, where))
        labels.append(label)
        if items[-1].shape[1] != items[0].shape[1]:
            raise UserError(f"{where}: it has {items[-1].shape[1]} channels, but those above have {items[0].shape[1]}.")
    if not items:
        raise UserError(f"{path} holds no series: expected lines like '1,2,3:4,5,6:label' after a line @data.")
    return Examples(items, labels)


def series(channels: Sequence[str], where: str) -> np.ndarray:
    """`[len, channels]`, NaN where values are missing."""
    try:
        rows = [[float("nan" if value.strip() == "?" else value) for value in text.split(",")] for text in channels]
    except ValueError as error:
        raise UserError(
            f"{where}: {str(error)[:100]}. Expected numbers separated by commas, ? for a missing one."
        ) from None
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise UserError(f"{where}: its channels have {lengths} values, but all need the same number, one or more.")
    values = np.array(rows, np.float64).T
    if np.isinf(values).any():
        raise UserError(f"{where}: it holds an infinite value.")
    return values


def read_texts(path: Path) -> Examples:
    """Lines of `label<TAB>text`."""
    items, labels = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) != 2 or not all(parts):
            problem = (
                f"it has {len(parts) - 1} tabs"
                if len(parts) != 2
                else f"its {'text' if parts[0] else 'label'} is empty"
            )
            raise UserError(f"{path}, line {number}: {problem}, but expected label<TAB>text: {line[:80]!r}")
        labels.append(parts[0])
        items.append(parts[1])
    if not items:
        raise UserError(f"{path} is empty; expected lines of label<TAB>text.")
    return Examples(items, labels)


def read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(
            f"There is no data file {path}. Give --data and --test-data the path of a .ts file or of a file of "
            "label<TAB>text, or --data one of japanese_vowels, tzdata."
        )
    return read_file(path)


def read_tzdata() -> Examples:
    """Names of cities and countries, labelled by their part of the world, from the time zones of the package tzdata.

    `zone.tab` has each zone once, without the older spellings that the database also has. The label of a country is the
    part of all of its zones; a country with zones in several parts is left out.
    """
    folder = package_folder("tzdata", "tzdata") / "zoneinfo"
    zones, countries = (
        [line.split("\t") for line in read_text(folder / name).splitlines() if not line.startswith("#")]
        for name in ("zone.tab", "iso3166.tab")
    )
    parts: dict[str, set[str]] = collections.defaultdict(set)
    pairs = []
    for country, _, zone, *_ in zones:
        part, *_, city = zone.split("/")
        parts[country].add(part)
        pairs.append((city.replace("_", " "), part))
    pairs += [(name, min(parts[country])) for country, name in countries if len(parts[country]) == 1]
    return Examples([name for name, _ in pairs], [part for _, part in pairs])


def distinct(examples: Examples) -> Examples:
    """Each text once with each label: one in both training and test would be memorised, not recognised."""
    pairs = dict.fromkeys(zip(examples.items, examples.labels))
    return Examples([item for item, _ in pairs], [label for _, label in pairs])


def with_enough(examples: Examples, smallest: int) -> Examples:
    """The examples without those of labels that have fewer than `smallest`."""
    counts = collections.Counter(examples.labels)
    kept = taken(examples, [i for i, label in enumerate(examples.labels) if counts[label] >= smallest])
    if len(set(kept.labels)) < 2:
        raise UserError(
            f"{len(set(kept.labels))} labels have {smallest} examples or more, but two are needed; the most frequent "
            f"ones: {counts.most_common(5)}. Lower --smallest-class."
        )
    return kept


def split_off_validation(train: Examples, test: Examples, fraction: float, seed: int) -> Dataset:
    """Splits off the validation set, and checks that training has every class of the test set."""
    unseen = sorted(set(test.labels) - set(train.labels))
    if unseen:
        raise UserError(
            f"The test has classes that training never saw: {', '.join(unseen)}. Training has "
            f"{', '.join(sorted(set(train.labels)))}."
        )
    hashed = hashlib.sha256()
    for examples in (train, test):
        for item, label in zip(*examples):
            hashed.update((item.encode() if isinstance(item, str) else item.tobytes()) + b"\0" + label.encode() + b"\n")
    validation = Examples([], [])
    if fraction:
        train, validation = split(train, fraction, seed + 1)
    return Dataset(train, validation, test, tuple(sorted(set(train.labels))), hashed.hexdigest())


def split(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Splits off `fraction` of each class, at least one example, and leaves at least one."""
    places = collections.defaultdict(list)
    for i, label in enumerate(examples.labels):
        places[label].append(i)
    rng = np.random.default_rng(seed)
    out: list[int] = []
    for label, own in sorted(places.items()):
        if len(own) < 2:
            raise UserError(
                f"The class {label!r} has too few examples to be split into training, validation and test. Give more, "
                "or leave rare ones out with --smallest-class."
            )
        out += rng.permutation(own)[: min(max(1, round(len(own) * fraction)), len(own) - 1)].tolist()
    return taken(examples, sorted(set(range(len(examples.labels))) - set(out))), taken(examples, sorted(out))


def taken(examples: Examples, indices: Iterable[int]) -> Examples:
    indices = list(indices)
    return Examples([examples.items[i] for i in indices], [examples.labels[i] for i in indices])


def make_encode(data: Data, train: Examples, classes: Sequence[str]) -> tuple[Callable[[Examples], Encoded], int]:
    """The encoding of examples, derived from the training set alone, and the number of characters (0 for series).

    Characters are numbered from 1; 0 stands for one that training never saw. Each channel of a series gets mean 0 and
    variance 1 over the training set, so that "mean" fills with zeros; "linear" interpolates between known values.
    """
    if isinstance(train.items[0], str):
        fold = str.casefold if data.fold_case else str
        alphabet = {character: i for i, character in enumerate(sorted(set(fold("".join(train.items)))), 1)}

        def numbers(item: Any) -> np.ndarray:
            return np.array([alphabet.get(character, UNKNOWN) for character in fold(item)], np.int32)

        return functools.partial(encode, numbers, classes), len(alphabet) + 1

    values = np.concatenate(train.items)
    counts = np.isfinite(values).sum(axis=0)
    if not counts.all():
        raise UserError(
            f"Channel {int(counts.argmin()) + 1} of {len(counts)} has no value in the training set, and nothing "
            "to --fill with. Leave that channel out."
        )
    mean = np.nansum(values, axis=0) / counts
    deviation = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / counts)
    deviation[deviation == 0] = 1

    def standardised(item: Any) -> np.ndarray:
        series = filled((item - mean) / deviation, data.fill)
        return series.astype(np.float32)

    return functools.partial(encode, standardised, classes), 0


def encode(numbers: Callable[[Any], np.ndarray], classes: Sequence[str], examples: Examples) -> Encoded:
    place = {label: i for i, label in enumerate(classes)}
    labels = np.array([place[label] for label in examples.labels], np.int32)
    return Encoded([numbers(item) for item in examples.items], labels)


def filled(series: np.ndarray, fill: Fill) -> np.ndarray:
    """A standardised series without gaps; "linear" extends the first and the last value to the ends."""
    missing = np.isnan(series)
    if fill == "linear" and missing.any():
        series = series.copy()
        steps = np.arange(len(series))
        for channel, gaps in zip(series.T, missing.T):
            if not gaps.all():
                channel[gaps] = np.interp(steps[gaps], steps[~gaps], channel[~gaps])
    return np.where(np.isnan(series), 0, series)


def refuse_gaps(data: Dataset) -> None:
    """Raises UserError for missing values; --fill has to be asked for."""
    for name, examples in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        gaps = [i for i, item in enumerate(examples.items) if not isinstance(item, str) and np.isnan(item).any()]
        if gaps:
            raise UserError(
                f"{len(gaps)} of {len(examples.items)} series of the {name} set have missing values, the first of them "
                f"number {gaps[0] + 1}. Say how to fill them: --fill mean or --fill linear."
            )


def padded(examples: Encoded) -> Batch:
    steps = [len(sequence) for sequence in examples.sequences]
    longest = max(steps)
    size = len(steps) * longest * examples.sequences[0][:1].nbytes
    if size > MOST_BYTES:
        raise UserError(
            f"Sequence {steps.index(longest) + 1} of the training set has {longest:,} steps; to pad all "
            f"{len(steps):,} to that takes {size / 1e9:.1f} GB, but at most {MOST_BYTES / 1e9:.0f} GB are allowed. "
            "Leave out or shorten the longest."
        )
    xs, lengths = rnnx.pad(examples.sequences)
    return Batch(xs, lengths, examples.labels)
