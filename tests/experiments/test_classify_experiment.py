"""The classifier of sequences of different lengths: the real configs, shrunk."""

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

import rnnx
from experiments.classify import Classify, Data, Model, Train, evaluate, model, train
from experiments.classify import data as datasets
from experiments.classify.data import Examples
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.settings import replace
from rnnx.testing import eps

TINY = {"width": 4, "batch": 8, "steps": 4, "eval-every": 2, "log-every": 1, "warmup": 1}


LETTERS = {"first": "abcd", "second": "wxyz"}


def run(config: str, run_dir: Path, *overrides: str) -> dict[str, Any]:
    settings = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    train.main([str(ROOT / f"configs/classify/{config}.py"), *settings, "--run-dir", str(run_dir), *overrides])
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def write_series(folder: Path) -> Path:
    """Two classes of series of 2 to 5 steps (4 in the test), 2 channels, told apart by the sign of the first."""
    rng = np.random.default_rng(0)
    for part, count in (("TRAIN", 8), ("TEST", 6)):
        lines = []
        for i in range(count):
            values = rng.normal(size=(2, 2 + i % 4 if part == "TRAIN" else 4)) + np.array([[3 if i % 2 else -3], [0]])
            lines.append(":".join(",".join(f"{x:.3f}" for x in channel) for channel in values) + f":{'ab'[i % 2]}")
        write(
            folder / f"Signs_{part}.ts", "@problemName Signs\n@classLabel true a b\n@data\n" + "\n".join(lines) + "\n"
        )
    return folder / "Signs_TRAIN.ts"


def test_a_run_on_series_leaves_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run_dir = write_series(tmp_path), tmp_path / "run"
    results = run("japanese_vowels", run_dir, "--data", str(path), "--nets", "2")
    scores = results["scores"]
    assert all(math.isfinite(score) for score in scores.values())
    assert scores["test_accuracy"] == scores["test_accuracy_packed"]
    assert results["largest_difference_of_logits_padded_to_packed"] < 1e-5
    assert results["examples"] == {"train": 8, "validation": 0, "test": 6}
    assert (results["best_step"], results["steps"]) == (4, 4)  # without validation the last weights are kept
    confusion = np.array(results["confusion"])
    assert confusion.sum(axis=1).tolist() == [3, 3]
    assert np.trace(confusion) / 6 == pytest.approx(scores["ensemble_test_accuracy"])
    assert len(results["errors"]) == 6 - np.trace(confusion)
    assert scores["majority_accuracy"] == 0.5
    assert scores["logistic_regression_accuracy"] == 1
    assert (run_dir / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert [row["step"] for row in read_metrics(run_dir) if "loss" in row] == [1, 2, 3, 4]
    assert f"{scores['test_nll']:.4f}" in capsys.readouterr().out
    assert run("japanese_vowels", run_dir, "--data", str(path), "--nets", "2") == results
    assert "is finished" in capsys.readouterr().out


def test_a_run_on_texts_keeps_what_is_best_in_validation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = {label: {"".join(rng.choice(list(letters), 5)) for _ in range(15)} for label, letters in LETTERS.items()}
    lines = [f"{label}\t{text}" for label, own in texts.items() for text in sorted(own)]
    path = write(tmp_path / "texts.tsv", "\n".join([*lines, lines[0]]))
    results = run("names", tmp_path / "run", "--data", str(path), "--smallest-class", "3", "--cell", "lstm")
    rows = [row for row in read_metrics(tmp_path / "run") if "val_nll" in row]
    assert [row["step"] for row in rows] == [2, 4]
    best = min(rows, key=lambda row: row["val_nll"])
    assert (results["best_step"], results["validation"]) == (best["step"], [best])
    assert sum(results["examples"].values()) == len(lines)
    assert results["scores"]["logistic_regression_accuracy"] == results["scores"]["naive_bayes_accuracy"] == 1
    assert {(error["true"], error["text"]) for error in results["errors"]} <= {
        tuple(line.split("\t")) for line in lines
    }
    assert results["scores"]["test_accuracy"] == results["scores"]["test_accuracy_packed"]


def test_pads_and_packing_change_no_logit() -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 3)).astype(np.float32) for n in (5, 1, 9, 5, 1, 5)]
    net = model.make_net(Model(width=4), characters=0, classes=3)
    params = jax.jit(functools.partial(model.init, net, 2, *rnnx.pad(sequences)))(jax.random.key(0))
    predict = evaluate.Predict(net)
    alone = jax.jit(functools.partial(model.classify, net))
    second = jax.tree.map(lambda leaf: leaf[1], params)
    expected = np.concatenate([alone(second, x[None], jnp.array([len(x)])) for x in sequences])
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.01  # they do differ
    assert np.abs(predict.padded(params, sequences)[0] - expected).max() > 0.01  # and so do the nets
    np.testing.assert_allclose(predict.padded(params, sequences)[1], expected, atol=eps(64))
    np.testing.assert_allclose(predict.packed(params, sequences)[1], expected, atol=eps(64))


