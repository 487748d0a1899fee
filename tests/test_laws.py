"""The laws that `rnnx.base` states, over every public cell, evaluator and combinator."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from checks import all_layers, assert_close, run_in_pieces, shaken, spoiled, weighted_sum
from registry import BATCH, CASES, TIME, Case

LENGTHS = np.array([TIME, 4, 0, 1])
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, [0, 3, 4]] = RESETS[1, [2, 4, 6]] = RESETS[2, 1] = RESETS[3, [0, 5]] = True


class Setup(NamedTuple):
    """A case made ready once: compiled functions are shared by all laws."""

    layer: rnnx.Layer
    params: Any
    xs: Any
    carry: Any
    run: Any  # (params, carry, xs, lengths, resets) -> (carry, ys)
    gradient: Any  # the same arguments -> gradients of a weighted sum by params, carry and xs


def floats(tree: Any) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def gradient_of(run: Any) -> Any:
    """Gradients of a weighted sum of final carry and outputs, by params, initial carry and floating inputs."""

    def gradient(params: Any, carry: Any, xs: Any, lengths: Any, resets: Any) -> Any:
        def loss(*args: Any) -> jax.Array:
            return weighted_sum(run(*args, lengths, resets))

        return jax.grad(loss, argnums=(0, 1, 2), allow_int=True)(params, carry, xs)

    return gradient


@functools.cache
def made(name: str) -> Setup:
    case = next(case for case in CASES if case.name == name)
    layer = case.make()
    k_params, k_xs = jax.random.split(jax.random.key(0))
    xs = case.inputs(k_xs, BATCH, TIME)
    params = shaken(layer.init(k_params, xs))
    carry = (
        shaken(layer.initial_carry(params, xs, None)) if layer.spec.chunkable else layer.initial_carry(params, xs, None)
    )

    def run(params: Any, carry: Any, xs: Any, lengths: Any, resets: Any) -> Any:
        return layer.apply(params, carry, xs, lengths=lengths, resets=resets)

    return Setup(layer, params, xs, carry, jax.jit(run), jax.jit(gradient_of(run)))


# One worker runs all laws of a case, so that it compiles each function once.
every_case = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=pytest.mark.xdist_group(case.name)) for case in CASES]
)


@pytest.fixture(autouse=True)
def compile_quickly(case: Case):
    """Most time goes into compiling, so most cases do without optimisations; these have them."""
    optimised = case.name in {"lstm", "scan checkpoint_every"}
    jax.config.update("jax_disable_most_optimizations", not optimised)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@every_case
def test_chunk(case: Case):
    """A causal layer may stop anywhere and go on; a reversed one from right to left."""
    s = made(case.name)
    if not s.layer.spec.chunkable:
        with pytest.raises(ValueError, match="both directions"):
            rnnx.unroll(s.layer, s.params, s.xs, carry=s.carry)
        return
    backward = s.layer.spec.directions == {"backward"}

    cut = TIME - 1
    cuts = slice(0, cut), slice(cut, TIME)  # the last of a single step
    resets = RESETS.copy()
    assert resets[:, cut].any()
    if backward:
        resets[:, cut] = False

    def in_chunks(params, carry, xs, lengths, resets):
        parts = [jax.tree.map(lambda x, p=p: x[:, p], (xs, resets)) for p in cuts]
        outputs = []
        for part, cut_resets in reversed(parts) if backward else parts:
            carry, ys = s.layer.apply(params, carry, part, resets=cut_resets)
            outputs.append(ys)
        outputs = outputs[::-1] if backward else outputs
        return carry, jax.tree.map(lambda *ys: jnp.concatenate(ys, axis=1), *outputs)

    arguments = (s.params, s.carry, s.xs, None, resets)
    assert_close(jax.jit(in_chunks)(*arguments), s.run(*arguments))
    assert_close(jax.jit(gradient_of(in_chunks))(*arguments), s.gradient(*arguments))


@every_case
def test_padding_reset_and_batch(case: Case):
    """A padded, cut batch with NaN in its pads equals its pieces run alone: values and gradients."""
    s = made(case.name)

    def in_pieces(params, carry, xs, lengths, resets):
        return run_in_pieces(s.layer, params, carry, xs, LENGTHS, RESETS)

    bad = spoiled(s.xs, LENGTHS, np.nan)
    ours, wanted = (f(s.params, s.carry, xs, LENGTHS, RESETS) for f, xs in ((s.run, bad), (jax.jit(in_pieces), s.xs)))
    assert_close(ours[1], wanted[1])
    if s.layer.spec.chunkable or isinstance(ours[0], rnnx.BiCarry):
        assert_close(ours[0], wanted[0])

    def gradient(run):
        if s.layer.spec.chunkable:
            return jax.jit(gradient_of(run))
        # Where both directions are read, no carry comes in, and the final ones of a deep layer are not one piece's.
        g = gradient_of(lambda *arguments: run(*arguments)[1])
        return jax.jit(lambda *arguments: g(*arguments)[::2])

    ours = gradient(s.run)(s.params, s.carry, bad, LENGTHS, RESETS)
    assert_close(ours, gradient(in_pieces)(s.params, s.carry, s.xs, LENGTHS, RESETS))


@every_case
def test_padding_holds_anything(case: Case):
    """Whatever stands in the pads, the results are the same to the bit, and outputs there are zero."""
    s = made(case.name)
    results = [
        (s.run(*arguments), s.gradient(*arguments))
        for value in (np.nan, np.inf, -np.inf, 0.0)
        for arguments in [(s.params, s.carry, spoiled(s.xs, LENGTHS, value), LENGTHS, RESETS)]
    ]
    for result in results[1:]:
        chex.assert_trees_all_equal(*(jax.tree.map(np.asarray, [floats(r) for r in (result, results[0])])))
    assert all(np.isfinite(leaf).all() for leaf in floats(results[0]))
    pads = ~(np.arange(TIME) < LENGTHS[:, None])
    for leaf in [*jax.tree.leaves(results[0][0][1]), *floats(results[0][1][2])]:
        assert not np.asarray(leaf)[pads].any()


@every_case
def test_lengths_and_resets_that_say_nothing(case: Case):
    """Full lengths and no resets equal None; each of the two works without the other."""
    s = made(case.name)
    full, never = np.full(BATCH, TIME), np.zeros_like(RESETS)
    plain = s.run(s.params, s.carry, s.xs, None, None)
    assert_close(s.run(s.params, s.carry, s.xs, full, never), plain, 1e-6)
    assert_close(s.run(s.params, s.carry, s.xs, LENGTHS, None), s.run(s.params, s.carry, s.xs, LENGTHS, never), 1e-6)
    assert_close(s.run(s.params, s.carry, s.xs, None, RESETS), s.run(s.params, s.carry, s.xs, full, RESETS), 1e-6)


@every_case
def test_reverse(case: Case):
    """`reverse` equals flipping each valid part, the layer, and flipping back, borders included."""
    s = made(case.name)
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
    assert_close(backwards.apply(s.params, s.carry, xs, lengths=LENGTHS, resets=RESETS), (carry, ys), 1e-6)


@every_case
def test_ensemble_and_gradients_per_example(case: Case):
    """`vmap` over stacked params equals a loop; so does `vmap(grad)` over examples."""
    s = made(case.name)
    members = [shaken(s.params, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

    def of_all(f):
        return jax.jit(jax.vmap(f, in_axes=(0, None, None, None, None)))(stacked, s.carry, s.xs, LENGTHS, RESETS)

    def one_by_one(f):
        results = [f(params, s.carry, s.xs, LENGTHS, RESETS) for params in members]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *results)

    if jax.tree.leaves(s.params):
        assert_close(of_all(s.run), one_by_one(s.run))

    def loss(params, carry, xs, lengths, resets):
        one = jax.tree.map(lambda a: a[None], (carry, xs, lengths, resets))
        carry, ys = s.run(params, *one)
        return weighted_sum((carry, ys))

    grad = jax.grad(loss)
    rows = jax.tree.map(jnp.asarray, (s.carry, s.xs, LENGTHS, RESETS))
    together = jax.jit(jax.vmap(grad, in_axes=(None, 0, 0, 0, 0)))(s.params, *rows)
    grad = jax.jit(grad)
    alone = [grad(s.params, *jax.tree.map(lambda a, b=b: a[b], rows)) for b in range(BATCH)]
    assert_close(together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone))


@every_case
def test_compiles_once(case: Case):
    s = made(case.name)
    chex.clear_trace_counter()  # it counts by name, over all cases

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, xs, lengths, resets):
        return rnnx.unroll(s.layer, params, xs, lengths=lengths, resets=resets)

    for lengths in (LENGTHS, LENGTHS[::-1].copy(), np.full(BATCH, TIME)):
        for resets in (RESETS, ~RESETS):
            run(s.params, s.xs, lengths, resets)


@every_case
def test_dtypes(case: Case):
    """The carry keeps the params' dtype; outputs have the input's; and bfloat16 is close to float32."""
    s = made(case.name)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, s.xs)
    carry, ys = rnnx.unroll(s.layer, s.params, half, lengths=LENGTHS, resets=RESETS)
    full_carry, full_ys = rnnx.unroll(s.layer, s.params, s.xs, lengths=LENGTHS, resets=RESETS)
    chex.assert_trees_all_equal_dtypes(carry, full_carry)
    assert {leaf.dtype for leaf in jax.tree.leaves(carry)} <= {jnp.dtype("float32")}
    wanted = jnp.dtype("bfloat16") if floats(half) else jnp.dtype("float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(ys)} == {wanted}
    assert_close(jax.tree.map(lambda y: y.astype(jnp.float32), ys), full_ys, 0.1)


@every_case
def test_every_parameter_gets_a_gradient(case: Case):
    s = made(case.name)
    by_params = s.gradient(s.params, s.carry, s.xs, LENGTHS, RESETS)[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(by_params):
        assert np.abs(leaf).max() > 1e-6, f"{jax.tree_util.keystr(path)} gets no gradient"


@every_case
def test_first_and_second_derivatives(case: Case):
    """In a random direction, against central differences in float64: forward, reverse, and one over the other."""
    s = made(case.name)
    with jax.enable_x64(True):

        def double(tree: Any) -> Any:
            def cast(a: Any) -> Any:
                return np.asarray(a, np.float64) if np.issubdtype(a.dtype, np.floating) else np.asarray(a)

            return jax.tree.map(cast, tree)

        at, xs = double((s.params, s.carry)), double(s.xs)
        direction = shaken(jax.tree.map(np.zeros_like, at), seed=11)

        def loss(at: Any) -> jax.Array:
            return weighted_sum(s.layer.apply(*at, xs, lengths=LENGTHS, resets=RESETS))

        def along(tree: Any) -> jax.Array:
            return sum((jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (tree, direction)))), jnp.zeros(()))

        @jax.jit
        def derivatives(at: Any) -> Any:
            def reverse(at: Any) -> jax.Array:
                return along(jax.grad(loss)(at))

            value, forward = jax.jvp(loss, (at,), (direction,))
            second = jax.jvp(reverse, (at,), (direction,))[1], along(jax.grad(reverse)(at))
            return value, (forward, reverse(at)), second

        step = 1e-4
        ahead = derivatives(jax.tree.map(lambda a, d: a + step * d, at, direction))
        behind = derivatives(jax.tree.map(lambda a, d: a - step * d, at, direction))
        value, first, second = derivatives(at)
        difference = (ahead[0] - behind[0]) / (2 * step)
        assert_close(first, (difference,) * 2, 1e-5)
        difference = (ahead[1][1] - behind[1][1]) / (2 * step)
        np.testing.assert_allclose(second, (difference,) * 2, rtol=1e-5, atol=1e-6 * abs(float(value)))


@every_case
def test_export(case: Case):
    """One export with symbolic batch and time serves cpu, cuda and tpu, and gives the same numbers."""
    s = made(case.name)
    batch, time = jax.export.symbolic_shape("batch, time")

    def struct(x, *sizes):
        return jax.ShapeDtypeStruct((*sizes, *x.shape[len(sizes) :]), x.dtype)

    shapes = (
        jax.tree.map(lambda x: struct(x, batch, time), s.xs),
        struct(jnp.asarray(LENGTHS), batch),
        struct(RESETS, batch, time),
    )

    @jax.jit
    def run(params, xs, lengths, resets):
        return rnnx.unroll(s.layer, params, xs, lengths=lengths, resets=resets)[1]

    exported = jax.export.export(run, platforms=["cpu", "cuda", "tpu"])(s.params, *shapes)
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    again = jax.export.deserialize(exported.serialize())
    ys = again.call(s.params, s.xs, jnp.asarray(LENGTHS), jnp.asarray(RESETS))
    assert_close(ys, run(s.params, s.xs, jnp.asarray(LENGTHS), jnp.asarray(RESETS)), 1e-6)


@every_case
@pytest.mark.parametrize(("batch", "time"), [(1, 1), (2, 0), (1, 2)])
def test_small_sizes(case: Case, batch: int, time: int):
    """No step, one step, one row: no step returns the carry that came in."""
    s = made(case.name)
    xs, carry = jax.tree.map(lambda x: x[:batch, :time], s.xs), jax.tree.map(lambda c: c[:batch], s.carry)
    lengths, resets = np.full(batch, time), np.zeros((batch, time), bool)
    after, ys = s.layer.apply(s.params, carry, xs, lengths=lengths, resets=resets)
    plain = s.layer.apply(s.params, carry, xs)
    assert_close((after, ys), plain, 1e-6)
    assert all(leaf.shape[:2] == (batch, time) for leaf in jax.tree.leaves(ys))
    if time == 0:
        assert_close(after, carry, 0)


@every_case
def test_noise(case: Case):
    """The same key gives the same result; without one there is no noise at all."""
    s = made(case.name)
    runs = [
        rnnx.unroll(s.layer, s.params, s.xs, key=key)[1] for key in (None, None, *jax.random.split(jax.random.key(1)))
    ]
    runs.append(rnnx.unroll(s.layer, s.params, s.xs, key=jax.random.split(jax.random.key(1))[1])[1])
    chex.assert_trees_all_equal(runs[0], runs[1])
    chex.assert_trees_all_equal(runs[3], runs[4])
    noisy = any(layer.spec.name == "dropout" for layer in all_layers(s.layer))
    assert np.array_equal(runs[2], runs[3]) != noisy


@every_case
def test_half_precision_params(case: Case):
    """Params, and so the carry, may be bfloat16, beside inputs of any precision."""
    s = made(case.name)

    def half(tree: Any) -> Any:
        floating = jnp.floating
        return jax.tree.map(lambda a: a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, floating) else a, tree)

    params = half(s.params)
    carry, ys = rnnx.unroll(s.layer, params, s.xs, lengths=LENGTHS, resets=RESETS)
    assert {leaf.dtype for leaf in jax.tree.leaves(carry)} <= {jnp.dtype("bfloat16")}
    wanted = {x.dtype for x in floats(s.xs)} or {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(ys)} == wanted
    full = rnnx.unroll(s.layer, s.params, s.xs, lengths=LENGTHS, resets=RESETS)[1]
    assert_close(jax.tree.map(lambda y: y.astype(jnp.float32), ys), full, 0.1)
