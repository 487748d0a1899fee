"""A batch on several devices: the same as on one, and nothing is exchanged within the loop over time."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import rnnx
from registry import CASES
from rnnx.testing import assert_close, eps

GROUPS = 8

# In a process of its own, since the number of devices is settled when JAX starts.
PROGRAM = r"""
import re
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
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

# A mesh that is given, and arrays whose types say how they are sharded, outside jax.set_mesh.
mesh = jax.make_mesh((2, 2), ("rows", "model"), axis_types=(AxisType.Auto,) * 2)
gru = rnnx.gru(3)
gru_params = perturbed(gru.init(jax.random.key(2), xs))
for batch in ("rows", ("rows", "model")):
    given = rnnx.sharded(gru, mesh, batch=batch)
    assert_close(with_gradient(given)(gru_params, bad), with_gradient(gru)(gru_params, bad))
explicit = NamedSharding(jax.make_mesh((4,), ("rows",)), PartitionSpec("rows"))
carry, ys = rnnx.unroll(gru, gru_params, jax.device_put(bad, explicit), lengths=lengths, resets=resets)
assert jax.typeof(ys).sharding.spec[0] == "rows", jax.typeof(ys)
assert_close((carry, ys), rnnx.unroll(gru, gru_params, bad, lengths=lengths, resets=resets))
lm = rnnx.stack(nn.Embed(5, 4), rnnx.gru(4), nn.Dense(5))
prompt = jnp.zeros((8, 3), jnp.int32)
lm_params = perturbed(lm.init(jax.random.key(0), prompt))
def write(prompt):
    carry, _ = rnnx.unroll(lm, lm_params, prompt[:, :-1])
    return rnnx.generate(lm, lm_params, carry, prompt[:, -1], steps=6, sample=rnnx.sampler(0))[1]
assert (np.asarray(write(prompt)) == np.asarray(write(jax.device_put(prompt, explicit)))).all()
packed = rnnx.pack([np.asarray(xs[i, :n]) for i, n in enumerate((6, 3, 2, 1))], length=6, rows=4)
laid_out = packed._replace(xs=jax.device_put(jnp.asarray(packed.xs), explicit))
assert_close(rnnx.unroll_packed(gru, gru_params, laid_out), rnnx.unroll_packed(gru, gru_params, packed))

for batch, rows, message in (
    ("data", 8, "batch is 'data', but the mesh has the axes {'rows': 2, 'model': 2}"),
    ("rows", 7, "7 rows cannot be divided equally over the 2 devices"),
):
    try:
        rnnx.unroll(rnnx.sharded(gru, mesh, batch=batch), gru_params, jnp.ones((rows, 6, 3)))
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)

noisy = rnnx.sharded(rnnx.dropout(0.5))
ones = jnp.ones((8, 6, 3))
dropped = np.asarray(noisy.apply({}, (), ones, key=jax.random.key(0))[1])
assert len({row.tobytes() for row in dropped}) == 8  # no two rows drop the same

members = jax.tree.map(lambda *p: jnp.stack(p), params, perturbed(params, 5))
ensemble = jax.vmap(lambda p: rnnx.unroll(both, p, xs)[1])(members)
assert_close(ensemble[0], rnnx.unroll(layer, params, xs)[1])
print("all held")
"""


def in_a_process(devices: int, *arguments: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    if jax.version.__version_info__ < (0, 11):  # as in conftest.py
        environment["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_layer_keeps_the_law_of_sharding(group):
    names = [case.name for case in CASES][group::GROUPS]
    done = in_a_process(8, str(Path(__file__).with_name("sharded_law.py")), *names)
    assert done.stdout.splitlines() == [f"{name}: holds" for name in names], done.stdout + done.stderr[-3000:]


def test_four_devices_equal_one():
    done = in_a_process(4, "-c", PROGRAM)
    assert done.stdout.strip() == "all held", done.stderr[-3000:]


def test_a_mesh_of_one_device():
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    layer, xs = rnnx.sharded(rnnx.gru(2), mesh), jax.numpy.ones((2, 3, 1))
    params = layer.init(jax.random.key(0), xs)
    alone = rnnx.unroll(rnnx.gru(2), params, xs)
    assert_close(rnnx.unroll(layer, params, xs), alone, eps(64))
