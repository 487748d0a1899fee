# Every line that ends in "# wrong" is an error to a type checker, and no other line is: see tests/test_typing.py.
import jax
import jax.numpy as jnp

import rnnx

xs = jnp.ones((2, 5, 3))
layer = rnnx.lstm(4)
cell = rnnx.cells.lstm(4)
params = layer.init(jax.random.key(0), xs)

rnnx.unroll(layer, xs)  # wrong
rnnx.unroll(cell, params, xs)  # wrong
rnnx.unroll(layer, params, xs, length=5)  # wrong
rnnx.unroll(layer, params, xs, lengths=5)  # wrong
rnnx.scan(layer)  # wrong
rnnx.scan(rnnx.cells.lru(4))  # wrong
rnnx.scan(cell, unroll="2")  # wrong
rnnx.associative_scan(cell)  # wrong
rnnx.stack(layer, 3)  # wrong
rnnx.stack([layer, layer])  # wrong
rnnx.bidirectional(cell)  # wrong
rnnx.lstm("4")  # wrong
rnnx.lstm(4, projections=2)  # wrong
rnnx.expose(cell, 3)  # wrong
rnnx.expose(layer, "f")  # wrong
rnnx.zoneout(rnnx.cells.lru(4), 0.1)  # wrong
rnnx.cell(1, 2, 3)  # wrong
