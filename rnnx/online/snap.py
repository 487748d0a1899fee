"""SnAp-1: the sparse approximation of RTRL that keeps only the entries which one step fills."""

from __future__ import annotations

from rnnx.base import Cell
from rnnx.hints import explained
from rnnx.online.learner import Loss, OnlineLearner
from rnnx.online.local import local_learner
from rnnx.online.ownership import Owner, columns


@explained
def snap1(cell: Cell, loss: Loss, *, kernel: str = "recurrent_kernel", owner: Owner = columns) -> OnlineLearner:
    r"""The sparse 1-step approximation (SnAp-1): RTRL that keeps only the influence of each weight on its own unit.

    .. math::
        e_{i,t} = \frac{\partial s_{k,t}}{\partial w_i} + \frac{\partial s_{k,t}}{\partial s_{k,t-1}} e_{i,t-1}, \qquad
        \frac{d L_t}{d w_i} \approx \frac{\partial L_t}{\partial w_i}
            + \frac{\bar\partial L_t}{\bar\partial s_{k,t-1}} \cdot e_{i,t-1}

    where k is the unit that owns the weight :math:`w_i`, and :math:`s_k` are its numbers, one in each leaf of the
    carry. The trace e and :math:`\bar\partial` omit the effect of a unit on other units through the recurrent matrix,
    but not its effect on itself through the matrix's diagonal. So the gradient is exact if units are independent of
    each other (IndRNN, minGRU, LRU and other diagonal recurrences), for any readout.

    Args:
        cell: a Cell with separable units; convert an associative one by `rnnx.as_cell(cell)`. Each leaf of its carry
            is `(H,)`; each weight acts directly on its owner only; units interact only through `h @ weights[kernel]`.
            `init` verifies this on random numbers.
        loss: `(readout_params, y, target) -> scalar` for one step of one example.
        kernel: the name of the recurrent matrix in the cell's weights, (H, G H). A cell without it has independent
            units.
        owner: `(path, shape, units) -> integers` that broadcast to the shape: the unit that owns each number of a
            weight, or None for a weight that acts only on y. Default: `rnnx.online.columns`.

    Returns:
        The `OnlineLearner`. For a carry of L leaves and W weights it stores `[batch, L, W]` numbers, and costs L
        backward passes of a step.

    Raises:
        TypeError: if `cell` is not a Cell. ValueError: in `init`, if the cell does not meet the conditions above (a GRU
            with `reset_after=False`, an MGU without `reset_after=True`, an LSTM with a projection or layer norm, cells
            whose carry is a matrix or an image).

    Reference: J. Menick et al., *A practical sparse approximation for real time recurrent learning*, ICLR 2021, arXiv
    2006.07232.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> cell = rnnx.cells.gru(4)
        >>> learner = rnnx.online.snap1(cell, lambda readout, y, target: (y @ readout - target) ** 2)
        >>> x = jnp.ones((2, 3))
        >>> params = {"cell": cell.init(jax.random.key(0), x[0]), "readout": jnp.ones(4)}
        >>> state = learner.init(params, x)
        >>> state.influence["recurrent_kernel"].shape
        (2, 1, 4, 12)
        >>> state, (loss, gradient, y) = learner.update(params, state, x, jnp.zeros(2))
        >>> gradient["cell"]["recurrent_kernel"].shape
        (4, 12)
    """
    return local_learner("snap1", cell, loss, kernel, owner, self_recurrent=True)
