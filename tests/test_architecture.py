"""The architecture: modules of rnnx import only from those before them, and its files and functions stay short.

Experiments import what they share, never one another, and nothing in a circle.
"""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import rnnx

ROOT = Path(rnnx.__file__).parent
EXPERIMENTS = ROOT.parent / "experiments"
# From the ground up. A folder's modules may import each other.
ORDER = [
    "hints",
    "arguments",
    "interning",
    "naming",
    "spec",
    "base",
    "sequences",
    "checks",
    "memory",
    "meshes",
    "linear",
    "cells",
    "evaluators",
    "layers",
    "online",
    "pointwise",
    "combinators",
    "unrolling",
    "batching",
    "packing",
    "linen",
    "nnx",
    "interop",
    "generation",
    "summarizing",
    "testing",
]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    never_run = {id(node) for block in for_types for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in never_run:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "rnnx":
            yield from (f"rnnx.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path):
    place = ORDER.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    # What is converted to torch is made by torch: imported by who calls for it.
    called_for = {"torch"} if path.name == "torch.py" else set()
    for name in imported(path):
        package, *rest = name.split(".")
        allowed = {*sys.stdlib_module_names, "jax", "flax", "numpy", "rnnx", *called_for}
        assert package in allowed, f"{path.name} imports {name}"
        if package == "rnnx":
            assert ORDER.index(rest[0]) <= place, f"{path.name} imports {name}, which stands above it"


def code_lines(source, function):
    """The lines of a function that are neither blank, nor comments, nor in a docstring, its own or a nested one."""
    lines = source.splitlines()
    documentation = set()
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
            documentation |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    numbers = set(range(function.lineno, function.end_lineno + 1)) - documentation
    return [n for n in numbers if lines[n - 1].strip() and not lines[n - 1].strip().startswith("#")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert len(code_lines(source, node)) <= MAX_FUNCTION_LINES, node.name


def imports_of_experiments():
    """Of each module of experiments, by its dotted name, those that it imports when it is imported itself."""
    found = {}
    for path in sorted(EXPERIMENTS.rglob("*.py")):
        parts = path.relative_to(EXPERIMENTS.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    # `from experiments.forecast import data` is an import of the module, not of the package.
    return {name: {other for other in others if other in found} for name, others in found.items()}


def test_experiments_import_what_they_share_and_not_each_other():
    imports = imports_of_experiments()
    packages = {name.split(".")[1] for name in imports if name.count(".") == 2}
    assert {"char_lm", "video"} <= packages
    for name, others in imports.items():
        own = name.split(".")[1] if name.count(".") else ""
        of_packages = {other for other in others if other.split(".")[1:2] and other.split(".")[1] in packages}
        if own in packages:
            assert all(other.split(".")[1] == own for other in of_packages), f"{name} imports {of_packages}"
        elif name != "experiments":
            assert not of_packages, f"{name} is shared, but imports {of_packages}"


def test_imports_in_experiments_run_one_way():
    imports = imports_of_experiments()
    # Without the package that a module lies in.
    modules = {name: {o for o in others if not name.startswith(o)} for name, others in imports.items()}
    order = graphlib.TopologicalSorter({n: o for n, o in modules.items() if not is_package(n)})
    try:
        order.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def is_package(name):
    return (EXPERIMENTS.parent / Path(*name.split(".")) / "__init__.py").exists()


def test_the_order_names_every_module():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES} == set(ORDER)


def test_importing_rnnx_brings_in_no_peer_and_starts_no_backend():
    code = (
        "import sys, rnnx, jax\n"
        "assert not jax._src.xla_bridge.backends_are_initialized()\n"
        "peers = {'torch', 'keras', 'haiku', 'equinox', 'optax', 'orbax', 'tensorflow', 'matplotlib'}\n"
        "print(peers & {m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
