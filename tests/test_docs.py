"""The documentation keeps its word: its Python runs, its numbers are those of runs, no name and no link is missing."""

import ast
import json
import math
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints
from urllib.parse import unquote, urlsplit

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from experiments import report
from experiments.speed.bars import fastest, geometric_mean, select
from pages import ROOT, python_blocks, read, run_blocks

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
WITH_PYTHON = [page for page in PAGES if python_blocks(read(page))]
SLOW = {"docs/coming_from.md", "docs/models.md"}
NEEDS = {"docs/coming_from.md": ("torch", "keras", "haiku", "equinox")}


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in WITH_PYTHON]
)
def test_the_python_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for library in NEEDS.get(page, ()):
        pytest.importorskip(library)
    if page == "docs/deployment.md":
        check_deployment()
    else:
        run_blocks(read(page), page)


def check_deployment():
    """The last block must give the same logits in a process that can import neither rnnx nor Flax."""
    namespace = run_blocks(read("docs/deployment.md"), "deployment.md")
    deployed = python_blocks(read("docs/deployment.md"))[-1]
    alone = "import sys; sys.modules.update(rnnx=None, flax=None)\n" + deployed + "\nprint(logits[0].tolist())"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), namespace["logits"][0], rtol=1e-5, atol=1e-5)


def sample_step(name, features):
    """One step's input, as `init` sees it."""
    if name.startswith("conv_"):
        return jax.ShapeDtypeStruct((8, 8, features), jnp.float32)
    x = jax.ShapeDtypeStruct((features,), jnp.float32)
    return {"x": x, "dt": jax.ShapeDtypeStruct((), jnp.float32)} if name in {"cfc", "ltc"} else x


@pytest.fixture
def sitegen(monkeypatch):
    """What builds the site can be imported."""
    monkeypatch.syspath_prepend(ROOT / "docs")


def test_the_table_of_cells_is_complete_and_counts_right(sitegen):
    from sitegen.cell_table import glances

    makers = {name: getattr(rnnx.cells, name) for name in rnnx.cells.__all__}
    kinds = {name: get_type_hints(make).get("return") for name, make in makers.items() if callable(make)}
    rows = {one.name: one for one in glances()}
    assert set(rows) == {name for name, kind in kinds.items() if kind in (rnnx.Cell, rnnx.AssociativeCell)}
    for name, row in rows.items():
        formula = row.parameters
        assert row.parallel == (kinds[name] is rnnx.AssociativeCell), name
        h = 6
        d = 4 if "D" in formula else h
        cell, step = makers[name](h), sample_step(name, d)
        params = jax.eval_shape(lambda key, cell=cell, step=step: cell.init(key, step), jax.random.key(0))
        python = re.sub(r"(?<=[\w)]) (?=[(\w])", " * ", formula).replace("D", str(d)).replace("H", str(h))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == eval(python, {"ceil": math.ceil}), (
            f"{name}: {formula}"
        )


def test_the_table_of_results_is_that_of_the_runs_on_record():
    rows, page = report.rows_of(report.read_runs(ROOT / report.RECORDS)), read(str(report.PAGE))
    assert report.with_table(page, report.table(rows)) == page, "python -m experiments.report --docs"


def test_results_of_learning_online_are_those_of_the_run():
    page = read("docs/online.md")
    results = json.loads(read("experiments/records/online/quick-seed0.json"))
    for method, of in results["methods"].items():
        assert f"| `{method}` | {of['nats_per_bit']:.3f} | {100 * of['accuracy']:.1f} % |" in page


def test_speeds_are_those_of_the_run():
    page, rows = read("docs/speed.md"), json.loads(read("experiments/records/speed/cpu2.json"))
    nets = fastest(rows, "grad_ratio")
    assert len(nets) == 15
    for shape in dict.fromkeys(net.shape for net in nets):
        there = {net.cell: net for net in nets if net.shape == shape}
        shown = [f"{there[cell].ratio:.2f}, {there[cell].peer}" for cell in ("lstm", "gru", "elman")]
        for cell in ("lstm", "gru"):
            (row,) = select(rows, "nets", library="torch", cell=cell, shape=shape)
            shown.append(f"{row['grad_ratio']:.2f}")
        mean = geometric_mean(net.ratio for net in there.values())
        assert f"| {shape.replace(',', ', ')} | **{mean:.2f}** | {' | '.join(shown)} |" in page


