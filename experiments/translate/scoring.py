"""How far what was written is from what is right."""

from collections.abc import Mapping, Sequence

from experiments.translate.data import Symbols


def distance(a: Symbols, b: Symbols) -> int:
    """The least number of insertions, deletions and substitutions that makes one of the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def error_rates(written: Sequence[Symbols], right: Mapping[Symbols, Sequence[Symbols]]) -> dict[str, float]:
    """`symbol_error_rate`: edits to the nearest of the right targets, per symbol of these; `error_rate`: the share of
    sources of which no target was hit. `written` are in the order of `right`."""
    edits = symbols = wrong = 0
    for own, targets in zip(written, right.values(), strict=True):
        away, length = min((distance(own, target), len(target)) for target in targets)
        edits, symbols, wrong = edits + away, symbols + length, wrong + (away > 0)
    return {"symbol_error_rate": edits / symbols, "error_rate": wrong / len(written)}
