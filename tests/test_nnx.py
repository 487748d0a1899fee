"""Any Layer as a module of Flax nnx, and any recurrent cell of nnx as a Cell."""

import functools
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import rnnx
import rnnx.nnx
from rnnx.testing import StepByStep, assert_close, cotangent_of, eps, perturbed, weighted_sum, with_garbage_pads

BATCH, TIME, FEATURES, WIDTH = 4, 7, 3, 5
LENGTHS = np.array([7, 4, 0, 1])
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, [0, 3, 4]] = RESETS[1, [2, 6]] = RESETS[2, 1] = True
XS = jax.random.normal(jax.random.key(1), (BATCH, TIME, FEATURES))


def rnn_of(layer, xs=XS, **options):
    return rnnx.nnx.RNN(layer, xs, rngs=nnx.Rngs(0), **options)


# A Layer as a module.


@pytest.mark.parametrize(
    ("layer", "key"),
    [
        (rnnx.lstm(WIDTH), None),
        (rnnx.stack(rnnx.reverse(rnnx.elman(4)), rnnx.dropout(0.5), nn.Dense(2)), jax.random.key(5)),
    ],
    ids=["lstm", "stack with noise"],
)
def test_a_merged_module_runs_as_unroll_does_under_plain_jax(layer, key):
    """Values and gradients, with whatever in the pads: so it keeps all laws that the layer keeps."""
    xs = with_garbage_pads(XS, LENGTHS, np.nan)
    graph, state = nnx.split(rnn_of(layer))
    assert all(isinstance(v, nnx.Param) for v in jax.tree.leaves(state, is_leaf=lambda v: isinstance(v, nnx.Variable)))
    state = perturbed(state)
    params = jax.tree.unflatten(jax.tree.structure(layer.init(jax.random.key(0), XS)), jax.tree.leaves(state))
    options = {"lengths": LENGTHS, "resets": RESETS, "key": key}

    def ours(state):
        result = nnx.merge(graph, state)(xs, **options)
        return weighted_sum(result), result

    def theirs(params):
        result = rnnx.unroll(layer, params, xs, **options)
        return weighted_sum(result), result

    by_state, result = jax.jit(jax.grad(ours, has_aux=True))(state)
    by_params, expected = jax.jit(jax.grad(theirs, has_aux=True))(params)
    assert_close((result, jax.tree.leaves(by_state)), (expected, jax.tree.leaves(by_params)), eps(64))


def test_a_carry_goes_on_and_length_0_returns_it():
    rnn = rnn_of(rnnx.gru(WIDTH))
    carry, first = rnn(XS[:, :3])
    carry, second = rnn(XS[:, 3:], carry=carry)
    assert_close((carry, jnp.concatenate([first, second], axis=1)), rnn(XS), eps(64))
    after, ys = rnn(XS, carry, np.zeros(BATCH, int))
    chex.assert_trees_all_equal(after, carry)
    assert not ys.any()


def test_several_batch_axes_with_lengths():
    layer, random = rnnx.lstm(WIDTH), np.random.default_rng(0)
    xs = random.normal(size=(2, 3, TIME, FEATURES)).astype(np.float32)
    lengths, resets = random.integers(0, TIME + 1, (2, 3)), random.random((2, 3, TIME)) < 0.3
    rnn = rnn_of(layer, jax.ShapeDtypeStruct(xs.shape, xs.dtype), batch_axes=2)
    result = rnn(xs, lengths=lengths, resets=resets)
    params = nnx.to_pure_dict(nnx.state(rnn))["params"]
    rows = [rnnx.unroll(layer, params, xs[i], lengths=lengths[i], resets=resets[i]) for i in range(2)]
    assert_close(result, jax.tree.map(lambda *parts: jnp.stack(parts), *rows))


def test_params_can_be_put_in():
    layer = rnnx.stack(rnnx.lstm(WIDTH), rnnx.dropout(0.5), rnnx.gru(2))
    rnn, params = rnn_of(layer), layer.init(jax.random.key(3), XS)
    nnx.update(rnn, {"params": params})
    assert_close(rnn(XS), rnnx.unroll(layer, params, XS), eps(64))


