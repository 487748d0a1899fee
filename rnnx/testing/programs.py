"""The laws of programs: dtypes, precision, compile, noise, export, ensemble."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from rnnx.base import PyTree
from rnnx.testing.comparing import assert_close, assert_dtypes
from rnnx.testing.inputs import at_row, cast, perturbed, split_floats
from rnnx.testing.law import law
from rnnx.testing.subject import Result, Subject

HALF = jnp.bfloat16
# For bfloat16, whose epsilon is 0.8 %, after a few steps.
HALF_TOLERANCE = 0.1


def _from_initial_carry(s: Subject, params: PyTree, xs: PyTree) -> Result:
    return s.run(params, s.initial_carry(params, xs), xs, s.lengths, s.resets)


@law(
    "an array made without a dtype, or in that of the input: make the carry like a parameter, as in "
    "jnp.zeros_like(weights['bias'])"
)
def dtypes(s: Subject) -> None:
    """Carries keep the dtype of the params, outputs that of the inputs: bfloat16 with float32, and the reverse."""
    half_xs, half_params = cast(s.xs, HALF), cast(s.params, HALF)
    float_inputs, any_params = jax.tree.leaves(split_floats(s.xs)[0]), jax.tree.leaves(s.params)

    carry, ys = _from_initial_carry(s, s.params, half_xs)
    assert_dtypes(carry, jnp.float32, what="with bfloat16 inputs and float32 params, the final carry")
    assert_dtypes(ys, HALF if float_inputs else jnp.float32, what="with bfloat16 inputs, the output")

    carry, ys = _from_initial_carry(s, half_params, s.xs)
    if any_params:
        assert_dtypes(carry, HALF, what="with bfloat16 params and float32 inputs, the final carry")
    assert_dtypes(ys, jnp.float32 if float_inputs else HALF, what="with bfloat16 params, the output")


@law("sums or powers in bfloat16 over many terms: do them in float32")
def precision(s: Subject) -> None:
    """Outputs of bfloat16 inputs, and of bfloat16 params, are close to those of float32."""
    expected = _from_initial_carry(s, s.params, s.xs)[1]
    for what, params, xs in (("inputs", s.params, cast(s.xs, HALF)), ("params", cast(s.params, HALF), s.xs)):
        ours = cast(_from_initial_carry(s, params, xs)[1], jnp.float32)
        what, than = f"with bfloat16 {what}, output", "that in float32"
        assert_close(ours, expected, HALF_TOLERANCE, what=what, than=than, axes=("row", "step"))


@law(
    "Python code that depends on the values of arrays (if, int, a loop over lengths), or a carry whose type changes "
    "between runs: jnp.full((8,), 0.5) is weakly typed, jnp.full((8,), 0.5, weights['bias'].dtype) is not",
    of_errors=True,
)
def compiles_once(s: Subject) -> None:
    """One compilation serves all lengths and resets, and every chunk of a stream."""
    traced = []

    @s.jit
    def run(*arguments: Any) -> Result:
        traced.append(jax.tree.map(jax.typeof, arguments[1]))
        return s.apply(*arguments)

    start = s.initial_carry(s.params, s.xs)
    for lengths in (s.lengths, s.lengths[::-1].copy(), np.full_like(s.lengths, s.resets.shape[1])):
        for resets in (s.resets, ~s.resets):
            carry, _ = run(s.params, start, s.xs, lengths, resets)
    if s.layer.spec.chunkable:
        run(s.params, carry, s.xs, s.lengths, s.resets)
    if len(traced) > 1:
        raise AssertionError(
            f"apply was compiled again for the carry that it returned: first for {_types(traced[0])}, then for "
            f"{_types(traced[1])}"
        )


def _types(tree: PyTree) -> str:
    def describe(a: Any) -> str:
        return f"{'weakly typed ' if a.weak_type else ''}{a.dtype}{list(a.shape)}"

    return ", ".join(describe(a) for a in jax.tree.leaves(tree))


@law("random numbers that are not drawn by jax.random from the given key")
def noise(s: Subject) -> None:
    """Without a key nothing is random; with one, the same key gives the same numbers."""
    for key, name in ((None, "key=None"), (jax.random.key(1), "the same key")):
        first, second = s.draw(key), s.draw(key)
        what, than = f"with {name}, output of the second run", "the first"
        assert_close(second, first, 0, what=what, than=than, axes=("row", "step"))


@law(
    "a custom batching rule, a callback, or a Python loop over a leading axis",
    of_errors=True,
)
def ensemble(s: Subject) -> None:
    """`jax.vmap` over stacked params equals a loop, and `jax.vmap` of the gradient over rows equals each row alone."""
    members = [perturbed(s.params, seed) for seed in range(2)]
    arguments = s.carry, s.xs, s.lengths, s.resets
    if jax.tree.leaves(s.params):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        together = s.jit(jax.vmap(s.apply, in_axes=(0, None, None, None, None)))(stacked, *arguments)
        loop = [s.run(params, *arguments) for params in members]
        _assert_stacked(s, together, loop, ("member", "row", "step"), "result", "the same member alone")

    def by_params(params: PyTree, *row: Any) -> PyTree:
        return s.with_gradient(params, *jax.tree.map(lambda a: a[None], row))[1][0]

    over_rows = s.jit(jax.vmap(by_params, in_axes=(None, 0, 0, 0, 0)))
    together = over_rows(s.params, *jax.tree.map(jnp.asarray, arguments))
    rows = [s.step_by_step(s.params, *at_row(arguments, row))[1][0] for row in range(len(s.lengths))]
    _assert_stacked(
        s, together, rows, ("row",), "gradient with respect to params", "that of the row alone, one step at a time"
    )


def _assert_stacked(s: Subject, ours: PyTree, parts: list[Any], axes: tuple[str, ...], what: str, than: str) -> None:
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
    assert_close(ours, expected, s.tolerance, what=f"under jax.vmap, {what}", than=than, axes=axes)


@law(
    "Python that needs the batch size or the number of steps as a concrete number; a NamedTuple as a carry that is "
    "not registered by jax.export.register_namedtuple_serialization; or an operation that one platform lacks",
    of_errors=True,
)
def export(s: Subject) -> None:
    """One `jax.export` with symbolic batch and time serves cpu, cuda and tpu, and gives the same results.

    If `flatbuffers` is installed, which JAX needs for serialisation, the function is also serialised and read back.
    """
    batch, time = jax.export.symbolic_shape("batch, time")

    def struct(x: Any, *sizes: Any) -> Any:
        return jax.ShapeDtypeStruct((*sizes, *x.shape[len(sizes) :]), x.dtype)

    def shapes(tree: PyTree, *sizes: Any) -> PyTree:
        return jax.tree.map(lambda x: struct(x, *sizes), tree)

    arguments = s.xs, jnp.asarray(s.lengths), jnp.asarray(s.resets)
    structs = shapes(s.xs, batch, time), struct(arguments[1], batch), struct(arguments[2], batch, time)
    if s.layer.spec.chunkable:
        given: tuple[Any, ...] = (s.carry,)
        run = jax.jit(s.apply)
    else:
        given, run = (), jax.jit(_from_no_carry(s))
    given_structs = shapes(given, batch)
    exported = jax.export.export(run, platforms=["cpu", "cuda", "tpu"])(s.params, *given_structs, *structs)
    if importlib.util.find_spec("flatbuffers"):
        exported = jax.export.deserialize(exported.serialize())
    ours, expected = exported.call(s.params, *given, *arguments), s.run(s.params, s.carry, *arguments)
    s.assert_results_close(ours, expected, "the layer itself", "exported, ")


def _from_no_carry(s: Subject) -> Callable[..., Result]:
    def run(params: PyTree, xs: PyTree, lengths: Any, resets: Any) -> Result:
        return s.apply(params, s.layer.initial_carry(params, xs, None), xs, lengths, resets)

    return run
