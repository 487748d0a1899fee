"""What cannot be meant ends in one sentence and an exit status, in every experiment, and nothing saved is touched."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from processes import ROOT, arguments, copy_unreported

from experiments import command, files, locks, runs
from experiments.errors import UserError
from experiments.logs import MetricsLog, read_metrics

EXPERIMENTS = ["char_lm", "classify", "control", "forecast", "journey", "memory", "online", "translate", "video"]
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # as modules are run again
Ending = tuple[int, str]
Run = Callable[..., Ending]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `python -m experiments.<experiment>` in this process: `(exit status, what stands on stderr)`."""

    def run(experiment: str, *args: str | Path) -> Ending:
        monkeypatch.setattr(sys, "argv", [experiment, *map(str, args)])
        capsys.readouterr()
        try:
            runpy.run_module(f"experiments.{experiment}", run_name="__main__")
        except SystemExit as end:
            said = capsys.readouterr().err
            if isinstance(end.code, str):  # which Python writes, and ends with status 1
                return 1, said + end.code
            return end.code or 0, said
        return 0, capsys.readouterr().err

    return run


def quick(experiment: str) -> Path:
    return next((ROOT / "configs" / experiment).glob("*quick.py"))


@pytest.fixture
def started(run: Run, corpus: Path) -> Run:
    """An experiment's quick config, with data that is at hand."""
    small: dict[str, list[str | Path]] = {
        "char_lm": ["--corpus", corpus, "--eval-warmup", "9", "--batch", "2"],
        "translate": ["--data", "dates", "--examples", "300"],
    }
    return lambda experiment, *args: run(experiment, quick(experiment), *small.get(experiment, []), *args)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_config_file_with_an_error_shows_its_line(experiment: str, tmp_path: Path, run: Run) -> None:
    whole = quick(experiment).read_text(encoding="utf-8")
    first, call = whole.index("config = "), "config = " + whole.split("config = ")[1].split("(")[0]
    path, before = tmp_path / "own.py", whole[:first]
    line = before.count("\n") + 1
    with_run, run_settings = f"{before}from experiments.{experiment} import Run\n{call}", "(run=Run({}))\n".format
    for written, message in (
        (before + call + "(\n", f"{path}:{line}: SyntaxError"),
        (before + "config = 1 / 0\n", f"{path}:{line}: ZeroDivisionError: division by zero"),
        (before + call + "(widht=3)\n", f"{path}:{line}: TypeError"),
        (before + "import rnnx; rnnx.lstmm\n", "lstmm"),
        (before + "raise SystemExit(0)\n", f"{path}:{line}: it ends the program (SystemExit: 0)"),
        (call + "()\n", f"{path}:1: NameError"),
        (with_run + run_settings("seed='1'"), "--seed is '1', but must be a whole number"),
        (with_run + run_settings("seed=True"), "--seed is True, but must be a whole number"),
        (with_run + run_settings("run_dir='runs'"), "--run-dir is 'runs', but must be a Path or None"),
        ("\0" + whole, "null bytes"),
        ("", "there `config` is NoneType"),
    ):
        path.write_text(written, encoding="utf-8")
        status, said = run(experiment, path, "--run-dir", tmp_path / "run")
        assert status == 1
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_numbers_that_cannot_be_meant(experiment: str, tmp_path: Path, started: Run) -> None:
    for seed in ("-1", str(2**34), str(10**30)):
        status, said = started(experiment, "--seed", seed, "--run-dir", tmp_path / "run")
        assert status == 1
        assert f"--seed is {seed}, but must be" in said
    rate = "--noise" if experiment == "journey" else "--learning-rate"
    for value in ("nan", "inf", "-inf"):
        status, said = started(experiment, rate, value, "--run-dir", tmp_path / "run")
        assert status == 1
        assert f"{rate} is {value}, but must be a finite number" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_run_folders_that_cannot_be_used(experiment: str, tmp_path: Path, run: Run, started: Run) -> None:
    file = tmp_path / "file"
    file.write_text("kept", encoding="utf-8")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent" / "x")
    for folder in (file, file / "below", "/proc/run", tmp_path / "nowhere", "x" * 5000):
        status, said = started(experiment, "--run-dir", folder)
        assert status == 1
        assert "--run-dir" in said or "too long" in said
    assert started(experiment, "--run-dir", "") == (2, "--run-dir is empty, but must be a path.\n")
    assert run(experiment)[0] == 2
    (tmp_path / "other").mkdir()
    for name, content, message in (
        ("config.json", "[1]", "expected an object"),
        ("config.json", "\xff", "is damaged"),
        ("config.json", "[" * 100_000, "is damaged"),
        ("config.json", '{"a": 1}', "holds a run with other settings"),
        ("metrics.jsonl", "", "its config.json is gone"),
    ):
        path = tmp_path / "other" / name
        path.write_text(content, encoding="latin-1")
        status, said = started(experiment, "--run-dir", tmp_path / "other")
        assert status == 1
        assert message in said
        assert path.read_text(encoding="latin-1") == content
        path.unlink()
    assert file.read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_results_that_are_none_are_not_shown_as_a_finished_run(experiment: str, tmp_path: Path, started: Run) -> None:
    """The folder is begun by a run that is stopped at once."""
    asked = []

    def begin(run_dir: Path, settings: dict[str, object], added: object) -> None:
        asked.append(settings)
        raise UserError("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "begin_or_resume", begin)
        assert started(experiment, "--run-dir", tmp_path)[1].endswith("stopped")
    files.write_json(tmp_path / "config.json", asked[0])
    whole = {"scores": {"x": 1.0}, "seed": 0, "seconds": 1.0}
    for written in ({}, {**whole, "scores": {}}, {**whole, "scores": {"x": "1"}}, {**whole, "scores": {"x": None}}):
        files.write_json(tmp_path / "results.json", written)
        status, said = started(experiment, "--run-dir", tmp_path)
        assert status == 1
        assert "is not that of a finished run" in said
    files.write_json(tmp_path / "results.json", whole)  # and nothing that is to be shown beside
    status, said = started(experiment, "--run-dir", tmp_path)
    assert (status, "Remove it, and the same command" in said) == (1, True), said
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "results.json"}


