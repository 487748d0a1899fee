"""The laws of sequences: chunk, padding, reset, reverse, batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import PyTree
from rnnx.combinators.directions import BiCarry
from rnnx.combinators.directions import reverse as reverse_layer
from rnnx.testing.comparing import assert_close
from rnnx.testing.inputs import at_row, is_float, split_floats, with_garbage_pads
from rnnx.testing.law import law
from rnnx.testing.subject import Subject
from rnnx.unrolling import unroll

A_ROW_ALONE = "the row alone, one step at a time"


def assert_equals_step_by_step(s: Subject, lengths: np.ndarray, resets: np.ndarray) -> None:
    """Checks values and gradients of a batch, with NaN in its pads, against its rows, each run alone, step by step.

    `resets` may have fewer rows and steps than the subject's inputs, which are then cut to its shape.
    """
    batch, time = resets.shape
    xs, carry = jax.tree.map(lambda x: x[:batch, :time], s.xs), jax.tree.map(lambda c: c[:batch], s.carry)
    ours, gradient = s.run_with_gradient(s.params, carry, with_garbage_pads(xs, lengths, np.nan), lengths, resets)
    expected, expected_gradient = s.step_by_step(s.params, carry, xs, lengths, resets)
    carries_agree = s.layer.spec.chunkable or isinstance(ours[0], BiCarry)
    s.assert_results_close(ours, expected, A_ROW_ALONE, carry=carries_agree)
    s.assert_gradients_close(gradient, expected_gradient, A_ROW_ALONE)


def _nothing(s: Subject) -> tuple[np.ndarray, np.ndarray]:
    """Full lengths, and no resets."""
    batch, time = s.resets.shape
    return np.full(batch, time), np.zeros_like(s.resets)


@law(
    "an operation across rows, such as a mean, a norm or a sort over the batch axis; write the cell for one sequence, "
    "so that it cannot mix rows"
)
def batch(s: Subject) -> None:
    """A row gives the same results in a batch of other rows as in a batch of its own copies."""
    arguments = jax.tree.map(np.asarray, (s.carry, s.xs, s.lengths, s.resets))

    def alone(row: int) -> PyTree:
        copies = jax.tree.map(lambda a: np.broadcast_to(a[row], a.shape), arguments)
        return at_row(s.run(s.params, *copies), row)

    rows = [alone(row) for row in range(len(s.lengths))]
    expected = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    s.assert_results_close(s.run(s.params, *arguments), expected, "the same row in a batch of its copies")


@law(
    "a step that depends on anything besides its weights, carry and input (the time within the call, a counter in "
    "Python), or a final carry that is not the state after the last step"
)
def chunk(s: Subject) -> None:
    """A sequence equals its chunks, down to single steps, each run with the carry of the chunk before it."""
    if not s.layer.spec.chunkable:
        _assert_carry_refused(s)
    carry = s.initial_carry(s.params, s.xs)
    after = jax.eval_shape(s.apply, s.params, carry, s.xs, None, None)[0]
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(carry), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            where = f"the final carry{jax.tree_util.keystr(path)}"
            raise AssertionError(f"{where} is {a.dtype}{list(a.shape)}, but {b.dtype}{list(b.shape)} was given")
    assert_equals_step_by_step(s, *_nothing(s))
    _assert_no_step_changes_nothing(s)


def _assert_carry_refused(s: Subject) -> None:
    try:
        unroll(s.layer, s.params, s.xs, carry=s.carry)
    except ValueError as error:
        if "both directions" in str(error):
            return
    raise AssertionError("unroll accepted a carry for a layer that reads both directions; it must raise")


def _assert_no_step_changes_nothing(s: Subject) -> None:
    xs, resets = jax.tree.map(lambda x: x[:, :0], s.xs), s.resets[:, :0]
    for lengths, no_resets in ((None, None), (np.zeros(len(resets), int), resets)):
        after, ys = s.run(s.params, s.carry, xs, lengths, no_resets)
        assert_close(after, s.carry, 0, what="final carry after 0 steps", than="the given carry", axes=("row",))
        for leaf in jax.tree.leaves(ys):
            if leaf.shape[:2] != resets.shape:
                raise AssertionError(f"inputs with [batch, time] = {resets.shape} gave outputs of shape {leaf.shape}")


@law(
    "pads masked by a multiplication, but 0 * nan is nan: use jnp.where, for the inputs too, since otherwise their "
    "gradients are nan; or a final carry taken after the last step instead of the last valid one"
)
def padding(s: Subject) -> None:
    """Garbage in the pads changes no bit of the results; outputs there are zero; carries are of the last valid step."""
    results = {
        name: s.run_with_gradient(s.params, s.carry, with_garbage_pads(s.xs, s.lengths, value), s.lengths, s.resets)
        for name, value in (("0", 0.0), ("nan", np.nan), ("inf", np.inf), ("-inf", -np.inf))
    }
    pads = ~(np.arange(s.resets.shape[1]) < s.lengths[:, None])
    for name, ((carry, ys), gradient) in results.items():
        _assert_zero(ys, pads, f"with {name} in the pads, output")
        _assert_zero(gradient[2], pads, f"with {name} in the pads, gradient with respect to xs")
        for what, ours, expected, axes in (
            ("output", ys, results["0"][0][1], ("row", "step")),
            ("final carry", carry, results["0"][0][0], ("row",)),
            ("gradient with respect to params", gradient[0], results["0"][1][0], ()),
            ("gradient with respect to carry", gradient[1], results["0"][1][1], ("row",)),
            ("gradient with respect to xs", gradient[2], results["0"][1][2], ("row", "step")),
        ):
            than = "the same with 0 in the pads"
            assert_close(ours, expected, 0, what=f"with {name} in the pads, {what}", than=than, axes=axes)
    assert_equals_step_by_step(s, s.lengths, _nothing(s)[1])


def _assert_zero(tree: PyTree, pads: np.ndarray, what: str) -> None:
    def kept(leaf: Any) -> np.ndarray:
        return np.where(pads.reshape(*pads.shape, *[1] * (leaf.ndim - 2)), np.asarray(leaf), np.zeros((), leaf.dtype))

    tree = jax.tree.map(kept, tree)
    zero = jax.tree.map(np.zeros_like, tree)
    assert_close(tree, zero, 0, what=what, than="the zeros required beyond the lengths", axes=("row", "step"))


@law(
    "zeros (or the carry times 1 - reset, which keeps nan) instead of initial_carry(params, xs, key); or a reset that "
    "is applied after its step instead of before it"
)
def reset(s: Subject) -> None:
    """A reset equals a new sequence, gradients included; inf or NaN before it does not reach the steps after it."""
    assert_equals_step_by_step(s, _nothing(s)[0], s.resets)
    _assert_reset_clears_nan(s)


def _assert_reset_clears_nan(s: Subject) -> None:
    """NaN before the last reset of each row does not change the outputs from that reset on."""
    if not jax.tree.leaves(split_floats(s.xs)[0]):
        return
    lengths, _ = _nothing(s)
    time = s.resets.shape[1]
    last = np.where(s.resets.any(axis=1), time - 1 - np.argmax(s.resets[:, ::-1], axis=1), 0)
    after = np.arange(time) >= last[:, None]

    def masked(tree: PyTree, value: float) -> PyTree:
        def fill(x: Any) -> Any:
            return jnp.where(after.reshape(*after.shape, *[1] * (x.ndim - 2)), x, value) if is_float(x) else x

        return jax.tree.map(fill, tree)

    ours = s.run(s.params, s.carry, masked(s.xs, np.nan), lengths, s.resets)[1]
    expected = s.run(s.params, s.carry, s.xs, lengths, s.resets)[1]
    what, than = "with nan in the inputs before a reset, output", "the same without"
    assert_close(masked(ours, 0), masked(expected, 0), s.tolerance, what=what, than=than, axes=("row", "step"))


@law("lengths or resets that are used for anything other than pads and resets")
def defaults(s: Subject) -> None:
    """Full lengths and all-false resets equal None; each of the two works without the other."""
    full, never = _nothing(s)
    for lengths, resets, same in (
        (None, None, (full, never)),
        (s.lengths, None, (s.lengths, never)),
        (None, s.resets, (full, s.resets)),
    ):
        given = ", ".join(f"{n}=None" for n, v in (("lengths", lengths), ("resets", resets)) if v is None)
        ours = s.run(s.params, s.carry, s.xs, lengths, resets)
        expected = s.run(s.params, s.carry, s.xs, *same)
        s.assert_results_close(ours, expected, "full lengths and no resets", f"with {given}, ")


@law("outputs or a final carry that depend on the position of the pads, or spec.directions that do not match apply")
def reverse(s: Subject) -> None:
    """`rnnx.reverse` equals flipping each row within its length, running the layer, flipping back; also with resets."""
    flipped, resets = _flipped(s.xs, s.lengths), np.zeros_like(s.resets)
    for row, length in enumerate(map(int, s.lengths)):
        for t in range(1, length):
            resets[row, length - t] = s.resets[row, t]
    carry, ys = s.run(s.params, s.carry, flipped, s.lengths, resets)
    backwards = s.jit(reverse_layer(s.layer).apply)
    xs = with_garbage_pads(s.xs, s.lengths, np.nan)
    ours = backwards(s.params, s.carry, xs, lengths=s.lengths, resets=s.resets)
    s.assert_results_close(ours, (carry, _flipped(ys, s.lengths)), "the layer on flipped inputs, flipped back")


def _flipped(tree: PyTree, lengths: np.ndarray) -> PyTree:
    tree = jax.tree.map(np.array, tree)
    for row, length in enumerate(lengths):
        for leaf in jax.tree.leaves(tree):
            leaf[row, :length] = leaf[row, :length][::-1].copy()
    return tree
