"""The reservoir against reservoirpy; the LMU and ALIF against NumPy and torch transcriptions of the authors' forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.cells.alif import ALIFCarry, alif, spike
from rnnx.cells.lmu import LMUCarry, legendre_memory, lmu
from rnnx.cells.reservoir import reservoir
from rnnx.testing import assert_close, perturbed, weighted_sum

BATCH, TIME, FEATURES, WIDTH = 3, 12, 3, 5


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# The reservoir.


def cotangent_of(cell, features):
    """(W, b, R) of a reservoir that leaks nothing, read off its projection and its step: arctanh undoes tanh."""
    with jax.enable_x64(True):
        b = np.asarray(cell.project({}, jnp.zeros(features), None))
        w = np.stack([np.asarray(cell.project({}, x, None)) - b for x in jnp.eye(features)])
        size = b.shape[0]
        zero = jnp.zeros(size)
        r = np.stack([np.arctanh(np.asarray(cell.step({}, h, zero)[1])) for h in jnp.eye(size)])
    return w, b, r


def reservoir_states(w, b, r, leak, xs):
    h, hs = np.zeros(len(b)), []
    for x in xs:
        h = (1 - leak) * h + leak * np.tanh(w.T @ x + b + r.T @ h)
        hs.append(h)
    return np.stack(hs)


@pytest.mark.parametrize("leak", [0.3, 1.0])
def test_reservoir(leak):
    options = {"spectral_radius": 0.8, "density": 0.2, "seed": 4}
    w, b, r = cotangent_of(reservoir(20, **options), FEATURES)
    xs = normal(0, BATCH, TIME, FEATURES)
    with jax.enable_x64(True):
        layer = rnnx.scan(reservoir(20, leak=leak, state_dtype=jnp.float64, **options))
        params = layer.init(jax.random.key(0), xs)
        assert params == {}
        carry, ys = rnnx.unroll(layer, params, xs)
    assert_close(ys, np.stack([reservoir_states(w, b, r, leak, row) for row in xs]), 1e-10)
    assert_close(carry, np.asarray(ys[:, -1]), 1e-15)


@pytest.mark.parametrize("leak", [0.3, 1.0])
def test_reservoirpy(leak):
    nodes = pytest.importorskip("reservoirpy.nodes")
    w, b, r = cotangent_of(reservoir(20), FEATURES)
    xs = normal(0, TIME, FEATURES)
    theirs = nodes.Reservoir(W=r.T, Win=w.T, bias=b, lr=leak).run(xs)
    with jax.enable_x64(True):
        layer = rnnx.scan(reservoir(20, leak=leak, state_dtype=jnp.float64))
        ys = rnnx.unroll(layer, {}, xs[None])[1]
    assert_close(ys[0], theirs, 1e-10)


@pytest.mark.parametrize(("width", "density"), [(1, 0.1), (4, 0.1), (50, 0.1), (50, 1.0)])
def test_reservoir_weights(width, density):
    """What the options ask for, from the seed alone."""
    options = {"density": density, "spectral_radius": 0.7, "input_scale": 0.5, "bias_scale": 0.2}
    w, b, r = cotangent_of(reservoir(width, **options), FEATURES)
    assert np.abs(np.linalg.eigvals(r)).max() == pytest.approx(0.7)
    assert ((np.abs(r) > 1e-12).sum(axis=0) == max(1, round(density * width))).all()
    assert np.abs(w).max() < 0.5
    assert np.abs(b).max() < 0.2
    assert_close(cotangent_of(reservoir(width, **options), FEATURES), (w, b, r), 0)
    other = cotangent_of(reservoir(width, **options, seed=1), FEATURES)
    assert not any(np.allclose(ours, theirs) for ours, theirs in zip((w, b), other))


FROZEN_W = np.array(
    [[-0.45058859531544, 0.84220925033059, -0.25915180713355], [0.15602556391532, -0.99055320209065, 0.97501834847861]]
)
FROZEN_B = np.array([-0.97709775735818, 0.37129928660771, -0.99342308593811])
FROZEN_R = np.array([[-0.9, -0.78449780709874, -0.8623590968469], [0, 0, 0], [0, 0, 0]])


def test_reservoir_seed_0_is_what_it_was():
    """No checkpoint holds these numbers, so no version may change them."""
    w, b, r = cotangent_of(reservoir(3), 2)
    assert_close(w, FROZEN_W, 1e-12)
    assert_close(b, FROZEN_B, 1e-12)
    assert_close(r, FROZEN_R, 1e-12)


def test_reservoir_learns_by_a_linear_readout():
    """Ridge regression on the states recalls the input of five steps ago."""
    xs = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 1200, 1)).astype(np.float32)
    layer = rnnx.scan(reservoir(100, input_scale=0.3, bias_scale=0.1))
    states = np.asarray(rnnx.unroll(layer, {}, xs)[1][0], np.float64)
    inputs, targets = states[100:], xs[0, 95:-5, 0]
    readout = np.linalg.solve(inputs.T @ inputs + 1e-6 * np.eye(100), inputs.T @ targets)
    assert np.corrcoef(inputs @ readout, targets)[0, 1] > 0.95


@pytest.mark.parametrize(
    "wrong", [{"leak": 0}, {"leak": 1.5}, {"density": 0}, {"spectral_radius": -1}, {"seed": -1}, {"seed": 0.5}]
)
def test_reservoir_errors(wrong):
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        reservoir(4, **wrong)


# The LMU.


@pytest.mark.parametrize(("order", "theta"), [(1, 3.0), (6, 20), (32, 10), (256, 784)])
def test_legendre_memory(order, theta):
    """Against SciPy's zero-order hold of the paper's A and B."""
    signal = pytest.importorskip("scipy.signal")
    a, b = np.zeros((order, order)), np.zeros((order, 1))
    for i in range(order):
        b[i] = (2 * i + 1) * (-1) ** i / theta
        for j in range(order):
            a[i, j] = (2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1)) / theta
    expected = signal.cont2discrete((a, b, np.ones((1, order)), np.zeros((1, 1))), dt=1.0, method="zoh")[:2]
    ours = legendre_memory(order, theta)
    assert_close(ours, (expected[0], expected[1][:, 0]), 1e-11)


def test_legendre_memory_is_a_sliding_window():
    """Legendre polynomials, weighted by m, give back the past, as the docstring says."""
    order, theta, time = 12, 50, 200
    a, b = legendre_memory(order, theta)
    u = np.sin(np.arange(time) / 8)
    m = np.zeros(order)
    for value in u:
        m = a @ m + b * value
    for delay in (5, 20, 40):
        seen = np.polynomial.legendre.legval(2 * delay / theta - 1, m)
        # A held value stands for its step's middle: half a step earlier.
        assert seen == pytest.approx(np.sin((time - 0.5 - delay) / 8), abs=0.02)


def lmu_states(p, order, theta, xs):
    a, b = legendre_memory(order, theta)
    h, m, hs = np.zeros(WIDTH), np.zeros(order), []
    for x in xs:
        u = p["input_encoder"] @ x + p["hidden_encoder"] @ h + p["memory_encoder"] @ m
        m = a @ m + b * u
        h = np.tanh(p["input_kernel"].T @ x + p["recurrent_kernel"].T @ h + p["memory_kernel"].T @ m)
        hs.append(h)
    return np.stack(hs), h, m


def test_lmu():
    order, theta = 4, 6.5
    with jax.enable_x64(True):
        layer = rnnx.scan(lmu(WIDTH, order=order, theta=theta, param_dtype=jnp.float64))
        xs = normal(0, BATCH, TIME, FEATURES)
        params = layer.init(jax.random.key(0), xs)
        assert not params["memory_encoder"].any()
        assert np.abs(params["input_encoder"]).max() < (3 / FEATURES) ** 0.5
        params = perturbed(params)
        carry, ys = rnnx.unroll(layer, params, xs)
    rows = [lmu_states(jax.tree.map(np.asarray, params), order, theta, row) for row in xs]
    expected_ys, h, m = (np.stack(parts) for parts in zip(*rows))
    assert_close((carry, ys), (LMUCarry(h, m), expected_ys), 1e-10)


def test_lmu_gradients():
    """The same equations in torch, by its autograd."""
    torch = pytest.importorskip("torch")
    order, theta = 4, 6.5
    with jax.enable_x64(True):
        layer = rnnx.scan(lmu(WIDTH, order=order, theta=theta, param_dtype=jnp.float64))
        xs = normal(0, BATCH, TIME, FEATURES)
        params = perturbed(layer.init(jax.random.key(0), xs))

        def loss(params, xs):
            carry, ys = rnnx.unroll(layer, params, xs)
            return (ys**2).sum() + (carry.m**3).sum()

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, xs)
    p = {name: torch.tensor(np.asarray(leaf), requires_grad=True) for name, leaf in params.items()}
    theirs = torch.tensor(xs, requires_grad=True)
    a, b = map(torch.tensor, legendre_memory(order, theta))
    h, m = torch.zeros(BATCH, WIDTH, dtype=torch.float64), torch.zeros(BATCH, order, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for x in theirs.unbind(1):
        u = x @ p["input_encoder"] + h @ p["hidden_encoder"] + m @ p["memory_encoder"]
        m = m @ a.T + u[:, None] * b
        h = torch.tanh(x @ p["input_kernel"] + h @ p["recurrent_kernel"] + m @ p["memory_kernel"])
        total = total + (h**2).sum()
    (total + (m**3).sum()).backward()
    assert_close(gradients, ({name: leaf.grad.numpy() for name, leaf in p.items()}, theirs.grad.numpy()), 1e-12)


@pytest.mark.parametrize("wrong", [{"order": 0, "theta": 3}, {"order": 2, "theta": 0}])
def test_lmu_errors(wrong):
    with pytest.raises(ValueError, match=r"it must be"):
        lmu(4, **wrong)


# ALIF.

CONSTANTS = {"tau": 5.0, "tau_adaptation": 12.0, "threshold": 0.4, "damping": 0.3}
BETA = (0.0, 0.0, 0.3, 0.3, 0.5)  # two units that do not adapt, as the authors mix them


def alif_setup():
    layer = rnnx.scan(alif(WIDTH, beta=BETA, param_dtype=jnp.float64, **CONSTANTS))
    xs = normal(0, BATCH, TIME, FEATURES)
    return layer, perturbed(layer.init(jax.random.key(0), xs)), xs


def test_alif():
    """Spikes and states of the authors' model, unit by unit."""
    with jax.enable_x64(True):
        layer, params, xs = alif_setup()
        carry, ys = rnnx.unroll(layer, params, xs)
    w, r = np.asarray(params["input_kernel"]), np.asarray(params["recurrent_kernel"])
    alpha, rho, theta = np.exp(-1 / CONSTANTS["tau"]), np.exp(-1 / CONSTANTS["tau_adaptation"]), CONSTANTS["threshold"]
    z, v, b = np.zeros((3, BATCH, WIDTH))
    zs = []
    for t in range(TIME):
        new_z, new_v, new_b = np.zeros((3, BATCH, WIDTH))
        for row in range(BATCH):
            for j in range(WIDTH):
                current = sum(xs[row, t, k] * w[k, j] for k in range(FEATURES))
                current += sum(z[row, k] * r[k, j] for k in range(WIDTH) if k != j)
                new_b[row, j] = rho * b[row, j] + z[row, j]
                new_v[row, j] = alpha * v[row, j] + current - z[row, j] * theta
                new_z[row, j] = float(new_v[row, j] > theta + BETA[j] * new_b[row, j])
        z, v, b = new_z, new_v, new_b
        zs.append(z)
    assert_close((carry, ys), (ALIFCarry(z, v, b), np.stack(zs, axis=1)), 1e-10)
    assert 0.1 < np.mean(ys) < 0.6


