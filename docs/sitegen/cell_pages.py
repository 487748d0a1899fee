"""A page for each cell: its docstring, a drawing of one step, and the shapes of its params."""

import re
from typing import Any

import jax

from sitegen import operations, step_drawing
from sitegen.cell_table import Glance, glances
from sitegen.cells import Traced, evaluator, makers, traced

FEATURES, WIDTH = 64, 128


def navigation() -> list[dict[str, Any]]:
    """The pages grouped by family, in the order of the table."""
    groups: dict[str, list[dict[str, str]]] = {}
    for one in glances():
        groups.setdefault(one.family.capitalize(), []).append({one.name: f"cells/{one.name}.md"})
    return [{family: pages} for family, pages in groups.items()]


def pages() -> dict[str, str]:
    return {f"cells/{one.name}.md": page(one) for one in glances()}


def page(one: Glance) -> str:
    name = one.name
    return f"""# {name}

{one.what[0].upper()}{one.what[1:]}. Family: {one.family}.

## One step

{drawing(name)}

::: rnnx.cells.{name}
    options:
      heading_level: 2

## Params

{one.parameters}: with the default options, for H units and D features of the input.

{params_table(name, traced(name, FEATURES, WIDTH))}

## As a layer {{ #rnnx.{name} }}

`rnnx.{name}(...)` takes the same arguments and gives the Layer of this cell under `rnnx.{evaluator(name)}`.
"""


LEGEND = {
    "carry": "carry: passed on to the next step",
    "input": "input and output",
    "product": "matrix product or convolution",
    "function": "function",
    "arithmetic": "elementwise",
}


def drawing(name: str) -> str:
    """The operations of one step, from its jaxpr."""
    graph = operations.step_graph(traced(name, FEATURES, WIDTH), gates(makers()[name].__doc__ or ""))
    keys = "".join(f'<span><span class="key {kind}"></span>{what}</span> ' for kind, what in LEGEND.items())
    return f'{step_drawing.draw(graph, name)}\n\n<p class="legend">{keys}</p>'


def gates(docstring: str) -> list[str]:
    """The names in "with the gates in the order i, f, g, o"."""
    found = re.search(r"gates in the order ((?:\w+, )*\w+)", docstring)
    return found[1].split(", ") if found else []


def params_table(name: str, of: Traced) -> str:
    lines = ["| param | shape | numbers |", "|---|---|---|"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(of.params):
        lines.append(f"| `{jax.tree_util.keystr(path, simple=True, separator='.')}` | {shape(leaf)} | {leaf.size:,} |")
    return "\n".join([*lines, f"| all | | **{of.count():,}** |"])


def shape(leaf: Any) -> str:
    return "`(" + ", ".join(map(str, leaf.shape)) + ("," if len(leaf.shape) == 1 else "") + ")`"
