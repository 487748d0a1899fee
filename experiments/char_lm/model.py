"""The model."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

import rnnx
from experiments.char_lm.config import CharLM


def make_model(config: CharLM, vocab_size: int) -> rnnx.Layer:
    return rnnx.sharded(rnnx.stack(*make_layers(config, vocab_size)), training_mesh(config.train.batch))


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


def training_mesh(batch: int) -> Mesh:
    """As many devices as possible that share the rows of a batch evenly; by default a CPU is one device."""
    found = jax.devices()
    count = max(count for count in range(1, len(found) + 1) if batch % count == 0)
    return Mesh(np.array(found[:count]), ("data",))
