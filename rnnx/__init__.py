"""rnnx: recurrent networks as pure functions in JAX. Write a cell once, evaluate it any way."""

from rnnx import cells
from rnnx.base import AssociativeCell, Cell, Layer, Spec, as_cell, cell, factory
from rnnx.combinators import BiCarry, bidirectional, dropout, parallel, repeat, residual, reverse, stack
from rnnx.evaluators.scan import scan
from rnnx.generation import generate, sampler
from rnnx.layers import cornn, elman, gru, indrnn, janet, lem, lstm, mgu, orthogonal, rhn, slstm, ugrnn
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
    "cornn",
    "dropout",
    "elman",
    "factory",
    "generate",
    "gru",
    "indrnn",
    "janet",
    "lem",
    "lstm",
    "mgu",
    "orthogonal",
    "parallel",
    "pointwise",
    "repeat",
    "residual",
    "reverse",
    "rhn",
    "sampler",
    "scan",
    "slstm",
    "stack",
    "summary",
    "ugrnn",
    "unroll",
]