def test_each_net_of_several_learns_as_it_would_alone() -> None:
    config = replace(Classify(), nets=2, weight_decay=0.1, warmup=0)
    both, own = train.make_optimizer(config), train.make_optimizer(replace(config, nets=1))
    rng = np.random.default_rng(0)
    params, gradient = ({"kernel": rng.normal(size=(2, 3, 4)), "bias": rng.normal(size=(2, 4))} for _ in range(2))
    halved = jax.tree.map(lambda leaf: leaf / 2, gradient)  # that of the nets' mean loss
    updates, _ = jax.jit(lambda g, p: both.update(g, both.init(p), p))(halved, params)
    second = functools.partial(jax.tree.map, lambda leaf: leaf[1:])
    alone, _ = jax.jit(lambda g, p: own.update(g, own.init(p), p))(second(gradient), second(params))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), second(updates), alone)


def test_a_warped_series_keeps_its_ends_and_its_shape() -> None:
    lines = np.stack([np.linspace(0, 1, 20)[:, None], np.linspace(0, 19 / 9, 20)[:, None]])
    lengths = jnp.array([20, 10])
    config = Train(warp=0.5)
    seen = set()
    augment = jax.jit(functools.partial(train.augment, config))
    for seed in range(20):
        xs, warped = augment(jax.random.key(seed), jnp.asarray(lines), lengths)
        for x, n, longest in zip(np.asarray(xs), warped.tolist(), (20, 17)):
            assert 6 <= n <= longest
            np.testing.assert_allclose(x[:n, 0], np.linspace(0, 1, n), atol=1e-5)
        seen.add(int(warped[1]))
    assert min(seen) < 8
    assert max(seen) > 12
    config, key = Train(offset=1.0), jax.random.key(0)
    moved, unchanged = train.augment(config, key, jnp.asarray(lines), lengths)
    added = np.asarray(moved[1, :10, 0]) - lines[1, :10, 0]
    np.testing.assert_allclose(added, added[0], atol=1e-6)
    assert abs(added[0]) > 1e-3
    assert unchanged.tolist() == [20, 10]


def test_the_metrics_agree_with_plain_loops() -> None:
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(200, 4)), rng.integers(0, 4, 200)
    probability = evaluate.probabilities(logits)
    np.testing.assert_allclose(probability, np.asarray(jax.nn.softmax(logits)), rtol=1e-5)
    confusion, nll, bins = np.zeros((4, 4), int), 0.0, [[] for _ in range(10)]
    for row, label in zip(probability, labels):
        guess = max(range(4), key=lambda k: row[k])
        confusion[label, guess] += 1
        nll -= math.log(row[label]) / 200
        bins[min(int(row[guess] * 10), 9)].append((row[guess], guess == label))
    error = sum(abs(sum(p for p, _ in b) - sum(r for _, r in b)) for b in bins) / 200
    assert (evaluate.confusion(probability, labels) == confusion).all()
    assert evaluate.accuracy(probability, labels) == np.trace(confusion) / 200
    assert evaluate.negative_log_likelihood(probability, labels) == pytest.approx(nll)
    assert evaluate.calibration(probability, labels).error == pytest.approx(error)
    certain = evaluate.calibration(np.eye(4)[labels], labels)
    assert (certain.error, certain.counts[-1], certain.accuracy[-1]) == (0, 200, 1)


def test_the_vowels_are_those_of_the_archive() -> None:
    train, test = (datasets.read_ts(path) for path in datasets.series_files("japanese_vowels", None))
    assert (len(train.items), len(test.items)) == (270, 370)
    assert [train.labels.count(str(speaker)) for speaker in range(1, 10)] == [30] * 9
    assert [test.labels.count(str(speaker)) for speaker in range(1, 10)] == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert {item.shape[1] for item in train.items + test.items} == {12}
    lengths = [len(item) for item in train.items + test.items]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert train.items[0][0, :3].tolist() == pytest.approx([1.860936, -0.207383, 0.261557], abs=1e-6)


def test_what_the_net_reads_comes_from_training_alone() -> None:
    examples = Examples([np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[5.0, 5.0]])], ["a", "b"])
    encode, characters = datasets.make_encode(Data(), examples, ("a", "b"))
    assert characters == 0
    values = np.concatenate(encode(examples).sequences)
    np.testing.assert_allclose(values[:, 0], np.array([-2, 0, 2]) / math.sqrt(8 / 3), rtol=1e-6)
    assert (values[:, 1] == 0).all()  # a constant channel
    np.testing.assert_allclose(
        encode(Examples([np.array([[7.0, 6.0]])], ["b"])).sequences[0], [[4 / math.sqrt(8 / 3), 1]]
    )
    texts = Examples(["bA", "C"], ["x", "y"])
    encode, characters = datasets.make_encode(Data(fold_case=True), texts, ("x", "y"))
    assert characters == 4
    numbers = encode(Examples(["aBcZ"], ["y"]))
    assert (numbers.sequences[0].tolist(), numbers.labels.tolist()) == ([1, 2, 3, 0], [1])


