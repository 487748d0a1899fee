"""rnnx: recurrent networks as pure functions in JAX. Write a cell once, evaluate it any way."""

import importlib
from typing import TYPE_CHECKING, Any

from rnnx import cells, interop, linen, online
from rnnx.base import AssociativeCell, Cell, Layer, LinearizedStep, Spec, as_cell, associative_cell, cell, factory
from rnnx.batching import bucket, pad, unpad
from rnnx.cells.exposing import expose
from rnnx.cells.learned import learned_carry
from rnnx.cells.regularizers import recurrent_dropout, weight_drop, zoneout
from rnnx.combinators.branching import heads, parallel
from rnnx.combinators.directions import BiCarry, bidirectional, reverse
from rnnx.combinators.noise import dropout, locked_dropout
from rnnx.combinators.sharding import sharded
from rnnx.combinators.stacking import repeat, residual, skip_stack, stack
from rnnx.evaluators.associative import associative_scan
from rnnx.evaluators.fused import fused_scan
from rnnx.evaluators.newton import newton_scan, newton_solve
from rnnx.evaluators.scan import scan
from rnnx.generation import generate, sampler
from rnnx.hints import explain_name
from rnnx.layers import (
    alif,
    causal_conv,
    cfc,
    conv_gru,
    conv_lstm,
    cornn,
    delta_net,
    elman,
    gated_delta_net,
    gla,
    gru,
    indrnn,
    janet,
    lem,
    lmu,
    lru,
    lstm,
    ltc,
    mgu,
    min_gru,
    min_lstm,
    mlstm,
    orthogonal,
    qrnn,
    reservoir,
    rg_lru,
    rhn,
    s4d,
    s5,
    s6,
    slstm,
    sru,
    ugrnn,
    window,
)
from rnnx.linear import affine_cell, linear_scan
from rnnx.naming import named
from rnnx.packing import Packed, pack, unpack, unpack_padded, unroll_packed
from rnnx.pointwise import pointwise
from rnnx.summarizing import summary
from rnnx.unrolling import unroll

if TYPE_CHECKING:
    from rnnx import nnx as nnx

__all__ = [
    "AssociativeCell",
    "BiCarry",
    "Cell",
    "Layer",
    "LinearizedStep",
    "Packed",
    "Spec",
    "affine_cell",
    "alif",
    "as_cell",
    "associative_cell",
    "associative_scan",
    "bidirectional",
    "bucket",
    "causal_conv",
    "cell",
    "cells",
    "cfc",
    "conv_gru",
    "conv_lstm",
    "cornn",
    "delta_net",
    "dropout",
    "elman",
    "expose",
    "factory",
    "fused_scan",
    "gated_delta_net",
    "generate",
    "gla",
    "gru",
    "heads",
    "indrnn",
    "interop",
    "janet",
    "learned_carry",
    "lem",
    "linear_scan",
    "linen",
    "lmu",
    "locked_dropout",
    "lru",
    "lstm",
    "ltc",
    "mgu",
    "min_gru",
    "min_lstm",
    "mlstm",
    "named",
    "newton_scan",
    "newton_solve",
    "online",
    "orthogonal",
    "pack",
    "pad",
    "parallel",
    "pointwise",
    "qrnn",
    "recurrent_dropout",
    "repeat",
    "reservoir",
    "residual",
    "reverse",
    "rg_lru",
    "rhn",
    "s4d",
    "s5",
    "s6",
    "sampler",
    "scan",
    "sharded",
    "skip_stack",
    "slstm",
    "sru",
    "stack",
    "summary",
    "ugrnn",
    "unpack",
    "unpack_padded",
    "unpad",
    "unroll",
    "unroll_packed",
    "weight_drop",
    "window",
    "zoneout",
]


def __getattr__(name: str) -> Any:
    if name == "nnx":  # only for those who use it: importing flax.nnx takes a fifth as long again
        return importlib.import_module("rnnx.nnx")
    raise AttributeError(explain_name("rnnx", name, __all__))
