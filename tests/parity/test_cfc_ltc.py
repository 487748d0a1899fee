"""CfC and LTC against the authors' package `ncps` (torch), and against NumPy transcriptions, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.cells.cfc import cfc
from rnnx.cells.ltc import ltc
from rnnx.testing import assert_close, eps, perturbed

BATCH, TIME, FEATURES, WIDTH, UNITS = 2, 6, 3, 4, 5
DOUBLE = {"param_dtype": jnp.float64}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def series():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(BATCH, TIME, FEATURES)), "dt": rng.uniform(0.1, 2, size=(BATCH, TIME))}


def cfc_equations(p, h, x, dt, layers, gated):
    u = np.concatenate([x, h]) @ np.concatenate([p["input_kernel"], p["recurrent_kernel"]]) + p["bias"]
    for layer in range(layers - 1):
        u = 1.7159 * np.tanh(0.666 * u) @ p["backbone_kernel"][layer] + p["backbone_bias"][layer]
    if layers:
        u = 1.7159 * np.tanh(0.666 * u) @ p["head_kernel"] + p["head_bias"]
    f, g, alpha, beta = (u[i * WIDTH : (i + 1) * WIDTH] for i in range(4))
    s = sigmoid(alpha * dt + beta)
    return np.tanh(f) * (1 - s if gated else 1) + np.tanh(g) * s


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_cfc_equations(layers, gated):
    with jax.enable_x64(True):
        xs = series()
        layer = rnnx.scan(cfc(WIDTH, gated=gated, backbone_units=UNITS, backbone_layers=layers, **DOUBLE))
        params = perturbed(layer.init(jax.random.key(0), xs))
        carry, ys = rnnx.unroll(layer, params, xs)
        p = jax.tree.map(np.asarray, params)
        for b in range(BATCH):
            h = np.zeros(WIDTH)
            for t in range(TIME):
                h = cfc_equations(p, h, xs["x"][b, t], xs["dt"][b, t], layers, gated)
                assert_close(ys[b, t], h, 1e-10)
            assert_close(carry[b], h, 1e-10)


def softplus(a):
    return np.log1p(np.exp(a))


def ltc_equations(p, v, x, dt, unfolds):
    """Synapse by synapse, in the form that the paper gives: the leak and the conductances over the capacitance."""
    u = p["input_w"] * x + p["input_b"]
    for _ in range(unfolds):
        after = np.zeros(WIDTH)
        for i in range(WIDTH):
            capacitance, leak = softplus(p["cm"][i]), softplus(p["gleak"][i])
            pull, conductance = leak * p["vleak"][i], leak
            for kind, potentials in (("recurrent", v), ("input", u)):
                synapse = p[kind]
                for j, potential in enumerate(potentials):
                    opened = sigmoid(synapse["sigma"][j, i] * (potential - synapse["mu"][j, i]))
                    s = softplus(synapse["w"][j, i]) * opened
                    pull, conductance = pull + s * synapse["erev"][j, i], conductance + s
            delta = dt / unfolds
            after[i] = (v[i] + delta * pull / capacitance) / (1 + delta * conductance / capacitance)
        v = after
    return v, p["output_w"] * v + p["output_b"]


@pytest.mark.parametrize("unfolds", [1, 6])
def test_ltc_equations(unfolds):
    with jax.enable_x64(True):
        xs = series()
        layer = rnnx.scan(ltc(WIDTH, unfolds=unfolds, **DOUBLE))
        params = perturbed(layer.init(jax.random.key(0), xs))
        carry, ys = rnnx.unroll(layer, params, xs)
        p = jax.tree.map(np.asarray, params)
        for b in range(BATCH):
            v = np.zeros(WIDTH)
            for t in range(TIME):
                v, y = ltc_equations(p, v, xs["x"][b, t], xs["dt"][b, t], unfolds)
                assert_close(ys[b, t], y, 1e-10)
            assert_close(carry[b], v, 1e-10)


def run_theirs(module, xs):
    """The outputs, the final state and the gradients of a sum of squares and cubes, by every input."""
    torch = pytest.importorskip("torch")
    x, dt = (torch.tensor(xs[name], requires_grad=True) for name in ("x", "dt"))
    h, ys = torch.zeros(BATCH, WIDTH, dtype=torch.float64), []
    for t in range(TIME):
        y, h = module(x[:, t], h, dt[:, t, None])
        ys.append(y)
    ys = torch.stack(ys, dim=1)
    ((ys**2).sum() + (h**3).sum()).backward()
    return (h.detach().numpy(), ys.detach().numpy()), {"x": x.grad.numpy(), "dt": dt.grad.numpy()}


def run_ours(layer, params, xs):
    def loss(params, xs):
        carry, ys = rnnx.unroll(layer, params, xs)
        return (ys**2).sum() + (carry**3).sum(), (carry, ys)

    (by_params, by_xs), values = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
    return values, by_xs, by_params


def cfc_params(read, layers):
    """Our params from `read(name)`, the array of one of the module's, values or gradients."""

    def transposed(*names):
        kernel = np.concatenate([read(f"{name}.weight").T for name in names], axis=1)
        return kernel, np.concatenate([read(f"{name}.bias") for name in names])

    heads = transposed("ff1", "ff2", "time_a", "time_b")
    kernel, bias = transposed("backbone.0") if layers else heads
    params = {"input_kernel": kernel[:FEATURES], "recurrent_kernel": kernel[FEATURES:], "bias": bias}
    if layers:
        params["head_kernel"], params["head_bias"] = heads
    if layers > 1:
        between = [transposed(f"backbone.{2 * layer}") for layer in range(1, layers)]
        params["backbone_kernel"], params["backbone_bias"] = (np.stack(both) for both in zip(*between))
    return params


