"""Equal calls of a factory give one layer, which whatever remembers layers finds again, and which can be pickled."""

import copy
import functools
import gc
import pickle
import weakref

import cloudpickle
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from registry import CASES
from rnnx.interning import CACHE_SIZE

XS = jnp.ones((2, 5, 3))
KEY = jax.random.key(0)
ZEROS = np.zeros(3)
# Its weights are its own, or what makes it compares by identity.
HELD = {"nnx cell"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equal_calls_give_one_layer_that_copies_and_pickles_keep(case):
    layer = case.make()
    assert copy.deepcopy(layer) is layer
    assert copy.copy(layer) is layer
    if case.name in HELD:
        with pytest.raises(pickle.PicklingError, match=r"save its params and make it again.*rnnx\.factory"):
            pickle.dumps(layer)
        return
    again = case.make()
    assert again == layer
    assert hash(again) == hash(layer)
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert cloudpickle.loads(cloudpickle.dumps(layer)) == layer


def test_arguments_are_equal_by_type_and_value():
    assert rnnx.gru(6) == rnnx.gru(width=6) == rnnx.gru(6, reset_after=True)
    assert rnnx.gru(6) != rnnx.gru(7)
    assert rnnx.dropout(0) is not rnnx.dropout(0.0)
    assert rnnx.stack(nn.Dense(3), rnnx.gru(6)) == rnnx.stack(nn.Dense(3), rnnx.gru(6))
    assert rnnx.stack(nn.Dense(3)) != rnnx.stack(nn.Dense(4))
    assert rnnx.cells.lstm(4).step is rnnx.cells.lstm(4).step


def test_a_layer_made_inside_of_a_function_is_compiled_once():
    traces = []

    @rnnx.factory
    def counted(width):
        inner = rnnx.cells.elman(width)

        def step(w, h, z):
            traces.append(None)
            return inner.step(w, h, z)

        return rnnx.cell(inner.init, inner.initial_carry, step, project=inner.project)

    static = jax.jit(lambda layer, params, xs: rnnx.unroll(layer, params, xs)[1], static_argnums=0)
    params = rnnx.elman(6).init(KEY, XS)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, xs):
            return rnnx.linen.RNN(rnnx.scan(counted(6)))(xs)[1]

    variables = {"params": {"RNN_0": params}}
    linen = jax.jit(lambda model, xs: model.apply(variables, xs), static_argnums=0)

    def all_ways():
        rnnx.unroll(rnnx.scan(counted(6)), params, XS)
        static(rnnx.scan(counted(6)), params, XS)
        linen(Model(), XS)

    all_ways()
    first = len(traces)
    for _ in range(3):
        all_ways()
    assert len(traces) == first > 0


def test_an_array_among_the_options_compares_without_ambiguity():
    @rnnx.factory
    def scaled(width, scale=None, shift=ZEROS):
        return rnnx.lstm(width)

    assert str(scaled(4, jnp.ones(3), shift=np.ones(3))) == "scaled(width=4, scale=float32[3], shift=float64[3])"
    assert str(scaled(4)) == "scaled(width=4)"


def test_what_is_kept_is_bounded_and_holds_no_large_array():
    def made(array, keep):
        @rnnx.factory
        def cell(width):
            inner = rnnx.cells.elman(width)
            return inner._replace(project=lambda w, x, key: inner.project(w, x, key) + 0 * array.sum())

        layer = rnnx.scan(cell(4))
        rnnx.unroll(layer, layer.init(KEY, XS), XS)
        assert (layer == rnnx.scan(cell(4))) == keep
        return weakref.ref(layer.apply)

    large, small = made(np.ones(2**20, np.float32), keep=False), made(np.ones(4, np.float32), keep=True)
    gc.collect()
    assert large() is None
    assert small() is not None
    for width in range(1, CACHE_SIZE + 2):
        rnnx.pointwise(functools.partial(jnp.multiply, width))
        rnnx.cells.elman(width)
    gc.collect()
    jax.clear_caches()
    gc.collect()
    assert small() is None


def test_no_tracer_is_kept():
    @rnnx.factory
    def shifted(width):
        inner, shift = rnnx.cells.elman(width), jnp.ones(())
        return inner._replace(project=lambda w, x, key: inner.project(w, x, key) + shift)

    @jax.jit
    def run(params, xs):
        return rnnx.unroll(rnnx.scan(shifted(4)), params, xs)[1]

    params = rnnx.elman(4).init(KEY, XS)
    jitted = run(params, XS)
    assert jnp.allclose(jitted, rnnx.unroll(rnnx.scan(shifted(4)), params, XS)[1], atol=1e-6)


def test_a_replaced_function_is_not_pickled_as_the_call_that_it_replaced():
    layer = rnnx.gru(4)
    changed = layer._replace(apply=lambda *args, **kwargs: layer.apply(*args, **kwargs))
    with pytest.raises(pickle.PicklingError, match="gru consists of functions"):
        pickle.dumps(changed)


def test_a_module_made_inside_of_another_is_not_kept_with_it():
    held = []

    class Model(nn.Module):
        @nn.compact
        def __call__(self, xs):
            held.append(weakref.ref(self))
            return rnnx.linen.RNN(rnnx.stack(nn.Dense(3), rnnx.gru(2)))(xs)[1]

    model = Model()
    ys = model.apply(model.init(KEY, XS), XS)
    assert ys.shape == (2, 5, 2)
    del model
    gc.collect()
    assert all(ref() is None for ref in held)
