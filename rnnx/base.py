"""The types everything else is made of, and the laws they keep.

A recurrent network is written once, as a `Cell` (or an `AssociativeCell`): a few pure functions over ONE
time step of ONE sequence. *Evaluators* (`rnnx.scan`, ...) lift a cell to a `Layer`, which runs over a batch
of whole sequences; *combinators* (`rnnx.stack`, `rnnx.bidirectional`, ...) take and return Layers. Batch,
time, padding, resets, direction and memory belong to them, so every cell gets all of it for free.

**The laws.** Every Layer keeps them. `rnnx.testing` holds any layer or cell to them, as `tests/test_laws.py` does with
every public one:

1.  *chunk*: for a causal layer and `key=None`, running over `xs` equals running over `xs[:, :k]` and then
    over `xs[:, k:]` with the carry passed on. Streaming is the case of one step. A reversed layer takes its
    chunks from right to left (where a reset falls on the border of two, whoever passes the carry on puts in
    the initial one); a layer that looks both ways cannot be chunked, and a carry passed to it raises.
2.  *padding*: what lies beyond `lengths` (NaN and infinities included) changes no output, no final carry
    and no gradient. Outputs there are zero; the final carry is the one after the last valid step, and a
    sequence of length 0 returns the carry it was given.
3.  *reset*: `resets[b, t]` puts the initial carry in place before step `t`, so it equals running the pieces
    as separate sequences, gradients included. (A recurrence that diverged to inf or NaN *before* a reset does
    not disturb what comes after it, but its own gradients are NaN all the same.)
4.  *reverse*: `reverse(layer)` equals flipping within the length, `layer`, flipping back. A reset at `t` is
    the border between `t - 1` and `t`, whichever way one crosses it.
5.  *batch*: a batch equals its rows one by one. *ensemble*: `jax.vmap` over stacked params equals a loop.
6.  *evaluator*: every evaluator of a cell agrees with `scan`: outputs, final carry, gradients.
7.  It compiles once; carries keep the dtype of the params and outputs the dtype of the inputs; every
    parameter gets a gradient, and second derivatives exist; `jax.export` lowers it for cpu, cuda and tpu.

**Conventions.** The order is `lax.scan`'s: `(params, carry, xs) -> (carry, ys)`, always both. Arrays are
`[batch, time, ...]` outside and time-major inside. `key=None` means deterministic: there is no training flag.
Every leaf of `params` is real, floating and trainable.
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
"""What functions for users take for an array: of JAX, of NumPy, or a (nested) list of numbers."""

Key = jax.Array
Params = PyTree
Weights = PyTree
Carry = PyTree

T = TypeVar("T")


def exportable(carry: type[T]) -> type[T]:
    """Decorates the NamedTuple of a carry: what takes and returns it can be serialised by `jax.export`.

    Where such a function is loaded and rnnx is not imported, the type must be registered under the same name,
    `rnnx.LSTMCarry`; or the function takes and returns a list of arrays, by `jax.tree.flatten`.
    """
    jax.export.register_namedtuple_serialization(carry, serialized_name=f"rnnx.{carry.__name__}")
    return carry


def _pure(kind: type[T]) -> type[T]:
    """Decorates the types of pure functions: a copy is the thing itself, and `pickle` keeps the call that made it."""
    methods = {"__copy__": lambda self: self, "__deepcopy__": lambda self, memo: self, "__reduce__": reduced}
    for name, method in methods.items():
        setattr(kind, name, method)
    return kind


@_pure
class Cell(NamedTuple):
    """One step of one sequence: what a researcher writes. `rnnx.cell` fills in what is not given.

    Attributes:
        init: `(key, x) -> params`; `x` is one step's pytree of `jax.ShapeDtypeStruct`, without batch or time.
        prepare: `(params, key) -> weights`, run once per application, not once per step: a map made
            orthogonal, dropped weights, a discretisation. Default: the params themselves.
        initial_carry: `(weights, x, key) -> carry`, the state before the first step: `weights` because it
            may be learned, `x` (as in `init`) for spatial sizes, `key` for a mask that lasts a sequence.
        project: `(weights, x, key) -> z`, the part of the step that ignores the carry; the evaluator decides
            when to run it. Default: `x` itself.
        step: `(weights, carry, z) -> (carry, y)`, the recurrence.
        spec: what it is called and with which options it was made.

    Noise has a home by its lifetime: `prepare` (an application), `initial_carry` (a sequence, carried along),
    `project` (a step). With `key=None` there is none.
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

    It is called like any step. A wrapper that replaces the step of a cell (to add noise, say) drops the derivative with
    it. All three functions are of one step of one sequence; a d before a name stands for its tangent.

    Attributes:
        forward: `(weights, carry, z) -> (carry, y, residuals)`, the step, and what its derivative needs of it.
        input_tangent: `(dweights, dz, carry, residuals) -> input_tangent`, what the tangents of weights and z add
            inside the step, in whatever form `jvp` takes it; linear in both. `carry` is the one before the step.
        jvp: `(weights, carry, residuals, dcarry, input_tangent) -> (dcarry, dy)`, the tangents of what the step
            returns; linear in dcarry and input_tangent together.
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
    over time. `rnnx.associative_cell` fills in what is not given; `rnnx.as_cell` gives the step-by-step form.

    Attributes:
        init, prepare, initial_carry, project, step, spec: as in `Cell`. The carry is the state alone, not a
            product of elements. `step` is the two lines that follow from the rest, or something quicker.
        lift: `(weights, z) -> element`, the map of the state that a step makes.
        combine: `(left, right) -> element`, first `left`, then `right`. It must be associative, and
            `act(act(carry, left), right)` must equal `act(carry, combine(left, right))`.
        act: `(carry, element) -> carry`.
        readout: `(weights, carry, z) -> y`, from the carry after the step.
        product: where the steps are linear, `carry_t = a carry_{t-1} + b` with `(a, b)` for elements, what `a carry`
            is: `(a, carry) -> carry`; `rnnx.affine_cell` makes such cells. Else None.
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
        resets: PyTree = None,  # `[batch, time]` booleans; of packed rows a `rnnx.sequences.Segments`
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]: ...


