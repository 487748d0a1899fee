"""The settings of a run."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, Positive, check_names

Method = Literal["rtrl", "snap1", "eprop", "uoro", "bptt", "bptt_short"]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The stream."""

    bits: Count = 2
    """Bits of a cue; every step has as many distractors."""
    shortest: Count = 5
    """Fewest steps from a cue to its query."""
    longest: Count = 10
    """Most steps from a cue to its query."""

    def check(self) -> None:
        if self.longest < self.shortest:
            raise UserError(f"--longest is {self.longest}, but must be at least --shortest, {self.shortest}.")


@dataclass(frozen=True)
class Model(settings.Settings):
    """The cell; its readout is linear."""

    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent cell."""
    width: Count = 16
    """Units of the cell."""


@dataclass(frozen=True)
class Train(settings.Settings):
    """How the cell is trained, by each of several methods."""

    methods: tuple[Method, ...] = ("rtrl", "snap1", "eprop", "uoro", "bptt", "bptt_short")
    """The methods to compare. bptt and bptt_short are truncated back-propagation, with windows of `chunk` and
    `short_window` steps and one update for each window; all others update after every step."""
    batch: Count = 8
    """Streams to learn from, side by side."""
    chunk: Count = 64
    """Time steps per step of the training loop: how often metrics come, not how far credit reaches."""
    steps: Count = 300
    """Steps of the training loop."""
    short_window: Count = 4
    """Window of bptt_short, in time steps; it must divide the chunk."""
    learning_rate: Positive = 3e-3
    """Learning rate of Adam."""
    eps: Positive = 1e-3
    """Epsilon of Adam. A small one would scale up again the gradients that vanish once everything is learned."""
    clip: Positive = 1.0
    """Largest global norm of the gradient of one update."""

    def check(self) -> None:
        check_names("methods", self.methods)
        if self.chunk % self.short_window:
            raise UserError(f"--short-window is {self.short_window}, but must divide --chunk, {self.chunk}.")


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is evaluated, and where it is kept."""

    eval_every: Count = 20
    eval_batch: Count = 64
    """Streams per validation."""
    eval_time: Count = 200
    """Time steps of each of these streams."""
    log_every: Count = 5


@dataclass(frozen=True)
class Online(settings.Experiment):
    """Trains one cell on a stream by several methods; every setting below can be overridden."""

    added: ClassVar = {"patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()

    def check(self) -> None:
        super().check()
        if self.run.eval_time <= self.data.longest:
            raise UserError(f"--eval-time is {self.run.eval_time}, but must be above --longest, {self.data.longest}.")
