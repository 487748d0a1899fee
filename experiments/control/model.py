"""The net: an encoder, a cell, and the heads of policy and value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.control.config import Cell, Model


class Decision(NamedTuple):
    """The outputs of each step."""

    logits: jax.Array
    """`[..., actions]`."""
    value: jax.Array
    """`[...]`, the expected discounted return from here on."""
    hidden: jax.Array
    """`[..., width]`, the output of the cell."""


def make_net(model: Model, cell: Cell, actions: int) -> rnnx.Layer:
    """Observations `[batch, time, features]` to Decisions."""
    width, tanh = model.width, rnnx.pointwise(jnp.tanh)
    cells: dict[Cell, Callable[[], rnnx.Layer]] = {
        "gru": lambda: rnnx.gru(width),
        "lstm": lambda: rnnx.lstm(width),
        "min_gru": lambda: rnnx.min_gru(width),
        "memoryless": lambda: rnnx.stack(nn.Dense(width), tanh),
    }
    # A policy that starts close to uniform tries every action.
    policy = nn.Dense(actions, kernel_init=nn.initializers.orthogonal(0.01))
    value = nn.Dense(1, kernel_init=nn.initializers.orthogonal(1.0))

    def decide(logits: jax.Array, value: jax.Array, hidden: jax.Array) -> Decision:
        return Decision(logits, value[..., 0], hidden)

    heads = rnnx.parallel(policy, value, rnnx.pointwise(lambda hidden: hidden), merge=decide)
    return rnnx.stack(nn.Dense(width), tanh, cells[cell](), heads)


def one_step(
    net: rnnx.Layer, params: Any, carry: Any, observation: jax.Array, start: jax.Array
) -> tuple[Any, Decision]:
    """A step of each row: observation `[batch, features]`, and whether it begins an episode, `[batch]`."""
    carry, decision = rnnx.unroll(net, params, observation[:, None], carry=carry, resets=start[:, None])
    return carry, jax.tree.map(lambda a: a[:, 0], decision)
