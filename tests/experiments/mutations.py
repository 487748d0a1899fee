"""Inputs that were damaged: each is loaded, or refused by the project's own error, and never does anything else.

python tests/experiments/mutations.py [COUNT] [SEED]

A case is made by a seed of its own, which a failure names. Files are damaged by bytes and lines, JSON and weights by
their structure too. What reads them must load them or raise `UserError` with the file's name (of rnnx.interop
ValueError or TypeError), change no file, execute nothing, and take no more than some seconds and megabytes.
"""

import collections
import contextlib
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
from rich.console import Console

from experiments import files, report, runs
from experiments.char_lm import CharLM
from experiments.char_lm.data import load_corpus
from experiments.classify import data as classified
from experiments.errors import UserError
from experiments.forecast import data as series
from experiments.logs import read_metrics
from experiments.settings import replace
from experiments.speed.report import print_bars, print_rows, read_rows
from experiments.text import decode, encode, pieces_of, vocabulary_from
from experiments.translate import data as translated
from rnnx.interop import from_keras, from_torch_arrays

MARK = "executed"
CODE = f"__import__('os').mkdir('{MARK}')"
PICKLE = f"cos\nmkdir\n(V{MARK}\ntR."
SECONDS, MEGABYTES = 5.0, 1000
"""The most that a case may take of a processor, and all of them of memory."""
ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 2**40, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800", CODE),
    *([], {}, [[]], [1, "a"], {"x": 1}, [None] * 50),
]
ODD_BYTES = [
    *(
        b"\0",
        b"\x1c",
        b"\r",
        b"\xff",
        b"\xe2\x80\xa8",
        b"\xef\xbb\xbf",
        b"\x1b[2J",
        b'"',
        b"'",
        b",",
        b":",
        b"\t",
        b"\n",
    ),
    *(b"nan", b"inf", b"?", b"1e400", b"9" * 5000, b"-0", b"1_0", b"0x1", b"\xd9\xa3", b"[" * 3000, b"{" * 3000),
    *(b"x" * 200_000, CODE.encode(), PICKLE.encode(), b"@data", b"@classLabel true", b"#"),
]


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """One to three damages, one after the other."""
    for _ in range(draw.randint(1, 3)):
        raw = draw.choice(DAMAGES)(raw, draw)
    return raw


def place(raw: bytes, draw: random.Random) -> int:
    return draw.randint(0, len(raw))


def flip(raw: bytes, draw: random.Random) -> bytes:
    spoilt = bytearray(raw)
    for _ in range(draw.choice((1, 3, 30)) if raw else 0):
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def cut(raw: bytes, draw: random.Random) -> bytes:
    at = place(raw, draw)
    return draw.choice((raw[:at], raw[at:], raw[:at] + raw[at + draw.randint(1, 50) :]))


def double(raw: bytes, draw: random.Random) -> bytes:
    start, at = sorted((place(raw, draw), place(raw, draw)))
    return raw[:at] + raw[start:at] * draw.choice((1, 1, 5)) + raw[at:]


def insert(raw: bytes, draw: random.Random) -> bytes:
    at = place(raw, draw)
    return raw[:at] + draw.choice(ODD_BYTES) + raw[at + draw.choice((0, 0, 1, 5)) :]


def by_lines(raw: bytes, draw: random.Random) -> bytes:
    lines = raw.split(b"\n")
    at = draw.randrange(len(lines))
    match draw.randrange(4):
        case 0:
            draw.shuffle(lines)
        case 1:
            del lines[at]
        case 2:
            lines.insert(at, draw.choice(lines))
        case 3:
            lines[at] = draw.choice(ODD_BYTES)
    return b"\n".join(lines)


def reencode(raw: bytes, draw: random.Random) -> bytes:
    text = raw.decode("utf-8", errors="replace")
    return text.encode(draw.choice(("utf-16", "utf-32", "utf-8-sig", "latin-1", "cp037")), errors="replace")


