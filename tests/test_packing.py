"""Packed sequences equal the same sequences padded, and each of them alone: outputs, final carries, gradients."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnx
from registry import VOCABULARY, decay
from rnnx.batching import pad, unpad
from rnnx.packing import pack, unpack, unpack_padded, unroll_packed
from rnnx.testing import assert_close, weighted_sum
from test_batching import assert_same, ragged

SIZES = (1, 3, 0, 3, 1, 1)
LENGTH = 7  # rows of 3 + 3 + 1 and 1 + 1


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=12), st.integers(0, 5), st.integers(0, 2))
def test_pack_and_back(sizes, spare, spare_rows):
    sequences = ragged(sizes)
    length = max(*sizes, 1) + spare
    packed = pack(sequences, length=length)
    packed = pack(sequences, length=length, rows=len(packed.lengths) + spare_rows)
    rows = len(packed.lengths)
    assert packed.xs["x"].shape == (rows, length, 2)
    assert_same(unpack(packed, packed.xs), sequences)

    taken = np.zeros((rows, length), int)
    for row, start, size in zip(packed.row, packed.start, packed.size):
        assert start + size <= length
        taken[row, start : start + size] += 1
        assert packed.resets[row, start] == (size > 0) or size == 0
        assert packed.positions[row, start : start + size].tolist() == list(range(size))
        assert len(set(packed.segment_ids[row, start : start + size].tolist())) <= 1
    assert taken.max() <= 1
    assert packed.size.tolist() == sizes
    np.testing.assert_array_equal(taken == 1, np.arange(length) < packed.lengths[:, None])
    np.testing.assert_array_equal(taken == 1, packed.segment_ids > 0)
    assert not packed.positions[taken == 0].any()
    assert packed.resets.sum() == sum(size > 0 for size in sizes)
    for ids, resets, used in zip(packed.segment_ids, packed.resets, packed.lengths):
        assert ids[:used].tolist() == resets[:used].cumsum().tolist()
    # No two rows, but the spare ones, could have been one.
    used = sorted(packed.lengths[: rows - spare_rows].tolist())
    assert len(used) < 2 or used[0] + used[1] > length


@pytest.mark.parametrize("length", [None, 3, 9])
def test_unpack_padded(length):
    sequences = ragged(SIZES)
    packed = pack(sequences, length=LENGTH)
    ours = jax.jit(functools.partial(unpack_padded, length=length))(packed, packed.xs)
    xs, lengths = pad(sequences, length=length or LENGTH)
    assert_same([ours[0]], [xs])
    np.testing.assert_array_equal(ours[1], lengths)


LAYERS = {
    "lstm": lambda: rnnx.lstm(4),
    "model": lambda: rnnx.stack(
        nn.Embed(VOCABULARY, 3), rnnx.bidirectional(rnnx.gru(2)), rnnx.lstm(3), rnnx.dropout(0.5), nn.Dense(2)
    ),
    "deep bidirectional": lambda: rnnx.repeat(
        rnnx.repeat(rnnx.residual(rnnx.bidirectional(rnnx.gru(3), merge=jnp.add)), 2), 2
    ),
    "reverse": lambda: rnnx.reverse(
        rnnx.parallel(rnnx.scan(rnnx.cells.gru(2), checkpoint_every=2, unroll=2), rnnx.reverse(rnnx.elman(2)))
    ),
    "learned initial carry": lambda: rnnx.reverse(rnnx.scan(decay())),
}


def sequences_for(name, sizes):
    rng = np.random.default_rng(0)
    if name == "model":
        return [rng.integers(0, VOCABULARY, n, dtype=np.int32) for n in sizes]
    series = [rng.normal(size=(n, 3)).astype(np.float32) for n in sizes]
    if name == "learned initial carry":
        return [{"x": x, "dt": np.abs(x[:, 0])} for x in series]
    return series


def drawn_params(layer, xs):
    """Params of the right shapes, every number of them drawn: cheaper than `init`."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), xs)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(s.dtype) / 2, shapes)


