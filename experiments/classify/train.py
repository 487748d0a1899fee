"""A run from its config to its results."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments import training
from experiments.classify.config import Classify, Train
from experiments.classify.data import UNKNOWN, Batch, load, make_encode, padded
from experiments.classify.evaluate import Predict, make_evaluate, report, show
from experiments.classify.model import Net, classify, init, make_net
from experiments.config import load as load_config
from experiments.loop import Plan, fit
from experiments.runs import open_run_dir, show_finished

COLUMNS = {"loss": lambda m: f"{m['loss']:.3f}", "accuracy": lambda m: f"{m['accuracy']:.1%}"}


def augment(train: Train, key: jax.Array, xs: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Augments a batch at random: series get other speeds, other levels and noise, texts get unknown characters."""
    if jnp.issubdtype(xs.dtype, jnp.integer):
        return jnp.where(jax.random.bernoulli(key, train.unknown, xs.shape), UNKNOWN, xs), lengths
    speed_key, noise_key, offset_key = jax.random.split(key, 3)
    batch, time, channels = xs.shape
    speed = jnp.exp(jax.random.uniform(speed_key, (batch,), minval=-train.warp, maxval=train.warp))
    warped = jnp.clip(jnp.round(lengths / speed).astype(jnp.int32), 1, time)
    # The first and the last step keep their values; between steps, values are interpolated linearly.
    stride = (lengths - 1) / jnp.maximum(warped - 1, 1)
    place = jnp.minimum(jnp.arange(time)[None] * stride[:, None], lengths[:, None] - 1)
    before = place.astype(jnp.int32)
    after = jnp.minimum(before + 1, lengths[:, None] - 1)
    share = (place - before)[..., None]
    row = jnp.arange(batch)[:, None]
    xs = (1 - share) * xs[row, before] + share * xs[row, after]
    noise = train.noise * jax.random.normal(noise_key, xs.shape)
    return xs + noise + train.offset * jax.random.normal(offset_key, (batch, 1, channels)), warped


def make_loss(config: Classify, net: Net, classes: int) -> training.Loss:
    """The mean loss of the nets; each has its own key."""

    def one(params: Any, key: jax.Array, data: Batch) -> tuple[jax.Array, jax.Array]:
        batch_key, augment_key, dropout_key = jax.random.split(key, 3)
        count = len(data.labels)
        drawn = jax.random.choice(batch_key, count, (min(config.train.batch, count),), replace=False)
        batch = jax.tree.map(lambda array: array[drawn], data)
        xs, lengths = augment(config.train, augment_key, batch.xs, batch.lengths)
        logits = classify(net, params, xs, lengths, dropout_key)
        targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, classes), config.train.label_smoothing)
        right = logits.argmax(axis=-1) == batch.labels
        return optax.softmax_cross_entropy(logits, targets).mean(), right.mean()

    def loss(params: Any, key: jax.Array, data: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = jax.random.split(key, config.model.nets)
        losses, accuracies = jax.vmap(one, in_axes=(0, 0, None))(params, keys, data)
        return losses.mean(), {"accuracy": accuracies.mean()}

    return loss


def make_optimizer(config: Classify) -> optax.GradientTransformation:
    """One optimiser for each net: clipping looks at its gradient alone, weight decay at the rank of its own params."""
    # The loss is the mean of the nets' losses, so each net's gradient is scaled back.
    own = optax.chain(optax.scale(config.model.nets), training.make_optimizer(config.train))
    return optax.GradientTransformation(jax.vmap(own.init), jax.vmap(own.update))


def main(args: Sequence[str]) -> None:
    config = load_config(Classify, args)
    data = load(config.data, config.run.seed)
    encode, characters = make_encode(config.data, data.train, data.classes)
    parts = {part: encode(getattr(data, part)) for part in ("train", "validation", "test")}
    batch = padded(parts["train"])
    run_dir = open_run_dir(config, data_sha256=data.sha256)
    if show_finished(run_dir, show):
        return

    net = make_net(config.model, characters, len(data.classes))
    optimizer = make_optimizer(config)
    print(rnnx.summary(net.encoder, batch.xs[:1]))
    print(
        f"{config.data.data}: {len(data.classes)} classes; "
        + ", ".join(f"{len(examples.sequences)} {part}" for part, examples in parts.items() if examples.sequences)
        + f"; lengths {batch.lengths.min()} to {batch.lengths.max()}. Run folder: {run_dir}",
        flush=True,
    )
    predict = Predict(net)
    monitor, evaluate = make_evaluate(predict, parts["validation"])
    init_params = functools.partial(init, net, config.model.nets, batch.xs, batch.lengths)
    fitted = fit(
        run_dir,
        functools.partial(training.initial_state, config.run.seed, init_params, optimizer),
        training.make_train_step(make_loss(config, net, len(data.classes)), optimizer),
        jax.tree.map(jnp.asarray, batch),
        evaluate,
        Plan.of(
            config,
            monitor=monitor,
            higher_is_better=monitor == "updates",
            items="sequences",
            items_per_step=min(config.train.batch, len(batch.labels)),
        ),
        COLUMNS,
    )
    report(config, run_dir, data, parts, predict, fitted)
    show(run_dir)
