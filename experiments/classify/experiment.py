"""The experiment: config, data, model, loss, training, report."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments import config as configs
from experiments import results, training
from experiments.classify import data as datasets
from experiments.classify import metrics
from experiments.classify.data import Data, Encoded
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit
from experiments.published import PUBLISHED

COMMAND = "python -m experiments.classify"
CONFIGS = Path("configs/classify")
COLUMNS = {"loss": lambda m: f"{m['loss']:.3f}", "accuracy": lambda m: f"{m['accuracy']:.1%}"}
MOST_BYTES = 4e9
"""Of the padded training set, which stays on the device."""
UNKNOWN = 0
"""The number of a character that training never saw."""


@dataclasses.dataclass(frozen=True)
class Classify:
    """Trains a classifier of sequences of different lengths; every setting below can be overridden."""

    data: str = "japanese_vowels"
    """japanese_vowels (nine speakers, from the package aeon), tzdata (names of places and their part of the world,
    from the package tzdata), or a path: a .ts file, or lines of label<TAB>text."""
    test_data: Path | None = None
    """The test file of a path; default: of X_TRAIN.ts the X_TEST.ts beside it, of texts a part split off."""
    fill: datasets.Fill = "refuse"
    """What stands in for missing values of a series: the channel's mean, or lines between its neighbours."""
    fold_case: bool = False
    """Whether texts are read without their capital letters."""
    validation_fraction: float = 0.0
    """Share of each class that is held out of training; the weights that are best there are kept. 0: all is trained
    on, and the last weights are kept. Of .ts files a share of the training file, else of all."""
    test_fraction: float = 0.25
    """Share of each class that is split off as test, of data without a test set."""
    smallest_class: int = 3
    """Labels with fewer examples are left out, of data without a test set."""

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell, in both directions."""
    layers: int = 1
    """Bidirectional layers on top of each other."""
    width: int = 64
    """Units of each direction."""
    embed: int = 32
    """Size of a character's embedding."""
    dropout: float = 0.3
    """Dropout before each recurrent layer but the first, and before the class is read out."""

    nets: int = 1
    """Nets that are trained side by side as one program, each with its own weights, batches and noise. Scores are means
    over them; those of the ensemble, which takes the mean of their probabilities, have names of their own."""

    batch: int = 32
    """Sequences per update, for each net."""
    steps: int = 600
    """Updates in all; the learning rate's schedule stretches over them."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup: int = 50
    """Steps of linear warm-up before the cosine decay to zero."""
    weight_decay: float = 0.01
    """Decoupled weight decay; on matrices only."""
    label_smoothing: float = 0.0
    """Probability that targets spread over all classes."""
    noise: float = 0.0
    """Of series: standard deviation of what is added to every value of a training series, in units of its channel's."""
    offset: float = 0.0
    """Of series: standard deviation of what is added to all values of a channel alike, so that levels are not relied
    on: they differ from one recording to the next."""
    warp: float = 0.0
    """Of series: a training series is played at a speed of up to exp(warp), or down to exp(-warp)."""
    unknown: float = 0.0
    """Of texts: chance that a character of a training text is replaced by the sign for unknown ones."""

    eval_every: int = 50
    """Steps between evaluations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    log_every: int = 10
    """Steps over which the training metrics are averaged for one line of the log."""
    seed: int = 0
    """Of the splits, the weights, the batches and the noise."""
    run_dir: Path | None = None
    """Folder of the run; default runs/classify/<config's name>-seed<seed>."""


class Batch(NamedTuple):
    """Padded sequences: `xs` `[batch, time, channels]` or `[batch, time]`, with `lengths` and `labels` `[batch]`."""

    xs: Any
    lengths: Any
    labels: Any


class Net(NamedTuple):
    """What reads a sequence, and what reads the class out of that."""

    encoder: rnnx.Layer
    head: rnnx.Layer


def load_data(config: Classify) -> Data:
    data = datasets.load(
        config.data,
        test=config.test_data,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        smallest_class=config.smallest_class,
        seed=config.seed,
    )
    if config.fill == "refuse":
        datasets.refuse_gaps(data)
    return data


def padded(examples: Encoded) -> Batch:
    steps = [len(sequence) for sequence in examples.sequences]
    longest = max(steps)
    size = len(steps) * longest * examples.sequences[0][:1].nbytes
    if size > MOST_BYTES:
        raise UserError(
            f"Sequence {steps.index(longest) + 1} of the training set has {longest:,} steps; to pad all "
            f"{len(steps):,} to that takes {size / 1e9:.1f} GB, but {MOST_BYTES / 1e9:.0f} GB are the most. "
            "Leave out or cut the longest."
        )
    xs, lengths = rnnx.pad(examples.sequences)
    return Batch(xs, lengths, examples.labels)


