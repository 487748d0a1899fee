"""E-prop: eligibility traces and an immediate learning signal."""

from __future__ import annotations

from rnnx.base import Cell
from rnnx.hints import explained
from rnnx.online.learner import Loss, Online
from rnnx.online.local import local_learner
from rnnx.online.ownership import Owner, columns


@explained
def eprop(cell: Cell, loss: Loss, *, kernel: str = "recurrent_kernel", owner: Owner = columns) -> Online:
    r"""E-prop with symmetric feedback: the trace runs within a unit, along no recurrent connection.

    .. math::
        \epsilon_{i,t} = \frac{\partial s_{k,t}}{\partial w_i}
            + \left.\frac{\partial s_{k,t}}{\partial s_{k,t-1}}\right|_{R h = \mathrm{const}} \epsilon_{i,t-1}, \qquad
        e_{i,t} = \frac{\partial y_t}{\partial s_{k,t}} \epsilon_{i,t}, \qquad
        \frac{d L_t}{d w_i} \approx \frac{\partial L_t}{\partial y_t} \cdot e_{i,t}

    where k is the unit that owns the weight :math:`w_i`, and :math:`s_k` its numbers, one of each leaf of the carry.
    All derivatives by the state are those with the product of the state and the recurrent matrix held fast, its
    diagonal too: that is all in which it differs from `rnnx.online.snap1`. In an LSTM the path from c to c stays, that
    from h to the gates is cut; in an ALIF the voltage, the adaptation and what a unit's own spike does to both stay;
    an Elman network has no path left. The learning signal is the derivative of the present loss by the output, of each
    unit by itself (the paper's symmetric feedback); what the output will do by way of other units later on is left out.
    (The paper's formulas for spiking units leave out as well what a spike takes from its unit's own voltage: a
    derivative of :math:`-\theta z_{t-1}`, which counts here.) Weights which act on y alone get their exact gradient.

    Args:
        cell: a Cell whose units can be told apart, as in `rnnx.online.snap1`.
        loss: `(readout_params, y, target) -> scalar` of one step of one example.
        kernel: the recurrent matrix among the cell's weights, (H, G H).
        owner: which unit owns each number of a weight, as in `rnnx.online.snap1`.

    Returns:
        The `Online` learner, of the memory and cost of `rnnx.online.snap1`.

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
    return local_learner("eprop", cell, loss, kernel, owner, hears_itself=False)
