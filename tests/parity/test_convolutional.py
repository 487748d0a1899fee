"""ConvLSTM and ConvGRU against Flax, Haiku, Keras and a NumPy transcription, in 1, 2 and 3 spatial dimensions."""

import itertools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.cells.conv_gru import conv_gru
from rnnx.cells.conv_lstm import ConvLSTMCarry, conv_lstm
from rnnx.testing import assert_close, perturbed, weighted_sum

BATCH, TIME, CHANNELS, WIDTH = 2, 4, 2, 3
SPACE, KERNEL = (5, 4, 3), (3, 2, 3)
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def correlated(x, kernel, stride=1, padding="SAME"):
    """Every output as the sum of one patch of x times the kernel, in loops over the places."""
    size = np.array(kernel.shape[:-2])
    space = np.array(x.shape[:-1])
    if padding == "SAME":
        after = -(-space // stride)
        total = np.maximum((after - 1) * stride + size - space, 0)
        x = np.pad(x, [*((t // 2, t - t // 2) for t in total), (0, 0)])
    else:
        after = (space - size) // stride + 1
    y = np.zeros((*after, kernel.shape[-1]))
    for place in itertools.product(*map(range, after)):
        patch = x[tuple(slice(p * stride, p * stride + s) for p, s in zip(place, size))]
        y[place] = np.tensordot(patch, kernel, axes=patch.ndim)
    return y


def split(p, n):
    kernels = (np.split(p[name], n, axis=-1) for name in ("input_kernel", "recurrent_kernel"))
    return list(zip(*kernels, np.split(p["bias"], n)))


def conv_lstm_equations(p, state, x, options):
    h, c = state
    input_gate, forget_gate, candidate, output_gate = split(p, 4)

    def seen(gate):
        w, r, b = gate
        return correlated(x, w, **options) + correlated(h, r) + b

    w_ci, w_cf, w_co = np.split(p["peephole_kernel"], 3, axis=-1) if "peephole_kernel" in p else (0, 0, 0)
    i = sigmoid(seen(input_gate) + w_ci * c)
    f = sigmoid(seen(forget_gate) + w_cf * c)
    c = f * c + i * np.tanh(seen(candidate))
    o = sigmoid(seen(output_gate) + w_co * c)
    return (o * np.tanh(c), c), o * np.tanh(c)


def conv_gru_equations(p, state, x, options):
    (h,) = state
    (w_r, r_r, b_r), (w_z, r_z, b_z), (w_n, r_n, b_n) = split(p, 3)
    r = sigmoid(correlated(x, w_r, **options) + correlated(h, r_r) + b_r)
    z = sigmoid(correlated(x, w_z, **options) + correlated(h, r_z) + b_z)
    if "recurrent_bias" in p:
        n = np.tanh(correlated(x, w_n, **options) + b_n + r * (correlated(h, r_n) + p["recurrent_bias"]))
    else:
        n = np.tanh(correlated(x, w_n, **options) + b_n + correlated(r * h, r_n))
    h = z * h + (1 - z) * n
    return (h,), h


EQUATIONS = {
    "conv_lstm": (conv_lstm, {}, conv_lstm_equations),
    "conv_lstm peephole": (conv_lstm, {"peephole": True}, conv_lstm_equations),
    "conv_gru": (conv_gru, {}, conv_gru_equations),
    "conv_gru reset after": (conv_gru, {"reset_after": True}, conv_gru_equations),
}


@pytest.mark.parametrize(
    ("rank", "stride", "padding"), [(1, 2, "SAME"), (2, 1, "SAME"), (2, 2, "SAME"), (2, 2, "VALID"), (3, 2, "SAME")]
)
@pytest.mark.parametrize("kind", EQUATIONS)
def test_equations(kind, rank, stride, padding):
    make, options, equations = EQUATIONS[kind]
    with jax.enable_x64(True):
        cell = make(
            WIDTH, kernel_size=KERNEL[:rank], strides=stride, padding=padding, param_dtype=jnp.float64, **options
        )
        layer = rnnx.scan(cell)
        xs = jax.random.normal(jax.random.key(1), (1, TIME, *SPACE[:rank], CHANNELS), jnp.float64)
        params = perturbed(jax.jit(layer.init)(jax.random.key(0), xs))
        before = perturbed(layer.initial_carry(params, xs, None))
        after, ys = rnnx.unroll(layer, params, xs, carry=before)
        transcribed = jax.tree.map(np.asarray, params)
        state, expected = tuple(np.asarray(leaf[0]) for leaf in jax.tree.leaves(before)), []
        for x in np.asarray(xs[0]):
            state, y = equations(transcribed, state, x, {"stride": stride, "padding": padding})
            expected.append(y)
        assert ys.dtype == np.float64
        assert_close((ys[0], *(leaf[0] for leaf in jax.tree.leaves(after))), (np.stack(expected), *state), 1e-10)


def compared(layer, params, theirs, variables, convert, rank, dtype=jnp.float32, tolerance=2e-5, x_shape=None):
    """Outputs, final (h, c) and gradients by params and inputs; `theirs` is `(variables, xs) -> ((h, c), ys)`."""
    xs = jax.random.normal(jax.random.key(1), (BATCH, TIME, *SPACE[:rank], CHANNELS), dtype)

    def score(run):
        def scored(params, xs):
            (h, c), ys = run(params, xs)
            return weighted_sum((h, c, ys)), (h, c, ys)

        return jax.jit(jax.grad(scored, argnums=(0, 1), has_aux=True))

    (by_params, by_xs), values = score(lambda p, xs: rnnx.unroll(layer, p, xs))(params, xs)
    (by_variables, expected_by_xs), expected = score(theirs)(variables, xs)
    assert_close((values, by_xs), (expected, expected_by_xs), tolerance)
    assert_close(by_params, convert(by_variables), tolerance)


def exchanged(gates):
    """From the gates i, g, f, o to i, f, g, o."""
    i, g, f, o = jnp.split(gates, 4, axis=-1)
    return jnp.concatenate([i, f, g, o], axis=-1)


def with_one(bias):
    """Flax and Haiku add 1 to f at run time; here it is part of the bias."""
    return bias.at[WIDTH : 2 * WIDTH].add(1)


@RANKS
@pytest.mark.parametrize("padding", ["SAME", [(2, 0), (0, 1), (1, 1)]], ids=["same", "pairs"])
def test_flax(rank, padding):
    size = KERNEL[:rank]
    padding = padding if padding == "SAME" else [(s - 1 - s // 2, s // 2) for s in size]
    rnn = nn.RNN(nn.ConvLSTMCell(WIDTH, size, padding=padding), return_carry=True)
    xs = jnp.zeros((BATCH, TIME, *SPACE[:rank], CHANNELS))
    variables = perturbed(jax.jit(rnn.init)(jax.random.key(0), xs))

    def convert(variables):
        p = variables["params"]["cell"]
        return {
            "input_kernel": exchanged(p["ih"]["kernel"]),
            "recurrent_kernel": exchanged(p["hh"]["kernel"]),
            "bias": exchanged(p["ih"]["bias"]),  # the one within the convolution of h has the same gradient
        }

    def theirs(variables, xs):
        (c, h), ys = rnn.apply(variables, xs)
        return (h, c), ys

    params = convert(variables)
    params["bias"] = with_one(params["bias"] + exchanged(variables["params"]["cell"]["hh"]["bias"]))
    compared(rnnx.scan(conv_lstm(WIDTH, kernel_size=size, padding=padding)), params, theirs, variables, convert, rank)


@RANKS
def test_haiku(rank):
    hk = pytest.importorskip("haiku")
    made = {1: hk.Conv1DLSTM, 2: hk.Conv2DLSTM, 3: hk.Conv3DLSTM}[rank]

    @hk.without_apply_rng
    @hk.transform
    def run(xs):
        core = made(SPACE[:rank], WIDTH, KERNEL[:rank], name="core")
        ys, state = hk.dynamic_unroll(core, xs, core.initial_state(BATCH), time_major=False)
        return (state.hidden, state.cell), ys

    variables = perturbed(run.init(jax.random.key(0), jnp.zeros((BATCH, TIME, *SPACE[:rank], CHANNELS))))

    def convert(variables):
        ours = {"input_kernel": ("input_to_hidden", "w"), "recurrent_kernel": ("hidden_to_hidden", "w")}
        ours["bias"] = ("input_to_hidden", "b")
        return {
            name: exchanged(variables[f"core/~/{m}" if f"core/~/{m}" in variables else f"core/{m}"][leaf])
            for name, (m, leaf) in ours.items()
        }

    params = convert(variables)
    hidden = next(value["b"] for name, value in variables.items() if name.endswith("hidden_to_hidden"))
    params["bias"] = with_one(params["bias"] + exchanged(hidden))
    compared(rnnx.scan(conv_lstm(WIDTH, kernel_size=KERNEL[:rank])), params, run.apply, variables, convert, rank)


@RANKS
@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (1, "valid")])
def test_keras(rank, strides, padding):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    made = {1: keras.layers.ConvLSTM1D, 2: keras.layers.ConvLSTM2D, 3: keras.layers.ConvLSTM3D}[rank]
    size = KERNEL[:rank]
    theirs = made(WIDTH, size, strides, padding, return_sequences=True, return_state=True)
    with jax.numpy_rank_promotion("allow"):  # its initialisers need that
        theirs.build((BATCH, TIME, *SPACE[:rank], CHANNELS))
    variables = perturbed([v.value for v in theirs.trainable_variables])

    def run(variables, xs):
        (ys, h, c), _ = theirs.stateless_call(variables, theirs.non_trainable_variables, xs)
        return (h, c), ys

    def convert(variables):
        return dict(zip(("input_kernel", "recurrent_kernel", "bias"), variables, strict=True))

    layer = rnnx.scan(conv_lstm(WIDTH, kernel_size=size, strides=strides, padding=padding.upper()))
    compared(layer, convert(variables), run, variables, convert, rank)


def test_each_gate_is_initialised_by_itself():
    """Orthogonal over taps and channels, for each gate; LeCun's variance is that of what one output reads."""
    params = conv_lstm(16).init(jax.random.key(0), jax.ShapeDtypeStruct((5, 5, 8), jnp.float32))
    for block in np.split(np.asarray(params["recurrent_kernel"]), 4, axis=-1):
        flat = block.reshape(-1, 16)
        np.testing.assert_allclose(flat.T @ flat, np.eye(16), atol=1e-5)
    np.testing.assert_allclose(np.asarray(params["input_kernel"]).std(), (9 * 8) ** -0.5, rtol=0.05)
    np.testing.assert_array_equal(params["bias"], np.repeat([0, 1, 0, 0], 16))


def test_a_batch_is_one_convolution():
    cell = conv_lstm(WIDTH)
    xs = jnp.zeros((BATCH, 5, 4, CHANNELS))
    params = cell.init(jax.random.key(0), xs[0])
    carry = ConvLSTMCarry(*[jnp.zeros((BATCH, 5, 4, WIDTH))] * 2)

    def steps(carry, xs):
        return jax.vmap(lambda carry, x: cell.step(params, carry, cell.project(params, x, None)))(carry, xs)

    lines = [line for line in str(jax.make_jaxpr(steps)(carry, xs)).splitlines() if "conv_general_dilated[" in line]
    assert [line.split("=")[0].split(":")[1].strip() for line in lines] == [f"f32[{BATCH},5,4,{4 * WIDTH}]"] * 2


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (8,), r"got float32\[8\] for one step"),
        ({"kernel_size": (3, 3)}, (8, 2), r"kernel_size \(3, 3\) is for 2 spatial dimensions, but the inputs have 1"),
        ({"strides": (2,)}, (8, 8, 2), r"strides \(2,\) is for 1 spatial dimensions, but the inputs have 2"),
        ({"kernel_size": 9, "padding": "VALID"}, (8, 8, 2), "nothing is left"),
    ],
)
@pytest.mark.parametrize("make", [conv_lstm, conv_gru])
def test_errors(make, options, shape, message):
    with pytest.raises(ValueError, match=message):
        make(WIDTH, **options).init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    with pytest.raises(ValueError, match="kernel_size is 0"):
        make(WIDTH, kernel_size=0)
