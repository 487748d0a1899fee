"""Any Layer as a module of Flax linen, and any recurrent cell of linen as a Cell."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import rnnx
import rnnx.linen
from rnnx.testing import StepByStep, assert_close, cotangent_of, eps, perturbed, weighted_sum, with_garbage_pads

BATCH, TIME, FEATURES, WIDTH = 4, 7, 3, 5
LENGTHS = np.array([7, 4, 0, 1])
RESETS = np.zeros((BATCH, TIME), bool)
RESETS[0, [0, 3, 4]] = RESETS[1, [2, 6]] = RESETS[2, 1] = True
XS = jax.random.normal(jax.random.key(1), (BATCH, TIME, FEATURES))


def by_row(run, *arguments):
    """`run` over the leading axis, row by row."""
    rows = [run(*jax.tree.map(lambda a, i=i: a[i], arguments)) for i in range(len(jax.tree.leaves(arguments)[0]))]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *rows)


# A Layer as a module.


@pytest.mark.parametrize(
    ("layer", "key"),
    [
        (rnnx.lstm(WIDTH), None),
        (rnnx.stack(rnnx.reverse(rnnx.elman(4)), rnnx.dropout(0.5), nn.Dense(2)), jax.random.key(5)),
    ],
    ids=["lstm", "stack with noise"],
)
def test_a_module_runs_as_unroll_does(layer, key):
    """Values and gradients, with whatever in the pads: so it keeps all laws that the layer keeps."""
    rnn, xs = rnnx.linen.RNN(layer), with_garbage_pads(XS, LENGTHS, np.nan)
    variables = jax.jit(rnn.init)(jax.random.key(0), XS)
    assert set(variables) == {"params"}
    expected = jax.eval_shape(layer.init, jax.random.key(0), XS)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables["params"], expected)
    params = perturbed(variables["params"])
    options = {"lengths": LENGTHS, "resets": RESETS, "key": key}

    def ours(params):
        result = rnn.apply({"params": params}, xs, **options)
        return weighted_sum(result), result

    def theirs(params):
        result = rnnx.unroll(layer, params, xs, **options)
        return weighted_sum(result), result

    results = [jax.jit(jax.grad(loss, has_aux=True))(params) for loss in (ours, theirs)]
    assert_close(results[0], results[1], eps(64))


def test_a_carry_goes_on_and_length_0_returns_it():
    rnn = rnnx.linen.RNN(rnnx.lstm(WIDTH))
    variables = perturbed(rnn.init(jax.random.key(0), XS))
    carry, first = rnn.apply(variables, XS[:, :3])
    carry, second = rnn.apply(variables, XS[:, 3:], carry=carry)
    whole = rnn.apply(variables, XS)
    assert_close((carry, jnp.concatenate([first, second], axis=1)), whole, eps(64))
    after, ys = rnn.apply(variables, XS, carry, np.zeros(BATCH, int))
    chex.assert_trees_all_equal(after, carry)
    assert not ys.any()


def test_the_dropout_rng_is_the_key():
    rnn = rnnx.linen.RNN(rnnx.stack(rnnx.lstm(WIDTH), rnnx.dropout(0.5)))
    variables = rnn.init(jax.random.key(0), XS)
    keys = [{}, {}, *({"rngs": {"dropout": key}} for key in (jax.random.key(1), jax.random.key(1), jax.random.key(2)))]
    ys = [rnn.apply(variables, XS, **rngs)[1] for rngs in keys]
    chex.assert_trees_all_equal(ys[0], ys[1])
    chex.assert_trees_all_equal(ys[2], ys[3])
    assert (ys[0] != 0).all()
    assert not jnp.array_equal(ys[2], ys[4])
    assert not jnp.array_equal(ys[2], ys[0])


@pytest.mark.parametrize(("sizes", "reverse"), [((), False), ((2, 3), False), ((2, 1, 2), True)], ids=str)
def test_any_number_of_batch_axes(sizes, reverse):
    layer = rnnx.reverse(rnnx.lstm(WIDTH)) if reverse else rnnx.lstm(WIDTH)
    rnn = rnnx.linen.RNN(layer, batch_axes=len(sizes))
    random = np.random.default_rng(0)
    xs = random.normal(size=(*sizes, TIME, FEATURES)).astype(np.float32)
    lengths, resets = random.integers(0, TIME + 1, sizes), random.random((*sizes, TIME)) < 0.3
    (carry, _), variables = rnn.init_with_output(jax.random.key(0), xs)
    variables, carry = perturbed(variables), perturbed(carry)
    result = rnn.apply(variables, xs, carry, lengths, resets)

    def one(xs, carry, lengths, resets):
        rows = jax.tree.map(lambda a: a[None], (xs, carry, lengths, resets))
        xs, carry, lengths, resets = rows
        after = rnnx.unroll(layer, variables["params"], xs, carry=carry, lengths=lengths, resets=resets)
        return jax.tree.map(lambda a: a[0], after)

    run = one
    for _ in sizes:
        run = functools.partial(by_row, run)
    assert_close(result, run(xs, carry, jnp.asarray(lengths), resets))


def test_tokens_and_trees_with_two_batch_axes():
    """The number of batch axes cannot be read off the inputs: tokens have no features."""
    tokens = jnp.zeros((2, 3, TIME), int)
    series = {"x": jnp.ones((2, 3, TIME, FEATURES)), "dt": jnp.ones((2, 3, TIME))}
    for layer, xs in [(rnnx.stack(nn.Embed(5, 4), rnnx.gru(WIDTH)), tokens), (rnnx.cfc(WIDTH), series)]:
        rnn = rnnx.linen.RNN(layer, batch_axes=2)
        (carry, ys), _ = jax.eval_shape(rnn.init_with_output, jax.random.key(0), xs)
        assert ys.shape == (2, 3, TIME, WIDTH)
        assert jax.tree.leaves(carry)[0].shape == (2, 3, WIDTH)


def test_wrong_arguments():
    rnn, two = rnnx.linen.RNN(rnnx.lstm(WIDTH)), rnnx.linen.RNN(rnnx.lstm(WIDTH), batch_axes=2)
    variables, xs = rnn.init(jax.random.key(0), XS), XS.reshape(2, 2, TIME, FEATURES)
    for wrong, message in [
        ({"lengths": np.array([8, 1, 1, 1])}, "lengths lie between 1 and 8"),
        ({"lengths": np.array([1, 1])}, r"expected \(4,\)"),
        ({"resets": np.zeros((BATCH, 3), bool)}, r"resets has shape \(4, 3\)"),
        ({"carry": jnp.zeros((BATCH, WIDTH))}, "the carry does not fit"),
    ]:
        with pytest.raises(ValueError, match=message):
            rnn.apply(variables, XS, **wrong)
    with pytest.raises(ValueError, match="the params do not fit"):
        rnn.apply({"params": {}}, XS)
    with pytest.raises(ValueError, match="the params do not fit"):
        rnn.apply(variables, XS[..., :2])
    with pytest.raises(ValueError, match=r"lengths has shape \(4,\), but with batch_axes=2"):
        two.apply(variables, xs, lengths=LENGTHS)
    with pytest.raises(ValueError, match="lengths lie between 1 and 8"):
        two.apply(variables, xs, lengths=np.array([[8, 1], [1, 1]]))
    with pytest.raises(ValueError, match=r"must be \[batch, time, ...\], but a leaf has shape \(3,\)"):
        rnn.init(jax.random.key(0), XS[0, 0])
    with pytest.raises(ValueError, match=r"2 batch axes, time, ..., but a leaf has shape \(4, 7\)"):
        two.init(jax.random.key(0), XS[..., 0])
    with pytest.raises(TypeError, match=r"expected a Layer"):
        rnnx.linen.RNN(rnnx.cells.lstm(4))


class Twice(nn.Module):
    """A module within a module, in `setup`, called two times: the params are shared."""

    layer: rnnx.Layer

    def setup(self):
        self.rnn = rnnx.linen.RNN(self.layer)

    def __call__(self, xs):
        carry, _ = self.rnn(xs)
        return self.rnn(xs, carry)[1]


def test_within_a_module():
    layer = rnnx.gru(WIDTH)
    variables = Twice(layer).init(jax.random.key(0), XS)
    assert set(variables["params"]) == {"rnn"}
    params = variables["params"]["rnn"]
    carry, _ = rnnx.unroll(layer, params, XS)
    assert_close(Twice(layer).apply(variables, XS), rnnx.unroll(layer, params, XS, carry=carry)[1], eps(64))


@pytest.mark.parametrize("lift", [nn.jit, nn.remat], ids=["jit", "remat"])
def test_jit_and_remat(lift):
    layer = rnnx.stack(rnnx.elman(WIDTH), rnnx.dropout(0.5))
    plain, lifted = rnnx.linen.RNN(layer), lift(rnnx.linen.RNN)(layer)
    variables = lifted.init(jax.random.key(0), XS)

    def gradient(module):
        def loss(variables):
            return weighted_sum(module.apply(variables, XS, None, LENGTHS, RESETS, jax.random.key(1)))

        return jax.jit(jax.grad(loss))(variables)

    assert_close(gradient(lifted), gradient(plain), eps(64))


def names(path, shape):
    return (None,) * (len(shape) - 1) + ("model",)


def test_vmap_is_an_ensemble():
    layer = rnnx.lstm(WIDTH)
    axes = {"params": 0}
    options = {"in_axes": None, "axis_size": 3, "metadata_params": {nn.PARTITION_NAME: "member"}}
    ensemble = nn.vmap(rnnx.linen.RNN, variable_axes=axes, split_rngs={"params": True}, **options)
    members = ensemble(layer, axis_names=names)
    variables = members.init(jax.random.key(0), XS)
    assert variables["params"]["bias"].names == ("member", "model")
    params = nn.meta.unbox(variables["params"])
    assert params["input_kernel"].shape == (3, FEATURES, 4 * WIDTH)
    assert len(np.unique(params["input_kernel"][:, 0, 0])) == 3
    assert_close(members.apply(variables, XS), by_row(lambda p: rnnx.unroll(layer, p, XS), params))


def test_scan_over_modules_is_a_stack():
    layer = rnnx.gru(FEATURES)

    class Deep(nn.Module):
        @nn.compact
        def __call__(self, xs):
            def body(rnn, xs, _):
                return rnn(xs)[1], None

            scan = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return scan(rnnx.linen.RNN(layer, name="rnn"), xs, None)[0]

    variables = Deep().init(jax.random.key(0), XS)
    stacked = rnnx.repeat(layer, 3)
    expected = rnnx.unroll(stacked, variables["params"]["rnn"], XS)[1]
    assert_close(Deep().apply(variables, XS), expected, eps(64))


def test_axis_names():
    rnn = rnnx.linen.RNN(rnnx.stack(rnnx.lstm(WIDTH), nn.Dense(2)), axis_names=names)
    variables = rnn.init(jax.random.key(0), XS)
    spec = nn.get_partition_spec(variables)["params"]["0_lstm"]
    assert spec["input_kernel"] == jax.sharding.PartitionSpec(None, "model")
    assert spec["bias"] == jax.sharding.PartitionSpec("model")
    assert_close(rnn.apply(variables, XS), rnn.apply(nn.meta.unbox(variables), XS), eps(64))
    by_path = rnnx.linen.RNN(rnn.layer, axis_names=lambda path, shape: ("model",) if path == "0_lstm.bias" else None)
    boxed = by_path.init(jax.random.key(0), XS)["params"]["0_lstm"]
    assert [type(boxed[name]) for name in ("bias", "input_kernel")] == [nn.Partitioned, type(XS)]
    wrong = rnnx.linen.RNN(rnnx.lstm(WIDTH), axis_names=lambda path, shape: ("model",))
    with pytest.raises(ValueError, match=r"input_kernel has shape \(3, 20\), but was given the names \('model',\)"):
        wrong.init(jax.random.key(0), XS)


class Classifier(nn.Module):
    layer: rnnx.Layer

    @nn.compact
    def __call__(self, xs, lengths):
        carry, _ = rnnx.linen.RNN(self.layer)(xs, lengths=lengths)
        return nn.Dense(2)(carry.h)


def test_training_with_optax_orbax_and_chex(tmp_path):
    """Which of the two features was larger in sum; saved, restored, and gone on with to the same bits."""
    xs = jax.random.normal(jax.random.key(0), (32, 9, 2))
    lengths = jnp.arange(32) % 9 + 1
    sums = jnp.where((jnp.arange(9)[None] < lengths[:, None])[..., None], xs, 0).sum(1)
    labels = (sums[:, 0] > sums[:, 1]).astype(int)
    model, optimizer = Classifier(rnnx.lstm(8)), optax.adamw(0.03)
    params = model.init(jax.random.key(1), xs, lengths)["params"]

    def loss(params):
        logits = model.apply({"params": params}, xs, lengths)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def update(state):
        params, moments = state
        value, gradient = jax.value_and_grad(loss)(params)
        changes, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, changes), moments), value

    def run(state, steps):
        losses = []
        for _ in range(steps):
            state, value = update(state)
            losses.append(float(value))
        return state, losses

    state, losses = run((params, optimizer.init(params)), 40)
    assert losses[-1] < 0.3 < 0.5 < losses[0]
    chex.assert_tree_all_finite(state[0])
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    chex.assert_trees_all_equal(restored, state)
    chex.assert_trees_all_equal(run(restored, 3), run(state, 3))


# A cell of linen as a Cell.


CELLS = {
    "optimized": (nn.OptimizedLSTMCell(WIDTH), XS),
    "conv": (nn.ConvLSTMCell(2, (3, 3)), jax.random.normal(jax.random.key(1), (2, 5, 4, 3, 2))),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_runs_as_in_flax(name):
    """In full length, as in `nn.RNN`, from the same params: outputs, final carry, gradients."""
    cell, xs = CELLS[name]
    layer, rnn = rnnx.scan(rnnx.linen.as_cell(cell)), nn.RNN(cell, return_carry=True)
    variables = jax.jit(rnn.init)(jax.random.key(0), xs)
    params = perturbed(variables["params"]["cell"])
    chex.assert_trees_all_equal_shapes(jax.jit(layer.init)(jax.random.key(0), xs), params)

    def ours(params, xs):
        result = rnnx.unroll(layer, params, xs)
        return weighted_sum(result), result

    def theirs(params, xs):
        result = rnn.apply({"params": {"cell": params}}, xs)
        return weighted_sum(result), result

    results = [jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, xs) for loss in (ours, theirs)]
    assert_close(*results)


def fused(p, names):
    return jnp.concatenate([p[name]["kernel"] for name in names], axis=1)


def lstm_params(p):
    bias = jnp.concatenate([p[f"h{g}"]["bias"] for g in "ifgo"])
    kernels = [fused(p, [side + g for g in "ifgo"]) for side in "ih"]
    return {"input_kernel": kernels[0], "recurrent_kernel": kernels[1], "bias": bias}


def gru_params(p):
    bias = jnp.concatenate([p[f"i{g}"]["bias"] for g in "rzn"])
    kernels = [fused(p, [side + g for g in "rzn"]) for side in "ih"]
    params = {"input_kernel": kernels[0], "recurrent_kernel": kernels[1], "bias": bias}
    return {**params, "recurrent_bias": p["hn"]["bias"]}


@pytest.mark.parametrize(
    ("cell", "own", "convert"),
    [(nn.LSTMCell(WIDTH), rnnx.lstm(WIDTH), lstm_params), (nn.GRUCell(WIDTH), rnnx.gru(WIDTH), gru_params)],
    ids=["lstm", "gru"],
)
def test_a_cell_equals_ours(cell, own, convert):
    """Under every evaluator's lengths and resets, checkpointed, from right to left, with NaN in the pads."""
    layer = rnnx.reverse(rnnx.scan(rnnx.linen.as_cell(cell), checkpoint_every=3))
    params, xs = perturbed(jax.jit(layer.init)(jax.random.key(0), XS)), with_garbage_pads(XS, LENGTHS, np.nan)

    def loss(layer, params):
        carry, ys = rnnx.unroll(layer, params, xs, lengths=LENGTHS, resets=RESETS)
        carry = jax.tree.leaves(carry)[-1 if convert is lstm_params and layer is not own else 0]  # (c, h) or (h, c)
        return (ys**2).sum() + (carry**3).sum(), (carry, ys)

    own = rnnx.reverse(own)
    by_theirs, theirs = jax.jit(jax.grad(lambda p: loss(layer, p), has_aux=True))(params)
    by_ours, ours = jax.jit(jax.grad(lambda p: loss(own, p), has_aux=True))(convert(params))
    assert_close((convert(by_theirs), theirs), (by_ours, ours))