def make_net(config: Classify, characters: int, classes: int) -> Net:
    cells: dict[str, Callable[[int], rnnx.Layer]] = {"gru": rnnx.gru, "lstm": rnnx.lstm}
    layers: list[Any] = [nn.Embed(characters, config.embed)] if characters else []
    for number in range(config.layers):
        layers += [rnnx.dropout(config.dropout)] if number else []
        layers += [rnnx.bidirectional(cells[config.cell](config.width))]
    return Net(rnnx.stack(*layers), rnnx.stack(rnnx.dropout(config.dropout), nn.Dense(classes)))


def init(net: Net, nets: int, batch: Batch, key: jax.Array) -> dict[str, Any]:
    """The params of all nets: every leaf has the leading axis `[nets]`."""

    def one(key: jax.Array) -> dict[str, Any]:
        encoder_key, head_key = jax.random.split(key)
        params = net.encoder.init(encoder_key, batch.xs)
        _, ys = jax.eval_shape(functools.partial(rnnx.unroll, net.encoder), params, batch.xs)
        summary = jax.eval_shape(summarise, ys, batch.lengths)
        return {"encoder": params, "head": net.head.init(head_key, jnp.zeros((1, 1, summary.shape[-1])))}

    return jax.vmap(one)(jax.random.split(key, nets))


def summarise(ys: jax.Array, lengths: jax.Array) -> jax.Array:
    """Outputs `[batch, time, 2 n]` of both directions as one vector for each sequence `[batch, 6 n]`.

    It holds the mean and the maximum over the steps, and what each direction says at its end.
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
    """The same of sequences packed into rows, in the order in which they were given."""
    _, ys = rnnx.unroll_packed(net.encoder, params["encoder"], packed)
    return read_out(net, params, *rnnx.unpack_padded(packed, ys))


def augment(config: Classify, key: jax.Array, xs: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A batch as it might have been as well: series at other speeds and levels and with noise, texts with gaps."""
    if jnp.issubdtype(xs.dtype, jnp.integer):
        return jnp.where(jax.random.bernoulli(key, config.unknown, xs.shape), UNKNOWN, xs), lengths
    speed_key, noise_key, offset_key = jax.random.split(key, 3)
    batch, time, channels = xs.shape
    speed = jnp.exp(jax.random.uniform(speed_key, (batch,), minval=-config.warp, maxval=config.warp))
    warped = jnp.clip(jnp.round(lengths / speed).astype(jnp.int32), 1, time)
    # The first step stays the first, the last the last; between steps, lines are drawn.
    stride = (lengths - 1) / jnp.maximum(warped - 1, 1)
    place = jnp.minimum(jnp.arange(time)[None] * stride[:, None], lengths[:, None] - 1)
    before = place.astype(jnp.int32)
    after = jnp.minimum(before + 1, lengths[:, None] - 1)
    share = (place - before)[..., None]
    row = jnp.arange(batch)[:, None]
    xs = (1 - share) * xs[row, before] + share * xs[row, after]
    noise = config.noise * jax.random.normal(noise_key, xs.shape)
    return xs + noise + config.offset * jax.random.normal(offset_key, (batch, 1, channels)), warped


