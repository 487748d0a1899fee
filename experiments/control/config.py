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
    """Of memory_chain: steps from the beginning to the decision."""


@dataclass(frozen=True)
class Model(settings.Settings):
    """The net."""

    cells: tuple[Cell, ...] = ("gru", "lstm", "min_gru", "memoryless")
    """Which to compare. min_gru is linear in its state; memoryless is a dense layer instead of a cell."""
    width: Count = 64
    """Units of the encoder and of the cell."""

    def check(self) -> None:
        check_names("cells", self.cells)


@dataclass(frozen=True)
class Train(settings.Settings):
    """How it is trained: PPO."""

    envs: Count = 16
    """Environments played side by side."""
    time: Count = 64
    """Steps of each per update: a rollout. Gradients reach back to its beginning, the state does further."""
    updates: Count = 400
    """Rollouts in all; the learning rate falls to zero over them."""
    epochs: Count = 4
    """Times that a rollout is learned from."""
    minibatches: Count = 2
    """Parts into which the environments are split in each epoch, with a step of the optimizer for each."""
    learning_rate: Positive = 1e-3
    """Of Adam at the beginning; it falls linearly."""
    clip: Positive = 0.5
    """Largest global norm of the gradient."""
    discount: Share = 0.99
    """Gamma."""
    trace: Share = 0.95
    """Lambda of the generalized advantage estimation."""
    ratio_clip: Positive = 0.2
    """How far the probability of an action may move from that of the rollout before it earns nothing more."""
    reward_scale: Positive = 0.01
    """What rewards are multiplied by while learning. Values far above 1 have gradients that drown the policy's."""
    value_weight: NonNegative = 0.5
    """Of the value's squared error in the loss."""
    entropy_weight: NonNegative = 0.0
    """Of the policy's entropy, which the loss rewards."""

    @property
    def steps(self) -> int:
        return self.updates

    def check(self) -> None:
        if self.envs % self.minibatches:
            raise UserError(f"--envs is {self.envs}, but must be a multiple of --minibatches, {self.minibatches}.")


@dataclass(frozen=True)
class Run(settings.Run):
    """How it is evaluated, and where it is kept."""

    eval_every: Count = 10
    eval_episodes: Count = 64
    """Episodes of a validation, with actions drawn from the policy."""
    test_episodes: Annotated[int, Range("16 or more", lambda x: x >= 16)] = 256
    """Episodes that the best checkpoint of each cell is scored on, with the likeliest action at each step; other ones
    than those of the validations."""
    log_every: Count = 5


@dataclass(frozen=True)
class Control(settings.Experiment):
    """Trains one agent for each cell by PPO; every setting below can be overridden."""

    added: ClassVar = {"patience": 0}
    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()
