"""Ragged sequences become rectangular batches, and back: on the host, in NumPy, before anything is compiled."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from rnnx.arguments import shown
from rnnx.base import PyTree
from rnnx.checks import check_count
from rnnx.hints import explained
from rnnx.memory import check_memory, host_memory


def host_array(value: Any, name: str, wanted: str = "plain arrays") -> np.ndarray:
    """The value as a NumPy array; raises where that cannot be, or something is lost."""
    try:
        if not isinstance(value, np.ma.MaskedArray):
            return np.asarray(value)
    except (TypeError, ValueError):  # keys of jax.random, lists of lists of different lengths
        pass
    raise TypeError(f"{name} must be {wanted}, but {shown(value)} came")


def checked_sequences(sequences: Iterable[PyTree], name: str) -> tuple[list[PyTree], np.ndarray]:
    """The sequences as NumPy arrays, and their lengths `[n]`; raises where they cannot stand in one batch."""
    try:
        sequences = list(sequences)
    except TypeError:
        raise TypeError(f"{name} takes a list of arrays [len, ...], but {shown(sequences)} came") from None
    sequences = [jax.tree.map(lambda leaf: host_array(leaf, name), sequence) for sequence in sequences]
    if not sequences:
        raise ValueError(f"{name} was given no sequence; without one, the shape of a step is not known")
    wanted: Any = None
    lengths = []
    for i, sequence in enumerate(sequences):
        leaves, structure = jax.tree.flatten(sequence)
        if not leaves or min(leaf.ndim for leaf in leaves) < 1:
            raise ValueError(
                f"{name}: each sequence must be a pytree of arrays [len, ...], but number {i} holds "
                f"{[leaf.shape for leaf in leaves][:3] or 'no array'}; a list of numbers is no array: np.array(list)"
            )
        for leaf in leaves:
            if leaf.dtype.kind in "OSUMm":
                raise TypeError(
                    f"{name}: sequence {i} holds {leaf.dtype}, but numbers or booleans are wanted; number the words or "
                    "symbols, or convert by .astype(float)"
                )
        sizes = {len(leaf) for leaf in leaves}
        if len(sizes) > 1:
            raise ValueError(f"{name}: the leaves of sequence {i} differ in length: {sorted(sizes)}")
        lengths.append(sizes.pop())
        step = structure, [f"{leaf.dtype}{['len', *leaf.shape[1:]]}".replace("'", "") for leaf in leaves]
        wanted = wanted or step
        if step != wanted:
            raise ValueError(
                f"{name}: sequence {i} is {step[1]} in {step[0]}, but sequence 0 is {wanted[1]} in {wanted[0]}; "
                "all must have the same features and dtypes"
            )
    return sequences, np.array(lengths, np.int32)


@explained
def pad(sequences: Iterable[PyTree], *, length: int | None = None, value: float = 0) -> tuple[PyTree, np.ndarray]:
    """Puts sequences of different lengths into one batch.

    Args:
        sequences: a list, or any other iterable, of pytrees of arrays `[len, ...]`, alike but for their lengths, which
            may be 0. (An array `[batch, len, ...]` is an iterable of them.)
        length: the steps of the batch; default: those of the longest sequence. Few different ones mean few
            compilations: see `bucket`.
        value: what to put beyond the ends, a number that the arrays can hold. Given the lengths, no layer looks at it.

    Returns:
        `(xs, lengths)`: a pytree of NumPy arrays `[batch, length, ...]`, and `[batch]` integers.

    Raises:
        TypeError: for what is no list of arrays of numbers; for a `length` or `value` that is no number.
        ValueError: for an empty list; where features or dtypes differ; for a sequence longer than `length`; for a
            `value` that would become another in the arrays, such as NaN among integers.

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
        raise TypeError(f"pad: value is {shown(value)}, but a number is wanted")

    check_room("pad", sequences[0], len(lengths), length)

    def batch(*leaves: np.ndarray) -> np.ndarray:
        _check_holds(leaves[0].dtype, value)
        out = np.full((len(leaves), length, *leaves[0].shape[1:]), value, leaves[0].dtype)
        for row, leaf in zip(out, leaves):
            row[: len(leaf)] = leaf
        return out

    return jax.tree.map(batch, *sequences), lengths


def _check_holds(dtype: np.dtype, value: Any) -> None:
    """Raises where integers or booleans would make another number of the value."""
    kept = value
    if dtype.kind in "iu":
        kept = min(max(value, np.iinfo(dtype).min), np.iinfo(dtype).max) // 1
    elif dtype.kind == "b":
        kept = bool(value)
    if kept != value and dtype.kind in "biu":
        raise ValueError(f"pad: value is {value}, which arrays of {dtype} cannot hold")


def fitting_length(lengths: np.ndarray, length: int | None, name: str) -> int:
    """`length`, by default the longest; raises where it is too short."""
    longest = int(lengths.argmax())
    if length is not None:
        check_count(name, "length", length, 0)
    if length is not None and length < lengths[longest]:
        raise ValueError(
            f"{name}: sequence {longest} has {lengths[longest]} steps, but length is {length}; give a larger one, or "
            "cut the sequence"
        )
    return int(lengths[longest]) if length is None else length


def check_room(name: str, sequence: PyTree, rows: int, length: int, *, beside: int = 0) -> None:
    """Raises where the machine cannot hold so many rows of steps as in this sequence, and `beside` bytes for each."""
    step = beside + sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(sequence))
    check_memory(name, f"{rows} rows of {length} steps", rows * length * step, host_memory())


