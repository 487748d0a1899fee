"""Against NumPy transcriptions of the papers' equations, in float64, with noise on every parameter.

Each function below is one step: `(params, state, x) -> (state, y)`, gate by gate, as the paper writes it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close, perturbed

TIME, FEATURES, WIDTH = 9, 3, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gates(p, n):
    """The n gates' (W, R, b)."""
    kernels = (np.split(p[name], n, axis=1) for name in ("input_kernel", "recurrent_kernel"))
    return list(zip(*kernels, np.split(p["bias"], n)))


def gru_reset_before(p, h, x):
    (w_r, r_r, b_r), (w_z, r_z, b_z), (w_n, r_n, b_n) = gates(p, 3)
    r = sigmoid(x @ w_r + h @ r_r + b_r)
    z = sigmoid(x @ w_z + h @ r_z + b_z)
    n = np.tanh(x @ w_n + (r * h) @ r_n + b_n)
    h = (1 - z) * n + z * h
    return h, h


def mgu(p, h, x):
    (w_f, r_f, b_f), (w_n, r_n, b_n) = gates(p, 2)
    f = sigmoid(x @ w_f + h @ r_f + b_f)
    n = np.tanh(x @ w_n + (f * h) @ r_n + b_n)
    h = (1 - f) * h + f * n
    return h, h


def mgu_reset_after(p, h, x):
    (w_f, r_f, b_f), (w_n, r_n, b_n) = gates(p, 2)
    f = sigmoid(x @ w_f + h @ r_f + b_f)
    n = np.tanh(x @ w_n + b_n + f * (h @ r_n + p["recurrent_bias"]))
    h = (1 - f) * n + f * h
    return h, h


def ugrnn(p, h, x):
    (w_g, r_g, b_g), (w_n, r_n, b_n) = gates(p, 2)
    g = sigmoid(x @ w_g + h @ r_g + b_g)
    n = np.tanh(x @ w_n + h @ r_n + b_n)
    h = g * h + (1 - g) * n
    return h, h


def janet(p, h, x):
    (w_f, r_f, b_f), (w_n, r_n, b_n) = gates(p, 2)
    s = x @ w_f + h @ r_f + b_f
    n = np.tanh(x @ w_n + h @ r_n + b_n)
    h = sigmoid(s) * h + (1 - sigmoid(s - 1)) * n
    return h, h


def indrnn(p, h, x):
    h = np.maximum(0, x @ p["input_kernel"] + p["recurrent_kernel"] * h + p["bias"])
    return h, h


def rhn(p, h, x):
    w_n, w_g = np.split(p["input_kernel"], 2, axis=1)
    for layer, (kernel, bias) in enumerate(zip(p["recurrent_kernel"], p["bias"])):
        r_n, r_g = np.split(kernel, 2, axis=1)
        b_n, b_g = np.split(bias, 2)
        first = float(layer == 0)
        n = np.tanh(first * (x @ w_n) + h @ r_n + b_n)
        g = sigmoid(first * (x @ w_g) + h @ r_g + b_g)
        h = n * g + h * (1 - g)
    return h, h


def lem(p, state, x):
    y, z = state
    (w_1, r_1, b_1), (w_2, r_2, b_2), (w_z, r_z, b_z), (w_y, r_y, b_y) = gates(p, 4)
    a, a_bar = 0.7 * sigmoid(x @ w_1 + y @ r_1 + b_1), 0.7 * sigmoid(x @ w_2 + y @ r_2 + b_2)
    z = (1 - a) * z + a * np.tanh(x @ w_z + y @ r_z + b_z)
    y = (1 - a_bar) * y + a_bar * np.tanh(x @ w_y + z @ r_y + b_y)
    return (y, z), y


def cornn(p, state, x):
    y, z = state
    r_y, r_z = np.split(p["recurrent_kernel"], 2, axis=0)
    force = np.tanh(x @ p["input_kernel"] + y @ r_y + z @ r_z + p["bias"])
    z = z + 0.1 * (force - 2 * y - 3 * z)
    y = y + 0.1 * z
    return (y, z), y


def slstm(p, state, x):
    """Without the stabiliser, which changes no output; two heads, each reading its own half of h."""
    h, c, n, m = state
    wx = np.split(x @ p["input_kernel"] + p["bias"], 4)
    heads = [np.split(kernel, 4, axis=1) for kernel in p["recurrent_kernel"]]
    halves = np.split(h, 2)
    i, f, z, o = (wx[g] + np.concatenate([halves[k] @ heads[k][g] for k in range(2)]) for g in range(4))
    c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
    n = sigmoid(f) * n + np.exp(i)
    h = sigmoid(o) * c / n
    return (h, c, n, m), h


def orthogonal(p, h, x):
    lower = np.tril(p["skew"], -1)
    skew, identity = lower - lower.T, np.eye(WIDTH)
    q = np.linalg.inv(identity + skew) @ (identity - skew)
    assert_close(q @ q.T, identity, 1e-12)
    v = p["input_kernel"].T @ x + q @ h
    h = np.sign(v) * np.maximum(np.abs(v) + p["bias"], 0)
    return h, h


double = {"param_dtype": jnp.float64}
EQUATIONS = [
    (gru_reset_before, rnnx.gru(WIDTH, reset_after=False, **double), 1),
    (mgu, rnnx.mgu(WIDTH, **double), 1),
    (mgu_reset_after, rnnx.mgu(WIDTH, reset_after=True, **double), 1),
    (ugrnn, rnnx.ugrnn(WIDTH, **double), 1),
    (janet, rnnx.janet(WIDTH, **double), 1),
    (indrnn, rnnx.indrnn(WIDTH, **double), 1),
    (rhn, rnnx.rhn(WIDTH, depth=3, **double), 1),
    (lem, rnnx.lem(WIDTH, dt=0.7, **double), 2),
    (cornn, rnnx.cornn(WIDTH, dt=0.1, gamma=2, epsilon=3, **double), 2),
    (slstm, rnnx.slstm(WIDTH, heads=2, **double), 4),
    (orthogonal, rnnx.orthogonal(WIDTH, **double), 1),
]


@pytest.mark.parametrize(("equation", "layer", "parts"), EQUATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_equations(equation, layer, parts):
    with jax.enable_x64(True):
        xs = jax.random.normal(jax.random.key(1), (1, TIME, FEATURES), jnp.float64)
        params = perturbed(layer.init(jax.random.key(0), xs))
        _, ys = rnnx.unroll(layer, params, xs)
        transcribed = jax.tree.map(np.asarray, params)
        state = np.zeros(WIDTH) if parts == 1 else (np.zeros(WIDTH),) * parts
        expected = []
        for x in np.asarray(xs[0]):
            state, y = equation(transcribed, state, x)
            expected.append(y)
        assert ys.dtype == np.float64
        assert_close(ys[0], np.stack(expected), 1e-10)


def test_slstm_stays_in_range():
    """Gates whose exponential overflows: the stabiliser keeps state and gradient finite."""
    layer = rnnx.slstm(WIDTH)
    xs = 200 * jax.random.normal(jax.random.key(1), (2, 50, FEATURES))
    params = layer.init(jax.random.key(0), xs)
    value, gradient = jax.value_and_grad(lambda p: (rnnx.unroll(layer, p, xs)[1] ** 2).sum())(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
