"""Gates as outputs: what each cell names, equal under every evaluator, and free when unused."""

import re
import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx import naming
from rnnx.naming import with_named
from rnnx.testing import assert_close, eps, perturbed

BATCH, TIME, WIDTH = 2, 6, 4
LENGTHS = np.array([6, 4])
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, 3] = RESETS[1, 1] = True
UNGATED = {
    *("alif", "causal_conv", "cornn", "elman", "indrnn", "lmu", "lru"),
    *("ltc", "orthogonal", "reservoir", "s4d", "s5", "window"),
}
OPTIONS = {
    "lstm": [{}, {"peephole": True, "coupled": True, "layer_norm": True, "projection": 3}],
    "gru": [{}, {"reset_after": False}],
    "mgu": [{}, {"reset_after": True}],
    "qrnn": [{}, {"input_gate": True}],
    "conv_lstm": [{}, {"peephole": True}],
    "conv_gru": [{}, {"reset_after": False}],
}
KINDS = (rnnx.Cell, rnnx.AssociativeCell)
CELLS = [n for n in rnnx.cells.__all__ if typing.get_type_hints(getattr(rnnx.cells, n)).get("return") in KINDS]


def documented(name):
    """The names that the cell's docstring lists."""
    text = re.search(r"Named for `rnnx.expose`: ((?:`\w+`,? ?)+)", getattr(rnnx.cells, name).__doc__)
    return re.findall(r"`(\w+)`", text.group(1)) if text else []


def inputs(name):
    xs = jax.random.normal(jax.random.key(1), (BATCH, TIME, *((5, 5) if name.startswith("conv_") else ()), WIDTH))
    if name in {"cfc", "ltc"}:
        return {"x": xs, "dt": jnp.ones((BATCH, TIME))}
    return xs


GATED = [(n, o) for n in CELLS if n not in UNGATED for o in OPTIONS.get(n, [{}])]


gated = pytest.mark.parametrize(("name", "options"), GATED, ids=lambda value: str(value))


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_documents_the_names_that_it_gives(name):
    """So a gate that is written without a name, or named and not documented, is found."""
    assert bool(documented(name)) == (name not in UNGATED)
    for options in OPTIONS.get(name, [{}]):
        cell = getattr(rnnx.cells, name)(WIDTH, **options)
        x = jax.tree.map(lambda a: a[0, 0], inputs(name))

        def step(x, cell=cell):
            w = cell.prepare(cell.init(jax.random.key(0), x), None)
            z, in_project = with_named(lambda x: cell.project(w, x, None))(x)
            return in_project, with_named(cell.step)(w, cell.initial_carry(w, x, None), z)[1]

        assert set().union(*jax.eval_shape(step, x)) == set(documented(name))


@gated
def test_exposed_values_are_the_same_under_every_evaluator(name, options):
    """With lengths and resets; the cell's own outputs stay what they are."""
    cell = getattr(rnnx.cells, name)(WIDTH, **options)
    exposed = rnnx.expose(cell, *documented(name), "carry")
    assert type(exposed) is type(cell)
    xs = inputs(name)
    by_step = rnnx.scan(rnnx.as_cell(exposed))
    params = perturbed(by_step.init(jax.random.key(0), xs))
    carry, ys = rnnx.unroll(by_step, params, xs, lengths=LENGTHS, resets=RESETS)
    plain = rnnx.unroll(rnnx.scan(rnnx.as_cell(cell)), params, xs, lengths=LENGTHS, resets=RESETS)
    assert_close((carry, ys["y"]), plain, eps(64))

    other = rnnx.associative_scan(exposed, sequential=False) if isinstance(cell, rnnx.AssociativeCell) else None
    other = other or rnnx.newton_scan(exposed)
    assert_close(rnnx.unroll(other, params, xs, lengths=LENGTHS, resets=RESETS), (carry, ys))

    pads = jax.tree.map(lambda a: a[1, LENGTHS[1] :], ys)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(pads))


