"""The settings of a run."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import config as configs
from experiments.errors import UserError

Task = Literal["cartpole", "memory_chain"]
Cell = Literal["gru", "lstm", "min_gru", "memoryless"]


@dataclasses.dataclass(frozen=True)
class Control:
    """Trains one agent for each cell by PPO; every setting below can be overridden."""

    task: Task = "cartpole"
    """cartpole: CartPole-v1 without its velocities. memory_chain: MemoryChain-bsuite."""
    memory_length: int = 30
    """Of memory_chain: steps from the beginning to the decision."""

    cells: tuple[Cell, ...] = ("gru", "lstm", "min_gru", "memoryless")
    """Which to compare. min_gru is linear in its state; memoryless is a dense layer instead of a cell."""
    width: int = 64
    """Units of the encoder and of the cell."""

    envs: int = 16
    """Environments played side by side."""
    time: int = 64
    """Steps of each per update: a rollout. Gradients reach back to its beginning, the state does further."""
    updates: int = 400
    """Rollouts in all; the learning rate falls to zero over them."""
    epochs: int = 4
    """Times that a rollout is learned from."""
    minibatches: int = 2
    """Parts into which the environments are split in each epoch, with a step of the optimiser for each."""

    learning_rate: float = 1e-3
    """Of Adam at the beginning; it falls linearly."""
    clip: float = 0.5
    """Largest global norm of the gradient."""
    discount: float = 0.99
    """Gamma."""
    trace: float = 0.95
    """Lambda of the generalised advantage estimation."""
    ratio_clip: float = 0.2
    """How far the probability of an action may move from that of the rollout before it earns nothing more."""
    reward_scale: float = 0.01
    """What rewards are multiplied by while learning. Values far above 1 have gradients that drown the policy's."""
    value_weight: float = 0.5
    """Of the value's squared error in the loss."""
    entropy_weight: float = 0.0
    """Of the policy's entropy, which the loss rewards."""

    eval_every: int = 10
    """Updates between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    eval_episodes: int = 64
    """Episodes of a validation, with actions drawn from the policy."""
    test_episodes: int = 256
    """Episodes that the best checkpoint of each cell is scored on, with the likeliest action at each step; other ones
    than those of the validations."""
    log_every: int = 5
    """Updates over which the training metrics are averaged for one line of the log."""
    seed: int = 0
    """Of the weights, the environments and the actions."""
    run_dir: Path | None = None
    """Folder of the run; default runs/control/<config's name>-seed<seed>."""


def check(config: Control) -> None:
    sizes = "memory_length width envs time updates epochs minibatches eval_every eval_episodes log_every"
    configs.check(
        config,
        [
            (sizes, "1 or more", lambda x: x >= 1),
            ("test_episodes", "16 or more", lambda x: x >= 16),
            ("learning_rate clip ratio_clip reward_scale", "above 0", lambda x: x > 0),
            ("value_weight entropy_weight", "0 or more", lambda x: x >= 0),
            ("discount trace", "between 0 and 1", lambda x: 0 <= x <= 1),
        ],
    )
    if not config.cells or len(set(config.cells)) < len(config.cells):
        raise UserError(f"--cells is {' '.join(config.cells) or 'empty'}, but must name each cell once.")
    if config.envs % config.minibatches:
        raise UserError(f"--envs is {config.envs}, but must be a multiple of --minibatches, {config.minibatches}.")