def test_alif_gradients():
    """The pseudo-derivative through time, against torch with the authors' custom gradient."""
    torch = pytest.importorskip("torch")

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return (v > 0).to(v.dtype)

        @staticmethod
        def backward(ctx, by_z):
            (v,) = ctx.saved_tensors
            return by_z * CONSTANTS["damping"] * torch.clamp(1 - v.abs(), min=0)

    with jax.enable_x64(True):
        layer, params, xs = alif_setup()
        scale = normal(5, BATCH, TIME, WIDTH)

        def loss(params, xs):
            carry, ys = rnnx.unroll(layer, params, xs)
            return (ys * scale).sum() + (carry.v**3).sum() + (carry.a**2).sum()

        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, xs)
    w, r = (torch.tensor(np.asarray(params[n]), requires_grad=True) for n in ("input_kernel", "recurrent_kernel"))
    theirs = torch.tensor(xs, requires_grad=True)
    alpha, rho, theta = np.exp(-1 / CONSTANTS["tau"]), np.exp(-1 / CONSTANTS["tau_adaptation"]), CONSTANTS["threshold"]
    z, v, a = torch.zeros((3, BATCH, WIDTH), dtype=torch.float64)
    others = 1 - torch.eye(WIDTH, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for t, x in enumerate(theirs.unbind(1)):
        v = alpha * v + x @ w + z @ (r * others) - z * theta
        a = rho * a + z
        z = Spike.apply((v - theta - torch.tensor(BETA, dtype=torch.float64) * a) / theta)
        total = total + (z * torch.tensor(scale[:, t])).sum()
    (total + (v**3).sum() + (a**2).sum()).backward()
    expected = {"input_kernel": w.grad.numpy(), "recurrent_kernel": r.grad.numpy()}
    assert_close(gradients, (expected, theirs.grad.numpy()), 1e-12)
    assert not np.diag(gradients[0]["recurrent_kernel"]).any()


def test_alif_derivatives_agree():
    """Forward and reverse mode, first and second derivatives."""
    with jax.enable_x64(True):
        layer, params, xs = alif_setup()
        direction = perturbed(jax.tree.map(jnp.zeros_like, params), seed=11)

        def loss(params):
            return weighted_sum(rnnx.unroll(layer, params, xs))

        def along(tree):
            return sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (tree, direction))))

        def reverse(params):
            return along(jax.grad(loss)(params))

        def forward(params):
            return jax.jvp(loss, (params,), (direction,))[1]

        first = forward(params), reverse(params)
        second = (
            jax.jvp(reverse, (params,), (direction,))[1],
            jax.jvp(forward, (params,), (direction,))[1],
            along(jax.grad(reverse)(params)),
            along(jax.grad(forward)(params)),
        )
    assert abs(first[0]) > 1e-3
    assert abs(second[0]) > 1e-3
    assert_close(first, (first[0],) * 2, 1e-12)
    assert_close(second, (second[0],) * 4, 1e-10)


def test_spike():
    """A step; for derivatives, a triangle, and the triangle's own slope."""
    v = jnp.array([-1.5, -0.5, 0.1, 0.25, 2.0])
    np.testing.assert_array_equal(spike(v, 0.3), [0, 0, 1, 1, 1])
    slope = jax.vmap(jax.grad(spike), (0, None))
    assert_close(slope(v, 0.3), np.float32([0, 0.15, 0.27, 0.225, 0]), 1e-6)
    bend = jax.vmap(jax.grad(jax.grad(spike)), (0, None))(v, 0.3)
    assert_close(bend, np.float32([0, 0.3, -0.3, -0.3, 0]), 1e-6)


@pytest.mark.parametrize("wrong", [{"tau": 0}, {"tau_adaptation": -1}, {"threshold": 0}, {"beta": (1.0, 2.0)}])
def test_alif_errors(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        alif(4, **wrong)
