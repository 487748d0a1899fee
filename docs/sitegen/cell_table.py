"""The table of all cells, from the line `At a glance` in the docstring of each."""

import re
from typing import NamedTuple, get_type_hints

import rnnx
from sitegen.cells import makers

FAMILIES = ("gated", "structured", "continuous time", "spiking", "convolutional", "linear", "feed-forward")
GLANCE = re.compile(r"At a glance: (.+?)\s\|\s+(.+?)\s\|\s+(.+?)\s\|\s+(.+?)\s+parameters\.", re.S)


class Glance(NamedTuple):
    name: str
    family: str
    what: str
    reference: str
    parameters: str
    parallel: bool


def glances() -> list[Glance]:
    """All cells, by family, then by name."""
    found = []
    for name, make in makers().items():
        line = GLANCE.search(make.__doc__ or "")
        if line is None:
            raise ValueError(f"the docstring of rnnx.cells.{name} has no line 'At a glance: family | what | ...'")
        parts = [" ".join(part.split()) for part in line.groups()]
        if parts[0] not in FAMILIES:
            raise ValueError(f"rnnx.cells.{name}: the family is {parts[0]!r}, but must be one of {FAMILIES}")
        found.append(Glance(name, *parts, get_type_hints(make)["return"] is rnnx.AssociativeCell))
    return sorted(found, key=lambda one: (FAMILIES.index(one.family), one.name))


def table() -> str:
    lines = ["| name | family | what | reference | parameters | parallel |", "|---|---|---|---|---|---|"]
    for one in glances():
        parts = [f"[`{one.name}`]({one.name}.md)", *one[1:5], "yes" if one.parallel else "no"]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)
