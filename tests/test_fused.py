"""`fused_scan`: the derivative that a cell brings is that of its step, and the gradient keeps less than that of `scan`.

That it equals `scan` in outputs, carries and gradients is among the laws.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close, perturbed, weighted_sum, with_garbage_pads

CELLS = {
    "elman": rnnx.cells.elman(5),
    "elman relu": rnnx.cells.elman(5, activation=jax.nn.relu),
    "lstm": rnnx.cells.lstm(5),
    "gru": rnnx.cells.gru(5),
    "gru reset before": rnnx.cells.gru(5, reset_after=False),
    "learned_carry": rnnx.learned_carry(rnnx.cells.lstm(5)),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def made(cell: rnnx.Cell, batch: int, time: int) -> tuple[Any, Any, Any]:
    xs = jax.random.normal(jax.random.key(1), (batch, time, 3), jnp.float64)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), rnnx.scan(cell).init(jax.random.key(0), xs))
    params = perturbed(params)
    return params, perturbed(rnnx.scan(cell).initial_carry(params, xs, None), 5), xs


@every_cell
def test_the_derivative_is_that_of_the_step(name):
    """`jvp` of `input_tangent`, against `jax.jvp` of `forward`, in weights, carry and input at once."""
    with jax.enable_x64(True):
        cell = CELLS[name]
        params, carry, xs = made(cell, 1, 1)
        w, carry, z = cell.prepare(params, None), jax.tree.map(lambda c: c[0], carry), xs[0, 0]
        z = cell.project(w, z, None)
        dw, dcarry, dz = (perturbed(jax.tree.map(jnp.zeros_like, a), seed) for seed, a in enumerate((w, carry, z)))
        (after, y), expected = jax.jvp(cell.step, (w, carry, z), (dw, dcarry, dz))
        *same, residuals = cell.step.forward(w, carry, z)
        tangents = cell.step.jvp(w, carry, residuals, dcarry, cell.step.input_tangent(dw, dz, carry, residuals))
        assert_close((tuple(same), tangents), ((after, y), expected), 1e-12)


@every_cell
@pytest.mark.parametrize("time", [2, 53])
def test_it_equals_scan(name, time, monkeypatch):
    """In chunks, with something left over; with lengths, resets, and with neither; forward mode too."""
    monkeypatch.setattr("rnnx.evaluators.fused.ROWS", 4 * 8)  # chunks of some eight steps
    with jax.enable_x64(True):
        cell = CELLS[name]
        params, carry, xs = made(cell, 4, time)
        lengths = np.array([time, 1, 0, time // 2])
        resets = np.random.default_rng(0).random((4, time)) < 0.2

        def everything(layer: rnnx.Layer, lengths: Any, resets: Any) -> Any:
            def loss(*arguments: Any) -> Any:
                result = layer.apply(*arguments, lengths=lengths, resets=resets)
                return weighted_sum(result), result

            @jax.jit
            def derivatives(at: Any, direction: Any) -> Any:
                gradient = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*at)
                return gradient, jax.jvp(lambda *a: loss(*a)[0], at, direction)[1]

            at = params, carry, xs if lengths is None else with_garbage_pads(xs, lengths, np.nan)
            return derivatives(at, perturbed(jax.tree.map(np.zeros_like, at)))

        for given in ((None, None), (lengths, resets)):
            fused, plain = (everything(layer, *given) for layer in (rnnx.fused_scan(cell), rnnx.scan(cell)))
            assert_close(fused, plain, 1e-11)


@pytest.mark.parametrize(
    ("make", "arrays", "with_checkpoints"),
    [(rnnx.cells.elman, 3.1, 2.4), (rnnx.cells.lstm, 9.4, 3.1), (rnnx.cells.gru, 8.2, 2.8)],
)
def test_it_keeps_less(make, arrays, with_checkpoints):
    """XLA's temporary memory of the gradient, at a width where it matters, in arrays `[batch, time, width]`.

    How much `scan` takes depends on XLA: from 0.10 to 0.11 it fell from 5.3 to 4.3 for an Elman net. It is the CPU's,
    where inputs are projected within the loop.
    """
    batch, time, width = 64, 96, 512

    def memory(layer: rnnx.Layer) -> float:
        xs = jax.ShapeDtypeStruct((batch, time, 128), jnp.float32)
        params = jax.eval_shape(layer.init, jax.random.key(0), xs)

        def loss(params: Any, xs: Any) -> Any:
            return (rnnx.unroll(layer, params, xs)[1] ** 2).mean()

        with jax.default_device(jax.devices("cpu")[0]):
            compiled = jax.jit(jax.grad(loss)).lower(params, xs).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (4 * batch * time * width)

    cell = make(width)
    plain, fused = memory(rnnx.scan(cell)), memory(rnnx.fused_scan(cell))
    assert fused < min(arrays, 0.8 * plain)
    assert memory(rnnx.fused_scan(cell, checkpoint_every=12)) < min(with_checkpoints, 0.6 * plain)


def test_refusals():
    for cell in (rnnx.cells.mgu(4), rnnx.cells.lstm(4, peephole=True), rnnx.zoneout(rnnx.cells.lstm(4), 0.1)):
        with pytest.raises(TypeError, match=r"rnnx\.scan takes every cell"):
            rnnx.fused_scan(cell)
    with pytest.raises(ValueError, match="checkpoint_every is 0"):
        rnnx.fused_scan(rnnx.cells.lstm(4), checkpoint_every=0)
