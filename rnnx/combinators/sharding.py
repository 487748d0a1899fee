"""A batch spread over devices."""

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
    """Spreads the batch over devices: each runs the layer on its rows, on its own until the end.

    The devices speak to each other once, after the loop over time, where the gradients of the params are summed up.
    (A program under `jax.jit` whose inputs are merely laid out over devices would do so in every step.) For the cores
    of a machine, make each a device before JAX starts: `JAX_NUM_CPU_DEVICES=2 python ...`, or
    `jax.config.update("jax_num_cpu_devices", 2)`. That pays for small and middling models, whose steps are too short to
    be shared out by a single device; a large one keeps all cores busy anyway. GPUs and TPUs need nothing.

    Args:
        layer: the Layer to run, as a rule a whole model.
        devices: on which; default all that there are.

    Returns:
        The Layer, with the params, carries and outputs of `layer`. The batch is cut into as many equal parts as the
        devices allow: on 8 devices 32 rows into 8, 12 rows into 4 (each on two devices, which do the same). One row (a
        stream), a symbolic batch, and packed rows (`rnnx.unroll_packed`), whose final carries are of other sequences
        than rows, are not cut.

    Noise: each device draws from a key of its own, so the noise is another than that of `layer` on one device.

    A training loop: make params and optimizer state on one device, copy them and the data to all before the first
    step, and keep them there, else the first two steps are compiled each by itself::

        everywhere = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec())
        state, batch = jax.device_put((state, batch), everywhere)
        step = jax.jit(train_step, donate_argnums=0, out_shardings=everywhere)

    On several CPU devices, fetch the loss every few steps (`float(loss)`): with more than 32 programs dispatched and
    not done, XLA waits forever, or ends the process with `rendezvous ... may be stuck`. Asynchronous dispatch turned
    off (`jax_cpu_enable_async_dispatch`) does not help. And do not make the params there by
    `jax.jit(layer.init, out_shardings=everywhere)`: large orthogonal kernels are QR factorizations, which then take
    each other's threads and wait forever too.

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
            raise TypeError("sharded: devices must be devices, such as jax.devices()[:2], or None for all")

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
        found = jax.devices() if devices is None else devices
        if isinstance(resets, Segments) or not isinstance(batch, int):
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)
        mesh = _mesh(tuple(found))
        axes = _axes_for(batch, mesh)
        if not axes:
            return inner.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

        def of_rows(
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
            of_rows,
            mesh=mesh,
            in_specs=(everywhere, rows, rows, rows, rows, everywhere),
            out_specs=(rows, rows),
            check_vma=False,  # else every zero with which a cell begins had to say that it differs between devices
        )(params, carry, xs, lengths, resets, key)

    spec = Spec("sharded", children=(("layer", inner),), directions=inner.spec.directions)
    return Layer(inner.init, inner.initial_carry, jax.jit(apply), spec)


@functools.lru_cache
def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    """One for every batch, since params that came out of an update lie on all of it: an axis for each prime factor."""
    sizes: list[int] = []
    left, factor = len(devices), 2
    while left > 1:
        while left % factor == 0:
            sizes, left = [*sizes, factor], left // factor
        factor += 1
    return Mesh(np.array(devices).reshape(sizes), tuple(f"batch_{i}" for i in range(len(sizes))))


def _axes_for(batch: int, mesh: Mesh) -> tuple[str, ...]:
    """As many axes as divide the batch evenly."""
    axes: list[str] = []
    for name, size in mesh.shape.items():
        if batch and batch % size == 0:
            axes, batch = [*axes, name], batch // size
    return tuple(axes)
