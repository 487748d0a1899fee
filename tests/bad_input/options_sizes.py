"""Sizes that cannot be meant; types and ranges of other options are in `tests/test_factory_arguments.py`."""

from bad_input import MEANT

GENERATE = "rnnx.generate(LM, LMP, LM.initial_carry(LMP, TOK, None), TOK[:, 0], sample=rnnx.sampler(), key=K, steps="
WIDE = "[np.broadcast_to(np.float32(1), (1, 10**6))]"
TIMED = '{"x": XS, "dt": XS[..., 0]}'

CALLS = {
    "sizes too large": [
        ("run(rnnx.lstm(10**9))", ValueError, "lstm(width=1000000000): its params, mostly", "GiB", "smaller"),
        ("run(rnnx.lstm(10**30))", ValueError, "lstm: width is", "2147483647 or less", "GiB"),
        ("run(rnnx.gru(2**31 - 1))", ValueError, "gru(width=2147483647): its params, mostly", "GiB"),
        ("run(rnnx.orthogonal(10**6))", ValueError, "orthogonal(width=1000000): its params, mostly", "GiB"),
        ("run(rnnx.mlstm(10**6))", ValueError, "mlstm(width=1000000): its carry, mostly", "GiB"),
        ("rnnx.rhn(4, depth=10**6)", ValueError, "rhn: depth is 1000000", "1000 or less"),
        ("rnnx.ltc(4, unfolds=10**6)", ValueError, "ltc: unfolds is 1000000", "1000 or less"),
        ("rnnx.cfc(4, backbone_layers=10**6)", ValueError, "cfc: backbone_layers is 1000000", "1000 or less"),
        ("rnnx.s5(4, state=20000)", ValueError, "s5: state / blocks is 20000", "more blocks"),
        ("rnnx.lmu(10**6)", ValueError, "lmu: order is 1000000", "4096 or less"),
        ("rnnx.reservoir(10**6)", ValueError, "reservoir: width is 1000000", "10000 or less"),
        ("rnnx.window(10**9)", ValueError, "window: size is 1000000000", "100000 or less"),
        (
            "run(rnnx.causal_conv(999, size=2 * 10**9), jnp.ones((1, 2, 999)))",
            ValueError,
            "causal_conv(",
            "would take",
            "GiB",
        ),
        (
            "run(rnnx.conv_lstm(3, kernel_size=10**6), jnp.ones((1, 2, 4, 4, 1)))",
            *(ValueError, "conv_lstm(width=3, kernel_size=1000000): its params, mostly", "GiB"),
        ),
        (
            "run(rnnx.stack(nn.Dense(10**13)))",
            ValueError,
            "stack: its params, mostly ['0_Dense']['kernel'] float32[3, 10000000000000]",
            "GiB",
        ),
        ("run(rnnx.repeat(rnnx.lstm(3), 10**10))", ValueError, "repeat: n is 10000000000", "2147483647 or less"),
        (
            "run(rnnx.repeat(rnnx.lstm(99), 2 * 10**9), jnp.ones((1, 2, 99)))",
            ValueError,
            "repeat of lstm, n=2000000000: its params, mostly",
            "GiB",
        ),
        (
            "run(rnnx.multi_head(rnnx.lstm(999), 2 * 10**9))",
            ValueError,
            "multi_head of lstm, n=2000000000: its params, mostly",
            "GiB",
        ),
        ("run(rnnx.newton_scan(CELL, max_iterations=10**30))", ValueError, "newton_scan: max_iterations", "or less"),
        ("rnnx.pack(RAG, length=10**13)", ValueError, "pack: length is 10000000000000", "2147483647 or less"),
        (f"rnnx.pack({WIDE}, length=2 * 10**9)", ValueError, "pack: 1 rows of 2000000000 steps", "GiB"),
        (f"rnnx.pack({WIDE}, rows=2 * 10**9)", ValueError, "pack: 2000000000 rows of 1 steps", "GiB"),
        (f"rnnx.pad({WIDE}, length=2 * 10**9)", ValueError, "pad: 1 rows of 2000000000 steps", "GiB"),
        (f"{GENERATE}10**12)", ValueError, "generate: steps is 1000000000000", "2147483647 or less"),
        ("rnnx.bucket(np.arange(1, 3000), 2, edges=10**6)", MEANT),
    ],
    "init": [
        ("L.init(K)", TypeError, "layer.init(jax.random.key(0), xs)"),
        ("LM.init(TOK)", TypeError, "layer.init(jax.random.key(0), xs)"),
        ("rnnx.bidirectional(L).init(XS)", TypeError, "layer.init(jax.random.key(0), xs)"),
    ],
    "within reach": [
        ("rnnx.rhn(4, depth=1000), rnnx.s5(4, state=20000, blocks=5), rnnx.lmu(4, order=4096)", MEANT),
        ("jax.eval_shape(rnnx.lstm(10**9).init, K, XS)", MEANT),
        (f"jax.eval_shape(rnnx.cfc(4, backbone_layers=0).init, K, {TIMED})", MEANT),
    ],
}