def test_an_option_given_twice_is_told(run: Run, tmp_path: Path) -> None:
    status, said = run("online", quick("online"), "--seed", "1", "--seed=2", "--width", "0", "--run-dir", tmp_path)
    assert "--seed is given twice, 1 and 2. Of an option that is given twice the last counts." in said
    assert (status, "--width is 0" in said) == (1, True)


def test_a_finished_run_that_lost_or_broke_a_file(
    finished: tuple[Path, str], corpus: Path, tmp_path: Path, run: Run
) -> None:
    folder = copy_unreported(finished[0], tmp_path / "run")
    (folder / "results.json").write_bytes((finished[0] / "results.json").read_bytes())
    sample = folder / "sample.txt"
    sample.unlink()
    assert "sample.txt" in run("char_lm", *arguments(corpus, folder))[1]
    for content in ("{}", "[]", "3", '["char", ["a", "a"]]', '["char", [1]]', '["page", ["a"]]', "null"):
        (folder / "vocab.json").write_text(content, encoding="utf-8")
        status, said = run("char_lm", "sample", folder)
        assert (status, "vocab.json is damaged" in said) == (1, True)
    (folder / "results.json").unlink()
    metrics = folder / "metrics.jsonl"
    good = metrics.read_bytes()
    for line in (b'{"x": 1}', b"3", b'{"step": 1, "loss": "a"}', b"{", b"\xff"):
        spoilt = line + b"\n" + good
        metrics.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
            read_metrics(folder)
        with pytest.raises(UserError, match="line 1 is damaged"):
            MetricsLog(folder, 20)
        assert metrics.read_bytes() == spoilt


def test_seeds_and_report(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(quick("online"))
    monkeypatch.chdir(tmp_path)
    for args, message in (
        (["online", config, "--cores", "99"], "--cores has [99], but this process may use"),
        (["online", config, "--cores"], "--cores is empty"),
        (["online", config, "--seeds"], "--seeds is empty"),
        (["online", config, "--seeds", "1", "1"], "--seeds is 1 1, but must have one number or more, each once"),
        (["online", config, "--seeds", "-1"], "--seeds is -1"),
        (["../x", config], "no experiment '../x'; there are char_lm"),
    ):
        status, said = run("seeds", *args)
        assert (status, message in said) == (1, True)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "task").mkdir()
    kept = tmp_path / "task" / "quick-seed0.json"
    for content in ("{}", "[]", "{", '{"scores": {"a": NaN}, "seed": 0, "seconds": 1}'):
        kept.write_text(content, encoding="utf-8")
        assert run("report", tmp_path)[0] == 1
    kept.write_text('{"scores": {"a": 1}, "seed": 0, "seconds": 1}', encoding="utf-8")
    assert "results.md: No such file" in run("report", tmp_path, "--docs")[1]