def test_transforms_of_nnx():
    layer = rnnx.elman(WIDTH)
    rnn = rnn_of(layer)
    _, expected = rnn(XS)
    chex.assert_trees_all_close(nnx.jit(lambda rnn, xs: rnn(xs)[1])(rnn, XS), expected, atol=eps(64))
    chex.assert_trees_all_close(nnx.remat(lambda rnn, xs: rnn(xs)[1])(rnn, XS), expected, atol=eps(64))
    by_rnn = nnx.grad(lambda rnn: (rnn(XS)[1] ** 2).sum())(rnn)
    graph, state = nnx.split(rnn)
    by_state = jax.grad(lambda state: (nnx.merge(graph, state)(XS)[1] ** 2).sum())(state)
    assert_close(nnx.to_pure_dict(by_rnn), nnx.to_pure_dict(by_state), eps(64))

    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def members(rngs):
        return rnnx.nnx.RNN(layer, XS, rngs=rngs)

    ensemble = members(nnx.Rngs(0))
    assert ensemble.params["input_kernel"].shape == (3, FEATURES, WIDTH)
    ys = nnx.vmap(lambda rnn, xs: rnn(xs)[1], in_axes=(0, None))(ensemble, XS)
    assert ys.shape == (3, BATCH, TIME, WIDTH)
    assert len(np.unique(ys[:, 0, 0, 0])) == 3


def test_axis_names():
    def names(path, shape):
        return ("model",) if path == "bias" else None

    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        state = nnx.state(rnn_of(rnnx.lstm(WIDTH), axis_names=names))
    specs = nnx.to_pure_dict(nnx.get_partition_spec(state))["params"]
    assert specs["bias"] == jax.sharding.PartitionSpec("model")
    assert state["params"]["bias"][...].sharding.spec == jax.sharding.PartitionSpec("model")
    assert specs["input_kernel"] != jax.sharding.PartitionSpec("model")


def test_wrong_arguments():
    rnn = rnn_of(rnnx.lstm(WIDTH))
    with pytest.raises(ValueError, match="lengths lie between 1 and 8"):
        rnn(XS, lengths=np.array([8, 1, 1, 1]))
    with pytest.raises(ValueError, match="the params do not fit"):
        rnn(XS[..., :2])
    with pytest.raises(ValueError, match=r"must be \[batch, time, ...\], but a leaf has shape \(3,\)"):
        rnn_of(rnnx.lstm(WIDTH), XS[0, 0])
    with pytest.raises(TypeError, match=r"expected a Layer"):
        rnn_of(rnnx.cells.lstm(4))


class Classifier(nnx.Module):
    def __init__(self, rngs):
        xs = jax.ShapeDtypeStruct((1, 1, 2), "float32")
        self.rnn = rnnx.nnx.RNN(LAYER, xs, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, xs, lengths, key=None):
        (carry, _), _ = self.rnn(xs, lengths=lengths, key=key)
        return self.head(carry.h)


LAYER = rnnx.stack(rnnx.lstm(8), rnnx.dropout(0.1))


def test_training_with_optax_orbax_and_chex(tmp_path):
    """Which of the two features was larger in sum; saved, restored, and gone on with to the same bits."""
    xs = jax.random.normal(jax.random.key(0), (32, 9, 2))
    lengths = jnp.arange(32) % 9 + 1
    sums = jnp.where((jnp.arange(9)[None] < lengths[:, None])[..., None], xs, 0).sum(1)
    labels = (sums[:, 0] > sums[:, 1]).astype(int)

    def loss(model, key):
        logits = model(xs, lengths, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @nnx.jit
    @chex.assert_max_traces(n=1)
    def update(model, optimizer, key):
        value, gradient = nnx.value_and_grad(loss)(model, key)
        optimizer.update(model, gradient)
        return value

    def run(model, optimizer, steps):
        return [float(update(model, optimizer, key)) for key in jax.random.split(jax.random.key(2), steps)]

    model = Classifier(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, optax.adamw(0.03), wrt=nnx.Param)
    losses = run(model, optimizer, 40)
    assert losses[-1] < 0.3 < 0.5 < losses[0]
    state = nnx.state((model, optimizer))
    chex.assert_tree_all_finite(jax.tree.leaves(state))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.to_pure_dict(state))
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: nnx.to_pure_dict(state)))
    chex.assert_trees_all_equal(restored, nnx.to_pure_dict(state))
    again = Classifier(nnx.Rngs(7))
    both = again, nnx.Optimizer(again, optax.adamw(0.03), wrt=nnx.Param)
    nnx.update(both, restored)
    chex.clear_trace_counter()
    assert run(*both, 3) == run(model, optimizer, 3)


