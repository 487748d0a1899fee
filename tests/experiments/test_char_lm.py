"""The character model: what it reads, what it leaves behind, and what it says to bad input."""

import json
import math
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import STEPS, arguments, copy_unreported, damage, start
from processes import train as start_training

import rnnx
from experiments.char_lm import CharLM, Train, compare, gates, sampling, train
from experiments.char_lm.data import Corpus, load_corpus, read_chunk
from experiments.char_lm.evaluate import Scorer, final_score, make_evaluate, quality
from experiments.char_lm.model import make_model
from experiments.char_lm.train import initial_state, make_optimizer, make_train_step
from experiments.char_lm.trained import read_trained, read_vocabulary
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.settings import replace
from experiments.text import Vocabulary, encode


def test_a_run_leaves_a_complete_folder(finished: tuple[Path, str], corpus: Path) -> None:
    run_dir, output = finished
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert results["val_bits"] == pytest.approx(results["scores"]["val_nats_per_char"] / math.log(2))
    assert results["train_tokens"] == STEPS * 2 * 8
    assert results["seed"] == 0
    assert results["seconds"] > 0
    text = corpus.read_text(encoding="utf-8")
    assert results["val_tokens"] == len(text) - int(0.9 * len(text)) - 1

    rows = read_metrics(run_dir)
    assert [row["step"] for row in rows if "loss" in row] == list(range(5, STEPS + 1, 5))
    scores = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row}
    assert list(scores) == list(range(20, STEPS + 1, 20))
    assert scores[STEPS] < scores[20]
    assert results["best_step"] == min(scores, key=lambda step: scores[step])

    assert json.loads((run_dir / "config.json").read_text(encoding="utf-8"))["width"] == 8
    assert json.loads((run_dir / "vocab.json").read_text(encoding="utf-8")) == ["char", sorted(set(text))]
    assert (run_dir / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert len((run_dir / "sample.txt").read_text(encoding="utf-8")) == 40
    assert any((run_dir / "tensorboard").iterdir())
    assert not list((run_dir / "checkpoints").glob("*tmp*"))
    assert len(list((run_dir / "checkpoints").iterdir())) in (2, 3)

    assert "2_lstm" in output  # the summary of the model
    assert (run_dir / "sample.txt").read_text(encoding="utf-8") in output
    assert f"{results['scores']['val_nats_per_char']:.4f}" in output


def test_a_finished_run_prints_its_results_again(
    finished: tuple[Path, str], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    train.main(arguments(corpus, run_dir))
    output = capsys.readouterr().out
    assert "is finished" in output
    assert (
        f"{json.loads((run_dir / 'results.json').read_text(encoding='utf-8'))['scores']['val_nats_per_char']:.4f}"
        in output
    )
    assert before == {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}


def test_changed_settings_are_listed(finished: tuple[Path, str], corpus: Path, tmp_path: Path) -> None:
    run_dir, _ = finished
    with pytest.raises(UserError) as error:
        train.main(arguments(corpus, run_dir, "--width", "9", "--cell", "gru"))
    message = str(error.value)
    assert "width: saved 8, given 9" in message
    assert 'cell: saved "lstm", given "gru"' in message
    assert "--run-dir" in message
    assert "embed" not in message

    other = copy_unreported(run_dir, tmp_path / "run")
    original = corpus.read_text(encoding="utf-8")
    try:
        corpus.write_text(original + "More.", encoding="utf-8")
        with pytest.raises(UserError, match="corpus_sha256"):
            train.main(arguments(corpus, other))
    finally:
        corpus.write_text(original, encoding="utf-8")


def test_the_default_folder_follows_from_config_and_seed(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = arguments(corpus, tmp_path, "--seed", "3", "--corpus", str(tmp_path / "absent"))
    at = args.index("--run-dir")
    del args[at : at + 2]
    opened = []
    monkeypatch.setattr(train, "load_corpus", lambda config: Corpus(np.zeros(9, int), Vocabulary("char", "a"), 5, ""))
    monkeypatch.setattr(train, "open_run_dir", lambda config, **_: opened.append(config.run.run_dir) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main(args)
    assert opened == [Path("runs/char_lm/kjv-seed3")]


def test_each_row_reads_its_own_stretch_of_the_circle() -> None:
    config = Train(batch=3, time=4, reset_probability=0.0)
    text, split = jnp.arange(100, 120), 17
    read = [read_chunk(config, split, text, jnp.int32(s), jax.random.key(0)) for s in range(5)]
    inputs, targets, resets = (np.concatenate(parts, axis=1) for parts in zip(*read, strict=True))
    for row, start_at in enumerate([0, 17 // 3, 34 // 3]):
        walk = (start_at + np.arange(21)) % split
        assert inputs[row].tolist() == (100 + walk[:-1]).tolist()
        assert targets[row].tolist() == (100 + walk[1:]).tolist()
        assert resets[row].tolist() == (walk[:-1] == 0).tolist()


def test_rows_are_reset_at_random_at_the_start_of_a_chunk_only() -> None:
    config = Train(batch=1000, time=3, reset_probability=0.25)
    text = jnp.zeros(9000, int)
    _, _, resets = read_chunk(config, 9000, text, jnp.int32(5), jax.random.key(0))
    assert 0.2 < resets[:, 0].mean() < 0.3
    assert not resets[:, 1:].any()


def test_the_final_score_is_that_of_one_stream(corpus: Path) -> None:
    text = corpus.read_text(encoding="utf-8")
    config = replace(CharLM(), corpus=str(corpus), width=8, embed=4, batch=2, time=8, train_fraction=0.5, eval_rows=4)
    loaded = load_corpus(config)
    model = make_model(config, len(loaded.vocab.pieces))
    params = initial_state(config, model).params
    scorer = Scorer(model, loaded.text)

    stream = jnp.asarray(encode(text, loaded.vocab))[None, loaded.split :]
    _, logits = rnnx.unroll(model, params, stream[:, :-1])
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), stream[:, 1:, None], axis=-1).mean()
    assert final_score(loaded, scorer, params) == pytest.approx(float(nats), rel=1e-5)

    # The estimate during training leaves out what does not fill its stretches.
    state = initial_state(config, model)
    estimate = make_evaluate(config, loaded, scorer)(state)["val_loss"]
    assert estimate == pytest.approx(float(nats), rel=0.02)


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_every_cell_in_layers(cell: Literal["lstm", "gru", "elman"]) -> None:
    config = replace(CharLM(), width=4, embed=3, batch=2, time=5, cell=cell, layers=2, dropout=0.25)
    model = make_model(config, 7)
    assert str(model).count(f"{cell}(width=4)") == 2
    assert str(model).count("dropout(rate=0.25)") == 2
    state = jax.eval_shape(lambda: initial_state(config, model))
    after, metrics = jax.eval_shape(make_train_step(config, model, 90), state, jnp.zeros(100, int))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert set(metrics) == {"loss", "gradient_norm", "learning_rate"}


def test_the_average_follows_the_weights() -> None:
    for decay in (0.0, 0.9):
        config = replace(CharLM(), width=4, embed=3, batch=2, time=5, ema=decay, cell="elman", warmup=0)
        model = make_model(config, 7)
        state = initial_state(config, model)
        step = jax.jit(make_train_step(config, model, 90))
        expected = state.average
        for i in range(3):
            state, _ = step(state, jnp.arange(100) % 7)
            kept = min(decay, (1 + i) / (10 + i))
            expected = jax.tree.map(lambda a, p, kept=kept: kept * a + (1 - kept) * p, expected, state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.average, expected)


def test_weight_decay_leaves_biases_alone() -> None:
    config = replace(CharLM(), learning_rate=0.1, weight_decay=1.0, warmup=0)
    optimizer = make_optimizer(config)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert (updates["kernel"] < 0).all()
    assert (updates["bias"] == 0).all()


def test_sample_streams_and_is_repeatable(finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, _ = finished
    process = start("sample", str(run_dir), "--prime", "The cat", "--length", "100000", "--seed", "1")
    assert process.stdout is not None
    first = process.stdout.read(60)  # there long before the process is done
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert first.startswith("The cat")

    def sample(*options: str) -> str:
        sampling.main([str(run_dir), "--prime", "The", "--length", "30", *options])
        return capsys.readouterr().out

    drawn = sample("--seed", "1")
    assert len(drawn) == len("The") + 30 + 1
    assert drawn == sample("--seed", "1")
    assert drawn != sample("--seed", "2")
    assert sample("--temperature", "0") == sample("--top-k", "1", "--seed", "5") == sample("--top-p", "1e-6")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prime", "The Ω"], "does not know: 'Ω'"),
        (["--prime", ""], "is empty"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--top-k", "0"], "top_k is 0"),
        (["--top-p", "1.5"], "top_p is 1.5"),
        (["--length", "0"], "--length is 0"),
    ],
)
def test_sample_refuses_bad_input(finished: tuple[Path, str], options: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        sampling.main([str(finished[0]), *options])
    assert message in str(error.value)


def test_gates_are_those_of_the_model(finished: tuple[Path, str], tmp_path: Path) -> None:
    run_dir, _ = finished
    trained = read_trained(run_dir, read_vocabulary(run_dir))
    tokens = encode("The cat sees", trained.vocab)
    values = gates.gate_values(trained, tokens, ["i", "f", "g", "o", "c", "h"], layer=0)
    before = np.concatenate([np.zeros((1, 8)), values["c"][:-1]])
    np.testing.assert_allclose(values["c"], values["f"] * before + values["i"] * values["g"], rtol=1e-5, atol=1e-6)
    carry, _ = rnnx.unroll(trained.model, trained.params, tokens[None])
    np.testing.assert_allclose(values["h"][-1], carry[2].h[0], rtol=1e-4, atol=1e-6)

    gates.main([str(run_dir), "--text", "The cat sees", "--units", "3", "--out", str(tmp_path / "gates.png")])
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="--layer is 1, but the run has 1"):
        gates.main([str(run_dir), "--text", "The cat sees", "--layer", "1"])
    with pytest.raises(UserError, match="The text 'Ω' has characters that the model does not know"):
        gates.main([str(run_dir), "--text", "Ω"])
    with pytest.raises(ValueError, match=r"lstm has no value named 'q'; it has"):
        gates.main([str(run_dir), "--text", "The cat sees", "--gates", "q"])


def test_sample_needs_a_run_with_checkpoints(finished: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        sampling.main([str(tmp_path)])
    for name in ("config.json", "vocab.json"):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    with pytest.raises(UserError, match="no checkpoint"):
        sampling.main([str(tmp_path)])


def test_sample_falls_back_from_a_damaged_checkpoint(
    finished: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = copy_unreported(finished[0], tmp_path / "run")
    steps = sorted((run_dir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    damage(steps[-1])
    sampling.main([str(run_dir), "--length", "3"])
    output = capsys.readouterr().out
    assert f"Checkpoint {steps[-1].name} is damaged" in output
    assert f"Falling back to the next good checkpoint, step {steps[-2].name}" in output
    for step in steps[:-1]:
        damage(step)
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(UserError, match="All checkpoints"):
        sampling.main([str(run_dir), "--length", "3"])
    assert sorted(run_dir.rglob("*")) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--steps", "0"], "--steps is 0, but must be 1 or more"),
        (["--dropout", "1.0"], "--dropout is 1.0"),
        (["--train-fraction", "1.0"], "--train-fraction is 1.0"),
        (["--learning-rate", "0"], "--learning-rate is 0"),
        (["--corpus", "bible"], "'bible' is neither"),
        (["--batch", "4000"], "lower --batch or --time"),
        (["--eval-rows", "4000"], "lower --eval-rows"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    corpus: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        train.main(arguments(corpus, tmp_path / "run", *overrides))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"has 0 characters.*16 are needed"):
        train.main(arguments(empty, tmp_path / "run"))


def test_a_loss_that_explodes_stops_the_run(corpus: Path, tmp_path: Path) -> None:
    process = start_training(corpus, tmp_path / "run", "--learning-rate", "1e38", "--warmup", "0")
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "became" in errors
    assert "at step" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "results.json").exists()
    assert not list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_tensorboard_has_the_metrics(finished: tuple[Path, str]) -> None:
    raw = next((finished[0] / "tensorboard").iterdir()).read_bytes()
    assert b"val_loss" in raw
    assert b"learning_rate" in raw


def test_quality_of_what_was_written() -> None:
    training = "the cat sees the dog. the dog hears a bird"
    assert quality("the dog sees a qat", training) == {"known_words": 0.8, "distinct_words": 1.0, "longest_copy": 8}
    assert quality("dog dog dog dog", training)["distinct_words"] == 0.25
    assert quality("", training) == {"known_words": 0.0, "distinct_words": 0.0, "longest_copy": 0}


@pytest.mark.parametrize("level", ["byte", "word"])
def test_bytes_and_words_are_trained_on_and_written(
    level: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--steps", "4", "--eval-every", "2", "--eval-chars", "40", "--cell", "elman")
    train.main(arguments(corpus, tmp_path / "run", "--level", level, "--words", "12", *short))
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert math.isfinite(results["scores"][f"val_nats_per_{level}"])
    assert (results["unknown_share"] > 0) == (level == "word")
    assert results["quality"]["held_out"]["longest_copy"] > 0
    capsys.readouterr()
    sampling.main([str(tmp_path / "run"), "--prime", ".", "--length", "3"])
    assert capsys.readouterr().out.startswith(".")


def test_cells_are_compared(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, *overrides = arguments(
        corpus, tmp_path / "unused", "--steps", "4", "--eval-every", "2", "--eval-chars", "40"
    )
    compare.main([config, "--cells", "elman", "min_gru", "--run-dir", str(tmp_path / "all"), "--", *overrides])
    output = capsys.readouterr().out
    results = json.loads((tmp_path / "all" / "results.json").read_text(encoding="utf-8"))
    assert list(results["scores"]) == ["elman_val_nats_per_char", "min_gru_val_nats_per_char"]
    assert (tmp_path / "all" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    samples = (tmp_path / "all" / "samples.md").read_text(encoding="utf-8")
    for cell in ("elman", "min_gru"):
        assert f"## {cell}" in samples
        assert f"{cell:<10}{results['scores'][f'{cell}_val_nats_per_char']:>8.4f}" in output
    assert "held out" in output
    with pytest.raises(UserError, match="must have one name or more, each once"):
        compare.main([config, "--cells", "elman", "elman"])