def make_loss(config: Classify, net: Net, classes: int) -> training.Loss:
    """The mean over the nets; their keys differ."""

    def one(params: Any, key: jax.Array, data: Batch) -> tuple[jax.Array, jax.Array]:
        batch_key, augment_key, dropout_key = jax.random.split(key, 3)
        count = len(data.labels)
        drawn = jax.random.choice(batch_key, count, (min(config.batch, count),), replace=False)
        batch = jax.tree.map(lambda array: array[drawn], data)
        xs, lengths = augment(config, augment_key, batch.xs, batch.lengths)
        logits = classify(net, params, xs, lengths, dropout_key)
        targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, classes), config.label_smoothing)
        right = logits.argmax(axis=-1) == batch.labels
        return optax.softmax_cross_entropy(logits, targets).mean(), right.mean()

    def loss(params: Any, key: jax.Array, data: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        keys = jax.random.split(key, config.nets)
        losses, accuracies = jax.vmap(one, in_axes=(0, 0, None))(params, keys, data)
        return losses.mean(), {"accuracy": accuracies.mean()}

    return loss


def make_optimizer(config: Classify) -> optax.GradientTransformation:
    """One for each net: clipping looks at its gradient alone, decay at the rank of its own params."""
    adamw = training.adamw(config.learning_rate, config.steps, warmup=config.warmup, weight_decay=config.weight_decay)
    own = optax.chain(optax.scale(config.nets), adamw)  # the loss is the mean of the nets' losses
    return optax.GradientTransformation(jax.vmap(own.init), jax.vmap(own.update))


class Predict:
    """The logits `[nets, n, classes]` of any sequences, read with pads or packed."""

    BATCH = 512

    def __init__(self, net: Net) -> None:
        self._padded = jax.jit(jax.vmap(functools.partial(classify, net), in_axes=(0, None, None)))
        self._packed = jax.jit(jax.vmap(functools.partial(classify_packed, net), in_axes=(0, None)))

    def padded(self, params: Any, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """In buckets of similar length, so that little is padding."""
        batches = rnnx.bucket([len(sequence) for sequence in sequences], self.BATCH, edges=2)
        logits = [self._padded(params, *rnnx.pad([sequences[i] for i in own], length=n)) for own, n in batches]
        order = np.concatenate([own for own, _ in batches])
        return np.concatenate(logits, axis=1)[:, np.argsort(order)]

    def packed(self, params: Any, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Several to a row, which has room for two of the longest."""
        length = 2 * max(len(sequence) for sequence in sequences)
        parts = [sequences[start : start + self.BATCH] for start in range(0, len(sequences), self.BATCH)]
        return np.concatenate([self._packed(params, rnnx.pack(part, length=length)) for part in parts], axis=1)


def make_evaluate(
    net: Net, predict: Predict, validation: Encoded
) -> tuple[str, Callable[[training.TrainState], dict[str, float]]]:
    """What decides which weights are kept, and the evaluation; without a validation set the last ones are kept."""
    if not validation.sequences:
        return "updates", lambda state: {"updates": float(state.step)}

    def evaluate(state: training.TrainState) -> dict[str, float]:
        probability = metrics.probabilities(predict.padded(state.params, validation.sequences)).mean(axis=0)
        return {
            "val_nll": metrics.negative_log_likelihood(probability, validation.labels),
            "val_accuracy": metrics.accuracy(probability, validation.labels),
        }

    return "val_nll", evaluate


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Classify(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    data = load_data(config)
    encode, characters = datasets.make_encode(data.train, data.classes, fill=config.fill, fold_case=config.fold_case)
    parts = {part: encode(getattr(data, part)) for part in ("train", "validation", "test")}
    batch = padded(parts["train"])
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, {**configs.settings(config), "data_sha256": data.sha256})
    if results.show_finished(run_dir, lambda: show(run_dir, name)):
        return

    net = make_net(config, characters, len(data.classes))
    optimizer = make_optimizer(config)
    print(rnnx.summary(net.encoder, batch.xs[:1]))
    print(
        f"{config.data}: {len(data.classes)} classes; "
        + ", ".join(f"{len(examples.sequences)} {part}" for part, examples in parts.items() if examples.sequences)
        + f"; lengths {batch.lengths.min()} to {batch.lengths.max()}. Run folder: {run_dir}",
        flush=True,
    )
    predict = Predict(net)
    monitor, evaluate = make_evaluate(net, predict, parts["validation"])
    fitted = fit(
        run_dir,
        functools.partial(
            training.initial_state, config.seed, functools.partial(init, net, config.nets, batch), optimizer
        ),
        training.make_train_step(make_loss(config, net, len(data.classes)), optimizer),
        jax.tree.map(jnp.asarray, batch),
        evaluate,
        Plan(
            steps=config.steps,
            eval_every=config.eval_every,
            log_every=config.log_every,
            monitor=monitor,
            higher_is_better=monitor == "updates",
            items="sequences",
            items_per_step=min(config.batch, len(batch.labels)),
        ),
        COLUMNS,
    )
    report(config, run_dir, data, parts, predict, fitted)
    show(run_dir, name)


def report(
    config: Classify,
    run_dir: Path,
    data: Data,
    parts: dict[str, Encoded],
    predict: Predict,
    fitted: Fitted[training.TrainState],
) -> None:
    """Scores the weights that were kept on the test, read both ways. Writes results.json last: it marks the end."""
    from experiments.classify import pictures  # not at the top: a second of start-up
    from experiments.classify.baselines import baselines

    params, test = fitted.best.params, parts["test"]
    padded_logits = predict.padded(params, test.sequences)
    packed_logits = predict.packed(params, test.sequences)
    each, packed = metrics.probabilities(padded_logits), metrics.probabilities(packed_logits)

    def mean(score: Callable[[np.ndarray, np.ndarray], float], probabilities: np.ndarray) -> float:
        return float(np.mean([score(own, test.labels) for own in probabilities]))

    scores = {
        "test_accuracy": mean(metrics.accuracy, each),
        "test_accuracy_packed": mean(metrics.accuracy, packed),
        "test_nll": mean(metrics.negative_log_likelihood, each),
        "test_calibration_error": mean(lambda *given: metrics.calibration(*given).error, each),
    }
    probability = each.mean(axis=0)  # what follows is of all nets together
    calibration = metrics.calibration(probability, test.labels)
    confusion = metrics.confusion(probability, test.labels)
    accuracy = metrics.accuracy(probability, test.labels)
    if config.nets > 1:
        scores["ensemble_test_accuracy"] = accuracy
        scores["ensemble_test_nll"] = metrics.negative_log_likelihood(probability, test.labels)
    lengths = np.array([len(sequence) for sequence in test.sequences])
    wrong = np.flatnonzero(probability.argmax(axis=1) != test.labels)
    rows = read_metrics(run_dir)
    pictures.overview(
        run_dir / "overview.png",
        rows,
        confusion=confusion,
        classes=data.classes,
        calibration=calibration,
        lengths=lengths,
        wrong=wrong,
        title=f"{run_dir.name}: {accuracy:.2%} of {len(lengths)} test sequences right"
        + (f", by {config.nets} nets together" if config.nets > 1 else ""),
    )
    results.finish(
        run_dir,
        {**scores, **baselines(data)},
        seed=config.seed,
        seconds=fitted.seconds,
        largest_difference_of_logits_padded_to_packed=float(np.abs(padded_logits - packed_logits).max()),
        validation=[row for row in rows if row["step"] == fitted.best_step and "val_nll" in row],
        best_step=fitted.best_step,
        steps=fitted.last_step,
        nets=config.nets,
        parameters_of_a_net=results.count(params) // config.nets,
        examples={part: len(examples.sequences) for part, examples in parts.items()},
        classes=data.classes,
        confusion=confusion.tolist(),
        calibration=dict(zip(calibration._fields, (np.asarray(field).tolist() for field in calibration))),
        errors=[
            {
                "number": int(i) + 1,
                **({"text": data.test.items[i]} if isinstance(data.test.items[i], str) else {}),
                "length": int(lengths[i]),
                "true": data.classes[test.labels[i]],
                "predicted": data.classes[probability[i].argmax()],
                "probability": float(probability[i].max()),
            }
            for i in wrong
        ],
        data_sha256=data.sha256,
    )


def show(run_dir: Path, name: str) -> None:
    run = configs.read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; pictures: {run_dir / 'overview.png'})")
    for score, value in run["scores"].items():
        figures = PUBLISHED.get(("classify", name, score), [])
        beside = "; ".join(f"{published.figure:g} {published.source}" for published in figures)
        print(f"{score.replace('_', ' '):<32}{value:>8.4f}" + (f"   published: {beside}" if beside else ""))
    together = f" by {run['nets']} nets together" if run["nets"] > 1 else ""
    print(
        f"{len(run['errors'])} of {run['examples']['test']} wrong{together}; pads and packing differ by "
        f"{run['largest_difference_of_logits_padded_to_packed']:.1e} at most in a logit"
    )


def check(config: Classify) -> None:
    """Refuses settings that cannot be meant."""
    configs.check(
        config,
        [
            ("layers width embed nets batch steps eval_every log_every", "1 or more", lambda x: x >= 1),
            ("learning_rate", "above 0", lambda x: x > 0),
            ("warmup weight_decay noise offset warp", "0 or more", lambda x: x >= 0),
            ("dropout label_smoothing unknown validation_fraction", "from 0 up to below 1", lambda x: 0 <= x < 1),
            ("test_fraction", "above 0 and below 1", lambda x: 0 < x < 1),
            ("smallest_class", "3 or more: one each to train, validate and test on", lambda x: x >= 3),
        ],
    )
    configs.note_warmup(config)
    if config.validation_fraction + config.test_fraction >= 1:
        raise UserError(
            f"--validation-fraction {config.validation_fraction} and --test-fraction {config.test_fraction} leave "
            "nothing to train on."
        )


def main(args: Sequence[str]) -> None:
    train(args)
