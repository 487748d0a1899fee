"""Weights from and to Haiku."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import (
    BATCH,
    FEATURES,
    LENGTHS,
    WIDTH,
    agree,
    assert_same_bits,
    inputs,
    random_like,
    random_params,
    walked,
    zeros,
)

import rnnx
from rnnx.interop.haiku import from_haiku, to_haiku
from rnnx.testing import eps

hk = pytest.importorskip("haiku")

KINDS = {
    "elman": (hk.VanillaRNN, lambda **o: rnnx.elman(WIDTH, activation=jax.nn.relu, **o)),
    "lstm": (hk.LSTM, lambda **o: rnnx.lstm(WIDTH, **o)),
    "gru": (hk.GRU, lambda **o: rnnx.gru(WIDTH, reset_after=False, **o)),
}


def step_of(kind, name=None, **options):
    @hk.without_apply_rng
    @hk.transform
    def step(x, state):
        return KINDS[kind][0](WIDTH, name=name, **options)(x, hk.LSTMState(*state) if kind == "lstm" else state)

    return step


def net(kind, names, dtype, lengths):
    """Params of modules of these names, and a function that runs them."""
    steps = {name: step_of(kind, name) for pair in names for name in pair}
    params, features = {}, FEATURES
    for pair in names:
        x = jnp.zeros((BATCH, features), dtype)
        for name in pair:
            params |= steps[name].init(jax.random.key(0), x, zeros(kind, dtype))
        features = len(pair) * WIDTH

    def run(params, xs):
        states = []
        for pair in names:
            outputs = []
            for backward, name in enumerate(pair):

                def one(state, x, step=steps[name]):
                    y, state = step.apply(params, x, state)
                    return tuple(state) if kind == "lstm" else state, y

                state, ys = walked(one, zeros(kind, dtype), xs, lengths, bool(backward))
                states.append(state)
                outputs.append(ys)
            xs = jnp.concatenate(outputs, axis=-1)
        return states, xs

    return random_like(params, dtype), run


@pytest.mark.parametrize(("kind", "dtype"), [*((k, "float64") for k in KINDS), ("lstm", "float32")])
def test_two_levels_both_directions_and_lengths(kind, dtype):
    with jax.enable_x64(dtype == "float64"):
        names = [("one", "other"), ("deeper",)]
        params, run = net(kind, names, dtype, LENGTHS)
        agree(lambda params: from_haiku(params, [("one", "other"), "deeper"]), run, params, dtype, LENGTHS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_within_a_larger_net_is_found(kind):
    """Against Haiku's own unrolling, the params named as it names them."""

    @hk.without_apply_rng
    @hk.transform
    def whole(xs):
        core = KINDS[kind][0](WIDTH)
        ys, _ = hk.dynamic_unroll(core, xs, core.initial_state(BATCH), time_major=False)
        return hk.Linear(2, name="head")(ys), ys

    params = random_like(whole.init(jax.random.key(0), inputs("float32")), "float32")
    layer, ours = from_haiku(params)
    _, ys = whole.apply(params, inputs("float32"))
    np.testing.assert_allclose(rnnx.unroll(layer, ours, inputs("float32"))[1], ys, atol=1e-5)
    assert set(to_haiku(layer, ours)) == set(params) - {"head"}


def test_one_bias_instead_of_two():
    step = step_of("elman", double_bias=False)
    x, h = jnp.ones((BATCH, FEATURES)), jnp.ones((BATCH, WIDTH))
    params = random_like(step.init(jax.random.key(0), x, h), "float32")
    layer, ours = from_haiku(params)
    carry, _ = rnnx.unroll(layer, ours, x[:, None], carry=h)
    np.testing.assert_allclose(carry, step.apply(params, x, h)[1], atol=eps(64))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_identity(kind, dtype):
    with jax.enable_x64(dtype == "float64"):
        one = KINDS[kind][1](param_dtype=jnp.dtype(dtype))
        name = {"elman": "vanilla_rnn"}.get(kind, kind)
        nets = {
            name: one,
            (name, f"{name}_1"): rnnx.bidirectional(one),
            ("levels", name, f"{name}_1"): rnnx.stack(one, one),
        }
        for names, layer in nets.items():
            names = list(names[1:]) if names[0] == "levels" else names
            params = random_params(layer, dtype)
            back, same = from_haiku(to_haiku(layer, params), names)
            assert str(back) == str(layer)
            if kind == "lstm":  # to b - 1 and back
                assert jax.tree.structure(same) == jax.tree.structure(params)
                for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(params)):
                    tolerance = {"float32": 1.2e-7, "float64": 2.3e-16, "bfloat16": 8e-3}[dtype]
                    assert a.dtype == b.dtype
                    assert np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")).max() <= tolerance
                others = [{**p, "bias": 0} for p in (same, params)] if names == name else [0, 0]
                assert_same_bits(*jax.tree.map(jnp.asarray, others))
            else:
                assert_same_bits(same, params)


def test_what_cannot_be_converted_says_why():
    after, tanh, lstm = rnnx.gru(WIDTH), rnnx.elman(WIDTH), rnnx.lstm(WIDTH)
    with pytest.raises(ValueError, match="resets before the recurrent product"):
        to_haiku(after, random_params(after, "float32"))
    with pytest.raises(ValueError, match=r"VanillaRNN is relu, but that of this rnnx\.elman is tanh"):
        to_haiku(tanh, random_params(tanh, "float32"))
    projected = rnnx.lstm(WIDTH, projection=2)
    with pytest.raises(ValueError, match="projection=2 has no equivalent"):
        to_haiku(projected, random_params(projected, "float32"))
    params = to_haiku(lstm, random_params(lstm, "float32"))
    with pytest.raises(ValueError, match=r"no module 'gru'.*the modules are \['lstm/linear'\]"):
        from_haiku(params, "gru")
    with pytest.raises(ValueError, match=r"recurrent modules \['a', 'b'\]; pass their names"):
        from_haiku(
            to_haiku(rnnx.stack(lstm, lstm), random_params(rnnx.stack(lstm, lstm), "float32"), ["a", "b"])
            | {"a": {"w_i": 1, "w_h": 1, "b": 1}, "b": {"w_i": 1, "w_h": 1, "b": 1}}
        )
    with pytest.raises(ValueError, match=r"lstm/linear must have the entries \['b', 'w'\], but got \['w'\]"):
        from_haiku({"lstm/linear": {"w": jnp.ones((7, 16))}}, "lstm")
    with pytest.raises(ValueError, match=r"lstm/linear/w has shape \(7, 12\), expected \(any, 16\)"):
        from_haiku({"lstm/linear": {"w": jnp.ones((7, 12)), "b": jnp.ones(16)}})
    with pytest.raises(ValueError, match=r"gru/b has shape \(11,\), expected \(12,\)"):
        from_haiku({"gru": {"w_i": jnp.ones((3, 12)), "w_h": jnp.ones((4, 12)), "b": jnp.ones(11)}})
