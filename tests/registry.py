"""Every public cell, evaluator and combinator, in the sizes in which the laws are tested.

A new public name needs a row here: `test_registry.py` fails until it has one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import rnnx
from rnnx.evaluators.newton import diagonal
from rnnx.testing.comparing import TOLERANCE

BATCH, TIME, FEATURES, VOCABULARY = 4, 7, 3, 5


class Case(NamedTuple):
    """A layer to be held to the laws, what it is fed, and which public names it stands for."""

    name: str
    make: Callable[[], rnnx.Layer]
    covers: tuple[str, ...]
    inputs: Callable[[jax.Array, int, int], Any] = lambda key, batch, time: jax.random.normal(
        key, (batch, time, FEATURES)
    )
    smooth: bool = True  # whether its derivatives are those of its values: a spike's are not
    noisy: bool = False  # whether a key changes what it gives, though no dropout layer is in it
    tolerance: float = TOLERANCE


def tokens(key: jax.Array, batch: int, time: int) -> jax.Array:
    return jax.random.randint(key, (batch, time), 0, VOCABULARY)


def irregular(key: jax.Array, batch: int, time: int) -> dict[str, jax.Array]:
    """Inputs that are a pytree: a series with the time since its last point."""
    k_x, k_dt = jax.random.split(key)
    return {"x": jax.random.normal(k_x, (batch, time, FEATURES)), "dt": jax.random.uniform(k_dt, (batch, time))}


def lines(key: jax.Array, batch: int, time: int) -> jax.Array:
    return jax.random.normal(key, (batch, time, 5, 2))


def images(key: jax.Array, batch: int, time: int) -> jax.Array:
    return jax.random.normal(key, (batch, time, 4, 3, 2))


def volumes(key: jax.Array, batch: int, time: int) -> jax.Array:
    return jax.random.normal(key, (batch, time, 3, 2, 3, 2))


@rnnx.factory
def decay() -> rnnx.Cell:
    """A user's cell over a pytree of inputs: a learned initial carry, decaying as time goes by."""

    def init(key, x):
        return {"start": jnp.ones(x["x"].shape), "rate": jnp.full(x["x"].shape, 0.5)}

    def initial_carry(params, x, key):
        return {"h": params["start"]}

    def step(params, carry, x):
        h = carry["h"] * jnp.exp(-params["rate"] * x["dt"]) + x["x"] / jnp.linalg.norm(x["x"])
        return {"h": h}, h

    return rnnx.cell(init, initial_carry, step)


@rnnx.factory
def drained(width: int) -> rnnx.Cell:
    """A user's cell that is undefined where input and state do not belong together: a root of what is left."""

    def init(key, x):
        return {"rate": jnp.full((width, *x.shape), 0.05)}

    def initial_carry(params, x, key):
        return jnp.full(width, 3.0, params["rate"].dtype)

    def step(params, h, x):
        h = h - jax.nn.sigmoid(params["rate"].astype(x.dtype) @ x) * h / 2
        return h, jnp.sqrt(h - 0.01)

    return rnnx.cell(init, initial_carry, step)


@rnnx.factory
def gated_sum(width: int) -> rnnx.AssociativeCell:
    """A linear recurrence h = a(x) h + b(x): elements (a, b) compose as affine maps do."""

    def init(key, x):
        k_a, k_b = jax.random.split(key)
        dense = jax.nn.initializers.lecun_normal()
        return {"a": dense(k_a, (*x.shape, width)), "b": dense(k_b, (*x.shape, width))}

    def initial_carry(w, x, key):
        return jnp.zeros((width,), w["a"].dtype)

    def lift(w, x):
        return jax.nn.sigmoid(x @ w["a"].astype(x.dtype)), x @ w["b"].astype(x.dtype)

    def combine(left, right):
        return left[0] * right[0], left[1] * right[0] + right[1]

    def act(h, element):
        return element[0] * h + element[1]

    def readout(w, h, x):
        return h

    return rnnx.associative_cell(init, initial_carry, lift, combine, act, readout)


