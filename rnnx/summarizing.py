"""Summarises a layer in a table."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jax

from rnnx.base import Layer, PyTree
from rnnx.checks import check_shapes
from rnnx.combinators._children import output_struct
from rnnx.hints import explained
from rnnx.pointwise import as_layer


@explained
def summary(layer: Layer, xs: PyTree) -> str:
    """Tabulates a layer and the layers inside: their outputs, carries and numbers of parameters.

    Args:
        layer: any Layer, or a Flax linen module.
        xs: an example batch, arrays or `jax.ShapeDtypeStruct`; nothing is computed.

    Returns:
        The table as a string. Shapes are `[batch, time, ...]` for outputs and `[batch, ...]` for carries. The
        parameters of a row include those of the rows indented below it (`n` times in a `repeat`).

    Example::

        >>> import flax.linen as nn, jax.numpy as jnp, rnnx
        >>> print(rnnx.summary(rnnx.stack(nn.Embed(65, 16), rnnx.lstm(32)), jnp.zeros((2, 5), int)))
        layer                                             output           carry              parameters
        stack                                             float32[2,5,32]  2 × float32[2,32]       7,312
          0_Embed: Embed(num_embeddings=65, features=16)  float32[2,5,16]  -                       1,040
          1_lstm: lstm(width=32)                          float32[2,5,32]  2 × float32[2,32]       6,272
    """
    layer = as_layer(layer)
    check_shapes(xs)
    rows = [("layer", "output", "carry", "parameters"), *_rows("", layer, xs, 0)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = []
    for name, output, carry, count in rows:
        lines.append(f"{name:<{widths[0]}}  {output:<{widths[1]}}  {carry:<{widths[2]}}  {count:>{widths[3]}}")
    return "\n".join(lines)


def _rows(name: str, layer: Layer, xs: PyTree, depth: int) -> Iterator[tuple[str, str, str, str]]:
    params = jax.eval_shape(layer.init, jax.random.key(0), xs)
    carry = jax.eval_shape(lambda p, x: layer.initial_carry(p, x, None), params, xs)
    ys = output_struct(layer, params, xs)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    own = str(layer.spec._replace(children=()))
    own = own.removesuffix("()") if layer.spec.children else own
    label = "  " * depth + (f"{name}: {own}" if name else own)
    yield label, _shapes(ys), _shapes(carry), f"{count:,}"
    child_inputs, inputs = layer.spec.child_inputs, xs
    for i, (child_name, child) in enumerate(layer.spec.children):
        if child_inputs is not None and i:
            inputs = jax.eval_shape(child_inputs, xs, ys)
        yield from _rows(child_name, child, inputs, depth + 1)
        ys = output_struct(child, jax.eval_shape(child.init, jax.random.key(0), inputs), inputs)


def _shapes(tree: PyTree) -> str:
    """Formats shapes, counting consecutive equal ones: `2 × float32[2,32]`."""
    shapes = [f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]" for leaf in jax.tree.leaves(tree)]
    groups: list[tuple[int, str]] = []
    for shape in shapes:
        if groups and groups[-1][1] == shape:
            groups[-1] = (groups[-1][0] + 1, shape)
        else:
            groups.append((1, shape))
    return ", ".join(f"{n} × {shape}" if n > 1 else shape for n, shape in groups) or "-"
