"""The cell, its readout, and the loss of one step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import rnnx
import rnnx.online
from experiments.online.config import Method, Model
from experiments.online.data import Target


def make_cell(model: Model) -> rnnx.Cell:
    """The cell; its input weights start at zero, so no input reaches it yet."""
    cells: dict[str, Callable[..., rnnx.Cell]] = {"lstm": rnnx.cells.lstm, "gru": rnnx.cells.gru}
    return cells[model.cell](model.width, kernel_init=jax.nn.initializers.zeros)


def loss(readout: Any, y: jax.Array, target: Target) -> jax.Array:
    """Nats, summed over the bits, of one step of one row; zero where nothing is asked."""
    logits = y @ readout["kernel"] + readout["bias"]
    return jnp.where(target.asked, jax.nn.softplus(-target.bits * logits).sum(), 0)


losses = jax.vmap(jax.vmap(loss, (None, 0, 0)), (None, 0, 0))
"""The losses of whole sequences, `[batch, time]`."""


def make_learner(model: Model, method: Method) -> rnnx.online.OnlineLearner | None:
    """The online learner of a method; None for back-propagation."""
    makers = {name: getattr(rnnx.online, name) for name in ("rtrl", "snap1", "eprop", "uoro")}
    return makers[method](make_cell(model), loss) if method in makers else None