class Dropping(nn.RNNCellBase):
    """With dropout on its inputs."""

    @nn.compact
    def __call__(self, carry, x):
        x = nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(x)
        carry = nn.tanh(nn.Dense(4)(jnp.concatenate([x, carry], -1)))
        return carry, x

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(4)


def test_a_cell_keeps_the_laws():
    """Against its steps, run one by one: lengths, resets, NaN in the pads, gradients."""
    layer = rnnx.scan(rnnx.linen.as_cell(Dropping()))
    params = perturbed(jax.jit(layer.init)(jax.random.key(0), XS))
    carry = perturbed(layer.initial_carry(params, XS, None))

    def result(params, carry, xs):
        return layer.apply(params, carry, xs, lengths=LENGTHS, resets=RESETS)

    @jax.jit
    def both(*at):
        ours, pull = jax.vjp(result, *at)
        return ours, pull(cotangent_of(ours))

    ours, (by_params, by_carry, by_xs) = both(params, carry, with_garbage_pads(XS, LENGTHS, np.nan))
    expected, by_hand = StepByStep(layer).run(params, carry, XS, LENGTHS, RESETS, cotangent_of(ours))
    assert_close((ours, (by_params, by_carry, by_xs)), (expected, by_hand))


def test_dropout_within_a_cell_is_drawn_for_each_step_of_each_sequence():
    layer = rnnx.scan(rnnx.linen.as_cell(Dropping()))
    xs = jnp.ones((8, 16, 4))
    params = layer.init(jax.random.key(0), xs)
    _, quiet = rnnx.unroll(layer, params, xs)
    _, ys = rnnx.unroll(layer, params, xs, key=jax.random.key(1))
    assert (quiet == 1).all()
    assert set(np.unique(ys)) == {0, 2}
    assert len(np.unique(np.asarray(ys).reshape(8 * 16, 4), axis=0)) > 8
    assert abs(float(ys.mean()) - 1) < 0.2


