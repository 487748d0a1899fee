"""Tests for your own cells and layers: the laws of `rnnx.base`, and the helpers that they use."""

from rnnx.testing.checking import ASSOCIATIVE_CELL_LAWS, CELL_LAWS, LAYER_LAWS, check_cell, check_layer, checks_of
from rnnx.testing.comparing import assert_close, eps
from rnnx.testing.inputs import (
    at_row,
    cotangent_of,
    merge_floats,
    perturbed,
    split_floats,
    weighted_sum,
    with_garbage_pads,
)
from rnnx.testing.law import LawBroken
from rnnx.testing.reference import StepByStep
from rnnx.testing.sequences import assert_equals_step_by_step
from rnnx.testing.subject import Subject, prepare

__all__ = [
    "ASSOCIATIVE_CELL_LAWS",
    "CELL_LAWS",
    "LAYER_LAWS",
    "LawBroken",
    "StepByStep",
    "Subject",
    "assert_close",
    "assert_equals_step_by_step",
    "at_row",
    "check_cell",
    "check_layer",
    "checks_of",
    "cotangent_of",
    "eps",
    "merge_floats",
    "perturbed",
    "prepare",
    "split_floats",
    "weighted_sum",
    "with_garbage_pads",
]
