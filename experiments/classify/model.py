"""The nets: an encoder that reads a sequence, and a head that predicts its class."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import rnnx
from experiments.classify.config import Model


class Net(NamedTuple):
    """An encoder that reads a sequence, and a head that predicts its class."""

    encoder: rnnx.Layer
    head: rnnx.Layer


def make_net(model: Model, characters: int, classes: int) -> Net:
    cells: dict[str, Callable[[int], rnnx.Layer]] = {"gru": rnnx.gru, "lstm": rnnx.lstm}
    layers: list[Any] = [nn.Embed(characters, model.embed)] if characters else []
    for number in range(model.layers):
        layers += [rnnx.dropout(model.dropout)] if number else []
        layers += [rnnx.bidirectional(cells[model.cell](model.width))]
    return Net(rnnx.stack(*layers), rnnx.stack(rnnx.dropout(model.dropout), nn.Dense(classes)))


def init(net: Net, nets: int, xs: Any, lengths: Any, key: jax.Array) -> dict[str, Any]:
    """The params of all nets: every leaf has the leading axis `[nets]`."""

    def one(key: jax.Array) -> dict[str, Any]:
        encoder_key, head_key = jax.random.split(key)
        params = net.encoder.init(encoder_key, xs)
        _, ys = jax.eval_shape(functools.partial(rnnx.unroll, net.encoder), params, xs)
        summary = jax.eval_shape(summarise, ys, lengths)
        return {"encoder": params, "head": net.head.init(head_key, jnp.zeros((1, 1, summary.shape[-1])))}

    return jax.vmap(one)(jax.random.split(key, nets))


def summarise(ys: jax.Array, lengths: jax.Array) -> jax.Array:
    """Outputs `[batch, time, 2 n]` of both directions as one vector for each sequence, `[batch, 6 n]`.

    It holds the mean and the maximum over the steps, and the last output of each direction.
    """
    valid = (jnp.arange(ys.shape[1])[None] < lengths[:, None])[..., None]
    mean = jnp.where(valid, ys, 0).sum(axis=1) / lengths[:, None]
    most = jnp.where(valid, ys, -jnp.inf).max(axis=1)
    width = ys.shape[2] // 2
    forward, backward = ys[jnp.arange(len(ys)), lengths - 1, :width], ys[:, 0, width:]
    return jnp.concatenate([mean, most, forward, backward], axis=-1)


def read_out(net: Net, params: Any, ys: jax.Array, lengths: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Logits `[batch, classes]`."""
    _, logits = rnnx.unroll(net.head, params["head"], summarise(ys, lengths)[:, None], key=key)
    return logits[:, 0]


def classify(net: Net, params: Any, xs: jax.Array, lengths: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Logits of padded sequences; the key is for dropout."""
    encoder_key, head_key = (None, None) if key is None else jax.random.split(key)
    _, ys = rnnx.unroll(net.encoder, params["encoder"], xs, lengths=lengths, key=encoder_key)
    return read_out(net, params, ys, lengths, head_key)


def classify_packed(net: Net, params: Any, packed: rnnx.Packed) -> jax.Array:
    """The same for sequences packed into rows, in the order in which the sequences were given."""
    _, ys = rnnx.unroll_packed(net.encoder, params["encoder"], packed)
    return read_out(net, params, *rnnx.unpack_padded(packed, ys))
