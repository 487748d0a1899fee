"""Against the cells of Flax, Haiku, Equinox, Keras and torch, and the authors' xlstm: those that are installed.

Both sides get the same random weights and biases, in the peer's layout. `convert` makes them ours inside of what
is differentiated, so that gradients are compared by the peer's own weights. In float64, but for Keras.
"""

import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close

BATCH, TIME, FEATURES, WIDTH = 3, 8, 3, 4


def random_like(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda shape: 0.5 * rng.normal(size=shape), shapes, is_leaf=lambda x: isinstance(x, tuple))


def inputs():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def score(ys, states):
    return (ys**2).sum() + sum((s**3).sum() for s in states)


def results(run, weights):
    """Of `run(weights, xs) -> (states, ys)` in JAX: gradients by weights and inputs, and values."""

    def loss(weights, xs):
        states, ys = run(weights, xs)
        states = tuple(jax.tree.leaves(states))
        return score(ys, states), (states, ys)

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(weights, inputs())


def torch_results(torch, run, weights):
    """The same for a `run` in torch."""
    leaves = [torch.tensor(w, requires_grad=True) for w in (*weights.values(), inputs())]
    states, ys = run(dict(zip(weights, leaves)), leaves[-1])
    score(ys, states).backward()
    *gradients, by_xs = (leaf.grad.numpy() for leaf in leaves)
    return (dict(zip(weights, gradients)), by_xs), (tuple(s.detach().numpy() for s in states), ys.detach().numpy())


def ours(layer, convert):
    return lambda weights, xs: rnnx.unroll(layer, convert(weights), xs)


def agree(layer, convert, theirs, weights, tolerance=1e-10):
    with jax.numpy_rank_promotion("allow"):
        expected = results(theirs, weights)
    assert_close(results(ours(layer, convert), weights), expected, tolerance)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def gates(kernel, order):
    """The gates' blocks, the last axis cut into as many, in another order."""
    blocks = jnp.split(kernel, len(order), axis=-1)
    return jnp.concatenate([blocks[k] for k in order], axis=-1)


# Flax


def test_flax_mgu():
    def convert(w):
        return {
            "input_kernel": jnp.concatenate([w["if"]["kernel"], w["in"]["kernel"]], axis=1),
            "recurrent_kernel": jnp.concatenate([w["hf"]["kernel"], w["hn"]["kernel"]], axis=1),
            "bias": jnp.concatenate([w["if"]["bias"], w["in"]["bias"]]),
            "recurrent_bias": w["hn"]["bias"],
        }

    rnn = nn.RNN(nn.MGUCell(WIDTH, param_dtype=jnp.float64), return_carry=True)
    shapes = jax.eval_shape(rnn.init, jax.random.key(0), inputs())["params"]["cell"]
    weights = random_like(jax.tree.map(lambda s: s.shape, shapes))
    agree(rnnx.mgu(WIDTH, reset_after=True), convert, lambda w, xs: rnn.apply({"params": {"cell": w}}, xs), weights)


# Haiku


def haiku_elman(w):
    i, h = w["vanilla_rnn/linear"], w["vanilla_rnn/linear_1"]
    return {"input_kernel": i["w"], "recurrent_kernel": h["w"], "bias": i["b"] + h["b"]}


def haiku_lstm(w):
    """Its gates come as i, g, f, o, and f gets 1 more at run time."""
    (linear,) = w.values()
    kernel, bias = gates(linear["w"], (0, 2, 1, 3)), gates(linear["b"], (0, 2, 1, 3))
    return {
        "input_kernel": kernel[:FEATURES],
        "recurrent_kernel": kernel[FEATURES:],
        "bias": bias.at[WIDTH : 2 * WIDTH].add(1.0),
    }


