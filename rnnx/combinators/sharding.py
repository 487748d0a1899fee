"""Data parallelism: shards the batch over devices."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rnnx.base import Carry, Key, Layer, Params, PyTree, Spec
from rnnx.interning import interned
from rnnx.pointwise import as_layer
from rnnx.sequences import Segments, batch_and_time


@interned
def sharded(layer: Layer | nn.Module, devices: Sequence[jax.Device] | None = None) -> Layer:
    """Shards the batch over devices: each device runs the layer on its own rows.

    The devices communicate once, after the loop over time, to sum the gradients of the params. (With `jax.jit` and
    sharded inputs alone, they would communicate in every step.) To use the cores of a CPU, make each a device before
    JAX starts: `JAX_NUM_CPU_DEVICES=2 python ...`, or `jax.config.update("jax_num_cpu_devices", 2)`. This pays off for
    small and medium models, whose steps are too short for one device to parallelise; a large model keeps all cores busy
    anyway. GPUs and TPUs need no such setting.

    Args:
        layer: the Layer to run, usually a whole model.
        devices: the devices to use; default: all.

    Returns:
        The Layer, with the params, carries and outputs of `layer`. The batch is split into as many equal parts as the
        devices allow: on 8 devices, 32 rows into 8 parts, and 12 rows into 4 (each computed on two devices). A single
        row (a stream), a symbolic batch and packed rows (`rnnx.unroll_packed`, where carries belong to sequences, not
        rows) are not split.

    Noise: each device draws from its own key, so the noise differs from that of `layer` on one device.

    In a training loop, create params and optimizer state on one device, copy them and the data to all devices before
    the first step, and keep them there; otherwise the first two steps are compiled separately::

        everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec())
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
    if devices is not None:
        devices = tuple(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else ()
        if not devices or not all(isinstance(device, jax.Device) for device in devices):
            raise TypeError("sharded: devices must be a list of devices, such as jax.devices()[:2], or None for all")

    def apply(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | Segments | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        batch, _ = batch_and_time(xs)
        used = jax.devices() if devices is None else devices
        if isinstance(resets, Segments) or not isinstance(batch, int):
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)
        mesh = _mesh(tuple(used))
        axes = _axes_for(batch, mesh)
        if not axes:
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

        def apply_to_rows(
            params: Params,
            carry: Carry,
            xs: PyTree,
            lengths: jax.Array | None,
            resets: jax.Array | None,
            key: Key | None,
        ) -> tuple[Carry, PyTree]:
            key = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(axes))
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

        rows, everywhere = PartitionSpec(axes), PartitionSpec()
        return jax.shard_map(
            apply_to_rows,
            mesh=mesh,
            in_specs=(everywhere, rows, rows, rows, rows, everywhere),
            out_specs=(rows, rows),
            check_vma=False,  # otherwise the zeros of every initial carry would have to be marked as device-varying
        )(params, carry, xs, lengths, resets, key)

    spec = Spec("sharded", children=(("layer", inner),), directions=inner.spec.directions)
    return Layer(inner.init, inner.initial_carry, jax.jit(apply), spec)


@functools.lru_cache
def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    """One mesh for all batch sizes, since updated params live on all of it; it has an axis for each prime factor."""
    sizes: list[int] = []
    left, factor = len(devices), 2
    while left > 1:
        while left % factor == 0:
            sizes, left = [*sizes, factor], left // factor
        factor += 1
    return Mesh(np.array(devices).reshape(sizes), tuple(f"batch_{i}" for i in range(len(sizes))))


def _axes_for(batch: int, mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes that divide the batch evenly."""
    axes: list[str] = []
    for name, size in mesh.shape.items():
        if batch and batch % size == 0:
            axes, batch = [*axes, name], batch // size
    return tuple(axes)
