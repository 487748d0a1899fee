"""Flax nnx, both ways: wraps any Layer as an nnx module, and any recurrent cell of nnx as a Cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.errors import FlaxError
from flax.nnx.nn.recurrent import RNNCellBase

from rnnx.arguments import describe
from rnnx.base import ArrayLike, Carry, Cell, Key, Layer, Params, PyTree, Spec, cell
from rnnx.checks import check_count
from rnnx.linen import AxisNames, check_one_array, one_batch_axis, param_axis_names, unroll_batched
from rnnx.pointwise import as_layer
from rnnx.sequences import cast_floats, float_dtype

__all__ = ["RNN", "as_cell"]


class RNN(nnx.Module):
    """Wraps any Layer as an nnx module, called as `rnn(xs, carry=, lengths=, resets=, key=) -> (carry, ys)`.

    It takes the arguments of `rnnx.unroll`, which runs the layer. It stores no rngs: without a key it is deterministic;
    for dropout pass one, `rnn(xs, key=rngs.dropout())`. So it works under the transforms of JAX (`jax.grad`, `jax.jit`,
    `jax.vmap`, on a split and merged state) as well as under those of nnx.

    Args:
        layer: the Layer to run. Equal calls of the library's factories return the same layer, so `nnx.jit` does not
            compile again. Make a layer of your own cell in an `rnnx.factory`, or once, outside the training loop.
        example_xs: arrays or `jax.ShapeDtypeStruct` in the shape of the inputs; only the features matter.
        rngs: its `params` stream initialises the params.
        batch_axes: the number of axes before time, as in `rnnx.linen.RNN`.
        axis_names: `(path, shape) -> names` of each param's axes, as in `rnnx.linen.RNN`; they become the sharding of
            its `nnx.Param` (if nnx shards eagerly, create the module within `jax.set_mesh(mesh)`).

    Attributes:
        params: the layer's params under their own names, each leaf an `nnx.Param`. To replace them:
            `nnx.update(rnn, {"params": params})`.

    Raises:
        TypeError, ValueError: as `rnnx.unroll`; also if arguments differ in their batch axes.

    For the equivalents of the options of `flax.nnx.RNN` see `rnnx.linen.RNN`. `broadcast_rngs` and `state_axes` are
    not needed: the only state is params.

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
            raise TypeError(f"nnx.RNN: rngs is {describe(rngs)}, expected rngs=nnx.Rngs(0), to initialise the params")
        if example_xs is None:
            raise TypeError("nnx.RNN: example_xs is None, expected arrays like the inputs, [batch, time, ...]")

        def param(path: Any, leaf: jax.Array) -> nnx.Param:
            names = param_axis_names(axis_names, path, leaf)
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
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        params = jax.tree.map(lambda p: p[...], self.params, is_leaf=lambda p: isinstance(p, nnx.Variable))
        return unroll_batched(
            self.layer, params, xs, self.batch_axes, carry=carry, lengths=lengths, resets=resets, key=key
        )


