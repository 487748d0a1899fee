"""The examples in docstrings that need another library: skipped with the others, run here where it is installed."""

import doctest

import jax
import pytest

import rnnx


@pytest.mark.parametrize("library", ["equinox", "haiku", "keras"])
def test_there_and_back(library, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(library)
    namespace, runner = {}, doctest.DocTestRunner()
    for name in (f"from_{library}", f"to_{library}"):
        (example,) = doctest.DocTestFinder(recurse=False).find(getattr(rnnx.interop, name), name)
        example.globs = namespace  # the second goes on from the first
        for line in example.examples:
            line.options.pop(doctest.SKIP, None)
        with jax.numpy_rank_promotion("allow"):
            runner.run(example, clear_globs=False)
    assert runner.tries >= 4
    assert runner.failures == 0
