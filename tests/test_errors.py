"""Bad input: the error says what was given, what was expected and what to do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx

pytestmark = pytest.mark.quick

XS = jnp.ones((2, 5, 3))
LAYER = rnnx.lstm(4)
PARAMS = LAYER.init(jax.random.key(0), XS)


def refused(error, *words, **arguments):
    """`unroll` raises, and the message holds all the words."""
    given = {"layer": LAYER, "params": PARAMS, "xs": XS, **arguments}
    with pytest.raises(error) as raised:
        rnnx.unroll(given.pop("layer"), given.pop("params"), given.pop("xs"), **given)
    for word in words:
        assert word in str(raised.value), str(raised.value)


def test_xs():
    refused(ValueError, "[batch, time, ...]", "(3,)", xs=jnp.ones(3))
    refused(ValueError, "no array", xs={})
    refused(ValueError, "(2, 5)", "(2, 4)", xs={"a": XS, "b": XS[:, :4]})
    refused(ValueError, "['input_kernel']", "(3, 16)", "(7, 16)", "lstm(width=4)", xs=jnp.ones((2, 5, 7)))
    refused(ValueError, "floating features", "int32", "nn.Embed", xs=jnp.ones((2, 5), int))
    refused(ValueError, "floating features", "xs[..., None]", xs=jnp.ones((2, 5)))


def test_params():
    refused(ValueError, "['bias']", "missing", params={k: v for k, v in PARAMS.items() if k != "bias"})
    refused(ValueError, "extra", "unexpected", params={**PARAMS, "extra": jnp.ones(2)})
    refused(ValueError, "layer.init", params=rnnx.lstm(5).init(jax.random.key(0), XS))


def test_lengths():
    refused(ValueError, "lengths", "(3,)", "batch size 2", lengths=jnp.array([1, 2, 3]))
    refused(ValueError, "(2, 1)", lengths=jnp.ones((2, 1), int))
    refused(TypeError, "integers", "float32", lengths=jnp.array([1.0, 2.0]))
    refused(ValueError, "between 2 and 6", "5 steps", lengths=jnp.array([2, 6]))
    with pytest.raises(ValueError, match="between 2 and 6"):  # the values are known, though the inputs are not
        jax.jit(lambda xs: rnnx.unroll(LAYER, PARAMS, xs, lengths=np.array([2, 6])))(XS)
    refused(ValueError, "between -1 and 3", lengths=jnp.array([-1, 3]))


def test_lengths_are_clamped_under_jit():
    run = jax.jit(lambda lengths: rnnx.unroll(LAYER, PARAMS, XS, lengths=lengths))
    chexed = run(jnp.array([0, 5]))
    for a, b in zip(jax.tree.leaves(run(jnp.array([-3, 99]))), jax.tree.leaves(chexed)):
        np.testing.assert_array_equal(a, b)


def test_resets():
    refused(ValueError, "resets", "(2, 4)", "(2, 5)", resets=jnp.zeros((2, 4), bool))
    refused(TypeError, "booleans", "int32", resets=jnp.zeros((2, 5), int))


def test_carry():
    carry, _ = rnnx.unroll(LAYER, PARAMS, jnp.ones((4, 5, 3)))
    refused(ValueError, "batch size 2", "(4, 4)", "(2, 4)", carry=carry)
    refused(ValueError, ".h of shape (2, 4) is missing", carry=carry.h)
    refused(ValueError, "int32", "float32", carry=jax.tree.map(lambda c: c[:2].astype(int), carry))
    both = rnnx.bidirectional(LAYER)
    params = both.init(jax.random.key(0), XS)
    carry, _ = rnnx.unroll(both, params, XS)
    refused(ValueError, "bidirectional", "both directions", layer=both, params=params, carry=carry)


def test_tokens():
    lm = rnnx.stack(nn.Embed(5, 4), LAYER)
    tokens = jnp.array([[0, 4, 5]])
    params = lm.init(jax.random.key(0), tokens)
    refused(ValueError, "between 0 and 5", "0 to 4", layer=lm, params=params, xs=tokens)
    refused(ValueError, "between -1 and 4", layer=lm, params=params, xs=jnp.array([[-1, 4, 2]]))
    run = jax.jit(lambda tokens: rnnx.unroll(lm, params, tokens)[1])
    np.testing.assert_array_equal(run(tokens), run(jnp.array([[0, 4, 4]])))
    np.testing.assert_array_equal(run(-tokens), run(jnp.array([[0, 0, 0]])))
    rnnx.unroll(lm, params, jnp.array([[0, 4, -1]]), lengths=jnp.array([2]))  # a pad may be anything
    ok, lengths = jnp.array([[0, 4, 2]]), jnp.array([2])  # known values, closed over by a function that is traced
    jax.jit(lambda params: rnnx.unroll(lm, params, ok, lengths=lengths))(params)
    carry = lm.initial_carry(params, ok, None)
    with pytest.raises(ValueError, match="between 99 and 99"):
        rnnx.generate(lm, params, carry, jnp.array([99]), steps=2, sample=rnnx.sampler(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="got only integers"):
        rnnx.unroll(rnnx.dropout(0.5), {}, ok, key=jax.random.key(0))


def test_layers_and_cells():
    refused(TypeError, "rnnx.scan(cell)", layer=rnnx.cells.lstm(4))
    with pytest.raises(TypeError, match=r"rnnx.scan\(cell\)"):
        rnnx.stack(rnnx.cells.lstm(4))
    with pytest.raises(TypeError, match=r"Layer or a flax.linen module"):
        rnnx.bidirectional(3)
    for thing, hint in (
        (nn.LSTMCell(3), r"rnnx.lstm\(width\)"),
        ([LAYER], r"stack\(\*layers\)"),
        (jax.nn.relu, r"rnnx.pointwise\(function\)"),
    ):
        with pytest.raises(TypeError, match=hint):
            rnnx.stack(thing)
    with pytest.raises(TypeError, match="function"):
        rnnx.pointwise(3)
    for thing in (LAYER, nn.LSTMCell(3)):
        with pytest.raises(TypeError, match="scan takes a Cell"):
            rnnx.scan(thing)
    for make in (rnnx.stack, rnnx.parallel):
        with pytest.raises(ValueError, match="at least one layer"):
            make()
    for make in (rnnx.elman, rnnx.lstm, rnnx.gru):
        with pytest.raises(ValueError, match="width is 0"):
            make(0)
    with pytest.raises(ValueError, match=r"rate is 1.0"):
        rnnx.dropout(1.0)
    with pytest.raises(ValueError, match="checkpoint_every is 0"):
        rnnx.scan(rnnx.cells.gru(4), checkpoint_every=0)
    with pytest.raises(ValueError, match="n is 0"):
        rnnx.repeat(LAYER, 0)


def test_widths_that_do_not_fit():
    for layer, word in ((rnnx.residual(rnnx.gru(4)), "residual: gru"), (rnnx.repeat(rnnx.gru(4), 2), "repeat: .*gru")):
        with pytest.raises(ValueError, match=word):
            rnnx.unroll(layer, layer.init(jax.random.key(0), XS), XS)


def test_modules_with_other_collections():
    with pytest.raises(ValueError, match=r"BatchNorm has the collections \['batch_stats'\].*LayerNorm"):
        rnnx.stack(nn.BatchNorm(use_running_average=False)).init(jax.random.key(0), XS)


def test_a_step_that_changes_the_carry():
    cell = rnnx.cell(lambda key, x: {}, lambda w, x, key: jnp.zeros(2), lambda w, h, x: (jnp.zeros(3), x))
    with pytest.raises(TypeError, match=r"step was given a carry \['float32\[2\]'\].*returned \['float32\[3\]'\]"):
        rnnx.unroll(rnnx.scan(cell), {}, XS)
    cell = rnnx.cell(lambda key, x: {}, lambda w, x, key: jnp.zeros(2, int), lambda w, h, x: (h + 0.5, x))
    with pytest.raises(TypeError, match=r"int32.*float32"):  # it would be cut down to whole numbers
        rnnx.unroll(rnnx.scan(cell), {}, XS)


def test_generate_and_sampler():
    layer = rnnx.reverse(rnnx.gru(3))
    params = layer.init(jax.random.key(0), XS)
    with pytest.raises(ValueError, match="needs a causal layer"):
        rnnx.generate(layer, params, None, XS[:, 0], steps=2, sample=lambda k, y: y, key=jax.random.key(0))
    layer = rnnx.gru(4)
    params = layer.init(jax.random.key(0), XS)
    carry = layer.initial_carry(params, XS, None)
    with pytest.raises(ValueError, match=r"sample returned shape \(2, 4\).*\(2, 3\)"):
        rnnx.generate(layer, params, carry, XS[:, 0], steps=2, sample=lambda k, y: y)
    with pytest.raises(ValueError, match="batch size 1"):
        rnnx.generate(layer, params, carry, XS[:1, 0], steps=2, sample=lambda k, y: y)
    for options in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=next(iter(options))):
            rnnx.sampler(**options)
