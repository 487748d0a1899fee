"""Calls of an outside trial that no other table has."""

from bad_input import MEANT

RTRL = 'o = rnnx.online.rtrl(CELL, oloss); q = {"cell": CP, "readout": {}}; '
GENERATE = "rnnx.generate(LM, LMP, LM.initial_carry(LMP, TOK, None), TOK[:, 0], "
ALIF = "rnnx.alif(4, beta=[0.1] * 4)"

CALLS = {
    "cells around": [
        (
            "run(rnnx.scan(rnnx.weight_drop(rnnx.cells.lstm(4), 0.5, kernels=())))",
            ValueError,
            "weight_drop: kernels is () (tuple)",
            "a tuple of one or more names",
        ),
    ],
    "evaluators": [
        (
            "run(rnnx.scan(CELL, checkpoint_every=True))",
            TypeError,
            "scan: checkpoint_every is True (bool)",
            "it must be a whole number, 1 or more",
        ),
        (
            'run(rnnx.newton_scan(CELL, tolerance=float("nan")))',
            TypeError,
            "newton_scan: tolerance is nan (float)",
            "a number",
        ),
        (
            "run(rnnx.newton_scan(CELL, max_iterations=2.5))",
            TypeError,
            "newton_scan: max_iterations is 2.5 (float)",
            "it must be a whole number, 1 or more",
        ),
        (
            "run(rnnx.scan(CELL, unroll=True))",
            TypeError,
            "scan: unroll is True (bool)",
            "it must be a whole number, 1 or more",
        ),
        (
            "run(rnnx.newton_scan(CELL, tolerance=-1.0))",
            ValueError,
            "newton_scan: tolerance is -1.0",
            "it must be above 0 (None",
        ),
        (
            "rnnx.as_cell(nn.LSTMCell(4))",
            TypeError,
            "as_cell takes an AssociativeCell, e.g. rnnx.cells.lru(64)",
            "rnnx.linen.as_cell",
        ),
        (
            'run(rnnx.scan(CELL, checkpoint_every=float("nan")))',
            TypeError,
            "scan: checkpoint_every is nan (float)",
            "it must be a whole number, 1 or more",
        ),
        (
            "run(rnnx.fused_scan(CELL, checkpoint_every=2.5))",
            TypeError,
            "fused_scan: checkpoint_every is 2.5 (float)",
            "it must be a whole number, 1 or more",
        ),
        (
            "run(rnnx.scan(CELL, checkpoint_every=2.5))",
            TypeError,
            "scan: checkpoint_every is 2.5 (float)",
            "it must be a whole number, 1 or more",
        ),
    ],
    "hyperparameters of cells": [
        (
            'run(rnnx.alif(4, threshold=float("inf")))',
            ValueError,
            "alif: threshold is inf",
            "it must be a finite number above 0",
        ),
        ('run(rnnx.lem(4, dt=float("nan")))', ValueError, "lem: dt is nan", "it must be a finite number above 0"),
        (
            'run(rnnx.alif(4, damping=float("nan")))',
            ValueError,
            "alif: damping is nan",
            "it must be a finite number, 0 or more",
        ),
        ('run(rnnx.janet(4, beta=float("nan")))', ValueError, "janet: beta is nan", "it must be a finite number"),
        (
            'run(rnnx.conv_lstm(3, padding="same"), jnp.ones((1, 2, 4, 4, 1)))',
            ValueError,
            "conv_lstm: padding is 'same' (str)",
            "it must be 'SAME', 'VALID', or the zeros (before, ",
        ),
        (
            "run(rnnx.delta_net(4, heads=True))",
            TypeError,
            "delta_net: heads is True (bool)",
            "it must be a whole number, 1 or more",
        ),
        ("run(rnnx.lem(4, dt=-1.0))", ValueError, "lem: dt is -1.0", "it must be a finite number above 0"),
        (
            'run(rnnx.elman(4, recurrent_kernel_init=rnnx.cells.scaled_identity(float("nan"))))',
            ValueError,
            "scaled_identity: scale is nan",
            "it must be a finite number",
        ),
        (
            "run(rnnx.causal_conv(3, size=True))",
            TypeError,
            "causal_conv: size is True (bool)",
            "it must be a whole number, 1 or more",
        ),
        (
            'run(rnnx.gla(4, temperature=float("nan")))',
            ValueError,
            "gla: temperature is nan",
            "it must be a finite number above 0",
        ),
        ("run(rnnx.cornn(4, dt=0.0))", ValueError, "cornn: dt is 0.0", "it must be a finite number above 0"),
        (
            "run(rnnx.gla(4, temperature=-1.0))",
            ValueError,
            "gla: temperature is -1.0",
            "it must be a finite number above 0",
        ),
        (
            'run(rnnx.reservoir(4, spectral_radius=float("nan")))',
            ValueError,
            "reservoir: spectral_radius is nan",
            "it must be a finite number, 0 or more",
        ),
        (
            'run(rnnx.cornn(4, gamma=float("inf")))',
            ValueError,
            "cornn: gamma is inf",
            "it must be a finite number, 0 or more",
        ),
        ('run(rnnx.cornn(4, dt=float("nan")))', ValueError, "cornn: dt is nan", "it must be a finite number above 0"),
        (
            'run(rnnx.conv_lstm(3, padding="FULL"), jnp.ones((1, 2, 4, 4, 1)))',
            ValueError,
            "conv_lstm: padding is 'FULL' (str)",
            "it must be 'SAME', 'VALID', or the zeros (before, ",
        ),
        (
            'run(rnnx.elman(4, recurrent_kernel_init=rnnx.cells.scaled_identity("1")))',
            TypeError,
            "scaled_identity: scale is '1' (str)",
            "it must be a finite number",
        ),
        (
            "run(rnnx.orthogonal(4, skew_init=lambda k, s, d: jnp.ones((2, 2))))",
            ValueError,
            "orthogonal: skew_init returned an array of shape (2, 2)",
            "expected an array of shape (4, 4)",
        ),
    ],
    "interop": [
        (
            'import pytest; torch = pytest.importorskip("torch")\n'
            'rnnx.interop.from_torch(torch.nn.LSTM(3, 4).to("meta"))',
            ValueError,
            "the weights are on torch's meta device, which stores no values",
        ),
    ],
    "linen and nnx": [
        (
            "run(rnnx.scan(rnnx.linen.as_cell(nn.LSTMCell(0))))",
            ValueError,
            "linen.as_cell, LSTMCell: features is 0",
            "it must be a whole number, 1 or more",
        ),
    ],
    "online": [
        (
            RTRL + "o.update(q, o.init(q, XS[:, 0]), XS[:, 0].astype(int), jnp.zeros(2))",
            ValueError,
            "gru takes one array of floating features per step, xs [batch",
            "got int32[3] for one step",
        ),
        (
            RTRL + "o.update(q, o.init(q, XS[:, 0]), jnp.ones((2, 7)), jnp.zeros(2))",
            ValueError,
            "rtrl: the params of gru do not fit x (2, 7), one step of a b",
            "(7, 12)",
        ),
        (
            RTRL + "o.update(q, o.init(q, XS[:, 0]), XS[:, 0], None)",
            TypeError,
            "rtrl: target is None",
            "[batch, ...]",
        ),
    ],
    "own cells": [
        (
            "run(rnnx.scan(user(carry=lambda p, x, k: 0.0, step=lambda p, h, x: (h, x))))",
            TypeError,
            "<lambda>: initial_carry returned 0.0 (float) in its carry",
            "expected arrays",
        ),
        (
            "run(rnnx.scan(user(carry=lambda p, x, k: None, step=lambda p, h, x: (h, x))))",
            TypeError,
            "<lambda>: initial_carry returned None",
            "a carry",
        ),
        (
            'run(rnnx.scan(user(init=lambda k, x: {"w": jnp.zeros(2, int)}, step=lambda p, h, x: (h, h + p["w"]))))',
            TypeError,
            "<lambda>: init returned int32[2] as ['w']",
            "params are floating arrays, all of them trained",
        ),
        (
            'run(rnnx.stack(rnnx.scan(user(name="a/b.c"))))',
            ValueError,
            "a cell's name is 'a/b.c'",
            "a name without '/' and '.'",
        ),
        (
            "user(name=3) and run(rnnx.scan(user(name=3)))",
            ValueError,
            "a cell's name is 3",
            "a name without '/' and '.'",
        ),
        (
            "rnnx.factory(rnnx.lstm(3))",
            TypeError,
            "factory decorates a function that makes a Cell or a Layer",
            "but got lstm(width=3) (Layer)",
        ),
    ],
    "sizes too large (child)": [
        ("run(rnnx.rhn(4, depth=10**6))", ValueError, "rhn: depth is 1000000", "it must be 1000 or less"),
        (
            "run(rnnx.conv_lstm(3, kernel_size=10**5), jnp.ones((1, 2, 4, 4, 1)))",
            ValueError,
            "conv_lstm(width=3, kernel_size=100000): its params",
            "GiB",
        ),
        (
            "rnnx.window(10**9) and run(rnnx.window(10**9))",
            ValueError,
            "window: size is 1000000000",
            "it must be 100000 or less",
        ),
        (
            GENERATE + "steps=10**12, sample=rnnx.sampler(), key=K)",
            ValueError,
            "generate: steps is 1000000000000",
            "it must be 2147483647 or less",
        ),
        ("run(rnnx.s5(4, state=20000))", ValueError, "s5: state / blocks is 20000", "it must be 4096 or less"),
    ],
    "static, nesting, jit": [
        (
            f"jax.jit(lambda l, p, x: rnnx.unroll(l, p, x)[1], static_argnums=0)({ALIF}, {ALIF}.init(K, XS), XS)",
            MEANT,
        ),
    ],
    "widths": [
        ("run(rnnx.lstm(True))", TypeError, "lstm: width is True (bool)", "it must be a whole number, 1 or more"),
        (
            "rnnx.lstm(4, projection=2.5)",
            TypeError,
            "lstm: projection is 2.5 (float)",
            "it must be a whole number, 1 or more",
        ),
        ('rnnx.gru(4, reset_after="yes")', TypeError, "gru: reset_after is 'yes' (str)", "it must be True or False"),
        (
            "run(rnnx.lstm(4, peephole=None))",
            TypeError,
            "lstm: peephole is None (NoneType)",
            "it must be True or False",
        ),
        (
            "run(rnnx.lstm(4, param_dtype=None))",
            TypeError,
            "lstm: param_dtype is None (NoneType)",
            "it must be a floating dtype, such as jnp.float32",
        ),
        ('run(rnnx.lstm(4, peephole="no"))', TypeError, "lstm: peephole is 'no' (str)", "it must be True or False"),
        ("run(rnnx.lstm(4, coupled=0.5))", TypeError, "lstm: coupled is 0.5 (float)", "it must be True or False"),
        (
            'run(rnnx.lstm(4, param_dtype="float33"))',
            TypeError,
            "lstm: param_dtype is 'float33' (str)",
            "it must be a floating dtype, such as jnp.float32",
        ),
        (
            "run(rnnx.lstm(4, forget_bias=None))",
            TypeError,
            "lstm: forget_bias is None (NoneType)",
            "it must be a finite number",
        ),
        ("run(rnnx.lstm(jnp.array(4)))", TypeError, "lstm: width is int32[]", "it must be a whole number, 1 or more"),
        (
            'run(rnnx.lstm(4, forget_bias="one"))',
            TypeError,
            "lstm: forget_bias is 'one' (str)",
            "it must be a finite number",
        ),
    ],
}
