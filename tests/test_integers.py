"""Lengths, tokens and places may come in any integer dtype, also where sums of them do not fit into it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.sequences import flip, valid_steps
from rnnx.testing import assert_close

DTYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
SMALL = [np.int8, np.uint8]
TIME = 300
LENGTHS = np.array([5, 0, 120])
XS = jax.random.normal(jax.random.key(0), (3, TIME, 2))
LAYERS = {
    "scan": rnnx.scan(rnnx.cells.elman(2)),
    "fused_scan": rnnx.gru(2),
    "associative_scan": rnnx.associative_scan(rnnx.cells.min_gru(2), sequential=False),
    "newton_scan": rnnx.newton_scan(rnnx.cells.elman(2)),
    "bidirectional": rnnx.bidirectional(rnnx.elman(2)),
    "stack": rnnx.stack(nn.Dense(2), rnnx.residual(rnnx.reverse(rnnx.elman(2)))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_of_any_integer_dtype_mean_the_same(name):
    layer = LAYERS[name]
    params = layer.init(jax.random.key(1), XS)
    run = jax.jit(lambda lengths: rnnx.unroll(layer, params, XS, lengths=lengths))
    expected = rnnx.unroll(layer, params, XS, lengths=LENGTHS)
    for dtype in DTYPES:
        assert_close(rnnx.unroll(layer, params, XS, lengths=LENGTHS.astype(dtype)), expected, 0)
        if dtype in SMALL:
            assert_close(run(LENGTHS.astype(dtype)), expected)
            carry = layer.initial_carry(params, XS, None)
            assert_close(layer.apply(params, carry, XS, lengths=jnp.asarray(LENGTHS, dtype)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_said_of_lengths_is_right_in_every_dtype(dtype):
    lengths, layer = jnp.asarray(LENGTHS, dtype), LAYERS["scan"]
    assert valid_steps(lengths, TIME).sum(axis=1).tolist() == LENGTHS.tolist()
    steps = jnp.broadcast_to(jnp.arange(TIME), (3, TIME))
    flipped = flip(steps, lengths)
    assert flipped[2, :120].tolist() == list(range(119, -1, -1))
    with pytest.raises(ValueError, match="lengths lie between 0 and 120, but xs has 100 steps"):
        rnnx.unroll(layer, layer.init(jax.random.key(1), XS), XS[:, :100], lengths=LENGTHS.astype(dtype))
    assert [len(x) for x in rnnx.unpad(np.zeros((3, TIME)), LENGTHS.astype(dtype))] == LENGTHS.tolist()
    edges = np.array([60, 120], dtype)
    assert [size for _, size in rnnx.bucket(LENGTHS.astype(dtype), 1, edges=edges)] == [60, 60, 120]


def last_token(key, logits):
    return jnp.full(logits.shape[:1], logits.shape[1] - 1)


@pytest.mark.parametrize("dtype", SMALL)
def test_tokens_and_packed_places_in_eight_bits(dtype):
    lm = rnnx.stack(nn.Embed(TIME, 2), rnnx.elman(2), nn.Dense(TIME))
    tokens = np.array([[7, 100, 3]])
    params = lm.init(jax.random.key(1), tokens)
    carry, logits = rnnx.unroll(lm, params, tokens)
    assert_close(rnnx.unroll(lm, params, tokens.astype(dtype)), (carry, logits), 0)
    _, text = rnnx.generate(lm, params, carry, tokens[:, -1].astype(dtype), steps=2, sample=last_token)
    assert text.tolist() == [[299, 299]]

    packed = rnnx.pack([np.ones((n, 2), np.float32) for n in (150, 100, 40)], length=TIME)
    places = {name: getattr(packed, name).astype(np.uint8) for name in ("row", "start", "size")}
    params = LAYERS["scan"].init(jax.random.key(1), packed.xs)
    expected = rnnx.unroll_packed(LAYERS["scan"], params, packed)
    assert_close(rnnx.unroll_packed(LAYERS["scan"], params, packed._replace(**places)), expected, 0)
    ys, sizes = rnnx.unpack_padded(packed._replace(**places), packed.xs)
    assert sizes.tolist() == [150, 100, 40]
    assert ys.sum(axis=(1, 2)).tolist() == [300, 200, 80]


def test_integers_beyond_what_jax_keeps_are_refused():
    lm = rnnx.stack(nn.Embed(5, 2), rnnx.elman(2))
    params = lm.init(jax.random.key(1), np.zeros((1, 3), int))
    with pytest.raises(ValueError, match=r"integers between 0 and 4294967296, but JAX stores integers in 32 bits"):
        rnnx.unroll(lm, params, np.array([[0, 1, 2**32]]))