HOLD = "import sys; from pathlib import Path; from experiments import locks; locks.hold(Path(sys.argv[1]), 'it')"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Another process that has a lock."""
    started = []

    def start(path: Path) -> subprocess.Popen[str]:
        code = f"{HOLD}; print('held', flush=True); input()"
        line = [sys.executable, "-c", code, str(path)]
        process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_run_on_a_folder_leaves(
    tmp_path: Path,
    run: Run,
    started: Run,
    corpus: Path,
    holder: Callable[[Path], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    process = holder(folder / "lock")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for experiment in EXPERIMENTS:
        status, said = started(experiment, "--run-dir", folder)
        assert status == 1
        assert f"{folder} is in use by process {process.pid} on {os.uname().nodename}, since 20" in said
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    config = ROOT / "configs/char_lm/kjv.py"
    assert "is in use by process" in run("char_lm", "compare", config, "--run-dir", folder, "--", "--corpus", corpus)[1]
    (tmp_path / "runs" / "online").mkdir(parents=True)
    log = tmp_path / "runs" / "online" / "quick-seed0.log"
    log.write_text("before", encoding="utf-8")
    process.kill()  # which leaves no lock behind
    process.communicate()
    holder(folder / "lock")
    holder(log.with_suffix(".log.lock"))
    assert "quick-seed0.log is in use by process" in run("seeds", "online", quick("online"), "--seeds", "0")[1]
    assert log.read_text(encoding="utf-8") == "before"
    locks.hold(tmp_path / "own", "it")
    locks.hold(tmp_path / "own", "it")  # by the same process: no matter


def test_what_is_printed_ends_nothing(tmp_path: Path) -> None:
    code = (
        "from experiments import command\n"
        "def main(args):\n"
        "    for _ in range(20000): print('\\xd7 \\xc6 \\udcc3')\n"
        "    open('done', 'w', encoding='utf-8').close()\n"
        "command.run(main)"
    )
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    for shell in ("| head -1", "> /dev/full", ">&-", "2>&1 | cat > out", ">&- 2>&-"):
        line = f'"$0" -c "$1" {shell}'
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line, sys.executable, code],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, ""), shell
        (tmp_path / "done").unlink()
    assert (tmp_path / "out").read_text(encoding="ascii").startswith("\\xd7 \\xc6 \\udcc3\n")


def test_json_holds_names_of_any_encoding(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"corpus": "Æ\udcc3"})
    assert files.read_json(tmp_path / "a.json") == {"corpus": "Æ\udcc3"}


def test_what_is_no_fault_of_the_users_keeps_its_traceback() -> None:
    def main(args: Sequence[str]) -> None:
        raise KeyError("a fault of the program")

    with pytest.raises(KeyError):
        command.run(main)
    with pytest.raises(SystemExit) as stopped:
        command.run(lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert stopped.value.code == 130


def test_data_that_cannot_be_meant(tmp_path: Path, run: Run) -> None:
    csv, ts = tmp_path / "a.csv", tmp_path / "a_TRAIN.ts"
    ahead = "@classLabel true a b\n@data\n"
    forecast = ("forecast", quick("forecast"), "--column", "x", "--data", csv)
    classify = ("classify", quick("classify"), "--fill", "mean", "--test-data", ts, "--data", ts)
    text = ("char_lm", ROOT / "configs/char_lm/kjv.py", "--corpus", csv)
    for path, content, args, message in (
        (csv, "x,x\n" + "1,2\n" * 500, forecast, "a.csv has 2 columns 'x'"),
        (csv, "x\n" + "1" * 200_000 + "\n", forecast, "a.csv, line 2: field larger than field limit"),
        (csv, "x\n1\n\xff\n", forecast, "a.csv is not UTF-8 text"),
        (csv, "", forecast, "a.csv has no column 'x'"),
        (ts, ahead + "?,?:a\n?,?:b\n" * 4, classify, "Channel 1 of 1 has no value in the training set"),
        (
            ts,
            ahead + "1,2:a\n1,2:b\n" * 20_000 + "1," * 40_000 + "2:a\n",
            classify,
            "to pad all 40,001 to that takes 6.4 GB",
        ),
        (ts, "\xff\xfe1\0", classify, "from UTF-16"),
        (csv, "a" * 9000, text, "has no other character than 'a'"),
        (csv, "a b " * 9000, (*text, "--level", "word", "--words", "1"), "--words is 1, but must be 2 or more"),
    ):
        path.write_text(content, encoding="latin-1")
        status, said = run(*args, "--run-dir", tmp_path / "run")
        assert (status, message in said) == (1, True), said
    assert not (tmp_path / "run" / "checkpoints").exists()
