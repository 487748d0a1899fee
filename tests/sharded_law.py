"""The law of sharding, for the cases that are named: python tests/sharded_law.py lstm gru

However the batch is sharded over 8 virtual devices, a layer gives the outputs, final carries and gradients of one
device, and the devices do not communicate inside a loop. It runs in a process of its own, since the number of devices
is fixed when JAX starts; `test_sharding.py` starts it.
"""

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import rnnx
from registry import BATCH, CASES, TIME, Case
from rnnx.testing import assert_close, perturbed
from rnnx.testing.inputs import cotangent_of, merge_floats, ragged, split_floats

LENGTHS, RESETS = ragged(BATCH, TIME)
ROWS, EVERYWHERE = PartitionSpec("data"), PartitionSpec()
COLLECTIVE = re.compile(r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\(")


def mesh_of(kind: AxisType) -> Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


def place(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
    return jax.device_put(tree, NamedSharding(mesh, spec))


def over_model(params: Any, mesh: Mesh) -> Any:
    """Params as tensor parallelism and FSDP store them: the last axis sharded, where it is even."""

    def one(leaf: jax.Array) -> jax.Array:
        even = leaf.ndim > 0 and leaf.shape[-1] % 2 == 0
        return place(leaf, mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "model") if even else EVERYWHERE)

    return jax.tree.map(one, params)


def results(layer: rnnx.Layer) -> Callable[..., Any]:
    """`(params, rows) -> (carry, ys), gradients`, with rows `(xs, lengths, resets, cotangent of (carry, ys))`."""

    def run(params: Any, rows: Any) -> Any:
        xs, lengths, resets, cotangent = rows
        floats, rest = split_floats(xs)

        def forward(params: Any, floats: Any) -> Any:
            out = rnnx.unroll(layer, params, merge_floats(floats, rest), lengths=lengths, resets=resets)
            return split_floats(out)

        out, vjp, others = jax.vjp(forward, params, floats, has_aux=True)
        return merge_floats(out, others), vjp(cotangent)

    return run


def in_shard_map(layer: rnnx.Layer, mesh: Mesh, check_vma: bool) -> Callable[..., Any]:
    """As users write it: params the same on all devices, each of which reads its own rows."""

    def local(params: Any, rows: Any) -> Any:
        out, (by_params, by_xs) = results(layer)(params, rows)
        if not check_vma:  # with it, the transpose of what does not vary is the sum
            by_params = jax.lax.psum(by_params, "data")
        return out, (by_params, by_xs)

    specs = {"in_specs": (EVERYWHERE, ROWS), "out_specs": (ROWS, (EVERYWHERE, ROWS))}
    return jax.shard_map(local, mesh=mesh, check_vma=check_vma, **specs)


def compiled(function: Callable[..., Any], params: Any, rows: Any) -> Callable[..., Any]:
    """The compiled program; raises if devices communicate inside a loop of it."""
    program = jax.jit(function).lower(params, rows).compile()
    text = program.as_text()
    computations = dict(re.findall(r"^(?:ENTRY )?%?([\w.\-]+) \(.*?\n(.*?)^}", text, re.S | re.M))
    for loop in re.findall(r"body=%?([\w.\-]+)", text):
        found = COLLECTIVE.search(computations[loop])
        assert not found, f"{found[1]} in the loop {loop}"
    assert COLLECTIVE.search(text) or not jax.tree.leaves(params), "no gradient is summed over the devices"
    return program


def check(case: Case) -> None:
    layer = case.make()
    xs = case.inputs(jax.random.key(0), BATCH, TIME)
    params = perturbed(jax.jit(layer.init)(jax.random.key(1), xs))
    run = jax.jit(lambda params: rnnx.unroll(layer, params, xs, lengths=LENGTHS, resets=RESETS))
    cotangent = split_floats(cotangent_of(jax.eval_shape(run, params)))[0]
    rows = xs, LENGTHS, RESETS, cotangent
    expected = jax.jit(results(layer))(params, rows)

    auto, explicit = mesh_of(AxisType.Auto), mesh_of(AxisType.Explicit)
    everywhere, laid_out = place(params, auto, EVERYWHERE), place(rows, auto, ROWS)
    forms = {
        "in shard_map": (None, in_shard_map(layer, auto, True), everywhere, laid_out),
        "in shard_map without check_vma": (None, in_shard_map(layer, auto, False), everywhere, laid_out),
        "by rnnx.sharded": (auto, results(rnnx.sharded(layer)), over_model(params, auto), laid_out),
        "over Explicit axes": (explicit, results(layer), over_model(params, explicit), place(rows, explicit, ROWS)),
    }
    for name, (mesh, function, *arguments) in forms.items():
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            actual = jax.tree.map(np.asarray, compiled(function, *arguments)(*arguments))
        assert_close(actual, expected, 4 * case.tolerance, what=f"{name}, the result", than="that of one device")


def main() -> None:
    assert jax.device_count() == 8
    failed = 0
    for case in (case for case in CASES if case.name in sys.argv[1:]):
        try:
            check(case)
            print(f"{case.name}: holds", flush=True)
        except Exception as error:
            failed += 1
            print(f"{case.name}: {type(error).__name__}: {str(error)[:1000]}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
