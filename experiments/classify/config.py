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
    """The test file of a path; default: of X_TRAIN.ts the X_TEST.ts beside it, of texts a part split off."""
    fill: Fill = "refuse"
    """What stands in for missing values of a series: the channel's mean, or lines between its neighbours."""
    fold_case: bool = False
    """Whether texts are read without their capital letters."""
    validation_fraction: Rate = 0.0
    """Share of each class that is held out of training; the weights that are best there are kept. 0: all is trained
    on, and the last weights are kept. Of .ts files a share of the training file, else of all."""
    test_fraction: Annotated[float, Range("above 0 and below 1", lambda x: 0 < x < 1)] = 0.25
    """Share of each class that is split off as test, of data without a test set."""
    smallest_class: Annotated[int, Range("3 or more: one each to train, validate and test on", lambda x: x >= 3)] = 3
    """Labels with fewer examples are left out, of data without a test set."""

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
    """Units of each direction."""
    embed: Count = 32
    """Size of a character's embedding."""
    dropout: Rate = 0.3
    """Dropout before each recurrent layer but the first, and before the class is read out."""
    nets: Count = 1
    """Nets that are trained side by side as one program, each with its own weights, batches and noise. Scores are means
    over them; those of the ensemble, which takes the mean of their probabilities, have names of their own."""


@dataclass(frozen=True)
class Train(settings.Train):
    """How each net is trained, on sequences that are changed at random."""

    steps: Count = 600
    label_smoothing: Rate = 0.0
    """Probability that targets spread over all classes."""
    noise: NonNegative = 0.0
    """Of series: standard deviation of what is added to every value of a training series, in units of its channel's."""
    offset: NonNegative = 0.0
    """Of series: standard deviation of what is added to all values of a channel alike, so that levels are not relied
    on: they differ from one recording to the next."""
    warp: NonNegative = 0.0
    """Of series: a training series is played at a speed of up to exp(warp), or down to exp(-warp)."""
    unknown: Rate = 0.0
    """Of texts: chance that a character of a training text is replaced by the sign for unknown ones."""


@dataclass(frozen=True)
class Run(settings.Run):
    """How it is watched, and where it is kept."""

    eval_every: Count = 50


@dataclass(frozen=True)
class Classify(settings.Experiment):
    """Trains a classifier of sequences of different lengths; every setting below can be overridden."""

    added: ClassVar = {"clip": 1.0, "patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
