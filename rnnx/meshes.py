"""Meshes: how arrays lie over devices, and how a layer runs on the rows of each device.

Three ways lead here. Inside a user's `jax.shard_map`, each device has its rows already; the types of arrays say over
which axes of the mesh their values vary, and all arguments are cast to vary alike before any loop. Over axes of type
`Explicit`, the types say which axes the batch is sharded over, and `unroll` runs the layer in a `jax.shard_map` over
them. Over axes of type `Auto`, types say nothing: `rnnx.sharded` names the axes. Either way no device waits for another
inside the loop over time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from rnnx.base import Apply, Carry, Key, Params, PyTree

Rows = Callable[[Params, PyTree, Key | None], PyTree]
"""`(params, rows, key) -> rows`, with leaves `[batch, ...]` in both."""


def varying_axes(tree: PyTree) -> frozenset[str]:
    """Returns the mesh axes over which any leaf varies; none outside `jax.shard_map`, or with `check_vma=False`."""
    return frozenset().union(*(_varying(leaf) for leaf in jax.tree.leaves(tree)))


def vary_alike(*trees: Any) -> tuple[Any, ...]:
    """Casts all leaves to vary over the same axes of the mesh, which a loop that carries them together requires.

    Params and zeros are the same on all devices; inputs are not. The transpose of the cast sums the gradients over the
    devices. It must come before a loop: without it, the gradient of a param would be summed in every step.
    """
    axes = varying_axes(trees)

    def cast(leaf: Any) -> Any:
        missing = axes - _varying(leaf)
        return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf

    return jax.tree.map(cast, trees) if axes else trees


def with_varying_inputs(apply: Apply) -> Apply:
    """Decorates a `Layer.apply`: its arguments vary alike."""

    @functools.wraps(apply)
    def wrapped(
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: PyTree = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        params, carry, xs, lengths, resets, key = vary_alike(params, carry, xs, lengths, resets, key)
        return apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

    return wrapped


def explicit_mesh(tree: PyTree) -> Mesh | AbstractMesh | None:
    """Returns the mesh over which the types of any leaves say that they are sharded; None if there is none."""
    for leaf in jax.tree.leaves(tree):
        if any(name is not None for name in _spec(leaf)):
            # Outside of jax.jit the mesh of the array itself: reshard needs to know the devices.
            return jax.typeof(leaf).sharding.mesh if isinstance(leaf, jax.core.Tracer) else leaf.sharding.mesh
    return None


def explicit_batch_axes(rows: PyTree) -> tuple[str, ...]:
    """Returns the axes of the mesh over which the batch is sharded, by the types of the leaves `[batch, ...]`."""
    found = {_names(spec[0]): None for leaf in jax.tree.leaves(rows) if (spec := _spec(leaf))}
    axes = [names for names in found if names]
    if len(axes) > 1:
        raise ValueError(
            f"the batch is sharded over the mesh axes {axes[0]} in one array, but over {axes[1]} in another: reshard "
            "one of them"
        )
    return axes[0] if axes else ()


def unsharded(*trees: Any) -> tuple[Any, ...]:
    """Gathers all leaves that are sharded over Explicit axes: every device computes the same."""
    mesh = explicit_mesh(trees)
    if mesh is None:
        return trees
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, everywhere), trees)


def run_on_rows(
    function: Rows, mesh: Mesh | AbstractMesh, axes: tuple[str, ...], params: Params, rows: PyTree, key: Key | None
) -> PyTree:
    """Runs `function` in a `jax.shard_map`, on each device's rows, sharded over these axes.

    Params that are sharded by their types are gathered once, before the loop over time; their gradients are sharded as
    they are. Each part of the batch has its own key.
    """
    explicit = mesh.axis_types and AxisType.Explicit in mesh.axis_types
    specs = jax.tree.map(_spec, params) if explicit else jax.tree.map(lambda _: PartitionSpec(), params)
    if explicit:
        rows = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, NamedSharding(mesh, PartitionSpec(axes))), rows)

    def local(params: Params, rows: PyTree, key: Key | None) -> PyTree:
        params = jax.tree.map(_gather, params, specs)
        key = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(axes))
        return function(params, rows, key)

    split = PartitionSpec(axes)
    # check_vma=False: gathered params are equal on all devices, which the types cannot tell.
    return jax.shard_map(local, mesh=mesh, in_specs=(specs, split, PartitionSpec()), out_specs=split, check_vma=False)(
        params, rows, key
    )


def _gather(leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
    for axis, name in enumerate(spec):
        if name is not None:
            leaf = jax.lax.all_gather(leaf, name, axis=axis, tiled=True)
    return leaf


def _spec(leaf: Any) -> PartitionSpec:
    return jax.typeof(leaf).sharding.spec


def _names(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _varying(leaf: Any) -> frozenset[str]:
    return jax.typeof(leaf).mat.varying