def nothing_left(raw: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\n", b" ", b"\0" * 100, PICKLE.encode(), b"\x80\x04N.", b"PK\x03\x04"))


DAMAGES = [flip, cut, double, insert, by_lines, reencode] * 4 + [nothing_left]


def odd_json(value: Any, draw: random.Random) -> Any:
    """With something else somewhere in it."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        deep = draw.choice(ODD_VALUES)
        for _ in range(draw.choice((0, 0, 0, 300))):
            deep = [deep]
        return deep
    items = dict(enumerate(value)) if isinstance(value, list) else dict(value)
    key = draw.choice(list(items))
    match draw.randrange(4):
        case 0:
            del items[key]
        case 1:
            items["other"] = items.pop(key)
        case _:
            items[key] = odd_json(items[key], draw)
    return list(items.values()) if isinstance(value, list) else items


class Kind(NamedTuple):
    name: str
    """Of the file."""
    whole: bytes
    """What stands in it undamaged."""
    load: Callable[[Path, random.Random], Any]
    """Of what is no file, makes the damaged input too."""
    refuses_by: tuple[type[BaseException], ...] = (UserError,)

    def spoilt(self, draw: random.Random) -> bytes:
        if self.name.endswith(".json") and draw.random() < 0.5:
            return json.dumps(odd_json(json.loads(self.whole), draw)).encode("utf-8", "surrogatepass")
        return damaged(self.whole, draw)


TEXT = "".join(f"{n} The cat — and Æ — sees the dog, 日本.\n" for n in range(30))
SERIES = "date,value,value2\n" + "".join(f"{1900 + n}-01-01,{1 + n % 7 + n / 9:.3f},{n}\n" for n in range(60))
TS = "#note\n@problemName x\n@timeStamps false\n@classLabel true a b\n@data\n" + "".join(
    f"{n},2.5,?:4,-5e-1,{n}:{'ab'[n % 2]}\n" for n in range(12)
)
LABELLED = "".join(f"{'ab'[n % 2]}\tword {n} é\n" for n in range(12))
PAIRS = "".join(f"{n:03d}\t{n:b}\n" for n in range(200))
METRICS = "".join(json.dumps({"step": n, "loss": 1 / n, "val_loss": float("nan")}) + "\n" for n in range(1, 30))
RESULTS = {"scores": {"val_nats": 1.5, "b": 2}, "seed": 0, "seconds": 3.5, "quality": {"sample": {"x": 1}}, "rows": [1]}
ROWS = json.loads((Path(__file__).parents[2] / "experiments/records/speed/cpu2.json").read_text(encoding="utf-8"))[:3]


def load_text(path: Path, draw: random.Random) -> Any:
    level = draw.choice(("char", "byte", "word"))
    return load_corpus(
        replace(CharLM(), corpus=str(path), level=level, words=20, batch=2, time=4, eval_rows=2, eval_warmup=2)
    )


def load_series(path: Path, draw: random.Random) -> Any:
    options = {"dates": draw.choice(("", "date")), "fill": draw.choice(("none", "forward", "linear"))}
    options |= {"transform": draw.choice(("none", "log", "sqrt"))}
    small = {"season": 2, "horizon": 4, "test": 8, "validation": 8, "context": 5, "shortest": 5}
    return series.load(series.Data(data=str(path), column="value", **options, **small))


def load_labelled(path: Path, draw: random.Random) -> Any:
    fill = draw.choice(("refuse", "mean", "linear"))
    given = classified.Data(
        str(path), path if path.suffix == ".ts" else None, fill, True, validation_fraction=0.2, test_fraction=0.3
    )
    data = classified.load(given, seed=0)
    encoded, _ = classified.make_encode(given, data.train, data.classes)
    return [encoded(part) for part in (data.train, data.validation, data.test)]


def load_pairs(path: Path, draw: random.Random) -> Any:
    data = translated.load(translated.Data(data=str(path), val_fraction=0.1, test_fraction=0.1))
    return translated.bucketed(data)


def load_vocabulary(path: Path, draw: random.Random) -> Any:
    vocab = files.parsed(path, vocabulary_from)
    return list(decode(encode(pieces_of(vocab.pieces[0], vocab.level), vocab).tolist(), vocab))


def load_config(path: Path, draw: random.Random) -> Any:
    if draw.random() < 0.5:
        return runs.saved_config(path.parent, CharLM)
    return runs.differences(files.read_json(path), runs.saved_settings(CharLM()))


def load_results(path: Path, draw: random.Random) -> Any:
    return runs.read_results(path)


def load_record(path: Path, draw: random.Random) -> Any:
    return report.table(report.rows_of(report.read_runs(path.parent.parent)))


def load_rows(path: Path, draw: random.Random) -> Any:
    rows = read_rows(path)
    with files.showing(path, ""):
        console = Console(file=io.StringIO(), width=140)
        print_rows(console, rows)
        print_bars(console, rows)


FILES = [
    Kind("corpus.txt", TEXT.encode(), load_text),
    Kind("series.csv", SERIES.encode(), load_series),
    Kind("own.ts", TS.encode(), load_labelled),
    Kind("labelled.tsv", LABELLED.encode(), load_labelled),
    Kind("pairs.tsv", PAIRS.encode(), load_pairs),
    Kind("config.json", json.dumps(runs.saved_settings(CharLM())).encode(), load_config),
    Kind("vocab.json", json.dumps(["char", sorted(set(TEXT))]).encode(), load_vocabulary),
    Kind("words/vocab.json", json.dumps(["word", ["<unk>", " the", "."]]).encode(), load_vocabulary),
    Kind("metrics.jsonl", METRICS.encode(), lambda path, draw: read_metrics(path.parent)),
    Kind("results.json", json.dumps(RESULTS).encode(), load_results),
    Kind("task/quick-seed0.json", json.dumps(RESULTS).encode(), load_record),
    Kind("rows.json", json.dumps(ROWS).encode(), load_rows),
]


def torch_arrays(mode: str) -> dict[Any, Any]:
    gates, random_array = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1}[mode], np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}
    for suffix, inputs in (("_l0", 3), ("_l0_reverse", 3), ("_l1", 8), ("_l1_reverse", 8)):
        shapes[f"weight_ih{suffix}"], shapes[f"weight_hh{suffix}"] = (gates * 4, inputs), (gates * 4, 4)
        shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (gates * 4,)
    return {name: random_array.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def odd_array(array: Any, draw: random.Random) -> Any:
    """Of another shape, type or kind; huge ones are views, so that nothing is taken by themselves."""
    array = np.asarray(array, object if isinstance(array, list) else None)
    if array.size > 1000:
        return None
    match draw.randrange(7):
        case 0:
            return array.astype(
                draw.choice((np.int32, bool, complex, np.float64, np.float16, object, str, "M8[s]", "S3"))
            )
        case 1:
            shape = draw.choice(((), (0,), (1,), (2, 2), (4, 0), (3, 4, 5), (10**5, 10**6), (4 * 10**6, 10**6)))
            return np.broadcast_to(np.float32(0), shape)
        case 2:
            return array.T if array.ndim > 1 else array[None]
        case 3:
            return np.atleast_1d(array)[draw.randrange(3) :]
        case 4:
            return draw.choice(ODD_VALUES)
        case 5:
            return np.where(np.arange(array.size).reshape(array.shape) == 0, draw.choice((np.nan, np.inf)), array)
        case _:
            return array.tolist()


def odd_arrays(arrays: dict[Any, Any], draw: random.Random) -> Any:
    arrays = dict(arrays)
    for _ in range(draw.randint(1, 3)):
        if not arrays:
            return draw.choice((arrays, *ODD_VALUES))
        name = draw.choice(list(arrays))
        match draw.randrange(6):
            case 0:
                del arrays[name]
            case 1:
                arrays[draw.choice((f"module.{name}", f"{name}_reverse", "", "weight_ih_l99", 3, None, CODE))] = arrays[
                    name
                ]
            case 2:
                arrays[draw.choice(("weight_hr_l0", "weight_ih_l1000000", "bias_ih"))] = arrays.pop(name)
            case _:
                arrays[name] = odd_array(arrays[name], draw)
    return arrays


def from_arrays(path: Path, draw: random.Random) -> Any:
    mode = draw.choice(("LSTM", "GRU", "RNN_TANH"))
    given = odd_arrays(torch_arrays(mode), draw)
    return from_torch_arrays(given, mode=mode if draw.random() < 0.9 else draw.choice(["lstm", None, 3, "", "GRU"]))


def npz() -> bytes:
    held = io.BytesIO()
    np.savez(held, **torch_arrays("GRU"))
    return held.getvalue()


def load_weights(path: Path, draw: random.Random) -> Any:
    """rnnx opens no files: what NumPy can read of one is what arrives."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:
        raise UserError(f"NumPy refuses {path}: {error!r:.200}") from None
    return from_torch_arrays(arrays, mode="GRU")


class Variable:
    """In the place of one of Keras."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def numpy(self) -> Any:
        return self.value


def from_keras_layers(path: Path, draw: random.Random) -> Any:
    import keras  # not at the top: five seconds

    layer = getattr(keras.layers, draw.choice(("LSTM", "GRU", "SimpleRNN")))(4)
    layer.build((2, 5, 3))
    cell = layer.cell
    weights = {name: np.asarray(getattr(cell, name)) for name in ("kernel", "recurrent_kernel", "bias")}
    for name, array in odd_arrays(weights, draw).items():
        if name in weights:
            object.__setattr__(cell, name, Variable(array))  # Keras tracks what is set
    return from_keras(layer)


OURS = UserError, ValueError, TypeError
KINDS = [
    *FILES,
    Kind("torch arrays", b"", from_arrays, OURS),
    Kind("weights.npz", npz(), load_weights, OURS),
    Kind("keras layers", b"", from_keras_layers, OURS),
]


class Outcome(NamedTuple):
    kind: str
    loaded: bool
    seconds: float


def case(kind: Kind, seed: int, folder: Path) -> Outcome:
    """Raises AssertionError, with the seed, where a damaged input does what it may not."""
    what, draw, path = f"{kind.name}, seed {seed}", random.Random(f"{kind.name} {seed}"), folder / kind.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(kind.spoilt(draw) if kind.whole else b"")
    before, listed = path.read_bytes(), sorted(folder.rglob("*"))
    start, loaded = time.process_time(), True
    try:
        kind.load(path, draw)
    except kind.refuses_by as error:
        loaded, shown = False, str(error)
        # An option is one that says what to do with what the file holds.
        named = ValueError in kind.refuses_by or path.name in shown or "--" in shown
        assert named, f"{what}: the file is not named: {shown}"
        assert 0 < len(shown) < 3000, f"{what}: {len(shown)} characters: {shown}"
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}") from error
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"{what}: {seconds:.1f} s"
    assert sorted(folder.rglob("*")) == listed, f"{what}: files came or went"
    assert path.read_bytes() == before, f"{what}: it was written to"
    return Outcome(kind.name, loaded, seconds)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def run(count: int, seed: int = 0, *, kinds: Sequence[Kind] = KINDS, stop: bool = True) -> list[Outcome]:
    """`count` cases, of all kinds in turn, in a folder of their own, from which nothing may be executed."""
    outcomes, here = [], os.getcwd()
    for kind in kinds:  # so that the time for importing and compiling is no case's
        with contextlib.suppress(*OURS), tempfile.TemporaryDirectory() as folder:
            kind.load(Path(folder) / kind.name, random.Random(0))
    before = peak_megabytes()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number in range(count):
                kind = kinds[number % len(kinds)]
                own = Path(folder) / f"{number % len(kinds)}"
                own.mkdir(exist_ok=True)
                try:
                    outcomes.append(case(kind, seed + number // len(kinds), own))
                except AssertionError as error:
                    if stop:
                        raise
                    print(str(error)[:600])
            assert not list(Path(folder).rglob(MARK)), "something was executed"
        finally:
            os.chdir(here)
    taken = peak_megabytes() - before
    assert taken < MEGABYTES, f"{taken:.0f} MB"
    return outcomes


def main() -> None:
    count, seed = (*map(int, sys.argv[1:]), *(10_000, 0)[len(sys.argv) - 1 :])
    start, before = time.perf_counter(), peak_megabytes()
    outcomes = run(count, seed, stop=False)
    for name, number in collections.Counter(outcome.kind for outcome in outcomes).items():
        own = [outcome for outcome in outcomes if outcome.kind == name]
        loaded = sum(outcome.loaded for outcome in own)
        slowest = max(outcome.seconds for outcome in own)
        print(f"{name:<24}{number:>6} cases: {loaded:>5} loaded, {number - loaded:>5} refused; slowest {slowest:.2f} s")
    print(
        f"{len(outcomes)} of {count} as they should, in {time.perf_counter() - start:.0f} s; "
        f"{peak_megabytes() - before:.0f} MB at the peak"
    )


if __name__ == "__main__":
    main()