def haiku_gru(w):
    """Its gates come as z, r, n, and z lets in what is new: the sign of what goes into z changes."""
    (w,) = w.values()
    sign = jnp.repeat(jnp.array([1.0, -1.0, 1.0]), WIDTH)
    kernels = {"input_kernel": w["w_i"], "recurrent_kernel": w["w_h"], "bias": w["b"]}
    return {name: gates(v, (1, 0, 2)) * (sign if v.ndim == 1 else sign[None]) for name, v in kernels.items()}


HAIKU = {
    "elman": ("VanillaRNN", lambda: rnnx.elman(WIDTH, activation=jax.nn.relu), haiku_elman),
    "lstm": ("LSTM", lambda: rnnx.lstm(WIDTH), haiku_lstm),
    "gru": ("GRU", lambda: rnnx.gru(WIDTH, reset_after=False), haiku_gru),
}


@pytest.mark.parametrize("kind", HAIKU)
def test_haiku(kind):
    hk = pytest.importorskip("haiku")
    name, make, convert = HAIKU[kind]

    @hk.without_apply_rng
    @hk.transform
    def net(xs):
        core = getattr(hk, name)(WIDTH)
        ys, state = hk.dynamic_unroll(core, xs, core.initial_state(BATCH), time_major=False)
        return state, ys

    weights = random_like(jax.tree.map(lambda s: s.shape, jax.eval_shape(net.init, jax.random.key(0), inputs())))
    agree(make(), convert, net.apply, weights)


# Equinox


def transposed(w):
    """Two kernels as (out, in) and one bias, the gates in our order: Equinox, and torch and torchrecurrent."""
    return {"input_kernel": w["weight_ih"].T, "recurrent_kernel": w["weight_hh"].T, "bias": w["bias"]}


EQUINOX = {
    "lstm": ("LSTMCell", lambda: rnnx.lstm(WIDTH), transposed),
    "gru": ("GRUCell", lambda: rnnx.gru(WIDTH), lambda w: {**transposed(w), "recurrent_bias": w["bias_n"]}),
}


@pytest.mark.parametrize("kind", EQUINOX)
def test_equinox(kind):
    eqx = pytest.importorskip("equinox")
    name, make, convert = EQUINOX[kind]
    cell = getattr(eqx.nn, name)(FEATURES, WIDTH, key=jax.random.key(0))
    names = [n for n in ("weight_ih", "weight_hh", "bias", "bias_n") if hasattr(cell, n)]
    weights = random_like({n: getattr(cell, n).shape for n in names})

    def theirs(weights, xs):
        filled = eqx.tree_at(lambda c: [getattr(c, n) for n in names], cell, [weights[n] for n in names])

        def step(state, x):
            state = filled(x, state)
            return state, state[0] if kind == "lstm" else state

        zero = jnp.zeros(WIDTH)
        return jax.vmap(lambda x: jax.lax.scan(step, (zero, zero) if kind == "lstm" else zero, x))(xs)

    agree(make(), convert, theirs, weights)


# Keras


def keras_params(w, order=(0, 1, 2, 3)):
    return {name: gates(v, order) for name, v in zip(("input_kernel", "recurrent_kernel", "bias"), w)}


def keras_gru_after(w):
    """Two biases: those of r and z are summed, that of n within the reset is apart."""
    kernel, recurrent_kernel, (bias, inner) = w
    r_z, n = jnp.split(gates(inner, (1, 0, 2)), [2 * WIDTH])
    params = keras_params((kernel, recurrent_kernel, bias), (1, 0, 2))
    return {**params, "bias": params["bias"] + jnp.concatenate([r_z, jnp.zeros(WIDTH)]), "recurrent_bias": n}


KERAS = {
    "elman": ("SimpleRNN", {}, lambda: rnnx.elman(WIDTH), lambda w: keras_params(w, (0,))),
    "lstm": ("LSTM", {}, lambda: rnnx.lstm(WIDTH), keras_params),
    "gru reset after": ("GRU", {"reset_after": True}, lambda: rnnx.gru(WIDTH), keras_gru_after),
    "gru reset before": (
        "GRU",
        {"reset_after": False},
        lambda: rnnx.gru(WIDTH, reset_after=False),
        lambda w: keras_params(w, (1, 0, 2)),
    ),
}


