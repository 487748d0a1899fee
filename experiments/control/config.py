"""The settings of a run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, NonNegative, Positive, Range, Share, check_names

Cell = Literal["gru", "lstm", "min_gru", "memoryless"]


@dataclass(frozen=True)
class Data(settings.Settings):
    """The task."""

    task: Literal["cartpole", "memory_chain"] = "cartpole"
    """cartpole: CartPole-v1 without its velocities. memory_chain: MemoryChain-bsuite."""
    memory_length: Count = 30
    """For memory_chain: steps from the beginning to the decision."""


@dataclass(frozen=True)
class Model(settings.Settings):
    """The net."""

    cells: tuple[Cell, ...] = ("gru", "lstm", "min_gru", "memoryless")
    """The cells to compare. min_gru is linear in its state; memoryless is a dense layer instead of a cell."""
    width: Count = 64
    """Units of the encoder and of the cell."""

    def check(self) -> None:
        check_names("cells", self.cells)


@dataclass(frozen=True)
class Train(settings.Settings):
    """How the agent is trained, by PPO."""

    envs: Count = 16
    """Environments played side by side."""
    time: Count = 64
    """Steps of each environment in a rollout. Gradients reach back to its beginning, the state reaches further."""
    updates: Count = 400
    """Rollouts in all; the learning rate falls to zero over them."""
    epochs: Count = 4
    """Passes over each rollout."""
    minibatches: Count = 2
    """Parts into which the environments are split in each epoch, with an optimizer step for each."""
    learning_rate: Positive = 1e-3
    """Initial learning rate of Adam; it falls linearly to zero."""
    clip: Positive = 0.5
    """Largest global norm of the gradient."""
    discount: Share = 0.99
    """Discount factor, gamma."""
    trace: Share = 0.95
    """Lambda of generalized advantage estimation."""
    ratio_clip: Positive = 0.2
    """Epsilon of PPO: how far an action's probability ratio to the rollout may move from 1 before it is clipped."""
    reward_scale: Positive = 0.01
    """Factor on the rewards while learning. Values far above 1 have gradients that drown out the policy's."""
    value_weight: NonNegative = 0.5
    """Weight of the value's squared error in the loss."""
    entropy_weight: NonNegative = 0.0
    """Weight of the policy's entropy, which the loss rewards."""

    @property
    def steps(self) -> int:
        return self.updates

    def check(self) -> None:
        if self.envs % self.minibatches:
            raise UserError(f"--envs is {self.envs}, but must be a multiple of --minibatches, {self.minibatches}.")


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is evaluated, and where it is kept."""

    eval_every: Count = 10
    eval_episodes: Count = 64
    """Episodes per validation, with actions drawn from the policy."""
    test_episodes: Annotated[int, Range("16 or more", lambda x: x >= 16)] = 256
    """Episodes that the best checkpoint of each cell is scored on, with the likeliest action at each step; they are
    not those of the validations."""
    log_every: Count = 5


@dataclass(frozen=True)
class Control(settings.Experiment):
    """Trains one agent for each cell by PPO; every setting below can be overridden."""

    added: ClassVar = {"patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
