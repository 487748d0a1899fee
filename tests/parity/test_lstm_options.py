"""The LSTM's options: projection against torch; all of them, alone and together, against the papers' equations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.cells._kernels import scaled_identity
from rnnx.cells.lstm import lstm
from rnnx.testing import assert_close, perturbed

BATCH, TIME, FEATURES, WIDTH, PROJECTION = 4, 11, 3, 5, 2
OPTIONS = ("peephole", "coupled", "layer_norm", "projection")


def made(options, **more):
    given = {name: PROJECTION if name == "projection" else True for name in options}
    return rnnx.scan(lstm(WIDTH, **given, **more))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalized(x, gain):
    return gain * (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-5)


def transcribed(p, options, xs):
    """One sequence by the papers, gate by gate: outputs, final h and c."""
    names = "fgo" if "coupled" in options else "ifgo"
    w, r, b = (
        dict(zip(names, np.split(p[name], len(names), axis=-1)))
        for name in ("input_kernel", "recurrent_kernel", "bias")
    )
    h, c = np.zeros(p["recurrent_kernel"].shape[0]), np.zeros(WIDTH)
    ys = []
    for x in xs:
        from_x, from_h = {k: x @ w[k] for k in names}, {k: h @ r[k] for k in names}
        if "layer_norm" in options:
            joined_x = normalized(np.concatenate([from_x[k] for k in names]), p["input_gain"])
            joined_h = normalized(np.concatenate([from_h[k] for k in names]), p["recurrent_gain"])
            from_x, from_h = (dict(zip(names, np.split(u, len(names)))) for u in (joined_x, joined_h))
        u = {k: from_x[k] + from_h[k] + b[k] for k in names}
        if "peephole" in options:
            peep = dict(zip("fo" if "coupled" in options else "ifo", p["peephole"]))
            u["f"] = u["f"] + peep["f"] * c
            if "coupled" not in options:
                u["i"] = u["i"] + peep["i"] * c
        forget = sigmoid(u["f"])
        take = 1 - forget if "coupled" in options else sigmoid(u["i"])
        c = forget * c + take * np.tanh(u["g"])
        if "peephole" in options:
            u["o"] = u["o"] + peep["o"] * c
        seen = normalized(c, p["memory_gain"]) + p["memory_bias"] if "layer_norm" in options else c
        h = sigmoid(u["o"]) * np.tanh(seen)
        if "projection" in options:
            h = h @ p["projection_kernel"]
        ys.append(h)
    return np.stack(ys), h, c


COMBINATIONS = [c for n in range(len(OPTIONS) + 1) for c in itertools.combinations(OPTIONS, n)]


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: " ".join(options) or "plain")
def test_equations(options):
    with jax.enable_x64(True):
        layer = made(options, param_dtype=jnp.float64)
        xs = jax.random.normal(jax.random.key(1), (1, TIME, FEATURES), jnp.float64)
        params = perturbed(layer.init(jax.random.key(0), xs))
        carry, ys = rnnx.unroll(layer, params, xs)
        expected = transcribed(jax.tree.map(np.asarray, params), options, np.asarray(xs[0]))
        assert_close((ys[0], carry.h[0], carry.c[0]), expected, 1e-10)


def test_without_options_the_params_are_those_of_the_plain_lstm():
    xs = jnp.ones((2, TIME, FEATURES))
    plain = made(()).init(jax.random.key(0), xs)
    assert {name: p.shape for name, p in plain.items()} == {
        "input_kernel": (FEATURES, 4 * WIDTH),
        "recurrent_kernel": (WIDTH, 4 * WIDTH),
        "bias": (4 * WIDTH,),
    }
    assert list(plain["bias"]) == [0] * WIDTH + [1] * WIDTH + [0] * 2 * WIDTH


def test_shapes_with_all_options():
    params = made(OPTIONS).init(jax.random.key(0), jnp.ones((2, TIME, FEATURES)))
    assert {name: p.shape for name, p in params.items()} == {
        "input_kernel": (FEATURES, 3 * WIDTH),
        "recurrent_kernel": (PROJECTION, 3 * WIDTH),
        "bias": (3 * WIDTH,),
        "peephole": (2, WIDTH),
        "input_gain": (3 * WIDTH,),
        "recurrent_gain": (3 * WIDTH,),
        "memory_gain": (WIDTH,),
        "memory_bias": (WIDTH,),
        "projection_kernel": (WIDTH, PROJECTION),
    }
    assert list(params["bias"]) == [1] * WIDTH + [0] * 2 * WIDTH


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_layer_norm_where_all_is_zero(dtype):
    """No NaN in values or derivatives where there is nothing to normalise."""
    layer = made(OPTIONS, param_dtype=dtype)
    xs = jnp.zeros((2, TIME, FEATURES), dtype)
    params = jax.tree.map(jnp.zeros_like, layer.init(jax.random.key(0), xs))

    def loss(params):
        return (rnnx.unroll(layer, params, xs)[1].astype(jnp.float32) ** 2).sum()

    second = jax.jvp(jax.grad(loss), (params,), (jax.tree.map(jnp.ones_like, params),))
    assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(second))


def test_a_projection_below_one_is_refused():
    with pytest.raises(ValueError, match="projection is 0"):
        lstm(4, projection=0)


@pytest.mark.parametrize(("kind", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
def test_torch_proj_size(kind, tolerance):
    """Values, both final states, gradients by inputs and by every weight."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(FEATURES, WIDTH, proj_size=PROJECTION, batch_first=True, dtype=getattr(torch, kind))
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    w = {name.removesuffix("_l0"): p for name, p in module.named_parameters()}
    with jax.enable_x64(kind == "float64"):
        params = {
            "input_kernel": w["weight_ih"].detach().numpy().T,
            "recurrent_kernel": w["weight_hh"].detach().numpy().T,
            "bias": (w["bias_ih"] + w["bias_hh"]).detach().numpy(),
            "projection_kernel": w["weight_hr"].detach().numpy().T,
        }
        xs = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(kind)
        layer = made(["projection"], param_dtype=kind)

        def loss(params, xs):
            (h, c), ys = rnnx.unroll(layer, params, xs)
            return (ys**2).sum() + (h**3).sum() + (c**3).sum(), (ys, h, c)

        (by_params, by_xs), values = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)

        theirs = torch.tensor(xs, requires_grad=True)
        ys, (h, c) = module(theirs)
        ((ys**2).sum() + (h**3).sum() + (c**3).sum()).backward()
        assert_close(values, (ys.detach().numpy(), h[0].detach().numpy(), c[0].detach().numpy()), tolerance)
        assert_close(by_xs, theirs.grad.numpy(), tolerance)
        assert_close(by_params["input_kernel"], w["weight_ih"].grad.numpy().T, tolerance)
        assert_close(by_params["recurrent_kernel"], w["weight_hh"].grad.numpy().T, tolerance)
        assert_close(by_params["bias"], w["bias_hh"].grad.numpy(), tolerance)
        assert_close(by_params["projection_kernel"], w["weight_hr"].grad.numpy().T, tolerance)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_identity_initialisation(dtype):
    """An IRNN without inputs keeps its state; the initialiser works for fused gates too."""
    layer = rnnx.elman(WIDTH, activation=jax.nn.relu, recurrent_kernel_init=scaled_identity(), param_dtype=dtype)
    xs = jnp.zeros((2, TIME, FEATURES), dtype)
    params = layer.init(jax.random.key(0), xs)
    start = jnp.arange(2 * WIDTH, dtype=dtype).reshape(2, WIDTH)
    end, _ = rnnx.unroll(layer, params, xs, carry=start)
    assert params["recurrent_kernel"].dtype == dtype
    np.testing.assert_array_equal(end, start)
    gates = rnnx.gru(WIDTH, recurrent_kernel_init=scaled_identity(0.5)).init(jax.random.key(0), xs)
    np.testing.assert_array_equal(gates["recurrent_kernel"], np.tile(0.5 * np.eye(WIDTH, dtype=np.float32), 3))
    with pytest.raises(ValueError, match="makes matrices"):
        scaled_identity()(jax.random.key(0), (3,), jnp.float32)
