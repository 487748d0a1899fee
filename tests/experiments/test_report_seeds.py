"""The table of results, the list of experiments, and several seeds at once."""

import json
import os
from pathlib import Path

import pytest
from processes import ROOT

from experiments import __main__ as listing
from experiments import report, runs, seeds
from experiments.errors import UserError


def keep(folder: Path, experiment: str, seed: int, **scores: float) -> None:
    path = folder / experiment / f"quick-seed{seed}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"scores": scores, "seed": seed, "seconds": 60.0 * (seed + 1)}), encoding="utf-8")


def test_a_row_is_the_mean_and_spread_over_the_seeds(tmp_path: Path) -> None:
    for seed, score in enumerate((0.5, 0.7, 0.9)):
        keep(tmp_path, "task", seed, accuracy=score)
    keep(tmp_path, "other", 0, val_loss=1.25)
    other, task = report.rows_of(report.read_runs(tmp_path))
    assert task["mean"] == pytest.approx(0.7)
    assert task["std"] == pytest.approx(0.2)
    assert (task["seeds"], task["seconds"], task["published"]) == (3, 120.0, None)
    assert other["std"] is None
    written = report.table([other, task])
    assert "| `task` `quick` | accuracy **0.7** ± 0.2 | 3 | 2.0 |" in written
    assert "| `other` `quick` | val loss **1.25** | 1 | 1.0 |" in written
    beside = report.table([{**task, "source": "0.8: a paper"}, {**task, "metric": "loss"}])
    assert "accuracy **0.7** ± 0.2 (published: 0.8: a paper)<br>loss **0.7** ± 0.2 | 3 |" in beside
    readme = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.with_table(readme, written) == f"before\n{report.BEGIN}\n{written}\n{report.END}\nafter\n"
    with pytest.raises(UserError, match="once each"):
        report.with_table("no marks", written)


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, "task", 0, accuracy=0.5)
    keep(tmp_path, "task", 1, error=0.5)
    with pytest.raises(UserError, match=r"seed 1 has the scores error, but seed 0 has accuracy"):
        report.rows_of(report.read_runs(tmp_path))
    (tmp_path / "task" / "quick-seed1.json").rename(tmp_path / "task" / "quick-seed2.json")
    with pytest.raises(UserError, match=r"not the results.json of seed 2: it has seed 1"):
        report.read_runs(tmp_path)


def test_published_figures_belong_to_runs_on_record() -> None:
    rows = {
        (row["experiment"], row["config"], row["metric"]) for row in report.rows_of(report.read_runs(report.RECORDS))
    }
    assert set(report.PUBLISHED) <= rows


def test_a_run_without_a_finite_score_is_not_finished(tmp_path: Path) -> None:
    for scores in ({"accuracy": float("nan")}, {}):
        with pytest.raises(UserError, match="no score"):
            runs.finish(tmp_path, scores, seed=0, seconds=1.0)
    assert not (tmp_path / "results.json").exists()
    runs.finish(tmp_path, {"accuracy": 0.5}, seed=0, seconds=1.0, folds=3)
    saved = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (saved["scores"], saved["folds"]) == ({"accuracy": 0.5}, 3)


def test_every_experiment_is_listed_with_a_line_and_its_configs(capsys: pytest.CaptureFixture[str]) -> None:
    listing.main([])
    output = capsys.readouterr().out
    for path in (ROOT / "configs").glob("*/*.py"):
        assert str(path.relative_to(ROOT)) in output
        assert path.read_text(encoding="utf-8").startswith('"""'), path
        for word in (f" configs/{path.parent.name}/{path.name}", "Command:", "Time:", "Score:"):
            assert word in path.read_text(encoding="utf-8"), f"{path} does not say {word}"
    assert all(listing.experiments().values())


def test_seeds_runs_what_is_not_finished_and_says_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The character model is given a width that it refuses."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    finished = tmp_path / "runs" / "char_lm" / "kjv-seed7"
    results_of_seed_7 = {"scores": {"val_nats_per_char": 1.0}, "seed": 7, "seconds": 1.0}
    finished.mkdir(parents=True)
    (finished / "results.json").write_text(json.dumps(results_of_seed_7), encoding="utf-8")
    config = str(ROOT / "configs/char_lm/kjv.py")
    core = str(min(os.sched_getaffinity(0)))
    args = ["char_lm", config, "--seeds", "7", "--record", "--cores", core]
    seeds.main(args)
    kept = tmp_path / "experiments" / "records" / "char_lm" / "kjv-seed7.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == results_of_seed_7
    with pytest.raises(UserError, match=r"Seed 8 did not finish: --width is 0, but must be 1 or more"):
        seeds.main([*args, "--seeds", "7", "8", "--", "--width", "0"])
    with pytest.raises(UserError, match=r"no config file missing.py"):
        seeds.main(["char_lm", "missing.py"])
