"""A character language model: next-character training by truncated back-propagation through time.

python -m experiments.char_lm configs/char_lm/kjv.py [overrides]
python -m experiments.char_lm sample RUN --prime "In the beginning" --length 500
"""

import dataclasses
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import rnnx
from experiments import config as configs
from experiments import results
from experiments.checkpoints import Checkpoints
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit
from experiments.text import digest, encode, read_corpus, vocabulary

COMMAND = "python -m experiments.char_lm"
CONFIGS = Path("configs/char_lm")
MONITOR = "val_loss"
COLUMNS = {
    "loss": lambda metrics: f"{metrics['loss']:.3f}",
    "bits per character": lambda metrics: f"{metrics['loss'] / math.log(2):.3f}",
}


@dataclasses.dataclass(frozen=True)
class CharLM:
    """Trains a character language model; every setting below can be overridden."""

    corpus: str = "kjv"
    """kjv (King James Bible), shakespeare (tiny shakespeare), or the path of a UTF-8 text file."""
    train_fraction: float = 0.9
    """The first part of the text is trained on, the rest is for validation."""

    cell: Literal["lstm", "gru", "elman"] = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Recurrent layers on top of each other."""
    width: int = 384
    """Hidden units of each recurrent layer."""
    embed: int = 128
    """Size of a character's embedding."""
    embed_dropout: float = 0.0
    """Dropout on the embeddings."""
    dropout: float = 0.2
    """Dropout on the output of each recurrent layer."""

    batch: int = 16
    """Rows that walk through the text side by side, each from its own starting point."""
    time: int = 64
    """Characters of each row per step; gradients reach back no further, the state does."""
    reset_probability: float = 0.05
    """Chance that a row starts a step from a fresh state. At 0 the network only ever sees states that
    have lived since training began, and may do far worse from a fresh one: shakespeare_quick with
    400 steps, batch 16, embed 128, dropout 0.2 and learning rate 3e-3 scores 7.68 with 0 and 2.07
    with 0.1 (with its own settings and 400 steps: 1.966 and 1.969)."""
    steps: int = 1400
    """Updates in all; the learning rate's schedule stretches over them."""

    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    """Steps of linear warm-up before the cosine decay."""
    final_lr_fraction: float = 0.1
    """Learning rate at the end, as a fraction of the peak."""
    beta2: float = 0.999
    """Decay of AdamW's second moment."""
    weight_decay: float = 0.1
    """Decoupled weight decay; on matrices only, as biases need none."""
    clip: float = 1.0
    """Largest global norm of the gradient."""
    ema: float = 0.99
    """Decay of the running average of the weights, which is what is evaluated, kept as best and
    sampled from; it starts at 0.1 and grows to this value. 0: the weights themselves."""

    eval_every: int = 100
    """Steps between validations; each is followed by a checkpoint."""
    eval_rows: int = 64
    """Stretches of the validation text that are read side by side during training."""
    eval_chars: int = 100_000
    """Validation characters scored each time during training (the final score takes all)."""
    eval_warmup: int = 128
    """Characters read, unscored, before each stretch, so that it does not begin from nothing."""
    patience: int = 10
    """Validations without a new best before training stops early; 0: never."""
    log_every: int = 10
    """Steps over which the training metrics are averaged for one line of the log."""

    sample_length: int = 800
    """Characters of the sample written at the end."""
    sample_temperature: float = 0.8
    """Its temperature: lower is safer, higher is bolder."""
    seed: int = 0
    """Of the weights, the dropout, the resets and the sample."""
    run_dir: Path | None = None
    """Folder of the run; default runs/char_lm/<config's name>-seed<seed>."""


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    average: Any
    """Of the params over the steps."""
    carry: Any
    """Of each row of the batch."""


class Corpus(NamedTuple):
    """A text as numbers: what comes before `split` is trained on, the rest is for validation."""

    text: np.ndarray
    vocab: str
    split: int
    sha256: str


def load_corpus(config: CharLM) -> Corpus:
    text = read_corpus(config.corpus)
    split = int(len(text) * config.train_fraction)
    for part, given, needed, settings in (
        (
            "train on",
            split,
            max(config.batch * config.time, config.eval_warmup),
            "--batch or --time",
        ),
        ("validate on", len(text) - split, config.eval_rows + 1, "--eval-rows"),
    ):
        if given < needed:
            raise UserError(
                f"The corpus {config.corpus!r} has {len(text):,} characters. That leaves {given:,} "
                f"to {part} (train_fraction is {config.train_fraction}), but {needed:,} are needed. "
                f"Give a longer text, or lower {settings}."
            )
    vocab = vocabulary(text)
    return Corpus(encode(text, vocab), vocab, split, digest(text))


