"""Every AssociativeCell: its laws, its evaluation as a tree, and what bfloat16 costs it over a long time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.evaluators.associative import associative_scan
from rnnx.testing import assert_close, perturbed, weighted_sum

WIDTH, TIME, LONG = 6, 7, 10_000


def is_associative(name: str) -> bool:
    return callable(make := getattr(rnnx.cells, name)) and get_type_hints(make).get("return") is rnnx.AssociativeCell


# All there are: a new one comes by itself.
CELLS = {name: getattr(rnnx.cells, name)(WIDTH) for name in rnnx.cells.__all__ if is_associative(name)}
assert len(CELLS) >= 13
every_cell = pytest.mark.parametrize("name", CELLS)

# Over 10,000 steps with bfloat16 inputs beside float32 params: the error's root mean square by that of the outputs.
# Rounding the inputs of a product alone gives 0.2 to 0.4 %. Where k or v go through a norm, or heads are normalised
# at the end, small vectors make more of it.
ROUNDING = {"delta_net": 0.025, "gated_delta_net": 0.015, "gla": 0.015, "mlstm": 0.015}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


def drawn(cell: rnnx.AssociativeCell) -> Any:
    return jax.jit(cell.init)(jax.random.key(0), jax.ShapeDtypeStruct((WIDTH,), jnp.float32))


@functools.cache
def initial(name: str) -> Any:
    with jax.enable_x64(False):  # so that other precisions draw the same numbers
        return drawn(CELLS[name])


@functools.cache
def made(name: str) -> tuple[rnnx.AssociativeCell, Any, Any, Any]:
    """A cell, its params, a carry and inputs `(time, width)`, all random and in float64."""
    cell, params = CELLS[name], perturbed(cast(initial(name), jnp.float64))
    xs = jax.random.normal(jax.random.key(1), (TIME, WIDTH), jnp.float64)
    carry = cell.initial_carry(cell.prepare(params, None), jax.ShapeDtypeStruct((WIDTH,), xs.dtype), None)
    return cell, params, perturbed(carry, seed=5), xs


def test_some_are_found() -> None:
    assert {"lru", "mlstm", "delta_net"} <= set(CELLS)
    assert all(isinstance(cell, rnnx.AssociativeCell) for cell in CELLS.values())


@every_cell
def test_laws(name: str) -> None:
    """Elements associate; acting by two is acting by their product; a step is what `lift` and `act` make of it."""
    cell, params, carry, xs = made(name)

    @jax.jit
    def sides(params: Any, carry: Any, xs: Any) -> Any:
        w = cell.prepare(params, None)
        zs = [cell.project(w, x, None) for x in xs[:3]]
        a, b, c = (cell.lift(w, z) for z in zs)
        after = cell.act(carry, a)
        one = cell.combine(cell.combine(a, b), c), cell.act(after, b), cell.step(w, carry, zs[0])
        other = cell.combine(a, cell.combine(b, c)), cell.act(carry, cell.combine(a, b))
        return one, (*other, (after, cell.readout(w, after, zs[0])))

    one, other = sides(params, carry, xs)
    assert_close(one, other, 1e-10)


@every_cell
def test_tree_equals_scan(name: str) -> None:
    """All steps at once, combined as a tree, against the steps one after another: values and gradients."""
    cell, params, carry, xs = made(name)
    carry, xs = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), (carry, xs))
    lengths, resets = np.array([TIME, 4]), np.zeros((2, TIME), bool)
    resets[0, 3] = resets[1, 0] = True

    def with_gradients(layer: rnnx.Layer) -> Any:
        def loss(*arguments: Any) -> Any:
            result = layer.apply(*arguments, lengths=lengths, resets=resets)
            return weighted_sum(result), result

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(params, carry, xs)

    expected = with_gradients(rnnx.scan(rnnx.as_cell(cell)))
    assert_close(with_gradients(associative_scan(cell, sequential=False)), expected, 1e-9)


def test_small_elements_are_made_at_once_and_large_ones_when_needed() -> None:
    """Evaluated sequentially: what is no larger than the projected inputs goes by `linear_scan`."""

    def at_once(name: str) -> bool:
        layer = associative_scan(CELLS[name], sequential=True)
        xs = jnp.ones((2, TIME, WIDTH))
        params = jax.eval_shape(layer.init, jax.random.key(0), xs)
        return "custom_linear_solve" in str(jax.make_jaxpr(lambda params: rnnx.unroll(layer, params, xs))(params))

    assert {name for name in CELLS if at_once(name)} >= {"min_gru", "min_lstm", "qrnn", "rg_lru", "sru"}
    assert not any(map(at_once, ("delta_net", "gated_delta_net", "lru", "mlstm", "s4d", "s6")))


def test_what_diverged_before_a_reset_stays_there() -> None:
    """Of a cell whose way of combining is its own, too: an element of the left is replaced before, not after."""

    def init(key: Any, x: Any) -> Any:
        return {"start": jnp.ones(x.shape)}

    def initial_carry(params: Any, x: Any, key: Any) -> jax.Array:
        return params["start"]

    cell = rnnx.associative_cell(
        init, initial_carry, lambda w, x: x, lambda left, right: left * right, lambda h, a: a * h, lambda w, h, x: h
    )
    layer = associative_scan(cell, sequential=False)
    xs = jnp.array([[[jnp.inf], [0.0], [2.0], [3.0]]])
    resets = jnp.array([[False, False, True, False]])
    params = layer.init(jax.random.key(0), xs)
    for run in (layer, rnnx.scan(rnnx.as_cell(cell))):
        _, ys = rnnx.unroll(run, params, xs, resets=resets)
        np.testing.assert_array_equal(ys[0, :, 0], [np.inf, np.nan, 2.0, 6.0])


def test_a_cell_that_cannot_be_combined_is_refused() -> None:
    with pytest.raises(TypeError, match=r"associative_scan takes an AssociativeCell.*rnnx.scan takes any Cell"):
        associative_scan(rnnx.cells.lstm(4))


@every_cell
def test_bfloat16_over_a_long_time(name: str, record_property: Any) -> None:
    """Against the same rounded inputs in float64: the error is that of rounding, and does not grow with time."""
    layer = rnnx.scan(rnnx.as_cell(CELLS[name]))
    rounded = jax.random.normal(jax.random.key(1), (1, LONG, WIDTH), jnp.bfloat16)

    params = cast(initial(name), jnp.float32)
    ys = np.asarray(rnnx.unroll(layer, params, rounded)[1][0], np.float64)
    exact = np.asarray(rnnx.unroll(layer, *cast((params, rounded), jnp.float64))[1][0])
    assert np.isfinite(ys).all()

    def size(x: Any) -> float:
        return float(np.sqrt((x**2).mean()))

    error, tenth = ys - exact, LONG // 10
    measured = {
        "rms error by rms": size(error) / size(exact),
        "largest error by largest output": float(np.abs(error).max() / np.abs(exact).max()),
        "in the first tenth": size(error[:tenth]) / size(exact),
        "in the last tenth": size(error[-tenth:]) / size(exact),
    }
    shown = f"{name} in bfloat16: " + ", ".join(f"{what} {value:.2%}" for what, value in measured.items())
    record_property("bfloat16", shown)
    print(shown)
    assert measured["rms error by rms"] < ROUNDING.get(name, 0.006), shown
    assert measured["in the last tenth"] < 2 * measured["in the first tenth"] + 0.001, shown


@every_cell
def test_derivatives_stay_finite(name: str) -> None:
    """From a state and an input of zero up to gates that are shut for good, in float32: first and second ones."""
    cell = CELLS[name]
    params, xs = cast((initial(name), made(name)[3][:2]), jnp.float32)

    def loss(params: Any, xs: Any) -> jax.Array:
        w = cell.prepare(params, None)
        carry = cell.initial_carry(w, xs[0], None)
        carry, y = cell.step(w, carry, cell.project(w, xs[0], None))
        return weighted_sum((y, cell.step(w, carry, cell.project(w, xs[1], None))))

    @jax.jit
    def derivatives(xs: Any) -> Any:
        ones = jax.tree.map(jnp.ones_like, (params, xs))
        return jax.jvp(jax.grad(loss, argnums=(0, 1)), (params, xs), ones)

    for scale in (0.0, 1.0, 30.0, 300.0):
        for leaf in jax.tree.leaves(derivatives(scale * xs)):
            assert np.isfinite(leaf).all(), f"inputs times {scale}"


@every_cell
def test_params_in_half_precision(name: str) -> None:
    """`param_dtype=bfloat16` makes params that are float32's, rounded."""
    with jax.enable_x64(False):
        half = drawn(getattr(rnnx.cells, name)(WIDTH, param_dtype=jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("bfloat16")}
    assert_close(cast(half, jnp.float32), initial(name), 0.005)
