"""How a net of another library is held against the layer that its weights become."""

import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from rnnx.testing import assert_close

BATCH, TIME, FEATURES, WIDTH = 3, 6, 3, 4
LENGTHS = np.array([6, 2, 5])
TOLERANCES = {"float32": 2e-5, "float64": 1e-12}


def random_like(tree, dtype, seed=0):
    """Random numbers in the shapes of a pytree, none of them zero."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * random.normal(size=a.shape), dtype), tree)


def inputs(dtype):
    return jnp.asarray(np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES)), dtype)


def walked(step, state, xs, lengths, backward=False):
    """`step(state, x) -> (state, y)` of a batch, over time; beyond the lengths the state stays, and y is zero."""
    valid = jnp.arange(TIME)[:, None] < (jnp.full(BATCH, TIME) if lengths is None else lengths)[None]

    def one(state, inputs):
        x, is_valid = inputs
        new, y = step(state, x)
        new = jax.tree.map(lambda a, b: jnp.where(is_valid[:, None], a, b), new, state)
        return new, jnp.where(is_valid[:, None], y, 0)

    state, ys = jax.lax.scan(one, state, (jnp.moveaxis(xs, 1, 0), valid), reverse=backward)
    return state, jnp.moveaxis(ys, 0, 1)


def zeros(kind, dtype):
    """The first state of an LSTM, a pair, or of another net."""
    zero = jnp.zeros((BATCH, WIDTH), dtype)
    return (zero, zero) if kind == "lstm" else zero


def agree(convert, theirs, weights, dtype, lengths=None):
    """`convert(weights) -> (layer, params)` and `theirs(weights, xs) -> (states, ys)`: values, and gradients by the
    peer's own weights and by the inputs."""
    dtype = jnp.dtype(dtype)

    def ours(weights, xs):
        layer, params = convert(weights)
        assert {p.dtype for p in jax.tree.leaves(params)} == {dtype}
        return rnnx.unroll(layer, params, xs, lengths=lengths)

    def results(run):
        def loss(weights, xs):
            states, ys = run(weights, xs)
            states = tuple(jax.tree.leaves(states))
            assert {a.dtype for a in (*states, ys)} == {dtype}
            return (ys**2).sum() + sum((s**3).sum() for s in states), (states, ys)

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(weights, inputs(dtype))

    with jax.numpy_rank_promotion("allow"):
        expected = results(theirs)
    assert_close(results(ours), expected, TOLERANCES[dtype.name])


def random_params(layer, dtype, features=FEATURES, seed=5):
    """Params of a layer in which nothing is zero, in a dtype."""
    xs = jax.ShapeDtypeStruct((BATCH, TIME, features), dtype)
    return random_like(jax.eval_shape(layer.init, jax.random.key(0), xs), dtype, seed)


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True)