def make_model(config: CharLM, vocab_size: int) -> rnnx.Layer:
    cells: dict[str, Callable[[int], rnnx.Layer]] = {"lstm": rnnx.lstm, "gru": rnnx.gru, "elman": rnnx.elman}
    make = cells[config.cell]
    recurrent = [(make(config.width), rnnx.dropout(config.dropout)) for _ in range(config.layers)]
    stacked = rnnx.stack(
        nn.Embed(vocab_size, config.embed),
        rnnx.dropout(config.embed_dropout),
        *(layer for pair in recurrent for layer in pair),
        nn.Dense(vocab_size),
    )
    return rnnx.sharded(stacked)  # over the devices that there are: by default a CPU is one


def make_optimizer(config: CharLM) -> tuple[optax.GradientTransformation, optax.Schedule]:
    peak = config.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup else peak,
        peak_value=peak,
        warmup_steps=config.warmup,
        decay_steps=max(config.steps, config.warmup + 1),
        end_value=peak * config.final_lr_fraction,
    )

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

    adamw = optax.adamw(schedule, b2=config.beta2, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw), schedule


def initial_state(config: CharLM, model: rnnx.Layer) -> TrainState:
    tokens = jnp.zeros((config.batch, config.time), jnp.int32)
    init_key, key = jax.random.split(jax.random.key(config.seed))
    params = model.init(init_key, tokens)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        optimizer=make_optimizer(config)[0].init(params),
        average=params,
        carry=model.initial_carry(params, tokens, None),
    )


