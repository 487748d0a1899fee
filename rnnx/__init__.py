"""rnnx: recurrent networks as pure functions in JAX. Write a cell once, evaluate it any way."""

import importlib
from typing import TYPE_CHECKING, Any

from rnnx import cells, interop, layers, linen, online
from rnnx.base import AssociativeCell, Cell, Layer, LinearizedStep, Spec, as_cell, associative_cell, cell, factory
from rnnx.batching import bucket, pad, unpad
from rnnx.cells.exposing import expose
from rnnx.cells.learned import learned_carry
from rnnx.cells.regularizers import recurrent_dropout, weight_drop, zoneout
from rnnx.combinators.branching import multi_head, parallel
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
from rnnx.layers import *  # noqa: F403, exactly its __all__, so a new cell needs no entry here
from rnnx.linear import affine_cell, linear_scan
from rnnx.naming import named
from rnnx.packing import Packed, pack, unpack, unpack_padded, unroll_packed
from rnnx.pointwise import pointwise
from rnnx.summarizing import summary
from rnnx.unrolling import unroll

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rnnx import nnx as nnx
    from rnnx import testing as testing

__all__ = [
    "AssociativeCell",
    "BiCarry",
    "Cell",
    "Layer",
    "LinearizedStep",
    "Packed",
    "Spec",
    "affine_cell",
    "as_cell",
    "associative_cell",
    "associative_scan",
    "bidirectional",
    "bucket",
    "cell",
    "cells",
    "dropout",
    "expose",
    "factory",
    "fused_scan",
    "generate",
    "interop",
    "learned_carry",
    "linear_scan",
    "linen",
    "locked_dropout",
    "multi_head",
    "named",
    "newton_scan",
    "newton_solve",
    "online",
    "pack",
    "pad",
    "parallel",
    "pointwise",
    "recurrent_dropout",
    "repeat",
    "residual",
    "reverse",
    "sampler",
    "scan",
    "sharded",
    "skip_stack",
    "stack",
    "summary",
    "unpack",
    "unpack_padded",
    "unpad",
    "unroll",
    "unroll_packed",
    "weight_drop",
    "zoneout",
]
__all__ += layers.__all__


def __getattr__(name: str) -> Any:
    if name in ("nnx", "testing"):  # only on first use: flax.nnx would make the import a fifth slower
        return importlib.import_module(f"rnnx.{name}")
    raise AttributeError(explain_name("rnnx", name, __all__))
