"""Seq2seq with attention: dates as people write them, "Tue 3 March 1998", into "1998-03-03".

python examples/seq2seq.py --out attention.png

A bidirectional encoder reads the characters; the decoder attends to all of them at each step (M.-T. Luong, H. Pham and
C. Manning, EMNLP 2015): scores y_t W e_s, a softmax over s, then the weighted mean of e_s concatenated with y_t. The
plot shows where the decoder looks.
"""

import argparse
import datetime
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import rnnx

FORMATS = ("%d %B %Y", "%a %d %b %Y", "%B %d, %Y", "%A, %d.%m.%Y", "%d/%m/%y")
CHARACTERS = " ,./-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
START, LENGTH, WIDTH = len(CHARACTERS), 10, 64


def draw(rng: np.random.Generator, batch: int):
    """Dates of a century as texts, and as numbers: source [batch, 32] and lengths [batch], target [batch, 10]."""
    dates = [datetime.date(1970, 1, 1) + datetime.timedelta(days=int(d)) for d in rng.integers(0, 36_524, batch)]
    texts = [f"{date:{FORMATS[rng.integers(len(FORMATS))]}}" for date in dates]
    targets = [date.isoformat() for date in dates]
    source, target = ([np.array([*map(CHARACTERS.index, text)]) for text in side] for side in (texts, targets))
    return (texts, targets), (*rnnx.pad(source, length=32), np.stack(target))


class Seq2Seq(nn.Module):
    def setup(self):
        self.embed_source, self.embed_target = nn.Embed(START, 32), nn.Embed(START + 1, 32)
        self.encoder = rnnx.linen.RNN(rnnx.bidirectional(rnnx.gru(WIDTH)))
        self.decoder = rnnx.linen.RNN(rnnx.gru(WIDTH))
        self.bridge = nn.Dense(WIDTH)
        self.attention = nn.Dense(2 * WIDTH, use_bias=False)
        self.combine, self.readout = nn.Dense(WIDTH), nn.Dense(START)

    def encode(self, source, lengths):
        """The encoder's outputs [batch, source, 2 width], and the carry that the decoder begins with."""
        carry, outputs = self.encoder(self.embed_source(source), lengths=lengths)
        return outputs, nn.tanh(self.bridge(jnp.concatenate([carry.forward, carry.backward], axis=-1)))

    def decode(self, memory, lengths, carry, tokens):
        """Any number of steps: all of a target in training, one after the other to translate."""
        carry, ys = self.decoder(self.embed_target(tokens), carry=carry)
        scores = jnp.einsum("bth,bsh->bts", self.attention(ys), memory)
        valid = jnp.arange(memory.shape[1])[None, None] < lengths[:, None, None]
        weights = nn.softmax(jnp.where(valid, scores, -jnp.inf))
        seen = jnp.concatenate([ys, jnp.einsum("bts,bsh->bth", weights, memory)], axis=-1)
        return carry, self.readout(nn.tanh(self.combine(seen))), weights

    def __call__(self, source, lengths, target):
        memory, carry = self.encode(source, lengths)
        shifted = jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=START)
        return self.decode(memory, lengths, carry, shifted)[1]


model, optimizer = Seq2Seq(), optax.adam(3e-3)


@jax.jit
def train_step(params, state, source, lengths, target):
    def loss(params):
        logits = model.apply(params, source, lengths, target)
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


@jax.jit
def translate(params, source, lengths):
    """The likeliest character at each step: tokens [batch, 10] and attention [batch, 10, source]."""
    memory, carry = model.apply(params, source, lengths, method="encode")

    def step(loop, _):
        carry, logits, weights = model.apply(params, memory, lengths, *loop, method="decode")
        return (carry, logits.argmax(-1)), (logits[:, 0].argmax(-1), weights[:, 0])

    _, (tokens, weights) = jax.lax.scan(step, (carry, jnp.full((len(source), 1), START)), length=LENGTH)
    return tokens.T, jnp.swapaxes(weights, 0, 1)


def main(steps: int, batch: int, out: Path) -> float:
    rng = np.random.default_rng(0)
    params = model.init(jax.random.key(0), *draw(rng, 1)[1])
    state = optimizer.init(params)
    for step in range(1, steps + 1):
        params, state, loss = train_step(params, state, *draw(rng, batch)[1])
        if step % 50 == 0 or step == steps:
            print(f"step {step}/{steps}: loss {loss:.3f}")
    (texts, targets), (source, lengths, _) = draw(np.random.default_rng(1), 256)
    tokens, weights = translate(params, source, lengths)
    written = ["".join(CHARACTERS[t] for t in row) for row in np.asarray(tokens)]
    accuracy = float(np.mean([a == b for a, b in zip(written, targets)]))
    print(*map(" -> ".join, zip(texts[:6], written)), f"{accuracy:.1%} of new dates right", sep="\n")
    axes = (figure := Figure(figsize=(8, 4), layout="constrained")).subplots()
    axes.imshow(weights[0, :, : lengths[0]], cmap="viridis")
    axes.set_xticks(range(lengths[0]), texts[0])
    axes.set_yticks(range(LENGTH), written[0])
    figure.savefig(out, dpi=120)
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("attention.png"))
    main(**vars(parser.parse_args()))