def test_speeds_on_a_gpu_are_those_of_the_run():
    page, rows = read("docs/speed.md"), json.loads(read("experiments/records/speed/h100.json"))
    nets = fastest(rows, "grad_ratio")
    for shape in dict.fromkeys(net.shape for net in nets):
        there = {net.cell: f"{net.ratio:.2f}, {net.peer}" for net in nets if net.shape == shape}
        torch = {r["cell"]: f"{r['grad_ratio']:.2f}" for r in select(rows, "nets", library="torch", shape=shape)}
        shown = [of.get(cell, "not measured") for of in (there, torch) for cell in ("lstm", "gru", "elman")]
        (line,) = (line for line in page.splitlines() if line.endswith(f"| {' | '.join(shown)} |"))
        assert line.startswith(f"| {shape.replace(',', ', ')} ")
    steps, tree = (
        [r["grad_ratio"] for r in select(rows, "linear", library=name)] for name in ("scan", "associative_scan")
    )
    assert f"`lax.scan` {min(steps):.0f} to {max(steps):,.0f} times as long" in page
    assert "`lax.associative_scan` {:.2f}, {:.2f} and {:.2f} times".format(*tree) in page


def docstrings():
    for path in sorted((ROOT / "rnnx").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                yield f"{path.name}: {getattr(node, 'name', 'the file')}", ast.get_docstring(node) or ""


def test_names_of_rnnx_in_prose_exist():
    made_up = {"rnnx.LSTMCarry", "rnnx.NAME"}  # as what a carry is serialised, and of a cell that is still to come
    prose = {page: read(page) for page in [*PAGES, "README.md", "CONTRIBUTING.md"]} | dict(docstrings())
    found = {where: set(re.findall(r"(?<![\w./{-])rnnx(?:\.\w+)+", text)) - made_up for where, text in prose.items()}
    assert sum(map(len, found.values())) > 500
    for where, names in found.items():
        for name in names:
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                pytest.fail(f"{where} speaks of {name}, which is not there")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    for name in re.findall(r"(?<![\w/])(?:configs|docs|rnnx|experiments|tests)/[\w./]*", read(page)):
        assert (ROOT / name).exists(), name


def test_no_figure_is_still_to_come():
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "configs").rglob("*.py")):
        assert not re.search(
            r"TODO|FIGURE|RESULTS-TABLE|not known yet|still to be made", path.read_text(encoding="utf-8")
        ), path


