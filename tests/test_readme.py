"""README keeps its word: its Python runs, its test commands are those of CI, the files it names exist."""

import re

import pytest

from pages import ROOT, read, run_blocks
from rnnx import cells

README = read("README.md")


@pytest.mark.xdist_group("readme")
def test_the_python_in_readme_runs(capsys):
    namespace = run_blocks(README, "README.md")
    assert namespace["ys"].shape == (8, 20, 10)
    assert "1_lstm: lstm(width=64)" in capsys.readouterr().out


def test_the_test_commands_are_those_that_ci_runs():
    commands = [c for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for c in block.splitlines()]
    ci = read(".ci/run").replace(".venv-second/", ".venv/").splitlines()
    tested = [c for c in commands if "pytest" in c]
    assert tested[0] == ".venv/bin/python -m pytest -m quick -n auto", "a newcomer wants to know first whether it works"
    assert sorted(tested) == sorted(line.strip() for line in ci if "pytest" in line)
    assert {c for c in commands if "[tests]" in c or "peers.txt" in c} <= set(ci)


def test_files_that_readme_names_exist():
    names = re.findall(r"(?:configs|docs|rnnx|experiments|tests)/[\w./]*", README)
    assert len(names) > 20
    for name in names:
        assert (ROOT / name).exists(), name


def test_the_table_of_cells_names_their_families():
    section = README.split("## Cells")[1].split("## ")[0]
    rows = re.findall(r"^\| ([\w\- ]+) \| ((?:`\w+` ?)+) \| [^|]+ \|$", section, re.M)
    families = {name: family for family, names in rows for name in re.findall(r"\w+", names)}
    assert len(families) > 30
    for name, family in families.items():
        assert f"At a glance: {family} |" in getattr(cells, name).__doc__, name


def test_it_is_short():
    assert len(README.encode()) < 12_000, "what needs more words has a page in docs/"