@pytest.mark.parametrize("kind", KERAS)
def test_keras(kind):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    assert keras.backend.backend() == "jax"
    name, options, make, convert = KERAS[kind]
    rnn = getattr(keras.layers, name)(WIDTH, return_sequences=True, return_state=True, **options)
    with jax.numpy_rank_promotion("allow"):
        rnn.build((BATCH, TIME, FEATURES))

    def theirs(weights, xs):
        (ys, *states), _ = rnn.stateless_call(weights, rnn.non_trainable_variables, xs)
        return states, ys

    with jax.enable_x64(False):  # its initial states are float32
        agree(make(), convert, theirs, random_like([tuple(v.shape) for v in rnn.trainable_variables]), 2e-5)


# torch: cells of the package torchrecurrent, torch's own Cayley map, and the authors' sLSTM


def torchrecurrent_params(w):
    return transposed({**w, "bias": w["bias_ih"] + w["bias_hh"]})


def ugrnn_params(w):
    """The candidate comes first."""
    return {name: gates(v, (1, 0)) for name, v in torchrecurrent_params(w).items()}


def indrnn_params(w):
    bias = w["bias_ih"] + w["bias_hh"]
    return {"input_kernel": w["weight_ih"].T, "recurrent_kernel": w["vector_u"], "bias": bias}


def cornn_params(w):
    return {
        "input_kernel": w["weight_ih"].T,
        "recurrent_kernel": jnp.concatenate([w["weight_hh"].T, w["weight_ch"].T]),
        "bias": w["bias_ih"] + w["bias_hh"] + w["bias_ch"],
    }


OSCILLATORS = {"dt": 0.1, "gamma": 2.0, "epsilon": 3.0}
TORCHRECURRENT = {
    "mgu": ("MGU", {}, lambda: rnnx.mgu(WIDTH), torchrecurrent_params),
    "ugrnn": ("UGRNN", {}, lambda: rnnx.ugrnn(WIDTH), ugrnn_params),
    "janet": ("JANET", {"beta": 0.7}, lambda: rnnx.janet(WIDTH, beta=0.7), torchrecurrent_params),
    "indrnn": ("IndRNN", {"nonlinearity": "relu"}, lambda: rnnx.indrnn(WIDTH), indrnn_params),
    "cornn": ("coRNN", OSCILLATORS, lambda: rnnx.cornn(WIDTH, **OSCILLATORS), cornn_params),
}


@pytest.mark.parametrize("kind", TORCHRECURRENT)
def test_torchrecurrent(kind):
    torch = pytest.importorskip("torch")
    peers = pytest.importorskip("torchrecurrent")
    name, options, make, convert = TORCHRECURRENT[kind]
    rnn = getattr(peers, name)(FEATURES, WIDTH, batch_first=True, **options).double()
    shapes = {n.removeprefix("cells.0."): tuple(p.shape) for n, p in rnn.named_parameters()}
    shapes.pop("beta", None)  # JANET's, learned there, set by its option here

    if "beta" in options:
        torch.nn.init.constant_(rnn.cells[0].beta, options["beta"])

    def theirs(weights, xs):
        named = {f"cells.0.{n}": w for n, w in weights.items()}
        ys, state = torch.func.functional_call(rnn, named, (xs,))
        states = state[:1] if kind == "janet" else state if isinstance(state, tuple) else (state,)
        return tuple(s[0] for s in states), ys

    weights = random_like(shapes)
    assert_close(results(ours(make(), convert), weights), torch_results(torch, theirs, weights), 1e-10)


