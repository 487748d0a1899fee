"""Weights from and to the cells of Flax, linen and nnx."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from flax import nnx
from peers import (
    BATCH,
    FEATURES,
    LENGTHS,
    TIME,
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
from rnnx.interop.flax import from_flax, to_flax
from rnnx.testing import assert_close, eps

KINDS = {
    "SimpleCell": ("elman", rnnx.elman),
    "LSTMCell": ("lstm", rnnx.lstm),
    "OptimizedLSTMCell": ("lstm", rnnx.lstm),
    "GRUCell": ("gru", rnnx.gru),
}
MGUS = {
    "MGUCell": functools.partial(rnnx.mgu, WIDTH, reset_after=True),
    "MGUCell without reset": functools.partial(rnnx.ugrnn, WIDTH),
}
LINEN = [("SimpleCell", "float64"), ("LSTMCell", "float64"), ("OptimizedLSTMCell", "float32"), ("GRUCell", "float64")]
NNX = [("SimpleCell", "float64"), ("LSTMCell", "float32"), ("OptimizedLSTMCell", "float64"), ("GRUCell", "float64")]


def linen(name, dtype="float32", **options):
    if name == "MGUCell without reset":
        name, options = "MGUCell", {"reset_gate": False, **options}
    return getattr(nn, name)(WIDTH, param_dtype=jnp.dtype(dtype), **options)


def images(rank, dtype="float32"):
    return jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, TIME, *(5, 4, 3)[:rank], 2)), dtype)


def conv(rank, dtype="float32", **options):
    return linen("ConvLSTMCell", dtype, kernel_size=(3, 2, 3)[:rank], **options)


def conv_params(layer, rank, dtype="float32"):
    return random_like(jax.eval_shape(layer.init, jax.random.key(0), images(rank, dtype)), dtype)


def nnx_cell(name, features=FEATURES, dtype="float32", **options):
    numbers = {"dtype": jnp.dtype(dtype), "param_dtype": jnp.dtype(dtype)}
    return getattr(nnx, name)(features, WIDTH, rngs=nnx.Rngs(0), **numbers, **options)


def h_first(kind, carry):
    return rnnx.cells.LSTMCarry(carry[1], carry[0]) if kind == "lstm" else carry


@pytest.mark.parametrize(("name", "dtype"), LINEN)
def test_linen_two_levels_both_directions_and_lengths(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        rnns = [nn.RNN(linen(name, dtype)) for _ in range(3)]
        modules = [nn.Bidirectional(*rnns[:2]), rnns[2]]
        xs, variables = inputs(dtype), []
        for module in modules:
            xs, its = module.init_with_output(jax.random.key(0), xs)
            variables.append(its["params"])

        def theirs(weights, xs):
            carries = []
            for module, params in zip(modules, weights):
                run = {"seq_lengths": LENGTHS, "return_carry": True}
                carry, xs = module.apply({"params": params}, xs, **run)
                pair = carry if isinstance(module, nn.Bidirectional) else [carry]
                carries += [h_first(KINDS[name][0], carry) for carry in pair]
            return carries, jnp.where(jnp.arange(TIME)[None, :, None] < LENGTHS[:, None, None], xs, 0)

        agree(lambda weights: from_flax(modules, weights), theirs, random_like(variables, dtype), dtype, LENGTHS)


@pytest.mark.parametrize("name", MGUS)
def test_linen_mgu(name):
    with jax.enable_x64(True):
        rnn = nn.RNN(linen(name, "float64"), return_carry=True)
        variables = rnn.init(jax.random.key(0), inputs("float64"))
        agree(lambda weights: from_flax(rnn, weights), rnn.apply, random_like(variables, "float64"), "float64")


@pytest.mark.parametrize(("rank", "dtype"), [(1, "float64"), (2, "float32"), (3, "float64")])
def test_linen_conv_lstm(rank, dtype, monkeypatch):
    with jax.enable_x64(dtype == "float64"):
        xs = images(rank, dtype)
        monkeypatch.setattr(peers, "inputs", lambda dtype: xs)
        rnn = nn.RNN(conv(rank, dtype), return_carry=True)
        variables = random_like(jax.eval_shape(rnn.init, jax.random.key(0), xs), dtype)

        def theirs(variables, xs):
            carry, ys = rnn.apply(variables, xs)
            return h_first("lstm", carry), ys

        agree(lambda weights: from_flax(rnn, weights), theirs, variables, dtype)


def test_linen_conv_lstm_two_levels_both_directions_and_without_bias():
    xs = images(1)
    rnns = [nn.RNN(conv(1, use_bias=bias)) for bias in (True, False, True)]
    modules, weights, ys = [nn.Bidirectional(*rnns[:2]), rnns[2]], [], xs
    for module in modules:
        weights.append(random_like(jax.eval_shape(module.init, jax.random.key(0), ys), "float32"))
        with jax.numpy_rank_promotion("allow"):
            ys = module.apply(weights[-1], ys)
    layer, params = from_flax(modules, weights)
    np.testing.assert_allclose(rnnx.unroll(layer, params, xs)[1], ys, atol=2e-5)
    back = from_flax(modules, to_flax(layer, params, modules))
    assert str(back[0]) == str(layer)
    assert_close(back[1], params, 1.2e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_mgu_and_conv_lstm_there_and_back(dtype):
    with jax.enable_x64(dtype == "float64"):
        for name, make in MGUS.items():
            one, cell = make(param_dtype=jnp.dtype(dtype)), linen(name, dtype)
            rnn = nn.RNN(cell)
            for layer, modules in [
                (one, cell),
                (rnnx.stack(rnnx.bidirectional(one), one), [nn.Bidirectional(rnn, rnn), rnn]),
            ]:
                params = random_params(layer, dtype)
                back, same = from_flax(modules, to_flax(layer, params, modules))
                assert str(back) == str(layer)
                assert_same_bits(same, params)
        for rank in (1, 2, 3):
            cell = conv(rank, dtype)
            one = rnnx.conv_lstm(WIDTH, kernel_size=cell.kernel_size, param_dtype=jnp.dtype(dtype))
            params = conv_params(one, rank, dtype)
            back, same = from_flax(nn.RNN(cell), to_flax(one, params, nn.RNN(cell)))
            assert str(back) == str(one)
            for kernel in ("input_kernel", "recurrent_kernel"):
                np.testing.assert_array_equal(same[kernel], params[kernel], strict=True)
            assert same["bias"].dtype == dtype  # to b - 1 and back
            np.testing.assert_allclose(
                *(p["bias"].astype(float) for p in (same, params)), rtol=0, atol=jnp.finfo(dtype).eps
            )


def test_linen_cells_with_an_activation_and_with_partitioned_params():
    cell = nn.SimpleCell(
        WIDTH, activation_fn=nn.relu, kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
    )
    rnn = nn.RNN(cell)
    variables = rnn.init(jax.random.key(0), inputs("float32"))
    layer, params = from_flax(rnn, variables)
    assert str(layer) == "elman(width=4, activation=relu)"
    with jax.numpy_rank_promotion("allow"):
        expected = rnn.apply(variables, inputs("float32"))
    np.testing.assert_allclose(rnnx.unroll(layer, params, inputs("float32"))[1], expected, atol=eps(64))
    assert_same_bits(from_flax(cell, variables["params"]["cell"])[1], params)


@pytest.mark.parametrize(("name", "dtype"), NNX)
def test_nnx_two_levels_both_directions_and_lengths(name, dtype):
    """Cell by cell: nnx.RNN cannot run where its rngs are traced."""
    kind = KINDS[name][0]
    with jax.enable_x64(dtype == "float64"):
        cells = [nnx_cell(name, n, dtype) for n in (FEATURES, FEATURES, 2 * WIDTH)]
        graph, state = nnx.split(cells)

        def merged(state):
            forward, backward, deeper = nnx.merge(graph, state)
            return [(forward, backward), deeper]

        def theirs(state, xs):
            carries = []
            for pair in merged(state):
                outputs = []
                for backward, cell in enumerate(pair if isinstance(pair, tuple) else (pair,)):
                    carry, ys = walked(cell, zeros(kind, dtype), xs, LENGTHS, bool(backward))
                    carries.append(h_first(kind, carry))
                    outputs.append(ys)
                xs = jnp.concatenate(outputs, axis=-1)
            return carries, xs

        agree(lambda state: from_flax(merged(state)), theirs, random_like(state, dtype), dtype, LENGTHS)


def test_nnx_whole_modules_and_back_into_them():
    make = nnx_cell("LSTMCell"), nnx_cell("LSTMCell")
    module = nnx.Bidirectional(*(nnx.RNN(cell) for cell in make))
    layer = rnnx.bidirectional(rnnx.lstm(WIDTH))
    params = random_params(layer, "float32")
    before = from_flax(module)[1]
    weights = to_flax(layer, params, module)
    assert_same_bits(from_flax(module)[1], before)  # the module is left alone
    nnx.update(module, weights)
    with jax.numpy_rank_promotion("allow"):
        expected = module(inputs("float32"))
    np.testing.assert_allclose(rnnx.unroll(layer, params, inputs("float32"))[1], expected, atol=1e-5)
    assert_same_bits(from_flax(module)[1], params)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", KINDS)
def test_there_and_back_is_the_identity(name, dtype):
    kind, make = KINDS[name]
    with jax.enable_x64(dtype == "float64"):
        one, cell = make(WIDTH, param_dtype=jnp.dtype(dtype)), linen(name, dtype)
        rnn = nn.RNN(linen(name, dtype))
        nets = [
            (one, cell),
            (rnnx.bidirectional(one), (cell, cell)),
            (rnnx.stack(one, one), [rnn, rnn]),
            (rnnx.stack(rnnx.bidirectional(one), one), [nn.Bidirectional(rnn, rnn), rnn]),
        ]
        for layer, modules in nets:
            params = random_params(layer, dtype)
            back, same = from_flax(modules, to_flax(layer, params, modules))
            assert str(back) == str(layer)
            assert_same_bits(same, params)
        params = random_params(one, dtype)
        if kind == "gru":
            params["recurrent_bias"] = jnp.zeros_like(params["recurrent_bias"])
        cell = nnx_cell(name)
        nnx.update(cell, to_flax(one, params, cell))
        assert_same_bits(from_flax(cell)[1], params)
        assert_same_bits(from_flax(nnx.RNN(cell))[1], params)


def test_without_modules_they_are_those_of_the_plain_cells():
    layer = rnnx.stack(rnnx.lstm(WIDTH), rnnx.dropout(0.5), rnnx.bidirectional(rnnx.gru(WIDTH)))
    lstm, (forward, backward) = to_flax(layer, random_params(layer, "float32"))
    for cell, features, params in (("LSTMCell", 3, lstm), ("GRUCell", 4, forward), ("GRUCell", 4, backward)):
        carry = jax.tree.map(jnp.asarray, zeros(KINDS[cell][0], "float32"))
        made = linen(cell).init(jax.random.key(0), carry, jnp.ones((BATCH, features)))["params"]
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)
    for name, make in MGUS.items():
        params = to_flax(make(), random_params(make(), "float32"))
        made = linen(name).init(jax.random.key(0), jnp.ones((BATCH, WIDTH)), jnp.ones((BATCH, 3)))["params"]
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, made)
    layer, rnn = rnnx.conv_lstm(WIDTH, kernel_size=3), nn.RNN(nn.ConvLSTMCell(WIDTH, (3, 3)))
    params = conv_params(layer, 2)
    weights = to_flax(layer, params)
    expected = jax.jit(rnn.apply)({"params": {"cell": weights}}, images(2))
    np.testing.assert_allclose(rnnx.unroll(layer, params, images(2))[1], expected, atol=2e-5)


def test_what_cannot_be_converted_says_why():
    gru, before, lstm = rnnx.gru(WIDTH), rnnx.gru(WIDTH, reset_after=False), rnnx.lstm(WIDTH)
    with pytest.raises(ValueError, match=r"has no recurrent_bias, but that of the layer, \(4,\), is not zero"):
        to_flax(gru, random_params(gru, "float32"), nnx_cell("GRUCell"))
    with pytest.raises(ValueError, match="resets after the recurrent product"):
        to_flax(before, random_params(before, "float32"))
    params = random_params(lstm, "float32")
    with pytest.raises(ValueError, match=r"lstm\(width=4\), but `like` has LSTMCell with 5 units"):
        to_flax(lstm, params, nn.LSTMCell(5))
    with pytest.raises(ValueError, match=r"input_kernel has shape \(3, 16\), expected \(2, 16\)"):
        to_flax(lstm, params, nnx_cell("LSTMCell", 2))
    elman = rnnx.elman(WIDTH, activation=jax.nn.relu)
    with pytest.raises(ValueError, match="the layer's activation is"):
        to_flax(elman, random_params(elman, "float32"), nn.SimpleCell(WIDTH))
    given = to_flax(lstm, params)
    for option, function in (("gate_fn", nn.hard_sigmoid), ("activation_fn", nn.relu)):
        with pytest.raises(ValueError, match=f"LSTMCell with {option}="):
            from_flax(nn.LSTMCell(WIDTH, **{option: function}), given)
    with pytest.raises(ValueError, match="residual=True"):
        from_flax(nn.SimpleCell(WIDTH, residual=True), {})
    with pytest.raises(ValueError, match="its own carry_init"):
        from_flax(nn.LSTMCell(WIDTH, carry_init=nn.initializers.ones), given)
    with pytest.raises(ValueError, match="reverse=True"):
        from_flax(nn.RNN(nn.LSTMCell(WIDTH), reverse=True), given)
    with pytest.raises(ValueError, match="default merge_fn"):
        from_flax(nn.Bidirectional(nn.RNN(nn.LSTMCell(4)), nn.RNN(nn.LSTMCell(4)), merge_fn=jnp.add), given)
    with pytest.raises(TypeError, match=r"but got flax\.linen\.linear\.Dense"):
        from_flax(nn.Dense(WIDTH), given)
    with pytest.raises(ValueError, match="holds its weights; leave params out"):
        from_flax(nnx_cell("LSTMCell"), given)
    with pytest.raises(ValueError, match="pass its params too"):
        from_flax(nn.LSTMCell(WIDTH))
    with pytest.raises(ValueError, match="a list of 2 modules, params must be such a list too, but got a dict"):
        from_flax([nn.LSTMCell(WIDTH)] * 2, given)
    with pytest.raises(ValueError, match=r"level 0: the params of a LSTMCell must have the entries"):
        from_flax(nn.LSTMCell(WIDTH), {name: p for name, p in given.items() if name != "hf"})
    with pytest.raises(ValueError, match=r"level 0: ig/kernel has shape \(2, 4\), expected \(3, 4\)"):
        from_flax(nn.LSTMCell(WIDTH), {**given, "ig": {"kernel": jnp.ones((2, 4))}})
    with pytest.raises(ValueError, match=r"hg must have the entries \['bias', 'kernel'\], but got \['kernel'\]"):
        from_flax(nn.LSTMCell(WIDTH), {**given, "hg": {"kernel": jnp.ones((4, 4))}})
    with pytest.raises(ValueError, match=r"hg/bias is int32\[4\], but weights must be real floating"):
        from_flax(nn.LSTMCell(WIDTH), {**given, "hg": {"kernel": jnp.ones((4, 4)), "bias": jnp.arange(4)}})
    with pytest.raises(ValueError, match="float64, which JAX would round to float32"):
        from_flax(nn.LSTMCell(WIDTH), {**given, "hg": {"kernel": np.ones((4, 4)), "bias": np.ones(4)}})


def test_refused_mgus_say_why():
    after, before = rnnx.mgu(WIDTH, reset_after=True), rnnx.mgu(WIDTH)
    with pytest.raises(ValueError, match=r"MGUCell resets after .* but this one \(reset_after=False\) before it"):
        to_flax(before, random_params(before, "float32"))
    params = random_params(after, "float32")
    with pytest.raises(ValueError, match=r"mgu\(width=4\), but `like` has MGUCell with 4 units, without reset_gate"):
        to_flax(after, params, linen("MGUCell without reset"))
    with pytest.raises(ValueError, match="MGUCell with activation_fn="):
        from_flax(linen("MGUCell", activation_fn=nn.relu), to_flax(after, params))
    with pytest.raises(ValueError, match=r"hn must have the entries \['kernel'\]"):
        from_flax(linen("MGUCell without reset"), to_flax(after, params))


def test_refused_convolutions_say_why():
    layer = rnnx.conv_lstm(WIDTH)
    params = conv_params(layer, 2)
    weights = to_flax(layer, params)
    for options, message in (
        ({"peephole": True}, "has no peepholes"),
        ({"strides": (1, 2)}, "strides its convolution of h too"),
        ({"padding": "VALID"}, "only 'SAME' keeps the image's size"),
    ):
        other = rnnx.stack(rnnx.conv_lstm(WIDTH, **options))
        with pytest.raises(ValueError, match=message):
            to_flax(other, conv_params(other, 2))
    for options, message in (
        ({"strides": 2}, "strides=2 cannot be converted: it strides the convolution of h too"),
        ({"padding": "VALID"}, "padding='VALID' cannot be converted"),
        ({"carry_init": nn.initializers.ones}, "its own carry_init"),
    ):
        with pytest.raises(ValueError, match=message):
            from_flax(nn.ConvLSTMCell(WIDTH, (3, 3), **options), weights)
    with pytest.raises(ValueError, match=r"ih/kernel has shape \(3, 3, 2, 16\), expected \(5, 5, any, 16\)"):
        from_flax(nn.ConvLSTMCell(WIDTH, (5, 5)), weights)
    with pytest.raises(ValueError, match=r"the layer's kernel_size is \(3, 3\), but that of `like` is \(5, 5\)"):
        to_flax(layer, params, nn.ConvLSTMCell(WIDTH, (5, 5)))
    with pytest.raises(ValueError, match=r"use_bias=False\) has no bias"):
        to_flax(layer, params, nn.ConvLSTMCell(WIDTH, (3, 3), use_bias=False))
    with pytest.raises(ValueError, match=r"\['bias'\] has shape \(9,\), expected \(16,\)"):
        to_flax(layer, {**params, "bias": jnp.zeros(9)})
    with pytest.raises(ValueError, match="is missing"):
        to_flax(layer, {})
    learned = rnnx.scan(rnnx.learned_carry(rnnx.cells.conv_lstm(WIDTH)))
    with pytest.raises(ValueError, match="conv_lstm with learned_carry=True has no equivalent"):
        to_flax(learned, conv_params(learned, 2))
