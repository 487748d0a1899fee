"""Packs several sequences into one row, to waste few steps on padding; each keeps its own final carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import describe
from rnnx.base import Carry, Key, Layer, Params, PyTree, exportable
from rnnx.batching import check_host_memory, checked_sequences, fitting_length
from rnnx.checks import check_count, check_params, checked_xs
from rnnx.hints import explained
from rnnx.meshes import unsharded
from rnnx.pointwise import as_layer
from rnnx.sequences import Segments, select, split_key, widen_integers

Array = Any
"""A NumPy array, as returned by `pack`, or a JAX array, as inside `jax.jit`."""


@exportable
class Packed(NamedTuple):
    """Sequences packed into rows by `pack`: a pytree of arrays, `n` sequences in `rows` rows of `length` steps.

    Attributes:
        xs: a pytree of `[rows, length, ...]`, zero in the pads.
        lengths: `[rows]` integers: the number of used steps of each row, from the left.
        resets: `[rows, length]` booleans: True at the first step of a sequence.
        segment_ids: `[rows, length]` integers: 1 for the first sequence of the row, 2 for the next; 0 in the pads.
        positions: `[rows, length]` integers: the index of the step in its sequence, from 0; 0 in the pads.
        row, start, size: `[n]` integers, in the order of the given sequences: the row of each, its first step, and its
            number of steps.
    """

    xs: PyTree
    lengths: Array
    resets: Array
    segment_ids: Array
    positions: Array
    row: Array
    start: Array
    size: Array


@explained
def pack(sequences: Iterable[PyTree], *, length: int | None = None, rows: int | None = None) -> Packed:
    """Packs sequences into rows, one after the other, by first-fit-decreasing bin packing.

    Args:
        sequences: a list, or any other iterable, of pytrees of arrays `[len, ...]` that differ only in their lengths,
            which may be 0. Pack inputs and labels of the same steps together: `{"x": ..., "label": ...}`.
        length: the number of steps of a row; default: that of the longest sequence.
        rows: the number of rows; unneeded rows stay empty. Default: as many as needed. (With a number that is always
            enough, batches of the same number of sequences compile once.)

    Returns:
        A `Packed`, of NumPy arrays. `unroll_packed` runs a layer over it; `unpack` inverts it.

    Raises:
        TypeError: if `sequences` is not a list of arrays of numbers; if `length` or `rows` is not an integer.
        ValueError: if the list is empty; if features or dtypes differ; if a sequence is longer than `length`; if more
            rows are needed than `rows`.

    If you need only the outputs, `rnnx.unroll(layer, params, packed.xs, lengths=packed.lengths,
    resets=packed.resets)` works as well, and compiles once for all numbers of sequences.

    Reference: D. Johnson, *Near-optimal bin packing algorithms*, MIT 1973.

    Example::

        >>> import numpy as np, rnnx
        >>> packed = rnnx.pack([np.full(n, n) for n in (2, 5, 3, 4, 1)])
        >>> packed.xs
        array([[5, 5, 5, 5, 5],
               [4, 4, 4, 4, 1],
               [3, 3, 3, 2, 2]])
        >>> packed.segment_ids[2], packed.row, packed.start
        (array([1, 1, 1, 2, 2], dtype=int32), array([2, 0, 2, 1, 1], dtype=int32), array([3, 0, 0, 0, 4], dtype=int32))
    """
    sequences, size = checked_sequences(sequences, "pack")
    length = max(fitting_length(size, length, "pack"), 1)  # a row has at least one step
    row, start, lengths = _first_fit_decreasing(size, length)
    if rows is not None:
        check_count("pack", "rows", rows)
        if rows < len(lengths):
            raise ValueError(f"pack: the sequences need {len(lengths)} rows of {length} steps, but rows is {rows}")
    check_host_memory("pack", sequences[0], len(lengths) if rows is None else rows, length, extra=16)
    if rows is not None:
        lengths = np.pad(lengths, (0, rows - len(lengths)))

    def fill_rows(leaves: Sequence[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(lengths), length, *leaves[0].shape[1:]), leaves[0].dtype)
        for r, s, leaf in zip(row, start, leaves):
            out[r, s : s + len(leaf)] = leaf
        return out

    positions = fill_rows([np.arange(n, dtype=np.int32) for n in size])
    valid = np.arange(length) < lengths[:, None]
    resets = (positions == 0) & valid
    segment_ids = np.where(valid, resets.cumsum(axis=1, dtype=np.int32), 0)
    xs = jax.tree.map(lambda *leaves: fill_rows(leaves), *sequences)
    return Packed(xs, lengths, resets, segment_ids, positions, row, start, size)


def _first_fit_decreasing(size: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row and start of each sequence, and the used steps of each row: longest first, each in the first fit."""
    row, start, used = np.zeros_like(size), np.zeros_like(size), np.zeros(len(size), np.int32)
    for i in np.argsort(-size, kind="stable"):
        if size[i]:  # an empty sequence takes no room; it goes to the start of the first row
            row[i] = np.argmax(used + size[i] <= length)
            start[i] = used[row[i]]
            used[row[i]] += size[i]
    return row, start, used[: row.max() + 1]