# A cell of nnx as a Cell.


def test_a_cell_runs_as_in_flax():
    """In full length, as in `nnx.RNN`, with the weights that it came with: outputs, final carry, gradients."""
    theirs = nnx.OptimizedLSTMCell(FEATURES, WIDTH, rngs=nnx.Rngs(0))
    nnx.update(theirs, perturbed(nnx.to_pure_dict(nnx.state(theirs))))
    layer = rnnx.scan(rnnx.nnx.as_cell(theirs))
    rnn = nnx.RNN(theirs, return_carry=True, rngs=nnx.Rngs(0))

    def of_rnn(rnn):
        result = rnn(XS)
        return weighted_sum(result), result

    def of_layer(params):
        result = rnnx.unroll(layer, params, XS)
        return weighted_sum(result), result

    gradient, expected = nnx.jit(nnx.grad(of_rnn, argnums=nnx.DiffState(0, nnx.Param), has_aux=True))(rnn)
    params = layer.init(jax.random.key(3), XS)
    by_params, result = jax.jit(jax.grad(of_layer, has_aux=True))(params)
    assert_close((result, by_params), (expected, nnx.to_pure_dict(gradient)["cell"]))


def test_a_cell_equals_ours():
    """Under lengths and resets, checkpointed, from right to left, with NaN in the pads. Ours has one bias more."""
    make = functools.partial(nnx.GRUCell, FEATURES, WIDTH)
    layer = rnnx.reverse(rnnx.scan(rnnx.nnx.as_cell(make), checkpoint_every=3))
    params, xs = perturbed(jax.jit(layer.init)(jax.random.key(0), XS)), with_garbage_pads(XS, LENGTHS, np.nan)

    def converted(p):
        return {
            "input_kernel": p["dense_i"]["kernel"],
            "recurrent_kernel": p["dense_h"]["kernel"],
            "bias": p["dense_i"]["bias"],
            "recurrent_bias": jnp.zeros(WIDTH),
        }

    def gradient(layer, params):
        def loss(params):
            result = rnnx.unroll(layer, params, xs, lengths=LENGTHS, resets=RESETS)
            return weighted_sum(result), result

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    by_theirs, theirs = gradient(layer, params)
    by_ours, ours = gradient(rnnx.reverse(rnnx.gru(WIDTH)), converted(params))
    assert_close(theirs, ours)
    by_theirs = converted(by_theirs)
    assert_close(by_theirs, {**by_ours, "recurrent_bias": by_theirs["recurrent_bias"]})


