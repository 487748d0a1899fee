"""SnAp-1: the sparse approximation of RTRL that keeps what one step of immediate influence fills."""

from __future__ import annotations

from rnnx.base import Cell
from rnnx.hints import explained
from rnnx.online.learner import Loss, Online
from rnnx.online.local import local_learner
from rnnx.online.ownership import Owner, columns


@explained
def snap1(cell: Cell, loss: Loss, *, kernel: str = "recurrent_kernel", owner: Owner = columns) -> Online:
    r"""The sparse 1-step approximation (SnAp-1): RTRL that keeps, of each weight, the influence on its own unit.

    .. math::
        e_{i,t} = \frac{\partial s_{k,t}}{\partial w_i} + \frac{\partial s_{k,t}}{\partial s_{k,t-1}} e_{i,t-1}, \qquad
        \frac{d L_t}{d w_i} \approx \frac{\partial L_t}{\partial w_i}
            + \frac{\bar\partial L_t}{\bar\partial s_{k,t-1}} \cdot e_{i,t-1}

    where k is the unit that owns the weight :math:`w_i`, and :math:`s_k` its numbers, one of each leaf of the carry.
    What a unit does to others by the recurrent matrix is left out, of the trace e and of :math:`\bar\partial`; what
    it does to itself by the matrix's diagonal is not. So it is exact where units are independent of each other (IndRNN,
    minGRU, LRU and other diagonal recurrences), whatever their outputs then do.

    Args:
        cell: a Cell whose units can be told apart; of an associative one `rnnx.as_cell(cell)`. Each leaf of its carry
            is `(H,)`; no weight acts directly on another unit than its owner; units hear each other only by
            `h @ weights[kernel]`. `init` looks whether that is so, at random numbers.
        loss: `(readout_params, y, target) -> scalar` of one step of one example.
        kernel: the recurrent matrix among the cell's weights, (H, G H). A cell without one has independent units.
        owner: `(path, shape, units) -> integers` that broadcast to the shape: the unit that owns each number of a
            weight, or None for a weight that acts on y alone. Default: `rnnx.online.columns`.

    Returns:
        The `Online` learner. Its memory is `[batch, L, W]` numbers for a carry of L leaves and W weights, its cost L
        backward passes of a step.

    Raises:
        TypeError: for what is not a Cell. ValueError: in `init`, for a cell that is not as above (a GRU with
            `reset_after=False`, an MGU without `reset_after=True`, an LSTM with a projection or layer norm, cells
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
    return local_learner("snap1", cell, loss, kernel, owner, hears_itself=True)
