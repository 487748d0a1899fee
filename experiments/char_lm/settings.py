"""What can be set, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import config as configs
from experiments.errors import UserError
from experiments.text import Level

COMMAND = "python -m experiments.char_lm"
CONFIGS = Path("configs/char_lm")
Cell = Literal["lstm", "gru", "elman", "min_gru", "min_lstm", "mgu", "slstm"]
LATER = {"level": "char", "words": 10_000}
"""Settings that runs begun without them had all the same."""


@dataclasses.dataclass(frozen=True)
class CharLM:
    """Trains a language model; every setting below can be overridden."""

    corpus: str = "kjv"
    """kjv (King James Bible), shakespeare (tiny shakespeare), or the path of a UTF-8 text file."""
    train_fraction: float = 0.9
    """The first part of the text is trained on, the rest is for validation."""
    level: Level = "char"
    """What is read and predicted: characters, bytes of UTF-8, or words (with the space before them)."""
    words: int = 10_000
    """At the level of words: how many different ones are known; all others are one and the same."""

    cell: Cell = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Recurrent layers on top of each other."""
    width: int = 384
    """Hidden units of each recurrent layer."""
    embed: int = 128
    """Size of the embedding of a character, byte or word."""
    embed_dropout: float = 0.0
    """Dropout on the embeddings."""
    dropout: float = 0.2
    """Dropout on the output of each recurrent layer."""

    batch: int = 16
    """Rows that walk through the text side by side, each from its own starting point."""
    time: int = 64
    """Characters (bytes, words) of each row per step; gradients reach back no further, the state does."""
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
    """Steps between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    eval_rows: int = 64
    """Stretches of the validation text that are read side by side during training."""
    eval_chars: int = 100_000
    """Validation characters (bytes, words) scored each time during training (the final score takes all)."""
    eval_warmup: int = 128
    """Characters read, unscored, before each stretch, so that it does not begin from nothing."""
    patience: int = 10
    """Validations without a new best before training stops early; 0: never."""
    log_every: int = 10
    """Steps over which the training metrics are averaged for one line of the log."""

    sample_length: int = 800
    """Characters (bytes, words) of the sample written at the end."""
    sample_temperature: float = 0.8
    """Its temperature: lower is safer, higher is bolder."""
    seed: int = 0
    """Of the weights, the dropout, the resets and the sample."""
    run_dir: Path | None = None
    """Folder of the run; default runs/char_lm/<config's name>-seed<seed>."""


def check(config: CharLM) -> None:
    sizes = "layers width embed words batch time steps eval_every eval_rows eval_chars log_every sample_length"
    rules: list[configs.Rule] = [
        (sizes, "1 or more", lambda x: x >= 1),
        ("warmup patience eval_warmup weight_decay sample_temperature seed", "0 or more", lambda x: x >= 0),
        ("embed_dropout dropout ema beta2", "at least 0 and below 1", lambda x: 0 <= x < 1),
        ("learning_rate clip", "above 0", lambda x: x > 0),
        ("reset_probability final_lr_fraction", "between 0 and 1", lambda x: 0 <= x <= 1),
        ("train_fraction", "above 0 and below 1", lambda x: 0 < x < 1),
    ]
    configs.check(config, rules)
    configs.note_warmup(config)
    if config.level == "word" and config.words < 2:
        raise UserError(f"--words is {config.words}, but must be 2 or more: one of them stands for all others.")
