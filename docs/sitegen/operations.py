"""One step of a cell as a graph of its operations, read from the jaxpr of `cell.step`.

Values that depend on weights alone are notes of the node that reads them. Operations that only change shapes or dtypes
are left out.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from sitegen import repetition
from sitegen.cells import Traced

SILENT = {
    "broadcast_in_dim",
    "reshape",
    "squeeze",
    "expand_dims",
    "convert_element_type",
    "transpose",
    "stop_gradient",
    "copy",
    "name",  # of rnnx.named
}
SYMBOLS = {"mul": "⊙", "add": "+", "add_any": "+", "sub": "−", "div": "÷"}
FUNCTIONS = {
    "logistic": "σ",
    "neg": "negate",
    "rsqrt": "1/√",
    "sqrt": "√",
    "square": "x²",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "abs": "|x|",
    "log_sigmoid": "log σ",
    "select_n": "where",
    "concatenate": "join",
    "ge": "≥",
    "gt": ">",
    "le": "≤",
    "lt": "<",
    "eq": "=",
    "ne": "≠",
}
PRODUCTS = {"dot_general": "matmul", "conv_general_dilated": "convolve"}


@dataclasses.dataclass
class Node:
    """`kind` is carry, input, output, product, arithmetic, function or split; `notes` are lines below the label."""

    label: str
    kind: str
    notes: list[str] = dataclasses.field(default_factory=list)
    time: str = ""


@dataclasses.dataclass(frozen=True)
class Edge:
    source: int
    target: int
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A value that depends on weights and literals alone."""

    label: str


@dataclasses.dataclass(frozen=True)
class Made:
    """A value that a node makes; `port` tells the results of a split apart."""

    node: int
    port: str = ""


Value = Fixed | Made


@dataclasses.dataclass
class Graph:
    nodes: list[Node] = dataclasses.field(default_factory=list)
    edges: list[Edge] = dataclasses.field(default_factory=list)

    def add(self, node: Node, reads: Sequence[Value] = (), labels: Sequence[str] = ()) -> Made:
        self.nodes.append(node)
        made, labels = Made(len(self.nodes) - 1), labels or [""] * len(reads)
        for value, label in zip(reads, labels, strict=True):
            if isinstance(value, Made):
                self.edges.append(Edge(value.node, made.node, value.port or label))
        return made

    def without_dead_ends(self) -> "Graph":
        """Only what leads to an output."""
        alive = {i for i, node in enumerate(self.nodes) if node.kind == "output"}
        while grown := {e.source for e in self.edges if e.target in alive} - alive:
            alive |= grown
        alive |= {i for i, node in enumerate(self.nodes) if node.kind in ("carry", "input")}
        index = {old: new for new, old in enumerate(sorted(alive))}
        edges = [Edge(index[e.source], index[e.target], e.label) for e in self.edges if e.target in alive]
        return Graph([self.nodes[i] for i in sorted(alive)], list(dict.fromkeys(edges)))


def step_graph(of: Traced, gates: Sequence[str] = ()) -> Graph:
    """The graph of one step; `gates` names the results of a split into as many parts."""

    def one_step(weights: Any, carry: Any, x: Any) -> Any:
        return of.cell.step(weights, carry, of.cell.project(weights, x, None))

    closed, shapes = jax.make_jaxpr(one_step, return_shape=True)(of.weights, of.carry, of.x)
    graph = Graph()
    inputs: list[Value] = [Fixed(name) for name in leaf_names(of.weights, "weight")]
    inputs += [graph.add(Node(name, "carry", time="t−1")) for name in leaf_names(of.carry, "h")]
    inputs += [graph.add(Node(name, "input", time="t")) for name in leaf_names(of.x, "x")]
    outputs = Reader(graph, gates).run(closed.jaxpr, closed.consts, inputs)
    carries = leaf_names(shapes[0], "h")
    for name, value in zip(carries + leaf_names(shapes[1], "y"), outputs, strict=True):
        graph.add(Node(name, "output" if isinstance(value, Made) else "function", time="t"), [value])
    for node in graph.nodes[-len(outputs) :][: len(carries)]:
        node.notes = ["carry"]
    return graph.without_dead_ends()


def leaf_names(tree: Any, alone: str) -> list[str]:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or alone for path in paths]
    return [f"{alone}{chr(0x2080 + int(name))}" if name.isdigit() and len(name) == 1 else name for name in names]