@rnnx.factory
def small_model(width: int = 4) -> rnnx.Layer:
    return rnnx.stack(nn.Embed(VOCABULARY, 3), rnnx.lstm(width), rnnx.dropout(0.5), nn.Dense(VOCABULARY))


CASES = [
    Case("elman", lambda: rnnx.elman(4), ("elman", "cells.elman", "scan")),
    Case("elman relu", lambda: rnnx.elman(4, activation=jax.nn.relu), ()),
    Case("lstm", lambda: rnnx.lstm(4), ("lstm", "cells.lstm")),
    Case("lstm peephole", lambda: rnnx.lstm(4, peephole=True), ()),
    Case("lstm coupled", lambda: rnnx.lstm(4, coupled=True), ()),
    Case("lstm layer norm", lambda: rnnx.lstm(4, layer_norm=True), ()),
    Case("lstm projection", lambda: rnnx.lstm(4, projection=2), ()),
    Case(
        "lstm options",
        lambda: rnnx.lstm(5, peephole=True, coupled=True, layer_norm=True, projection=4),
        (),
        tolerance=5e-5,  # two norms and a projection in a step; under jax 0.12 off by 2.1e-5
    ),
    Case("gru", lambda: rnnx.gru(4), ("gru", "cells.gru")),
    Case("gru reset before", lambda: rnnx.gru(4, reset_after=False), ()),
    Case("cornn", lambda: rnnx.cornn(4), ("cornn", "cells.cornn")),
    Case("indrnn", lambda: rnnx.indrnn(4), ("indrnn", "cells.indrnn")),
    Case("janet", lambda: rnnx.janet(4), ("janet", "cells.janet")),
    Case("lem", lambda: rnnx.lem(4), ("lem", "cells.lem")),
    Case("mgu", lambda: rnnx.mgu(4), ("mgu", "cells.mgu")),
    Case("orthogonal", lambda: rnnx.orthogonal(4), ("orthogonal", "cells.orthogonal")),
    Case("rhn", lambda: rnnx.rhn(4), ("rhn", "cells.rhn")),
    Case("ugrnn", lambda: rnnx.ugrnn(4), ("ugrnn", "cells.ugrnn")),
    Case("slstm", lambda: rnnx.slstm(4, heads=2), ("slstm", "cells.slstm")),
    Case("mgu reset after", lambda: rnnx.mgu(4, reset_after=True), ()),
    Case("reservoir", lambda: rnnx.reservoir(4, leak=0.7), ("reservoir", "cells.reservoir")),
    Case("lmu", lambda: rnnx.lmu(4, order=3, theta=5.0), ("lmu", "cells.lmu")),
    Case("alif", lambda: rnnx.alif(4, threshold=0.4, beta=0.3, tau=5.0), ("alif", "cells.alif"), smooth=False),
    Case("cfc", lambda: rnnx.cfc(4, backbone_units=6, backbone_layers=2), ("cfc", "cells.cfc"), irregular),
    Case("cfc bare", lambda: rnnx.cfc(4, gated=False, backbone_layers=0), (), irregular),
    Case("ltc", lambda: rnnx.ltc(4, unfolds=2), ("ltc", "cells.ltc"), irregular),
    Case("conv_lstm", lambda: rnnx.conv_lstm(3), ("conv_lstm", "cells.conv_lstm"), images),
    Case(
        "conv_lstm peephole",
        lambda: rnnx.conv_lstm(2, kernel_size=2, strides=2, padding="VALID", peephole=True),
        (),
        images,
    ),
    Case("conv_gru", lambda: rnnx.conv_gru(2), ("conv_gru", "cells.conv_gru"), lines),
    Case("conv_gru reset after", lambda: rnnx.conv_gru(2, reset_after=True), (), volumes),
    Case("causal_conv", lambda: rnnx.causal_conv(3), ("causal_conv", "cells.causal_conv")),
    Case("window", lambda: rnnx.window(3), ("window", "cells.window")),
    Case("delta_net", lambda: rnnx.delta_net(4, heads=2), ("delta_net", "cells.delta_net")),
    Case("gated_delta_net", lambda: rnnx.gated_delta_net(4, heads=2), ("gated_delta_net", "cells.gated_delta_net")),
    Case(
        "gla",
        lambda: rnnx.gla(4, heads=2, key_width=6),
        ("gla", "cells.gla"),
        tolerance=2e-4,  # its norm divides by outputs near 0: in float32 a gradient is off by 4.3e-5 from float64
    ),
    Case("lru", lambda: rnnx.lru(3, state=4), ("lru", "cells.lru")),
    Case("min_gru", lambda: rnnx.min_gru(4), ("min_gru", "cells.min_gru")),
    Case("min_lstm", lambda: rnnx.min_lstm(4), ("min_lstm", "cells.min_lstm")),
    Case("mlstm", lambda: rnnx.mlstm(4, heads=2), ("mlstm", "cells.mlstm")),
    Case("qrnn", lambda: rnnx.qrnn(4, input_gate=True), ("qrnn", "cells.qrnn")),
    Case("rg_lru", lambda: rnnx.rg_lru(3), ("rg_lru", "cells.rg_lru")),
    Case("s4d", lambda: rnnx.s4d(3, state=4), ("s4d", "cells.s4d")),
    Case("s5", lambda: rnnx.s5(3, state=8, blocks=2), ("s5", "cells.s5")),
    Case("s6", lambda: rnnx.s6(3, state=4), ("s6", "cells.s6")),
    Case("sru", lambda: rnnx.sru(4), ("sru", "cells.sru")),
    Case("own cell", lambda: rnnx.scan(decay(), checkpoint_every=1), ("cell",), irregular),
    Case("partial cell", lambda: rnnx.scan(drained(4)), ()),
    Case("as_cell", lambda: rnnx.scan(rnnx.as_cell(gated_sum(4))), ("as_cell", "associative_cell")),
    Case("learned_carry", lambda: rnnx.scan(rnnx.learned_carry(rnnx.cells.lstm(4))), ("learned_carry",)),
    Case(
        "learned_carry associative",
        lambda: rnnx.scan(rnnx.as_cell(rnnx.learned_carry(rnnx.cells.lru(3)))),
        (),
    ),
    Case("expose", lambda: rnnx.scan(rnnx.expose(rnnx.cells.lstm(4), "i", "f", "g", "o", "carry")), ("expose",)),
    Case("expose repeated", lambda: rnnx.scan(rnnx.expose(rnnx.cells.rhn(4), "g", "n")), ()),
    Case(
        "expose associative",
        lambda: rnnx.associative_scan(rnnx.expose(rnnx.cells.gla(4, heads=2), "alpha", "r"), sequential=False),
        (),
    ),
    Case(
        "recurrent_dropout",
        lambda: rnnx.scan(rnnx.recurrent_dropout(rnnx.cells.gru(4, reset_after=False), 0.5)),
        ("recurrent_dropout",),
        noisy=True,
    ),
    Case("weight_drop", lambda: rnnx.scan(rnnx.weight_drop(rnnx.cells.elman(4), 0.5)), ("weight_drop",), noisy=True),
    Case(
        "zoneout",
        lambda: rnnx.scan(rnnx.zoneout(rnnx.cells.lstm(4), rnnx.cells.LSTMCarry(0.1, 0.5))),
        ("zoneout",),
        noisy=True,
    ),
    Case("linen cell", lambda: rnnx.scan(rnnx.linen.as_cell(nn.LSTMCell(4))), ()),
    Case("linen cell conv", lambda: rnnx.scan(rnnx.linen.as_cell(nn.ConvLSTMCell(2, (3, 3)))), (), images),
    Case("nnx cell", lambda: rnnx.scan(rnnx.nnx.as_cell(functools.partial(nnx.GRUCell, FEATURES, 4))), ()),
    Case("fused_scan", lambda: rnnx.fused_scan(rnnx.cells.lstm(4), checkpoint_every=3), ("fused_scan",)),
    Case(
        "associative_scan tree",
        lambda: rnnx.associative_scan(rnnx.cells.lru(3, state=4), sequential=False),
        ("associative_scan", "affine_cell"),
    ),
    Case("associative_scan steps", lambda: rnnx.associative_scan(rnnx.cells.min_gru(4), sequential=True), ()),
    Case("associative_scan own", lambda: rnnx.associative_scan(gated_sum(4), sequential=False), ()),
    Case(
        "associative_scan matrices",
        lambda: rnnx.associative_scan(rnnx.cells.gated_delta_net(4, heads=2), sequential=False),
        (),
        tolerance=5e-5,  # the gradient of its norm's scale is a sum that nearly cancels: off by 2.4e-5
    ),
    Case("associative_scan mlstm", lambda: rnnx.associative_scan(rnnx.cells.mlstm(4, heads=2), sequential=False), ()),
    Case("newton_scan", lambda: rnnx.newton_scan(rnnx.cells.gru(4)), ("newton_scan",)),
    Case("newton_scan diagonal", lambda: rnnx.newton_scan(rnnx.cells.lstm(4), jacobian=diagonal), ()),
    Case("newton_scan that walks", lambda: rnnx.newton_scan(rnnx.cells.elman(4), max_iterations=1), ()),
    Case("sharded", lambda: rnnx.sharded(rnnx.gru(4)), ("sharded",)),
    Case("scan unroll", lambda: rnnx.scan(rnnx.cells.lstm(4), unroll=3), ()),
    Case("scan checkpoint_every", lambda: rnnx.scan(rnnx.cells.gru(4), checkpoint_every=3, unroll=2), ()),
    Case("pointwise", lambda: rnnx.pointwise(nn.Dense(4)), ("pointwise",)),
    Case("dropout", lambda: rnnx.dropout(0.3), ("dropout",)),
    Case("locked_dropout", lambda: rnnx.locked_dropout(0.3), ("locked_dropout",), noisy=True),
    Case("stack", lambda: small_model(), ("stack", "factory"), tokens),
    Case("stack deep", lambda: rnnx.stack(rnnx.gru(4), nn.LayerNorm(), rnnx.elman(2)), ()),
    Case("repeat", lambda: rnnx.repeat(rnnx.residual(rnnx.lstm(FEATURES)), 3), ("repeat",)),
    Case("multi_head", lambda: rnnx.multi_head(rnnx.lstm(2), 3), ("multi_head",)),
    Case("skip_stack", lambda: rnnx.skip_stack(rnnx.elman(4), rnnx.gru(2)), ("skip_stack",)),
    Case("residual", lambda: rnnx.residual(rnnx.elman(FEATURES)), ("residual",)),
    Case("parallel", lambda: rnnx.parallel(rnnx.lstm(2), nn.Dense(2), merge=jnp.multiply), ("parallel",)),
    Case("reverse", lambda: rnnx.reverse(rnnx.gru(4)), ("reverse",)),
    Case("reverse stack", lambda: rnnx.reverse(rnnx.stack(rnnx.lstm(3), rnnx.elman(2))), ()),
    Case("bidirectional", lambda: rnnx.bidirectional(rnnx.lstm(3), rnnx.gru(3), merge=jnp.add), ("bidirectional",)),
    Case(
        "bidirectional deep", lambda: rnnx.stack(rnnx.bidirectional(rnnx.gru(2)), rnnx.bidirectional(rnnx.gru(2))), ()
    ),
]
