"""Against flax.linen.RNN with its own cells, with random weights and biases; both forms of the GRU against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, shaken

import rnnx

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
    variables = shaken(rnn.init(jax.random.key(0), xs))
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
    (by_variables, wanted_by_xs), wanted = jax.jit(jax.grad(theirs, argnums=(0, 1), has_aux=True))(variables, xs)
    assert_close((by_xs, values), (wanted_by_xs, wanted))
    assert_close(by_params, convert(by_variables["params"]["cell"]))


def test_gru_reset_before_against_the_equations():
    """The form of Haiku and the paper's first version, transcribed in NumPy, in float64."""
    with jax.enable_x64(True):
        layer = rnnx.gru(WIDTH, reset_after=False, param_dtype=jnp.float64)
        xs = jax.random.normal(jax.random.key(1), (1, TIME, FEATURES), jnp.float64)
        params = shaken(layer.init(jax.random.key(0), xs))
        _, ys = rnnx.unroll(layer, params, xs)
        w_r, w_z, w_n = np.split(np.asarray(params["input_kernel"]), 3, axis=1)
        r_r, r_z, r_n = np.split(np.asarray(params["recurrent_kernel"]), 3, axis=1)
        b_r, b_z, b_n = np.split(np.asarray(params["bias"]), 3)
        h = np.zeros(WIDTH)
        for x, y in zip(np.asarray(xs[0]), np.asarray(ys[0])):
            r = 1 / (1 + np.exp(-(x @ w_r + h @ r_r + b_r)))
            z = 1 / (1 + np.exp(-(x @ w_z + h @ r_z + b_z)))
            n = np.tanh(x @ w_n + (r * h) @ r_n + b_n)
            h = (1 - z) * n + z * h
            assert_close(y, h, 1e-12)