def random_double(torch, module):
    torch.manual_seed(0)
    for p in module.double().parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.5)
    return module


@pytest.mark.parametrize("mode", ["default", "no_gate"])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_cfc_of_ncps(layers, mode):
    torch = pytest.importorskip("torch")
    authors = pytest.importorskip("ncps.torch")
    with jax.enable_x64(True):
        module = random_double(
            torch, authors.CfCCell(FEATURES, WIDTH, mode, backbone_units=UNITS, backbone_layers=layers)
        )
        values, by_xs = run_theirs(module, series())
        named = dict(module.named_parameters())
        params = cfc_params(lambda name: named[name].detach().numpy(), layers)
        expected = values, by_xs, cfc_params(lambda name: named[name].grad.numpy(), layers)
        layer = rnnx.scan(cfc(WIDTH, gated=mode == "default", backbone_units=UNITS, backbone_layers=layers, **DOUBLE))
        assert_close(run_ours(layer, params, series()), expected, 1e-12)


def ltc_params(read):
    synapses = {"recurrent": "", "input": "sensory_"}
    params = {
        kind: {n: read(f"{prefix}{n}") for n in ("w", "mu", "sigma", "erev")} for kind, prefix in synapses.items()
    }
    others = ("gleak", "vleak", "cm", "input_w", "input_b", "output_w", "output_b")
    return {**params, **{name: read(name) for name in others}}


@pytest.mark.parametrize("unfolds", [1, 6])
def test_ltc_of_ncps(unfolds):
    torch = pytest.importorskip("torch")
    authors, wirings = pytest.importorskip("ncps.torch"), pytest.importorskip("ncps.wirings")
    with jax.enable_x64(True):
        module = authors.LTCCell(
            wirings.FullyConnected(WIDTH), FEATURES, ode_unfolds=unfolds, epsilon=0, implicit_param_constraints=True
        )
        module = random_double(torch, module)
        values, by_xs = run_theirs(module, series())
        named = dict(module.named_parameters())
        params = ltc_params(lambda name: named[name].detach().numpy())
        expected = values, by_xs, ltc_params(lambda name: named[name].grad.numpy())
        assert_close(run_ours(rnnx.scan(ltc(WIDTH, unfolds=unfolds, **DOUBLE)), params, series()), expected, 1e-12)


def test_ltc_begins_as_in_ncps():
    """The ranges of the first params, and how often a synapse pulls upwards."""
    layer = ltc(100).init(jax.random.key(0), {"x": jnp.zeros(50), "dt": jnp.zeros(())})
    ranges = {"w": (0.001, 1), "mu": (0.3, 0.8), "sigma": (3, 8)}
    for synapses in (layer["recurrent"], layer["input"]):
        for name, (low, high) in ranges.items():
            np.testing.assert_allclose((synapses[name].min(), synapses[name].max()), (low, high), atol=0.01 * high)
        assert set(np.unique(synapses["erev"])) == {-1, 1}
        np.testing.assert_allclose(synapses["erev"].mean(), 1 / 3, atol=0.05)
    for name, (low, high) in {"gleak": (0.001, 1), "vleak": (-0.2, 0.2), "cm": (0.4, 0.6)}.items():
        assert (layer[name] >= low).all()
        assert (layer[name] < high).all()


def test_ltc_without_time():
    """Where no time has passed the potentials stay, with gradients; with much time they settle."""
    layer = rnnx.scan(ltc(WIDTH))
    xs = {"x": jnp.ones((1, 3, FEATURES)), "dt": jnp.zeros((1, 3))}
    params = layer.init(jax.random.key(0), xs)
    start = jax.random.normal(jax.random.key(1), (1, WIDTH))
    still, _ = rnnx.unroll(layer, params, xs, carry=start)
    assert_close(still, start, eps(64))
    gradient = jax.grad(lambda dt: rnnx.unroll(layer, params, {**xs, "dt": dt}, carry=start)[1].sum())(xs["dt"])
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).min() > 0
    settled, ys = rnnx.unroll(layer, params, {**xs, "dt": jnp.full((1, 3), 1e30)}, carry=start)
    assert np.isfinite(ys).all()
    assert np.abs(settled).max() <= 1  # every potential that pulls lies between -1 and 1


@pytest.mark.parametrize("make", [cfc, ltc])
def test_time_may_be_more_precise_than_features(make):
    layer = rnnx.scan(make(WIDTH))
    xs = {"x": jnp.ones((1, 3, FEATURES), jnp.bfloat16), "dt": jnp.full((1, 3), 0.1)}
    carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
    assert carry.dtype == ys.dtype == jnp.float32


@pytest.mark.parametrize("make", [cfc, ltc])
def test_errors(make):
    x, dt = jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    cases = {
        r'got float32\[3\] for one step; .*pass \{"x": xs': x,
        r"a dict of \['x'\]": {"x": x},
        r"dt is one floating number .* float32\[3\]": {"x": x, "dt": x},
        r"dt is one floating number .* int32\[\]": {"x": x, "dt": jax.ShapeDtypeStruct((), jnp.int32)},
        "features per step": {"x": dt, "dt": dt},
    }
    for message, inputs in cases.items():
        with pytest.raises(ValueError, match=message):
            make(WIDTH).init(jax.random.key(0), inputs)
