"""The reference: runs a layer one step of one row at a time, and computes its gradient by an explicit backward pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from rnnx.base import AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree
from rnnx.combinators.directions import BiCarry
from rnnx.sequences import cast_floats, float_dtype, step_struct
from rnnx.testing.inputs import at_row, is_float, merge_floats, split_floats


class Piece(NamedTuple):
    """Steps `[start, end)` of one row, run in one call; `reset`: whether they start from the initial carry."""

    row: int
    start: int
    end: int
    reset: bool


class StepByStep:
    """Runs a layer in the simplest way: `apply` with lengths and resets must give the same.

    It runs every row alone, with a separate call for each step, without lengths or resets; from right to left for a
    backward layer. A layer that reads both directions is called once per segment between resets instead of once per
    step. Lengths and resets are concrete NumPy arrays.
    """

    def __init__(self, layer: Layer, compiler_options: dict[str, Any] | None = None) -> None:
        def backward(params: Params, carry: Carry, floats: PyTree, rest: PyTree, cotangent: PyTree) -> PyTree:
            vjp = jax.vjp(lambda p, c, f: layer.apply(p, c, merge_floats(f, rest)), params, carry, floats)[1]
            return vjp(cotangent)

        def initial(params: Params, xs: PyTree) -> Carry:
            return layer.initial_carry(params, xs, None)

        def initial_backward(params: Params, xs: PyTree, cotangent: PyTree) -> Params:
            return jax.vjp(lambda p: initial(p, xs), params)[1](cotangent)[0]

        self.layer = layer
        self.forward = jax.jit(layer.apply, compiler_options=compiler_options)
        self.backward = jax.jit(backward, compiler_options=compiler_options)
        self.initial = jax.jit(initial, compiler_options=compiler_options)
        self.initial_backward = jax.jit(initial_backward, compiler_options=compiler_options)

    def pieces(self, row: int, length: int, resets: np.ndarray) -> list[Piece]:
        """The pieces of a row, in the order in which they are run."""
        boundaries = {int(t) for t in np.flatnonzero(resets[:length])}
        if not self.layer.spec.chunkable:
            starts = sorted({0, *boundaries}) if length else []
            return [Piece(row, start, end, True) for start, end in zip(starts, [*starts[1:], length])]
        steps = range(length)
        if self.layer.spec.directions == {"backward"}:
            return [Piece(row, t, t + 1, t + 1 in boundaries) for t in reversed(steps)]
        return [Piece(row, t, t + 1, t in boundaries) for t in steps]

    def run(
        self,
        params: Params,
        carry: Carry,
        xs: PyTree,
        lengths: Any,
        resets: Any,
        cotangent: tuple[Carry, PyTree] | None = None,
    ) -> Any:
        """Returns `(carry, ys)`; given a cotangent, also the gradients for params and the floats of carry and xs."""
        # In NumPy: JAX would compile every slice separately.
        carry, xs, cotangent = jax.tree.map(np.asarray, (carry, xs, cotangent))
        batch, time = jax.tree.leaves(xs)[0].shape[:2]
        first = jax.tree.map(lambda x: x[:1, :1], xs)
        initial = self.initial(params, first)
        like = jax.eval_shape(self.forward, params, initial, first)[1]
        ys = jax.tree.map(lambda s: np.zeros((batch, time, *s.shape[2:]), s.dtype), like)
        tape, carries = [], []
        for row in range(batch):
            state = at_row(carry, row)
            states = []
            for piece in self.pieces(row, int(lengths[row]), resets[row]):
                before = initial if piece.reset else state
                part = jax.tree.map(lambda x, p=piece: x[p.row : p.row + 1, p.start : p.end], xs)
                state, out = jax.tree.map(np.asarray, self.forward(params, before, part))
                jax.tree.map(lambda y, o, p=piece: y.__setitem__((p.row, slice(p.start, p.end)), o[0]), ys, out)
                tape.append((piece, before, part))
                states.append(state)
            if isinstance(state, BiCarry) and states:
                state = BiCarry(states[-1].forward, states[0].backward)
            carries.append(state)
        result = _joined(carries), ys
        return result if cotangent is None else (result, self._gradient(params, xs, tape, *cotangent))

    def _gradient(self, params: Params, xs: PyTree, tape: list[Any], by_carry: PyTree, by_ys: PyTree) -> Any:
        by_xs = jax.tree.map(np.zeros_like, split_floats(xs)[0])
        by_params = jax.tree.map(np.zeros_like, params)
        rows = [at_row(by_carry, row) for row in range(jax.tree.leaves(xs)[0].shape[0])]
        for piece, before, part in reversed(tape):
            out = jax.tree.map(lambda y, p=piece: y[p.row : p.row + 1, p.start : p.end], by_ys)
            last = rows[piece.row]
            if not self.layer.spec.chunkable:
                last = jax.tree.map(np.zeros_like, last)
            by_p, by_c, by_x = self.backward(params, before, *split_floats(part), (last, out))
            jax.tree.map(lambda g, x, p=piece: g.__setitem__((p.row, slice(p.start, p.end)), x[0]), by_xs, by_x)
            if piece.reset:
                by_p = jax.tree.map(np.add, by_p, self.initial_backward(params, part, by_c))
                by_c = jax.tree.map(np.zeros_like, by_c)
            by_params = jax.tree.map(np.add, by_params, by_p)
            rows[piece.row] = by_c
        by_carry = jax.tree.map(lambda x: x if is_float(x) else None, _joined(rows))
        return by_params, by_carry, by_xs


def _joined(rows: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)


def one_step(cell: Cell | AssociativeCell) -> Layer:
    """Makes a layer that runs one step of one row, `[1, 1, ...]`, with the cell's own functions and nothing else."""

    def init(key: Key, xs: PyTree) -> Params:
        return cell.init(key, step_struct(xs))

    def initial_carry(params: Params, xs: PyTree, key: Key | None) -> Carry:
        carry = cell.initial_carry(cell.prepare(params, key), step_struct(xs), key)
        return jax.tree.map(lambda a: a[None], carry)

    def apply(params: Params, carry: Carry, xs: PyTree, **options: Any) -> tuple[Carry, PyTree]:
        weights = cell.prepare(params, None)
        before, x = jax.tree.map(lambda a: a[0], carry), jax.tree.map(lambda a: a[0, 0], xs)
        after, y = cell.step(weights, before, cell.project(weights, x, None))
        after = jax.tree.map(lambda a, b: a.astype(b.dtype)[None], after, before)
        return after, jax.tree.map(lambda a: a[None, None], cast_floats(y, float_dtype(xs)))

    return Layer(init, initial_carry, apply, cell.spec)
