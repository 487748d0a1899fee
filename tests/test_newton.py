"""Newton's method against the walk through time: where it converges, and where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.evaluators.newton import diagonal, full, newton_scan, newton_solve
from rnnx.testing import assert_close, perturbed, weighted_sum, with_garbage_pads

SMALL = {
    "elman": lambda: rnnx.cells.elman(4),
    "lstm": lambda: rnnx.cells.lstm(4),
    "gru": lambda: rnnx.cells.gru(4),
    "lem": lambda: rnnx.cells.lem(4),
    "indrnn": lambda: rnnx.cells.indrnn(4),
}
LENGTHS = np.array([30, 17, 0])
RESETS = np.zeros((3, 30), bool)
RESETS[0, [0, 9]] = RESETS[1, [5, 16, 20]] = RESETS[2, 3] = True


@pytest.fixture(scope="module", autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def case(cell: rnnx.Cell, batch: int = 3, time: int = 30, size: float = 1.0, gain: float | None = None) -> Any:
    """`(params, carry, xs)` in float64: perturbed weights, or the usual ones with the recurrent kernel times `gain`."""
    xs = size * jax.random.normal(jax.random.key(0), (batch, time, 3))
    layer = rnnx.scan(cell)
    params = jax.jit(layer.init)(jax.random.key(1), xs)
    if gain is None:
        params = perturbed(params)
    else:
        params["recurrent_kernel"] = gain * params["recurrent_kernel"]
    params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    return params, perturbed(layer.initial_carry(params, xs, None)), xs


def with_gradients(layer: rnnx.Layer, lengths: Any = None, resets: Any = None, key: Any = None) -> Any:
    def run(params: Any, carry: Any, xs: Any) -> Any:
        result = layer.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)
        return weighted_sum(result), result

    return jax.jit(jax.grad(run, argnums=(0, 1, 2), has_aux=True))


@pytest.mark.parametrize("jacobian", [full, diagonal])
@pytest.mark.parametrize("name", SMALL)
def test_it_finds_what_scan_walks_to(name, jacobian):
    cell = SMALL[name]()
    arguments = case(cell, time=200)
    carry, ys, info = newton_solve(cell, *arguments, jacobian=jacobian, max_iterations=100)
    assert info.converged
    assert info.residual < 1e-12
    assert info.iterations <= (20 if jacobian is full else 70)
    assert_close((carry, ys), rnnx.scan(cell).apply(*arguments), 1e-9)


@pytest.mark.parametrize("jacobian", [full, diagonal])
def test_lengths_resets_and_a_learned_start_are_exact_with_nan_in_the_pads(jacobian):
    cell = rnnx.learned_carry(rnnx.cells.gru(4))
    params, carry, xs = case(cell)
    arguments = params, carry, with_garbage_pads(xs, LENGTHS, np.nan)
    gradient, result = with_gradients(newton_scan(cell, jacobian=jacobian), LENGTHS, RESETS)(*arguments)
    assert_close((gradient, result), with_gradients(rnnx.scan(cell), LENGTHS, RESETS)(*arguments), 1e-9)
    *found, info = newton_solve(cell, *arguments, lengths=LENGTHS, resets=RESETS, jacobian=jacobian)
    assert info.converged
    assert info.iterations < 30
    assert_close(tuple(found), result, 1e-9)


@pytest.mark.parametrize("jacobian", [full, diagonal])
def test_what_does_not_converge_is_walked(jacobian):
    cell = rnnx.cells.elman(8)
    arguments = case(cell, time=60, gain=3.0)  # chaotic
    *_, info = newton_solve(cell, *arguments, jacobian=jacobian, max_iterations=5)
    assert not info.converged
    assert info.residual > 1e-3
    assert info.iterations == 5
    layer = newton_scan(cell, jacobian=jacobian, max_iterations=5)
    gradient, result = with_gradients(layer)(*arguments)
    by_scan = with_gradients(rnnx.scan(cell))(*arguments)
    assert_close(result, by_scan[1], 1e-12)
    assert_close(gradient, by_scan[0], 1e-7)


def test_spikes_are_walked():
    cell = rnnx.cells.alif(4, threshold=0.4, beta=0.3, tau=5.0)
    params, carry, xs = case(cell)
    *_, info = newton_solve(cell, params, carry, xs, max_iterations=4)
    assert not info.converged
    ours = with_gradients(newton_scan(cell, max_iterations=4))(params, carry, xs)
    assert_close(ours, with_gradients(rnnx.scan(cell))(params, carry, xs), 1e-9)


def test_damping_converges_where_newton_does_not():
    cell = rnnx.cells.elman(8)
    arguments = case(cell, batch=2, time=200, size=3.0, gain=3.0)
    *_, undamped = newton_solve(cell, *arguments, max_iterations=40)
    carry, ys, damped = newton_solve(cell, *arguments, damping=0.3, max_iterations=40)
    assert not undamped.converged
    assert damped.converged
    assert_close((carry, ys), rnnx.scan(cell).apply(*arguments), 1e-9)


def test_members_of_an_ensemble_that_differ_in_it():
    """Under `vmap` both branches run: what is not taken must leave no NaN in the gradients of what is."""
    cell, layer = rnnx.cells.elman(8), newton_scan(rnnx.cells.elman(8), max_iterations=12)
    tame, carry, xs = case(cell, gain=0.5)
    wild = {**tame, "recurrent_kernel": 40 * tame["recurrent_kernel"]}
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), tame, wild)
    found = [bool(newton_solve(cell, p, carry, xs, max_iterations=12)[2].converged) for p in (tame, wild)]
    assert found == [True, False]
    together = jax.vmap(with_gradients(layer), in_axes=(0, None, None))(members, carry, xs)
    alone = [with_gradients(rnnx.scan(cell))(p, carry, xs) for p in (tame, wild)]
    assert_close(together, jax.tree.map(lambda *leaves: np.stack(leaves), *alone), 1e-7)


def test_a_bad_row_does_not_spoil_the_others():
    cell, layer = rnnx.cells.gru(4), newton_scan(rnnx.cells.gru(4))
    params, carry, xs = case(cell)
    ys = layer.apply(params, carry, xs.at[1, 5].set(jnp.nan))[1]
    expected = rnnx.scan(cell).apply(params, carry, xs.at[1, 5].set(jnp.nan))[1]
    np.testing.assert_allclose(ys, expected, rtol=1e-9)
    assert np.isnan(ys[1, 5:]).all()
    assert np.isfinite(ys[2]).all()


def test_what_grows_hides_nothing_before_it_or_behind_a_reset():
    cell = rnnx.cells.elman(4, activation=jax.nn.relu)
    params, carry, xs = case(cell, gain=4.0)
    resets = np.zeros((3, 30), bool)
    resets[:, 22] = True
    ours = newton_scan(cell).apply(params, carry, xs, resets=resets)[1]
    expected = rnnx.scan(cell).apply(params, carry, xs, resets=resets)[1]
    assert np.abs(expected[:, :22]).max() > 1e9
    for part in (slice(0, 3), slice(3, 22), slice(22, 25), slice(25, 30)):
        assert_close(ours[:, part], expected[:, part], 1e-9)


def test_derivatives_do_not_depend_on_the_jacobian_of_the_rounds():
    def rough(f: Any, h: jax.Array) -> jax.Array:
        return 0.9 * full(f, h)

    cell = rnnx.cells.gru(4)
    arguments = case(cell)
    ours = with_gradients(newton_scan(cell, jacobian=rough))(*arguments)
    assert_close(ours, with_gradients(rnnx.scan(cell))(*arguments), 1e-9)
    with pytest.raises(ValueError, match=r"jacobian returned shape \(2, 4\)"):
        newton_solve(cell, *arguments, jacobian=lambda f, h: jnp.zeros((2, 4)))


def test_a_mask_drawn_for_the_sequence():
    cell = rnnx.recurrent_dropout(rnnx.cells.gru(4, reset_after=False), 0.5)
    params, carry, xs = case(cell)
    key = jax.random.key(5)
    ours = with_gradients(newton_scan(cell), LENGTHS, RESETS, key)(params, carry, xs)
    assert_close(ours, with_gradients(rnnx.scan(cell), LENGTHS, RESETS, key)(params, carry, xs), 1e-9)


def clockwork(counts: bool) -> rnnx.Cell:
    """A leaky sum with integers in its carry: a mask that stays, or a count of the steps."""

    def init(key, x):
        return {"rate": jnp.full(x.shape, 0.5)}

    def initial_carry(params, x, key):
        return {"h": jnp.zeros(x.shape, params["rate"].dtype), "n": jnp.ones(x.shape, jnp.int32)}

    def step(params, carry, x):
        h = jnp.tanh(params["rate"] * carry["h"] * (carry["n"] % 3) + x)
        return {"h": h, "n": carry["n"] + counts}, h

    return rnnx.cell(init, initial_carry, step)


@pytest.mark.parametrize("counts", [False, True])
def test_integers_in_the_carry(counts):
    cell = clockwork(counts)
    xs = jax.random.normal(jax.random.key(0), (3, 30, 3))
    params = {"rate": jnp.full(3, 0.4)}
    carry = rnnx.scan(cell).initial_carry(params, xs, None)
    _, _, info = newton_solve(cell, params, carry, xs, resets=RESETS, max_iterations=12)
    assert info.converged == (not counts)

    def run(layer: rnnx.Layer) -> Any:
        def of(params: Any) -> Any:
            result = layer.apply(params, carry, xs, lengths=LENGTHS, resets=RESETS)
            return weighted_sum(result[1]), result

        return jax.jit(jax.grad(of, has_aux=True))(params)

    assert_close(run(newton_scan(cell, max_iterations=12)), run(rnnx.scan(cell)), 1e-9)


def test_it_compiles_once():
    traces, counted = [], []

    def step(w, h, x):
        traces.append(1)
        return jnp.tanh(w["a"] * h + x), h

    cell = rnnx.cell(lambda key, x: {"a": jnp.ones(x.shape)}, lambda w, x, key: jnp.zeros(x.shape), step, name="own")
    for seed in range(2):
        xs = jax.random.normal(jax.random.key(seed), (2, 9, 3))
        newton_solve(cell, {"a": jnp.full(3, 0.5)}, jnp.zeros((2, 3)), xs)
        counted.append(len(traces))
    assert counted[0] == counted[1] > 0


def test_no_step():
    cell = rnnx.cells.gru(4)
    params, carry, xs = case(cell)
    after, ys, info = newton_solve(cell, params, carry, xs[:, :0])
    assert_close(after, carry, 0)
    assert ys.shape == (3, 0, 4)
    assert info.converged


def test_errors_say_what_to_do():
    with pytest.raises(TypeError, match=r"rnnx\.as_cell"):
        newton_scan(rnnx.cells.lru(4))
    with pytest.raises(ValueError, match="damping is 2"):
        newton_scan(rnnx.cells.gru(4), damping=2)
    with pytest.raises(ValueError, match="max_iterations is 0"):
        newton_scan(rnnx.cells.gru(4), max_iterations=0)
    with_key = rnnx.cell(
        lambda key, x: {},
        lambda w, x, key: (jnp.zeros(x.shape), jax.random.key(0)),
        lambda w, c, x: (c, x),
        name="keyed",
    )
    layer, xs = newton_scan(with_key), jnp.ones((2, 5, 3))
    with pytest.raises(TypeError, match=r"keyed holds key.*use rnnx\.scan"):
        rnnx.unroll(layer, {}, xs)
