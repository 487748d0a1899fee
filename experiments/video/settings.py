"""The settings of a run, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import config as configs
from experiments.errors import UserError
from experiments.video.data import DIGIT


@dataclasses.dataclass(frozen=True)
class Video:
    """Trains a ConvLSTM on clips of moving digits; every setting below can be overridden."""

    tasks: tuple[Literal["classify", "predict"], ...] = ("classify", "predict")
    """What is learned, each by nets of its own."""
    size: int = 16
    """Pixels of the side of a frame."""
    shortest: int = 5
    """Fewest frames of a clip that is classified."""
    longest: int = 10
    """Most frames of a clip that is classified; every clip of `predict` has as many."""
    seen: int = 5
    """Frames that `predict` is shown before it goes on by itself, in the test and in the film."""
    free: int = 20
    """Frames that it then makes."""

    width: int = 48
    """Channels of the ConvLSTM; those of the convolutions around it follow."""
    dropout: float = 0.0
    """Dropout before the readout, of `classify`."""
    warp: float = 0.0
    """How far the digits of training are turned and stretched, of `classify`: the deviation of each number of the
    linear map."""

    batch: int = 32
    """Clips per update, drawn anew each time."""
    steps: int = 2000
    """Updates in all; the learning rate's schedule stretches over them."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup: int = 50
    """Steps of linear warm-up before the cosine decay to zero."""
    weight_decay: float = 0.01
    """Decoupled weight decay; not on biases."""

    eval_every: int = 100
    """Steps between evaluations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    val_clips: int = 1000
    """Clips of the validation, of images that training never sees; by them the kept weights are chosen."""
    test_clips: int = 2000
    """Clips of the test, of images that neither training nor validation sees. They are the same for every seed."""
    log_every: int = 10
    """Steps over which the training metrics are averaged for one line of the log."""
    seed: int = 0
    """Of the weights and the clips of training."""
    run_dir: Path | None = None
    """Folder of the run; default runs/video/<config's name>-seed<seed>."""


def check(config: Video) -> None:
    """Refuses settings that cannot be meant."""
    sizes = "batch steps eval_every val_clips test_clips log_every free"
    configs.check(
        config,
        [
            (sizes, "1 or more", lambda x: x >= 1),
            ("width", "3 or more", lambda x: x >= 3),
            ("shortest seen", "2 or more: one frame has no direction", lambda x: x >= 2),
            ("longest", "3 or more: the third frame is the first that can be foretold", lambda x: x >= 3),
            ("learning_rate", "above 0", lambda x: x > 0),
            ("dropout", "from 0 up to below 1", lambda x: 0 <= x < 1),
            ("warmup weight_decay warp seed", "0 or more", lambda x: x >= 0),
            (
                "size",
                f"a multiple of 4, and above the {DIGIT} pixels of a digit, which has to move",
                lambda x: x > DIGIT and x % 4 == 0,
            ),
        ],
    )
    configs.note_warmup(config)
    if config.longest < config.shortest:
        raise UserError(f"--longest is {config.longest}, but must be at least --shortest, {config.shortest}.")
    if not config.tasks or len(set(config.tasks)) < len(config.tasks):
        raise UserError(
            f"--tasks is {' '.join(config.tasks) or 'empty'}, but must have classify or predict, or both, each once."
        )
