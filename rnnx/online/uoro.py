"""Unbiased online recurrent optimisation: an influence matrix of rank one, right on average."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnx.base import Cell, Key, Params, PyTree
from rnnx.hints import explained
from rnnx.online.learner import Floats, Influence, Initial, Loss, Online, OnlineState, Step, learner
from rnnx.sequences import wide

TINY = 1e-7  # added to norms, so that nothing is divided by zero


class RankOne(NamedTuple):
    """An influence `state weights^T` for each example: leaves `[batch, ...]`, as in the carry and as in the weights."""

    state: Floats
    weights: Floats


@explained
def uoro(cell: Cell, loss: Loss) -> Online:
    r"""Unbiased online recurrent optimisation: RTRL with an influence of rank one, whose mean is the true one.

    .. math::
        \tilde s_t &= \rho_0 \frac{\partial s_t}{\partial s_{t-1}} \tilde s_{t-1} + \rho_1 \nu, \qquad
        \tilde w_t = \frac{\tilde w_{t-1}}{\rho_0} + \frac{1}{\rho_1} \nu^\top \frac{\partial s_t}{\partial w} \\
        \frac{d L_t}{d w} &\approx \frac{\partial L_t}{\partial w}
            + \Big(\frac{\partial L_t}{\partial s_{t-1}} \cdot \tilde s_{t-1}\Big) \tilde w_{t-1}

    with random signs :math:`\nu` for every number of the carry, drawn anew for each step and example. The
    scales make the two terms of each sum equally long, which is where the variance is least:

    .. math::
        \rho_0^2 = \|\tilde w_{t-1}\| \,/\, \Big\|\frac{\partial s_t}{\partial s_{t-1}} \tilde s_{t-1}\Big\|, \qquad
        \rho_1^2 = \Big\|\nu^\top \frac{\partial s_t}{\partial w}\Big\| \,/\, \|\nu\|

    At the start and at a reset, the influence of the weights on the initial carry is drawn in the same way.

    Args:
        cell: any Cell; of an associative one `rnnx.as_cell(cell)`.
        loss: `(readout_params, y, target) -> scalar` of one step of one example.

    Returns:
        The `Online` learner, whose `init` wants a key: the signs come from it, by way of the state. Its memory is
        `[batch, S + W]` for a carry of S numbers and W weights, its cost about that of a few steps back and forth. The
        gradient is unbiased (with the params held fast), but noisy, and the more so the wider the network: small
        steps and large batches help.

    Raises:
        TypeError: for what is not a Cell. ValueError: in `init`, without a key; and as in `rnnx.online.rtrl`.

    Reference: C. Tallec and Y. Ollivier, *Unbiased online recurrent optimization*, ICLR 2018, arXiv 1702.05043.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> cell = rnnx.cells.gru(4)
        >>> learner = rnnx.online.uoro(cell, lambda readout, y, target: (y @ readout - target) ** 2)
        >>> x = jnp.ones((2, 3))
        >>> params = {"cell": cell.init(jax.random.key(0), x[0]), "readout": jnp.ones(4)}
        >>> state = learner.init(params, x, jax.random.key(1))
        >>> state, (loss, gradient, y) = learner.update(params, state, x, jnp.zeros(2))
        >>> gradient["cell"]["recurrent_kernel"].shape
        (4, 12)
    """
    base = learner("uoro", cell, loss, Influence(_start, _advance, _pull))

    def init(params: Params, x: PyTree, key: Key | None = None) -> OnlineState:
        if key is None:
            raise ValueError("uoro: init needs a key for its random signs: learner.init(params, x, jax.random.key(0))")
        return base.init(params, x, key)

    return Online(init, base.update)


def _start(initial: Initial, w: Floats, batch: int, key: Key | None) -> RankOne:
    s, back = jax.vjp(initial, w)
    signs = _signs(key, s, batch)
    (direct,) = jax.vmap(back)(signs)
    scale = _balance(direct, signs)
    return RankOne(_scaled(signs, scale), _scaled(direct, 1 / scale))


def _advance(step: Step, w: Floats, s: Floats, rows: PyTree, influence: RankOne, key: Key | None) -> RankOne:
    def of_batch(s: Floats) -> Floats:
        return jax.vmap(step, in_axes=(None, 0, 0))(w, s, rows)

    def pulled(s: Floats, row: PyTree, sign: Floats) -> Floats:
        return jax.vjp(lambda w: step(w, s, row), w)[1](sign)[0]

    _, moved = jax.jvp(of_batch, (s,), (jax.tree.map(lambda t, a: t.astype(a.dtype), influence.state, s),))
    signs = _signs(key, jax.tree.map(lambda a: a[0], s), jax.tree.leaves(s)[0].shape[0])
    direct = jax.vmap(pulled)(s, rows, signs)
    old, new = _balance(influence.weights, moved), _balance(direct, signs)
    return RankOne(
        jax.tree.map(jnp.add, _scaled(moved, old), _scaled(signs, new)),
        jax.tree.map(jnp.add, _scaled(influence.weights, 1 / old), _scaled(direct, 1 / new)),
    )


def _pull(influence: RankOne, by_s: Floats) -> Floats:
    products = [(a * b).reshape(a.shape[0], -1).sum(axis=1) for a, b in _pairs(wide(by_s), influence.state)]
    along = jnp.stack(products).sum(axis=0)
    return jax.tree.map(lambda a: jnp.tensordot(along.astype(a.dtype), a, axes=1), influence.weights)


def _signs(key: Any, s: Floats, batch: int) -> Floats:
    leaves, structure = jax.tree.flatten(s)
    keys = jax.random.split(key, len(leaves))
    signs = [jax.random.rademacher(k, (batch, *a.shape), a.dtype) for k, a in zip(keys, leaves)]
    return jax.tree.unflatten(structure, signs)


def _balance(weights: Floats, state: Floats) -> jax.Array:
    """`[batch]`: what to multiply the vector in the state by, and to divide that of the weights by."""
    return jnp.sqrt((_norm(weights) + TINY) / (_norm(state) + TINY))


def _norm(tree: Floats) -> jax.Array:
    squares = [(a * a).reshape(a.shape[0], -1).sum(axis=1) for a in jax.tree.leaves(wide(tree))]
    return jnp.sqrt(jnp.stack(squares).sum(axis=0))


def _scaled(tree: Floats, factor: jax.Array) -> Floats:
    return jax.tree.map(lambda a: a * factor.astype(a.dtype).reshape(-1, *[1] * (a.ndim - 1)), wide(tree))


def _pairs(a: Floats, b: Floats) -> list[tuple[jax.Array, jax.Array]]:
    return list(zip(jax.tree.leaves(a), jax.tree.leaves(b)))