class Dropping(nnx.RNNCellBase):
    """Dropout in the inputs of one of two cells within a cell; what it holds is in a list."""

    def __init__(self, *, rngs):
        self.cells = nnx.List([nnx.GRUCell(FEATURES, 4, rngs=rngs), nnx.GRUCell(4, FEATURES, rngs=rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, carry, x):
        first, y = self.cells[0](carry[0], self.dropout(x))
        second, _ = self.cells[1](carry[1], y)
        return (first, second), (y, self.dropout(jnp.ones_like(x)))

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return jnp.zeros(4), jnp.zeros(FEATURES)


def test_a_cell_keeps_the_laws():
    """Against its steps, run one by one: lengths, resets, NaN in the pads, gradients."""
    layer = rnnx.scan(rnnx.nnx.as_cell(Dropping))
    params = perturbed(jax.jit(layer.init)(jax.random.key(0), XS))
    carry = perturbed(layer.initial_carry(params, XS, None))

    @jax.jit
    def both(*at):
        run = functools.partial(layer.apply, lengths=LENGTHS, resets=RESETS)
        ours, pull = jax.vjp(lambda *at: run(*at), *at)
        return ours, pull(cotangent_of(ours))

    ours, (by_params, by_carry, by_xs) = both(params, carry, with_garbage_pads(XS, LENGTHS, np.nan))
    expected, by_hand = StepByStep(layer).run(params, carry, XS, LENGTHS, RESETS, cotangent_of(ours))
    assert_close((ours, (by_params, by_carry, by_xs)), (expected, by_hand))


def test_dropout_within_a_cell_is_drawn_for_each_step_of_each_sequence():
    layer = rnnx.scan(rnnx.nnx.as_cell(Dropping))
    xs = jnp.ones((8, 16, FEATURES))
    params = layer.init(jax.random.key(0), xs)
    quiet = rnnx.unroll(layer, params, xs)[1][1]
    ys = [rnnx.unroll(layer, params, xs, key=jax.random.key(i))[1][1] for i in (1, 1, 2)]
    assert (quiet == 1).all()
    assert set(np.unique(ys[0])) == {0, 2}
    assert len(np.unique(np.asarray(ys[0]).reshape(16 * 8, FEATURES), axis=0)) == 2**FEATURES
    chex.assert_trees_all_equal(ys[0], ys[1])
    assert not jnp.array_equal(ys[0], ys[2])


def test_weights_are_copied_or_drawn_anew():
    cell = nnx.GRUCell(FEATURES, WIDTH, rngs=nnx.Rngs(0))
    before = nnx.to_pure_dict(nnx.state(cell))
    copied, drawn = rnnx.nnx.as_cell(cell), rnnx.nnx.as_cell(functools.partial(nnx.GRUCell, FEATURES, WIDTH))
    x = jax.ShapeDtypeStruct((FEATURES,), "float32")
    keys = [jax.random.key(1), jax.random.key(2)]
    params = copied.init(keys[0], x)
    chex.assert_trees_all_equal(params, before)
    jax.tree.map(lambda p: p.delete(), params)  # as donation does
    nnx.update(cell, jax.tree.map(jnp.zeros_like, before))
    chex.assert_trees_all_equal(copied.init(keys[1], x), before)
    assert not jnp.array_equal(*(drawn.init(key, x)["dense_i"]["kernel"] for key in keys))
    nnx.update(cell, before)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(cell)), before)


def test_what_is_no_cell():
    class Counting(nnx.GRUCell):
        def __init__(self, *arguments, rngs):
            super().__init__(*arguments, rngs=rngs)
            self.count = nnx.BatchStat(jnp.zeros(()))

    counting = Counting(FEATURES, WIDTH, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"Counting holds \{'count': 'BatchStat'\} besides its params"):
        rnnx.nnx.as_cell(counting)
    for wrong in (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), functools.partial(nnx.Linear, 2, 3), 7):
        with pytest.raises(TypeError, match=r"expected a cell of flax.nnx"):
            rnnx.nnx.as_cell(wrong)
    with pytest.raises(TypeError, match=r"use rnnx.linen.as_cell"):
        rnnx.nnx.as_cell(nn.LSTMCell(4))
    with pytest.raises(TypeError, match=r"use rnnx.nnx.as_cell"):
        rnnx.linen.as_cell(counting)
    layer = rnnx.scan(rnnx.nnx.as_cell(functools.partial(nnx.GRUCell, FEATURES, WIDTH)))
    assert str(layer) == f"GRUCell(in_features={FEATURES}, hidden_features={WIDTH})"
    with pytest.raises(ValueError, match=r"GRUCell\(in_features=3, .* another number of features .* \(2,\)"):
        layer.init(jax.random.key(0), XS[..., :2])


def test_importing_rnnx_leaves_nnx_alone():
    """It takes a fifth of the time that importing Flax takes."""
    code = "import sys, rnnx; print('flax.nnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