def read_chunk(
    config: CharLM, split: int, text: jax.Array, step: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The inputs, targets and resets `[batch, time]` of a step.

    The training text is a circle. Row b walks it from b/batch of the way round, `time` characters
    per step, so that its state is that of the text it has just read. Everything follows from the
    number of the step: there is no position to save. States are fresh where the circle closes, as
    what stands there does not follow from what went before.
    """
    starts = np.array([row * split // config.batch for row in range(config.batch)], np.int32)
    first = (step * config.time) % split + starts
    places = (first[:, None] + jnp.arange(config.time + 1)[None]) % split
    chunk = text[places]
    anew = jax.random.bernoulli(key, config.reset_probability, (config.batch, 1))
    resets = (places[:, :-1] == 0) | (anew & (jnp.arange(config.time) == 0)[None])
    return chunk[:, :-1], chunk[:, 1:], resets


def make_train_step(
    config: CharLM, model: rnnx.Layer, split: int
) -> Callable[[TrainState, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    optimizer, schedule = make_optimizer(config)

    def train_step(state: TrainState, text: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        reset_key, noise_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        inputs, targets, resets = read_chunk(config, split, text, state.step, reset_key)

        def loss_and_carry(params: Any) -> tuple[jax.Array, Any]:
            carry, logits = rnnx.unroll(
                model,
                params,
                inputs,
                carry=jax.lax.stop_gradient(state.carry),
                resets=resets,
                key=noise_key,
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return losses.mean(), carry

        (loss, carry), gradient = jax.value_and_grad(loss_and_carry, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # An average that began at the random weights would carry them along for long.
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": schedule(state.step),
        }
        return (
            TrainState(
                step=state.step + 1,
                key=state.key,
                params=params,
                optimizer=optimizer_state,
                average=optax.incremental_update(params, state.average, 1 - decay),
                carry=carry,
            ),
            metrics,
        )

    return train_step


class Scorer:
    """The mean loss, in nats per character, on given places of a text."""

    def __init__(self, model: rnnx.Layer, text: np.ndarray) -> None:
        self._model, self._text = model, text

        @jax.jit
        def chunk(
            params: Any, carry: Any, inputs: jax.Array, targets: jax.Array, scored: jax.Array
        ) -> tuple[Any, jax.Array]:
            carry, logits = rnnx.unroll(model, params, inputs, carry=carry)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return carry, jnp.where(scored, losses, 0.0).sum()

        self._chunk = chunk

    def __call__(self, params: Any, places: np.ndarray, scored: np.ndarray, chunk: int) -> float:
        """Reads the characters at `places` [rows, length] and scores the one after each.

        `chunk` places at a time, with the state kept: logits for all at once would fill the
        memory. The sum is taken in the host's double precision.
        """
        padded = ((0, 0), (0, -places.shape[1] % chunk))
        places = np.pad(places, padded)
        valid = np.pad(scored, padded)
        inputs, targets = self._text[places], self._text[places + 1]
        carry = self._model.initial_carry(params, inputs[:, :chunk], None)
        sums = []
        for start in range(0, places.shape[1], chunk):
            now = slice(start, start + chunk)
            carry, total = self._chunk(params, carry, inputs[:, now], targets[:, now], valid[:, now])
            sums.append(total)
        return sum(map(float, sums)) / int(scored.sum())


def make_evaluate(config: CharLM, corpus: Corpus, scorer: Scorer) -> Callable[[TrainState], dict[str, float]]:
    """A fast estimate of the validation loss, for early stopping and the choice of the best.

    The final score reads one stream, which leaves most of a processor idle; here stretches of
    it are read side by side.
    """
    held_out = len(corpus.text) - corpus.split
    length = max(1, min(held_out - 1, config.eval_chars) // config.eval_rows)
    starts = [corpus.split + r * (held_out - 1) // config.eval_rows for r in range(config.eval_rows)]
    offsets = np.arange(-config.eval_warmup, length)
    places = np.array(starts)[:, None] + offsets
    scored = np.broadcast_to(offsets >= 0, places.shape)

    def evaluate(state: TrainState) -> dict[str, float]:
        return {MONITOR: scorer(state.average, places, scored, chunk=128)}

    return evaluate


def final_score(corpus: Corpus, scorer: Scorer, params: Any) -> float:
    """The loss over the whole validation text as one stream from a fresh state."""
    places = np.arange(corpus.split, len(corpus.text) - 1)[None]
    return scorer(params, places, np.ones_like(places, bool), chunk=2048)


def stream(
    model: rnnx.Layer,
    params: Any,
    vocab: str,
    prime: str,
    *,
    length: int,
    sample: Callable[[jax.Array, jax.Array], jax.Array],
    seed: int,
) -> Iterator[str]:
    """Yields `length` characters that follow the prime, each as soon as it is drawn.

    The prime is read by the same compiled step of one character that draws the rest.
    """

    @functools.partial(jax.jit, donate_argnums=1)
    def step(params: Any, carry: Any, token: jax.Array, index: np.int32) -> tuple[Any, jax.Array]:
        carry, logits = rnnx.unroll(model, params, token[:, None], carry=carry)
        key = jax.random.fold_in(jax.random.key(seed), index)
        return carry, sample(key, logits[:, 0]).astype(jnp.int32)

    tokens = encode(prime, vocab)
    carry = model.initial_carry(params, tokens[None, :1], None)
    for token in tokens:
        carry, drawn = step(params, carry, token[None], np.int32(0))
    for index in range(1, length + 1):
        shown = drawn
        if index < length:
            carry, drawn = step(params, carry, drawn, np.int32(index))
        yield vocab[int(shown[0])]


def train(args: Sequence[str]) -> None:
    config, name = configs.load(CharLM(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    corpus = load_corpus(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, {**configs.settings(config), "corpus_sha256": corpus.sha256})
    if (run_dir / "results.json").exists():
        print(f"{run_dir} is finished; its results and the beginning of its sample:\n")
        show(run_dir, characters=400)
        return

    configs.write_json(run_dir / "vocab.json", corpus.vocab)
    model = make_model(config, len(corpus.vocab))
    example = jax.ShapeDtypeStruct((config.batch, config.time), jnp.int32)
    print(rnnx.summary(model, example))
    print(
        f"{config.corpus}: {len(corpus.text):,} characters, {len(corpus.vocab)} different ones; "
        f"{corpus.split:,} to train on, {len(corpus.text) - corpus.split:,} to validate on. "
        f"Run folder: {run_dir}",
        flush=True,
    )
    scorer = Scorer(model, corpus.text)
    fitted = fit(
        run_dir,
        functools.partial(initial_state, config, model),
        make_train_step(config, model, corpus.split),
        jnp.asarray(corpus.text),
        make_evaluate(config, corpus, scorer),
        Plan(
            steps=config.steps,
            eval_every=config.eval_every,
            log_every=config.log_every,
            monitor=MONITOR,
            patience=config.patience,
            items="characters",
            items_per_step=config.batch * config.time,
        ),
        COLUMNS,
    )
    report(config, corpus, run_dir, model, fitted, scorer)
    show(run_dir)


def report(
    config: CharLM,
    corpus: Corpus,
    run_dir: Path,
    model: rnnx.Layer,
    fitted: Fitted[TrainState],
    scorer: Scorer,
) -> None:
    """Scores and samples the best checkpoint. Writes results.json last: it marks the end."""
    from experiments.plots import learning_curve  # not at the top: a second of start-up

    print("Scoring the best checkpoint on the whole validation text.", flush=True)
    params = fitted.best.average
    nats = final_score(corpus, scorer, params)
    learning_curve(
        run_dir / "learning_curve.png",
        read_metrics(run_dir),
        train="loss",
        validation=MONITOR,
        label="nats per character",
        title=f"{run_dir.name}: final score {nats:.4f} nats per character",
    )
    text = "".join(
        stream(
            model,
            params,
            corpus.vocab,
            default_prime(corpus.vocab),
            length=config.sample_length,
            sample=rnnx.sampler(config.sample_temperature),
            seed=config.seed,
        )
    )
    (run_dir / "sample.txt").write_text(text, encoding="utf-8")
    results.finish(
        run_dir,
        {"val_nats_per_char": nats},
        seed=config.seed,
        seconds=fitted.seconds,
        val_bits_per_char=nats / math.log(2),
        val_chars=len(corpus.text) - corpus.split - 1,
        train_chars=fitted.last_step * config.batch * config.time,
        best_step=fitted.best_step,
        steps=fitted.last_step,
        parameters=results.count(params),
        corpus=config.corpus,
        corpus_sha256=corpus.sha256,
    )


def show(run_dir: Path, characters: int | None = None) -> None:
    run = configs.read_json(run_dir / "results.json")
    text = (run_dir / "sample.txt").read_text(encoding="utf-8")
    print(f"--- sample (all of it: {run_dir / 'sample.txt'})")
    print(text[:characters])
    print(f"--- results ({run_dir / 'results.json'})")
    print(
        f"validation loss {run['scores']['val_nats_per_char']:.4f} nats per character "
        f"({run['val_bits_per_char']:.4f} bits), best at step {run['best_step']:,}; "
        f"trained on {run['train_chars']:,} characters in {run['seconds']:.0f} s"
    )


@dataclasses.dataclass(frozen=True)
class Sample:
    """Lets a trained run write on."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    prime: str | None = None
    """The text to go on from; default: a line break."""
    length: int = 500
    """Characters to write."""
    temperature: float = 0.8
    """Below 1 surer, above 1 bolder; 0 takes the likeliest character each time."""
    top_k: int | None = None
    """Draw only among the k likeliest characters."""
    top_p: float | None = None
    """Draw only among the fewest characters that reach this probability together."""
    seed: int = 0
    """The same seed draws the same text."""


def sample_command(args: Sequence[str]) -> None:
    options = tyro.cli(Sample, prog=f"{COMMAND} sample", args=list(args))
    if not (options.run / "config.json").exists():
        raise UserError(
            f"{options.run} is not the folder of a run: it has no config.json. "
            f"Train one first: {COMMAND} {CONFIGS / 'kjv.py'}"
        )
    saved = configs.read_json(options.run / "config.json")
    config = CharLM(**{field: saved[field] for field in configs.settings(CharLM())})
    vocab = configs.read_json(options.run / "vocab.json")
    prime = default_prime(vocab) if options.prime is None else options.prime
    unknown = "".join(sorted(set(prime) - set(vocab)))
    if unknown or not prime:
        raise UserError(
            f"The prime {prime!r} "
            + (f"has characters that the model does not know: {unknown!r}" if prime else "is empty")
            + f". Those it knows: {vocab!r}"
        )
    if options.length < 1:
        raise UserError(f"--length is {options.length}, but must be 1 or more.")
    try:
        draw = rnnx.sampler(options.temperature, top_k=options.top_k, top_p=options.top_p)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    model = make_model(config, len(vocab))
    like = jax.eval_shape(functools.partial(initial_state, config, model))
    params = Checkpoints(options.run / "checkpoints", monitor=MONITOR).best(like).state.average
    sys.stdout.write(prime.lstrip("\n"))
    drawn = stream(model, params, vocab, prime, length=options.length, sample=draw, seed=options.seed)
    try:
        for character in drawn:
            sys.stdout.write(character)
            sys.stdout.flush()
        sys.stdout.write("\n")
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    except BrokenPipeError:  # `head`, say, has read enough; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def default_prime(vocab: str) -> str:
    return "\n" if "\n" in vocab else vocab[0]


def check(config: CharLM) -> None:
    sizes = "layers width embed batch time steps eval_every eval_rows eval_chars log_every sample_length"
    rules: list[configs.Rule] = [
        (sizes, "1 or more", lambda x: x >= 1),
        ("warmup patience eval_warmup weight_decay sample_temperature seed", "0 or more", lambda x: x >= 0),
        ("embed_dropout dropout ema beta2", "at least 0 and below 1", lambda x: 0 <= x < 1),
        ("learning_rate clip", "above 0", lambda x: x > 0),
        ("reset_probability final_lr_fraction", "between 0 and 1", lambda x: 0 <= x <= 1),
        ("train_fraction", "above 0 and below 1", lambda x: 0 < x < 1),
    ]
    configs.check(config, rules)


def main() -> None:
    args = sys.argv[1:]
    if args[:1] == ["sample"]:
        sample_command(args[1:])
    else:
        train(args)


if __name__ == "__main__":
    # Under its own name, the one by which config files import CharLM from here.
    from experiments import char_lm

    char_lm.main()
