"""The settings that experiments share, and how an experiment's settings are put together.

An experiment's config is a frozen dataclass of four others, its `data`, `model`, `train` and `run`. On the command line
and in config.json each setting has its own name, without that of its group.
"""

import abc
import dataclasses
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from experiments.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


class Range(NamedTuple):
    """The values that a setting accepts: in words, and as a test."""

    expected: str
    accepts: Callable[[Any], bool]


Count = Annotated[int, Range("1 or more", lambda x: x >= 1)]
Natural = Annotated[int, Range("0 or more", lambda x: x >= 0)]
Positive = Annotated[float, Range("above 0", lambda x: x > 0)]
NonNegative = Annotated[float, Range("0 or more", lambda x: x >= 0)]
Rate = Annotated[float, Range("at least 0 and below 1", lambda x: 0 <= x < 1)]
Share = Annotated[float, Range("between 0 and 1", lambda x: 0 <= x <= 1)]


class Settings:
    """A group of settings."""

    def check(self) -> None:
        """Raises UserError for settings that contradict each other; types and ranges have been checked before."""


@dataclasses.dataclass(frozen=True)
class Optimizer(Settings, abc.ABC):
    """The optimizer: AdamW after clipping, with a linear warm-up and a cosine decay of the learning rate."""

    batch: Count = 32
    """Examples per update."""
    learning_rate: Positive = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay; on matrices only, as biases need none."""
    clip: Positive = 1.0
    """Largest global norm of the gradient."""

    @property
    @abc.abstractmethod
    def total_updates(self) -> int:
        """The number of updates that the learning-rate schedule spans."""

    @property
    @abc.abstractmethod
    def warmup(self) -> int:
        """Updates of linear warm-up before the cosine decay: a setting, or a share of all updates."""

    def check(self) -> None:
        if self.warmup > self.total_updates:  # usual in a quick trial, so not an error
            print(
                f"--warmup is {self.warmup}, above the {self.total_updates} updates of the training: the learning rate "
                "does not reach its peak.",
                file=sys.stderr,
            )


@dataclasses.dataclass(frozen=True)
class Train(Optimizer):
    """How the model is trained."""

    steps: Count = 1000
    """Number of updates; the learning-rate schedule spans them."""
    warmup: Natural = 50
    """Updates of linear warm-up before the cosine decay."""

    @property
    def total_updates(self) -> int:
        return self.steps


@dataclasses.dataclass(frozen=True)
class TrainInChunks(Optimizer):
    """How the model is trained. A step of the training loop makes several updates, since a single one is too short."""

    updates: Count = 4000
    """Number of updates; the learning-rate schedule spans them."""
    updates_per_step: Count = 25
    """Updates in one step of the training loop, compiled together; this must divide the number of updates."""

    @property
    def total_updates(self) -> int:
        return self.updates

    @property
    def steps(self) -> int:
        return self.updates // self.updates_per_step

    def check(self) -> None:
        super().check()
        if self.updates % self.updates_per_step:
            raise UserError(
                f"--updates is {self.updates}, but must be a multiple of --updates-per-step, {self.updates_per_step}."
            )


@dataclasses.dataclass(frozen=True)
class Place(Settings):
    """The seed of the run, and where the run is kept."""

    seed: Natural = 0
    """Seed of everything random: weights, batches, noise."""
    run_dir: Path | None = None
    """Folder of the run; default runs/<experiment>/<config's name>-seed<seed>."""


@dataclasses.dataclass(frozen=True)
class Run(Place):
    """How the run is monitored, and where it is kept."""

    eval_every: Count = 100
    """Steps between evaluations; each is followed by a checkpoint. The last step is always evaluated too, so if this
    exceeds the number of steps there is one evaluation."""
    patience: Natural = 0
    """Evaluations without a new best before training stops early; 0: never."""
    log_every: Count = 10
    """Steps over which the training metrics are averaged for one line of the log."""


class Experiment(Settings):
    """The base of each experiment's config."""

    data: Any
    model: Any
    train: Any
    run: Any
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # set on each subclass
    added: ClassVar[Mapping[str, Any]] = {}
    """Settings introduced later, with the values that older runs, begun without them, had."""

    @classmethod
    def experiment(cls) -> str:
        """The name of its package."""
        return cls.__module__.split(".")[1]

    def check(self) -> None:
        for name in own_hints(type(self)):
            getattr(self, name).check()


def hints(kind: Any) -> dict[str, Any]:
    """Name -> type of each setting, whichever group it is in."""
    found: dict[str, Any] = {}
    for name, hint in own_hints(kind).items():
        found |= hints(hint) if dataclasses.is_dataclass(hint) else {name: hint}
    return found


def own_hints(kind: Any) -> dict[str, Any]:
    known = get_type_hints(kind, include_extras=True)
    return {field.name: known[field.name] for field in dataclasses.fields(kind)}


def flat(config: Any) -> dict[str, Any]:
    """Name -> value of each setting, whichever group it is in."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        found |= flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def replace(config: Config, **changes: Any) -> Config:
    """The config with other values for some settings, each given by its own name, whichever group it is in."""
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        group = getattr(config, field.name)
        if dataclasses.is_dataclass(group) and not isinstance(group, type):
            own = {name: changes.pop(name) for name in hints(type(group)) if name in changes}
            groups[field.name] = replace(group, **own)
    return dataclasses.replace(config, **groups, **changes)


def check_types(config: Any, where: str = "") -> None:
    """Refuses values of the wrong type, which a config file may hold, and values out of range."""
    for name, hint in own_hints(type(config)).items():
        value = getattr(config, name)
        expected = _expected(value, hint)
        if expected is not None:
            raise UserError(f"{where}--{name.replace('_', '-')} is {value!r}, but must be {expected}.")
        if dataclasses.is_dataclass(value):
            check_types(value, where)


def is_number(value: Any) -> bool:
    return _expected(value, float) is None


def _expected(value: Any, hint: Any) -> str | None:
    """What was expected instead of the value; None if the value fits."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = [extra for extra in options[1:] if isinstance(extra, Range)]
        return _expected(value, options[0]) or next((r.expected for r in ranges if not r.accepts(value)), None)
    if origin in (Union, types.UnionType):
        misfits = [_expected(value, option) for option in options]
        return None if None in misfits else " or ".join(map(str, misfits))
    if origin is Literal:
        return None if isinstance(value, str) and value in options else f"one of {', '.join(options)}"
    if origin is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        return next((f"a tuple, each {expected}" for item in value if (expected := _expected(item, options[0]))), None)
    if hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
        return None if fits else "a whole number, of 32 bits at most"
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        return None if fits else "a finite number"
    return None if isinstance(value, hint) else "None" if hint is types.NoneType else f"a {hint.__name__}"


def check_names(option: str, given: Sequence[str], known: Collection[str] | None = None, least: int = 1) -> None:
    """Refuses names that are unknown or given twice, and fewer than `least`."""
    strange = [name for name in given if known is not None and name not in known]
    if strange:
        raise UserError(f"--{option} has {', '.join(strange)}, but must be of: {', '.join(known or ())}.")
    if len(set(given)) < max(len(given), least):
        raise UserError(f"--{option} is {' '.join(given) or 'empty'}, but must have one name or more, each once.")
