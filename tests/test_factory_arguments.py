"""Every parameter of every factory refuses what is not of its type, or out of its range, when the factory is called."""

import importlib
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.arguments import Function, Integer, Real, activation, checks_of, flag, floating, initializer
from rnnx.cells import _convolution

pytestmark = pytest.mark.bad_input

KEY = jax.random.key(0)
INTEGERS = [0, -1, True, 2.5, 4.0, "4", None, jnp.array(4), np.array(4), np.bool_(True), 10**30, 10**5000]
REAL = [math.nan, math.inf, -math.inf, True, "0.5", None, jnp.array(0.5), 1j, 10**400]
NONSENSE = {
    Integer: [*INTEGERS, [4], (4,)],
    Real: [*REAL, [0.5], jnp.array([0.1, 0.2])],
    flag: ["no", "yes", 0.5, 1, 0, None, jnp.array(True), []],
    floating: [None, "float33", jnp.ones(3), "x", jnp.int32, bool, jnp.complex64, 32, int],
    initializer: [None, "zeros", 0.0, jnp.zeros(3), lambda: 0, lambda key: 0, lambda key, shape: 0],
    activation: ["relu", None, 0.0, lambda: 0, lambda x, y: x, jnp.ones(3)],
    _convolution._sizes: [*INTEGERS, (0, 1), (2.5, 3), [True]],
    _convolution._padding: ["same", "FULL", 1, None, (1, 1), ((1,), (1,)), ((-1, 0),), ((0.5, 1),), np.ones((2, 2))],
    importlib.import_module("rnnx.cells.alif")._numbers: [*REAL, [math.nan] * 4, ["a"] * 4],
}


def unwrapped(function):
    return unwrapped(function.__wrapped__) if hasattr(function, "__wrapped__") else function


def kind(check):
    check = getattr(check, "check", check)  # of one that may be None
    return type(check) if isinstance(check, Integer | Real | Function) else check


FACTORIES = [name for name in rnnx.cells.__all__ if hasattr(rnnx, name) and name != "Complex"]
ROWS = [(name, parameter) for name in FACTORIES for parameter in inspect.signature(getattr(rnnx, name)).parameters]


@pytest.mark.parametrize(("name", "parameter"), ROWS)
def test_nonsense_is_refused_when_the_factory_is_called(name, parameter):
    check = checks_of(unwrapped(getattr(rnnx.cells, name)))[parameter]
    may_be_none = hasattr(check, "check")
    for wrong in NONSENSE[kind(check)]:
        if (wrong is None and may_be_none) or (type(wrong) is int and wrong == getattr(check, "least", None)):
            continue
        arguments = {"size" if name == "window" else "width": 4, parameter: wrong}
        for make in (getattr(rnnx, name), getattr(rnnx.cells, name)):
            with pytest.raises((TypeError, ValueError), match=rf"^{name}: {re.escape(parameter)}") as raised:
                make(**arguments)
            assert raised.type in (TypeError, ValueError)
            assert len(str(raised.value)) < 400
            assert ", but it must be " in str(raised.value) or "it must be a function like" in str(raised.value)


@pytest.mark.parametrize("name", FACTORIES)
def test_every_parameter_has_a_check(name):
    make = unwrapped(getattr(rnnx.cells, name))
    assert set(checks_of(make)) == set(inspect.signature(make).parameters)


@pytest.mark.parametrize("name", FACTORIES)
def test_numbers_of_numpy_are_numbers_and_dtypes_may_be_named(name):
    defaults = {p.name: p.default for p in inspect.signature(getattr(rnnx, name)).parameters.values()}
    given = {key: np.int64(value) for key, value in defaults.items() if type(value) is int}
    given |= {key: np.float32(value) for key, value in defaults.items() if type(value) is float}
    given |= {key: "bfloat16" for key in defaults if key.endswith("_dtype")}
    layer = getattr(rnnx, name)(np.int8(4), **given)
    xs = jax.ShapeDtypeStruct((1, 2, *((5, 4) if name.startswith("conv_") else (4,))), jnp.float32)
    xs = {"x": xs, "dt": jax.ShapeDtypeStruct((1, 2), jnp.float32)} if name in ("cfc", "ltc") else xs
    params = jax.eval_shape(layer.init, KEY, xs)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))


def test_initialisers_and_activations_that_give_something_else():
    xs = jnp.ones((1, 2, 4))
    inits = [lambda k, s, d: jnp.ones((2, 2)), lambda k, s, d: None, jax.nn.initializers.orthogonal]
    activations = [lambda x: None, lambda x: x.sum(), lambda x: x[:1], jax.nn.glu]
    for name, parameter in ROWS:
        of_kind = kind(checks_of(unwrapped(getattr(rnnx.cells, name)))[parameter])
        if name in ("elman", "sru", "orthogonal", "conv_gru") and of_kind in (initializer, activation):
            for wrong in inits if of_kind is initializer else activations:
                layer = getattr(rnnx, name)(4, **{parameter: wrong})
                given = xs[:, :, None] if name == "conv_gru" else xs
                with pytest.raises(
                    (TypeError, ValueError), match=rf"^{name}: {parameter} .*(but|expected)|cannot be called"
                ):
                    jax.eval_shape(lambda key, xs, layer=layer: rnnx.unroll(layer, layer.init(key, xs), xs), KEY, given)


def test_what_an_initialiser_makes_gets_the_dtype_of_the_params():
    layer = rnnx.gru(4, param_dtype=jnp.bfloat16, bias_init=lambda k, s, d: np.ones(s))
    assert jax.eval_shape(layer.init, KEY, jnp.ones((1, 2, 3)))["bias"].dtype == jnp.bfloat16


def test_ranges_whose_ends_are_the_wrong_way_round():
    for name in ("s4d", "s5", "s6"):
        with pytest.raises(ValueError, match=f"^{name}: step_min is 0.2 and step_max is 0.1"):
            getattr(rnnx, name)(4, step_min=0.2)
