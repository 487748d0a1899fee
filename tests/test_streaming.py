"""Streaming for long: what `streaming.py` does for a million steps, for some thousand."""

import pytest

from streaming import EPS, stream


@pytest.mark.parametrize("resets", [0.0, 0.003])
def test_steps_equal_whole_sequences_and_leave_nothing_behind(resets: float) -> None:
    seen = stream(10_000, resets)
    assert max(seen.deviations) < 16 * EPS  # the cells forget: rounding errors do not add up from step to step
    assert seen.drift() < 4
    assert len(set(seen.arrays[1:])) == 1
    assert seen.growth() < 4.0
