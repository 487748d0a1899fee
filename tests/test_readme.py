"""README keeps its word: its Python runs, its test commands are those of CI, its results are those of runs."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from experiments import report
from experiments.speed.bars import fastest, geometric_mean, select

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


BESIDE_OTHERS = "## Coming from PyTorch, Keras or Flax"


def run_blocks(markdown):
    code = "\n".join(re.findall(r"```python\n(.*?)```", markdown, flags=re.DOTALL))
    with jax.numpy_rank_promotion("allow"):  # README speaks to users, whose JAX promotes ranks
        namespace = {}
        exec(compile(code, "README.md", "exec"), namespace)
    return namespace


@pytest.mark.xdist_group("readme")
def test_the_python_in_readme_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace = run_blocks(README.split(BESIDE_OTHERS)[0])
    assert namespace["text"].shape == (1, 200)
    assert "1_lstm: lstm(width=64)" in capsys.readouterr().out

    deployed = (
        README.split("It runs where neither rnnx nor Flax is installed:")[1].split("```python\n")[1].split("```")[0]
    )
    alone = "import sys; sys.modules.update(rnnx=None, flax=None)\n" + deployed + "\nprint(logits[0].tolist())"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), namespace["logits"][0], rtol=1e-5, atol=1e-5)


@pytest.mark.xdist_group("readme")
def test_the_python_beside_that_of_others_runs(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("torch")
    pytest.importorskip("keras")
    namespace = run_blocks(README.split(BESIDE_OTHERS)[1])  # it compares the numbers itself
    assert {f"{name}_logits" for name in ("torch", "rnnx", "keras", "flax")} <= set(namespace)


def test_the_test_commands_are_those_that_ci_runs():
    commands = [c for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for c in block.splitlines()]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace(".venv-second/", ".venv/").splitlines()
    tested = [c for c in commands if "pytest" in c]
    assert tested[0] == ".venv/bin/python -m pytest -m quick -n auto", "a newcomer wants to know first whether it works"
    assert sorted(tested) == sorted(line.strip() for line in ci if "pytest" in line)
    assert {c for c in commands if "[tests]" in c or "peers.txt" in c} <= set(ci)


def test_files_that_readme_names_exist():
    for name in re.findall(r"(?:configs|rnnx|experiments|tests)/[\w./]*", README):
        assert (ROOT / name).exists(), name


def sample_step(name, features):
    """One step's input, as `init` sees it."""
    if name.startswith("conv_"):
        return jax.ShapeDtypeStruct((8, 8, features), jnp.float32)
    x = jax.ShapeDtypeStruct((features,), jnp.float32)
    return {"x": x, "dt": jax.ShapeDtypeStruct((), jnp.float32)} if name in {"cfc", "ltc"} else x


def test_the_table_of_cells_is_complete_and_counts_right():
    section = README.split("## Cells")[1].split("## ")[0]
    rows = {row[0]: row for row in re.findall(r"^\| `(\w+)` \|(?:.*)\| ([^|]+) \| (yes|no) \|$", section, re.M)}
    makers = {name: getattr(rnnx.cells, name) for name in rnnx.cells.__all__}
    kinds = {name: get_type_hints(make).get("return") for name, make in makers.items() if callable(make)}
    assert set(rows) == {name for name, kind in kinds.items() if kind in (rnnx.Cell, rnnx.AssociativeCell)}
    for name, (_, formula, parallel) in rows.items():
        assert (parallel == "yes") == (kinds[name] is rnnx.AssociativeCell), name
        h = 6
        d = 4 if "D" in formula else h
        cell, step = makers[name](h), sample_step(name, d)
        params = jax.eval_shape(lambda key, cell=cell, step=step: cell.init(key, step), jax.random.key(0))
        python = re.sub(r"(?<=[\w)]) (?=[(\w])", " * ", formula).replace("D", str(d)).replace("H", str(h))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == eval(python, {"ceil": math.ceil}), (
            f"{name}: {formula}"
        )


def test_the_table_of_results_is_that_of_the_runs_on_record():
    rows = report.rows_of(report.read_runs(ROOT / report.RECORDS))
    assert report.with_table(README, report.table(rows)) == README, "python -m experiments.report --readme"


def test_results_of_learning_online_are_those_of_the_run():
    results = json.loads((ROOT / "experiments" / "records" / "online" / "quick-seed0.json").read_text(encoding="utf-8"))
    for method, of in results["methods"].items():
        assert f"| `{method}` | {of['nats_per_bit']:.3f} | {100 * of['accuracy']:.1f} % |" in README


def test_speeds_in_readme_are_those_of_the_run():
    rows = json.loads((ROOT / "experiments" / "records" / "speed" / "cpu2.json").read_text(encoding="utf-8"))
    nets = fastest(rows, "grad_ratio")
    assert len(nets) == 15
    for shape in dict.fromkeys(net.shape for net in nets):
        there = {net.cell: net for net in nets if net.shape == shape}
        shown = [f"{there[cell].ratio:.2f}, {there[cell].peer}" for cell in ("lstm", "gru", "elman")]
        for cell in ("lstm", "gru"):
            (row,) = select(rows, "nets", library="torch", cell=cell, shape=shape)
            shown.append(f"{row['grad_ratio']:.2f}")
        mean = geometric_mean(net.ratio for net in there.values())
        assert f"| {shape.replace(',', ', ')} | **{mean:.2f}** | {' | '.join(shown)} |" in README


def test_speeds_on_a_gpu_in_readme_are_those_of_the_run():
    rows = json.loads((ROOT / "experiments" / "records" / "speed" / "h100.json").read_text(encoding="utf-8"))
    nets = fastest(rows, "grad_ratio")
    for shape in dict.fromkeys(net.shape for net in nets):
        there = {net.cell: f"{net.ratio:.2f}, {net.peer}" for net in nets if net.shape == shape}
        torch = {r["cell"]: f"{r['grad_ratio']:.2f}" for r in select(rows, "nets", library="torch", shape=shape)}
        shown = [of.get(cell, "not measured") for of in (there, torch) for cell in ("lstm", "gru", "elman")]
        (line,) = (line for line in README.splitlines() if line.endswith(f"| {' | '.join(shown)} |"))
        assert line.startswith(f"| {shape.replace(',', ', ')} ")
    steps, tree = (
        [r["grad_ratio"] for r in select(rows, "linear", library=name)] for name in ("scan", "associative_scan")
    )
    assert f"`lax.scan` {min(steps):.0f} to {max(steps):,.0f} times as long" in README
    assert "`lax.associative_scan` {:.2f}, {:.2f} and {:.2f} times".format(*tree) in README


def test_no_figure_is_still_to_come():
    for path in (ROOT / "README.md", *(ROOT / "configs").rglob("*.py")):
        assert not re.search(
            r"TODO|FIGURE|RESULTS-TABLE|not known yet|still to be made", path.read_text(encoding="utf-8")
        ), path
