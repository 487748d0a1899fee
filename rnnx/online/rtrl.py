"""Real-time recurrent learning (RTRL): stores the full influence matrix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.base import Cell, Key, PyTree
from rnnx.hints import explained
from rnnx.online.learner import Floats, Influence, Initial, Loss, OnlineLearner, Step, broadcast_rows, learner


@explained
def rtrl(cell: Cell, loss: Loss) -> OnlineLearner:
    r"""Real-time recurrent learning (RTRL): computes the exact gradient forward in time.

    .. math::
        J_t = \frac{\partial s_t}{\partial w} + \frac{\partial s_t}{\partial s_{t-1}} J_{t-1}, \qquad
        \frac{d L_t}{d w} = \frac{\partial L_t}{\partial w} + \frac{\partial L_t}{\partial s_{t-1}} J_{t-1}

    where s is the whole carry of the cell, w its weights (which `prepare` computes from the params), and
    :math:`J_0 = d s_0 / d w`, so a learned initial carry is trained too. Each example has its own J.

    Args:
        cell: any Cell, e.g. `rnnx.cells.lstm(16)`; convert an associative one by `rnnx.as_cell(cell)`.
        loss: `(readout_params, y, target) -> scalar` for one step of one example.

    Returns:
        The `OnlineLearner`. For a carry of S numbers and W weights it stores `[batch, S, W]` numbers, and costs about
        S² W operations per step and example, so it suits small networks. Weights that `prepare` adds to the params
        count too (for `rnnx.cells.orthogonal`, both the matrix and the triangle from which it is computed).

    Raises:
        TypeError: if `cell` is not a Cell. `init` and `update` raise a ValueError if their arguments do not fit.

    Reference: R. Williams and D. Zipser, *A learning algorithm for continually running fully recurrent neural
    networks*, Neural Computation 1 (1989).

    Example:
        One pass over a stream with an update after every step::

            >>> import jax, jax.numpy as jnp, optax, rnnx
            >>> cell = rnnx.cells.lstm(4)
            >>> def loss(readout, y, target):
            ...     return (y @ readout - target) ** 2
            >>> learner, optimizer = rnnx.online.rtrl(cell, loss), optax.adam(1e-2)
            >>> xs = jax.random.normal(jax.random.key(0), (50, 2, 3))  # [time, batch, features], as in a stream
            >>> targets = xs.sum(axis=-1)
            >>> one_x = jax.ShapeDtypeStruct((3,), jnp.float32)
            >>> params = {"cell": cell.init(jax.random.key(1), one_x), "readout": jnp.ones(4)}
            >>> def step(state, inputs):
            ...     params, memory, moments = state
            ...     memory, (loss, gradient, y) = learner.update(params, memory, *inputs)
            ...     changes, moments = optimizer.update(gradient, moments)
            ...     return (optax.apply_updates(params, changes), memory, moments), loss
            >>> state = params, learner.init(params, xs[0]), optimizer.init(params)
            >>> state, losses = jax.lax.scan(step, state, (xs, targets))
            >>> losses.shape
            (50,)
    """
    return learner("rtrl", cell, loss, Influence(_start, _advance, _vjp))


def _start(initial: Initial, w: Floats, batch: int, key: Key | None) -> Floats:
    s, back = jax.vjp(initial, w)
    (influence,) = jax.vmap(back)(_basis(s))
    return broadcast_rows(influence, batch)


def _advance(step: Step, w: Floats, s: Floats, rows: PyTree, influence: Floats, key: Key | None) -> Floats:
    def of_row(s: Floats, row: PyTree, influence: Floats) -> Floats:
        after, back = jax.vjp(lambda w, s: step(w, s, row), w, s)
        by_w, by_s = jax.vmap(back)(_basis(after))
        jacobian = _flat(by_s)

        def add(direct: jax.Array, before: jax.Array) -> jax.Array:
            return direct + jnp.tensordot(jacobian.astype(before.dtype), before, axes=1)

        return jax.tree.map(add, by_w, influence)

    return jax.vmap(of_row)(s, rows, influence)


def _vjp(influence: Floats, by_s: Floats) -> Floats:
    flat = _flat(by_s)
    return jax.tree.map(lambda j: jnp.tensordot(flat.astype(j.dtype), j, axes=((0, 1), (0, 1))), influence)


def _basis(s: Floats) -> Floats:
    """The S unit vectors, in the structure of the carry: leaves `[S, ...]`."""
    leaves, structure = jax.tree.flatten(s)
    ends = np.cumsum([leaf.size for leaf in leaves])
    eye = np.eye(ends[-1])
    pieces = [
        jnp.asarray(eye[:, end - leaf.size : end].reshape(-1, *leaf.shape), leaf.dtype)
        for leaf, end in zip(leaves, ends)
    ]
    return jax.tree.unflatten(structure, pieces)


def _flat(s: Floats) -> jax.Array:
    """Concatenates leaves `[n, ...]` to `[n, S]`."""
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(s)], axis=1)
