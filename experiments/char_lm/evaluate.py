"""The scores: the loss on text that was not trained on, and the quality of the text that the model writes."""

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments import runs
from experiments.char_lm.config import MONITOR, CharLM
from experiments.char_lm.data import NAMES, Corpus
from experiments.char_lm.sampling import default_prime, stream
from experiments.files import read_json, write_text
from experiments.loop import Fitted
from experiments.text import UNKNOWN, decode

WORD = re.compile(r"\w+(?:['’]\w+)*")


class Scorer:
    """The mean loss, in nats per character, at given positions of a text."""

    def __init__(self, model: rnnx.Layer, text: np.ndarray) -> None:
        self._model, self._text = model, text

        def chunk(
            params: Any, carry: Any, inputs: jax.Array, targets: jax.Array, scored: jax.Array
        ) -> tuple[Any, jax.Array]:
            carry, logits = rnnx.unroll(model, params, inputs, carry=carry)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return carry, jnp.where(scored, losses, 0.0).sum()

        self._chunk = functools.cache(lambda placement: jax.jit(chunk, out_shardings=placement))

    def __call__(self, params: Any, places: np.ndarray, scored: np.ndarray, chunk: int) -> float:
        """Reads the characters at `places` [rows, length] and scores the one after each.

        It reads `chunk` places at a time and keeps the state in between: logits for all at once
        would fill the memory. The host adds up the losses in double precision.
        """
        padded = ((0, 0), (0, -places.shape[1] % chunk))
        places = np.pad(places, padded)
        valid = np.pad(scored, padded)
        inputs, targets = self._text[places], self._text[places + 1]
        placement = jax.tree.leaves(params)[0].sharding  # during training the params are copied to each device
        carry = jax.device_put(self._model.initial_carry(params, inputs[:, :chunk], None), placement)
        score = self._chunk(placement)
        total = 0.0
        for start in range(0, places.shape[1], chunk):
            now = slice(start, start + chunk)
            read = jax.device_put((inputs[:, now], targets[:, now], valid[:, now]), placement)
            carry, loss = score(params, carry, *read)
            total += float(loss)  # waits: several CPU devices must not be dispatched far ahead, see rnnx.sharded
        return total / int(scored.sum())


def make_evaluate(config: CharLM, corpus: Corpus, scorer: Scorer) -> Callable[[Any], dict[str, float]]:
    """A fast estimate of the validation loss, for early stopping and the choice of the best.

    The final score reads one stream, which leaves most of a processor idle; here segments of
    the text are read side by side.
    """
    held_out = len(corpus.text) - corpus.split
    length = max(1, min(held_out - 1, config.run.eval_chars) // config.run.eval_rows)
    starts = [corpus.split + r * (held_out - 1) // config.run.eval_rows for r in range(config.run.eval_rows)]
    offsets = np.arange(-config.run.eval_warmup, length)
    places = np.array(starts)[:, None] + offsets
    scored = np.broadcast_to(offsets >= 0, places.shape)

    def evaluate(state: Any) -> dict[str, float]:
        return {MONITOR: scorer(state.average, places, scored, chunk=128)}

    return evaluate


def final_score(corpus: Corpus, scorer: Scorer, params: Any) -> float:
    """The loss over the whole validation text as one stream from a fresh state."""
    places = np.arange(corpus.split, len(corpus.text) - 1)[None]
    return scorer(params, places, np.ones_like(places, bool), chunk=2048)


def quality(text: str, training: str) -> dict[str, float]:
    """The quality of a written text, compared with the training text.

    `known_words`: the share of its words that occur in the training text (is the spelling right?). `distinct_words`:
    the share of different words (does it repeat itself?). `longest_copy`: characters of the longest passage that occurs
    in the training text verbatim (does it only recite?).
    """
    words, known = WORD.findall(text.lower()), set(WORD.findall(training.lower()))
    longest = 0
    for start in range(len(text)):
        while start + longest < len(text) and text[start : start + longest + 1] in training:
            longest += 1
    return {
        "known_words": sum(word in known for word in words) / max(len(words), 1),
        "distinct_words": len(set(words)) / max(len(words), 1),
        "longest_copy": longest,
    }


def report(
    config: CharLM, corpus: Corpus, run_dir: Path, model: rnnx.Layer, fitted: Fitted[Any], scorer: Scorer
) -> None:
    """Scores and samples the best checkpoint. Writes results.json last: it marks the end."""
    from experiments.plots import learning_curve  # not at the top: a second of start-up

    print("Scoring the best checkpoint on the whole validation text.", flush=True)
    run, level, params = config.run, config.data.level, fitted.best.average
    nats = final_score(corpus, scorer, params)
    learning_curve(
        run_dir,
        MONITOR,
        label=f"nats per {NAMES[level]}",
        title=f"{run_dir.name}: final score {nats:.4f} nats per {NAMES[level]}",
    )
    sample, prime = rnnx.sampler(run.sample_temperature), default_prime(corpus.vocab)
    drawn = stream(model, params, corpus.vocab, prime, length=run.sample_length, sample=sample, seed=run.seed)
    text = "".join(drawn)
    write_text(run_dir / "sample.txt", text)
    held_out = "".join(decode(corpus.text[corpus.split :][: run.sample_length].tolist(), corpus.vocab))
    training = "".join(decode(corpus.text[: corpus.split].tolist(), corpus.vocab))
    runs.finish(
        run_dir,
        {f"val_nats_per_{level}": nats},
        seed=run.seed,
        seconds=fitted.seconds,
        val_bits=nats / math.log(2),
        val_tokens=len(corpus.text) - corpus.split - 1,
        train_tokens=fitted.last_step * config.train.batch * config.train.time,
        quality={"sample": quality(text, training), "held_out": quality(held_out, training)},
        unknown_share=unknown_share(corpus),
        best_step=fitted.best_step,
        steps=fitted.last_step,
        parameters=runs.count(params),
        corpus=config.data.corpus,
        corpus_sha256=corpus.sha256,
    )


def unknown_share(corpus: Corpus) -> float:
    """The share of the held-out words that are outside the vocabulary."""
    pieces = corpus.vocab.pieces
    return float((corpus.text[corpus.split :] == pieces.index(UNKNOWN)).mean()) if UNKNOWN in pieces else 0.0


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- sample ({run_dir / 'sample.txt'})")
    print((run_dir / "sample.txt").read_text(encoding="utf-8"))
    print(f"--- results ({run_dir / 'results.json'})")
    ((metric, nats),) = run["scores"].items()
    print(
        f"{metric.replace('_', ' ')} {nats:.4f} ({run['val_bits']:.4f} bits), best at step {run['best_step']:,}; "
        f"trained on {run['train_tokens']:,} in {run['seconds']:.0f} s"
    )
    of_sample, of_text = run["quality"]["sample"], run["quality"]["held_out"]
    print(
        f"{of_sample['known_words']:.1%} of the sample's words occur in the training text (held-out text: "
        f"{of_text['known_words']:.1%}); longest passage copied from there: {of_sample['longest_copy']} characters"
    )
