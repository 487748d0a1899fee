"""What cells can remember, at small size: the tasks by hand, and the real config, shrunk."""

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
from experiments.errors import UserError
from experiments.memory import Memory, evaluate, plots, train
from experiments.memory import data as tasks
from experiments.memory.config import CELLS, TASKS
from experiments.memory.model import make_model, signed_min_gru
from experiments.settings import replace
from rnnx.testing import eps

TINY = {"width": 4, "batch": 4, "updates": 8, "updates-per-step": 2, "eval-every": 2, "eval-batch": 8}
TINY |= {"train-length": 4, "test-length": 9, "copy-delay": 3, "adding-length": 5, "recall-delay": 2}
TINY |= {"selective-length": 5, "selective-tokens": 2}


def arguments(run_dir: Path, *overrides: str) -> list[str]:
    settings = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    return [str(ROOT / "configs/memory/quick.py"), *settings, "--run-dir", str(run_dir), *overrides]


def tiny(**changes: Any) -> Memory:
    return replace(Memory(), **{name.replace("-", "_"): value for name, value in TINY.items()} | changes)


def drawn(draw: Any, batch: int = 50, **sizes: Any) -> Any:
    """A batch as numpy arrays, inputs and all."""
    return jax.tree.map(np.asarray, jax.jit(lambda key: draw(key, batch, **sizes))(jax.random.key(3)))


