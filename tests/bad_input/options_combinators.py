"""Layers made of things that are none, merges that do not fit, counts and rates of combinators."""

from bad_input import MEANT

SHAPES = "(2, 5, 4), (2, 5, 7)"

CALLS = {
    "combinators": [
        ('run(rnnx.dropout(0.5), {"a": XS, "b": TOK}, key=K)', MEANT),
        ("run(rnnx.multi_head(rnnx.gru(1), True))", TypeError, "multi_head: n is True", "whole number"),
        ("run(rnnx.multi_head(rnnx.gru(1), 3.0))", TypeError, "multi_head: n is 3.0", "whole number"),
        ("run(rnnx.multi_head(rnnx.gru(1), jnp.array(3)))", TypeError, "multi_head: n is int32[]", "int(...)"),
        ("run(rnnx.repeat(rnnx.lstm(3), 2.0))", TypeError, "repeat: n is 2.0", "whole number"),
        ("run(rnnx.repeat(rnnx.lstm(3), np.int64(2)))", MEANT),
        ("rnnx.repeat(L, -1)", ValueError, "repeat: n is -1", "1 or more"),
        ("rnnx.dropout(jnp.array([0.1, 0.2]))", TypeError, "dropout: rate is float32[2]", "a number in [0, 1)"),
        ("rnnx.dropout(jnp.array(0.1))", TypeError, "dropout: rate is float32[]", "float(...)"),
        ('rnnx.dropout(float("nan"))', ValueError, "dropout: rate is nan", "[0, 1)"),
        ('rnnx.locked_dropout("0.5")', TypeError, "locked_dropout: rate is '0.5'", "[0, 1)"),
        ("rnnx.weight_drop(CELL, 1.5)", ValueError, "weight_drop: rate is 1.5", "[0, 1)"),
        ("rnnx.recurrent_dropout(CELL, None)", TypeError, "recurrent_dropout: rate is None", "[0, 1)"),
    ],
    "what is no layer": [
        ("rnnx.stack(rnnx.lstm)", TypeError, "got lstm", "rnnx.lstm(...)"),
        ("rnnx.stack(rnnx.cells.lstm)", TypeError, "got lstm", "rnnx.lstm(...)"),
        ("rnnx.stack(nn.Dense)", TypeError, "got Dense", "nn.Dense(...)"),
        ("rnnx.bidirectional(jax.nn.relu)", TypeError, "got relu", "rnnx.pointwise(function)"),
        ("rnnx.stack(nn.LSTMCell(4))", TypeError, "got a linen module LSTMCell", "rnnx.linen.as_cell(cell)"),
        ("rnnx.stack(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))", TypeError, "got a nnx module Linear", "flax.linen"),
        ("rnnx.stack([L, G])", TypeError, "stack(*layers)"),
        ("rnnx.residual(5)", TypeError, "expected a Layer or a flax.linen module", "got 5"),
        ("rnnx.pointwise(rnnx.lstm)", TypeError, "pointwise takes", "lstm(...)"),
        ("rnnx.pointwise(nn.Dense)", TypeError, "pointwise takes", "Dense(...)"),
        ("run(rnnx.pointwise(lambda x: None))", TypeError, "pointwise: <lambda> returned None", "arrays"),
        ("run(rnnx.pointwise(lambda x: 'a'))", TypeError, "pointwise: <lambda> returned 'a'", "arrays"),
        ("run(rnnx.pointwise(lambda x, y: x))", ValueError, "pointwise: <lambda>", "(3,)", "'y'"),
        ("run(rnnx.stack(nn.Dropout(0.5)))", ValueError, "pointwise: Dropout", "rnnx.dropout(rate)"),
        ("run(rnnx.stack(nn.BatchNorm()))", ValueError, "pointwise: BatchNorm", "nn.LayerNorm()"),
        ("run(rnnx.stack(nn.SelfAttention(3)))", ValueError, "pointwise: SelfAttention", "(3,)", "rnnx.gla(width)"),
        ("run(rnnx.stack(nn.Conv(4, (3,))))", ValueError, "pointwise: Conv", "(3,)", "rnnx.causal_conv(width)"),
        ("run(rnnx.stack(nn.Conv(4, (3,))), XS[..., None])", MEANT),
        ("run(rnnx.stack(nn.Embed(5, 4), L))", TypeError, "nn.Embed takes integers", "float32[2, 5, 3]"),
        ("rnnx.sharded(L, 2)", TypeError, "sharded: mesh", "jax.make_mesh"),
        ("rnnx.sharded(L, [])", TypeError, "sharded: mesh", "jax.make_mesh"),
        ('rnnx.sharded(L, ["cpu"])', TypeError, "sharded: mesh", "jax.make_mesh"),
    ],
    "merges": [
        ('rnnx.bidirectional(L, merge="sum")', TypeError, "bidirectional: merge is 'sum'", "jnp.add"),
        ("rnnx.parallel(L, G, merge=None)", TypeError, "parallel: merge is None", "jnp.add"),
        ('rnnx.skip_stack(L, G, merge="add")', TypeError, "skip_stack: merge is 'add'", "jnp.add"),
        ("run(rnnx.bidirectional(L, rnnx.gru(7), merge=jnp.add))", ValueError, "bidirectional: merge fails", SHAPES),
        ("run(rnnx.parallel(L, rnnx.gru(7), merge=jnp.add))", ValueError, "parallel: merge fails", SHAPES),
        (
            "run(rnnx.parallel(rnnx.stack(L, nn.Dense(2)), nn.Dense(3), merge=lambda a, b: a + b))",
            *(ValueError, "parallel: merge fails", "(2, 5, 2), (2, 5, 3)"),
        ),
        ("run(rnnx.parallel(L, G, merge=lambda a: a))", ValueError, "parallel: merge fails", "2 were given"),
        ("run(rnnx.parallel(L, G, merge=lambda a, b: None))", ValueError, "merge returned None", "[batch, time, ...]"),
        ("run(rnnx.parallel(L, G, merge=lambda a, b: a.sum()))", ValueError, "merge returned ()", "[batch, time, ...]"),
        (
            "run(rnnx.skip_stack(nn.Embed(7, 4), L), TOK)",
            ValueError,
            "skip_stack",
            "merge(xs, ys)",
            "(2, 5), (2, 5, 4)",
        ),
    ],
}