def test_missing_values_are_filled_as_asked() -> None:
    gaps = np.array([[np.nan, np.nan], [1.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    assert datasets.filled(gaps, "linear")[:, 0].tolist() == [1, 1, 2, 3]
    assert datasets.filled(gaps, "mean")[:, 0].tolist() == [0, 1, 0, 3]
    assert (datasets.filled(gaps, "linear")[:, 1] == 0).all()


def test_a_split_keeps_the_shares_of_the_classes_and_no_text_is_on_two_sides() -> None:
    given = Data("tzdata", validation_fraction=0.15, smallest_class=30)
    data = datasets.load(given, seed=3)
    parts = [set(zip(*part)) for part in data[:3]]
    everything = datasets.read_tzdata()
    assert len(parts[0] | parts[1] | parts[2]) == sum(len(part.items) for part in data[:3])
    for label in data.classes:
        count = len({text for text, own in zip(*everything) if own == label})
        shares = [sum(own == label for _, own in part) / count for part in parts]
        assert sum(shares) == pytest.approx(1)
        np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.03)
    again, other = (datasets.load(given, seed) for seed in (3, 4))
    assert again == data
    assert other.test != data.test


def test_places_are_labelled_by_their_part_of_the_world() -> None:
    places = dict(zip(*datasets.distinct(datasets.read_tzdata())))
    known = {"Ljubljana": "Europe", "Slovenia": "Europe", "Buenos Aires": "America", "Samoa (western)": "Pacific"}
    assert {name: places[name] for name in known} == known
    assert "Kyiv" in places
    assert not {"Kiev", "United States"} & set(places)  # an older spelling; a country in two parts


def test_the_same_text_stands_once() -> None:
    assert datasets.distinct(Examples(["a", "b", "a", "a"], ["x", "x", "x", "y"])) == Examples(
        ["a", "b", "a"], ["x", "x", "y"]
    )


HEAD = "@classLabel true a b\n@data\n"
GOOD = HEAD + "1,2:3,4:a\n5:6:b\n"


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (HEAD + "1,2:a\n", HEAD + "1,2:a\n3,4:b\n", "classes that training never saw: b. Training has a"),
        ("@classLabel false\n@data\n1,2\n", GOOD, "has no class labels"),
        (HEAD + "1,?:3,4:a\n5:6:b\n", GOOD, "1 of 2 series of the training set have missing values"),
        (GOOD, HEAD + "1,NaN:3,4:a\n", "1 of 1 series of the test set have missing values"),
        (GOOD, HEAD + "1,inf:3,4:a\n", "line 3: it holds an infinite value"),
        (HEAD + "1,x:3,4:a\n", GOOD, "line 3: could not convert string to float: 'x'"),
        (HEAD + "1,2:3:a\n", GOOD, "line 3: its channels have [1, 2] values"),
        (HEAD + "1,2:3,4:a\n1:b\n", GOOD, "line 4: it has 1 channels, but those above have 2"),
        (HEAD + "1,2:3,4:c\n", GOOD, "line 3: its label is 'c', but @classLabel names a, b"),
        (GOOD, HEAD + "1:a\n", "have {1, 2} channels in training and test"),
        ("@timeStamps true\n" + GOOD, GOOD, "series with time stamps cannot be read"),
        (HEAD, GOOD, "holds no series"),
    ],
)
def test_bad_series_are_refused(tmp_path: Path, train: str, test: str, message: str) -> None:
    write(tmp_path / "X_TRAIN.ts", train)
    write(tmp_path / "X_TEST.ts", test)
    with pytest.raises(UserError) as error:
        run("quick", tmp_path / "run", "--data", str(tmp_path / "X_TRAIN.ts"))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tone\na two\n", "line 2: it has 0 tabs, but expected label<TAB>text: 'a two'"),
        ("a\tone\n\na\ttwo\n", "line 2: it has 0 tabs"),
        ("a\tone\nb\t \n", "line 2: its text is empty"),
        ("a\tone\n\ttwo\n", "line 2: its label is empty"),
        ("", "is empty"),
        ("a\tone\na\ttwo\na\tthree\nb\tfour\n", "1 labels have 3 examples or more, but two are needed"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "texts.tsv", text)
    with pytest.raises(UserError) as error:
        run("names", tmp_path / "run", "--data", str(path), "--smallest-class", "3")
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--data", "nowhere.tsv"], "There is no data file nowhere.tsv"),
        (["--data", "nowhere_TRAIN.ts"], "There is no data file nowhere_TRAIN.ts"),
        (["--data", "nowhere.ts"], "its name does not end in _TRAIN.ts. Give --test-data"),
        (["--test-data", "some.tsv"], "'tzdata' is split by the seed; leave out --test-data some.tsv"),
        (["--steps", "0"], "--steps is 0, but must be 1 or more"),
        (["--dropout", "1"], "--dropout is 1.0, but must be at least 0 and below 1"),
        (["--validation-fraction", "0.8"], "leave nothing to train on"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run("names", tmp_path / "run", *overrides)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
