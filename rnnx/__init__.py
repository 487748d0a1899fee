"""rnnx: recurrent networks as pure functions in JAX. Write a cell once, evaluate it any way."""

from rnnx import cells
from rnnx.base import AssociativeCell, Cell, Layer, Spec, as_cell, cell, factory
from rnnx.combinators import BiCarry, bidirectional, dropout, parallel, repeat, residual, reverse, stack
from rnnx.evaluators.scan import scan
from rnnx.generation import generate, sampler
from rnnx.layers import elman, gru, lstm
from rnnx.pointwise import pointwise
from rnnx.summarizing import summary
from rnnx.unrolling import unroll

__all__ = [
    "AssociativeCell",
    "BiCarry",
    "Cell",
    "Layer",
    "Spec",
    "as_cell",
    "bidirectional",
    "cell",
    "cells",
    "dropout",
    "elman",
    "factory",
    "generate",
    "gru",
    "lstm",
    "parallel",
    "pointwise",
    "repeat",
    "residual",
    "reverse",
    "sampler",
    "scan",
    "stack",
    "summary",
    "unroll",
]
