"""Flax linen, both ways: wraps any Layer as a linen module, and any recurrent cell of linen as a Cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze

from rnnx.arguments import describe
from rnnx.base import ArrayLike, Carry, Cell, Key, Layer, Params, PyTree, cell
from rnnx.checks import check_count, is_numeric
from rnnx.interning import interned
from rnnx.pointwise import as_layer, pointwise
from rnnx.sequences import cast_floats, float_dtype
from rnnx.spec import FORWARD
from rnnx.unrolling import unroll

__all__ = ["RNN", "as_cell"]

AxisNames = Callable[[str, tuple[int, ...]], Sequence[str | None] | None]
"""`(path, shape) -> names` of the axes of a param, for a mesh; None for a param without axis names."""


class _OpaqueLayer:
    """Hides a Layer, which is a tuple, from linen: linen rebuilds tuples in attributes to search them for modules."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OpaqueLayer) and self.layer == other.layer

    def __hash__(self) -> int:
        return hash(self.layer)

    def __repr__(self) -> str:
        return repr(self.layer)


class RNN(nn.Module):
    """Wraps any Layer as a linen module, called as `rnn(xs, carry=, lengths=, resets=, key=) -> (carry, ys)`.

    It takes the arguments of `rnnx.unroll`, which runs the layer. Without a `key`, it uses the module's `dropout` rng,
    if there is one (`module.apply(variables, xs, rngs={"dropout": key})`). Its only variables are the layer's params,
    under the same names, in the collection `params`. So linen transforms (`nn.vmap`, `nn.scan`, `nn.remat`, `nn.jit`),
    optimisers and checkpoints work as with any module.

    Attributes:
        layer: the Layer to run. Equal calls of the library's factories return the same layer, so `jax.jit` does not
            compile again. Make a layer of your own cell in an `rnnx.factory`, or once, outside the training loop.
        batch_axes: the number of axes before time in xs (and in `lengths`, `resets` and every leaf of a carry): 1 for
            `[batch, time, ...]`, 0 for one sequence, `[time, ...]`.
        axis_names: `(path, shape) -> names` names the axes of each param, as an `nn.Partitioned`; a path looks like
            `"1_lstm.bias"`. To split the last axis of all params over the axis "model" of a mesh:
            `lambda path, shape: (None,) * (len(shape) - 1) + ("model",)`.

    Raises:
        TypeError, ValueError: as `rnnx.unroll`; also if arguments differ in their batch axes, or names do not fit a
            param.

    The options of `flax.linen.RNN` and their equivalents: `seq_lengths` is `lengths`, `initial_carry` is `carry`,
    `init_key` is `key`. `return_carry`: both are always returned. `reverse` with `keep_order`: `rnnx.reverse(layer)`,
    whose outputs are in the order of the inputs. `nn.Bidirectional`: `rnnx.bidirectional(layer)`. `unroll`:
    `rnnx.scan(cell, unroll=)`. `time_major`: time is the axis after the batch; `jnp.swapaxes(xs, 0, 1)` converts.
    Outputs are zero beyond the lengths, and a sequence of length 0 returns the carry that it was given.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.reverse(rnnx.gru(8))
        >>> class Tagger(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, xs, lengths=None):
        ...         _, ys = rnnx.linen.RNN(layer)(xs, lengths=lengths)
        ...         return nn.Dense(3)(ys)
        >>> xs = jnp.ones((2, 5, 4))
        >>> variables = Tagger().init(jax.random.key(0), xs)
        >>> Tagger().apply(variables, xs, jnp.array([5, 2])).shape
        (2, 5, 3)
        >>> rnn = rnnx.linen.RNN(rnnx.lstm(8), batch_axes=2)  # two players in each of three games
        >>> xs, lengths = jnp.ones((3, 2, 5, 4)), jnp.array([[5, 0], [2, 3], [1, 5]])
        >>> (carry, ys), variables = rnn.init_with_output(jax.random.key(0), xs, lengths=lengths)
        >>> carry.h.shape, ys.shape, sorted(variables["params"])
        ((3, 2, 8), (3, 2, 5, 8), ['bias', 'input_kernel', 'recurrent_kernel'])
    """

    layer: Layer | _OpaqueLayer
    batch_axes: int = 1
    axis_names: AxisNames | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layer, _OpaqueLayer):
            self.layer = _OpaqueLayer(as_layer(self.layer))
        super().__post_init__()

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Applies the module, as usual; raises if the params are not in the collection `params`."""
        if not isinstance(variables, Mapping) or (variables and not isinstance(variables.get("params"), Mapping)):
            given = (
                {k: describe(v) for k, v in variables.items()}
                if isinstance(variables, Mapping)
                else describe(variables)
            )
            raise TypeError(f'linen.RNN.apply takes the variables {{"params": params}}, but got {given}')
        return super().apply(variables, *args, **kwargs)

    @nn.compact
    def __call__(
        self,
        xs: PyTree,
        carry: Carry | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        key: Key | None = None,
    ) -> tuple[Carry, PyTree]:
        assert isinstance(self.layer, _OpaqueLayer)
        layer = self.layer.layer
        if self.is_mutable_collection("params") and "params" not in self.variables:
            params = layer.init(self.make_rng("params"), one_batch_axis(xs, self.batch_axes))
            for name, value in jax.tree_util.tree_map_with_path(self._with_axis_names, params).items():
                self.put_variable("params", name, value)
        else:
            params = nn.meta.unbox(unfreeze(dict(self.variables.get("params", {}))))
        if key is None and self.has_rng("dropout"):
            key = self.make_rng("dropout")
        return unroll_batched(layer, params, xs, self.batch_axes, carry=carry, lengths=lengths, resets=resets, key=key)

    def _with_axis_names(self, path: Any, leaf: jax.Array) -> Any:
        names = param_axis_names(self.axis_names, path, leaf)
        return leaf if names is None else nn.Partitioned(leaf, names)


def param_axis_names(axis_names: AxisNames | None, path: Any, leaf: jax.Array) -> tuple[str | None, ...] | None:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    names = None if axis_names is None else axis_names(name, leaf.shape)
    if names is not None and len(names) != leaf.ndim:
        raise ValueError(f"axis_names: {name} has shape {leaf.shape}, but was given the names {tuple(names)}")
    return None if names is None else tuple(names)


def one_batch_axis(xs: PyTree, batch_axes: int) -> PyTree:
    """Returns the shapes of xs with a single batch axis, for `layer.init`."""
    check_count("RNN", "batch_axes", batch_axes, 0)

    def one(x: Any) -> jax.ShapeDtypeStruct:
        if not is_numeric(x):
            raise TypeError(f"xs must be arrays of numbers [batch, time, ...], but got {describe(x)}")
        if jnp.ndim(x) <= batch_axes:
            expected = "[batch, time, ...]" if batch_axes == 1 else f"{batch_axes} batch axes, time, ..."
            raise ValueError(f"xs must be {expected}, but a leaf has shape {jnp.shape(x)}")
        return jax.ShapeDtypeStruct((1, *jnp.shape(x)[batch_axes:]), jnp.result_type(x))

    return jax.tree.map(one, xs)


def unroll_batched(
    layer: Layer, params: Params, xs: PyTree, batch_axes: int, *, carry: Any, lengths: Any, resets: Any, key: Any
) -> tuple[Carry, PyTree]:
    """`rnnx.unroll` with any number of batch axes."""
    if batch_axes == 1:
        return unroll(layer, params, xs, carry=carry, lengths=lengths, resets=resets, key=key)
    sizes = jnp.shape(jax.tree.leaves(xs)[0])[:batch_axes]

    def merge_batch_axes(name: str, tree: PyTree) -> PyTree:
        def one(leaf: Any) -> jax.Array:
            if jnp.shape(leaf)[:batch_axes] != sizes:
                raise ValueError(
                    f"{name} has shape {jnp.shape(leaf)}, but with batch_axes={batch_axes} and xs of shape "
                    f"{jax.tree.map(jnp.shape, xs)} its shape must begin with {sizes}"
                )
            return jnp.asarray(leaf).reshape(math.prod(sizes), *jnp.shape(leaf)[batch_axes:])

        return jax.tree.map(one, tree)

    lengths, resets = (a if a is None else jnp.asarray(a) for a in (lengths, resets))
    arguments = {"carry": carry, "lengths": lengths, "resets": resets}
    arguments = {name: merge_batch_axes(name, tree) for name, tree in arguments.items()}
    result = unroll(layer, params, merge_batch_axes("xs", xs), **arguments, key=key)
    return jax.tree.map(lambda a: a.reshape(*sizes, *a.shape[1:]), result)


@interned
def as_cell(module: nn.RNNCellBase) -> Cell:
    """Wraps a recurrent cell of Flax linen as a Cell, for all evaluators and combinators: lengths, resets, checkpoints.

    Args:
        module: e.g. `nn.LSTMCell(8)`, or your own `nn.RNNCellBase`, whose only variables are params.

    Returns:
        The Cell. Params and carry are those of the module (in linen, an LSTM's carry is `(c, h)`), the carry in the
        dtype of the params. The initial carry comes from `initialize_carry`; if that draws numbers, it uses the key, or
        without one a fixed key, the same for all sequences. The whole module runs in `step`. With a key, each step of
        each sequence gets its own `dropout` rng; without, there is none, so an `nn.Dropout` inside must be
        deterministic then: `nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))`. The module chooses the dtype
        of the computation; axis names (`nn.with_partitioning`) are dropped.

    Raises:
        TypeError: if `module` is not a cell of linen.
        ValueError: in `init`, if the module has other collections than params (`batch_stats`, ...), or the input is
            not a single array.

    Example::

        >>> import flax.linen as nn, jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.scan(rnnx.linen.as_cell(nn.GRUCell(8)), checkpoint_every=16)
        >>> xs = jnp.ones((2, 50, 3))
        >>> params = layer.init(jax.random.key(0), xs)
        >>> carry, ys = rnnx.unroll(layer, params, xs, lengths=jnp.array([50, 7]))
        >>> carry.shape, ys.shape, sorted(params)
        ((2, 8), (2, 50, 8), ['hn', 'hr', 'hz', 'in', 'ir', 'iz'])
    """
    if not isinstance(module, nn.RNNCellBase):
        hint = "; for a cell of flax.nnx, use rnnx.nnx.as_cell" if hasattr(module, "initialize_carry") else ""
        raise TypeError(f"expected a cell of flax.linen, e.g. nn.LSTMCell(512), but got {module!r}{hint}")
    spec = pointwise(module).spec._replace(directions=FORWARD)
    features = getattr(module, "features", None)
    if isinstance(features, int | float):
        check_count(f"linen.as_cell, {spec.name}", "features", features)

    def initialize_carry(module: nn.RNNCellBase, x: PyTree, key: Key | None) -> Carry:
        return module.initialize_carry(jax.random.key(0) if key is None else key, x.shape)

    def first_step(module: nn.RNNCellBase, x: jax.Array, key: Key) -> None:
        module(initialize_carry(module, x, key), x)

    def init(key: Key, x: PyTree) -> Params:
        check_one_array(x, spec.name)
        params_key, dropout_key, carry_key = jax.random.split(key, 3)
        rngs = {"params": params_key, "dropout": dropout_key}
        variables = module.init(rngs, jnp.zeros(x.shape, x.dtype), carry_key, method=first_step)
        others = sorted(set(variables) - {"params"})
        if others:
            raise ValueError(
                f"{spec.name} has the collections {others} besides its params, but a Cell has only params: state that "
                "changes from step to step belongs in the carry"
            )
        return nn.meta.unbox(variables.get("params", {}))

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> Carry:
        return cast_floats(module.apply({"params": w}, x, key, method=initialize_carry), float_dtype(w))

    def project(w: Params, x: jax.Array, key: Key | None) -> PyTree:
        return x, key

    def step(w: Params, carry: Carry, z: PyTree) -> tuple[Carry, PyTree]:
        x, key = z
        return module.apply({"params": w}, carry, x, rngs=None if key is None else {"dropout": key})

    return cell(init, initial_carry, step, project=project)._replace(spec=spec)


def check_one_array(x: PyTree, name: str) -> None:
    if not hasattr(x, "shape") or not x.shape:
        raise ValueError(f"{name} takes one array of features per step, xs [batch, time, ..., features], but got {x}")
