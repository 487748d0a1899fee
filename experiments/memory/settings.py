"""The settings of a run, and what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from experiments import config as configs
from experiments.errors import UserError
from experiments.memory import tasks
from experiments.memory.cells import CELLS


@dataclasses.dataclass(frozen=True)
class Memory:
    """Trains each of some cells on each of some tasks; every setting below can be overridden."""

    tasks: tuple[str, ...] = ("adding", "copy", "parity", "arithmetic", "selective_copy", "recall")
    """Which tasks; these are all."""
    cells: tuple[str, ...] = ("lstm", "gru", "orthogonal", "min_gru", "min_lstm", "signed_min_gru")
    """Which cells: any of experiments/memory/cells.py. min_gru and min_lstm are linear with eigenvalues in [0, 1],
    signed_min_gru with eigenvalues in [-1, 1]."""

    adding_length: int = 200
    """Numbers of the adding task."""
    copy_delay: int = 100
    """Steps that the symbols of the copy task are kept."""
    train_length: int = 40
    """Longest sequence of parity and arithmetic in training."""
    test_length: int = 500
    """Longest sequence of parity and arithmetic in the test."""
    selective_length: int = 128
    """Places among which the tokens of selective copy are strewn."""
    selective_tokens: int = 16
    """Tokens of selective copy."""
    recall_delay: int = 200
    """Distractors between the symbol and the question of delayed recall."""

    width: int = 64
    """Units of each layer."""
    layers: int = 1
    """One: the cell and a dense layer, with another before a linear cell. More: residual blocks of the cell and of two
    dense layers, each after a norm."""

    batch: int = 64
    """Sequences of an update."""
    updates: int = 4000
    """Most updates of a training; it ends when the task is solved. The learning rate's schedule stretches over them."""
    updates_per_step: int = 25
    """Updates of one step of the training loop."""
    learning_rate: float = 3e-3
    """Peak learning rate of Adam, which falls to zero by a cosine."""
    warmup: int = 100
    """Updates of linear warm-up."""
    clip: float = 1.0
    """Largest global norm of the gradient."""

    eval_every: int = 10
    """Steps of the loop between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    eval_batch: int = 512
    """Sequences of a validation, and as many others of the score."""
    judged_by: tuple[str, ...] = ()
    """Scores for the table of results, as cell_task; default all."""
    seed: int = 0
    """Of the weights and of all sequences."""
    run_dir: Path | None = None
    """Folder of the run; default runs/memory/<config's name>-seed<seed>."""


TASKS: dict[str, Callable[[Memory], tasks.Task]] = {
    "adding": lambda config: tasks.adding(config.adding_length),
    "copy": lambda config: tasks.copy(config.copy_delay),
    "parity": lambda config: tasks.parity(config.train_length, config.test_length),
    "arithmetic": lambda config: tasks.arithmetic(config.train_length, config.test_length),
    "selective_copy": lambda config: tasks.selective_copy(config.selective_length, config.selective_tokens),
    "recall": lambda config: tasks.recall(config.recall_delay),
}


def check(config: Memory) -> None:
    sizes = "copy_delay train_length selective_length selective_tokens recall_delay width layers batch updates"
    configs.check(
        config,
        [
            (f"{sizes} updates_per_step eval_every eval_batch", "1 or more", lambda x: x >= 1),
            ("adding_length", "2 or more", lambda x: x >= 2),
            ("warmup seed", "0 or more", lambda x: x >= 0),
            ("learning_rate clip", "above 0", lambda x: x > 0),
        ],
    )
    configs.note_warmup(config, "updates")
    scores = [f"{cell}_{task}" for cell in CELLS for task in TASKS]
    for setting, given, known in (
        ("tasks", config.tasks, list(TASKS)),
        ("cells", config.cells, list(CELLS)),
        ("judged-by", config.judged_by, scores),
    ):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise UserError(f"--{setting} has {', '.join(unknown)}, but must be of: {', '.join(known)}.")
        if len(set(given)) < len(given) or not (given or setting == "judged-by"):
            raise UserError(f"--{setting} is {' '.join(given) or 'empty'}, but must have one name or more, each once.")
    if config.updates % config.updates_per_step:
        raise UserError(
            f"--updates is {config.updates}, but must be a multiple of --updates-per-step, {config.updates_per_step}."
        )
    if config.test_length <= config.train_length:
        raise UserError(
            f"--test-length is {config.test_length}, but must be above --train-length, {config.train_length}."
        )
    if config.selective_tokens > config.selective_length:
        raise UserError(
            f"--selective-tokens is {config.selective_tokens}, but at most --selective-length, "
            f"{config.selective_length}, have a place."
        )
