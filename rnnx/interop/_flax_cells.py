"""The recurrent cells of Flax: how they store their weights, and which of them rnnx reproduces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn.initializers import zeros


class Layout(NamedTuple):
    """How a cell stores its weights: in submodules with one kernel each, for one gate or for all.

    Attributes:
        kind: the name of the rnnx factory.
        inputs, hidden: the submodules that read x and h, in the order of gates in rnnx.
        bias_on: which of the two have the biases.
        inner: the other submodule with a bias, if any: it becomes `recurrent_bias`, or is added to a ConvLSTM's `bias`.
    """

    kind: str
    inputs: tuple[str, ...]
    hidden: tuple[str, ...]
    bias_on: str
    inner: str | None = None


LSTM = Layout("lstm", ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"), "hidden")
LINEN = {
    "SimpleCell": Layout("elman", ("i",), ("h",), "inputs"),
    "LSTMCell": LSTM,
    "OptimizedLSTMCell": LSTM,
    "GRUCell": Layout("gru", ("ir", "iz", "in"), ("hr", "hz", "hn"), "inputs", inner="hn"),
    "MGUCell": Layout("mgu", ("if", "in"), ("hf", "hn"), "inputs", inner="hn"),
    "ConvLSTMCell": Layout("conv_lstm", ("ih",), ("hh",), "inputs", inner="hh"),
}
MGU_WITHOUT_RESET = Layout("ugrnn", ("if", "in"), ("hf", "hn"), "inputs")
NNX = {
    "SimpleCell": Layout("elman", ("dense_i",), ("dense_h",), "inputs"),
    "LSTMCell": LSTM._replace(inputs=("ii", "if_", "ig", "io")),
    "OptimizedLSTMCell": Layout("lstm", ("dense_i",), ("dense_h",), "hidden"),
    "GRUCell": Layout("gru", ("dense_i",), ("dense_h",), "inputs"),
}

IGFO = (0, 2, 1, 3)  # swaps g and f, between the gate orders of ConvLSTMCell and rnnx
CONV_FORGET_BIAS = 1.0  # ConvLSTMCell adds this to f at run time


def class_name(module: Any) -> str:
    """The class name of a Flax module; the empty string for any other object."""
    of = type(module)
    return of.__name__ if of.__module__.startswith(("flax.linen.", "flax.nnx.")) else ""


def is_linen(module: Any) -> bool:
    return type(module).__module__.startswith("flax.linen.")


def cell_and_layout(where: str, module: Any) -> tuple[Any, Layout]:
    """Returns the cell in the module and its layout; raises unless rnnx computes the same."""
    name, linen = class_name(module), is_linen(module)
    if name == "RNN":
        if module.reverse:
            raise ValueError(
                f"{where}: got an RNN with reverse=True; convert its cell, and wrap the layer in rnnx.reverse"
            )
        return cell_and_layout(where, module.cell)
    layouts = LINEN if linen else NNX
    if name not in layouts:
        raise TypeError(
            f"{where}: expected {', '.join(layouts)}, an RNN of one of them or a Bidirectional of two, but got "
            f"{type(module).__module__}.{type(module).__name__}"
        )
    layout = layouts[name]
    if name == "MGUCell" and not module.reset_gate:
        layout = MGU_WITHOUT_RESET
    if name == "ConvLSTMCell" and not is_one(1 if module.strides is None else module.strides):
        raise ValueError(
            f"{where}: a ConvLSTMCell with strides={module.strides!r} cannot be converted: it strides the convolution "
            "of h too, but rnnx.conv_lstm never does"
        )
    if name == "ConvLSTMCell" and module.padding != "SAME":
        raise ValueError(
            f"{where}: a ConvLSTMCell with padding={module.padding!r} cannot be converted: it pads h like x, but "
            "rnnx.conv_lstm pads h with 'SAME'"
        )
    expected = {"gate_fn": jax.nn.sigmoid, "activation_fn": jnp.tanh, "residual": False}
    for option, value in expected.items():
        given = getattr(module, option, value)
        if given is not value and not (option == "activation_fn" and layout.kind == "elman"):
            raise ValueError(f"{where}: a {name} with {option}={given!r} cannot be converted; rnnx uses {value!r}")
    if module.carry_init not in (None, zeros):
        raise ValueError(
            f"{where}: a {name} with its own carry_init cannot be converted; rnnx.{layout.kind} starts from zeros"
        )
    return module, layout


def is_one(sizes: int | Sequence[int]) -> bool:
    return all(size == 1 for size in (sizes if isinstance(sizes, Sequence) else (sizes,)))
