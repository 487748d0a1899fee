"""The settings of a run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, NonNegative, Range, Rate, check_names

Task = Literal["classify", "predict"]
DIGIT = 8
"""Side of a digit's image, in pixels."""
Size = Annotated[
    int,
    Range(
        f"a multiple of 4, and above the {DIGIT} pixels of a digit, which has to move",
        lambda x: x > DIGIT and x % 4 == 0,
    ),
]
AtLeastTwo = Annotated[int, Range("2 or more: one frame has no direction", lambda x: x >= 2)]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The clips, and what is asked about them."""

    tasks: tuple[Task, ...] = ("classify", "predict")
    """The tasks to learn, each with its own nets."""
    size: Size = 16
    """Side of a frame, in pixels."""
    shortest: AtLeastTwo = 5
    """Fewest frames of a clip that is classified."""
    longest: Annotated[int, Range("3 or more: the third frame is the first to predict", lambda x: x >= 3)] = 10
    """Most frames of a clip that is classified; every clip of `predict` has this many."""
    seen: AtLeastTwo = 5
    """Frames that `predict` is shown before its rollout, in the test and in the animation."""
    free: Count = 20
    """Frames of the rollout."""

    def check(self) -> None:
        check_names("tasks", self.tasks)
        if self.longest < self.shortest:
            raise UserError(f"--longest is {self.longest}, but must be at least --shortest, {self.shortest}.")


@dataclass(frozen=True)
class Model(settings.Settings):
    """The nets."""

    width: Annotated[int, Range("3 or more", lambda x: x >= 3)] = 48
    """Channels of the ConvLSTM; those of the convolutions around it follow."""
    dropout: Rate = 0.0
    """For `classify`: dropout before the readout."""


@dataclass(frozen=True)
class Train(settings.Train):
    """How each net is trained, on clips drawn anew for each update."""

    steps: Count = 2000
    warp: NonNegative = 0.0
    """For `classify`: how far training digits are rotated and stretched, as the standard deviation of each entry of a
    linear map."""


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is evaluated, and where it is kept."""

    val_clips: Count = 1000
    """Validation clips, of images that training never sees; they decide which weights are kept."""
    test_clips: Count = 2000
    """Test clips, of images that neither training nor validation sees. They are the same for every seed."""


@dataclass(frozen=True)
class Video(settings.Experiment):
    """Trains a ConvLSTM on clips of moving digits; every setting below can be overridden."""

    added: ClassVar = {"clip": 1.0, "patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