@_pure
class Layer(NamedTuple):
    """A batch of sequences: what a researcher composes. `rnnx.unroll` runs it, and checks its arguments first.

    Attributes:
        init: `(key, xs) -> params`; `xs` is a pytree of arrays or shapes `[batch, time, ...]`. It must be a
            function that JAX can trace: `unroll` asks it for the shapes of the params.
        initial_carry: `(params, xs, key) -> carry`, every leaf `[batch, ...]`.
        apply: `(params, carry, xs, *, lengths, resets, key) -> (carry, ys)`, with `lengths` `[batch]` integers
            between 0 and the number of steps and `resets` `[batch, time]` booleans, or None. (From `unroll_packed`
            `resets` come as `rnnx.sequences.Segments`, with which the final carries are those of `n` sequences.)
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
            f"a Layer is not called: rnnx.unroll(layer, params, xs) runs {self.spec.name}, with "
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
    """A Cell from three functions, or up to five: see `Cell` for what each takes and returns.

    `name` is what it is called in errors, tables and the params of a `stack`; by default it is that of the
    function in which `step` was written.

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
    """An AssociativeCell from six functions: see `AssociativeCell` for what each takes and returns.

    `step` is worth writing where one step is cheaper than `act` on what `lift` makes (a product of matrices, in a
    delta rule); it must equal `carry = act(carry, lift(weights, z)); y = readout(weights, carry, z)`. `name` is as
    in `rnnx.cell`, by default the name of the function in which `lift` was written.

    Example:
        A running sum, which forgets at the rate of a learned constant::

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
    """Decorates a function that makes a Cell or a Layer: the result's spec tells its name and options.

    Equal calls give the same object: what is compiled for a layer made inside of a function that runs often is
    found again, whether by `jax.jit` (a layer as a static argument, or the evaluators' own), by a linen module that
    has it as an attribute, or by `rnnx.unroll`. Arguments are equal if they have the same type and value; functions
    only if they are the same function, so make an initialiser once. The last 256 results are kept, but none of
    unhashable arguments (lists, dicts, arrays), and none that refers to more than 64 KiB of arrays. So the function
    must depend on nothing but its arguments.

    So a result can be pickled, by the name of the factory and its arguments, which must be such as can be pickled.

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
    """A function of the arguments of `make`, that gives those which differ from their defaults, by name."""
    signature = inspect.signature(make)
    defaults = {name: p.default for name, p in signature.parameters.items()}

    def chosen(*args: Any, **kwargs: Any) -> dict[str, Any]:
        given = signature.bind(*args, **kwargs).arguments
        return {name: value for name, value in given.items() if not _same(value, defaults[name])}

    return chosen


def _same(a: Any, b: Any) -> bool:
    """Whether a is b or equals it; no where equality is not one boolean, as of arrays."""
    equal = a is b or a == b
    return isinstance(equal, bool | np.bool_) and bool(equal)


@interned
def as_cell(associative: AssociativeCell) -> Cell:
    """The step-by-step form of an associative cell: for `scan`, streaming, and whatever takes a Cell."""
    a = associative
    if not isinstance(a, Cell | AssociativeCell):
        raise TypeError(
            f"as_cell takes an AssociativeCell, e.g. rnnx.cells.lru(64), but got {describe(a)}; a cell of Flax becomes "
            "a Cell by rnnx.linen.as_cell or rnnx.nnx.as_cell"
        )
    return Cell(a.init, a.prepare, a.initial_carry, a.project, a.step, a.spec)
