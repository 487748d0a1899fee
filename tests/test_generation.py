"""Closed-loop generation equals a loop in Python; the sampler's distribution is the one asked for."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close

LOGITS = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))


def test_generate_equals_a_loop():
    lm = rnnx.stack(nn.Embed(5, 8), rnnx.lstm(8), nn.Dense(5))
    prime = jnp.array([[0, 3, 1], [2, 2, 4]])
    params = lm.init(jax.random.key(0), prime)
    sample, key = rnnx.sampler(1.3), jax.random.key(1)
    start, _ = rnnx.unroll(lm, params, prime[:, :-1])
    carry, text = rnnx.generate(lm, params, start, prime[:, -1], steps=6, sample=sample, key=key)
    expected, x, c = [], prime[:, -1], start
    for k in jax.random.split(key, 6):
        c, logits = rnnx.unroll(lm, params, x[:, None], carry=c)
        x = sample(k, logits[:, 0])
        expected.append(x)
    np.testing.assert_array_equal(text, jnp.stack(expected, axis=1))
    assert_close(carry, c)


def test_generate_forecasts_series_and_goes_on():
    layer = rnnx.stack(rnnx.gru(6), nn.Dense(2))
    xs = jax.random.normal(jax.random.key(0), (3, 4, 2))
    params = layer.init(jax.random.key(1), xs)
    carry, _ = rnnx.unroll(layer, params, xs[:, :-1])

    def go_on(carry, last, steps):
        key = jax.random.key(0)
        return rnnx.generate(layer, params, carry, last, steps=steps, sample=lambda key, y: y, key=key)

    end, whole = go_on(carry, xs[:, -1], 7)
    middle, first = go_on(carry, xs[:, -1], 3)
    again, second = go_on(middle, first[:, -1], 4)
    assert_close((again, jnp.concatenate([first, second], axis=1)), (end, whole))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 99}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 1.0}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 3, "top_p": 0.8}, [0.625, 0.375, 0, 0]),
    ],
)
def test_sampler(options, expected):
    logits = jnp.broadcast_to(LOGITS, (20_000, 4))
    drawn = rnnx.sampler(**options)(jax.random.key(0), logits)
    frequencies = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(frequencies, expected, atol=0.015)
    np.testing.assert_array_equal(frequencies == 0, np.asarray(expected) == 0)