def test_a_random_carry():
    cell = rnnx.linen.as_cell(nn.GRUCell(4, carry_init=nn.initializers.normal()))
    layer = rnnx.scan(cell)
    params = layer.init(jax.random.key(0), XS)
    fixed = layer.initial_carry(params, XS, None)
    chex.assert_trees_all_equal(fixed, layer.initial_carry(params, XS, None))
    assert len(np.unique(fixed, axis=0)) == 1
    assert len(np.unique(layer.initial_carry(params, XS, jax.random.key(1)), axis=0)) == BATCH


class Counting(nn.RNNCellBase):
    @nn.compact
    def __call__(self, carry, x):
        count = self.variable("counts", "steps", jnp.zeros, ())
        count.value += 1
        return carry, x

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(input_shape)


def test_what_is_no_cell():
    with pytest.raises(TypeError, match=r"expected a cell of flax.linen, .* but got Dense"):
        rnnx.linen.as_cell(nn.Dense(3))
    with pytest.raises(ValueError, match=r"Counting has the collections \['counts'\]"):
        rnnx.scan(rnnx.linen.as_cell(Counting())).init(jax.random.key(0), XS)
    layer = rnnx.scan(rnnx.linen.as_cell(nn.LSTMCell(4)))
    with pytest.raises(ValueError, match="LSTMCell takes one array of features per step"):
        layer.init(jax.random.key(0), XS[..., 0])
    assert str(layer) == "LSTMCell(features=4)"
