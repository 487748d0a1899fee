"""A drawing of the graph of a cell's step."""

from sitegen import svg
from sitegen.layout import Placed, place
from sitegen.operations import Graph, Node

ROW, CHARACTER, MARGIN = 66.0, 7.4, 12.0


def draw(graph: Graph, name: str) -> str:
    placed, widths = positions(graph)

    def at(node: int) -> tuple[float, float]:
        return MARGIN + placed.x[node], MARGIN + 20 + placed.layer_of[node] * ROW

    parts = []
    for edge in graph.edges:
        chain = placed.chains[edge.source, edge.target]
        points = [at(node) for node in chain]
        start, end = height_of(graph.nodes[edge.source]) / 2, height_of(graph.nodes[edge.target]) / 2
        points[0] = points[0][0], points[0][1] + start
        points[-1] = points[-1][0], points[-1][1] - end - 1
        parts.append(svg.arrow(points))
        if edge.label:
            x, y = points[-1 if edge.label in "−÷" else 1]
            parts.append(svg.text(x + 5, y - 9, edge.label, "port", "start"))
    parts += [drawn(node, *at(i), widths[i]) for i, node in enumerate(graph.nodes)]
    height = 2 * MARGIN + 40 + (len(placed.layers) - 1) * ROW
    return svg.figure(parts, placed.width + 2 * MARGIN, height, f"The operations of one step of {name}")


def positions(graph: Graph) -> tuple[Placed, list[float]]:
    """Where the nodes stand, inputs above and outputs below, and how wide they are."""
    widths = [width_of(node) for node in graph.nodes]
    first = {i for i, node in enumerate(graph.nodes) if node.kind in ("carry", "input")}
    last = {i for i, node in enumerate(graph.nodes) if node.kind == "output"}
    return place(widths, [(e.source, e.target) for e in graph.edges], first, last), widths


def lines_of(node: Node) -> list[str]:
    return [node.label, *node.notes] if node.kind not in ("output", "carry") else [node.label]


def width_of(node: Node) -> float:
    small = max((len(note) for note in node.notes), default=0) * 0.8 if node.kind not in ("output", "carry") else 0
    characters = max(len(node.label) + 0.7 * len(node.time), small)
    return max(30.0 if node.kind == "arithmetic" else 44.0, characters * CHARACTER + 16)


def height_of(node: Node) -> float:
    return 28.0 + 12 * (len(lines_of(node)) - 1)


def drawn(node: Node, x: float, y: float, width: float) -> str:
    class_ = "carry" if node.kind == "output" and node.notes else node.kind
    height, lines = height_of(node), lines_of(node)
    parts = [
        svg.box(
            x, y, width, height, radius=height / 2 if node.kind in ("carry", "input", "output", "arithmetic") else 6
        )
    ]
    top = y - 6 * (len(lines) - 1) + 4.5
    parts.append(svg.text(x, top, lines[0], sub=node.time))
    parts += [svg.text(x, top + 13 + 12 * i, note, "note") for i, note in enumerate(lines[1:])]
    return svg.element("g", *parts, class_=f"node {class_}")
