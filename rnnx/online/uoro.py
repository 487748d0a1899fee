"""Unbiased online recurrent optimisation (UORO): an unbiased rank-one estimate of the influence matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rnnx.base import Cell, Key, Params, PyTree
from rnnx.hints import explained
from rnnx.online.learner import Floats, Influence, Initial, Loss, OnlineLearner, OnlineState, Step, learner
from rnnx.sequences import upcast

TINY = 1e-7  # added to norms, to avoid division by zero


class RankOne(NamedTuple):
    """The influence `state weights^T` of each example; leaves `[batch, ...]` in the structure of carry and weights."""

    state: Floats
    weights: Floats


@explained
def uoro(cell: Cell, loss: Loss) -> OnlineLearner:
    r"""Unbiased online recurrent optimisation (UORO): RTRL with a random influence of rank one, unbiased on average.

    .. math::
        \tilde s_t &= \rho_0 \frac{\partial s_t}{\partial s_{t-1}} \tilde s_{t-1} + \rho_1 \nu, \qquad
        \tilde w_t = \frac{\tilde w_{t-1}}{\rho_0} + \frac{1}{\rho_1} \nu^\top \frac{\partial s_t}{\partial w} \\
        \frac{d L_t}{d w} &\approx \frac{\partial L_t}{\partial w}
            + \Big(\frac{\partial L_t}{\partial s_{t-1}} \cdot \tilde s_{t-1}\Big) \tilde w_{t-1}

    with random signs :math:`\nu` for every number of the carry, drawn independently for each step and example. The
    scales give the two terms of each sum equal norms, which minimises the variance:

    .. math::
        \rho_0^2 = \|\tilde w_{t-1}\| \,/\, \Big\|\frac{\partial s_t}{\partial s_{t-1}} \tilde s_{t-1}\Big\|, \qquad
        \rho_1^2 = \Big\|\nu^\top \frac{\partial s_t}{\partial w}\Big\| \,/\, \|\nu\|

    At the start and at a reset, the influence of the weights on the initial carry is drawn in the same way.

    Args:
        cell: any Cell; convert an associative one by `rnnx.as_cell(cell)`.
        loss: `(readout_params, y, target) -> scalar` for one step of one example.

    Returns:
        The `OnlineLearner`. Its `init` needs a key for the signs, which the state then carries. For a carry of S
        numbers and W weights it stores `[batch, S + W]` numbers, and costs about as much as a few forward and backward
        steps. The gradient is unbiased (with constant params), but noisy, and noisier in wider networks: use small
        learning rates and large batches.

    Raises:
        TypeError: if `cell` is not a Cell. ValueError: in `init`, without a key; otherwise as `rnnx.online.rtrl`.

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
    base = learner("uoro", cell, loss, Influence(_start, _advance, _vjp))

    def init(params: Params, x: PyTree, key: Key | None = None) -> OnlineState:
        if key is None:
            raise ValueError("uoro: init needs a key for its random signs: learner.init(params, x, jax.random.key(0))")
        return base.init(params, x, key)

    return OnlineLearner(init, base.update)


def _start(initial: Initial, w: Floats, batch: int, key: Key | None) -> RankOne:
    s, back = jax.vjp(initial, w)
    signs = _signs(key, s, batch)
    (direct,) = jax.vmap(back)(signs)
    scale = _balance(direct, signs)
    return RankOne(_scaled(signs, scale), _scaled(direct, 1 / scale))


def _advance(step: Step, w: Floats, s: Floats, rows: PyTree, influence: RankOne, key: Key | None) -> RankOne:
    def batch_step(s: Floats) -> Floats:
        return jax.vmap(step, in_axes=(None, 0, 0))(w, s, rows)

    def weights_vjp(s: Floats, row: PyTree, sign: Floats) -> Floats:
        return jax.vjp(lambda w: step(w, s, row), w)[1](sign)[0]

    _, tangent = jax.jvp(batch_step, (s,), (jax.tree.map(lambda t, a: t.astype(a.dtype), influence.state, s),))
    signs = _signs(key, jax.tree.map(lambda a: a[0], s), jax.tree.leaves(s)[0].shape[0])
    direct = jax.vmap(weights_vjp)(s, rows, signs)
    old, new = _balance(influence.weights, tangent), _balance(direct, signs)
    return RankOne(
        jax.tree.map(jnp.add, _scaled(tangent, old), _scaled(signs, new)),
        jax.tree.map(jnp.add, _scaled(influence.weights, 1 / old), _scaled(direct, 1 / new)),
    )


def _vjp(influence: RankOne, by_s: Floats) -> Floats:
    products = [(a * b).reshape(a.shape[0], -1).sum(axis=1) for a, b in _pairs(upcast(by_s), influence.state)]
    inner = jnp.stack(products).sum(axis=0)
    return jax.tree.map(lambda a: jnp.tensordot(inner.astype(a.dtype), a, axes=1), influence.weights)


def _signs(key: Any, s: Floats, batch: int) -> Floats:
    leaves, structure = jax.tree.flatten(s)
    keys = jax.random.split(key, len(leaves))
    signs = [jax.random.rademacher(k, (batch, *a.shape), a.dtype) for k, a in zip(keys, leaves)]
    return jax.tree.unflatten(structure, signs)


def _balance(weights: Floats, state: Floats) -> jax.Array:
    """The factors `[batch]` that multiply the state vector and divide the weight vector."""
    return jnp.sqrt((_norm(weights) + TINY) / (_norm(state) + TINY))


def _norm(tree: Floats) -> jax.Array:
    squares = [(a * a).reshape(a.shape[0], -1).sum(axis=1) for a in jax.tree.leaves(upcast(tree))]
    return jnp.sqrt(jnp.stack(squares).sum(axis=0))


def _scaled(tree: Floats, factor: jax.Array) -> Floats:
    return jax.tree.map(lambda a: a * factor.astype(a.dtype).reshape(-1, *[1] * (a.ndim - 1)), upcast(tree))


def _pairs(a: Floats, b: Floats) -> list[tuple[jax.Array, jax.Array]]:
    return list(zip(jax.tree.leaves(a), jax.tree.leaves(b)))
