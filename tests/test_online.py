"""Online learners: the exact one is back-propagation through time, the others are what their papers say."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx import online
from rnnx.testing import assert_close, perturbed

BATCH, TIME, FEATURES, WIDTH = 3, 7, 2, 4
RESETS = np.zeros((TIME, BATCH), bool)
RESETS[[0, 3, 4], [0, 0, 2]] = RESETS[6] = True


def loss(readout: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    return ((jnp.tanh(y @ readout["kernel"]) - target) ** 2).sum()


def decaying(width: int) -> rnnx.Cell:
    """A cell over a pytree, with a whole number and a learned start in its carry."""

    def init(key, x):
        return {"kernel": jnp.ones((FEATURES, width)) / 3, "start": jnp.ones(width), "rate": jnp.ones(())}

    def initial_carry(w, x, key):
        return {"h": w["start"] ** 2, "count": jnp.int32(0)}

    def step(w, carry, x):
        h = jnp.tanh(carry["h"] * jnp.exp(-w["rate"] * x["dt"]) + x["x"] @ w["kernel"])
        count = carry["count"] + 1
        return {"h": h, "count": count}, h / count.astype(h.dtype)

    return rnnx.cell(init, initial_carry, step)


EXACT = {
    "elman": rnnx.cells.elman(WIDTH),
    "lstm": rnnx.cells.lstm(WIDTH),
    "gru reset before": rnnx.cells.gru(WIDTH, reset_after=False),
    "orthogonal": rnnx.cells.orthogonal(WIDTH),
    "learned carry": rnnx.learned_carry(rnnx.cells.lstm(WIDTH + 1, projection=WIDTH)),
    "lru": rnnx.as_cell(rnnx.cells.lru(WIDTH)),
    "alif": rnnx.cells.alif(WIDTH, threshold=0.4, beta=0.3, tau=5.0),
    "pytrees": decaying(WIDTH),
}
OWNED = {
    "elman": rnnx.cells.elman(WIDTH),
    "lstm": rnnx.cells.lstm(WIDTH),
    "lstm peephole": rnnx.learned_carry(rnnx.cells.lstm(WIDTH, peephole=True, coupled=True)),
    "gru": rnnx.cells.gru(WIDTH),
    "mgu": rnnx.cells.mgu(WIDTH, reset_after=True),
    "janet": rnnx.cells.janet(WIDTH),
    "indrnn": rnnx.cells.indrnn(WIDTH),
    "alif": rnnx.cells.alif(WIDTH, threshold=0.4, beta=0.3, tau=5.0),
    "orthogonal": rnnx.cells.orthogonal(WIDTH),
}
METHODS = {"rtrl": online.rtrl, "uoro": online.uoro, "snap1": online.snap1, "eprop": online.eprop}


def task(cell: rnnx.Cell, *, dtype: Any = np.float64, time: int = TIME) -> tuple[Any, Any, Any]:
    """`(params, xs, targets)`, time-major, with noise on every parameter."""
    random = np.random.default_rng(5)
    features = WIDTH if cell.spec.name in ("lru", "rg_lru") else FEATURES
    xs = random.normal(size=(time, BATCH, features)).astype(dtype)
    xs = {"x": xs, "dt": random.uniform(size=(time, BATCH)).astype(dtype)} if cell.spec.name == "decaying" else xs
    one_x = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), xs)
    of_cell = jax.jit(lambda key: cell.init(key, one_x))(jax.random.key(0))
    params = {"cell": of_cell, "readout": {"kernel": np.zeros((WIDTH, 2))}}
    params = perturbed(jax.tree.map(lambda p: np.asarray(p, dtype), params))
    return jax.tree.map(np.asarray, params), xs, random.normal(size=(time, BATCH, 2)).astype(dtype)


def by_time(cell: rnnx.Cell, params: Any, xs: Any, targets: Any, resets: Any = None, lengths: Any = None) -> Any:
    """`(loss, ys), gradient` by back-propagation through `rnnx.scan`."""

    def total(params: Any) -> Any:
        rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (xs, resets))
        _, ys = rnnx.unroll(rnnx.scan(cell), params["cell"], rows[0], resets=rows[1], lengths=lengths)
        ys = jnp.swapaxes(ys, 0, 1)
        losses = jax.vmap(jax.vmap(loss, (None, 0, 0)), (None, 0, 0))(params["readout"], ys, targets)
        if lengths is not None:
            losses = jnp.where(jnp.arange(len(targets))[:, None] < lengths[None], losses, 0)
        return losses.sum(), ys

    return jax.jit(jax.value_and_grad(total, has_aux=True))(params)


def driver(learner: online.OnlineLearner) -> Any:
    """`(params, inputs, rows, key) -> (loss, ys), gradient`, summed over the steps of a scan."""

    @jax.jit
    def run(params: Any, inputs: Any, rows: Any, key: Any) -> Any:
        def step(state: Any, now: Any) -> Any:
            return learner.update(params, state, *now[0], **now[1])

        start = learner.init(params, jax.tree.map(lambda x: x[0], inputs[0]), key)
        _, learned = jax.lax.scan(step, start, (inputs, rows))
        return (learned.loss.sum(), learned.y), jax.tree.map(lambda g: g.sum(axis=0), learned.gradient)

    return run


def driven(learner: online.OnlineLearner, params: Any, *inputs: Any, key: Any = None, **rows: Any) -> Any:
    return driver(learner)(params, inputs, rows, key)


@pytest.mark.parametrize("name", EXACT)
def test_rtrl_is_back_propagation_through_time(name: str) -> None:
    with jax.enable_x64(True):
        cell = EXACT[name]
        params, xs, targets = task(cell)
        expected = by_time(cell, params, xs, targets, RESETS)
        assert_close(driven(online.rtrl(cell, loss), params, xs, targets, resets=RESETS), expected, 1e-9)


@pytest.mark.parametrize(
    ("make", "cell"),
    [
        (online.snap1, rnnx.learned_carry(rnnx.cells.indrnn(WIDTH, activation=jnp.tanh))),
        (online.snap1, rnnx.as_cell(rnnx.cells.lru(WIDTH, state=WIDTH + 2))),
        (online.eprop, rnnx.as_cell(rnnx.cells.min_gru(WIDTH))),  # no recurrent matrix, nothing to cut
    ],
    ids=["indrnn", "lru", "min_gru"],
)
def test_it_is_exact_where_units_are_independent(make: Any, cell: rnnx.Cell) -> None:
    with jax.enable_x64(True):
        params, xs, targets = task(cell)
        expected = by_time(cell, params, xs, targets, RESETS)
        assert_close(driven(make(cell, loss), params, xs, targets, resets=RESETS), expected, 1e-9)


def own_only(cell: rnnx.Cell, params: Any, xs: Any, targets: Any) -> Any:
    """SnAp-1 as its paper puts it, for y = h: the whole influence matrix, and zero put where it is left out."""

    def flat(carry: Any) -> Any:
        return jnp.concatenate(jax.tree.leaves(carry))

    def step(w: Any, carry: Any, x: Any) -> Any:
        return cell.step(w, carry, cell.project(w, x, None))

    @jax.jit
    def looked_at(w: Any, carry: Any, x: Any, target: Any) -> Any:
        by_w, by_carry = jax.jacrev(lambda w, c: flat(step(w, c, x)[0]), argnums=(0, 1))(w, carry)
        after, y = step(w, carry, x)
        signal = jax.grad(loss, argnums=1)(params["readout"], y, target)
        return by_w, jnp.concatenate(jax.tree.leaves(by_carry), axis=1), after, signal

    names = sorted(params["cell"])
    total = jax.tree.map(np.zeros_like, params["cell"])
    for row in range(BATCH):
        carry = cell.initial_carry(params["cell"], xs[0, 0], None)
        numbers = flat(carry).size
        units = np.arange(numbers) % WIDTH
        unit = {name: online.columns(name, np.shape(params["cell"][name]), WIDTH) for name in names}
        kept = {name: np.zeros((numbers, *np.shape(params["cell"][name]))) for name in names}
        for t in range(len(xs)):
            direct, by_carry, carry, signal = looked_at(params["cell"], carry, xs[t, row], targets[t, row])
            for name in names:
                influence = np.asarray(direct[name]) + np.tensordot(by_carry, kept[name], 1)
                own = units.reshape(-1, *[1] * (influence.ndim - 1)) == unit[name]
                kept[name] = np.where(own, influence, 0)
                h = jax.tree.leaves(jax.tree.unflatten(jax.tree.structure(carry), range(0, numbers, WIDTH)))[0]
                total[name] += np.tensordot(np.asarray(signal), kept[name][h : h + WIDTH], 1)
    return total


@pytest.mark.parametrize("name", ["elman", "lstm"])
def test_snap1_is_rtrl_with_zeros_put_in(name: str) -> None:
    with jax.enable_x64(True):
        cell = OWNED[name]
        params, xs, targets = task(cell, time=4)
        _, gradient = driven(online.snap1(cell, loss), params, xs, targets)
        assert_close(gradient["cell"], own_only(cell, params, xs, targets), 1e-9)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_eprop_of_lstm_is_that_of_the_paper() -> None:
    with jax.enable_x64(True):
        cell = rnnx.cells.lstm(WIDTH)
        params, xs, targets = task(cell)
        _, gradient = driven(online.eprop(cell, loss), params, xs, targets)
    w = {name: np.asarray(p) for name, p in params["cell"].items()}
    readout = np.asarray(params["readout"]["kernel"])
    total = {name: np.zeros_like(p) for name, p in w.items()}
    for row in range(BATCH):
        h = c = np.zeros(WIDTH)
        eps = {name: np.zeros_like(p) for name, p in w.items()}  # d c_j / d w_ij, zero for the output gate
        for x, target in zip(xs[:, row], targets[:, row]):
            i, f, g, o = np.split(x @ w["input_kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            into_c = np.concatenate([g * i * (1 - i), c * f * (1 - f), i * (1 - g**2), 0 * o])
            c_new = f * c + i * g
            into_h = np.concatenate([0 * o, 0 * o, 0 * o, np.tanh(c_new) * o * (1 - o)])
            reads = {"input_kernel": x[:, None], "recurrent_kernel": h[:, None], "bias": np.ones(())}
            c, h = c_new, o * np.tanh(c_new)
            said = np.tanh(h @ readout)
            signal = readout @ (2 * (said - target) * (1 - said**2))
            for name, read in reads.items():
                eps[name] = np.tile(f, 4) * eps[name] + read * into_c
                trace = np.tile(o * (1 - np.tanh(c) ** 2), 4) * eps[name] + read * into_h
                total[name] += np.tile(signal, 4) * trace
    assert_close(gradient["cell"], total, 1e-9)


def test_eprop_of_alif_is_that_of_the_paper() -> None:
    theta, beta, tau, damping = 0.4, 0.3, 5.0, 0.3
    with jax.enable_x64(True):
        cell = rnnx.cells.alif(WIDTH, threshold=theta, beta=beta, tau=tau, damping=damping)
        params, xs, targets = task(cell)
        (_, ys), gradient = driven(online.eprop(cell, loss), params, xs, targets)
        assert 0.1 < ys.mean() < 0.9
    alpha, rho = math.exp(-1 / tau), math.exp(-1 / 200)
    kernel, recurrent = (np.asarray(params["cell"][name]) for name in ("input_kernel", "recurrent_kernel"))
    readout, others = np.asarray(params["readout"]["kernel"]), 1 - np.eye(WIDTH)
    total = [np.zeros_like(kernel), np.zeros_like(recurrent)]
    for row in range(BATCH):
        z = v = a = np.zeros(WIDTH)
        of_v, of_a, trace = ([np.zeros_like(kernel), np.zeros_like(recurrent)] for _ in range(3))
        for x, target in zip(xs[:, row], targets[:, row]):
            reads = [np.tile(x[:, None], (1, WIDTH)), z[:, None] * others]
            v, a = alpha * v + x @ kernel + z @ (recurrent * others) - theta * z, rho * a + z
            over = (v - theta - beta * a) / theta
            psi = damping * np.maximum(0, 1 - np.abs(over)) / theta
            z = (over > 0).astype(float)
            said = np.tanh(z @ readout)
            signal = readout @ (2 * (said - target) * (1 - said**2))
            for k in range(2):
                of_v[k] = alpha * of_v[k] + reads[k] - theta * trace[k]
                of_a[k] = rho * of_a[k] + trace[k]
                trace[k] = psi * (of_v[k] - beta * of_a[k])
                total[k] += signal * trace[k]
    assert_close(gradient["cell"], {"input_kernel": total[0], "recurrent_kernel": total[1]}, 1e-9)


def test_the_mean_of_uoro_is_the_gradient() -> None:
    """To within a few standard errors, number by number, and as a whole to within a few parts in a hundred."""
    cell = rnnx.learned_carry(rnnx.cells.elman(2))
    random = np.random.default_rng(0)
    xs, targets = (random.normal(size=(5, BATCH, 2)).astype(np.float32) for _ in range(2))
    params = {"cell": cell.init(jax.random.key(0), xs[0, 0]), "readout": {"kernel": jnp.ones((2, 2))}}
    params = perturbed(params)
    resets = RESETS[1:6]
    _, exact = by_time(cell, params, xs, targets, resets)

    # What is exact and immediate, without any credit through time.
    none = rnnx.cell(cell.init, cell.initial_carry, lambda w, c, z: cell.step(w, jax.lax.stop_gradient(c), z))
    _, immediate = by_time(none._replace(prepare=cell.prepare, project=cell.project), params, xs, targets, resets)

    def one(key: jax.Array) -> Any:
        return driven(online.uoro(cell, loss), params, xs, targets, key=key, resets=resets)[1]

    def flat(gradient: Any) -> np.ndarray:
        leaves = jax.tree.leaves(gradient)
        return np.concatenate([np.asarray(a, np.float64).reshape(a.shape[0], -1) for a in leaves], axis=1)

    draws = flat(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 40_000)))
    exact, immediate = (flat(jax.tree.map(lambda a: a[None], tree))[0] for tree in (exact, immediate))
    error = draws.std(axis=0) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - exact) <= 4.5 * error + 1e-5).all()
    through = exact - immediate
    share = (draws - immediate) @ through / (through @ through)
    wide = share.std() / math.sqrt(len(draws))
    assert wide < 0.02  # else the next line would say nothing
    assert abs(share.mean() - 1) < 4 * wide


@pytest.mark.parametrize("method", ["rtrl", "uoro", "snap1"])
def test_rows_that_are_not_valid_change_nothing(method: str) -> None:
    with jax.enable_x64(True):
        cell = EXACT["learned carry"] if method in ("rtrl", "uoro") else OWNED["lstm peephole"]
        learner = METHODS[method](cell, loss)
        params, xs, targets = task(cell)
        lengths = np.array([TIME - 1, 2, 0])
        valid = np.arange(TIME)[:, None] < lengths
        spoiled = [np.where(valid[..., None], a, np.nan) for a in (xs, targets)]
        key = jax.random.key(0)
        run, rows = driver(learner), {"resets": RESETS, "valid": valid}
        plain = run(params, (xs, targets), rows, key)
        assert_close(run(params, tuple(spoiled), rows, key), plain, 1e-12)
        if method == "rtrl":
            assert_close(plain, by_time(cell, params, xs, targets, RESETS, lengths), 1e-9)
        state = learner.init(params, xs[0], key)
        after, _ = learner.update(params, state, spoiled[0][-1], targets[0], resets=RESETS[-1], valid=valid[-1])
        jax.tree.map(np.testing.assert_array_equal, after[:2], state[:2])


def immediate(cell: rnnx.Cell, params: Any) -> dict[str, np.ndarray]:
    """The Jacobians `[n, L, H, ...]` of the next carry by each weight, at random states and inputs."""
    random = np.random.default_rng(1)

    def drawn(a: Any) -> np.ndarray:
        return random.normal(size=(5, *a.shape)).astype(np.float32)

    def at(carry: Any, x: Any) -> Any:
        def after(w: Any) -> jax.Array:
            return jnp.stack(jax.tree.leaves(cell.step(w, carry, cell.project(w, x, None))[0]))

        return jax.jacrev(after)(cell.prepare(params, None))

    x = np.zeros(FEATURES, np.float32)
    like = jax.eval_shape(lambda p: cell.initial_carry(cell.prepare(p, None), x, None), params)
    jacobians = jax.jit(jax.vmap(at))(jax.tree.map(drawn, like), drawn(x))
    return {name: np.asarray(leaf) for name, leaf in jacobians.items() if name != "initial_carry"}


@pytest.mark.parametrize("name", OWNED)
def test_a_weight_acts_on_its_own_unit_alone(name: str) -> None:
    params, _, _ = task(OWNED[name], dtype=np.float32)
    for path, leaf in immediate(OWNED[name], params["cell"]).items():
        unit = np.arange(WIDTH).reshape(WIDTH, *[1] * (leaf.ndim - 3))
        others = np.broadcast_to(unit != online.columns(path, leaf.shape[3:], WIDTH), leaf.shape)
        assert (leaf[others] == 0).all(), path
        assert (leaf[~others] != 0).any() or path == "skew", path  # of which a cell's prepare makes another weight
    online.snap1(OWNED[name], loss).init(params, np.zeros((BATCH, FEATURES), np.float32))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (rnnx.cells.gru(WIDTH, reset_after=False), r"elements of \w+ \(.*do not own them.*reset_after=True"),
        (rnnx.cells.mgu(WIDTH), "reset_after=True"),
        (rnnx.cells.lstm(WIDTH, layer_norm=True), "no layer_norm"),
        (rnnx.cells.lstm(WIDTH, projection=2), r"one number per unit.*h \(2,\), c \(4,\).*rtrl and"),
        (rnnx.cells.slstm(WIDTH, heads=2), "elements of recurrent_kernel"),
        (rnnx.cells.cornn(WIDTH), "units interact other than.*kernel="),
        (rnnx.as_cell(rnnx.cells.mlstm(WIDTH)), "one number per unit"),
    ],
    ids=lambda value: value.spec.name if isinstance(value, rnnx.Cell) else "",
)
def test_a_cell_whose_units_cannot_be_told_apart_is_refused(cell: rnnx.Cell, message: str) -> None:
    params, xs, _ = task(cell, dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        online.snap1(cell, loss).init(params, xs[0])
    with pytest.raises(ValueError, match=message):  # where the params are not known, as well
        jax.jit(online.eprop(cell, loss).init)(params, xs[0])


def test_owners_can_be_declared() -> None:
    """A weight the other way round: its rows belong to units."""

    def init(key, x):
        return {"kernel": jax.random.normal(key, (WIDTH, *x.shape)), "decay": jnp.full(WIDTH, 0.5)}

    def step(w, h, x):
        h = jnp.tanh(w["decay"] * h + w["kernel"] @ x)
        return h, h

    def rows(path, shape, units):
        return np.arange(units)[:, None] if path == "kernel" else online.columns(path, shape, units)

    cell = rnnx.cell(init, lambda w, x, key: jnp.zeros_like(w["decay"]), step)
    with jax.enable_x64(True):
        params, xs, targets = task(cell)
        with pytest.raises(ValueError, match=r"elements of kernel \(4, 2\) act on units that do not own them"):
            online.snap1(cell, loss).init(params, xs[0])
        with pytest.raises(ValueError, match=r"for decay of shape \(4,\), owner returned shape \(3,\)"):
            online.snap1(cell, loss, owner=lambda path, shape, units: np.arange(3)).init(params, xs[0])
        expected = by_time(cell, params, xs, targets, RESETS)
        assert_close(driven(online.snap1(cell, loss, owner=rows), params, xs, targets, resets=RESETS), expected, 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_time(method: str) -> None:
    cell = rnnx.cells.elman(WIDTH)
    learner = METHODS[method](cell, loss)
    params, xs, targets = task(cell, dtype=np.float32)
    start = learner.init(params, xs[0], jax.random.key(0))

    def run(state: Any, xs: Any, targets: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            state, total = carry
            state, learned = learner.update(params, state, *now)
            return (state, jax.tree.map(jnp.add, total, learned.gradient)), None

        return jax.lax.scan(step, (state, jax.tree.map(jnp.zeros_like, params)), (xs, targets))[0]

    def temporary(time: int) -> int:
        inputs = [jax.ShapeDtypeStruct((time, *a.shape[1:]), a.dtype) for a in (xs, targets)]
        return jax.jit(run).lower(start, *inputs).compile().memory_analysis().temp_size_in_bytes

    assert temporary(10_000) == temporary(10) > 0
    after, _ = jax.eval_shape(run, start, xs, targets)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), start)


@pytest.mark.parametrize("method", ["uoro", "eprop"])
def test_step_by_step_from_a_stream(method: str) -> None:
    cell = rnnx.cells.gru(WIDTH)
    learner = METHODS[method](cell, loss)
    params, xs, targets = task(cell, dtype=np.float32)
    key = jax.random.key(3)
    state, total = learner.init(params, xs[0], key), 0.0
    for x, target in zip(xs, targets):
        state, learned = learner.update(params, state, x, target)
        total += float(learned.loss)
    (expected, _), _ = driven(learner, params, xs, targets, key=key)
    assert total == pytest.approx(float(expected), rel=1e-5)
    assert state.carry.shape == (BATCH, WIDTH)


def test_what_does_not_fit_is_refused() -> None:
    cell = rnnx.cells.elman(WIDTH)
    params, xs, targets = task(cell, dtype=np.float32)
    learner = online.rtrl(cell, loss)
    state = learner.init(params, xs[0])
    for make in METHODS.values():
        with pytest.raises(TypeError, match=r"takes a Cell.*but got cells\.min_gru.*as_cell"):
            make(rnnx.cells.min_gru(WIDTH), loss)
    with pytest.raises(ValueError, match="init needs a key"):
        online.uoro(cell, loss).init(params, xs[0])
    with pytest.raises(ValueError, match=r'\{"cell": .*got \[\'bias\''):
        learner.init(params["cell"], xs[0])
    with pytest.raises(ValueError, match=r"x must be one step of a batch.*has shape \(\)"):
        learner.init(params, np.float32(1))
    with pytest.raises(ValueError, match=r"target must be \[batch, ...\] with a batch of 3.*\(2, 2\)"):
        learner.update(params, state, xs[0], targets[0, :2])
    with pytest.raises(TypeError, match="resets must be booleans, but they are int"):
        learner.update(params, state, xs[0], targets[0], resets=np.ones(BATCH, np.int32))
    with pytest.raises(ValueError, match=r"one number, but has shape \(4,\)"):
        online.rtrl(cell, lambda readout, y, target: y).update(params, state, xs[0], targets[0])
