"""The linear cells against NumPy transcriptions of the papers' and authors' equations, in float64, with noise on
every parameter and a carry that is not zero.

Each function below takes `(params, carry, xs)` for one sequence and returns `(carry, ys)`: step by step, or, where
there is one, in another form altogether (a convolution, sums in log-space), which gives None for the last carry.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_expit, logsumexp

import rnnx
from rnnx.cells.s5 import _hippo_normal
from rnnx.testing import assert_close, perturbed

TIME, FEATURES, WIDTH, HEADS, KEYS, VALUES = 9, 3, 4, 2, 6, 8


def stepwise(step):
    @functools.wraps(step)
    def whole(p, carry, xs):
        ys = []
        for x in xs:
            carry, y = step(p, carry, x)
            ys.append(y)
        return carry, np.stack(ys)

    return whole


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log(1 + np.exp(x))


def silu(x):
    return x * sigmoid(x)


def parts(h):
    return h.real, h.imag


# Gated, by what the input says alone


def positive(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def min_gru_of(g):
    @stepwise
    def min_gru(p, h, x):
        w_z, w_n = np.split(p["input_kernel"], 2, axis=1)
        b_z, b_n = np.split(p["bias"], 2)
        z, n = sigmoid(x @ w_z + b_z), g(x @ w_n + b_n)
        h = (1 - z) * h + z * n
        return h, h

    return min_gru


def min_lstm_of(g):
    @stepwise
    def min_lstm(p, h, x):
        w_f, w_i, w_n = np.split(p["input_kernel"], 3, axis=1)
        b_f, b_i, b_n = np.split(p["bias"], 3)
        f, i, n = sigmoid(x @ w_f + b_f), sigmoid(x @ w_i + b_i), g(x @ w_n + b_n)
        h = f / (f + i) * h + i / (f + i) * n
        return h, h

    return min_lstm


def log_positive(x):
    return np.where(x >= 0, np.log(np.maximum(x, 0) + 0.5), log_expit(x))


def in_log_space(log_a, log_b, log_h):
    """All h_t = a_t h_{t-1} + b_t at once, as in the papers' appendix: sums and a cumulative logsumexp."""
    log_decay = np.cumsum(log_a, axis=0)
    terms = np.concatenate([log_h[None], log_b - log_decay])
    hs = [np.exp(decay + logsumexp(terms[: t + 2], axis=0)) for t, decay in enumerate(log_decay)]
    return hs[-1], np.stack(hs)


def min_gru_log(p, h, xs):
    z, n = np.split(xs @ p["input_kernel"] + p["bias"], 2, axis=1)
    return in_log_space(log_expit(-z), log_expit(z) + log_positive(n), np.log(h))


def min_lstm_log(p, h, xs):
    f, i, n = np.split(xs @ p["input_kernel"] + p["bias"], 3, axis=1)
    both = np.logaddexp(log_expit(f), log_expit(i))
    return in_log_space(log_expit(f) - both, log_expit(i) - both + log_positive(n), np.log(h))


def qrnn_of(pooling, reach):
    """The paper's form: a causal convolution over the sequence, then pooling."""

    def qrnn(p, carry, xs):
        recent, c = carry
        gates = 1 + len(pooling)
        p = p["1_qrnn"]
        kernel = p["input_kernel"].reshape(reach, FEATURES, gates * WIDTH)
        seen = np.concatenate([recent, xs])  # in place of the zeros that the convolution would see before the first
        conv = nn.Conv(gates * WIDTH, (reach,), padding="VALID")
        mixed = np.asarray(conv.apply({"params": {"kernel": kernel, "bias": p["bias"]}}, seen))
        z, *given = np.split(mixed, gates, axis=1)
        gate = dict(zip([letter for letter in "foi" if letter in pooling], map(sigmoid, given)))
        ys = []
        for t in range(TIME):
            f = gate["f"][t]
            c = f * c + (gate["i"][t] if "i" in pooling else 1 - f) * np.tanh(z[t])
            ys.append(gate["o"][t] * c if "o" in pooling else c)
        return (seen[TIME:], c), np.stack(ys)

    return qrnn


