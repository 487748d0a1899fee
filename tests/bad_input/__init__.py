"""Wrong calls and what must be said of them: a table in each module here, which `tests/test_bad_input.py` runs.

A module has `CALLS`, a dict from a section's name to rows. A row is a piece of code, which runs after the lines below,
and either the type of the error that it raises and words of its message, or `MEANT`: it works, as a docstring says.
"""

MEANT = None

PRELUDE = """
import functools, math
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
import rnnx, rnnx.nnx
from flax import nnx
XS = jnp.ones((2, 5, 3)); K = jax.random.key(0)
L = rnnx.lstm(4); P = L.init(K, XS)
G = rnnx.gru(4); GP = G.init(K, XS)
TOK = jnp.zeros((2, 5), int)
LM = rnnx.stack(nn.Embed(7, 4), rnnx.gru(4), nn.Dense(7)); LMP = LM.init(K, TOK)
U = functools.partial(rnnx.unroll, L, P)
RAG = [np.ones((n, 3), np.float32) for n in (4, 2, 5)]
PK = rnnx.pack(RAG)
CELL = rnnx.cells.gru(4); CP = CELL.init(K, jax.ShapeDtypeStruct((3,), jnp.float32))
def run(layer, xs=XS, **k): return jax.block_until_ready(rnnx.unroll(layer, layer.init(K, xs), xs, **k))
def user(init=lambda k, x: {}, carry=lambda p, x, k: jnp.zeros(2), step=lambda p, h, x: (h, h), **k):
    return rnnx.cell(init, carry, step, **k)
def oloss(p, y, t): return ((y.sum() - t) ** 2)
"""
