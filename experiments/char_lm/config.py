"""The settings of a run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, Natural, NonNegative, Range, Rate, Share
from experiments.text import Level

MONITOR = "val_loss"
"""The evaluation metric that decides which checkpoint is the best."""
Cell = Literal["lstm", "gru", "elman", "min_gru", "min_lstm", "mgu", "slstm"]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The text."""

    corpus: str = "kjv"
    """kjv (King James Bible), shakespeare (tiny shakespeare), or the path of a UTF-8 text file."""
    train_fraction: Annotated[float, Range("above 0 and below 1", lambda x: 0 < x < 1)] = 0.9
    """Share of the text to train on, from its beginning; the rest is for validation."""
    level: Level = "char"
    """What is read and predicted: characters, bytes of UTF-8, or words (with the space before them)."""
    words: Count = 10_000
    """At the level of words: size of the vocabulary, in which one entry stands for all other words."""

    def check(self) -> None:
        if self.level == "word" and self.words < 2:
            raise UserError(f"--words is {self.words}, but must be 2 or more: one of them stands for all others.")


@dataclass(frozen=True)
class Model(settings.Settings):
    """An embedding, recurrent layers and a dense layer."""

    cell: Cell = "lstm"
    """The recurrent cell."""
    layers: Count = 1
    """Recurrent layers on top of each other."""
    width: Count = 384
    """Hidden units of each recurrent layer."""
    embed: Count = 128
    """Size of the embedding of a character, byte or word."""
    embed_dropout: Rate = 0.0
    """Dropout on the embeddings."""
    dropout: Rate = 0.2
    """Dropout on the output of each recurrent layer."""


@dataclass(frozen=True)
class Train(settings.Train):
    """How the model is trained."""

    batch: Count = 16
    """Rows that read the text side by side, each from its own starting point."""
    time: Count = 64
    """Characters (bytes, words) of each row per step; gradients do not reach back further, but the state does."""
    reset_probability: Share = 0.05
    """Chance that a row starts a step from the initial state. At 0 the network only sees states carried on since
    training began, and may do far worse from the initial one: shakespeare_quick with 400 steps, batch 16, embed
    128, dropout 0.2 and learning rate 3e-3 scores 7.68 with 0 and 2.07 with 0.1 (with its own settings and 400 steps:
    1.966 and 1.969)."""
    steps: Count = 1400
    warmup: Natural = 100
    final_lr_fraction: Share = 0.1
    """Learning rate at the end, as a fraction of the peak."""
    beta2: Rate = 0.999
    """Decay of AdamW's second moment."""
    weight_decay: NonNegative = 0.1
    ema: Rate = 0.99
    """Decay of the running average of the weights; the average is evaluated, kept as best and sampled from. The decay
    starts at 0.1 and grows to this value. 0: use the weights themselves."""


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is evaluated, and where it is kept."""

    eval_rows: Count = 64
    """Segments of the validation text that each evaluation during training reads side by side."""
    eval_chars: Count = 100_000
    """Validation characters (bytes, words) scored by each evaluation during training (the final score uses all)."""
    eval_warmup: Natural = 128
    """Characters read but not scored before each segment, so that its state is not the initial one."""
    patience: Natural = 10
    sample_length: Count = 800
    """Characters (bytes, words) of the sample written at the end."""
    sample_temperature: NonNegative = 0.8
    """Temperature of that sample: lower is safer, higher is bolder."""


@dataclass(frozen=True)
class CharLM(settings.Experiment):
    """Trains a language model; every setting below can be overridden."""

    added: ClassVar = {"level": "char", "words": 10_000}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
