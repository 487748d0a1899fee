"""Weights from and to Equinox."""

import jax
import jax.numpy as jnp
import pytest
from peers import FEATURES, LENGTHS, WIDTH, agree, assert_same_bits, random_like, random_params, walked, zeros

import rnnx
from rnnx.interop.equinox import from_equinox, to_equinox

eqx = pytest.importorskip("equinox")

KINDS = {"lstm": ("LSTMCell", rnnx.lstm), "gru": ("GRUCell", rnnx.gru)}


def cell(kind, features=FEATURES, width=WIDTH, dtype=jnp.float32, **options):
    return getattr(eqx.nn, KINDS[kind][0])(features, width, dtype=dtype, key=jax.random.key(0), **options)


def theirs(kind, lengths, dtype):
    def run(levels, xs):
        states = []
        for pair in levels if isinstance(levels, list) else [levels]:
            outputs = []
            for backward, one in enumerate(pair if isinstance(pair, tuple) else (pair,)):

                def step(state, x, one=one):
                    state = jax.vmap(one)(x, state)
                    return state, state[0] if kind == "lstm" else state

                state, ys = walked(step, zeros(kind, dtype), xs, lengths, bool(backward))
                states.append(state)
                outputs.append(ys)
            xs = jnp.concatenate(outputs, axis=-1)
        return states, xs

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_one_cell_without_bias(kind):
    with jax.enable_x64(True):
        weights = random_like(cell(kind, dtype=jnp.float64, use_bias=False), "float64")
        agree(from_equinox, theirs(kind, None, "float64"), weights, "float64")


@pytest.mark.parametrize(("kind", "dtype"), [("lstm", "float64"), ("gru", "float64"), ("gru", "float32")])
def test_two_levels_both_directions_and_lengths(kind, dtype):
    with jax.enable_x64(dtype == "float64"):
        levels = [(cell(kind, dtype=dtype), cell(kind, dtype=dtype)), cell(kind, 2 * WIDTH, dtype=dtype)]
        agree(from_equinox, theirs(kind, LENGTHS, dtype), random_like(levels, dtype), dtype, LENGTHS)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_identity(kind, dtype):
    make = KINDS[kind][1]
    with jax.enable_x64(dtype == "float64"):
        one = make(WIDTH, param_dtype=jnp.dtype(dtype))
        for layer in (one, rnnx.bidirectional(one), rnnx.stack(one, one), rnnx.stack(rnnx.bidirectional(one), one)):
            params = random_params(layer, dtype)
            sizes = (FEATURES, (2 if "bidirectional" in str(layer) else 1) * WIDTH)
            like = [cell(kind, n, dtype=dtype) for n in sizes]
            like[0] = (like[0], like[0]) if "bidirectional" in str(layer) else like[0]
            like = like if layer.spec.name == "stack" else like[0]
            filled = to_equinox(layer, params, like)
            assert jax.tree.structure(filled) == jax.tree.structure(like)
            back, same = from_equinox(filled)
            assert str(back) == str(layer)
            assert_same_bits(same, params)


def test_without_cells_they_are_arrays_by_name():
    layer = rnnx.gru(WIDTH)
    params = random_params(layer, "float32")
    weights = to_equinox(layer, params)
    filled = to_equinox(layer, params, cell("gru"))
    assert_same_bits(weights, {name: getattr(filled, name) for name in weights})
    assert set(weights) == {"weight_ih", "weight_hh", "bias", "bias_n"}


def test_what_cannot_be_converted_says_why():
    before, elman, lstm = rnnx.gru(WIDTH, reset_after=False), rnnx.elman(WIDTH), rnnx.lstm(WIDTH)
    with pytest.raises(ValueError, match="resets after the recurrent product"):
        to_equinox(before, random_params(before, "float32"))
    with pytest.raises(ValueError, match=r"no cell like rnnx\.elman"):
        to_equinox(elman, random_params(elman, "float32"))
    peephole = rnnx.lstm(WIDTH, peephole=True)
    with pytest.raises(ValueError, match="peephole=True has no equivalent"):
        to_equinox(peephole, random_params(peephole, "float32"))
    params = random_params(lstm, "float32")
    with pytest.raises(ValueError, match=r"has no bias, but that of the layer, \(16,\), is not zero"):
        to_equinox(lstm, params, cell("lstm", use_bias=False))
    with pytest.raises(ValueError, match=r"weight_ih has shape \(16, 3\), expected \(16, 5\)"):
        to_equinox(lstm, params, cell("lstm", 5))
    with pytest.raises(ValueError, match=r"has lstm, but `like` has eqx\.nn\.GRUCell"):
        to_equinox(lstm, params, cell("gru"))
    with pytest.raises(ValueError, match=r"levels have \[1\] directions, but those of `like` have \[2\]"):
        to_equinox(lstm, params, (cell("lstm"), cell("lstm")))
    with pytest.raises(TypeError, match="but got Linear"):
        from_equinox(eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    with pytest.raises(TypeError, match="takes a Layer"):
        to_equinox(cell("lstm"), params)
    with pytest.raises(ValueError, match="got 3 elements"):
        from_equinox((cell("lstm"),) * 3)
    bad = eqx.tree_at(lambda c: c.weight_hh, cell("lstm"), jnp.ones((16, 5)))
    with pytest.raises(ValueError, match=r"weight_hh has shape \(16, 5\), expected \(16, 4\)"):
        from_equinox(bad)
