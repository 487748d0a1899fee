"""Encoder, decoder and attention between them.

The decoder attends to the encoder's output at each step (M.-T. Luong, H. Pham and C. Manning, *Effective
approaches to attention-based neural machine translation*, EMNLP 2015, the form "general"):

    a_ts = softmax_s(y_t W e_s),    c_t = sum_s a_ts e_s,    logits_t = V tanh(U [y_t; c_t])

Attention does not feed back into the decoder's state, so in training all steps attend in parallel.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.translate import config
from experiments.translate.data import Translations


class Memory(NamedTuple):
    """The encoder's outputs `[batch, source, 2 width]`, whether each belongs to a symbol, and their mean."""

    outputs: jax.Array
    valid: jax.Array
    mean: jax.Array


class Attend(nn.Module):
    """`(decoder's outputs [batch, time, width], memory) -> (logits [batch, time, symbols], weights [batch, time,
    source])`."""

    symbols: int
    dropout: float

    @nn.compact
    def __call__(self, ys: jax.Array, memory: Memory, *, noisy: bool) -> tuple[jax.Array, jax.Array]:
        keys = nn.Dense(ys.shape[-1], use_bias=False, name="attention")(memory.outputs)
        scores = jnp.einsum("bth,bsh->bts", ys, keys)
        weights = jax.nn.softmax(jnp.where(memory.valid[:, None], scores, -jnp.inf))
        context = jnp.einsum("bts,bsh->bth", weights, memory.outputs)
        seen = jnp.tanh(nn.Dense(ys.shape[-1], name="combine")(jnp.concatenate([ys, context], axis=-1)))
        seen = nn.Dropout(self.dropout, deterministic=not noisy)(seen)
        return nn.Dense(self.symbols, name="readout")(seen), weights


class Seq2Seq(NamedTuple):
    """`init(key) -> params`; `encode(params, source, lengths, key) -> memory`; `decode(params, memory, carry, read,
    key) -> (carry, logits, weights)`, of symbols `read` `[batch, time]`, where the carry is None at the beginning."""

    init: Callable[[jax.Array], Any]
    encode: Callable[..., Memory]
    decode: Callable[..., tuple[Any, jax.Array, jax.Array]]


def make_model(model: config.Model, data: Translations) -> Seq2Seq:
    cells: dict[str, Callable[[int], rnnx.Layer]] = {"gru": rnnx.gru, "lstm": rnnx.lstm}
    make, width = cells[model.cell], model.width
    count = 1 + len(data.targets)

    def deep(layer: Callable[[], rnnx.Layer]) -> rnnx.Layer:
        return rnnx.stack(*(part for _ in range(model.layers) for part in (rnnx.dropout(model.dropout), layer())))

    encoder = rnnx.stack(nn.Embed(1 + len(data.sources), model.embed), deep(lambda: rnnx.bidirectional(make(width))))
    embed, decoder, attend = nn.Embed(count, model.embed), deep(lambda: make(width)), Attend(count, model.dropout)

    def encode(params: Any, source: jax.Array, lengths: jax.Array, key: jax.Array | None = None) -> Memory:
        _, outputs = rnnx.unroll(encoder, params["encoder"], source, lengths=lengths, key=key)
        valid = jnp.arange(source.shape[1])[None] < lengths[:, None]
        return Memory(outputs, valid, outputs.sum(axis=1) / lengths[:, None])  # outputs beyond a source are zero

    def decode(
        params: Any, memory: Memory, carry: Any, read: jax.Array, key: jax.Array | None = None
    ) -> tuple[Any, jax.Array, jax.Array]:
        """With each symbol, the decoder also reads the mean of the memory."""
        k_decoder, k_attend = (None, None) if key is None else jax.random.split(key)
        mean = jnp.broadcast_to(memory.mean[:, None], (*read.shape, 2 * width))
        embedded: Any = embed.apply(params["embed"], read)
        xs = jnp.concatenate([embedded, mean], axis=-1)
        carry, ys = rnnx.unroll(decoder, params["decoder"], xs, carry=carry, key=k_decoder)
        noise = {} if k_attend is None else {"dropout": k_attend}
        attended: Any = attend.apply(params["attend"], ys, memory, noisy=key is not None, rngs=noise)
        return carry, *attended

    def init(key: jax.Array) -> Any:
        k_encoder, k_embed, k_decoder, k_attend = jax.random.split(key, 4)
        tokens = jnp.zeros((1, 2), jnp.int32)
        memory = Memory(jnp.zeros((1, 2, 2 * width)), jnp.ones((1, 2), bool), jnp.zeros((1, 2 * width)))
        return {
            "encoder": encoder.init(k_encoder, tokens),
            "embed": embed.init(k_embed, tokens),
            "decoder": decoder.init(k_decoder, jnp.zeros((1, 2, model.embed + 2 * width))),
            "attend": attend.init(k_attend, jnp.zeros((1, 2, width)), memory, noisy=False),
        }

    return Seq2Seq(init, encode, decode)