@explained
def unpack(packed: Packed, ys: PyTree) -> list[PyTree]:
    """Inverts `pack`: returns the steps of each sequence, in the order in which they were given.

    Args:
        packed: from `pack`.
        ys: a pytree of `[rows, length, ...]`: the outputs of `unroll_packed`, or `packed.xs`.

    Returns:
        A list of pytrees of NumPy arrays `[len, ...]`.

    Raises:
        ValueError: if `ys` has other rows or steps than `packed`.

    Example::

        >>> import numpy as np, rnnx
        >>> packed = rnnx.pack([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])])
        >>> rnnx.unpack(packed, packed.xs)
        [array([1, 2]), array([3, 4, 5]), array([6])]
    """
    _check_packed(packed, "unpack")
    _check_fit(packed, ys, "unpack")
    ys = jax.tree.map(np.asarray, ys)
    places = zip(*(np.asarray(a).tolist() for a in (packed.row, packed.start, packed.size)))
    return [jax.tree.map(lambda y, r=r, s=s, n=n: y[r, s : s + n], ys) for r, s, n in places]


@explained
def unpack_padded(packed: Packed, ys: PyTree, *, length: int | None = None) -> tuple[PyTree, jax.Array]:
    """Unpacks to one sequence per row, padded with zeros: `unpack` for use inside `jax.jit`, e.g. before attention.

    Args:
        packed: from `pack`.
        ys: a pytree of `[rows, length, ...]`.
        length: the number of steps of the result, static under `jax.jit`, at least that of the longest sequence;
            default: that of the rows.

    Returns:
        `(ys, lengths)`: a pytree of `[n, length, ...]`, and `[n]` integers.

    Raises:
        ValueError: if `ys` has other rows or steps than `packed`; if the length is too short (outside
            `jax.jit`; inside, the sizes are unknown and sequences are truncated).

    Example::

        >>> import numpy as np, rnnx
        >>> packed = rnnx.pack([np.array([1, 2]), np.array([3, 4, 5]), np.array([6])])
        >>> ys, lengths = rnnx.unpack_padded(packed, packed.xs)
        >>> ys.tolist(), lengths.tolist()
        ([[1, 2, 0], [3, 4, 5], [6, 0, 0]], [2, 3, 1])
    """
    _check_packed(packed, "unpack_padded")
    _check_fit(packed, ys, "unpack_padded")
    _, time = packed.resets.shape
    if length is None:
        length = time
    elif not isinstance(packed.size, jax.core.Tracer):
        fitting_length(np.asarray(packed.size), length, "unpack_padded")
    row, start, size = widen_integers((packed.row, packed.start, packed.size))
    t = jnp.arange(length)[None]
    step = jnp.minimum(start[:, None] + t, time - 1)
    ys = jax.tree.map(lambda y: jnp.asarray(y)[row[:, None], step], ys)
    return select(t < size[:, None], ys, jax.tree.map(jnp.zeros_like, ys)), jnp.minimum(size, length)


