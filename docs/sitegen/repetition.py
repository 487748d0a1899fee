"""Steps within a step: equations of a jaxpr that are repeated, each time on the results of the time before."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.extend.core import Literal

SHORTEST, FEWEST = 6, 3

Place = tuple[int, int]
"""Which equation of a block, and which of its inputs or outputs."""


@dataclasses.dataclass(frozen=True)
class Repetition:
    """`count` blocks of `period` equations; `carried` tells which inputs are outputs of the block before."""

    start: int
    period: int
    count: int
    carried: dict[Place, Place]


def find(eqns: Sequence[Any]) -> Repetition | None:
    """The longest repetition, if any."""
    kinds = [(eqn.primitive.name, *(var.aval.str_short() for var in eqn.outvars)) for eqn in eqns]
    found = None
    for period in range(SHORTEST, len(eqns) // FEWEST + 1):
        for start in range(len(eqns) - FEWEST * period + 1):
            count = 1
            while kinds[start : start + period] == kinds[start + count * period : start + (count + 1) * period]:
                count += 1
            if count >= FEWEST and (found is None or period * count > found.period * found.count):
                carried = links(eqns, start, period, count)
                if carried:
                    found = Repetition(start, period, count, carried)
    return found


def links(eqns: Sequence[Any], start: int, period: int, count: int) -> dict[Place, Place]:
    """What each block reads from the one before, the same for all; empty if the blocks differ in anything else."""
    blocks = [eqns[start + k * period : start + (k + 1) * period] for k in range(count)]
    made = [{var: (i, j) for i, eqn in enumerate(block) for j, var in enumerate(eqn.outvars)} for block in blocks]
    carried: dict[Place, Place] = {}
    for i in range(period):
        for j in range(len(blocks[0][i].invars)):
            reads = [block[i].invars[j] for block in blocks]
            if any(isinstance(var, Literal) for var in reads):
                if len({str(var) for var in reads}) > 1:
                    return {}
                continue
            own = [made[k].get(var) for k, var in enumerate(reads)]
            before = [made[k - 1].get(var) for k, var in enumerate(reads) if k]
            if before[0] is not None and len(set(before)) == 1 and own[0] is None:
                carried[i, j] = before[0]
            elif len(set(own)) > 1 or (own[0] is None and len({id(var) for var in reads}) > 1):
                return {}
    return carried
