"""Some hundred damaged inputs; the whole ten thousand: python tests/experiments/mutations.py"""

import random
from pathlib import Path

import mutations


def test_damaged_inputs_are_loaded_or_refused() -> None:
    kinds = [kind for kind in mutations.KINDS if kind.name != "keras layers"]  # whose import takes five seconds
    outcomes = mutations.run(len(kinds) * 40, kinds=kinds)
    for kind in kinds:
        loaded = [outcome.loaded for outcome in outcomes if outcome.kind == kind.name]
        assert len(loaded) == 40
        assert any(loaded) or kind not in mutations.FILES, kind.name
        assert not all(loaded), kind.name


def test_what_is_whole_is_loaded(tmp_path: Path) -> None:
    for kind in mutations.KINDS:
        if kind.whole:
            path = tmp_path / kind.name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(kind.whole)
            kind.load(path, random.Random(0))
