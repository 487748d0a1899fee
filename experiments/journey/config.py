"""The settings of a run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, NonNegative, Positive, Range, check_names

Net = Literal["elman", "gru", "lstm", "stacked", "bidirectional"]
Sequences = Annotated[int, Range("8 or more, for 8 orders", lambda x: x >= 8)]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The sequences: corners of a square, with noise."""

    noise: NonNegative = 0.1
    """Standard deviation of the noise on each coordinate; the sides of the square have length 2."""
    train_sequences: Sequences = 2048
    """Sequences to train on."""
    val_sequences: Sequences = 2048
    """Sequences to choose the checkpoint and the restart by."""
    test_sequences: Sequences = 4096
    """Sequences for the final score and the plots, and for nothing else."""


@dataclass(frozen=True)
class Model(settings.Settings):
    """The nets, of two units each."""

    nets: tuple[Net, ...] = ("elman",)
    """The nets to train, one after the other; stacked and bidirectional are made of two Elman layers."""

    def check(self) -> None:
        check_names("nets", self.nets)


@dataclass(frozen=True)
class Train(settings.TrainInChunks):
    """How each net is trained, from several initialisations side by side."""

    restarts: Count = 64
    """Initialisations that are trained side by side; the one with the lowest validation loss is kept. With only
    two units, descent ends in a bad optimum from some initial weights."""
    batch: Count = 64
    updates_per_step: Count = 50
    learning_rate: Positive = 5e-2
    weight_decay: NonNegative = 0.05
    """Decoupled weight decay, on matrices only. It keeps the moves short enough to draw; 0.2 would make R of
    the Elman network squash the plane onto a line."""

    @property
    def warmup(self) -> int:
        return self.updates // 20


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is monitored, and where it is kept."""

    eval_every: Count = 4
    log_every: Count = 1
    animate: bool = False
    """Whether to draw an animation of the Elman network's plane too."""


@dataclass(frozen=True)
class Journey(settings.Experiment):
    """Trains nets of two hidden units and draws what their states do; every setting below can be overridden."""

    added: ClassVar = {"clip": 1.0, "patience": 0, "animate": False}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()

    def check(self) -> None:
        super().check()
        if self.run.animate and "elman" not in self.model.nets:
            nets = " ".join(self.model.nets)
            raise UserError(f"--animate shows the Elman network, but --nets is {nets}: add elman to it.")
