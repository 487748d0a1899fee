"""Against flax.linen.RNN with its own cells, with random weights and biases."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close, perturbed

BATCH, TIME, FEATURES, WIDTH = 4, 11, 3, 5
LENGTHS = np.array([11, 7, 1, 9])


def joined(params, names):
    return jnp.concatenate([params[name]["kernel"] for name in names], axis=1)


def biases(params, names):
    return jnp.concatenate([params[name]["bias"] for name in names])


def elman_params(p):
    return {"input_kernel": p["i"]["kernel"], "recurrent_kernel": p["h"]["kernel"], "bias": p["i"]["bias"]}


def lstm_params(p):
    i, h = [f"i{g}" for g in "ifgo"], [f"h{g}" for g in "ifgo"]
    return {"input_kernel": joined(p, i), "recurrent_kernel": joined(p, h), "bias": biases(p, h)}


def gru_params(p):
    i, h = [f"i{g}" for g in "rzn"], [f"h{g}" for g in "rzn"]
    kernels = {"input_kernel": joined(p, i), "recurrent_kernel": joined(p, h)}
    return {**kernels, "bias": biases(p, i), "recurrent_bias": p["hn"]["bias"]}


KINDS = {
    "elman": (nn.SimpleCell, rnnx.elman, elman_params),
    "lstm": (nn.LSTMCell, rnnx.lstm, lstm_params),
    "gru": (nn.GRUCell, rnnx.gru, gru_params),
}


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("kind", KINDS)
def test_flax_linen(kind, lengths):
    flax_cell, make, convert = KINDS[kind]
    rnn = nn.RNN(flax_cell(WIDTH), return_carry=True)
    xs = jax.random.normal(jax.random.key(1), (BATCH, TIME, FEATURES))
    variables = perturbed(rnn.init(jax.random.key(0), xs))
    layer, params = make(WIDTH), convert(variables["params"]["cell"])
    valid = np.arange(TIME)[None] < (np.full(BATCH, TIME) if lengths is None else lengths)[:, None]

    def score(carry, ys):  # the order of an LSTM's carry is (c, h) in Flax
        carry = tuple(jax.tree.leaves(carry))
        ys = jnp.where(valid[..., None], ys, 0)
        return (ys**2).sum() + sum((c**3).sum() for c in carry), (ys, sum(carry))

    def ours(params, xs):
        return score(*rnnx.unroll(layer, params, xs, lengths=lengths))

    def theirs(variables, xs):
        return score(*rnn.apply(variables, xs, seq_lengths=lengths))

    (by_params, by_xs), values = jax.jit(jax.grad(ours, argnums=(0, 1), has_aux=True))(params, xs)
    (by_variables, expected_by_xs), expected = jax.jit(jax.grad(theirs, argnums=(0, 1), has_aux=True))(variables, xs)
    assert_close((by_xs, values), (expected_by_xs, expected))
    assert_close(by_params, convert(by_variables["params"]["cell"]))
