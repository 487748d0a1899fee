"""Tokens are drawn with the probabilities that their logits say, in every precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx

DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32]
DRAWS = 40_000


def drawn(sample, logits, draws=DRAWS):
    tokens = jax.jit(jax.vmap(sample, in_axes=(0, None)))(jax.random.split(jax.random.key(0), draws), logits)
    return np.bincount(tokens, minlength=logits.shape[-1])


def assert_distributed(counts, probabilities):
    """Chi-square of counts against probabilities, five standard deviations allowed; nothing where there is none."""
    possible = probabilities > 0
    assert not counts[~possible].any()
    expected = counts.sum() * probabilities[possible]
    chi_square, freedom = ((counts[possible] - expected) ** 2 / expected).sum(), possible.sum() - 1
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom), (chi_square, freedom)


def softmax(logits):
    weights = np.exp(np.float64(logits) - np.max(np.float64(logits)))
    return weights / weights.sum()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"top_k": 900}], ids=str)
def test_a_thousand_equal_logits_are_drawn_alike(dtype, options):
    """Ties stay together, so neither option takes any of them away."""
    assert_distributed(drawn(rnnx.sampler(**options), jnp.zeros(1000, dtype)), np.full(1000, 1e-3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_the_distribution_is_that_of_the_logits(dtype, temperature):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=50), dtype)
    expected = softmax(np.asarray(logits, np.float64) / temperature)
    assert_distributed(drawn(rnnx.sampler(temperature), logits), expected)
    order = np.argsort(-expected)
    counts = drawn(rnnx.sampler(temperature, top_k=7), logits)
    least = np.float64(logits)[order[6]]
    among = np.where(np.float64(logits) >= least, expected, 0)
    assert_distributed(counts, among / among.sum())
    counts = drawn(rnnx.sampler(temperature, top_p=0.8), logits)
    fewest = order[np.cumsum(expected[order]) - expected[order] < 0.8]
    among = np.where(np.float64(logits) >= np.float64(logits)[fewest].min(), expected, 0)
    assert_distributed(counts, among / among.sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0, 1e-45, 1e-39, 1e-6, 1e-3])
@pytest.mark.parametrize("logits", [(80, 100, 70), (1, 3, 2), (-3e4, -1e4, -2e4), (-np.inf, 0, -np.inf)])
def test_a_low_temperature_takes_the_largest(dtype, temperature, logits):
    for options in ({}, {"top_k": 2}, {"top_p": 0.9}):
        sample = rnnx.sampler(temperature, **options)
        assert int(sample(jax.random.key(0), jnp.asarray(logits, dtype))) == 1
