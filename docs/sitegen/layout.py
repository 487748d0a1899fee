"""The layout of a graph: nodes in layers from top to bottom, with few crossings (Sugiyama's method)."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

Pair = tuple[int, int]
SWEEPS = 24


@dataclasses.dataclass
class Placed:
    """`layers` from left to right, `x` of the centres, and the `chains` of real and dummy nodes, one for each edge."""

    layers: list[list[int]]
    x: dict[int, float]
    chains: dict[Pair, list[int]]
    layer_of: dict[int, int]
    width: float


def place(widths: Sequence[float], edges: Sequence[Pair], first: set[int], last: set[int], gap: float = 18) -> Placed:
    """Nodes in `first` stand in the top layer, those in `last` in the bottom one."""
    layer_of = rank(len(widths), edges, first, last)
    size = dict(enumerate(widths))
    chains: dict[Pair, list[int]] = {}
    for source, target in dict.fromkeys(edges):
        between = range(layer_of[source] + 1, layer_of[target])
        chain = [source]
        for layer in between:
            chain.append(len(size))
            layer_of[chain[-1]], size[chain[-1]] = layer, 6.0
        chains[source, target] = [*chain, target]
    links = [pair for chain in chains.values() for pair in itertools.pairwise(chain)]
    layers = ordered(layer_of, links)
    x = coordinates(layers, links, size, len(widths), gap)
    return Placed(layers, x, chains, layer_of, max(x[node] + size[node] / 2 for node in x))


def rank(count: int, edges: Sequence[Pair], first: set[int], last: set[int]) -> dict[int, int]:
    """The layer of each node: its longest path from the top; edges lead from lower numbers to higher ones."""
    layer_of = dict.fromkeys(range(count), 0)
    for node in range(count):
        above = [layer_of[source] + 1 for source, target in edges if target == node]
        layer_of[node] = 0 if node in first else max(above, default=1)
    bottom = max(layer_of.values())
    bottom += any(layer_of[node] == bottom for node in range(count) if node not in last)
    return layer_of | dict.fromkeys(last, bottom)


def neighbours(links: Sequence[Pair]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for source, target in links:
        above.setdefault(target, []).append(source)
        below.setdefault(source, []).append(target)
    return above, below


def ordered(layer_of: Mapping[int, int], links: Sequence[Pair]) -> list[list[int]]:
    """Sorts each layer by the mean place of its neighbours, down and up; keeps the order with the fewest crossings."""
    above, below = neighbours(links)
    layers = [[n for n in layer_of if layer_of[n] == i] for i in range(max(layer_of.values()) + 1)]
    best, fewest = [list(layer) for layer in layers], crossings(layers, links)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else layers[::-1]:
            place_of = {node: i / max(1, len(row) - 1) for row in layers for i, node in enumerate(row)}
            near = above if down else below
            mean = {n: sum(place_of[m] for m in near[n]) / len(near[n]) if n in near else place_of[n] for n in layer}
            layer.sort(key=mean.__getitem__)
        if (count := crossings(layers, links)) < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def crossings(layers: Sequence[Sequence[int]], links: Sequence[Pair]) -> int:
    place_of = {node: i for row in layers for i, node in enumerate(row)}
    row_of = {node: r for r, row in enumerate(layers) for node in row}
    count = 0
    by_row: dict[int, list[Pair]] = {}
    for source, target in links:
        by_row.setdefault(row_of[source], []).append((place_of[source], place_of[target]))
    for pairs in by_row.values():
        count += sum((a - c) * (b - d) < 0 for i, (a, b) in enumerate(pairs) for c, d in pairs[:i])
    return count


def coordinates(
    layers: Sequence[Sequence[int]], links: Sequence[Pair], size: Mapping[int, float], real: int, gap: float
) -> dict[int, float]:
    """Puts each node as close to the mean of its neighbours as the nodes beside it allow."""
    above, below = neighbours(links)
    x: dict[int, float] = {}
    for layer in layers:
        left = 0.0
        for node in layer:
            x[node] = left + size[node] / 2
            left += size[node] + gap
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            near = {n: [*above.get(n, ()), *below.get(n, ())] for n in layer}
            expected = [pulled(x[n], [(x[m], straight(n, m, real)) for m in near[n]]) for n in layer]
            weights = [1.0 if n < real else 4.0 for n in layer]
            apart = [(size[a] + size[b]) / 2 + gap for a, b in itertools.pairwise(layer)]
            x |= dict(zip(layer, spread(expected, weights, apart), strict=True))
    left = min(x[n] - size[n] / 2 for n in x)
    return {n: value - left for n, value in x.items()}


def straight(node: int, other: int, real: int) -> float:
    """The weight that keeps a link vertical: largest within a long edge."""
    return (1.0, 2.0, 8.0)[(node >= real) + (other >= real)]


def pulled(x: float, towards: Sequence[tuple[float, float]]) -> float:
    """The weighted mean of some places, or x if there are none."""
    total = sum(weight for _, weight in towards)
    return sum(place * weight for place, weight in towards) / total if total else x


def spread(expected: Sequence[float], weights: Sequence[float], apart: Sequence[float]) -> list[float]:
    """The places nearest to `expected` (weighted least squares) that are at least `apart`: isotonic regression."""
    offsets = [0.0]
    for distance in apart:
        offsets.append(offsets[-1] + distance)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for want, weight, offset in zip(expected, weights, offsets, strict=True):
        block = (want - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, total, count = blocks.pop()
            both = total + block[1]
            block = ((mean * total + block[0] * block[1]) / both, both, count + block[2])
        blocks.append(block)
    flat = [mean for mean, _, count in blocks for _ in range(count)]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]
