"""E-prop: eligibility traces with an instantaneous learning signal."""

from __future__ import annotations

from rnnx.base import Cell
from rnnx.hints import explained
from rnnx.online.learner import Loss, OnlineLearner
from rnnx.online.local import local_learner
from rnnx.online.ownership import Owner, columns


@explained
def eprop(cell: Cell, loss: Loss, *, kernel: str = "recurrent_kernel", owner: Owner = columns) -> OnlineLearner:
    r"""E-prop with symmetric feedback: eligibility traces within each unit, excluding recurrent connections.

    .. math::
        \epsilon_{i,t} = \frac{\partial s_{k,t}}{\partial w_i}
            + \left.\frac{\partial s_{k,t}}{\partial s_{k,t-1}}\right|_{R h = \mathrm{const}} \epsilon_{i,t-1}, \qquad
        e_{i,t} = \frac{\partial y_t}{\partial s_{k,t}} \epsilon_{i,t}, \qquad
        \frac{d L_t}{d w_i} \approx \frac{\partial L_t}{\partial y_t} \cdot e_{i,t}

    where k is the unit that owns the weight :math:`w_i`, and :math:`s_k` are its numbers, one in each leaf of the
    carry. Derivatives with respect to the state treat the product of the state and the recurrent matrix as constant,
    including its diagonal; this is the only difference from `rnnx.online.snap1`. In an LSTM the path from c to c
    remains, and that from h to the gates is cut. In an ALIF the voltage, the adaptation and the effect of a unit's own
    spike on both remain. An Elman network has no path left. The learning signal is the derivative of the current loss
    with respect to the unit's own output (the paper's symmetric feedback); later effects of the output through other
    units are omitted. (For spiking units, the paper's formulas also omit the reset of the voltage by the unit's own
    spike, a derivative of :math:`-\theta z_{t-1}`; it is included here.) Weights that act only on y get their exact
    gradient.

    Args:
        cell: a Cell with separable units, as in `rnnx.online.snap1`.
        loss: `(readout_params, y, target) -> scalar` for one step of one example.
        kernel: the name of the recurrent matrix in the cell's weights, (H, G H).
        owner: which unit owns each number of a weight, as in `rnnx.online.snap1`.

    Returns:
        The `OnlineLearner` learner, with the memory and cost of `rnnx.online.snap1`.

    Raises:
        TypeError, ValueError: as `rnnx.online.snap1`.

    Reference: G. Bellec et al., *A solution to the learning dilemma for recurrent networks of spiking neurons*, Nature
    Communications 11 (2020).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> cell = rnnx.cells.alif(4)
        >>> learner = rnnx.online.eprop(cell, lambda readout, y, target: (y @ readout - target) ** 2)
        >>> x = jnp.ones((2, 3))
        >>> params = {"cell": cell.init(jax.random.key(0), x[0]), "readout": jnp.ones(4)}
        >>> state, (loss, gradient, y) = learner.update(params, learner.init(params, x), x, jnp.zeros(2))
        >>> state.influence["recurrent_kernel"].shape, gradient["cell"]["recurrent_kernel"].shape
        ((2, 3, 4, 4), (4, 4))
    """
    return local_learner("eprop", cell, loss, kernel, owner, self_recurrent=False)
