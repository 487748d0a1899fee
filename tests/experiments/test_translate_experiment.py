"""Translation at small size: the real config, shrunk."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import ROOT

from experiments.errors import UserError
from experiments.settings import replace
from experiments.translate import Data, Translate, decoding, evaluate, train
from experiments.translate import data as datasets
from experiments.translate.data import Pairs, bucketed, load, numbered
from experiments.translate.model import Seq2Seq, make_model
from experiments.translate.train import pair_loss

TINY = {"width": 6, "embed": 4, "batch": 8, "steps": 4, "eval-every": 2, "eval-sources": 4}
OVERRIDES = [text for name, value in TINY.items() for text in (f"--{name}", str(value))] + ["--val-fraction", "0.1"]
CONFIG = replace(Translate(), width=6, embed=4)


def file_of(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def tiny() -> Any:
    """`(data, model, params)`, with biases that are not zero."""
    alphabet = tuple("abcd")
    pairs = {(a, b): [(b, a)] for a in alphabet for b in alphabet}
    data = datasets.Translations(pairs, {}, {}, alphabet, alphabet, "")
    model = make_model(CONFIG.model, data)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda a: rng.normal(size=a.shape, scale=0.5).astype(a.dtype), shapes)
    return data, Seq2Seq(model.init, jax.jit(model.encode), jax.jit(model.decode)), params


def test_a_run_leaves_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{a}{b}{c}" for a in "abc" for b in "abc" for c in "abc"]
    path, run_dir = file_of(tmp_path / "pairs.tsv", *(f"{word}\t{word[::-1]}" for word in words)), tmp_path / "run"
    args = [str(ROOT / "configs/translate/dates.py"), *OVERRIDES, "--data", path, "--run-dir", str(run_dir)]
    train.main(args)
    output = capsys.readouterr().out
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert set(results["scores"]) == {"symbol_error_rate", "error_rate"}
    assert all(math.isfinite(score) for score in results["scores"].values())
    assert f"{results['scores']['symbol_error_rate']:>15.2%}" in output
    for picture in ("attention.png", "learning_curve.png"):
        assert (run_dir / picture).read_bytes().startswith(b"\x89PNG")
    train.main(args)
    assert "is finished" in capsys.readouterr().out


def test_no_source_stands_in_two_parts_and_the_split_is_always_the_same() -> None:
    first, second = (load(Data(data="dates", examples=500)) for _ in range(2))
    parts = [set(part) for part in (first.train, first.validation, first.test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert list(first.test) == list(second.test)
    assert len(first.test) == int(0.1 * sum(map(len, parts)))


def test_dates_are_what_they_say() -> None:
    pairs = {"".join(source): "".join(target) for source, (target,) in datasets.dates(3000).items()}
    assert all(len(target) == 10 and target[4] == target[7] == "-" for target in pairs.values())
    for source, target in pairs.items():
        digits = "".join(c for c in source if c.isdigit())
        assert target[:4] in digits, (source, target)
        assert str(int(target[8:])) in digits, (source, target)
    assert {"1999-12-31"} == {datasets.datetime.date(1999, 12, 31).strftime("%Y-%m-%d")}


def test_phonemes_have_no_stress_and_variants_stand_together() -> None:
    pairs = datasets.cmudict()
    assert pairs[tuple("tomato")] == [("T", "AH", "M", "EY", "T", "OW"), ("T", "AH", "M", "AA", "T", "OW")]
    assert len({phoneme for targets in pairs.values() for target in targets for phoneme in target}) == 39


def test_pairs_are_kept_by_length(tiny: Any) -> None:
    data, *_ = tiny
    long = {tuple("abcdabcdab"): [tuple("ab")], tuple("ab"): [tuple("abcdabc"), tuple("abcdabcd")]}
    buckets = bucketed(data._replace(train=long))
    assert [bucket.source.shape for bucket in buckets] == [(1, 8), (2, 12)]  # the end of a target takes room as well
    assert buckets[0].target.tolist() == [[1, 2, 3, 4, 1, 2, 3, 0]]
    assert buckets[1].source_lengths.tolist() == [10, 2]


def test_pads_change_no_loss(tiny: Any) -> None:
    data, model, params = tiny
    sources, targets = [tuple("ab"), tuple("abcd")], [tuple("ba"), tuple("dcb")]
    short, long = (Pairs(*numbered(sources, data.sources, n), *numbered(targets, data.targets, n)) for n in (8, 12))
    junk = jnp.where(jnp.arange(12)[None] < long.source_lengths[:, None], long.source, 3)
    loss = jax.jit(lambda pairs: pair_loss(CONFIG, model, params, None, pairs))
    losses = [loss(pairs) for pairs in (short, long, long._replace(source=junk))]
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-5)


def log_prob_of(model: Any, params: Any, source: Any, lengths: Any, target: list[int]) -> float:
    """Of a target with its end, read as in training."""
    begun = np.zeros((1, decoding.LONGEST + 1), np.int32)  # one shape for all: what follows the end changes nothing
    begun[0, 1 : 1 + len(target)] = target
    _, logits, _ = model.decode(params, model.encode(params, source, lengths), None, begun)
    log_probs = np.asarray(jax.nn.log_softmax(logits[0]))
    return float(sum(log_probs[i, token] for i, token in enumerate([*target, 0])))


def test_a_hypothesis_has_the_probability_that_training_gives_it_and_beams_are_no_worse(tiny: Any) -> None:
    data, model, params = tiny
    numbers = numbered([tuple("abc"), tuple("d")], data.sources, 8)
    search = jax.jit(functools.partial(decoding.search, model, params), static_argnames="beam")
    one, five = (search(*numbers, beam=beam) for beam in (1, 5))
    assert (one.log_prob[:, 0] <= five.log_prob[:, 0] + 1e-4).all()
    assert (jnp.diff(five.log_prob, axis=1) <= 0).all()
    checked = 0
    for row in range(2):
        for tokens, log_prob in zip(five.tokens[row].tolist(), five.log_prob[row].tolist()):
            if 0 in tokens:
                target = tokens[: tokens.index(0)]
                given = numbers[0][row : row + 1], numbers[1][row : row + 1]
                assert log_prob_of(model, params, *given, target) == pytest.approx(log_prob, rel=1e-4)
                checked += 1
    assert checked > 0
    np.testing.assert_allclose(one.weights.sum(axis=-1), 1, rtol=1e-5)


def test_with_one_hypothesis_the_likeliest_symbol_is_taken_each_time(tiny: Any) -> None:
    data, model, params = tiny
    source, lengths = numbered([tuple("abc")], data.sources, 8)
    written = jax.jit(functools.partial(decoding.search, model, params, beam=1))(source, lengths)
    (tokens,) = written.tokens[0].tolist()
    memory, carry, token = model.encode(params, source, lengths), None, 0
    for expected in tokens[:6]:
        carry, logits, _ = model.decode(params, memory, carry, jnp.array([[token]]))
        token = int(logits[0, 0].argmax())
        assert token == expected
        if token == 0:
            break


def test_error_rates_by_hand() -> None:
    assert evaluate.distance(tuple("kitten"), tuple("sitting")) == 3
    assert evaluate.distance((), tuple("ab")) == evaluate.distance(tuple("ab"), ()) == 2
    right = {tuple("x"): [tuple("abc"), tuple("abd")], tuple("y"): [tuple("efgh")]}
    rates = evaluate.error_rates([tuple("abd"), tuple("eg")], right)
    assert rates == {"symbol_error_rate": pytest.approx(2 / 7), "error_rate": 0.5}


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        (["a\tb", "c"], [], r"line 2: expected source<TAB>target"),
        ([], [], "is empty"),
        (["a\tb"] * 3, [], r"has 1 sources.*give more pairs"),
        ([f"{'a' * n}\tb" for n in range(1, 40)], [], "longest source or target"),
        ([f"{chr(97 + n)}\tb" for n in range(20)], ["--val-fraction", "0.1"], "symbols that training never saw"),
        (["a\tb"], ["--beam", "0"], "--beam is 0, but must be 1 or more"),
    ],
)
def test_bad_input_is_refused(lines: list[str], more: list[str], message: str, tmp_path: Path) -> None:
    path = file_of(tmp_path / "pairs.tsv", *lines)
    config = str(ROOT / "configs/translate/dates.py")
    with pytest.raises(UserError, match=message):
        train.main([config, "--data", path, "--run-dir", str(tmp_path / "run"), *more])
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known names: cmudict, dates"):
        load(Data(data=str(tmp_path / "none.tsv")))