class Reader:
    """Reads a jaxpr, equation by equation, into a graph."""

    def __init__(self, graph: Graph, gates: Sequence[str]) -> None:
        self.graph, self.gates = graph, gates
        self.splits: dict[int, Made] = {}

    def run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {var: Fixed(number(const)) for var, const in zip(jaxpr.constvars, consts, strict=True)}

        def value(var: Any) -> Value:
            return Fixed(number(var.val)) if isinstance(var, Literal) else known[var]

        eqns, again, i = jaxpr.eqns, repetition.find(jaxpr.eqns), 0
        while i < len(eqns):
            if again and i == again.start:
                known |= self.repeated(eqns, again, value)
                i += again.period * again.count
            else:
                known |= self.results(eqns[i], [value(var) for var in eqns[i].invars])
                i += 1
        return [value(var) for var in jaxpr.outvars]

    def results(self, eqn: Any, reads: list[Value]) -> dict[Any, Value]:
        return dict(zip(eqn.outvars, self.equation(eqn, reads), strict=True))

    def repeated(
        self, eqns: Sequence[Any], again: repetition.Repetition, value: Callable[[Any], Value]
    ) -> dict[Any, Value]:
        """One block in place of all of them, between a node for its beginning and one for its end."""
        block = eqns[again.start : again.start + again.period]
        last = eqns[again.start + (again.count - 1) * again.period :][: again.period]
        begins: dict[repetition.Place, Made] = {}
        for (i, j), source in again.carried.items():
            if source not in begins:
                first = value(block[i].invars[j])
                begins[source] = self.graph.add(Node(f"repeat {again.count} times", "split"), [first])
        made: dict[Any, Value] = {}

        def known(var: Any) -> Value:
            return made[var] if not isinstance(var, Literal) and var in made else value(var)

        for i, eqn in enumerate(block):
            reads = [
                begins[again.carried[i, j]] if (i, j) in again.carried else known(var)
                for j, var in enumerate(eqn.invars)
            ]
            made |= self.results(eqn, reads)
        ends = {}
        for i, eqn in enumerate(block):
            for j, var in enumerate(eqn.outvars):
                end = made[var]
                if (i, j) in begins:
                    end = self.graph.add(Node("end of repeat", "split"), [end])
                ends[last[i].outvars[j]] = end
        return ends

    def equation(self, eqn: Any, reads: list[Value]) -> list[Value]:
        name, moving = eqn.primitive.name, [value for value in reads if isinstance(value, Made)]
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if not moving:
            return [self.fixed(name, reads)] * len(eqn.outvars)
        if name in SILENT:
            return [moving[0]]
        if inner is not None:
            called = str(eqn.params.get("name", "_"))
            if len(moving) == 1 and called.isidentifier() and not called.startswith("_"):
                return [self.graph.add(Node(FUNCTIONS.get(called, called), "function"), moving)]
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), reads)
        if name in ("split", "unstack"):
            return self.split(moving[0], len(eqn.outvars))
        if name in ("slice", "dynamic_slice"):
            return [self.slice(eqn, moving[0])]
        return [self.operation(name, reads, moving)]

    def fixed(self, name: str, reads: Sequence[Value]) -> Fixed:
        """A value computed from weights alone: it keeps the name of a weight that is only sliced or reshaped."""
        labels = [value.label for value in reads if isinstance(value, Fixed)]
        named = list(dict.fromkeys(label for label in labels if not is_number(label)))
        if len(named) == 1 and (name in SILENT or name in ("slice", "split") or named[0].startswith("f(")):
            return Fixed(named[0])
        if not named:
            return Fixed(labels[0] if labels else "0")
        inside = dict.fromkeys(
            part for label in named for part in label.removeprefix("f(").removesuffix(")").split(", ")
        )
        return Fixed(f"f({', '.join(inside)})")

    def split(self, read: Made, parts: int) -> list[Value]:
        node = self.graph.add(Node("split", "split"), [read])
        names = self.gates if len(self.gates) == parts else [str(i + 1) for i in range(parts)]
        return [Made(node.node, name) for name in names]

    def slice(self, eqn: Any, read: Made) -> Made:
        """All slices of one value come from one node."""
        made = self.splits.setdefault(read.node, Made(-1))
        if made.node < 0:
            made = self.splits[read.node] = self.graph.add(Node("slice", "split"), [read])
        return Made(made.node, self.part(eqn))

    def part(self, eqn: Any) -> str:
        """Which part a slice takes: the name of a gate if there are as many equal parts as gates, else the indices."""
        starts, stops = eqn.params.get("start_indices", ()), eqn.params.get("limit_indices", ())
        for start, stop, size in zip(starts, stops, eqn.invars[0].aval.shape, strict=False):
            if stop - start == size:
                continue
            if len(self.gates) * (stop - start) == size and start % (stop - start) == 0:
                return self.gates[start // (stop - start)]
            return str(start) if stop == start + 1 else f"{start}:{stop}"
        return ""

    def operation(self, name: str, reads: list[Value], moving: list[Made]) -> Made:
        fixed = [value.label for value in reads if isinstance(value, Fixed)]
        if name in PRODUCTS:
            return self.graph.add(Node(PRODUCTS[name], "product", fixed), moving)
        if name == "mul" and len(moving) == 2 and moving[0] == moving[1]:
            return self.graph.add(Node("x²", "function"), moving[:1])
        if name in SYMBOLS:
            return self.arithmetic(SYMBOLS[name], reads, moving, fixed)
        label = FUNCTIONS.get(name, name.replace("_", " "))
        if len(fixed) == 1 and is_number(fixed[0]) and name not in ("select_n", "concatenate"):
            label = f"{label} {fixed[0]}"
        elif fixed and name != "select_n":
            return self.graph.add(Node(label, "function", [f for f in fixed if not is_number(f)]), moving)
        return self.graph.add(Node(label, "function"), moving)

    def arithmetic(self, symbol: str, reads: list[Value], moving: list[Made], fixed: list[str]) -> Made:
        before = self.graph.nodes[moving[0].node]
        if not fixed:
            marks = ["", symbol] if symbol in "−÷" else ["", ""]
            return self.graph.add(Node(symbol, "arithmetic"), moving, marks)
        if symbol == "+" and before.kind == "product" and not is_number(fixed[0]) and not moving[0].port:
            before.notes = [*before.notes, f"+ {fixed[0]}"]
            return moving[0]
        first = isinstance(reads[0], Fixed) and symbol in "−÷"
        if is_number(fixed[0]):
            return self.graph.add(
                Node(f"{fixed[0]} {symbol}" if first else f"{symbol} {fixed[0]}", "arithmetic"), moving
            )
        return self.graph.add(Node(symbol, "arithmetic", fixed), moving)


def number(value: Any) -> str:
    array = np.asarray(value)
    return f"{array.item():.3g}" if array.size == 1 and array.dtype.kind in "fiub" else "const"


def is_number(label: str) -> bool:
    return label[:1].isdigit() or label[:1] == "-" or label in ("inf", "nan", "const")