@stepwise
def sru(p, c, x):
    w_n, w_f, w_r, *w_s = np.split(p["input_kernel"], p["input_kernel"].shape[1] // WIDTH, axis=1)
    b_f, b_r = np.split(p["bias"], 2)
    f, r = sigmoid(x @ w_f + b_f), sigmoid(x @ w_r + b_r)
    c = f * c + (1 - f) * (x @ w_n)
    return c, r * np.tanh(c) + (1 - r) * (x @ w_s[0] if w_s else x)


def rg_lru_of(heads):
    @stepwise
    def rg_lru(p, h, x):
        size = WIDTH // heads

        def gate(g):
            blocks = [x[k * size : (k + 1) * size] @ p["gate_kernel"][g, k] for k in range(heads)]
            return sigmoid(np.concatenate(blocks) + p["gate_bias"][g])

        a = sigmoid(-p["rate"]) ** (8 * gate(0))  # exp(-softplus) is a sigmoid
        h = a * h + np.sqrt(1 - a**2) * (gate(1) * x)
        return h, h

    return rg_lru


def causal_conv(p, recent, xs):
    """Flax's grouped convolution, the carry in place of its padding."""
    conv = nn.Conv(FEATURES, (4,), feature_group_count=FEATURES, padding="VALID")
    seen = np.concatenate([recent, xs])
    return seen[-3:], np.asarray(conv.apply({"params": {"kernel": p["kernel"][:, None], "bias": p["bias"]}}, seen))


# State spaces


@stepwise
def lru(p, carry, u):
    decay = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    b = p["input_kernel_re"] + 1j * p["input_kernel_im"]
    c = p["output_kernel_re"] + 1j * p["output_kernel_im"]
    x = decay * (carry[0] + 1j * carry[1]) + np.exp(p["log_gamma"]) * (u @ b)
    return parts(x), (x @ c).real + p["skip"] * u


def s5_system(p):
    """The discrete (A, B, C)."""
    rate, step = np.minimum(p["rate_re"], -1e-4) + 1j * p["rate_im"], np.exp(p["log_step"])
    b = (p["input_kernel_re"] + 1j * p["input_kernel_im"]).T
    a = np.exp(rate * step)
    return a, ((a - 1) / rate)[:, None] * b, (p["output_kernel_re"] + 1j * p["output_kernel_im"]).T


@stepwise
def s5(p, carry, u):
    a, b, c = s5_system(p)
    x = a * (carry[0] + 1j * carry[1]) + b @ u
    return parts(x), 2 * (c @ x).real + p["skip"] * u


def s5_convolution(p, carry, us):
    a, b, c = s5_system(p)
    h = carry[0] + 1j * carry[1]
    kernel = [2 * (c @ (a[:, None] ** lag * b)).real for lag in range(TIME)]
    ys = [2 * (c @ (a ** (t + 1) * h)).real + p["skip"] * us[t] for t in range(TIME)]
    return None, np.stack([y + sum(kernel[lag] @ us[t - lag] for lag in range(t + 1)) for t, y in enumerate(ys)])


def s4d_system(p):
    rate = -np.exp(p["log_decay"]) + 1j * p["frequency"]
    a = np.exp(rate * np.exp(p["log_step"])[:, None])
    return a, (a - 1) / rate, p["output_kernel_re"] + 1j * p["output_kernel_im"]


@stepwise
def s4d(p, carry, u):
    a, b, c = s4d_system(p)
    x = a * (carry[0] + 1j * carry[1]) + b * u[:, None]
    return parts(x), 2 * (c * x).sum(axis=1).real + p["skip"] * u


def s4d_convolution(p, carry, us):
    """The authors' form: a kernel by powers (a Vandermonde matrix), and a convolution by FFT of twice the length."""
    a, b, c = s4d_system(p)
    powers = a[..., None] ** np.arange(TIME)
    kernel = 2 * np.einsum("hn,hnl->hl", c * b, powers).real
    ys = np.fft.irfft(np.fft.rfft(kernel, 2 * TIME) * np.fft.rfft(us.T, 2 * TIME), 2 * TIME)[:, :TIME]
    start = 2 * np.einsum("hn,hnl->hl", c * a * (carry[0] + 1j * carry[1]), powers).real
    return None, (ys + start + p["skip"][:, None] * us.T).T


@stepwise
def s6(p, h, x):
    low, b, c = np.split(x @ p["input_kernel"], [2, 2 + 5])
    step = softplus(low @ p["step_kernel"] + p["step_bias"])
    for i in range(FEATURES):
        a = np.exp(-step[i] * np.exp(p["log_decay"][i]))
        h = np.concatenate([h[:i], (a * h[i] + step[i] * b * x[i])[None], h[i + 1 :]])
    return h, h @ c + p["skip"] * x


# Matrix memories, head by head


def head(x, k):
    """The part of a vector that belongs to head k."""
    return np.split(x, HEADS)[k]


def rms_normed(x, scale):
    return x / np.sqrt((x**2).mean() + 1e-5) * scale


def unit(x):
    return x / np.sqrt((x**2).sum() + 1e-6)


@stepwise
def gla(p, carry, x):
    q, k, v, r, low = np.split(x @ p["input_kernel"], np.cumsum([KEYS, KEYS, VALUES, VALUES]))
    alpha = sigmoid(low @ p["decay_kernel"] + p["decay_bias"]) ** (1 / 16)
    states, outputs = [], []
    for n, s in enumerate(carry):
        s = np.diag(head(alpha, n)) @ s + np.outer(head(k, n), head(v, n))
        states.append(s)
        outputs.append(rms_normed(s.T @ head(q, n) / np.sqrt(KEYS // HEADS), p["norm_scale"]))
    return np.stack(states), (np.concatenate(outputs) * silu(r)) @ p["output_kernel"]


def delta_rule(s, q, k, v, beta, alpha):
    """One head: decay, then correct what the key recalls."""
    k, v = unit(silu(k)), silu(v)
    s = alpha * s
    s = s + sigmoid(beta) * np.outer(k, v - s.T @ k)
    return s, s.T @ unit(silu(q)) / np.sqrt(KEYS // HEADS)


@stepwise
def delta_net(p, carry, x):
    q, k, v, beta = np.split(x @ p["input_kernel"], np.cumsum([KEYS, KEYS, VALUES]))
    heads = [delta_rule(s, head(q, n), head(k, n), head(v, n), beta[n], 1) for n, s in enumerate(carry)]
    o = np.concatenate([rms_normed(o, p["norm_scale"]) for _, o in heads])
    return np.stack([s for s, _ in heads]), o @ p["output_kernel"]


@stepwise
def gated_delta_net(p, carry, x):
    q, k, v, r, beta, step = np.split(x @ p["input_kernel"], np.cumsum([KEYS, KEYS, VALUES, VALUES, HEADS]))
    alpha = np.exp(-np.exp(p["log_rate"]) * softplus(step + p["step_bias"]))
    heads = [delta_rule(s, head(q, n), head(k, n), head(v, n), beta[n], alpha[n]) for n, s in enumerate(carry)]
    o = np.concatenate([rms_normed(o, p["norm_scale"]) for _, o in heads])
    return np.stack([s for s, _ in heads]), (o * silu(r)) @ p["output_kernel"]


def mlstm(p, carry, xs):
    """Without the stabiliser, which changes no output: memory and normaliser are exp(m) times what is carried."""
    c, n, m = carry
    memory, normaliser = np.exp(m)[:, None, None] * c, np.exp(m)[:, None] * n
    ys = []
    for x in xs:
        q, k, v, o = np.split(x @ p["input_kernel"] + p["bias"], np.cumsum([KEYS, KEYS, VALUES]))
        i, f = np.split(x @ p["gate_kernel"] + p["gate_bias"], 2)
        outputs = []
        for j in range(HEADS):
            key = head(k, j) / np.sqrt(KEYS // HEADS)
            memory[j] = sigmoid(f[j]) * memory[j] + np.exp(i[j]) * np.outer(key, head(v, j))
            normaliser[j] = sigmoid(f[j]) * normaliser[j] + np.exp(i[j]) * key
            outputs.append(memory[j].T @ head(q, j) / max(abs(normaliser[j] @ head(q, j)), 1))
        ys.append(sigmoid(o) * np.concatenate(outputs))
    return None, np.stack(ys)


def plain(n):
    return n


def window_and_qrnn(reach, **options):
    return rnnx.stack(rnnx.window(reach), rnnx.qrnn(WIDTH, **options, **double))


double = {"param_dtype": jnp.float64}
memories = {"heads": HEADS, "key_width": KEYS, "value_width": VALUES, **double}
EQUATIONS = {
    "min_gru": (min_gru_of(positive), lambda: rnnx.min_gru(WIDTH, **double)),
    "min_gru plain": (min_gru_of(plain), lambda: rnnx.min_gru(WIDTH, activation=plain, **double)),
    "min_gru in log-space": (min_gru_log, lambda: rnnx.min_gru(WIDTH, **double)),
    "min_lstm": (min_lstm_of(positive), lambda: rnnx.min_lstm(WIDTH, **double)),
    "min_lstm plain": (min_lstm_of(plain), lambda: rnnx.min_lstm(WIDTH, activation=plain, **double)),
    "min_lstm in log-space": (min_lstm_log, lambda: rnnx.min_lstm(WIDTH, **double)),
    "qrnn f": (qrnn_of("f", 2), lambda: window_and_qrnn(2, output_gate=False)),
    "qrnn fo": (qrnn_of("fo", 3), lambda: window_and_qrnn(3)),
    "qrnn fi": (qrnn_of("fi", 1), lambda: window_and_qrnn(1, output_gate=False, input_gate=True)),
    "qrnn ifo": (qrnn_of("ifo", 2), lambda: window_and_qrnn(2, input_gate=True)),
    "sru": (sru, lambda: rnnx.sru(WIDTH, **double)),
    "sru of equal widths": (sru, lambda: rnnx.sru(WIDTH, **double)),
    "rg_lru": (rg_lru_of(1), lambda: rnnx.rg_lru(WIDTH, **double)),
    "rg_lru of two heads": (rg_lru_of(2), lambda: rnnx.rg_lru(WIDTH, heads=2, **double)),
    "causal_conv": (causal_conv, lambda: rnnx.causal_conv(FEATURES, **double)),
    "lru": (lru, lambda: rnnx.lru(FEATURES, state=5, **double)),
    "s5": (s5, lambda: rnnx.s5(FEATURES, state=8, blocks=2, **double)),
    "s5 as a convolution": (s5_convolution, lambda: rnnx.s5(FEATURES, state=8, **double)),
    "s4d": (s4d, lambda: rnnx.s4d(FEATURES, state=10, **double)),
    "s4d as a convolution": (s4d_convolution, lambda: rnnx.s4d(FEATURES, state=10, **double)),
    "s6": (s6, lambda: rnnx.s6(FEATURES, state=5, rank=2, **double)),
    "gla": (gla, lambda: rnnx.gla(WIDTH, rank=2, **memories)),
    "delta_net": (delta_net, lambda: rnnx.delta_net(WIDTH, **memories)),
    "gated_delta_net": (gated_delta_net, lambda: rnnx.gated_delta_net(WIDTH, **memories)),
    "mlstm": (mlstm, lambda: rnnx.mlstm(VALUES, heads=HEADS, key_width=KEYS, **double)),
}
WIDE = {"sru of equal widths", "rg_lru", "rg_lru of two heads"}  # of which the input has WIDTH features


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations(name):
    equation, make = EQUATIONS[name]
    layer = make()
    xs = jax.random.normal(jax.random.key(1), (1, TIME, WIDTH if name in WIDE else FEATURES), jnp.float64)
    params = perturbed(layer.init(jax.random.key(0), xs))
    carry = perturbed(layer.initial_carry(params, xs, None))
    if "log-space" in name:
        carry = jnp.abs(carry)  # which is all that has a logarithm
    last, ys = rnnx.unroll(layer, params, xs, carry=carry)
    first, ours = (jax.tree.map(lambda a: np.array(a[0]), tree) for tree in (carry, last))
    with jax.numpy_rank_promotion("allow"):  # in Flax's convolution
        theirs, expected = equation(jax.tree.map(np.asarray, params), first, np.asarray(xs[0]))
    assert ys.dtype == np.float64
    assert_close(ys[0], expected, 1e-10)
    if theirs is not None:
        assert_close(jax.tree.leaves(ours), jax.tree.leaves(theirs), 1e-10)


def test_mlstm_memory():
    """exp(m) c and exp(m) n are what the recurrence without a stabiliser keeps."""
    layer = rnnx.mlstm(1, **double)
    xs = jax.random.normal(jax.random.key(1), (1, TIME, 1), jnp.float64)
    p = perturbed(layer.init(jax.random.key(0), xs))
    (c, n, m), _ = rnnx.unroll(layer, p, xs)
    memory = normaliser = 0.0
    for x in np.asarray(xs[0]):
        _, k, v, _ = x @ p["input_kernel"] + p["bias"]
        i, f = x @ p["gate_kernel"] + p["gate_bias"]
        memory = sigmoid(f) * memory + np.exp(i) * k * v
        normaliser = sigmoid(f) * normaliser + np.exp(i) * k
    assert_close((np.exp(m) * c[..., 0, 0], np.exp(m) * n[..., 0]), (memory[None, None], normaliser[None, None]), 1e-10)


def test_s5_spectrum():
    """The kept eigenvectors and their conjugates give back the normal part of HiPPO-LegS, written out here."""
    n = np.arange(8)
    root = np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) / 2
    normal = np.triu(root, 1) - np.tril(root, -1) - np.eye(8) / 2
    rate, basis = _hippo_normal(8)
    assert_close(2 * (basis * rate @ basis.conj().T).real, normal, 1e-12)
    assert_close(basis.conj().T @ basis, np.eye(4), 1e-12)
    xs = jnp.zeros((1, 1, FEATURES))
    params = rnnx.s5(FEATURES, state=16, blocks=2, **double).init(jax.random.key(0), xs)
    assert_close(params["rate_re"] + 1j * params["rate_im"], np.tile(rate, 2), 1e-12)


def test_initial_values():
    """Where the authors begin: the ranges of decays and steps, and the spread of what is drawn."""
    many = 256

    def params_of(make, **options):
        with jax.enable_x64(False):
            params = jax.jit(make(many, **options).init)(jax.random.key(0), jnp.zeros((1, 1, many)))
        return jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def spread(x, low, high):
        """Within the two, and evenly between them."""
        assert low <= x.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < x.max() <= high
        assert abs(x.mean() - (low + high) / 2) < 0.05 * (high - low)

    def deviates(x, deviation):
        assert abs(x.mean()) < 0.2 * deviation
        assert abs(x.std() / deviation - 1) < 0.1

    logs = np.log(0.001), np.log(0.1)
    p = params_of(rnnx.lru, r_min=0.4, r_max=0.9)
    size = np.exp(-np.exp(p["nu"]))
    spread(size**2, 0.4**2, 0.9**2)
    spread(np.exp(p["theta"]), 0, 2 * np.pi)
    assert_close(np.exp(p["log_gamma"]), np.sqrt(1 - size**2), 1e-6)
    deviates(p["input_kernel_im"], (2 * many) ** -0.5)
    deviates(p["output_kernel_im"], many**-0.5)
    deviates(p["skip"], 1)

    p = params_of(rnnx.s5)
    deviates(p["input_kernel_re"], (2 * many) ** -0.5)  # each part has half of the variance of a real (H, P) kernel
    deviates(p["output_kernel_im"], 64**-0.5)
    p = params_of(rnnx.s5, state=many)
    spread(p["log_step"], *logs)

    p = params_of(rnnx.s4d, state=8)
    spread(p["log_step"], *logs)
    assert_close(-np.exp(p["log_decay"][3]) + 1j * p["frequency"][3], -0.5 + 1j * np.pi * np.arange(4), 1e-6)
    deviates(p["output_kernel_re"], 0.5**0.5)

    p = params_of(rnnx.s6)
    spread(np.log(softplus(p["step_bias"])), *logs)
    spread(p["step_kernel"], -(16**-0.5), 16**-0.5)
    assert_close(np.exp(p["log_decay"][5]), np.arange(1.0, 17), 1e-6)

    p = params_of(rnnx.rg_lru)
    spread(np.exp(-8 * softplus(p["rate"])) ** 2, 0.9**2, 0.999**2)
    deviates(p["gate_kernel"], many**-0.5)

    p = params_of(rnnx.gated_delta_net, heads=many)
    spread(np.exp(p["log_rate"]), 0, 16)
    spread(np.log(softplus(p["step_bias"])), *logs)

    p = params_of(rnnx.mlstm, heads=4)
    assert_close(p["gate_bias"][4:], np.array([3.0, 4.0, 5.0, 6.0]), 1e-6)
    assert not p["gate_kernel"].any()