def test_the_gates_of_an_lstm_and_a_gru_explain_their_states():
    """The published equations hold between what is exposed: an independent check that each name is on its value."""
    xs = inputs("lstm")

    def run(cell, *names):
        layer = rnnx.scan(rnnx.expose(cell, *names, "carry"))
        ys = rnnx.unroll(layer, perturbed(layer.init(jax.random.key(0), xs)), xs)[1]
        return [np.asarray(ys[name]) for name in names], ys["carry"]

    (i, f, g, o), (h, c) = run(rnnx.cells.lstm(WIDTH), "i", "f", "g", "o")
    before = np.pad(c, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    np.testing.assert_allclose(c, f * before + i * g, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h, o * np.tanh(c), rtol=1e-5, atol=1e-6)

    (r, z, n), h = run(rnnx.cells.gru(WIDTH), "r", "z", "n")
    before = np.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    np.testing.assert_allclose(h, (1 - z) * n + z * before, rtol=1e-5, atol=1e-6)
    assert r.min() > 0
    assert r.max() < 1
    assert r.std() > 0.01


@gated
def test_names_cost_nothing(name, options, monkeypatch):
    """The program that XLA gets is the same, letter for letter, as without names."""

    def program():
        cell = getattr(rnnx.cells, name).__wrapped__(WIDTH, **options)
        x = jax.tree.map(lambda a: a[0, 0], inputs(name))
        w = cell.prepare(cell.init(jax.random.key(0), x), None)
        carry = cell.initial_carry(w, x, None)

        def step(w, carry, x):
            return cell.step(w, carry, cell.project(w, x, None))

        text = jax.jit(step).lower(w, carry, x).as_text()
        return re.sub(r"(@\w+?)_\d+\b", r"\1", text)  # functions within are numbered over the whole process

    with_names = program()
    monkeypatch.setattr(naming, "checkpoint_name", lambda value, name: value)
    assert program() == with_names


def test_a_gradient_flows_through_what_is_exposed():
    layer = rnnx.scan(rnnx.expose(rnnx.cells.lstm(WIDTH), "f"))
    xs = inputs("lstm")
    params = layer.init(jax.random.key(0), xs)
    gradient = jax.grad(lambda p: rnnx.unroll(layer, p, xs)[1]["f"].sum())(params)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(gradient))


def test_exposing_composes():
    """Around other wrappers and within them; what is named twice in a step is stacked."""
    xs = inputs("lstm")
    for cell in (
        rnnx.expose(rnnx.zoneout(rnnx.learned_carry(rnnx.cells.lstm(WIDTH)), 0.1), "f"),
        rnnx.zoneout(rnnx.expose(rnnx.learned_carry(rnnx.cells.lstm(WIDTH)), "f"), 0.1),
        rnnx.learned_carry(rnnx.expose(rnnx.cells.lstm(WIDTH), "f")),
        rnnx.recurrent_dropout(rnnx.expose(rnnx.cells.lstm(WIDTH), "f"), 0.5),
    ):
        layer = rnnx.bidirectional(rnnx.scan(cell), merge=lambda forward, backward: (forward, backward))
        ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)[1]
        chex.assert_shape([side["f"] for side in ys], (BATCH, TIME, WIDTH))
    twice = rnnx.scan(rnnx.expose(rnnx.cells.rhn(WIDTH, depth=3), "g"))
    assert rnnx.unroll(twice, twice.init(jax.random.key(0), xs), xs)[1]["g"].shape == (BATCH, TIME, 3, WIDTH)


def test_names_that_are_not_there():
    xs = inputs("lstm")
    with pytest.raises(ValueError, match=r"lstm has no value named 'q'; it has \['carry', 'f', 'g', 'i', 'o'\]"):
        rnnx.scan(rnnx.expose(rnnx.cells.lstm(WIDTH), "f", "q")).init(jax.random.key(0), xs)

    def hidden():
        def step(params, h, x):
            return jax.lax.cond(x.sum() > 0, lambda: rnnx.named(s=h + x)[0], lambda: h), h

        return rnnx.cell(lambda key, x: {}, lambda params, x, key: jnp.zeros(x.shape), step)

    with pytest.raises(ValueError, match=r"\['s'\] lie inside a loop, a branch or a jax.jit"):
        rnnx.scan(rnnx.expose(hidden(), "s")).init(jax.random.key(0), xs)

    def uneven():
        def step(params, h, x):
            rnnx.named(s=h), rnnx.named(s=h[:1])
            return h + x, h

        return rnnx.cell(lambda key, x: {}, lambda params, x, key: jnp.zeros(x.shape), step)

    with pytest.raises(ValueError, match=r"'s' is named several times, in shapes \[\(4,\), \(1,\)\]"):
        rnnx.scan(rnnx.expose(uneven(), "s")).init(jax.random.key(0), xs)
