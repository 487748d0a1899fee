"""The laws that `rnnx.base` states, over every public cell, evaluator and combinator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rnnx
from registry import BATCH, CASES, TIME, Case
from rnnx.testing import LAYER_LAWS, Subject, assert_equals_step_by_step, perturbed, prepare

LENGTHS = np.array([TIME, 4, 0, 1])
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, [0, 3, 4]] = RESETS[1, [2, 4, 6]] = RESETS[2, 1] = RESETS[3, [0, 5]] = True
OPTIMISED = {"lstm", "scan checkpoint_every"}
# What conftest.py turns off, for the sake of time, where it can be turned off at all.
WITH_FUSION = {"xla_cpu_use_fusion_emitters": True} if jax.version.__version_info__ < (0, 11) else None


class Setup(NamedTuple):
    """A case made ready once: compiled functions are shared by all laws."""

    case: Case
    subject: Subject


def made(case: Case) -> Setup:
    layer = case.make()
    k_params, k_xs = jax.random.split(jax.random.key(0))
    xs = case.inputs(k_xs, BATCH, TIME)
    params = perturbed(jax.jit(layer.init)(k_params, xs))
    s = prepare(layer, xs, params=params, smooth=case.smooth, tolerance=case.tolerance)
    if case.name in OPTIMISED:
        s = dataclasses.replace(s, compiler_options=WITH_FUSION)
    s.lengths, s.resets = LENGTHS, RESETS
    if layer.spec.chunkable:
        s.carry = perturbed(s.initial_carry(params, xs))
    return Setup(case, s)


# All laws of a case run one after the other, in one worker, so that it compiles each function once.
@pytest.fixture(
    scope="module", params=[pytest.param(c, id=c.name, marks=pytest.mark.xdist_group(c.name)) for c in CASES]
)
def s(request: pytest.FixtureRequest) -> Iterator[Setup]:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", request.param.name not in OPTIMISED)
    yield made(request.param)
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()  # hundreds of megabytes a case


def all_layers(layer: rnnx.Layer) -> Iterator[rnnx.Layer]:
    yield layer
    for _, child in layer.spec.children:
        yield from all_layers(child)


class Ragged(NamedTuple):
    lengths: np.ndarray  # [batch]
    resets: np.ndarray  # [batch, time]


@st.composite
def ragged(draw: Any) -> Ragged:
    """Any lengths and resets; of one shape, since each is compiled anew."""
    lengths = draw(st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH))
    resets = draw(st.lists(st.booleans(), min_size=BATCH * TIME, max_size=BATCH * TIME))
    return Ragged(np.array(lengths), np.array(resets).reshape(BATCH, TIME))


@given(ragged())
@example(Ragged(LENGTHS, RESETS))
@example(Ragged(np.array([1]), np.array([[True]])))
@settings(max_examples=3, deadline=None, derandomize=True, database=None)
def test_chunk_padding_reset_and_batch(s: Setup, drawn: Ragged):
    """A padded, cut batch with NaN in its pads equals its rows run alone and step by step: values and gradients.

    From this the chunk law follows: wherever a sequence is cut, both ways equal the run step by step.
    """
    assert_equals_step_by_step(s.subject, *drawn)


@pytest.mark.quick
def test_lengths_and_resets_that_say_nothing(s: Setup):
    LAYER_LAWS["defaults"](s.subject)


@pytest.mark.parametrize("law", [law for law in LAYER_LAWS if law not in ("defaults", "derivatives")])
def test_law(s: Setup, law: str):
    LAYER_LAWS[law](s.subject)


def test_derivatives(s: Setup):
    LAYER_LAWS["derivatives"](s.subject, reverse_over_reverse=s.case.name in OPTIMISED)


def test_both_directions(s: Setup):
    """Whatever is causal can be read both ways, and the two be merged in any way."""
    layer = s.subject.layer
    if not layer.spec.causal:
        return
    both = rnnx.bidirectional(layer, merge=lambda f, b: (f, b))

    def run(key, xs):
        return rnnx.unroll(both, both.init(key, xs), xs, lengths=LENGTHS, resets=RESETS)

    carry, ys = jax.eval_shape(run, jax.random.key(0), s.subject.xs)
    expected = jax.eval_shape(s.subject.apply, s.subject.params, s.subject.carry, s.subject.xs, LENGTHS, RESETS)
    chex.assert_trees_all_equal_shapes_and_dtypes((carry.forward, ys[0]), (carry.backward, ys[1]), expected)


def test_only_noise_depends_on_the_key(s: Setup):
    first, second = (s.subject.draw(key) for key in jax.random.split(jax.random.key(1)))
    noisy = s.case.noisy or any(layer.spec.name == "dropout" for layer in all_layers(s.subject.layer))
    same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)))
    assert same != noisy
