"""Pads, unpads and buckets sequences of different lengths: on the host, in NumPy."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from rnnx.arguments import describe
from rnnx.base import PyTree
from rnnx.checks import check_count
from rnnx.hints import explained
from rnnx.memory import check_memory, host_memory


def host_array(value: Any, name: str, expected: str = "plain arrays") -> np.ndarray:
    """Converts a value to a NumPy array; raises if that fails, or would drop a mask."""
    try:
        if not isinstance(value, np.ma.MaskedArray):
            return np.asarray(value)
    except (TypeError, ValueError):  # keys of jax.random, lists of lists of different lengths
        pass
    raise TypeError(f"{name} must be {expected}, but got {describe(value)}")


def checked_sequences(sequences: Iterable[PyTree], name: str) -> tuple[list[PyTree], np.ndarray]:
    """Converts sequences to NumPy arrays and returns their lengths `[n]`; raises if they cannot form a batch."""
    try:
        sequences = list(sequences)
    except TypeError:
        raise TypeError(f"{name} takes a list of arrays [len, ...], but got {describe(sequences)}") from None
    sequences = [jax.tree.map(lambda leaf: host_array(leaf, name), sequence) for sequence in sequences]
    if not sequences:
        raise ValueError(f"{name} got an empty list; it needs at least one sequence, to know the shape of a step")
    expected: Any = None
    lengths = []
    for i, sequence in enumerate(sequences):
        leaves, structure = jax.tree.flatten(sequence)
        if not leaves or min(leaf.ndim for leaf in leaves) < 1:
            raise ValueError(
                f"{name}: each sequence must be a pytree of arrays [len, ...], but number {i} holds "
                f"{[leaf.shape for leaf in leaves][:3] or 'no array'}; convert lists of numbers by np.array(list)"
            )
        for leaf in leaves:
            if leaf.dtype.kind in "OSUMm":
                raise TypeError(
                    f"{name}: sequence {i} holds {leaf.dtype}, expected numbers or booleans; encode words or symbols "
                    "as integers, or convert by .astype(float)"
                )
        sizes = {len(leaf) for leaf in leaves}
        if len(sizes) > 1:
            raise ValueError(f"{name}: the leaves of sequence {i} differ in length: {sorted(sizes)}")
        lengths.append(sizes.pop())
        step = structure, [f"{leaf.dtype}{['len', *leaf.shape[1:]]}".replace("'", "") for leaf in leaves]
        expected = expected or step
        if step != expected:
            raise ValueError(
                f"{name}: sequence {i} is {step[1]} in {step[0]}, but sequence 0 is {expected[1]} in {expected[0]}; "
                "all must have the same features and dtypes"
            )
    return sequences, np.array(lengths, np.int32)


@explained
def pad(sequences: Iterable[PyTree], *, length: int | None = None, value: float = 0) -> tuple[PyTree, np.ndarray]:
    """Pads sequences of different lengths into one batch.

    Args:
        sequences: a list, or any other iterable, of pytrees of arrays `[len, ...]` that differ only in their lengths,
            which may be 0. (An array `[batch, len, ...]` is such an iterable.)
        length: the number of steps of the batch; default: that of the longest sequence. Use few different values, since
            each is compiled: see `bucket`.
        value: the padding value, a number that the arrays can hold. Given the lengths, no layer reads it.

    Returns:
        `(xs, lengths)`: a pytree of NumPy arrays `[batch, length, ...]`, and `[batch]` integers.

    Raises:
        TypeError: if `sequences` is not a list of arrays of numbers; if `length` or `value` is not a number.
        ValueError: if the list is empty; if features or dtypes differ; if a sequence is longer than `length`; if the
            arrays cannot hold `value`, such as NaN in integers.

    Example::

        >>> import jax, numpy as np, rnnx
        >>> xs, lengths = rnnx.pad([np.ones((2, 3)), np.ones((5, 3)), np.ones((0, 3))])
        >>> xs.shape, lengths.tolist()
        ((3, 5, 3), [2, 5, 0])
        >>> layer = rnnx.bidirectional(rnnx.lstm(4))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs, lengths=lengths)
        >>> [y.shape for y in rnnx.unpad(ys, lengths)]
        [(2, 8), (5, 8), (0, 8)]
    """
    sequences, lengths = checked_sequences(sequences, "pad")
    length = fitting_length(lengths, length, "pad")

    if isinstance(value, np.ndarray | jax.Array) and not value.ndim:
        value = value.item()
    if not isinstance(value, numbers.Real | np.bool_):
        raise TypeError(f"pad: value is {describe(value)}, but it must be a number")

    check_host_memory("pad", sequences[0], len(lengths), length)

    def batch(*leaves: np.ndarray) -> np.ndarray:
        _check_holds(leaves[0].dtype, value)
        out = np.full((len(leaves), length, *leaves[0].shape[1:]), value, leaves[0].dtype)
        for row, leaf in zip(out, leaves):
            row[: len(leaf)] = leaf
        return out

    return jax.tree.map(batch, *sequences), lengths


def _check_holds(dtype: np.dtype, value: Any) -> None:
    """Raises if integers or booleans cannot hold the value."""
    stored = value
    if dtype.kind in "iu":
        stored = min(max(value, np.iinfo(dtype).min), np.iinfo(dtype).max) // 1
    elif dtype.kind == "b":
        stored = bool(value)
    if stored != value and dtype.kind in "biu":
        raise ValueError(f"pad: value is {value}, which arrays of {dtype} cannot hold")


def fitting_length(lengths: np.ndarray, length: int | None, name: str) -> int:
    """Returns `length`, by default the longest; raises if it is too short."""
    longest = int(lengths.argmax())
    if length is not None:
        check_count(name, "length", length, 0)
    if length is not None and length < lengths[longest]:
        raise ValueError(
            f"{name}: sequence {longest} has {lengths[longest]} steps, but length is {length}; use a larger length, or "
            "truncate the sequence"
        )
    return int(lengths[longest]) if length is None else length


def check_host_memory(name: str, sequence: PyTree, rows: int, length: int, *, extra: int = 0) -> None:
    """Raises if the host cannot hold `rows` of `length` steps like those of `sequence`, plus `extra` bytes per step."""
    step = extra + sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(sequence))
    check_memory(name, f"{rows} rows of {length} steps", rows * length * step, host_memory())


@explained
def unpad(xs: PyTree, lengths: Any) -> list[PyTree]:
    """Inverts `pad`: returns the valid part of each row.

    Args:
        xs: a pytree of `[batch, time, ...]`, such as the outputs of `unroll`.
        lengths: `[batch]` integers.

    Returns:
        A list of pytrees of NumPy arrays `[len, ...]`.

    Raises:
        TypeError: if the lengths are not integers.
        ValueError: if the lengths do not fit the batch.

    Example::

        >>> import numpy as np, rnnx
        >>> rnnx.unpad(np.arange(6).reshape(2, 3), [1, 3])
        [array([0]), array([3, 4, 5])]
    """
    xs = jax.tree.map(lambda leaf: host_array(leaf, "unpad: xs"), xs)
    lengths = host_array(lengths, "unpad: lengths", "integers")
    if not jax.tree.leaves(xs):
        raise ValueError(f"unpad: xs holds no array: {xs!r}")
    if not np.issubdtype(lengths.dtype, np.integer):
        raise TypeError(f"unpad: lengths must be integers [batch], but got {describe(lengths)}")
    for leaf in jax.tree.leaves(xs):
        if leaf.ndim < 2:
            raise ValueError(f"unpad: xs must be [batch, time, ...], but a leaf has shape {leaf.shape}")
        if lengths.shape != leaf.shape[:1] or (lengths < 0).any() or (lengths > leaf.shape[1]).any():
            raise ValueError(f"unpad: the lengths {lengths.tolist()} do not fit a batch of shape {leaf.shape}")
    return [jax.tree.map(lambda leaf, i=i, n=n: leaf[i, :n], xs) for i, n in enumerate(lengths.tolist())]


@explained
def bucket(
    lengths: Sequence[int] | np.ndarray,
    batch_size: int | Sequence[int],
    *,
    edges: int | Sequence[int] = 8,
    rng: Any = None,
    drop_remainder: bool = False,
) -> list[tuple[np.ndarray, int]]:
    """Groups sequences of similar length into batches, to reduce padding and the number of compiled shapes.

    A sequence belongs to the bucket of the first edge that is not shorter than it, and is padded to that edge.
    Sequences that do not fill a batch move on to the next longer bucket, so all batches but one are full. (In
    TensorFlow's `bucket_by_sequence_length` a boundary is one more than the longest length below it, and a remainder
    becomes a small batch of its own.)

    Args:
        lengths: `[n]` integers: `[len(x) for x in sequences]`.
        batch_size: the number of sequences per batch; or a list with one number per edge, e.g. larger ones for
            shorter sequences.
        edges: the padded lengths, ascending; the last must reach the longest sequence. Or the number of edges, which
            are then chosen to minimise padding. (Pass the edges themselves if several sets of sequences must have the
            same shapes.)
        rng: an argument of `np.random.default_rng`, e.g. `(seed, epoch)` or a Generator: shuffles the sequences within
            each bucket, then the batches. Default: no shuffling; in the given order, short batches first.
        drop_remainder: whether to drop the one batch that is not full.

    Returns:
        A list of `(indices, length)`: NumPy integers `[batch]`, indices into `lengths`, and the length to pad to. Every
        index occurs once, except those of a dropped remainder.

    Raises:
        TypeError: if numbers are not integers, or NumPy does not accept `rng`.
        ValueError: if there are no lengths or a negative one; if the edges are not ascending or do not reach the
            longest sequence; if a batch size is below 1, or their number differs from that of the edges.

    Example::

        >>> import numpy as np, rnnx
        >>> sequences = [np.ones((n, 3)) for n in (2, 9, 1, 8, 2, 2, 7)]
        >>> for indices, length in rnnx.bucket([len(x) for x in sequences], 3, edges=[2, 4, 10]):
        ...     xs, lengths = rnnx.pad([sequences[i] for i in indices], length=length)
        ...     print(xs.shape, lengths)
        (3, 2, 3) [2 1 2]
        (3, 10, 3) [2 9 8]
        (1, 10, 3) [7]
    """
    lengths = _integers("lengths", lengths)
    if lengths.ndim != 1 or not lengths.size or not np.issubdtype(lengths.dtype, np.integer) or lengths.min() < 0:
        raise ValueError(
            f"bucket: lengths must be one or more integers, 0 or more, [len(x) for x in xs], but got {lengths!r}"
        )
    if not isinstance(edges, Sequence | np.ndarray):
        check_count("bucket", "the number of edges", edges)
        edges = _best_edges(lengths, operator.index(edges))
    edges = list(_integers("edges", edges).tolist())
    if not edges or edges != sorted(set(edges)) or edges[0] < 0:
        raise ValueError(f"bucket: edges must be ascending, from 0 or more, but got {edges}")
    longest = int(lengths.argmax())
    if lengths[longest] > edges[-1]:
        raise ValueError(f"bucket: sequence {longest} has {lengths[longest]} steps, but the last edge is {edges[-1]}")
    size_or_sizes = _integers("batch_size", batch_size)
    sizes = size_or_sizes.tolist() if size_or_sizes.ndim else [int(size_or_sizes)] * len(edges)
    if len(sizes) != len(edges) or min(sizes) < 1:
        raise ValueError(
            f"bucket: batch_size must be one number, or {len(edges)} (one per edge), 1 or more, but got {batch_size}"
        )

    try:
        generator = None if rng is None else np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(
            f"bucket: rng is {describe(rng)}, but it must be an argument of np.random.default_rng: an integer, 0 or "
            "more, a tuple of them, or a np.random.Generator"
        ) from None
    bucket_of = np.searchsorted(edges, lengths)
    batches, pending = [], np.zeros(0, np.intp)
    for i, (edge, size) in enumerate(zip(edges, sizes)):
        own = np.flatnonzero(bucket_of == i)
        pending = np.concatenate([pending, own if generator is None else generator.permutation(own)])
        full = len(pending) // size * size
        batches += [(pending[start : start + size], edge) for start in range(0, full, size)]
        pending = pending[full:]
    if pending.size and not drop_remainder:
        batches.append((pending, next(edge for edge in edges if edge >= lengths[pending].max())))
    return batches if generator is None else [batches[i] for i in generator.permutation(len(batches))]


def _integers(name: str, values: Any) -> np.ndarray:
    array = host_array(values, f"bucket: {name}", "integers")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"bucket: {name} is {describe(values)}, but it must be integers")
    return array


def _best_edges(lengths: np.ndarray, count: int) -> list[int]:
    """The `count` edges with the least padding, by dynamic programming over the lengths that occur."""
    lengths = np.maximum(lengths, 1).astype(np.int64)
    values = np.unique(lengths)
    if len(values) > 1000:  # a thousand candidates are enough
        values = np.unique(np.quantile(lengths, np.linspace(0, 1, 1000), method="higher"))
    if count >= len(values):
        return values.tolist()
    up_to = np.bincount(np.searchsorted(values, lengths), minlength=len(values)).cumsum()
    # cost[j]: the padded steps of all sequences up to values[j], if that is the last edge so far
    cost, previous_edges = values * up_to, []
    allowed = np.tri(len(values), dtype=bool).T  # [i, j]: whether values[i] can be the edge before values[j]
    for _ in range(count - 1):
        costs = np.where(allowed, cost[:, None] + values * (up_to - up_to[:, None]), np.iinfo(np.int64).max)
        cost = costs.min(axis=0)
        previous_edges.append(costs.argmin(axis=0))
    edge = len(values) - 1
    edges = {int(values[edge])}
    for previous in reversed(previous_edges):
        edge = previous[edge]
        edges.add(int(values[edge]))
    return sorted(edges)
