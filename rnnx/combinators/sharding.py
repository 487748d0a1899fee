"""Data parallelism: shards the batch over devices."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh

from rnnx.arguments import describe
from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec
from rnnx.interning import interned
from rnnx.meshes import run_on_rows
from rnnx.pointwise import as_layer
from rnnx.sequences import Segments, batch_and_time


@interned
def sharded(layer: Layer | nn.Module, mesh: Mesh | None = None, *, batch: str | tuple[str, ...] = "data") -> Layer:
    """Shards the batch over devices: each device runs the layer on its own rows.

    The devices communicate once, after the loop over time, to sum the gradients of the params. (With `jax.jit` and
    sharded inputs alone, they would communicate in every step, unless the axes of the mesh are of type `Explicit`.) To
    use the cores of a CPU, make each a device before JAX starts: `JAX_NUM_CPU_DEVICES=2 python ...`, or
    `jax.config.update("jax_num_cpu_devices", 2)`. This pays off for small and medium models, whose steps are too short
    for one device to parallelise; a large model keeps all cores busy anyway. GPUs and TPUs need no such setting.

    Args:
        layer: the Layer to run, usually a whole model.
        mesh: the mesh of devices, e.g. `jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))`.
            Default: that of `jax.set_mesh`; without one, all devices.
        batch: the axis of the mesh, or several, over which the batch is sharded.

    Returns:
        The Layer, with the params, carries and outputs of `layer`. The rows are divided equally over the axis. Without
        a mesh, into as many equal parts as the devices allow: on 8 devices, 32 rows into 8 parts, and 12 rows into 4
        (each computed on two devices). A single row (a stream), a symbolic batch and packed rows
        (`rnnx.unroll_packed`, where carries belong to sequences, not rows) are not split. Params may be sharded over
        any axes (tensor parallel, FSDP): they are gathered once, before the loop over time. Inside `jax.shard_map`,
        where each device has its rows already, it is `layer`.

    Raises:
        TypeError: if `mesh` is not a mesh, or `batch` not the name of an axis.
        ValueError: when it runs, if the mesh has no such axis, or the rows cannot be divided equally over it.

    Noise: each device draws from its own key, so the noise differs from that of `layer` on one device.

    In a training loop, create params and optimizer state on one device, copy them and the data to all devices before
    the first step, and keep them there; otherwise the first two steps are compiled separately::

        everywhere = NamedSharding(mesh, PartitionSpec())
        state, batch = jax.device_put((state, batch), everywhere)
        step = jax.jit(train_step, donate_argnums=0, out_shardings=everywhere)

    On several CPU devices, fetch the loss every few steps (`float(loss)`): with more than 32 dispatched programs
    pending, XLA deadlocks, or aborts the process with `rendezvous ... may be stuck`. Turning off asynchronous dispatch
    (`jax_cpu_enable_async_dispatch`) does not help. And do not create the params on several CPU devices by
    `jax.jit(layer.init, out_shardings=everywhere)`: the QR factorizations of large orthogonal kernels then block each
    other's threads, and deadlock too.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.sharded(rnnx.stack(rnnx.gru(4), rnnx.gru(4)))
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> ys.shape
        (2, 5, 4)
    """
    inner = as_layer(layer)
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"sharded: mesh is {describe(mesh)}, but it must be a jax.sharding.Mesh, such as "
            'jax.make_mesh((8,), ("data",)), or None for that of jax.set_mesh, or else all devices'
        )
    names = batch if isinstance(batch, tuple) else (batch,)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(f"sharded: batch is {describe(batch)}, but it must be the name of an axis of the mesh")

    @jax.jit
    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | Segments | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        rows, _ = batch_and_time(xs)
        chosen, axes = _mesh_and_axes(mesh, names, rows)
        if isinstance(resets, Segments) or chosen is None or not axes:
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

        def run(params: Params, rows: PyTree, key: Key | None) -> tuple[Carry, PyTree]:
            carry, xs, lengths, resets = rows
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

        return run_on_rows(run, chosen, axes, params, (carry, xs, lengths, resets), key)

    spec = Spec("sharded", children=(("layer", inner),), directions=inner.spec.directions)
    return Layer(inner.init, inner.initial_carry, apply, spec)


def _mesh_and_axes(mesh: Mesh | None, names: tuple[str, ...], rows: Any) -> tuple[Any, tuple[str, ...]]:
    """The mesh, and the axes over which the rows are sharded: none if they are not to be split."""
    context = jax.sharding.get_abstract_mesh()
    if AxisType.Manual in context.axis_types:  # inside jax.shard_map
        return None, ()
    found: Mesh | AbstractMesh | None = mesh if mesh is not None else None if context.empty else context
    if not isinstance(rows, int) or rows < 2:
        return found, ()
    if found is None:
        found = _mesh_of(tuple(jax.devices()), names[0])
        return found, _dividing_axes(rows, found)
    missing = [name for name in names if name not in found.shape]
    if missing:
        raise ValueError(
            f"sharded: batch is {missing[0]!r}, but the mesh has the axes {dict(found.shape)}; pass batch=, the "
            "axis over which rows are sharded"
        )
    size = math.prod(found.shape[name] for name in names)
    if rows % size:
        raise ValueError(
            f"sharded: {rows} rows cannot be divided equally over the {size} devices of the mesh axis "
            f"{', '.join(map(repr, names))}; pass a multiple of {size} rows, such as {(rows // size + 1) * size}"
        )
    return found, names if found.size > 1 else ()


@functools.lru_cache
def _mesh_of(devices: tuple[jax.Device, ...], name: str) -> Mesh:
    """One mesh for all batch sizes, since updated params live on all of it; it has an axis for each prime factor."""
    sizes: list[int] = []
    left, factor = len(devices), 2
    while left > 1:
        while left % factor == 0:
            sizes, left = [*sizes, factor], left // factor
        factor += 1
    return Mesh(np.array(devices).reshape(sizes), tuple(f"{name}_{i}" for i in range(len(sizes))))


def _dividing_axes(rows: int, mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes that divide the batch evenly."""
    axes: list[str] = []
    for name, size in mesh.shape.items():
        if rows and rows % size == 0:
            axes, rows = [*axes, name], rows // size
    return tuple(axes)