@pytest.mark.parametrize("name", LAYERS)
def test_packed_padded_and_alone_are_one(name):
    layer, sequences = LAYERS[name](), sequences_for(name, SIZES)
    packed = pack(sequences, length=LENGTH)
    assert packed.lengths.tolist() == [7, 2]
    xs, lengths = pad(sequences)
    params = drawn_params(layer, xs)

    def run_packed(params, xs, packed):
        carry, ys = unroll_packed(layer, params, packed._replace(xs=xs))
        return carry, unpack_padded(packed, ys, length=max(SIZES))[0]

    def run_padded(params, xs, lengths):
        return rnnx.unroll(layer, params, xs, lengths=lengths)

    def run_alone(params, sequences, _):
        carries, outputs = [], []
        for sequence in sequences:
            carry, ys = rnnx.unroll(layer, params, jax.tree.map(lambda x: x[None], sequence))
            carries.append(carry)
            outputs.append(jnp.pad(ys, ((0, 0), (0, max(SIZES) - ys.shape[1]), (0, 0))))
        return jax.tree.map(lambda *c: jnp.concatenate(c), *carries), jnp.concatenate(outputs)

    def with_gradients(run):
        def loss(*arguments):
            results = run(*arguments)  # carries [n, ...] and outputs [n, longest, ...], zero in the pads
            return weighted_sum(results), results

        gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True, allow_int=True))

        def results(*arguments):
            (by_params, by_xs), made = gradient(*arguments)
            return (made, by_params), by_xs

        return results

    expected, expected_by_xs = with_gradients(run_alone)(params, sequences, None)
    padded, by_xs = with_gradients(run_padded)(params, xs, lengths)
    assert_close(padded, expected)
    assert_close(unpad(by_xs, lengths), expected_by_xs)

    gradient = with_gradients(run_packed)
    ours, by_xs = gradient(params, packed.xs, packed)
    assert_close(ours, expected)
    assert_close(unpack(packed, by_xs), expected_by_xs)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(ours[1]))

    # Whatever stands in the pads has no influence, and gets no gradient.
    pads = packed.segment_ids == 0
    bad = jax.tree.map(np.array, packed.xs)
    for leaf in jax.tree.leaves(bad):
        leaf[pads] = np.nan if np.issubdtype(leaf.dtype, np.floating) else -1
    again, by_xs = gradient(params, bad, packed)
    chex.assert_trees_all_equal(again, ours)
    assert not any(np.asarray(leaf)[pads].astype(bool).any() for leaf in jax.tree.leaves(by_xs))


def test_it_compiles_once_for_one_shape():
    layer = rnnx.bidirectional(rnnx.gru(2))
    params = drawn_params(layer, jnp.ones((1, 1, 3)))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(packed):
        carry, ys = unroll_packed(layer, params, packed, key=jax.random.key(0))
        return carry, unpack_padded(packed, ys)

    for sizes in ((4, 0, 3, 1, 2), (1, 1, 1, 1, 1), (0, 0, 0, 0, 0), (4, 4, 4, 0, 4)):
        packed = pack(sequences_for("lstm", sizes), length=4, rows=4)
        carry, (_, lengths) = run(packed)
        alone = [rnnx.unroll(layer, params, x[None])[0] for x in unpack(packed, packed.xs)]
        assert_close(carry, jax.tree.map(lambda *c: jnp.concatenate(c), *alone))
        assert lengths.tolist() == list(sizes)


def test_dtypes_and_noise():
    layer = rnnx.stack(rnnx.lstm(2), rnnx.dropout(0.5))
    packed = pack([np.ones((n, 3), jnp.bfloat16) for n in (2, 3)])
    params = drawn_params(layer, jnp.ones((1, 1, 3)))
    run = jax.jit(lambda key: unroll_packed(layer, params, packed, key=key))
    (carry, nothing), ys = run(None)
    assert (carry.h.dtype, ys.dtype, nothing) == (jnp.float32, jnp.bfloat16, ())
    a, b, again = (np.asarray(run(jax.random.key(seed))[1]) for seed in (0, 1, 0))
    assert not (a == np.asarray(ys)).all()
    assert not (a == b).all()
    assert (a == again).all()


def test_refused():
    ones = [np.ones((n, 3), np.float32) for n in (2, 4, 3)]
    packed = pack(ones)
    layer = rnnx.lstm(2)
    params = drawn_params(layer, packed.xs)
    for error, words, call in (
        (ValueError, "pack got an empty list", lambda: pack([])),
        (ValueError, "pack: sequence 1 is .*float64", lambda: pack([ones[0], np.ones((1, 3))])),
        (ValueError, "sequence 1 has 4 steps, but length is 3", lambda: pack(ones, length=3)),
        (ValueError, "need 3 rows of 4 steps, but rows is 2", lambda: pack(ones, rows=2)),
        (ValueError, r"= \(3, 4\).*\(3, 5\)", lambda: unpack(packed, np.ones((3, 5)))),
        (ValueError, r"= \(3, 4\).*\(2, 4\)", lambda: unpack_padded(packed, np.ones((2, 4)))),
        (ValueError, "has 4 steps, but length is 2", lambda: unpack_padded(packed, packed.xs, length=2)),
        (TypeError, "rnnx.pack", lambda: unroll_packed(layer, params, packed.xs)),
        (TypeError, "rnnx.scan", lambda: unroll_packed(rnnx.cells.lstm(2), params, packed)),
        (ValueError, "do not fit", lambda: unroll_packed(rnnx.lstm(3), params, packed)),
        (ValueError, "packed into", lambda: unroll_packed(layer, params, packed._replace(xs=np.ones((3, 2, 3))))),
    ):
        with pytest.raises(error, match=words):
            call()