def test_a_run_leaves_a_complete_folder_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    chosen = ["--tasks", "parity", "--cells", "elman", "signed_min_gru", "--judged-by", "elman_parity"]
    train.main(arguments(run_dir, *chosen))
    output = capsys.readouterr().out
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert list(results["scores"]) == ["elman_parity_accuracy"]
    assert [(row["task"], row["cell"]) for row in results["rows"]] == [
        ("parity", "elman"),
        ("parity", "signed_min_gru"),
    ]
    for row in results["rows"]:
        assert math.isfinite(row["score"])
        assert row["updates"] == 8
        assert f"{row['score']:>10.4f}" in output
    parity = results["rows"][0]
    assert [length for length, _ in parity["by_length"]] == list(range(1, 10))
    longer = [right for length, right in parity["by_length"] if length > 4]
    assert parity["score"] == pytest.approx(np.mean(longer), abs=1e-4) == results["scores"]["elman_parity_accuracy"]
    for name in ("table.png", "curves.png", "lengths.png"):
        assert (run_dir / name).read_bytes().startswith(b"\x89PNG")
    train.main(arguments(run_dir, *chosen))
    assert "is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="width: saved 4, given 5"):
        train.main(arguments(run_dir, *chosen, "--width", "5"))

    monkeypatch.chdir(tmp_path)
    evaluate.main([str(run_dir / "results.json")] * 2)
    output = capsys.readouterr().out
    assert f"{parity['score']:>9.4f}{parity['score']:>9.4f}{parity['score']:>9.4f}{0.5:>9.4f}{2:>7}" in output
    assert (tmp_path / "runs/memory/table.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="There is no run on record"):
        evaluate.main([])
    with pytest.raises(UserError, match=r"There is no nowhere\.json"):
        evaluate.main(["nowhere.json"])


def test_a_training_ends_when_its_task_is_solved(tmp_path: Path) -> None:
    config = tiny()
    task = tasks.make_task("adding", config.data)._replace(enough=1e9)
    model = make_model(config.model, task.outputs, "elman")
    fitted = train.fit_one(config, task, model, evaluate.make_measure(task, model), tmp_path)
    # Evaluations come every two steps of two updates: the first finds it solved, the second no better.
    assert (fitted.best_step, int(fitted.best.step), fitted.last_step) == (2, 4, 4)


def test_a_training_goes_on_while_its_loss_stands_still() -> None:
    config = tiny()
    task = tasks.make_task("adding", config.data)
    losses = iter([0.2, 0.3, 1e-3, 0.2])
    look = evaluate.make_evaluate(config, task, lambda params, batch: (next(losses), 0.0, jnp.zeros(1)))
    state = train.initial_state(config, task, make_model(config.model, task.outputs, "elman"))
    monitored = [look(state._replace(step=jnp.array(step)))[evaluate.MONITOR] for step in (2, 4, 6, 8)]
    assert monitored == [6, 4, -1, 0]  # a new best, a new best, solved, no new best


def test_adding_asks_for_the_sum_of_one_number_of_each_half() -> None:
    xs, targets, asked = drawn(tasks.draw_adding, length=7)
    values, marked = xs[..., 0], xs[..., 1]
    assert (marked[:, :3].sum(axis=1) == 1).all()
    assert (marked[:, 3:].sum(axis=1) == 1).all()
    assert values.min() >= 0
    assert values.max() < 1
    np.testing.assert_allclose(targets[:, -1], (values * marked).sum(axis=1), rtol=1e-6)
    assert asked.sum(axis=1).tolist() == [1] * 50
    assert asked[:, -1].all()


def test_copy_wants_the_ten_symbols_after_the_delimiter_and_blanks_before() -> None:
    xs, targets, asked = drawn(tasks.draw_copy, delay=5)
    tokens = xs.argmax(axis=-1)
    assert tokens.shape == targets.shape == (50, 25)
    assert set(np.unique(tokens[:, :10])) == set(range(8))
    assert (tokens[:, 10:14] == 8).all()
    assert (tokens[:, 14] == 9).all()
    assert (tokens[:, 15:] == 8).all()
    assert (targets[:, :15] == 8).all()
    assert (targets[:, 15:] == tokens[:, :10]).all()
    assert asked.all()


def test_parity_counts_the_ones() -> None:
    xs, targets, asked = drawn(tasks.draw_parity, length=6)
    bits = xs.argmax(axis=-1)
    last = asked.argmax(axis=1)
    assert (asked.sum(axis=1) == 1).all()
    assert set(last) == set(range(6))
    for row in range(50):
        assert targets[row, last[row]] == bits[row, : last[row] + 1].sum() % 2
    assert drawn(tasks.draw_parity, length=6, everywhere=True).asked.all()


def test_arithmetic_is_that_of_python() -> None:
    xs, targets, asked = drawn(tasks.draw_arithmetic, length=9)
    written = np.array(list("01234+-*"))[xs.argmax(axis=-1)]
    assert {len("".join(row)) for row in written} == {9}
    ends = asked.argmax(axis=1)
    assert set(ends) == {0, 2, 4, 6, 8}
    everywhere = drawn(tasks.draw_arithmetic, length=9, everywhere=True).asked
    assert everywhere.all(axis=0).tolist() == [True, False] * 4 + [True] == everywhere.any(axis=0).tolist()
    for row in range(50):
        for step in range(0, 9, 2):
            assert targets[row, step] == eval("".join(written[row, : step + 1])) % 5


def test_selective_copy_wants_the_tokens_in_the_order_in_which_they_came() -> None:
    xs, targets, asked = drawn(tasks.draw_selective_copy, length=12, tokens=4)
    tokens = xs.argmax(axis=-1)
    assert (tokens[:, 12:] == 15).all()
    assert asked[:, 12:].all()
    assert not asked[:, :12].any()
    places = set()
    for row in range(50):
        heard = tokens[row, :12]
        assert heard[heard > 0].tolist() == targets[row, 12:].tolist()
        places |= set(np.flatnonzero(heard))
    assert places == set(range(12))
    assert set(np.unique(targets[:, 12:])) == set(range(1, 15))


def test_recall_wants_the_symbol_with_the_flag() -> None:
    xs, targets, asked = drawn(tasks.draw_recall, delay=3)
    assert xs.shape == (50, 5, 10)
    assert (xs[:, 0, 8] == 1).all()
    assert (xs[:, 4, 9] == 1).all()
    assert (xs[..., 8:].sum(axis=(1, 2)) == 2).all()
    assert (xs[:, :4, :8].sum(axis=-1) == 1).all()
    assert (xs[:, 4, :8] == 0).all()
    assert (targets[:, 4] == xs[:, 0, :8].argmax(axis=-1)).all()
    assert asked.any(axis=0).tolist() == [False] * 4 + [True] == asked.all(axis=0).tolist()


@pytest.mark.parametrize("name", TASKS)
def test_outputs_without_memory_score_at_chance(name: str) -> None:
    task = tasks.make_task(name, tiny().data)
    batch = drawn(task.draw, 2000)
    outputs = np.zeros((*batch.targets.shape, task.outputs), "float32")
    if name == "adding":
        outputs += 1.0  # the mean
    if name == "copy":
        outputs[:, :-10, 8] = 99.0  # the blanks before the recall are known
        outputs[:, -10:, 8] = -99.0
    if name == "selective_copy":
        outputs[..., [0, 15]] = -99.0
    assert float(task.loss(jnp.asarray(outputs), batch)) == pytest.approx(task.chance_loss, rel=0.08)
    if task.metric == "accuracy":
        guesses = outputs + np.random.default_rng(0).normal(size=outputs.shape)
        assert float(task.score(jnp.asarray(guesses), batch)) == pytest.approx(task.chance, rel=0.15)
    assert task.way(task.chance) == 0
    assert task.way(task.perfect) == 1
    assert not task.is_solved(task.chance)
    assert task.is_solved(task.perfect)


def test_accuracy_is_that_of_the_steps_asked_for() -> None:
    batch = tasks.Batch(
        jnp.zeros((2, 3, 1)), jnp.array([[0, 1, 1], [1, 0, 1]]), jnp.array([[1, 1, 0], [0, 1, 0]], bool)
    )
    outputs = jax.nn.one_hot(jnp.array([[0, 0, 0], [0, 0, 1]]), 2)
    assert float(tasks.accuracy(outputs, batch)) == pytest.approx(2 / 3)
    by_length = np.asarray(tasks.accuracy_by_length(outputs, batch))
    assert by_length[:2].tolist() == [1.0, 0.5]
    assert np.isnan(by_length[2])


def test_a_signed_min_gru_of_one_unit_can_count_modulo_two_and_is_linear_in_its_state() -> None:
    layer = rnnx.associative_scan(signed_min_gru(1))
    task = tasks.make_task("parity", tiny(train_length=4, test_length=300).data)
    batch = task.test(jax.random.key(0), 8)
    # A one turns h into 1 - h, a zero keeps it.
    params = {"input_kernel": jnp.array([[-40.0, 0], [40.0, 0]]), "bias": jnp.array([0.0, 1.0])}
    _, ys = rnnx.unroll(layer, params, batch.xs)
    np.testing.assert_allclose(ys[..., 0], batch.targets, atol=eps(64))
    step = rnnx.as_cell(signed_min_gru(1)).step

    def after(h: jax.Array, z: float) -> jax.Array:
        return step(params, h, jnp.array([z, 1.0]))[0][0]

    slopes = [float(jax.grad(after)(jnp.zeros(1), z)[0]) for z in (-9.0, 0.0, 9.0)]
    np.testing.assert_allclose(slopes, [1, 0, -1], atol=1e-3)


def test_every_cell_makes_a_model() -> None:
    xs = jax.ShapeDtypeStruct((2, 3, 2), jnp.float32)
    for cell in CELLS:
        config = tiny(layers=2 if cell in ("lstm", "s5") else 1, width=32)
        model = make_model(config.model, 2, cell)
        params = jax.eval_shape(model.init, jax.random.key(0), xs)
        carry = jax.eval_shape(model.initial_carry, params, xs, None)
        assert jax.eval_shape(model.apply, params, carry, xs)[1].shape == (2, 3, 2), cell


def test_smoothing_takes_the_median_of_those_around() -> None:
    assert plots.smooth(np.array([1.0, 2, 3, 4, 10]), share=0.6).tolist() == [1.5, 2, 3, 4, 7]
    assert plots.smooth(np.array([1.0, 3.0])).tolist() == [1, 3]


def test_the_best_seed_has_the_highest_accuracy_or_the_lowest_loss() -> None:
    for metric, expected in (("accuracy", (0.9, 0.2)), ("loss", (0.2, 0.9))):
        assert plots.best_and_worst([{"metric": metric, "score": score} for score in (0.5, 0.9, 0.2)]) == expected


def test_rows_of_several_seeds_are_put_together() -> None:
    rows = [{"title": "parity", "cell": cell, "score": score} for cell, score in (("a", 1), ("b", 2), ("a", 3))]
    assert {key: [row["score"] for row in seeds] for key, seeds in plots.grouped(rows).items()} == {
        ("parity", "a"): [1, 3],
        ("parity", "b"): [2],
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--updates", "0"], "--updates is 0, but must be 1 or more"),
        (["--learning-rate", "0"], "--learning-rate is 0.0, but must be above 0"),
        (["--updates", "9"], "--updates is 9, but must be a multiple of --updates-per-step, 2"),
        (["--test-length", "4"], "--test-length is 4, but must be above --train-length, 4"),
        (["--selective-tokens", "6"], "--selective-tokens is 6, but at most --selective-length, 5, have a place"),
        (["--cells", "lstm", "transformer"], "--cells has transformer, but must be of: elman, lstm"),
        (["--tasks", "copy", "copy"], "--tasks is copy copy, but must have one name or more, each once"),
        (["--tasks"], "--tasks is empty, but must have one name or more"),
        (["--judged-by", "lstm_reading"], "--judged-by has lstm_reading, but must be of: elman_adding"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        train.main(arguments(tmp_path / "run", *overrides))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
