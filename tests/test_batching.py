"""Padding and bucketing: nothing is lost, little is padding, and bad input is named."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx.batching import bucket, pad, unpad


def ragged(sizes, seed=0):
    """Sequences that are pytrees of floats and tokens."""
    rng = np.random.default_rng(seed)
    return [
        {"x": rng.normal(size=(n, 2)).astype(np.float32), "tokens": rng.integers(1, 9, n, dtype=np.int32)}
        for n in sizes
    ]


def assert_same(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(0, 3))
def test_pad_and_back(sizes, spare):
    sequences = ragged(sizes)
    xs, lengths = pad(sequences, length=max(sizes) + spare, value=-1)
    assert lengths.tolist() == sizes
    assert xs["x"].shape == (len(sizes), max(sizes) + spare, 2)
    pads = np.arange(max(sizes) + spare) >= lengths[:, None]
    assert (xs["x"][pads] == -1).all()
    assert (xs["tokens"][pads] == -1).all()
    assert_same(unpad(xs, lengths), sequences)
    assert pad(sequences)[0]["x"].shape[1] == max(sizes)


def test_pad_refuses():
    def refused(words, sequences, **options):
        with pytest.raises(ValueError, match=r"pad: |pad got") as raised:
            pad(sequences, **options)
        for word in words:
            assert word in str(raised.value), str(raised.value)

    ones = np.ones((2, 3), np.float32)
    refused(["empty list"], [])
    refused(["sequence 1", "float32[len, 4]", "float32[len, 3]"], [ones, np.ones((2, 4), np.float32)])
    refused(["sequence 2", "float64[len, 3]", "float32[len, 3]"], [ones, ones, np.ones((0, 3))])
    refused(["sequence 1", "'a'", "same features"], [{"b": ones}, {"a": ones}])
    refused(["sequence 0", "[1, 2]"], [{"a": ones, "b": ones[:1]}])
    refused(["number 1", "np.array(list)"], [ones, [1.0, 2.0]])
    refused(["number 0", "no array"], [{}])
    refused(["sequence 1 has 5 steps", "length is 4"], [ones, np.ones((5, 3), np.float32)], length=4)
    for lengths in ([3, 1], [-1, 1], [1]):
        with pytest.raises(ValueError, match="do not fit a batch"):
            unpad(np.ones((2, 2)), lengths)


sizes_of_batches = st.integers(1, 5)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=30),
    st.one_of(sizes_of_batches, st.lists(sizes_of_batches, min_size=3, max_size=3)),
    st.sampled_from([[5, 11, 20], [1, 2, 40]]),
    st.sampled_from([None, 3, (0, 1)]),
)
def test_every_index_is_in_one_batch(lengths, batch_size, edges, rng):
    batches = bucket(lengths, batch_size, edges=edges, rng=rng)
    assert sorted(np.concatenate([indices for indices, _ in batches]).tolist()) == list(range(len(lengths)))
    full = dict(zip(edges, [batch_size] * 3 if isinstance(batch_size, int) else batch_size))
    for indices, length in batches:
        assert length in edges
        assert max(lengths[i] for i in indices) <= length
    small = [(indices, length) for indices, length in batches if len(indices) != full[length]]
    assert len(small) <= 1
    kept = bucket(lengths, batch_size, edges=edges, rng=rng, drop_remainder=True)
    assert sum(len(indices) for indices, _ in kept) >= len(lengths) - sum(len(indices) for indices, _ in small)
    again = bucket(lengths, batch_size, edges=edges, rng=rng)
    assert [(i.tolist(), n) for i, n in again] == [(i.tolist(), n) for i, n in batches]


def test_shuffling():
    lengths = np.arange(200) % 20
    plain, a, b = (bucket(lengths, 10, edges=[9, 19], rng=rng) for rng in (None, (0, 0), (0, 1)))
    assert [length for _, length in plain] == [9] * 10 + [19] * 10
    assert plain[0][0].tolist() == list(range(10))
    shapes, orders = zip(
        *([[n for _, n in run], np.concatenate([i for i, _ in run]).tolist()] for run in (plain, a, b))
    )
    assert len(set(map(tuple, shapes))) == 3
    assert len(set(map(tuple, orders))) == 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 4))
def test_edges_leave_the_least_padding(lengths, count):
    batches = bucket(lengths, 1, edges=count)
    found = sum(length for _, length in batches)
    assert len({length for _, length in batches}) <= count
    values = sorted({max(n, 1) for n in lengths})
    choices = [[*some, values[-1]] for some in itertools.combinations(values[:-1], min(count, len(values)) - 1)]
    assert found == min(sum(min(e for e in edges if e >= n) for n in lengths) for edges in choices)


def test_edges_of_many_lengths():
    lengths = np.random.default_rng(0).lognormal(5, 1, 20_000).astype(int)
    assert len(np.unique(lengths)) > 1000
    batches = bucket(lengths, 32, edges=12, rng=0)
    steps = sum(len(indices) * length for indices, length in batches)
    assert steps < 1.3 * lengths.sum()
    assert sorted(len(indices) for indices, _ in batches) == [32] * (20_000 // 32)
    assert len({length for _, length in batches}) <= 12


def test_bucket_refuses():
    def refused(words, *args, **options):
        with pytest.raises(ValueError, match="bucket: ") as raised:
            bucket(*args, **options)
        assert words in str(raised.value), str(raised.value)

    refused("one or more integers, 0 or more", [], 2)
    with pytest.raises(TypeError, match=r"bucket: lengths is \[1.5\].*must be integers"):
        bucket([1.5], 2)
    refused("one or more integers, 0 or more", [-1], 2)
    refused("must be ascending", [1], 2, edges=[3, 3])
    refused("must be ascending", [1], 2, edges=[])
    refused("number of edges is 0", [1], 2, edges=0)
    refused("sequence 1 has 9 steps, but the last edge is 8", [1, 9], 2, edges=[4, 8])
    refused("one number, or 2 (one per edge)", [1], [2, 2, 2], edges=[4, 8])
    refused("but got 0", [1], 0, edges=[4, 8])
