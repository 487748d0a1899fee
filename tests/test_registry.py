"""No public name is left out of the laws."""

import typing

import pytest

import rnnx
from registry import CASES

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


@pytest.mark.parametrize("name", rnnx.cells.__all__)
def test_every_cell_is_a_layer_too(name):
    if typing.get_type_hints(getattr(rnnx.cells, name)).get("return") in MADE:
        assert isinstance(getattr(rnnx, name)(2), rnnx.Layer)
        assert isinstance(getattr(rnnx.cells, name)(2), rnnx.Cell | rnnx.AssociativeCell)
