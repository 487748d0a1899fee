"""A batch on several devices: the same as on one, and nothing is exchanged within the loop over time."""

import os
import subprocess
import sys
from pathlib import Path

import jax

import rnnx
from rnnx.testing import assert_close, eps

# In a process of its own, since the number of devices is settled when JAX starts.
PROGRAM = r"""
import re
import jax, jax.numpy as jnp, numpy as np
import rnnx
from rnnx.testing import assert_close, perturbed, weighted_sum, with_garbage_pads

assert jax.device_count() == 4
layer = rnnx.stack(rnnx.bidirectional(rnnx.lstm(4)), rnnx.scan(rnnx.cells.mgu(3)), rnnx.lru(3))
both = rnnx.sharded(layer)
xs = jax.random.normal(jax.random.key(0), (8, 6, 3))
lengths = np.array([6, 3, 0, 6, 1, 2, 6, 5])
resets = np.random.default_rng(0).random((8, 6)) < 0.3
params = perturbed(both.init(jax.random.key(1), xs))

def with_gradient(layer):
    def loss(params, xs):
        carry, ys = rnnx.unroll(layer, params, xs, lengths=lengths, resets=resets)
        return weighted_sum((carry, ys)), (carry, ys)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))

bad = with_garbage_pads(xs, lengths, np.nan)
assert_close(with_gradient(both)(params, bad), with_gradient(layer)(params, bad))

text = with_gradient(both).lower(params, bad).compile().as_text()
computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\n(.*?)^}", text, re.S | re.M))
loops = re.findall(r"body=%?([\w.\-]+)", text)
assert loops and "all-reduce" in text
assert not any("all-reduce" in computations[loop] for loop in loops)

# Params that come out of an update lie on all devices; every size of batch must take them.
moved = jax.jit(lambda p: jax.tree.map(jnp.subtract, p, with_gradient(both)(p, xs)[1][0]))(params)
assert all(len(leaf.sharding.device_set) == 4 for leaf in jax.tree.leaves(moved))
for batch, parts in ((8, 4), (6, 2), (2, 2), (3, 1), (1, 1)):
    carry, ys = both.apply(moved, both.initial_carry(moved, xs[:batch], None), xs[:batch])
    assert ys.sharding.shard_shape(ys.shape)[0] == batch // parts, (batch, ys.sharding)
    assert_close(ys, layer.apply(moved, layer.initial_carry(moved, xs[:batch], None), xs[:batch])[1])

noisy = rnnx.sharded(rnnx.dropout(0.5))
ones = jnp.ones((8, 6, 3))
dropped = np.asarray(noisy.apply({}, (), ones, key=jax.random.key(0))[1])
assert len({row.tobytes() for row in dropped}) == 8  # no two rows drop the same

members = jax.tree.map(lambda *p: jnp.stack(p), params, perturbed(params, 5))
ensemble = jax.vmap(lambda p: rnnx.unroll(both, p, xs)[1])(members)
assert_close(ensemble[0], rnnx.unroll(layer, params, xs)[1])
print("all held")
"""


def test_four_devices_equal_one():
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "4",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "all held", done.stderr[-3000:]


def test_chosen_devices():
    layer, xs = rnnx.sharded(rnnx.gru(2), jax.devices()[:1]), jax.numpy.ones((2, 3, 1))
    params = layer.init(jax.random.key(0), xs)
    alone = rnnx.unroll(rnnx.gru(2), params, xs)
    assert_close(rnnx.unroll(layer, params, xs), alone, eps(64))
