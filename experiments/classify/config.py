"""The settings of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, NonNegative, Range, Rate

Fill = Literal["refuse", "mean", "linear"]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The sequences."""

    data: str = "japanese_vowels"
    """japanese_vowels (nine speakers, from the package aeon), tzdata (names of places and their part of the world,
    from the package tzdata), or a path: a .ts file, or lines of label<TAB>text."""
    test_data: Path | None = None
    """The test file for a path; default: for X_TRAIN.ts the X_TEST.ts beside it, for texts a part split off."""
    fill: Fill = "refuse"
    """How to fill missing values of a series: with the channel's mean, or by linear interpolation. refuse: an error."""
    fold_case: bool = False
    """Whether to ignore the difference between capital and small letters in texts."""
    validation_fraction: Rate = 0.0
    """Share of each class that is held out for validation; the weights that score best on it are kept. 0: train on
    everything, and keep the last weights. With a test file, a share of the training file, otherwise of all."""
    test_fraction: Annotated[float, Range("above 0 and below 1", lambda x: 0 < x < 1)] = 0.25
    """For data without a test set: share of each class that is split off as one."""
    smallest_class: Annotated[int, Range("3 or more: one each to train, validate and test on", lambda x: x >= 3)] = 3
    """For data without a test set: labels with fewer examples are left out."""

    def check(self) -> None:
        if self.validation_fraction + self.test_fraction >= 1:
            raise UserError(
                f"--validation-fraction {self.validation_fraction} and --test-fraction {self.test_fraction} leave "
                "nothing to train on."
            )


@dataclass(frozen=True)
class Model(settings.Settings):
    """Bidirectional layers, and a dense layer on a summary of their outputs."""

    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent cell, in both directions."""
    layers: Count = 1
    """Bidirectional layers on top of each other."""
    width: Count = 64
    """Units in each direction."""
    embed: Count = 32
    """Size of a character's embedding."""
    dropout: Rate = 0.3
    """Dropout before each recurrent layer but the first, and before the output layer."""
    nets: Count = 1
    """Nets trained side by side in one program, each with its own weights, batches and noise. Scores are means over the
    nets; the scores of the ensemble, which averages their probabilities, have names of their own."""


@dataclass(frozen=True)
class Train(settings.Train):
    """How each net is trained, on randomly augmented sequences."""

    steps: Count = 600
    label_smoothing: Rate = 0.0
    """Probability mass that the targets spread over all classes."""
    noise: NonNegative = 0.0
    """For series: standard deviation of the noise added to every training value, in units of its channel's."""
    offset: NonNegative = 0.0
    """For series: standard deviation of a random offset added to all values of a channel, so that the net does not rely
    on levels, which differ from one recording to the next."""
    warp: NonNegative = 0.0
    """For series: the speed of a training series is changed by a random factor from exp(-warp) to exp(warp)."""
    unknown: Rate = 0.0
    """For texts: probability that a training character is replaced by the symbol for unknown ones."""


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is monitored, and where it is kept."""

    eval_every: Count = 50


@dataclass(frozen=True)
class Classify(settings.Experiment):
    """Trains a classifier of sequences of different lengths; every setting below can be overridden."""

    added: ClassVar = {"clip": 1.0, "patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