def test_rhn():
    """Each layer in a step of an RHN is a UGRNN step with the gate the other way about; only the first reads x."""
    torch = pytest.importorskip("torch")
    peers = pytest.importorskip("torchrecurrent")
    depth = 3
    sizes = [FEATURES, *[WIDTH] * (depth - 1)]
    cells = [peers.UGRNNCell(size, WIDTH).double() for size in sizes]
    shapes = {f"{k}.{n}": tuple(p.shape) for k, cell in enumerate(cells) for n, p in cell.named_parameters()}

    def convert(w):
        sign = jnp.repeat(jnp.array([1.0, -1.0]), WIDTH)  # of the gate; the candidate comes first in both
        recurrent = [w[f"{k}.weight_hh"].T * sign[None] for k in range(depth)]
        return {
            "input_kernel": w["0.weight_ih"].T * sign[None],
            "recurrent_kernel": jnp.stack(recurrent),
            "bias": jnp.stack([(w[f"{k}.bias_ih"] + w[f"{k}.bias_hh"]) * sign for k in range(depth)]),
        }

    def theirs(weights, xs):
        h, ys = xs.new_zeros(BATCH, WIDTH), []
        for x in xs.unbind(1):
            for k, cell in enumerate(cells):
                named = {n.removeprefix(f"{k}."): w for n, w in weights.items() if n.startswith(f"{k}.")}
                h = torch.func.functional_call(cell, named, (x if k == 0 else torch.zeros_like(h), h))
            ys.append(h)
        return (h,), torch.stack(ys, 1)

    weights = random_like(shapes)
    layer = rnnx.rhn(WIDTH, depth=depth)
    assert_close(results(ours(layer, convert), weights), torch_results(torch, theirs, weights), 1e-10)


def test_orthogonal():
    """torch has the Cayley map as (I - A/2)^-1 (I + A/2)."""
    torch = pytest.importorskip("torch")
    linear = torch.nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64)
    torch.nn.utils.parametrizations.orthogonal(linear, orthogonal_map="cayley", use_trivialization=False)
    ((name, _),) = linear.named_parameters()

    def convert(w):
        return {"input_kernel": w["input"], "skew": -w["lower"] / 2, "bias": w["bias"]}

    def theirs(weights, xs):
        h, ys = xs.new_zeros(BATCH, WIDTH), []
        for x in xs.unbind(1):
            v = x @ weights["input"] + torch.func.functional_call(linear, {name: weights["lower"]}, (h,))
            h = v.sign() * torch.relu(v.abs() + weights["bias"])
            ys.append(h)
        return (h,), torch.stack(ys, 1)

    weights = random_like({"input": (FEATURES, WIDTH), "lower": (WIDTH, WIDTH), "bias": (WIDTH,)})
    assert_close(results(ours(rnnx.orthogonal(WIDTH), convert), weights), torch_results(torch, theirs, weights), 1e-10)


@pytest.mark.parametrize("heads", [1, 2])
def test_slstm(heads):
    """The authors' plain torch backend, all four states compared."""
    torch = pytest.importorskip("torch")
    vanilla = pytest.importorskip("xlstm.blocks.slstm.src.vanilla")
    size = WIDTH // heads

    def convert(w):
        return {**w, "recurrent_kernel": jnp.swapaxes(w["recurrent_kernel"], 1, 2)}

    def theirs(weights, xs):
        gates = (xs @ weights["input_kernel"]).transpose(0, 1)
        pointwise = vanilla.slstm_pointwise_function_registry["slstm"]
        states = xs.new_zeros(4, BATCH, WIDTH)
        recurrent = weights["recurrent_kernel"], weights["bias"]
        every, last, _ = vanilla.slstm_forward(gates, states, *recurrent, pointwise)
        return tuple(last), every[0, 1:].transpose(0, 1)

    shapes = {
        "input_kernel": (FEATURES, 4 * WIDTH),
        "recurrent_kernel": (heads, 4 * size, size),
        "bias": (4 * WIDTH,),
    }
    weights = random_like(shapes)
    layer = rnnx.slstm(WIDTH, heads=heads)
    assert_close(results(ours(layer, convert), weights), torch_results(torch, theirs, weights), 1e-10)
