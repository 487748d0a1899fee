"""The settings of a run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, Natural, NonNegative, Range, check_names

TASKS = ("adding", "copy", "parity", "arithmetic", "selective_copy", "recall")
LINEAR = (
    *("qrnn", "sru", "gla", "mlstm", "delta_net", "gated_delta_net", "lru", "s4d", "s5", "s6", "rg_lru"),
    *("min_gru", "min_lstm", "signed_min_gru"),
)
"""Cells whose gates read only the input; some of them need as many input features as outputs."""
CELLS = (
    *("elman", "lstm", "gru", "mgu", "ugrnn", "janet", "indrnn", "rhn", "slstm", "orthogonal", "cornn", "lem", "lmu"),
    *("irnn", *LINEAR),
)


@dataclass(frozen=True)
class Data(settings.Settings):
    """The tasks."""

    tasks: tuple[str, ...] = TASKS
    """The tasks to train on; the default is all of them."""
    adding_length: Annotated[int, Range("2 or more", lambda x: x >= 2)] = 200
    """Sequence length of the adding task."""
    copy_delay: Count = 100
    """Steps that the symbols of the copy task are kept."""
    train_length: Count = 40
    """Longest sequence of parity and arithmetic in training."""
    test_length: Count = 500
    """Longest sequence of parity and arithmetic in the test."""
    selective_length: Count = 128
    """Steps of selective copy over which the tokens are scattered."""
    selective_tokens: Count = 16
    """Tokens to copy in selective copy."""
    recall_delay: Count = 200
    """Distractors between the symbol and the question of delayed recall."""

    def check(self) -> None:
        check_names("tasks", self.tasks, TASKS)
        if self.test_length <= self.train_length:
            raise UserError(
                f"--test-length is {self.test_length}, but must be above --train-length, {self.train_length}."
            )
        if self.selective_tokens > self.selective_length:
            raise UserError(
                f"--selective-tokens is {self.selective_tokens}, but at most --selective-length, "
                f"{self.selective_length}, have a place."
            )


@dataclass(frozen=True)
class Model(settings.Settings):
    """One cell and a dense layer, or residual blocks."""

    cells: tuple[str, ...] = ("lstm", "gru", "orthogonal", "min_gru", "min_lstm", "signed_min_gru")
    """The cells to train. min_gru and min_lstm are linear with eigenvalues in [0, 1], signed_min_gru with eigenvalues
    in [-1, 1]."""
    width: Count = 64
    """Units of each layer."""
    layers: Count = 1
    """1: the cell and a dense layer, and another dense layer before a linear cell. More: residual blocks of the cell
    and of two dense layers, each after a norm."""

    def check(self) -> None:
        check_names("cells", self.cells, CELLS)


@dataclass(frozen=True)
class Train(settings.TrainInChunks):
    """How each cell is trained on each task; training ends when the task is solved."""

    batch: Count = 64
    warmup: Natural = 100
    """Updates of linear warm-up before the cosine decay."""
    weight_decay: NonNegative = 0.0


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is evaluated, and where it is kept."""

    eval_every: Count = 10
    eval_batch: Count = 512
    """Sequences per validation, and as many others for the score."""
    patience: Natural = 1
    """Evaluations after a task is solved before its training stops; 0: it goes on to the last update."""
    log_every: Count = 1
    judged_by: tuple[str, ...] = ()
    """Scores for the table of results, as cell_task; default all."""

    def check(self) -> None:
        check_names("judged-by", self.judged_by, [f"{cell}_{task}" for cell in CELLS for task in TASKS], least=0)


@dataclass(frozen=True)
class Memory(settings.Experiment):
    """Trains several cells on several tasks; every setting below can be overridden."""

    added: ClassVar = {"weight_decay": 0.0, "patience": 1, "log_every": 1}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
