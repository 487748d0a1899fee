"""Noise has a home by its lifetime, and `prepare` runs once: per application, per sequence, per step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import rnnx

PREPARED = []


def noisy(width):
    """Puts out its own noise: of the application, of the sequence, of the step."""

    def init(key, x):
        return {"scale": jnp.ones(width)}

    def prepare(params, key):
        PREPARED.append(key)
        noise = 0.0 if key is None else jax.random.normal(key, (width,))
        return {"noise": noise * params["scale"]}

    def initial_carry(weights, x, key):
        return jnp.zeros(width) if key is None else jax.random.normal(key, (width,))

    def project(weights, x, key):
        return jnp.zeros(width) if key is None else jax.random.normal(key, (width,))

    def step(weights, mask, z):
        return mask, jnp.stack([jnp.broadcast_to(weights["noise"], (width,)), mask, z])

    return rnnx.cell(init, initial_carry, step, prepare=prepare, project=project)


def test_noise_by_lifetime():
    layer, xs = rnnx.scan(noisy(2)), jnp.zeros((3, 6, 1))
    params = layer.init(jax.random.key(0), xs)
    resets = np.zeros((3, 6), bool)
    resets[:, [2, 4]] = True
    PREPARED.clear()
    _, ys = rnnx.unroll(layer, params, xs, key=jax.random.key(1), resets=resets)
    assert len(PREPARED) == 2, "once for the carry and once for the run, never once per step"
    of_application, of_sequence, of_step = (np.asarray(ys[:, :, i, 0]) for i in range(3))
    assert len(np.unique(of_application)) == 1
    assert len(np.unique(of_step)) == 18
    for row in of_sequence:  # a mask for the first segment, another for all that come after a reset
        assert len(set(row[:2])) == 1
        assert len(set(row[2:])) == 1
        assert row[0] != row[2]
    assert len(np.unique(of_sequence)) == 6
    assert not np.asarray(rnnx.unroll(layer, params, xs)[1]).any()


def test_dropout_of_modules_gets_the_key():
    layer, xs = rnnx.pointwise(nn.Dropout(0.5, deterministic=False)), jnp.ones((2, 50, 4))
    _, ys = rnnx.unroll(layer, {}, xs, key=jax.random.key(0))
    assert set(np.unique(ys)) == {0.0, 2.0}
    assert len({tuple(step) for step in np.asarray(ys).reshape(-1, 4)}) > 8, "each step draws by itself"


def test_dropout_leaves_integers_alone():
    xs = {"x": jnp.ones((2, 50)), "id": jnp.full((2, 50), 7)}
    _, ys = rnnx.unroll(rnnx.dropout(0.5), {}, xs, key=jax.random.key(0))
    assert set(np.unique(ys["x"])) == {0.0, 2.0}
    assert (ys["id"] == 7).all()


def test_repeat_of_a_layer_without_params():
    layer, xs = rnnx.repeat(rnnx.dropout(0.5), 3), jnp.ones((2, 500, 4))
    _, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs, key=jax.random.key(1))
    assert set(np.unique(ys)) == {0.0, 8.0}
    assert (rnnx.unroll(layer, {}, xs)[1] == xs).all()


def test_eager_streams_compile_once_and_layers_can_be_static():
    traced = []

    def step(params, h, x):
        traced.append(None)
        return h + x, h

    cell = rnnx.cell(lambda key, x: {}, lambda w, x, key: jnp.zeros(1), step)
    layer, carry = rnnx.scan(cell), None
    for _ in range(5):
        carry, _ = rnnx.unroll(layer, {}, jnp.ones((1, 1, 1)), carry=carry)
    assert float(carry[0, 0]) == 5
    assert len(traced) == 1
    run = jax.jit(rnnx.unroll, static_argnums=0)
    assert float(run(layer, {}, jnp.ones((1, 4, 1)))[0][0, 0]) == 4


def test_layers_within_layers_are_traced_once():
    traced = []

    def step(params, h, x):
        traced.append(None)
        return h, x

    layer = rnnx.scan(rnnx.cell(lambda key, x: {}, lambda w, x, key: jnp.zeros(1), step))
    for _ in range(4):
        layer = rnnx.stack(layer)
    rnnx.unroll(layer, {"0_stack": {"0_stack": {"0_stack": {_name(layer): {}}}}}, jnp.ones((1, 3, 1)))
    assert len(traced) <= 2


def _name(layer):
    while layer.spec.children:
        ((name, layer),) = layer.spec.children
    return name
