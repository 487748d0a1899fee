"""No public name is left out of the laws."""

import types
import typing

import jax
import jax.numpy as jnp
import pytest

import rnnx
import test_laws
from registry import CASES

pytestmark = pytest.mark.quick
MADE = (rnnx.Layer, rnnx.Cell, rnnx.AssociativeCell)


def _makers(module, prefix):
    """The public functions that return a Layer or a cell, or decorate one that does."""
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing) and not isinstance(thing, type):
            returned = typing.get_type_hints(thing).get("return")
            if returned in MADE or isinstance(returned, typing.TypeVar) or name == "factory":
                yield prefix + name


def test_every_public_maker_of_layers_and_cells_stands_in_the_registry():
    public = {*_makers(rnnx, ""), *_makers(rnnx.cells, "cells.")}
    covered = {name for case in CASES for name in case.covers}
    assert public - covered == set(), "give these a Case in tests/registry.py"
    assert covered - public == set(), "these are in tests/registry.py, but not public"
    assert len(public) >= 15


def test_everything_public_has_a_docstring_with_an_example():
    for module in (rnnx, rnnx.cells):
        for name in module.__all__:
            thing = getattr(module, name)
            assert thing.__doc__, f"{name} has no docstring"
            if callable(thing) and not isinstance(thing, type) and name != "as_cell":
                assert ">>>" in thing.__doc__, f"the docstring of {name} shows no example"


def test_the_quick_tests_cover_every_public_name(request):
    """They are a law over the registry, the examples in the docstrings, and what is made here."""
    law = test_laws.test_lengths_and_resets_that_say_nothing
    assert "quick" in {mark.name for mark in law.pytestmark}
    for item in request.session.items:
        assert item.get_closest_marker("quick") or not isinstance(item, pytest.DoctestItem)

    cell, layer, xs = rnnx.cells.lstm(2), rnnx.bidirectional(rnnx.lstm(2)), jnp.ones((1, 2, 3))
    carry, _ = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
    kinds = {type(thing) for thing in (cell, cell.step, rnnx.cells.lru(2), layer, layer.spec, carry, rnnx.pack(xs))}
    covered = {name for case in CASES for name in case.covers}
    for name in rnnx.__all__:
        thing = getattr(rnnx, name)
        parts = vars(thing).values() if isinstance(thing, types.ModuleType) else [thing]
        shown = any(">>>" in (part.__doc__ or "") for part in parts if callable(part))
        assert shown or name in covered or thing in kinds, f"{name} is in no quick test"


@pytest.mark.parametrize("name", rnnx.cells.__all__)
def test_every_cell_is_a_layer_too(name):
    if typing.get_type_hints(getattr(rnnx.cells, name)).get("return") in MADE:
        assert isinstance(getattr(rnnx, name)(2), rnnx.Layer)
        assert isinstance(getattr(rnnx.cells, name)(2), rnnx.Cell | rnnx.AssociativeCell)