@explained
def unroll_packed(layer: Layer, params: Params, packed: Packed, *, key: Key | None = None) -> tuple[Carry, PyTree]:
    """Runs a layer over packed sequences, which do not affect each other; each has its own final carry.

    Args:
        layer: the Layer to run, of any direction.
        params: from `layer.init(key, packed.xs)`.
        packed: from `pack`. If the layer reads only a part of the packed tree: `packed._replace(xs=...)`.
        key: for dropout and other noise; noise that lasts a sequence is drawn per row, not per sequence.

    Returns:
        `(carry, ys)`: the final carry of every sequence, leaves `[n, ...]`, in the order in which they were given; and
        the outputs `[rows, length, ...]`, packed like the inputs, zero in the pads. Both equal those of `unroll` over
        each sequence alone. For a reversed layer, the final carry is the one after the sequence's first step; for an
        empty sequence, it is the initial carry.

    Raises:
        TypeError: if `packed` is not a `Packed`, or `key` is not a key.
        ValueError: if params or `packed.xs` do not fit, or another field of `packed` was replaced.

    It holds the carries of all steps in memory, even with `checkpoint_every`. It compiles once for each number of rows,
    length and number of sequences.

    Example::

        >>> import jax, numpy as np, rnnx
        >>> packed = rnnx.pack([np.ones((n, 3)) for n in (2, 5, 3, 4, 1)])
        >>> layer = rnnx.bidirectional(rnnx.lstm(4))
        >>> params = layer.init(jax.random.key(0), packed.xs)
        >>> carry, ys = rnnx.unroll_packed(layer, params, packed)
        >>> ys.shape, carry.backward.h.shape
        ((3, 5, 8), (5, 4))
        >>> [y.shape for y in rnnx.unpack(packed, ys)]
        [(2, 8), (5, 8), (3, 8), (4, 8), (1, 8)]
    """
    _check_packed(packed, "unroll_packed")
    layer, xs = as_layer(layer), checked_xs(packed.xs)
    _check_fit(packed, xs, "unroll_packed")
    check_params(layer, params, xs)
    params, xs, packed = unsharded(params, xs, widen_integers(packed._replace(xs=())))
    carry_key, apply_key = split_key(key, 2)
    initial = layer.initial_carry(params, xs, carry_key)
    segments = Segments(packed.resets, packed.row, packed.start, packed.start + jnp.maximum(packed.size - 1, 0))
    carry, ys = layer.apply(params, initial, xs, lengths=packed.lengths, resets=segments, key=apply_key)
    initial = jax.tree.map(lambda c: c[packed.row], initial)
    return select(packed.size > 0, carry, initial), ys


def _check_packed(packed: Any, name: str) -> None:
    """Raises unless `packed` looks like a result of `pack`; values are checked only if they are NumPy arrays."""
    if not isinstance(packed, Packed):
        raise TypeError(f"{name} takes the result of rnnx.pack(sequences), but got {describe(packed)}")
    parts = {field: part for field, part in packed._asdict().items() if field != "xs"}
    for field, part in parts.items():
        if not isinstance(part, np.ndarray | jax.Array):
            raise TypeError(
                f"{name}: {field} of packed is {describe(part)}, but it must be an array, as returned by rnnx.pack"
            )
    shapes = {field: part.shape for field, part in parts.items()}
    rows, n = shapes["lengths"], shapes["row"]
    grid = shapes["resets"]
    expected = dict.fromkeys(("resets", "segment_ids", "positions"), grid) | dict.fromkeys(("row", "start", "size"), n)
    wrong = [field for field, shape in expected.items() if shapes[field] != shape]
    if wrong or len(grid) != 2 or rows != grid[:1] or len(n) != 1:
        raise ValueError(
            f"{name}: the fields of packed do not fit together: {shapes}; pass what rnnx.pack returned, replacing "
            "nothing but its xs"
        )
    if not all(isinstance(part, np.ndarray) for part in parts.values()):
        return
    lengths, row, start, size = packed.lengths, packed.row, packed.start, packed.size
    within = ((row >= 0) & (row < grid[0])).all() and ((lengths >= 0) & (lengths <= grid[1])).all()
    if not (within and (start >= 0).all() and (size >= 0).all() and (start + size <= lengths[row]).all()):
        raise ValueError(
            f"{name}: some values of packed exceed its rows or lengths; pass what rnnx.pack returned, replacing "
            "nothing but its xs"
        )


def _check_fit(packed: Packed, tree: PyTree, name: str) -> None:
    if not jax.tree.leaves(tree):
        raise ValueError(f"{name}: got no array, but {tree!r}")
    for leaf in jax.tree.leaves(tree):
        if np.shape(leaf)[:2] != packed.resets.shape:
            raise ValueError(
                f"{name}: the sequences were packed into [rows, length] = {packed.resets.shape}, but got an array of "
                f"shape {np.shape(leaf)}"
            )