class Page(HTMLParser):
    """The anchors, the links and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        self.anchors |= {of[key] for key in ("id", "name") if of.get(key)}
        self.links += [of[key] for key in ("href", "src") if of.get(key)]


def test_the_drawing_of_the_lstm_is_its_equation(sitegen):
    from sitegen.cells import traced
    from sitegen.operations import step_graph

    graph = step_graph(traced("lstm", 4, 6), ["i", "f", "g", "o"])
    nodes = [(node.kind, node.label) for node in graph.nodes if node.kind != "split"]
    assert Counter(nodes) == {
        ("carry", "h"): 1,
        ("carry", "c"): 1,
        ("input", "x"): 1,
        ("product", "matmul"): 2,
        ("arithmetic", "+"): 2,
        ("arithmetic", "⊙"): 3,
        ("function", "σ"): 3,
        ("function", "tanh"): 2,
        ("output", "h"): 1,
        ("output", "c"): 1,
        ("output", "y"): 1,
    }
    products = {tuple(node.notes) for node in graph.nodes if node.kind == "product"}
    assert products == {("input_kernel", "+ bias"), ("recurrent_kernel",)}
    gates = {edge.label: graph.nodes[edge.target].label for edge in graph.edges if edge.label}
    assert gates == {"i": "σ", "f": "σ", "g": "tanh", "o": "σ"}


def test_steps_within_a_step_are_drawn_once(sitegen):
    from sitegen.cells import traced
    from sitegen.operations import step_graph

    labels = [node.label for node in step_graph(traced("ltc", 4, 6)).nodes]
    assert (labels.count("repeat 6 times"), labels.count("end of repeat"), labels.count("σ")) == (1, 1, 2)


@pytest.mark.parametrize("name", sorted(set(rnnx.cells.__all__) & set(rnnx.__all__)))
def test_every_cell_can_be_drawn(name, sitegen):
    from sitegen import step_drawing
    from sitegen.cells import traced
    from sitegen.operations import step_graph

    of = traced(name, 4, 6)
    graph = step_graph(of)
    kinds = Counter(node.kind for node in graph.nodes)
    assert kinds["carry"] == len(jax.tree.leaves(of.carry))
    assert kinds["output"] == kinds["carry"] + 1
    reached = {edge.target for edge in graph.edges}
    assert all(i in reached for i, node in enumerate(graph.nodes) if node.kind == "output")

    placed, widths = step_drawing.positions(graph)
    for layer in placed.layers:
        row = [node for node in layer if node < len(widths)]
        for left, right in pairwise(row):
            assert placed.x[right] - placed.x[left] >= (widths[left] + widths[right]) / 2, "nodes overlap"
    assert step_drawing.draw(graph, name).count("<rect") == len(graph.nodes)


def test_docstrings_become_markdown(sitegen):
    from sitegen.docstrings import markdown

    formula = ".. math::\n    a &= b \\\\\n    c &= d\n\n"
    text = markdown(f"A \\Delta.\n\n{formula}with :math:`c`, as in `rnnx.stack`.\n\nExample::\n\n    >>> 1\n    1\n")
    assert "A Δ." in text
    assert "```math\na &= b \\\\\nc &= d\n```" in text
    assert "`#!math c`" in text
    assert "[`rnnx.stack`][rnnx.stack]" in text
    assert "```pycon\n>>> 1\n1\n```" in text


def test_the_bibliography_has_what_docstrings_refer_to(sitegen):
    from sitegen.bibliography import entries, references

    found = entries()
    assert all(re.search(r"\b(19|20)\d\d\b|arXiv", entry) for entry in found)
    assert sum("*" in entry for entry in found) > 50
    for name in set(rnnx.cells.__all__) & set(rnnx.__all__):
        docstring = getattr(rnnx.cells, name).__doc__
        expected = len(re.findall(r"^    References?: ", docstring, re.M))
        assert (f"rnnx.cells.{name}" in {n for names in found.values() for n in names}) == bool(expected), name
    assert list(references("References: A. B, *C*, D 2001; E. F et al., *G: h*, arXiv 2006.07232, for it.")) == [
        "A. B, *C*, D 2001",
        "E. F et al., *G: h*, arXiv 2006.07232",
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, by path; the build fails at the first warning."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path.relative_to(folder).as_posix(): Page(path) for path in folder.rglob("*.html")}, folder


@pytest.mark.xdist_group("site")
def test_every_public_name_has_a_page(site, sitegen):
    pages, _ = site
    anchors = set().union(*(page.anchors for page in pages.values()))
    from sitegen.names import public_names

    assert len(public_names()) > 100
    assert not (set(public_names()) - anchors), "name them in docs/api, as `::: rnnx.name`"
    assert {f"cells/{name}.html" for name in set(rnnx.cells.__all__) & set(rnnx.__all__)} <= set(pages)


@pytest.mark.xdist_group("site")
def test_links_lead_somewhere(site):
    pages, folder = site
    followed = 0
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or name == "404.html":  # which has absolute links, for a server
                continue
            target = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{name}: {link}"
            if target.suffix == ".html":
                anchors = pages[target.resolve().relative_to(folder.resolve()).as_posix()].anchors
                assert unquote(parts.fragment) in anchors, f"{name}: {link}"
            followed += 1
    assert followed > 1000


@pytest.mark.xdist_group("site")
def test_nothing_is_loaded_from_elsewhere(site):
    _, folder = site
    for path in folder.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(https?:[^\" >]+)", path.read_text("utf-8")
        )
        assert not loaded, (path, loaded)


@pytest.mark.xdist_group("site")
def test_formulas_are_drawn(site):
    _, folder = site
    for path in folder.rglob("*.html"):
        page = re.sub(r"<(pre|code|script)\b.*?</\1>", "", path.read_text("utf-8"), flags=re.S)
        assert not re.search(r"\.\. math::|:math:|\\[a-zA-Z]{3,}", page), path
    assert "<mtable" in (folder / "cells" / "lstm.html").read_text("utf-8")
