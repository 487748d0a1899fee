"""Flax nnx, both ways: any Layer as an nnx module, and any recurrent cell of nnx as a Cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import FlaxError
from flax.nnx.nn.recurrent import RNNCellBase

from rnnx.arguments import shown
from rnnx.base import Carry, Cell, Key, Layer, Params, PyTree, Spec, cell
from rnnx.checks import check_count
from rnnx.linen import AxisNames, check_one_array, names_of, one_batch_axis, unroll_batched
from rnnx.pointwise import as_layer
from rnnx.sequences import cast_floats, float_dtype


class RNN(nnx.Module):
    """Any Layer as an nnx module, which is called as `rnn(xs, carry=, lengths=, resets=, key=) -> (carry, ys)`.

    The arguments are those of `rnnx.unroll`, which runs it. It keeps no rngs: without a key it is deterministic, and
    draws nothing; for dropout give it one, `rnn(xs, key=rngs.dropout())`. So it runs under `jax.grad`, `jax.jit` and
    `jax.vmap` of a state that was split and merged, as under those of nnx.

    Args:
        layer: what to run. Equal calls of the library's factories give one layer, also to `nnx.jit`; one of your own
            cells is best made by an `rnnx.factory`, or once, outside of functions that run often.
        example_xs: arrays or `jax.ShapeDtypeStruct` in the shape of the inputs; only features matter.
        rngs: its `params` stream initialises the params.
        batch_axes: how many axes stand before time, as in `rnnx.linen.RNN`.
        axis_names: `(path, shape) -> names` of each param's axes, as in `rnnx.linen.RNN`; they become the sharding of
            its `nnx.Param` (where nnx shards at once, make the module within `jax.set_mesh(mesh)`).

    Attributes:
        params: the layer's params under their own names, each leaf an `nnx.Param`. To put in others:
            `nnx.update(rnn, {"params": params})`.

    Raises:
        TypeError, ValueError: as `rnnx.unroll` does; and where arguments differ in their batch axes.

    In place of the options of `flax.nnx.RNN`: see `rnnx.linen.RNN`; and `broadcast_rngs`, `state_axes`: there is no
    state but params.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> from flax import nnx
        >>> xs = jnp.ones((2, 5, 4))
        >>> rnn = rnnx.nnx.RNN(rnnx.lstm(8), xs, rngs=nnx.Rngs(0))
        >>> carry, ys = rnn(xs, lengths=jnp.array([5, 0]))
        >>> carry.h.shape, ys.shape
        ((2, 8), (2, 5, 8))
        >>> graph, state = nnx.split(rnn)
        >>> gradient = jax.grad(lambda state: nnx.merge(graph, state)(xs)[1].sum())(state)
        >>> gradient["params"]["bias"].shape
        (32,)
    """

    def __init__(
        self,
        layer: Layer,
        example_xs: PyTree = None,
        *,
        rngs: nnx.Rngs | None = None,
        batch_axes: int = 1,
        axis_names: AxisNames | None = None,
    ) -> None:
        if not isinstance(rngs, nnx.Rngs):
            raise TypeError(f"nnx.RNN: rngs is {shown(rngs)}, but rngs=nnx.Rngs(0) is wanted, to draw the params from")
        if example_xs is None:
            raise TypeError("nnx.RNN: example_xs is None, but arrays like the inputs, [batch, time, ...], are wanted")

        def param(path: Any, leaf: jax.Array) -> nnx.Param:
            names = names_of(axis_names, path, leaf)
            return nnx.Param(leaf if names is None else nnx.with_partitioning(lambda: leaf, names)())

        check_count("nnx.RNN", "batch_axes", batch_axes, 0)
        self.layer = nnx.static(as_layer(layer))
        self.batch_axes = batch_axes
        params = self.layer.init(rngs.params(), one_batch_axis(example_xs, batch_axes))
        self.params = nnx.data(jax.tree_util.tree_map_with_path(param, params))

    def __call__(
        self,
        xs: PyTree,
        carry: Carry | None = None,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        params = jax.tree.map(lambda p: p[...], self.params, is_leaf=lambda p: isinstance(p, nnx.Variable))
        return unroll_batched(
            self.layer, params, xs, self.batch_axes, carry=carry, lengths=lengths, resets=resets, key=key
        )


def as_cell(cell_or_make: RNNCellBase | Callable[..., RNNCellBase]) -> Cell:
    """A recurrent cell of Flax nnx as a Cell, for every evaluator and combinator: lengths, resets, checkpoints.

    Args:
        cell_or_make: a cell, whose weights `init` *copies*, whatever its key is, as they were when `as_cell` was
            called (so in a `rnnx.repeat` all layers begin alike); or what makes one when called with `rngs=`,
            e.g. `functools.partial(nnx.LSTMCell, 3, 8)`, with which `init` draws them *anew* from its key.
            What is learned does not change the nnx cell; `nnx.update(nnx_cell, params)` writes it back.

    Returns:
        The Cell. Params are those of the nnx cell as a nested dict, the carry is as there (an LSTM's is `(c, h)`), in
        the dtype of the params. It begins with `initialize_carry`: where that draws numbers, from the key, or without
        one from a fixed key, the same for all sequences. All of the cell runs in `step`. With a key, all rng streams
        that the cell holds (an `nnx.Dropout` has one) are begun anew from it in each step of each sequence; without,
        the cell runs as after its `eval()`. What the streams had drawn before does not count. Computation is in the
        dtype that the nnx cell chooses (`nnx.SimpleCell` has one by default).

    Raises:
        TypeError: for what is neither a cell of nnx nor makes one.
        ValueError: when the cell holds other state than params and rngs (`nnx.BatchStat`, ...); in `init`, for inputs
            that are not one array, or of other features than the cell was made for.

    Example::

        >>> import functools, jax, jax.numpy as jnp, rnnx
        >>> from flax import nnx
        >>> layer = rnnx.scan(rnnx.nnx.as_cell(functools.partial(nnx.GRUCell, 3, 8)), checkpoint_every=16)
        >>> xs = jnp.ones((2, 50, 3))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> carry, ys = rnnx.unroll(layer, params, xs, lengths=jnp.array([50, 7]))
        >>> carry.shape, ys.shape, sorted(params)
        ((2, 8), (2, 50, 8), ['dense_h', 'dense_i'])
    """
    make: Any = cell_or_make
    is_cell = isinstance(make, nnx.Module) or (hasattr(make, "initialize_carry") and not isinstance(make, type))
    drawn = callable(make) and not is_cell
    try:
        example: Any = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))) if drawn else make
    except (TypeError, FlaxError) as error:
        raise TypeError(
            f"nnx.as_cell: {shown(make)} makes no cell when it is called with rngs= alone ({error}); give its sizes: "
            "functools.partial(nnx.LSTMCell, 3, 8)"
        ) from error
    if not isinstance(example, RNNCellBase):
        hint = "; for a cell of flax.linen there is rnnx.linen.as_cell" if hasattr(example, "initialize_carry") else ""
        raise TypeError(
            "a cell of flax.nnx is wanted, e.g. nnx.LSTMCell(3, 8, rngs=rngs), or what makes one when called with "
            f"rngs=, e.g. functools.partial(nnx.LSTMCell, 3, 8), but {example!r} came{hint}"
        )
    options = {n: getattr(example, n) for n in ("in_features", "hidden_features") if hasattr(example, n)}
    spec = Spec(type(example).__name__, options)
    noisy, *states = nnx.split(example, nnx.Param, nnx.RngState, ...)
    own, rng_state, others = states
    if jax.tree.leaves(others):
        found = {".".join(map(str, path)): type(leaf).__name__ for path, leaf in nnx.to_flat_state(others)}
        raise ValueError(
            f"{spec.name} holds {found} beside its params, which a Cell has no place for: what changes from step to "
            "step belongs in the carry"
        )
    copied = nnx.to_pure_dict(own) if drawn else jax.tree.map(jnp.array, nnx.to_pure_dict(own))
    in_eval = nnx.clone(example)
    in_eval.eval()
    quiet = nnx.graphdef(in_eval)

    def built(w: Params, key: Key | None) -> RNNCellBase:
        leaves, structure = jax.tree.flatten(rng_state)
        start = jax.random.key(0) if key is None else key
        begun = [
            jax.random.fold_in(start, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros_like(leaf)
            for i, leaf in enumerate(leaves)
        ]
        return nnx.merge(quiet if key is None else noisy, w, jax.tree.unflatten(structure, begun))

    def init(key: Key, x: PyTree) -> Params:
        check_one_array(x, spec.name)
        if options.get("in_features", x.shape[-1]) != x.shape[-1]:
            raise ValueError(f"{spec} was made for inputs of other features than those of one step here, {x.shape}")
        if drawn:
            return nnx.to_pure_dict(nnx.state(make(rngs=nnx.Rngs(key)), nnx.Param))
        return jax.tree.map(jnp.array, copied)  # so that whoever donates them does not take ours

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> Carry:
        rngs = nnx.Rngs(jax.random.key(0) if key is None else key)
        return cast_floats(built(w, key).initialize_carry(x.shape, rngs), float_dtype(w))

    def project(w: Params, x: jax.Array, key: Key | None) -> PyTree:
        return x, key

    def step(w: Params, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        x, key = z
        return built(w, key)(carry, x)

    return cell(init, initial_carry, step, project=project)._replace(spec=spec)