def as_cell(cell_or_make: RNNCellBase | Callable[..., RNNCellBase]) -> Cell:
    """Wraps a recurrent cell of Flax nnx as a Cell, for all evaluators and combinators: lengths, resets, checkpoints.

    Args:
        cell_or_make: a cell, or a function that makes one when called with `rngs=`, e.g.
            `functools.partial(nnx.LSTMCell, 3, 8)`. With a cell, `init` *copies* the weights that it had when `as_cell`
            was called, for any key (so all layers of a `rnnx.repeat` start equal). With a function, `init` *draws* new
            weights from its key. Training does not change the nnx cell; `nnx.update(nnx_cell, params)` writes the
            params back.

    Returns:
        The Cell. Params are those of the nnx cell as a nested dict. The carry is that of the nnx cell (an LSTM's is
        `(c, h)`), in the dtype of the params. The initial carry comes from `initialize_carry`; if that draws numbers,
        it uses the key, or without one a fixed key, the same for all sequences. The whole cell runs in `step`. With a
        key, every step of every sequence reseeds all rng streams of the cell (an `nnx.Dropout` has one); their earlier
        state has no effect. Without a key, the cell runs as after its `eval()`. The nnx cell chooses the dtype of the
        computation (`nnx.SimpleCell` has one by default).

    Raises:
        TypeError: if `cell_or_make` neither is a cell of nnx nor makes one.
        ValueError: if the cell holds other state than params and rngs (`nnx.BatchStat`, ...); in `init`, if the input
            is not a single array, or has another number of features than the cell was made for.

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
    example = _example_cell(make, drawn)
    options = {n: getattr(example, n) for n in ("in_features", "hidden_features") if hasattr(example, n)}
    spec = Spec(type(example).__name__, options)
    stochastic, *states = nnx.split(example, nnx.Param, nnx.RngState, ...)
    own, rng_state, others = states
    if jax.tree.leaves(others):
        found = {".".join(map(str, path)): type(leaf).__name__ for path, leaf in nnx.to_flat_state(others)}
        raise ValueError(
            f"{spec.name} holds {found} besides its params, but a Cell has only params: state that changes from step "
            "to step belongs in the carry"
        )
    copied = nnx.to_pure_dict(own) if drawn else jax.tree.map(jnp.array, nnx.to_pure_dict(own))
    eval_cell = nnx.clone(example)
    eval_cell.eval()
    deterministic = nnx.graphdef(eval_cell)

    def build(w: Params, key: Key | None) -> RNNCellBase:
        leaves, structure = jax.tree.flatten(rng_state)
        seed = jax.random.key(0) if key is None else key
        reseeded = [
            jax.random.fold_in(seed, i) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros_like(leaf)
            for i, leaf in enumerate(leaves)
        ]
        return nnx.merge(deterministic if key is None else stochastic, w, jax.tree.unflatten(structure, reseeded))

    def init(key: Key, x: PyTree) -> Params:
        check_one_array(x, spec.name)
        if options.get("in_features", x.shape[-1]) != x.shape[-1]:
            raise ValueError(f"{spec} was made for another number of features than a step has here, {x.shape}")
        if drawn:
            return nnx.to_pure_dict(nnx.state(make(rngs=nnx.Rngs(key)), nnx.Param))
        return jax.tree.map(jnp.array, copied)  # a new copy, which the caller may donate

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> Carry:
        rngs = nnx.Rngs(jax.random.key(0) if key is None else key)
        return cast_floats(build(w, key).initialize_carry(x.shape, rngs), float_dtype(w))

    def project(w: Params, x: jax.Array, key: Key | None) -> PyTree:
        return x, key

    def step(w: Params, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        x, key = z
        return build(w, key)(carry, x)

    return cell(init, initial_carry, step, project=project)._replace(spec=spec)


def _example_cell(cell_or_make: Any, drawn: bool) -> RNNCellBase:
    """The cell itself, or the shapes of the one that `cell_or_make` makes; raises if it is no cell of nnx."""
    try:
        example: Any = nnx.eval_shape(lambda: cell_or_make(rngs=nnx.Rngs(0))) if drawn else cell_or_make
    except (TypeError, FlaxError) as error:
        raise TypeError(
            f"nnx.as_cell: {describe(cell_or_make)} makes no cell when called with rngs= alone ({error}); bind its "
            "sizes: functools.partial(nnx.LSTMCell, 3, 8)"
        ) from error
    if not isinstance(example, RNNCellBase):
        hint = "; for a cell of flax.linen, use rnnx.linen.as_cell" if hasattr(example, "initialize_carry") else ""
        raise TypeError(
            "expected a cell of flax.nnx, e.g. nnx.LSTMCell(3, 8, rngs=rngs), or a function that makes one when called "
            f"with rngs=, e.g. functools.partial(nnx.LSTMCell, 3, 8), but got {example!r}{hint}"
        )
    return example
