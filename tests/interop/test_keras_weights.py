"""Weights from and to Keras, on its JAX backend, and in float32: its operations cut float64 down to that."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import BATCH, FEATURES, LENGTHS, TIME, WIDTH, agree, assert_same_bits, inputs, random_like, random_params

import rnnx
from rnnx.interop.keras import from_keras, to_keras

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
assert keras.backend.backend() == "jax"

KINDS = {
    "elman": ("SimpleRNN", {}, lambda **o: rnnx.elman(WIDTH, **o)),
    "lstm": ("LSTM", {}, lambda **o: rnnx.lstm(WIDTH, **o)),
    "gru": ("GRU", {}, lambda **o: rnnx.gru(WIDTH, **o)),
    "gru reset before": ("GRU", {"reset_after": False}, lambda **o: rnnx.gru(WIDTH, reset_after=False, **o)),
}
MASK = np.arange(TIME) < LENGTHS[:, None]


def recurrent(kind, dtype="float32", **options):
    name, given, _ = KINDS[kind]
    every = {"recurrent_initializer": "zeros"} if dtype == "bfloat16" else {}  # an orthogonal one does not exist
    every |= {"return_sequences": True, "return_state": True, "zero_output_for_mask": True, "dtype": dtype}
    return getattr(keras.layers, name)(WIDTH, **{**every, **given, **options})


def built(layer, features=FEATURES):
    with jax.numpy_rank_promotion("allow"):
        layer.build((BATCH, TIME, features))
    return layer


def variables(layers):
    return [v for layer in layers for v in layer.trainable_variables]


def converted(layers):
    """`from_keras`, as a function of the values of the trainable variables."""

    def convert(weights):
        with keras.StatelessScope(state_mapping=list(zip(variables(layers), weights))):
            return from_keras(layers if len(layers) > 1 else layers[0])

    return convert


def run(layers, mask):
    def theirs(weights, xs):
        states = []
        for layer in layers:
            count = len(layer.trainable_variables)
            its, weights = weights[:count], weights[count:]
            (xs, *new), _ = layer.stateless_call(its, layer.non_trainable_variables, xs, mask=mask)
            states += new
        return states, xs

    return theirs


@pytest.mark.parametrize("kind", KINDS)
def test_two_levels_both_directions_and_masks(kind):
    layers = [built(keras.layers.Bidirectional(recurrent(kind))), built(recurrent(kind), 2 * WIDTH)]
    weights = random_like([v.value for v in variables(layers)], "float32")
    agree(converted(layers), run(layers, MASK), weights, "float32", LENGTHS)


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_without_bias(kind):
    layers = [built(recurrent(kind, use_bias=False))]
    weights = random_like([v.value for v in variables(layers)], "float32")
    agree(converted(layers), run(layers, None), weights, "float32")


def test_a_sequential_model_leaves_what_has_no_weights_behind():
    layers = keras.layers
    with jax.numpy_rank_promotion("allow"):
        model = keras.Sequential(
            [
                keras.Input((TIME, FEATURES)),
                layers.Masking(),
                layers.SimpleRNN(WIDTH, activation="relu", return_sequences=True),
                layers.Dropout(0.5),
                layers.RNN(layers.LSTMCell(WIDTH), return_sequences=True),
            ]
        )
    layer, params = from_keras(model)
    assert [str(child) for _, child in layer.spec.children] == ["elman(width=4, activation=relu)", "lstm(width=4)"]
    model.set_weights([0.5 * np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    layer, params = from_keras(model)
    with jax.numpy_rank_promotion("allow"):
        expected = model(inputs("float32"))
    np.testing.assert_allclose(rnnx.unroll(layer, params, inputs("float32"))[1], expected, atol=1e-5)
    for one, weights in zip((model.layers[1], model.layers[3]), to_keras(layer, params, model)):
        one.set_weights(weights)
    assert_same_bits(from_keras(model)[1], params)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_identity(kind, dtype):
    with jax.enable_x64(dtype == "float64"):
        one = KINDS[kind][2](param_dtype=jnp.dtype(dtype))
        layer = rnnx.stack(rnnx.bidirectional(one), one)
        params = random_params(layer, dtype)
        net = [keras.layers.Bidirectional(recurrent(kind, dtype), dtype=dtype), recurrent(kind, dtype)]
        for theirs, features, weights in zip(net, (FEATURES, 2 * WIDTH), to_keras(layer, params)):
            built(theirs, features).set_weights(weights)
        back, same = from_keras(net)
        assert str(back) == str(layer)
        assert_same_bits(same, params)
        for a, b in zip(to_keras(layer, params, net), to_keras(layer, params)):
            assert_same_bits(a, b)
        assert_same_bits(from_keras(net[1])[1], params[f"1_{one.spec.name}"])


def test_what_cannot_be_converted_says_why():
    lstm, gru, elman = rnnx.lstm(WIDTH), rnnx.gru(WIDTH), rnnx.elman(WIDTH)
    params = random_params(lstm, "float32")
    for options, message in [
        ({"recurrent_activation": "hard_sigmoid"}, "recurrent_activation='hard_sigmoid', but rnnx.lstm uses sigmoid"),
        ({"activation": "relu"}, "activation='relu', but rnnx.lstm uses tanh"),
        ({"go_backwards": True}, "go_backwards=True, which is converted only in the backward layer"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_keras(built(recurrent("lstm", **options)))
    with pytest.raises(ValueError, match="has the activation <function softmax"):
        from_keras(built(recurrent("elman", activation="softmax")))
    with pytest.raises(ValueError, match="has no weights yet"):
        from_keras(recurrent("lstm"))
    with pytest.raises(ValueError, match="merge_mode='sum'"):
        from_keras(built(keras.layers.Bidirectional(recurrent("lstm"), merge_mode="sum")))
    with pytest.raises(TypeError, match="but got Dense; if a model has other layers"):
        from_keras([built(recurrent("lstm")), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match="but got an RNN of StackedRNNCells"):
        from_keras(keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.LSTMCell(4)]))
    with pytest.raises(ValueError, match=r"level 0: lstm.*/kernel has shape \(3, 16\), expected \(5, 16\)"):
        to_keras(lstm, params, built(recurrent("lstm"), 5))
    with pytest.raises(ValueError, match=r"the layer has lstm\(width=4\), but `like` has a GRU of 4 units"):
        to_keras(lstm, params, built(recurrent("gru")))
    with pytest.raises(ValueError, match=r"has no bias, but that of the layer, \(16,\), is not zero"):
        to_keras(lstm, params, built(recurrent("lstm", use_bias=False)))
    with pytest.raises(ValueError, match="reset_after=False, but the layer has True; they cannot be converted"):
        to_keras(gru, random_params(gru, "float32"), built(recurrent("gru reset before")))
    with pytest.raises(ValueError, match="is relu, unlike that of the layer"):
        to_keras(elman, random_params(elman, "float32"), built(recurrent("elman", activation="relu")))
    zero = {**params, "bias": jnp.zeros(4 * WIDTH)}
    assert len(to_keras(lstm, zero, built(recurrent("lstm", use_bias=False)))) == 2
