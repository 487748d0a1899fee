"""A layer prepared for the laws: its params, inputs and compiled functions, which all laws share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import AssociativeCell, Carry, Cell, Key, Layer, Params, PyTree, as_cell
from rnnx.checks import checked_xs
from rnnx.evaluators.scan import scan
from rnnx.sequences import batch_and_time
from rnnx.testing.comparing import TOLERANCE, assert_close
from rnnx.testing.inputs import cotangent_of, merge_floats, perturbed, ragged, split_floats, weighted_sum
from rnnx.testing.reference import StepByStep, one_step
from rnnx.unrolling import unroll

Result = tuple[Carry, PyTree]
Gradient = tuple[Params, PyTree, PyTree]
LEAST_ROWS, LEAST_STEPS = 3, 4


@dataclasses.dataclass(eq=False)
class Subject:
    """A layer under test. `rnnx.testing.prepare` makes one; all laws share its compiled functions.

    Attributes:
        layer: the layer.
        params, carry, xs: the arguments of its runs; `carry` is one that an earlier run returned.
        lengths, resets: the NumPy arrays, `[batch]` and `[batch, time]`, that the laws use.
        no_gradient: names of params that need no gradient.
        smooth: whether gradients are the derivatives of the outputs; false for spikes with a surrogate gradient.
        tolerance: the largest error of an array, relative to its largest number.
        cell: the cell that the layer evaluates, if it was prepared from one. The step-by-step reference then runs the
            cell's own functions instead of the layer.
        compiler_options: for `jax.jit`.
    """

    layer: Layer
    params: Params
    carry: Carry
    xs: PyTree
    lengths: np.ndarray
    resets: np.ndarray
    cell: Cell | AssociativeCell | None = None
    no_gradient: tuple[str, ...] = ()
    smooth: bool = True
    tolerance: float = TOLERANCE
    compiler_options: dict[str, Any] | None = None

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=self.compiler_options)

    def apply(
        self, params: Params, carry: Carry, xs: PyTree, lengths: Any, resets: Any, key: Key | None = None
    ) -> Result:
        """`Layer.apply`, with all arguments by position."""
        return self.layer.apply(params, carry, xs, lengths=lengths, resets=resets, key=key)

    @functools.cached_property
    def run(self) -> Callable[..., Result]:
        """`apply`, compiled."""
        return self.jit(self.apply)

    def draw(self, key: Key | None) -> PyTree:
        """The outputs; a key, if given, is used for both the initial carry and `apply`."""
        if key is None:
            return self.run(self.params, self.carry, self.xs, None, None)[1]
        return self._unroll(self.params, self.xs, key)[1]

    @functools.cached_property
    def _unroll(self) -> Callable[..., Result]:
        return self.jit(lambda params, xs, key: unroll(self.layer, params, xs, key=key))

    @functools.cached_property
    def initial_carry(self) -> Callable[..., Carry]:
        """`(params, xs) -> carry`, compiled."""
        return self.jit(lambda params, xs: self.layer.initial_carry(params, xs, None))

    def with_gradient(
        self, params: Params, carry: Carry, xs: PyTree, lengths: Any, resets: Any
    ) -> tuple[Result, Gradient]:
        """The result, and gradients of its weighted sum with respect to params and the floats of carry and xs.

        If the layer reads both directions, the sum is over the outputs alone, since its carry cannot be passed on.
        """
        carry_floats, carry_rest = split_floats(carry)
        xs_floats, xs_rest = split_floats(xs)

        def loss(params: Params, carry: PyTree, xs: PyTree) -> Any:
            carry, xs = merge_floats(carry, carry_rest), merge_floats(xs, xs_rest)
            result = self.apply(params, carry, xs, lengths, resets)
            return weighted_sum(result if self.layer.spec.chunkable else result[1]), result

        gradient, result = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(params, carry_floats, xs_floats)
        return result, gradient

    @functools.cached_property
    def run_with_gradient(self) -> Callable[..., tuple[Result, Gradient]]:
        """`with_gradient`, compiled."""
        return self.jit(self.with_gradient)

    @functools.cached_property
    def reference(self) -> StepByStep:
        return StepByStep(self.layer if self.cell is None else one_step(self.cell), self.compiler_options)

    def with_layer(self, layer: Layer) -> Subject:
        """The same subject, with another layer that has the same params and carries."""
        return dataclasses.replace(self, layer=layer)

    def step_by_step(
        self, params: Params, carry: Carry, xs: PyTree, lengths: Any, resets: Any
    ) -> tuple[Result, Gradient]:
        """The reference for `run_with_gradient`: runs every row alone, one step at a time."""
        result = jax.eval_shape(self.apply, params, carry, xs, lengths, resets)
        whole = self.layer.spec.chunkable
        cotangent = cotangent_of(result) if whole else (cotangent_of(result[0]), cotangent_of(result[1]))
        return self.reference.run(params, carry, xs, lengths, resets, cotangent)

    def assert_results_close(
        self, ours: Result, expected: Result, than: str, what: str = "", *, carry: bool = True
    ) -> None:
        """Compares outputs and, if `carry`, final carries."""
        assert_close(ours[1], expected[1], self.tolerance, what=f"{what}output", than=than, axes=("row", "step"))
        if carry:
            assert_close(ours[0], expected[0], self.tolerance, what=f"{what}final carry", than=than, axes=("row",))

    def assert_gradients_close(self, ours: Gradient, expected: Gradient, than: str, what: str = "") -> None:
        """Compares the gradients for params, xs and, unless the layer reads both directions, the carry."""
        names = {"params": (), "carry": ("row",), "xs": ("row", "step")}
        for (name, axes), a, b in zip(names.items(), ours, expected, strict=True):
            if name != "carry" or self.layer.spec.chunkable:
                assert_close(a, b, self.tolerance, what=f"{what}gradient with respect to {name}", than=than, axes=axes)


def stepwise(cell: Cell | AssociativeCell) -> Cell:
    return as_cell(cell) if isinstance(cell, AssociativeCell) else cell


def prepare(
    subject: Layer | Cell | AssociativeCell,
    xs: PyTree,
    *,
    params: Params | None = None,
    no_gradient: Iterable[str] = (),
    smooth: bool = True,
    tolerance: float = TOLERANCE,
) -> Subject:
    """Prepares a layer, or `rnnx.scan` of a cell, for the laws.

    The arguments are those of `rnnx.testing.check_layer`.
    """
    xs = checked_xs(xs)
    batch, time = batch_and_time(xs)
    if batch < LEAST_ROWS or time < LEAST_STEPS:
        raise ValueError(
            f"xs has [batch, time] = {(batch, time)}, but the laws need at least {(LEAST_ROWS, LEAST_STEPS)}, for rows "
            "of different lengths and resets within them; (4, 7) is a good choice"
        )
    cell = None if isinstance(subject, Layer) else subject
    layer = subject if isinstance(subject, Layer) else scan(stepwise(subject))
    if params is None:
        params = perturbed(jax.jit(layer.init)(jax.random.key(0), xs))
    lengths, resets = ragged(batch, time)
    s = Subject(layer, params, (), xs, lengths, resets, cell, tuple(no_gradient), smooth, tolerance)
    # Without optimisations, compiling for a CPU takes half the time; most of the time of the laws is compilation.
    if jax.default_backend() == "cpu":
        s.compiler_options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    s.carry = s.initial_carry(params, xs)
    if layer.spec.chunkable:  # a carry other than the initial one, which the layer itself can reach
        s.carry, _ = s.run(params, s.carry, jax.tree.map(lambda x: jnp.flip(x, axis=0), xs), None, None)
    return s
