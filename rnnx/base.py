"""The core types, `Cell`, `AssociativeCell` and `Layer`, and the laws that every Layer keeps.

A recurrent network is written once, as a `Cell` (or an `AssociativeCell`): a few pure functions over ONE
time step of ONE sequence. *Evaluators* (`rnnx.scan`, ...) lift a cell to a `Layer`, which runs over a batch
of whole sequences; *combinators* (`rnnx.stack`, `rnnx.bidirectional`, ...) take and return Layers. Evaluators
and combinators handle batch, time, padding, resets, direction and memory, so a cell need not.

**The laws.** Every Layer keeps them. `rnnx.testing` checks any layer or cell against them, and `tests/test_laws.py`
checks every public one:

1.  *chunk*: for a causal layer and `key=None`, running over `xs` equals running over `xs[:, :k]` and then
    over `xs[:, k:]` with the carry passed on. Streaming uses chunks of one step. A reversed layer takes its
    chunks from right to left (if a reset marks the boundary between two chunks, the caller starts the left one
    from the initial carry). A layer that reads both directions cannot be chunked; passing it a carry raises.
2.  *padding*: values beyond `lengths` (NaN and infinities included) change no output, no final carry
    and no gradient. Outputs there are zero; the final carry is the one after the last valid step, and a
    sequence of length 0 returns the carry it was given.
3.  *reset*: `resets[b, t]` restores the initial carry before step `t`, which equals running the segments as
    separate sequences, gradients included. (If a recurrence diverges to inf or NaN *before* a reset, the steps
    after the reset are unaffected, but the gradients of the diverged steps are NaN.)
4.  *reverse*: `reverse(layer)` equals flipping within the length, running `layer`, and flipping back. A reset
    at `t` marks the boundary between `t - 1` and `t` in both directions.
5.  *batch*: a batch equals its rows, run one by one. *ensemble*: `jax.vmap` over stacked params equals a loop.
6.  *evaluator*: every evaluator of a cell agrees with `scan`: outputs, final carry, gradients.
7.  Every layer compiles once; carries keep the dtype of the params and outputs the dtype of the inputs; every
    parameter gets a gradient, and second derivatives exist; `jax.export` lowers it for cpu, cuda and tpu.

**Conventions.** Arguments and results have the order of `lax.scan`: `(params, carry, xs) -> (carry, ys)`; both results
are always returned. Arrays are `[batch, time, ...]` outside and time-major inside. `key=None` means deterministic:
there is no training flag. Every leaf of `params` is real, floating and trainable.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar

import jax
import jax.export
import numpy as np

from rnnx.arguments import describe
from rnnx.hints import explained
from rnnx.interning import interned, reduced
from rnnx.spec import Spec

PyTree = Any
"""A nest of arrays (or, where only shapes are needed, of `jax.ShapeDtypeStruct`)."""

ArrayLike = jax.Array | np.ndarray | Sequence[Any]
"""What the public functions accept as an array: a JAX or NumPy array, or a (nested) list of numbers."""

Key = jax.Array
Params = PyTree
Weights = PyTree
Carry = PyTree

T = TypeVar("T")


def exportable(carry: type[T]) -> type[T]:
    """Decorates the NamedTuple of a carry, so that `jax.export` can serialise functions that take or return it.

    To load such a function without importing rnnx, register the type under the same name, e.g. `rnnx.LSTMCarry`; or
    export a function that takes and returns a list of arrays (`jax.tree.flatten`).
    """
    jax.export.register_namedtuple_serialization(carry, serialized_name=f"rnnx.{carry.__name__}")
    return carry


def _pure(kind: type[T]) -> type[T]:
    """Decorates a tuple of pure functions: a copy is the object itself, and `pickle` stores the call that made it."""
    methods = {"__copy__": lambda self: self, "__deepcopy__": lambda self, memo: self, "__reduce__": reduced}
    for name, method in methods.items():
        setattr(kind, name, method)
    return kind


@_pure
class Cell(NamedTuple):
    """One step of one sequence: what a researcher writes. `rnnx.cell` fills in the defaults.

    Attributes:
        init: `(key, x) -> params`; `x` is one step's pytree of `jax.ShapeDtypeStruct`, without batch or time.
        prepare: `(params, key) -> weights`, run once per application, not once per step: e.g. to make a matrix
            orthogonal, to drop weights, to discretise. Default: the params themselves.
        initial_carry: `(weights, x, key) -> carry`, the state before the first step. It gets `weights` because it
            may be learned, `x` (as in `init`) for spatial sizes, and `key` for a mask that lasts a whole sequence.
        project: `(weights, x, key) -> z`, the part of the step that does not depend on the carry; the evaluator
            decides when to run it. Default: `x` itself.
        step: `(weights, carry, z) -> (carry, y)`, the recurrence.
        spec: its name, and the options it was made with.

    Where to draw noise depends on how long it lasts: in `prepare` for an application, in `initial_carry` for a sequence
    (as part of the carry), in `project` for a step. With `key=None` there is no noise.
    """

    init: Callable[[Key, PyTree], Params]
    prepare: Callable[[Params, Key | None], Weights]
    initial_carry: Callable[[Weights, PyTree, Key | None], Carry]
    project: Callable[[Weights, PyTree, Key | None], PyTree]
    step: Callable[[Weights, Carry, PyTree], tuple[Carry, PyTree]]
    spec: Spec

    def __repr__(self) -> str:
        return f"cells.{self.spec}"


@dataclasses.dataclass(frozen=True)
class LinearizedStep:
    """A Cell's `step` with a hand-written derivative (JVP), which `rnnx.fused_scan` uses.

    It can be called like any step. A wrapper that replaces the step of a cell (e.g. to add noise) also drops the
    derivative. All three functions act on one step of one sequence; a prefix d marks a tangent.

    Attributes:
        forward: `(weights, carry, z) -> (carry, y, residuals)`, the step; `residuals` are what its derivative needs.
        input_tangent: `(dweights, dz, carry, residuals) -> input_tangent`, the contribution of the tangents of weights
            and z, in any form that `jvp` accepts; linear in both. `carry` is the one before the step.
        jvp: `(weights, carry, residuals, dcarry, input_tangent) -> (dcarry, dy)`, the tangents of the step's results;
            linear in dcarry and input_tangent together.
    """

    forward: Callable[[Weights, Carry, PyTree], tuple[Carry, PyTree, PyTree]]
    input_tangent: Callable[[Weights, PyTree, Carry, PyTree], PyTree]
    jvp: Callable[[Weights, Carry, PyTree, Carry, PyTree], tuple[Carry, PyTree]]

    def __call__(self, weights: Weights, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        carry, y, _ = self.forward(weights, carry, z)
        return carry, y


@_pure
class AssociativeCell(NamedTuple):
    r"""A Cell whose steps can be combined in any grouping: `carry_t = act(carry_{t-1}, lift(z_t))`.

    Such a recurrence (linear state-space models, minGRU, linear attention, ...) can be evaluated in parallel
    over time. `rnnx.associative_cell` fills in the defaults; `rnnx.as_cell` gives the step-by-step form.

    Attributes:
        init, prepare, initial_carry, project, step, spec: as in `Cell`. The carry is the state alone, not a
            product of elements. `step` is `lift`, `act` and `readout` in turn, or an equal but faster function.
        lift: `(weights, z) -> element`, which represents one step, a map of the state.
        combine: `(left, right) -> element`, first `left`, then `right`. It must be associative, and
            `act(act(carry, left), right)` must equal `act(carry, combine(left, right))`.
        act: `(carry, element) -> carry`.
        readout: `(weights, carry, z) -> y`, from the carry after the step.
        product: `(a, carry) -> carry`, the product in linear steps `carry_t = a carry_{t-1} + b`, whose elements are
            `(a, b)`; `rnnx.affine_cell` makes such cells. None for other steps.
    """

    init: Callable[[Key, PyTree], Params]
    prepare: Callable[[Params, Key | None], Weights]
    initial_carry: Callable[[Weights, PyTree, Key | None], Carry]
    project: Callable[[Weights, PyTree, Key | None], PyTree]
    lift: Callable[[Weights, PyTree], PyTree]
    combine: Callable[[PyTree, PyTree], PyTree]
    act: Callable[[Carry, PyTree], Carry]
    readout: Callable[[Weights, Carry, PyTree], PyTree]
    step: Callable[[Weights, Carry, PyTree], tuple[Carry, PyTree]]
    spec: Spec
    product: Callable[[PyTree, PyTree], PyTree] | None = None

    def __repr__(self) -> str:
        return f"cells.{self.spec}"


class Apply(Protocol):
    """The type of `Layer.apply`."""

    def __call__(
        self,
        params: Params,
        carry: Carry,
        xs: PyTree,
        *,
        lengths: jax.Array | None = None,
        resets: PyTree = None,  # `[batch, time]` booleans; for packed rows a `rnnx.sequences.Segments`
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]: ...


@_pure
class Layer(NamedTuple):
    """A network over a batch of sequences: what a researcher composes. `rnnx.unroll` checks its arguments and runs it.

    Attributes:
        init: `(key, xs) -> params`; `xs` is a pytree of arrays or shapes `[batch, time, ...]`. JAX must
            be able to trace it: `unroll` traces it to get the shapes of the params.
        initial_carry: `(params, xs, key) -> carry`, every leaf `[batch, ...]`.
        apply: `(params, carry, xs, *, lengths, resets, key) -> (carry, ys)`, with `lengths` `[batch]` integers
            between 0 and the number of steps and `resets` `[batch, time]` booleans, or None.
            (`unroll_packed` passes `resets` as `rnnx.sequences.Segments`; the final carries are then those of the `n`
            packed sequences.)
        spec: what it is made of.
    """

    init: Callable[[Key, PyTree], Params]
    initial_carry: Callable[[Params, PyTree, Key | None], Carry]
    apply: Apply
    spec: Spec

    def __repr__(self) -> str:
        return str(self.spec)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"a Layer cannot be called; run {self.spec.name} with rnnx.unroll(layer, params, xs), where "
            "params = layer.init(key, xs)"
        )


def _identity(weights: Weights, x: PyTree, key: Key | None) -> PyTree:
    return x


def _unchanged(params: Params, key: Key | None) -> Weights:
    return params


@explained
def cell(
    init: Callable[[Key, PyTree], Params],
    initial_carry: Callable[[Weights, PyTree, Key | None], Carry],
    step: Callable[[Weights, Carry, PyTree], tuple[Carry, PyTree]],
    *,
    prepare: Callable[[Params, Key | None], Weights] = _unchanged,
    project: Callable[[Weights, PyTree, Key | None], PyTree] = _identity,
    name: str | None = None,
) -> Cell:
    """Makes a Cell from three to five functions; see `Cell` for what each takes and returns.

    `name` is the name of the cell in errors, tables and the params of a `stack`. Default: the name of the function in
    which `step` is defined.

    Example:
        A leaky integrator with a learned rate::

            >>> import jax, jax.numpy as jnp, rnnx
            >>> def leaky():
            ...     def init(key, x):
            ...         return {"rate": jnp.zeros(x.shape)}
            ...     def initial_carry(params, x, key):
            ...         return jnp.zeros_like(params["rate"])
            ...     def step(params, h, x):
            ...         a = jax.nn.sigmoid(params["rate"])
            ...         h = a * h + (1 - a) * x
            ...         return h, h
            ...     return rnnx.cell(init, initial_carry, step)
            >>> layer = rnnx.scan(leaky())
            >>> layer
            leaky()
            >>> xs = jnp.ones((2, 5, 3))
            >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
            >>> ys.shape
            (2, 5, 3)
    """
    return Cell(init, prepare, initial_carry, project, step, Spec(name or _written_in(step)))


@explained
def associative_cell(
    init: Callable[[Key, PyTree], Params],
    initial_carry: Callable[[Weights, PyTree, Key | None], Carry],
    lift: Callable[[Weights, PyTree], PyTree],
    combine: Callable[[PyTree, PyTree], PyTree],
    act: Callable[[Carry, PyTree], Carry],
    readout: Callable[[Weights, Carry, PyTree], PyTree],
    *,
    prepare: Callable[[Params, Key | None], Weights] = _unchanged,
    project: Callable[[Weights, PyTree, Key | None], PyTree] = _identity,
    step: Callable[[Weights, Carry, PyTree], tuple[Carry, PyTree]] | None = None,
    name: str | None = None,
) -> AssociativeCell:
    """Makes an AssociativeCell from six functions or more; see `AssociativeCell` for what each takes and returns.

    Write `step` by hand if it can be cheaper than `lift` and `act` (in a delta rule, `act` multiplies matrices); it
    must equal `carry = act(carry, lift(weights, z)); y = readout(weights, carry, z)`. `name` is as in `rnnx.cell`;
    default: the name of the function in which `lift` is defined.

    Example:
        A leaky sum with a learned decay::

            >>> import jax, jax.numpy as jnp, rnnx
            >>> def leaky_sum():
            ...     def init(key, x):
            ...         return {"keep": jnp.full(x.shape, 0.5)}
            ...     def initial_carry(params, x, key):
            ...         return jnp.zeros_like(params["keep"])
            ...     def lift(params, x):
            ...         return params["keep"], x
            ...     def combine(left, right):
            ...         return left[0] * right[0], left[1] * right[0] + right[1]
            ...     def act(h, element):
            ...         return element[0] * h + element[1]
            ...     def readout(params, h, x):
            ...         return h
            ...     return rnnx.associative_cell(init, initial_carry, lift, combine, act, readout)
            >>> layer = rnnx.scan(rnnx.as_cell(leaky_sum()))
            >>> xs = jnp.ones((1, 3, 1))
            >>> rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)[1].ravel().tolist()
            [1.0, 1.5, 1.75]
    """

    def lifted(weights: Weights, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        carry = act(carry, lift(weights, z))
        return carry, readout(weights, carry, z)

    spec = Spec(name or _written_in(lift))
    step = step or lifted
    return AssociativeCell(init, prepare, initial_carry, project, lift, combine, act, readout, step, spec)


def _written_in(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", "cell").split(".<locals>")[0].rpartition(".")[2]


P = ParamSpec("P")
R = TypeVar("R", Cell, AssociativeCell, Layer)


def factory(make: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function that makes a Cell or a Layer: the result's spec has the function's name and options.

    Equal calls return the same object, so a layer made inside a function that runs often is compiled only once: by
    `jax.jit` (with the layer as a static argument, or within the evaluators), by a linen module that has it as an
    attribute, and by `rnnx.unroll`. Arguments are equal if they have the same type and value; functions only if they
    are the same function, so create an initialiser once. The last 256 results are cached, except those with unhashable
    arguments (lists, dicts, arrays) and those that refer to more than 64 KiB of arrays. So the function must depend on
    its arguments only.

    A result can be pickled, as the name of the factory and its arguments, if the arguments can be pickled.

    Example::

        >>> import rnnx
        >>> @rnnx.factory
        ... def narrow_lstm(width=8, depth=1):
        ...     return rnnx.lstm(width)
        >>> narrow_lstm(4)
        narrow_lstm(width=4)
        >>> narrow_lstm(4) is narrow_lstm(width=4)
        True
    """
    if not callable(make) or isinstance(make, Layer):
        raise TypeError(f"factory decorates a function that makes a Cell or a Layer, but got {describe(make)}")
    chosen = options_of(make)

    @functools.wraps(make)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        result = make(*args, **kwargs)
        if not isinstance(result, Cell | AssociativeCell | Layer):
            raise TypeError(f"{make.__name__} returned {describe(result)}, but a factory makes a Cell or a Layer")
        return result._replace(spec=result.spec._replace(name=make.__name__, options=chosen(*args, **kwargs)))

    return interned(named)


def options_of(make: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Makes a function that takes the arguments of `make`, and returns a dict of those that are not the defaults."""
    signature = inspect.signature(make)
    defaults = {name: p.default for name, p in signature.parameters.items()}

    def chosen(*args: Any, **kwargs: Any) -> dict[str, Any]:
        given = signature.bind(*args, **kwargs).arguments
        return {name: value for name, value in given.items() if not _same(value, defaults[name])}

    return chosen


def _same(a: Any, b: Any) -> bool:
    """Whether a is b or equals it; false if the comparison does not give a single boolean, as for arrays."""
    equal = a is b or a == b
    return isinstance(equal, bool | np.bool_) and bool(equal)


@interned
def as_cell(associative: AssociativeCell) -> Cell:
    """Converts an associative cell to step-by-step form, for `scan`, streaming, and all functions that take a Cell."""
    a = associative
    if not isinstance(a, Cell | AssociativeCell):
        raise TypeError(
            f"as_cell takes an AssociativeCell, e.g. rnnx.cells.lru(64), but got {describe(a)}; convert a Flax cell "
            "with rnnx.linen.as_cell or rnnx.nnx.as_cell"
        )
    return Cell(a.init, a.prepare, a.initial_carry, a.project, a.step, a.spec)
