"""The model."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

import rnnx
from experiments.char_lm.config import CharLM


def make_model(config: CharLM, vocab_size: int) -> rnnx.Layer:
    return rnnx.sharded(rnnx.stack(*make_layers(config, vocab_size)), training_mesh(config))


def make_layers(config: CharLM, vocab_size: int) -> list[rnnx.Layer | nn.Module]:
    """An embedding, recurrent layers and a dense layer; dropout follows each but the last."""
    model = config.model
    make: Callable[[int], rnnx.Layer] = getattr(rnnx, model.cell)
    recurrent = [(make(model.width), rnnx.dropout(model.dropout)) for _ in range(model.layers)]
    return [
        nn.Embed(vocab_size, model.embed),
        rnnx.dropout(model.embed_dropout),
        *(layer for pair in recurrent for layer in pair),
        nn.Dense(vocab_size),
    ]


def training_mesh(config: CharLM) -> Mesh:
    """As many devices as possible that share the rows of a batch, and of a validation, evenly.

    By default a CPU is one device.
    """
    found, rows = jax.devices(), math.gcd(config.train.batch, config.run.eval_rows)
    count = max(count for count in range(1, len(found) + 1) if rows % count == 0)
    return Mesh(np.array(found[:count]), ("data",))
