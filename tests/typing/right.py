"""A right program: no type checker has anything to say of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import rnnx

xs = jnp.ones((2, 5, 3))
layer = rnnx.stack(
    nn.Dense(4),
    rnnx.repeat(rnnx.lstm(4, param_dtype=jnp.bfloat16), 2),
    rnnx.residual(rnnx.gru(4)),
    rnnx.scan(rnnx.zoneout(rnnx.learned_carry(rnnx.cells.lstm(4)), 0.1), unroll=2),
)
params = layer.init(jax.random.key(0), xs)
carry, ys = rnnx.unroll(layer, params, xs, lengths=np.array([5, 3]), resets=np.zeros((2, 5), bool))
carry, ys = rnnx.unroll(layer, params, xs, lengths=[5, 3], key=jax.random.key(1))
carry, ys = rnnx.unroll(layer, params, np.asarray(xs), carry=carry)
gates = rnnx.bidirectional(rnnx.scan(rnnx.expose(rnnx.cells.lstm(4), "f")), merge=lambda f, b: (f, b))
tree = rnnx.associative_scan(rnnx.learned_carry(rnnx.cells.lru(4)), sequential=False)
packed = rnnx.pack([xs[0], xs[1, :3]])
tagger = rnnx.lstm(4, kernel_init=jax.nn.initializers.he_normal())
carry, out = rnnx.unroll_packed(tagger, tagger.init(jax.random.key(0), packed.xs), packed)
h = rnnx.linear_scan(jnp.ones(4), np.ones(4), jnp.zeros(()))


@rnnx.factory
def leaky(width: int = 4) -> rnnx.Cell:
    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict[str, jax.Array]:
        return {"rate": jnp.zeros(x.shape)}

    def initial_carry(params: dict[str, jax.Array], x: jax.ShapeDtypeStruct, key: jax.Array | None) -> jax.Array:
        return jnp.zeros_like(params["rate"])

    def step(params: dict[str, jax.Array], h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = params["rate"] * h + x
        return h, h

    return rnnx.cell(init, initial_carry, step)


own: rnnx.Layer = rnnx.scan(leaky(8))
inferred: rnnx.Layer = rnnx.reverse(own)
total: int = rnnx.summary(own, xs).count("leaky")
