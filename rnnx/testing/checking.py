"""`check_cell` and `check_layer`: all laws, one after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from rnnx.arguments import describe
from rnnx.base import AssociativeCell, Cell, Layer, Params, PyTree
from rnnx.testing import cells, derivatives, programs, sequences
from rnnx.testing.comparing import TOLERANCE
from rnnx.testing.subject import Subject, prepare

Law = Callable[[Subject], None]


def _named(*laws: Law) -> dict[str, Law]:
    return {getattr(law, "__name__", "law"): law for law in laws}


# In this order, a fault that breaks many laws is first reported by the law that describes it best.
LAYER_LAWS: dict[str, Law] = _named(
    programs.noise,
    sequences.batch,
    sequences.chunk,
    sequences.padding,
    sequences.reset,
    sequences.defaults,
    sequences.reverse,
    programs.dtypes,
    programs.precision,
    programs.compiles_once,
    derivatives.gradients,
    derivatives.derivatives,
    programs.ensemble,
    programs.export,
)
"""The laws of layers by name, each a function of a `Subject`."""

CELL_LAWS: dict[str, Law] = {**LAYER_LAWS, **_named(cells.evaluator)}
"""The laws of cells: those of layers, for `rnnx.scan` of the cell; and that all evaluators agree."""

ASSOCIATIVE_CELL_LAWS: dict[str, Law] = {**_named(cells.associative, cells.step), **CELL_LAWS}
"""The laws of associative cells."""


def checks_of(
    subject: Layer | Cell | AssociativeCell,
    xs: PyTree,
    *,
    params: Params | None = None,
    no_gradient: Iterable[str] = (),
    smooth: bool = True,
    tolerance: float = TOLERANCE,
) -> dict[str, Callable[[], None]]:
    """Returns the laws of a layer or cell by name, each as a function without arguments, e.g. for one test per law.

    The arguments are those of `check_layer` and `check_cell`. Nothing runs before the first check is called; all checks
    share their compiled functions.

    Example:
        With pytest::

            CHECKS = rnnx.testing.checks_of(my_cell(8), xs)

            @pytest.mark.parametrize("law", CHECKS)
            def test_my_cell(law):
                CHECKS[law]()

        ::

            >>> import jax, rnnx, rnnx.testing
            >>> xs = jax.random.normal(jax.random.key(0), (4, 7, 3))
            >>> checks = rnnx.testing.checks_of(rnnx.cells.elman(4), xs)
            >>> list(checks)[:6]
            ['noise', 'batch', 'chunk', 'padding', 'reset', 'defaults']
            >>> checks["reset"]()
    """
    laws: dict[str, Law]
    if isinstance(subject, AssociativeCell):
        laws = ASSOCIATIVE_CELL_LAWS
    elif isinstance(subject, Cell):
        laws = CELL_LAWS
    elif isinstance(subject, Layer):
        laws = LAYER_LAWS
    else:
        raise TypeError(f"checks_of takes a Layer, a Cell or an AssociativeCell, but got {describe(subject)}")
    options: dict[str, Any] = {"params": params, "smooth": smooth, "tolerance": tolerance}
    made = functools.cache(lambda: prepare(subject, xs, no_gradient=no_gradient, **options))

    def check(law: Law) -> Callable[[], None]:
        return lambda: law(made())

    return {name: check(law) for name, law in laws.items()}


def check_layer(
    layer: Layer,
    xs: PyTree,
    *,
    params: Params | None = None,
    no_gradient: Iterable[str] = (),
    smooth: bool = True,
    tolerance: float = TOLERANCE,
    export: bool = False,
    skip: Iterable[str] = (),
) -> None:
    """Checks a layer against the laws of `rnnx.base`.

    Args:
        layer: the layer.
        xs: inputs for it, arrays `[batch, time, ...]` of at least 3 rows and 4 steps. Small ones are enough, such as
            (4, 7, 3): the laws run it one row and one step at a time.
        params: default: those of `layer.init`, with noise added, so that no bias is zero. Pass your own if noise of 0.3
            makes no sense (e.g. for a matrix that must be orthogonal), or to test with trained params.
        no_gradient: names of params that need no gradient, such as `"frozen/kernel"`.
        smooth: whether gradients are the derivatives of the outputs. False for spikes with a surrogate gradient.
        tolerance: the largest error of an array, relative to its largest number, in float32.
        export: whether to check that `jax.export` lowers it for cpu, cuda and tpu, with symbolic batch and time.
        skip: names of laws, from `rnnx.testing.LAYER_LAWS`, to leave out.

    Raises:
        LawBroken: an AssertionError, at the first law that does not hold. Its message says which law, at which step of
            which row, by how much, and what usually causes it.
        ValueError: if there are too few rows or steps, or `skip` names an unknown law.
        TypeError: if `layer` is not a Layer.

    Example::

        >>> import jax, rnnx, rnnx.testing
        >>> xs = jax.random.normal(jax.random.key(0), (4, 7, 3))
        >>> rnnx.testing.check_layer(rnnx.residual(rnnx.elman(3)), xs)
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer takes a Layer, but got {describe(layer)}; check_cell takes a Cell")
    options: dict[str, Any] = {"params": params, "smooth": smooth, "tolerance": tolerance}
    _run(checks_of(layer, xs, no_gradient=no_gradient, **options), skip, export)


