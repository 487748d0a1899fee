"""The laws that `rnnx.base` states, over every public cell, evaluator and combinator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rnnx
from checks import (
    ByPieces,
    all_layers,
    assert_close,
    at_row,
    eps,
    joined,
    shaken,
    split,
    spoiled,
    weighted_sum,
    weights_of,
)
from registry import BATCH, CASES, TIME, Case

LENGTHS = np.array([TIME, 4, 0, 1])
RESETS = np.zeros((BATCH, TIME), bool)
OPTIMISED = {"lstm", "scan checkpoint_every"}
# What conftest.py turns off, for the sake of time, where it can be turned off at all.
WITH_FUSION = {"xla_cpu_use_fusion_emitters": True} if jax.version.__version_info__ < (0, 11) else None
RESETS[0, [0, 3, 4]] = RESETS[1, [2, 4, 6]] = RESETS[2, 1] = RESETS[3, [0, 5]] = True


class Setup(NamedTuple):
    """A case made ready once: compiled functions are shared by all laws."""

    case: Case
    layer: rnnx.Layer
    params: Any
    xs: Any
    carry: Any
    run: Any  # (params, carry, xs, lengths, resets) -> (carry, ys)
    both: Any  # the same arguments -> that, and gradients of a weighted sum by params, carry and the floats of xs
    by_pieces: ByPieces


def floats(tree: Any) -> list[jax.Array]:
    return split(tree)[0]


def made(case: Case) -> Setup:
    layer = case.make()
    k_params, k_xs = jax.random.split(jax.random.key(0))
    xs = case.inputs(k_xs, BATCH, TIME)
    params = shaken(jax.jit(layer.init)(k_params, xs))
    carry = jax.jit(lambda params, xs: layer.initial_carry(params, xs, None))(params, xs)
    carry = shaken(carry) if layer.spec.chunkable else carry

    def run(params: Any, carry: Any, xs: Any, lengths: Any, resets: Any) -> Any:  # evaluators compile themselves
        return layer.apply(params, carry, xs, lengths=lengths, resets=resets)

    options = WITH_FUSION if case.name in OPTIMISED else None
    both = jax.jit(with_gradient(layer, run), compiler_options=options)
    return Setup(case, layer, params, xs, carry, run, both, ByPieces(layer))


def with_gradient(layer: rnnx.Layer, run: Any) -> Any:
    """`run`, and gradients of a weighted sum of final carry and outputs; of outputs, where both directions are read."""

    def both(params: Any, carry: Any, xs: Any, lengths: Any, resets: Any) -> Any:
        numbers, rest = split(xs)

        def loss(params: Any, carry: Any, numbers: Any) -> Any:
            result = run(params, carry, joined(numbers, rest), lengths, resets)
            return weighted_sum(result if layer.spec.chunkable else result[1]), result

        gradient, result = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, carry, numbers)
        return result, gradient

    return both


# All laws of a case run one after the other, in one worker, so that it compiles each function once.
@pytest.fixture(
    scope="module", params=[pytest.param(c, id=c.name, marks=pytest.mark.xdist_group(c.name)) for c in CASES]
)
def s(request: pytest.FixtureRequest) -> Iterator[Setup]:
    # Most time goes into compiling, so most cases do without optimisations.
    jax.config.update("jax_disable_most_optimizations", request.param.name not in OPTIMISED)
    yield made(request.param)
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # hundreds of megabytes a case


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
    lengths, resets = drawn
    batch, time = resets.shape
    xs, carry = jax.tree.map(lambda x: x[:batch, :time], s.xs), jax.tree.map(lambda c: c[:batch], s.carry)
    arguments = s.params, carry, spoiled(xs, lengths, np.nan), lengths, resets
    ours, gradient = s.both(*arguments)
    cotangent = weights_of(ours) if s.layer.spec.chunkable else (ours[0], weights_of(ours[1]))
    wanted, by_hand = s.by_pieces.run(s.params, carry, xs, lengths, resets, cotangent)
    assert_close(ours[1], wanted[1])
    if s.layer.spec.chunkable or isinstance(ours[0], rnnx.BiCarry):
        assert_close(ours[0], wanted[0])
    kept = slice(None) if s.layer.spec.chunkable else slice(None, None, 2)  # no carry comes in there
    assert_close(gradient[kept], by_hand[kept])


def test_a_carry_is_refused_where_both_directions_are_read(s: Setup):
    if s.layer.spec.chunkable:
        carry, _ = rnnx.unroll(s.layer, s.params, s.xs, carry=s.carry)
        chex.assert_trees_all_equal_shapes_and_dtypes(carry, s.carry)
    else:
        with pytest.raises(ValueError, match="both directions"):
            rnnx.unroll(s.layer, s.params, s.xs, carry=s.carry)


def test_padding_holds_anything(s: Setup):
    """Whatever stands in the pads, the results are the same to the bit, and outputs there are zero."""
    results = [
        s.both(s.params, s.carry, spoiled(s.xs, LENGTHS, value), LENGTHS, RESETS)
        for value in (np.nan, np.inf, -np.inf, 0.0)
    ]
    for result in results[1:]:
        chex.assert_trees_all_equal(*(jax.tree.map(np.asarray, [floats(r) for r in (result, results[0])])))
    assert all(np.isfinite(leaf).all() for leaf in floats(results[0]))
    pads = ~(np.arange(TIME) < LENGTHS[:, None])
    for leaf in [*jax.tree.leaves(results[0][0][1]), *results[0][1][2]]:
        assert not np.asarray(leaf)[pads].any()


@pytest.mark.quick
def test_lengths_and_resets_that_say_nothing(s: Setup):
    """Full lengths and no resets equal None; each of the two works without the other."""
    full, never = np.full(BATCH, TIME), np.zeros_like(RESETS)
    plain = s.run(s.params, s.carry, s.xs, None, None)
    assert_close(s.run(s.params, s.carry, s.xs, full, never), plain, eps(64))
    assert_close(s.run(s.params, s.carry, s.xs, LENGTHS, None), s.run(s.params, s.carry, s.xs, LENGTHS, never), eps(64))
    assert_close(s.run(s.params, s.carry, s.xs, None, RESETS), s.run(s.params, s.carry, s.xs, full, RESETS), eps(64))


def test_both_directions(s: Setup):
    """Whatever is causal can be read both ways, and the two be merged in any way."""
    if not s.layer.spec.causal:
        return
    both = rnnx.bidirectional(s.layer, merge=lambda f, b: (f, b))

    def run(key, xs):
        return rnnx.unroll(both, both.init(key, xs), xs, lengths=LENGTHS, resets=RESETS)

    carry, ys = jax.eval_shape(run, jax.random.key(0), s.xs)
    wanted = jax.eval_shape(s.run, s.params, s.carry, s.xs, LENGTHS, RESETS)
    chex.assert_trees_all_equal_shapes_and_dtypes((carry.forward, ys[0]), (carry.backward, ys[1]), wanted)


def test_reverse(s: Setup):
    """`reverse` equals flipping each valid part, the layer, and flipping back, borders included."""
    backwards = rnnx.reverse(s.layer)
    flipped, borders = jax.tree.map(np.array, s.xs), np.zeros_like(RESETS)
    for b, length in enumerate(LENGTHS):
        for leaf in jax.tree.leaves(flipped):
            leaf[b, :length] = leaf[b, :length][::-1].copy()
        for t in range(1, length):
            borders[b, length - t] = RESETS[b, t]
    carry, ys = s.run(s.params, s.carry, flipped, LENGTHS, borders)
    ys = jax.tree.map(np.array, ys)
    for b, length in enumerate(LENGTHS):
        for leaf in jax.tree.leaves(ys):
            leaf[b, :length] = leaf[b, :length][::-1].copy()
    xs = spoiled(s.xs, LENGTHS, np.nan)
    assert_close(backwards.apply(s.params, s.carry, xs, lengths=LENGTHS, resets=RESETS), (carry, ys), eps(64))


def test_ensemble_and_gradients_per_example(s: Setup):
    """`vmap` over stacked params equals a loop; so does `vmap(grad)` over examples."""
    members = [shaken(s.params, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def of_all(f):
        return jax.jit(jax.vmap(f, in_axes=(0, None, None, None, None)))(stacked, s.carry, s.xs, LENGTHS, RESETS)

    def one_by_one(f):
        results = [f(params, s.carry, s.xs, LENGTHS, RESETS) for params in members]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *results)

    if jax.tree.leaves(s.params):
        assert_close(of_all(s.run), one_by_one(s.run))

    both = with_gradient(s.layer, s.run)

    def by_params(params, *row):
        return both(params, *jax.tree.map(lambda a: a[None], row))[1][0]

    rows = jax.tree.map(jnp.asarray, (s.carry, s.xs, LENGTHS, RESETS))
    together = jax.jit(jax.vmap(by_params, in_axes=(None, 0, 0, 0, 0)))(s.params, *rows)
    alone = []
    for b in range(BATCH):
        row = at_row((s.carry, s.xs, LENGTHS, RESETS), b)
        result = s.by_pieces.run(s.params, *row)
        cotangent = weights_of(result) if s.layer.spec.chunkable else (result[0], weights_of(result[1]))
        alone.append(s.by_pieces.run(s.params, *row, cotangent)[1][0])
    assert_close(together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone))


def test_compiles_once(s: Setup):
    chex.clear_trace_counter()  # it counts by name, over all cases

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, xs, lengths, resets):
        return rnnx.unroll(s.layer, params, xs, lengths=lengths, resets=resets)

    for lengths in (LENGTHS, LENGTHS[::-1].copy(), np.full(BATCH, TIME)):
        for resets in (RESETS, ~RESETS):
            run(s.params, s.xs, lengths, resets)


def test_dtypes(s: Setup):
    """The carry keeps the params' dtype; outputs have the input's; and bfloat16 is close to float32."""
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, s.xs)
    carry, ys = rnnx.unroll(s.layer, s.params, half, lengths=LENGTHS, resets=RESETS)
    full_carry, full_ys = rnnx.unroll(s.layer, s.params, s.xs, lengths=LENGTHS, resets=RESETS)
    chex.assert_trees_all_equal_dtypes(carry, full_carry)
    assert {leaf.dtype for leaf in jax.tree.leaves(carry)} <= {jnp.dtype("float32")}
    wanted = jnp.dtype("bfloat16") if floats(half) else jnp.dtype("float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(ys)} == {wanted}
    assert_close(jax.tree.map(lambda y: y.astype(jnp.float32), ys), full_ys, 0.1)


def test_every_parameter_gets_a_gradient(s: Setup):
    by_params = s.both(s.params, s.carry, s.xs, LENGTHS, RESETS)[1][0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(by_params):
        assert np.abs(leaf).max() > 1e-6, f"{jax.tree_util.keystr(path)} gets no gradient"


def test_first_and_second_derivatives(s: Setup):
    """In a random direction, against central differences in float64: forward, reverse, and one over the other."""
    with jax.enable_x64(True):

        def double(tree: Any) -> Any:
            def cast(a: Any) -> Any:
                return np.asarray(a, np.float64) if np.issubdtype(a.dtype, np.floating) else np.asarray(a)

            return jax.tree.map(cast, tree)

        at, xs = double((s.params, s.carry)), double(s.xs)
        direction = jax.tree.map(np.asarray, shaken(jax.tree.map(np.zeros_like, at), seed=11))

        def loss(at: Any) -> jax.Array:
            return weighted_sum(s.layer.apply(*at, xs, lengths=LENGTHS, resets=RESETS))

        def reverse(at: Any) -> jax.Array:
            gradients = jax.tree.leaves(jax.grad(loss)(at))
            return sum((jnp.vdot(a, b) for a, b in zip(gradients, jax.tree.leaves(direction))), jnp.zeros(()))

        @jax.jit
        def derivatives(at: Any) -> Any:
            value, forward = jax.jvp(loss, (at,), (direction,))
            first, second = jax.jvp(reverse, (at,), (direction,))
            return value, first, forward, second

        step = 1e-4
        value, first, forward, second = derivatives(at)
        ahead = derivatives(jax.tree.map(lambda a, d: a + step * d, at, direction))
        behind = derivatives(jax.tree.map(lambda a, d: a - step * d, at, direction))
        if s.case.smooth:
            difference = (ahead[0] - behind[0]) / (2 * step)
            assert_close((first, forward), (difference,) * 2, 1e-5)
            difference = (ahead[1] - behind[1]) / (2 * step)
            np.testing.assert_allclose(second, difference, rtol=1e-5, atol=1e-6 * abs(float(value)))
        assert_close(first, forward, 1e-9)
        if s.case.name in OPTIMISED:
            again = sum(map(jnp.vdot, jax.tree.leaves(jax.grad(reverse)(at)), jax.tree.leaves(direction)))
            assert_close(again, second, 1e-9)


def test_export(s: Setup):
    """One export with symbolic batch and time serves cpu, cuda and tpu, takes and gives carries, and is as exact."""
    batch, time = jax.export.symbolic_shape("batch, time")

    def struct(x, *sizes):
        return jax.ShapeDtypeStruct((*sizes, *x.shape[len(sizes) :]), x.dtype)

    shapes = (
        jax.tree.map(lambda x: struct(x, batch, time), s.xs),
        struct(jnp.asarray(LENGTHS), batch),
        struct(RESETS, batch, time),
    )
    carry = s.carry if s.layer.spec.chunkable else None

    @jax.jit
    def run(params, carry, xs, lengths, resets):
        return rnnx.unroll(s.layer, params, xs, carry=carry, lengths=lengths, resets=resets)

    carry_shapes = jax.tree.map(lambda c: struct(c, batch), carry)
    exported = jax.export.export(run, platforms=["cpu", "cuda", "tpu"])(s.params, carry_shapes, *shapes)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    again = jax.export.deserialize(exported.serialize())
    arguments = s.params, carry, s.xs, jnp.asarray(LENGTHS), jnp.asarray(RESETS)
    assert_close(again.call(*arguments), run(*arguments), eps(64))


def test_no_step(s: Setup):
    """Of no time at all comes the carry that went in. (One step is an example of the first law.)"""
    xs = jax.tree.map(lambda x: x[:, :0], s.xs)
    for lengths, resets in ((None, None), (np.zeros(BATCH, int), RESETS[:, :0])):
        after, ys = s.run(s.params, s.carry, xs, lengths, resets)
        assert all(leaf.shape[:2] == (BATCH, 0) for leaf in jax.tree.leaves(ys))
        assert_close(after, s.carry, 0)


def test_noise(s: Setup):
    """The same key gives the same result; without one there is no noise at all."""
    runs = [
        rnnx.unroll(s.layer, s.params, s.xs, key=key)[1] for key in (None, None, *jax.random.split(jax.random.key(1)))
    ]
    runs.append(rnnx.unroll(s.layer, s.params, s.xs, key=jax.random.split(jax.random.key(1))[1])[1])
    chex.assert_trees_all_equal(runs[0], runs[1])
    chex.assert_trees_all_equal(runs[3], runs[4])
    noisy = s.case.noisy or any(layer.spec.name == "dropout" for layer in all_layers(s.layer))
    same = all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(runs[2]), jax.tree.leaves(runs[3])))
    assert same != noisy


def test_half_precision_params(s: Setup):
    """Params, and so the carry, may be bfloat16, beside inputs of any precision."""

    def half(tree: Any) -> Any:
        floating = jnp.floating
        return jax.tree.map(lambda a: a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, floating) else a, tree)

    params = half(s.params)
    carry, ys = rnnx.unroll(s.layer, params, s.xs, lengths=LENGTHS, resets=RESETS)
    if jax.tree.leaves(params):
        assert {leaf.dtype for leaf in jax.tree.leaves(carry)} <= {jnp.dtype("bfloat16")}
    wanted = {x.dtype for x in floats(s.xs)} or {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(ys)} == wanted
    full = rnnx.unroll(s.layer, s.params, s.xs, lengths=LENGTHS, resets=RESETS)[1]
    assert_close(jax.tree.map(lambda y: y.astype(jnp.float32), ys), full, 0.1)
