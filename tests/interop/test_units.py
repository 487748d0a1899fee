"""What all converters share: a net taken apart by its spec, and put together."""

import importlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.interop._units import Level, Unit, assemble, check_options, levels_of

pytestmark = pytest.mark.quick

XS = jax.ShapeDtypeStruct((2, 5, 3), jnp.float32)
IMAGES = jax.ShapeDtypeStruct((2, 5, 6, 6, 3), jnp.float32)


def made(layer, xs=XS):
    random = np.random.default_rng(0)
    like = jax.eval_shape(layer.init, jax.random.key(0), xs)
    return layer, jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape), a.dtype), like)


def test_taken_apart_and_put_together():
    layer, params = made(
        rnnx.stack(
            rnnx.dropout(0.5),
            rnnx.bidirectional(rnnx.gru(4), rnnx.gru(6)),
            rnnx.stack(rnnx.scan(rnnx.cells.lstm(5, projection=2), unroll=2), rnnx.dropout(0.5)),
            rnnx.elman(7, activation=jax.nn.relu),
        )
    )
    levels = levels_of(layer, params, "any library")
    assert [[unit.kind for unit in level if unit] for level in levels] == [["gru", "gru"], ["lstm"], ["elman"]]
    assert levels[0].backward.params is params["1_bidirectional"]["backward"]
    assert levels[1].forward.options == {"width": 5, "projection": 2, "unroll": 2}
    for level in levels:
        check_options(level.forward, "any library", ("projection", "activation"))
    plain = [level._replace(forward=level.forward._replace(options=dict(level.forward.options))) for level in levels]
    plain[1].forward.options.pop("unroll")
    back, whole = assemble(plain, dropout_rate=0.5)
    assert [child.spec.name for _, child in back.spec.children] == [
        "bidirectional",
        "dropout",
        "lstm",
        "dropout",
        "elman",
    ]
    assert [id(p) for p in jax.tree.leaves(whole)] != [id(p) for p in jax.tree.leaves(params)]
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(params), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: rnnx.indrnn(4),
            r"^indrnn has no equivalent in Lib: only .* can be converted .* remove other layers",
        ),
        (lambda: rnnx.stack(rnnx.gru(4), nn.Dense(2)), "^Dense has no equivalent"),
        (lambda: rnnx.stack(rnnx.dropout(0.1)), "^stack has no equivalent"),
        (lambda: rnnx.dropout(0.1), "^dropout has no equivalent"),
        (lambda: rnnx.reverse(rnnx.gru(4)), "^reverse has no equivalent"),
        (lambda: rnnx.skip_stack(rnnx.gru(4), rnnx.gru(4)), "^skip_stack has no equivalent"),
        (lambda: rnnx.bidirectional(rnnx.stack(rnnx.gru(4), rnnx.gru(4))), "^bidirectional has no equivalent"),
        (
            lambda: rnnx.bidirectional(rnnx.gru(4), merge=jnp.maximum),
            "^Lib concatenates the outputs",
        ),
        (lambda: rnnx.scan(rnnx.learned_carry(rnnx.cells.gru(4))), "gru with learned_carry=True has no equivalent"),
        (lambda: rnnx.scan(rnnx.zoneout(rnnx.cells.gru(4), 0.1)), "gru with zoneout=0.1 has no equivalent"),
    ],
)
def test_what_is_no_such_net(make, message):
    layer, params = made(make())
    with pytest.raises(ValueError, match=message):
        levels_of(layer, params, "Lib")


@pytest.mark.parametrize("library", ["torch", "keras", "haiku", "equinox"])
@pytest.mark.parametrize("kind", ["mgu", "ugrnn", "conv_lstm"])
def test_kinds_that_only_flax_has_are_refused_elsewhere(kind, library):
    if library == "torch":
        pytest.importorskip("torch")
    layer, params = made(getattr(rnnx, kind)(4), IMAGES if kind == "conv_lstm" else XS)
    with pytest.raises(ValueError, match=rf"(?i)^{kind} has no equivalent in {library}: .* rnnx\.elman, lstm and gru"):
        getattr(importlib.import_module(f"rnnx.interop.{library}"), f"to_{library}")(layer, params)


def test_images():
    layer, params = made(rnnx.stack(rnnx.conv_lstm(4), rnnx.conv_lstm(5, kernel_size=2)), IMAGES)
    with pytest.raises(ValueError, match=r"^conv_lstm has no equivalent"):
        levels_of(layer, params, "Lib")
    levels = levels_of(layer, params, "Lib", ["lstm", "conv_lstm"])
    assert [level.forward.options for level in levels] == [{"width": 4}, {"width": 5, "kernel_size": 2}]
    assert str(assemble(levels)[0]) == str(layer)


def test_params_of_another_layer():
    layer, params = made(rnnx.stack(rnnx.gru(4), rnnx.gru(4)))
    with pytest.raises(ValueError, match=r"\['1_gru'\]\['bias'\] has shape \(9,\), expected \(12,\)"):
        levels_of(layer, {**params, "1_gru": {**params["1_gru"], "bias": jnp.zeros(9)}}, "Lib")
    with pytest.raises(ValueError, match=r"\['1_gru'\]\['bias'\] of shape \(12,\) is missing"):
        levels_of(layer, {"0_gru": params["0_gru"]}, "Lib")
    with pytest.raises(ValueError, match="is missing"):
        levels_of(layer, {}, "Lib")


def test_arrays_that_make_no_layer():
    _, params = made(rnnx.gru(4))
    unit = Unit("gru", {"width": 4}, {**params, "bias": np.zeros(9, np.float32)})
    with pytest.raises(ValueError, match=r"\['bias'\] has shape \(9,\), expected \(12,\)"):
        assemble([Level(unit)])
    unit = Unit("gru", {"width": 4}, {name: np.asarray(p, np.float64) for name, p in params.items()})
    with pytest.raises(ValueError, match="the weights are float64, which JAX would round to float32"):
        assemble([Level(unit)])
    with jax.enable_x64(True):
        layer, whole = assemble([Level(unit)])
        assert str(layer) == "gru(width=4, param_dtype=dtype('float64'))"
        assert rnnx.unroll(layer, whole, jnp.ones((1, 2, 3)))[0].dtype == jnp.float64


def test_no_layer():
    with pytest.raises(TypeError, match="expected a Layer"):
        levels_of(rnnx.cells.gru(4), {}, "Lib")


def test_within_jit():
    layer, params = made(rnnx.stack(rnnx.gru(4), rnnx.gru(4)))
    moved = jax.jit(lambda params: assemble(levels_of(layer, params, "Lib"))[1])(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), moved, params))