@explained
def unpad(xs: PyTree, lengths: Any) -> list[PyTree]:
    """The way back from `pad`: the valid part of each row.

    Args:
        xs: a pytree of `[batch, time, ...]`, such as the outputs of `unroll`.
        lengths: `[batch]` integers.

    Returns:
        A list of pytrees of NumPy arrays `[len, ...]`.

    Raises:
        TypeError: for lengths that are no integers.
        ValueError: when the lengths do not fit the batch.

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
        raise TypeError(f"unpad: lengths must be integers [batch], but {shown(lengths)} came")
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
    """Groups sequences of similar length into batches, so that little is padding and few shapes are compiled.

    A sequence belongs to the bucket of the first edge that it is not longer than, and is padded to that edge. What
    does not fill a batch moves on to the next longer bucket: all batches but one are full. (In TensorFlow's
    `bucket_by_sequence_length` a boundary is one more than the longest length below it, and what does not fill a
    batch becomes a small one of its own.)

    Args:
        lengths: `[n]` integers: `[len(x) for x in sequences]`.
        batch_size: how many sequences make a batch; or a list with one number for each edge, larger ones for
            shorter sequences say.
        edges: the padded lengths, ascending; the last must reach the longest sequence. Or their number: then
            they are laid where they leave the least padding. (Give them where the shapes must be the same for
            several sets of sequences.)
        rng: what `np.random.default_rng` takes, e.g. `(seed, epoch)` or a Generator: shuffles the sequences
            within each bucket, then the batches. Default: no shuffling; in the order given, short batches first.
        drop_remainder: leave out the one batch that is not full.

    Returns:
        A list of `(indices, length)`: NumPy integers `[batch]` that point into `lengths`, and the steps to pad
        to. Every index occurs once, but for a dropped remainder.

    Raises:
        TypeError: for numbers that are no integers, or an `rng` that NumPy does not take.
        ValueError: for no or negative lengths, edges that do not ascend or reach the longest sequence, a batch
            size below 1, a list of them of another size than that of the edges.

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
        raise ValueError(f"bucket: lengths must be one or more integers from 0, [len(x) for x in xs], not {lengths!r}")
    if not isinstance(edges, Sequence | np.ndarray):
        check_count("bucket", "the number of edges", edges)
        edges = _best_edges(lengths, operator.index(edges))
    edges = list(_integers("edges", edges).tolist())
    if not edges or edges != sorted(set(edges)) or edges[0] < 0:
        raise ValueError(f"bucket: the edges {edges} do not ascend from 0 or more")
    longest = int(lengths.argmax())
    if lengths[longest] > edges[-1]:
        raise ValueError(f"bucket: sequence {longest} has {lengths[longest]} steps, but the last edge is {edges[-1]}")
    size_or_sizes = _integers("batch_size", batch_size)
    sizes = size_or_sizes.tolist() if size_or_sizes.ndim else [int(size_or_sizes)] * len(edges)
    if len(sizes) != len(edges) or min(sizes) < 1:
        raise ValueError(f"bucket: batch sizes from 1 are wanted, one or {len(edges)} (one an edge), not {batch_size}")

    try:
        generator = None if rng is None else np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise TypeError(
            f"bucket: rng is {shown(rng)}, but what np.random.default_rng takes is wanted: an integer from 0, a tuple "
            "of them, or a np.random.Generator"
        ) from None
    place = np.searchsorted(edges, lengths)
    batches, waiting = [], np.zeros(0, np.intp)
    for i, (edge, size) in enumerate(zip(edges, sizes)):
        own = np.flatnonzero(place == i)
        waiting = np.concatenate([waiting, own if generator is None else generator.permutation(own)])
        full = len(waiting) // size * size
        batches += [(waiting[start : start + size], edge) for start in range(0, full, size)]
        waiting = waiting[full:]
    if waiting.size and not drop_remainder:
        batches.append((waiting, next(edge for edge in edges if edge >= lengths[waiting].max())))
    return batches if generator is None else [batches[i] for i in generator.permutation(len(batches))]


def _integers(name: str, values: Any) -> np.ndarray:
    array = host_array(values, f"bucket: {name}", "integers")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"bucket: {name} is {shown(values)}, but integers are wanted")
    return array


def _best_edges(lengths: np.ndarray, count: int) -> list[int]:
    """The `count` edges that leave the least padding, by dynamic programming over the lengths that occur."""
    lengths = np.maximum(lengths, 1).astype(np.int64)
    values = np.unique(lengths)
    if len(values) > 1000:  # a thousand of them will do
        values = np.unique(np.quantile(lengths, np.linspace(0, 1, 1000), method="higher"))
    if count >= len(values):
        return values.tolist()
    upto = np.bincount(np.searchsorted(values, lengths), minlength=len(values)).cumsum()
    # needed[j]: the steps of all sequences up to values[j], where that is the last of so many edges
    needed, cuts = values * upto, []
    earlier = np.tri(len(values), dtype=bool).T  # [i, j]: may values[i] be the edge before values[j]?
    for _ in range(count - 1):
        choices = np.where(earlier, needed[:, None] + values * (upto - upto[:, None]), np.iinfo(np.int64).max)
        needed = choices.min(axis=0)
        cuts.append(choices.argmin(axis=0))
    edge = len(values) - 1
    edges = {int(values[edge])}
    for before in reversed(cuts):
        edge = before[edge]
        edges.add(int(values[edge]))
    return sorted(edges)