def check_cell(
    cell: Cell | AssociativeCell,
    xs: PyTree,
    *,
    params: Params | None = None,
    no_gradient: Iterable[str] = (),
    smooth: bool = True,
    tolerance: float = TOLERANCE,
    export: bool = False,
    skip: Iterable[str] = (),
) -> None:
    """Checks a cell against the laws of `rnnx.base`.

    `rnnx.scan` of the cell must keep the laws of layers; the reference is the cell's own `step`, run one row and one
    step at a time. Every other evaluator that takes the cell must give the same outputs, final carries and gradients.
    For an AssociativeCell, `combine` must be associative, and `step` must equal `lift`, `act` and `readout` in turn.

    Args:
        cell: the cell.
        xs, params, no_gradient, smooth, tolerance, export: as in `check_layer`. Note that xs is `[batch, time, ...]`.
        skip: names of laws, from `rnnx.testing.CELL_LAWS` or `ASSOCIATIVE_CELL_LAWS`, to leave out.

    Raises:
        LawBroken, ValueError: as in `check_layer`.
        TypeError: if `cell` is neither a Cell nor an AssociativeCell.

    Example:
        A correct cell, and one whose carry has the dtype of the inputs::

            >>> import jax, jax.numpy as jnp, rnnx, rnnx.testing
            >>> xs = jax.random.normal(jax.random.key(0), (4, 7, 3))
            >>> cell = rnnx.cells.elman(4)
            >>> rnnx.testing.check_cell(cell, xs)
            >>> def zeros(weights, x, key):
            ...     return jnp.zeros(4, x.dtype)
            >>> try:
            ...     rnnx.testing.check_cell(cell._replace(initial_carry=zeros), xs)
            ... except rnnx.testing.LawBroken as error:
            ...     print(error.law)
            dtypes
    """
    if not isinstance(cell, Cell | AssociativeCell):
        raise TypeError(f"check_cell takes a Cell or an AssociativeCell, but got {describe(cell)}")
    options: dict[str, Any] = {"params": params, "smooth": smooth, "tolerance": tolerance}
    _run(checks_of(cell, xs, no_gradient=no_gradient, **options), skip, export)


def _run(checks: dict[str, Callable[[], None]], skip: Iterable[str], export: bool) -> None:
    skipped = {*skip} | (set() if export else {"export"})
    unknown = skipped - set(checks)
    if unknown:
        raise ValueError(f"skip names {sorted(unknown)}, but the laws are {list(checks)}")
    for name, check in checks.items():
        if name not in skipped:
            check()
