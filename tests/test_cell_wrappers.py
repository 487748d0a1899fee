"""Cells made of cells, against the plain cell with its weights, state or output changed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close, eps, perturbed

BATCH, TIME, FEATURES, WIDTH = 3, 6, 4, 5
XS = jax.random.normal(jax.random.key(0), (BATCH, TIME, FEATURES))
KEY = jax.random.key(1)
CELLS = {
    "elman": lambda: rnnx.cells.elman(WIDTH),
    "lstm": lambda: rnnx.cells.lstm(WIDTH),
    "gru": lambda: rnnx.cells.gru(WIDTH),
    "gru reset before": lambda: rnnx.cells.gru(WIDTH, reset_after=False),
    "mgu": lambda: rnnx.cells.mgu(WIDTH),
}


def run(layer, params, **options):
    return rnnx.unroll(layer, params, XS, **options)


def made(layer):
    return perturbed(layer.init(jax.random.key(2), XS))


@pytest.mark.parametrize("name", CELLS)
def test_recurrent_dropout_drops_rows_of_the_kernel_for_a_whole_sequence(name):
    cell = CELLS[name]()
    layer = rnnx.scan(rnnx.recurrent_dropout(cell, 0.5))
    params = made(layer)
    carry, ys = run(layer, params, key=KEY)
    assert set(np.unique(carry.mask)) == {0.0, 2.0}
    assert (carry.mask[0] != carry.mask[1]).any()
    for row, mask in enumerate(carry.mask):
        masked = {**params, "recurrent_kernel": mask[:, None] * params["recurrent_kernel"]}
        assert_close(ys[row], run(rnnx.scan(cell), masked)[1][row])
    assert_close(run(layer, params)[1], run(rnnx.scan(cell), params)[1], eps(64))


def test_masks_that_last_a_sequence_go_on_in_the_next_chunk():
    for layer in (rnnx.locked_dropout(0.5), rnnx.scan(rnnx.recurrent_dropout(rnnx.cells.lstm(WIDTH), 0.5))):
        params = made(layer)
        _, ys = run(layer, params, key=KEY)
        cut = TIME // 2
        middle, first = rnnx.unroll(layer, params, XS[:, :cut], key=KEY)
        _, last = rnnx.unroll(layer, params, XS[:, cut:], carry=middle, key=jax.random.key(9))
        assert_close(jnp.concatenate([first, last], axis=1), ys)


def test_locked_dropout_keeps_its_features_until_a_reset():
    layer, ones = rnnx.locked_dropout(0.5), jnp.ones((BATCH, TIME, 100))
    _, ys = rnnx.unroll(layer, {}, ones, key=KEY, resets=jnp.zeros((BATCH, TIME), bool).at[:, 3].set(True))
    assert set(np.unique(ys)) == {0.0, 2.0}
    np.testing.assert_array_equal(ys[:, :3], np.broadcast_to(ys[:, :1], ys[:, :3].shape))
    np.testing.assert_array_equal(ys[:, 3:], np.broadcast_to(ys[:, 3:4], ys[:, 3:].shape))
    assert (ys[:, 2] != ys[:, 3]).any()
    with pytest.raises(ValueError, match=r"after the nn\.Embed"):
        layer.init(KEY, jnp.zeros((2, 3), int))


def test_weight_drop_drops_the_same_weights_for_all_sequences_and_steps():
    cell = rnnx.cells.lstm(WIDTH)
    dropped = rnnx.weight_drop(cell, 0.5, kernels=("recurrent_kernel", "input_kernel"))
    layer = rnnx.scan(dropped)
    params = made(layer)
    prepared = dropped.prepare(params, KEY)
    ratio = prepared["recurrent_kernel"] / params["recurrent_kernel"]
    np.testing.assert_allclose(np.unique(ratio.round(5)), [0, 2])
    assert 0.3 < (ratio == 0).mean() < 0.7
    assert_close(prepared["bias"], params["bias"], 0)
    same = jnp.broadcast_to(XS[:1], XS.shape)
    _, ys = rnnx.unroll(layer, params, same, key=KEY)
    assert_close(ys, jnp.broadcast_to(ys[:1], ys.shape), eps(64))
    assert np.abs(ys - run(rnnx.scan(cell), params)[1]).max() > 1e-3
    assert_close(run(layer, params)[1], run(rnnx.scan(cell), params)[1], eps(64))


def test_zoneout_keeps_old_values_or_their_mean():
    cell, rates = rnnx.cells.lstm(WIDTH), rnnx.cells.LSTMCarry(h=0.25, c=0.5)
    zoned = rnnx.zoneout(cell, rates)
    layer = rnnx.scan(zoned)
    params = made(layer)
    w = cell.prepare(params, None)
    carry = cell.initial_carry(w, jax.ShapeDtypeStruct((FEATURES,), jnp.float32), None)
    outputs = []
    for x in XS[0]:  # without a key: the mean of old and new
        after, _ = cell.step(w, carry, cell.project(w, x, None))
        carry = rnnx.cells.LSTMCarry(*(d * old + (1 - d) * new for d, old, new in zip(rates, carry, after)))
        outputs.append(carry.h)
    assert_close(run(layer, params)[1][0], jnp.stack(outputs))

    before = perturbed(layer.initial_carry(params, XS, None))
    one = XS[:, :1]
    new, _ = rnnx.unroll(rnnx.scan(cell), params, one, carry=before)
    drawn, ys = rnnx.unroll(layer, params, one, carry=before, key=KEY)
    kept = jax.tree.map(lambda d, b: d == b, drawn, before)
    assert_close(drawn, jax.tree.map(lambda k, b, n: jnp.where(k, b, n), kept, before, new), eps(64))
    assert kept.c.any()
    assert not kept.c.all()
    assert_close(ys[:, 0], drawn.h, eps(8))


def test_zoneout_at_its_ends():
    cell = rnnx.cells.gru(WIDTH)
    params = made(rnnx.scan(cell))
    for key in (None, KEY):
        assert_close(run(rnnx.scan(rnnx.zoneout(cell, 0.0)), params, key=key), run(rnnx.scan(cell), params), eps(64))
        assert not run(rnnx.scan(rnnx.zoneout(cell, 1.0)), params, key=key)[1].any()


@pytest.mark.parametrize("make", [rnnx.cells.lstm, rnnx.cells.s4d], ids=["Cell", "AssociativeCell"])
def test_learned_and_exposed_carries_keep_the_type_and_the_numbers(make):
    cell = make(FEATURES)

    def layer_of(cell):
        return rnnx.scan(rnnx.as_cell(cell) if isinstance(cell, rnnx.AssociativeCell) else cell)

    learned, exposed = rnnx.learned_carry(cell), rnnx.expose(cell, "carry")
    assert type(learned) is type(exposed) is type(cell)
    params = made(layer_of(learned))
    start = params["initial_carry"]
    own = {name: p for name, p in params.items() if name != "initial_carry"}
    fields = layer_of(cell).initial_carry(own, XS, None)
    first = type(fields)(**{name: jnp.broadcast_to(a, (BATCH, *a.shape)) for name, a in start.items()})
    expected = run(layer_of(cell), own, carry=first)
    assert_close(run(layer_of(learned), params), expected, eps(64))

    carry, ys = run(layer_of(exposed), own)
    assert_close((carry, ys["y"]), run(layer_of(cell), own), eps(64))
    assert_close(jax.tree.map(lambda a: a[:, -1], ys["carry"]), carry, eps(8))
    half = rnnx.unroll(layer_of(cell), own, XS[:, :3])[0]
    assert_close(jax.tree.map(lambda a: a[:, 2], ys["carry"]), half, eps(64))


def test_wrapped_cells_can_be_wrapped_again():
    cell = rnnx.learned_carry(rnnx.cells.lstm(WIDTH))
    layer = rnnx.scan(rnnx.zoneout(rnnx.recurrent_dropout(rnnx.weight_drop(cell, 0.3), 0.5), 0.1))
    params = made(layer)
    assert sorted(params) == ["bias", "initial_carry", "input_kernel", "recurrent_kernel"]
    quiet, noisy = run(layer, params)[1], run(layer, params, key=KEY)[1]
    assert np.abs(quiet - noisy).max() > 1e-3
    gradient = jax.grad(lambda params: (run(layer, params, key=KEY)[1] ** 2).sum())(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_dropout_of_a_kernel_that_prepare_makes():
    layer = rnnx.scan(rnnx.recurrent_dropout(rnnx.cells.orthogonal(WIDTH), 0.5))
    params = made(layer)
    assert np.abs(run(layer, params)[1] - run(layer, params, key=KEY)[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: rnnx.learned_carry(rnnx.recurrent_dropout(rnnx.cells.gru(3), 0.5)).init(
                KEY, jax.ShapeDtypeStruct((2,), jnp.float32)
            ),
            r"recurrent_dropout\(learned_carry\(cell\)\) is the order",
        ),
        (lambda: rnnx.zoneout(rnnx.cells.min_gru(3), 0.5), "zoneout takes a Cell.*as_cell makes one"),
        (lambda: rnnx.recurrent_dropout(rnnx.cells.s4d(3), 0.5), "recurrent_dropout takes a Cell.*as_cell"),
    ],
)
def test_cells_that_cannot_be_wrapped(wrong, message):
    with pytest.raises(TypeError, match=message):
        wrong()


def test_a_bare_carry_is_learned_as_an_array():
    params = rnnx.scan(rnnx.learned_carry(rnnx.cells.gru(WIDTH))).init(KEY, XS)
    assert params["initial_carry"].shape == (WIDTH,)


def test_heads_are_layers_side_by_side():
    layer, one = rnnx.multi_head(rnnx.lstm(2), 3), rnnx.lstm(2)
    params = made(layer)
    carry, ys = run(layer, params)
    for i in range(3):
        mine = jax.tree.map(lambda a, i=i: a[i], params)
        expected_carry, expected = run(one, mine)
        assert_close(ys[..., 2 * i : 2 * i + 2], expected)
        assert_close(jax.tree.map(lambda a, i=i: a[:, i], carry), expected_carry)


def test_heads_of_one_number_a_step():
    layer = rnnx.multi_head(rnnx.pointwise(jnp.sum), 3)
    assert_close(run(layer, {})[1], jnp.broadcast_to(XS.sum(axis=-1)[..., None], (BATCH, TIME, 3)))


def test_the_rows_of_a_summary_add_up():
    layer = rnnx.skip_stack(rnnx.elman(2), rnnx.gru(3), rnnx.lstm(4))
    whole, *parts = (int(row.split()[-1].replace(",", "")) for row in rnnx.summary(layer, XS).splitlines()[1:])
    assert whole == sum(parts) == sum(leaf.size for leaf in jax.tree.leaves(layer.init(KEY, XS)))


def test_the_last_layer_of_a_skip_stack_may_give_anything():
    exposed = rnnx.scan(rnnx.expose(rnnx.cells.lstm(7), "f"))
    layer = rnnx.skip_stack(rnnx.gru(FEATURES), exposed, merge=jnp.add)
    _, ys = run(layer, made(layer))
    assert ys["y"].shape == ys["f"].shape == (BATCH, TIME, 7)


def test_skip_stack_gives_every_layer_the_input():
    layer = rnnx.skip_stack(rnnx.elman(2), rnnx.gru(3), rnnx.lstm(4))
    params = made(layer)
    _, first = rnnx.unroll(rnnx.elman(2), params["0_elman"], XS)
    _, second = rnnx.unroll(rnnx.gru(3), params["1_gru"], jnp.concatenate([XS, first], axis=-1))
    _, third = rnnx.unroll(rnnx.lstm(4), params["2_lstm"], jnp.concatenate([XS, second], axis=-1))
    assert_close(run(layer, params)[1], third)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: rnnx.zoneout(rnnx.cells.gru(3), 1.5), r"zoneout: the rate is 1.5, but it must lie in \[0, 1\]"),
        (
            lambda: rnnx.weight_drop(rnnx.cells.gru(3), 1.0),
            r"weight_drop: rate is 1.0, but it must be a number in \[0, 1\)",
        ),
        (lambda: rnnx.locked_dropout(-0.1), "locked_dropout: rate is -0.1"),
        (
            lambda: rnnx.weight_drop(rnnx.cells.min_gru(3), 0.5).init(KEY, jax.ShapeDtypeStruct((2,), jnp.float32)),
            r"min_gru has no array 'recurrent_kernel' among its weights \['bias', 'input_kernel'\]",
        ),
        (
            lambda: rnnx.recurrent_dropout(rnnx.cells.indrnn(3), 0.5).init(
                KEY, jax.ShapeDtypeStruct((2,), jnp.float32)
            ),
            r"recurrent_kernel of indrnn has shape \(3,\), but it must be a matrix",
        ),
        (lambda: rnnx.multi_head(rnnx.gru(3), 0), "multi_head: n is 0"),
        (lambda: rnnx.skip_stack(), "skip_stack needs at least one layer"),
        (lambda: rnnx.lru(4).init(KEY, XS[..., :3]), r"lru\(4\) takes as many features as it gives.*nn.Dense\(4\)"),
        (lambda: rnnx.gla(4, heads=3), "3 heads do not divide the width 2"),
        (lambda: rnnx.s5(4, state=6, blocks=2), "the state is 6, but it must be a multiple of 2"),
    ],
)
def test_errors_say_what_they_got_and_what_to_do(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
