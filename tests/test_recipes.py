"""The recipes in examples/ run, short as they are, at tiny size."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def as_users_run_jax():
    with jax.numpy_rank_promotion("allow"):
        yield


def recipe(name):
    (path,) = [path for path in EXAMPLES if path.stem == name]
    return runpy.run_path(str(path))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_recipe_is_short_and_tested(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 120
    assert f"python examples/{path.name}" in source
    assert f'recipe("{path.stem}")' in Path(__file__).read_text(encoding="utf-8")


def test_the_classifier_learns_something_of_order():
    assert recipe("packed_classifier")["main"](steps=140, texts=192, length=64) > 0.8


def test_the_sweep_trains_every_member(tmp_path):
    losses = recipe("sweep")["main"](steps=12, seeds=2, batch=8, time=6, out=tmp_path / "sweep.png")
    assert losses.shape == (5, 2, 12)
    assert np.isfinite(losses).all()
    assert len({float(loss) for loss in losses[:, :, -1].ravel()}) == 10  # each has its own rate and seed
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
