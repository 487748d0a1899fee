"""The training loop of every experiment: steps, evaluations, checkpoints, and how a run ends."""

import collections
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Self, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.checkpoints import Checkpoints, HoldsNaN
from experiments.errors import UserError, explained
from experiments.logs import Columns, MetricsLog, ProgressLine
from experiments.settings import Experiment

State = TypeVar("State")

IN_FLIGHT = 2
"""Steps dispatched before the metrics of the first are fetched. The device never waits for the
host, and a non-finite loss is noticed this many steps late, but before any checkpoint is saved.
On several CPU devices it must stay below 32: see rnnx.sharded."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, when to evaluate and log, and when to stop early."""

    steps: int
    eval_every: int
    log_every: int
    monitor: str
    """The evaluation metric that decides on the best checkpoint and on stopping early."""
    higher_is_better: bool = False
    patience: int = 0
    """Evaluations without a new best before stopping; 0: never."""
    items: str = "examples"
    """The unit in which the speed is counted."""
    items_per_step: int = 1

    @classmethod
    def of(cls, config: Experiment, **more: Any) -> Self:
        """The plan from the shared settings; `more` are the fields that the experiment adds or overrides."""
        run = config.run
        shared = {"eval_every": run.eval_every, "log_every": run.log_every, "patience": run.patience}
        return cls(steps=config.train.steps, **{**shared, **more})


@dataclasses.dataclass
class Counters:
    """The part of the training state that the host keeps; saved with it."""

    best: float | None = None
    best_step: int = 0
    without_best: int = 0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Fitted(Generic[State]):
    """A finished training run: the state at the best evaluation, the steps and the time."""

    best: State
    best_step: int
    last_step: int
    seconds: float
    """Training time, evaluations and compilation included, summed over resumed sessions."""


def fit(
    run_dir: Path,
    initial_state: Callable[[], State],
    train_step: Callable[[State, Any], tuple[State, Mapping[str, jax.Array]]],
    data: Any,
    evaluate: Callable[[State], Mapping[str, float]],
    plan: Plan,
    columns: Columns,
    mesh: Mesh | None = None,
) -> Fitted[State]:
    """Trains from the newest checkpoint in `run_dir`, or from `initial_state()`.

    `train_step(state, data)` is a pure function that returns the next state and scalar metrics,
    including `loss`. It is compiled once, the state is donated to it, and `data` (any pytree) is
    passed to it unchanged. Its step number and random key must be part of the state, so that a
    resumed run continues exactly. On SIGTERM or SIGINT the run saves and exits with status 0.

    `mesh` holds the devices that `train_step` runs on, by default only the first one: the state and
    the data are copied to each of them before the first step, and the state stays there. A checkpoint
    does not depend on the devices, so a run may resume on others.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    placement = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)) if mesh is None else mesh, PartitionSpec())
    checkpoints = Checkpoints(run_dir / "checkpoints", monitor=plan.monitor, higher_is_better=plan.higher_is_better)
    like = jax.eval_shape(initial_state)
    restored = checkpoints.resume(like)
    if restored is None:
        step, state, counters = 0, jax.jit(initial_state)(), Counters()
    else:
        step, state = restored.step, restored.state
        counters = Counters(**restored.counters)
        del restored  # its state is donated to the first step
    if step and not _over(step, counters, plan):
        print(f"Resuming {run_dir} from step {step}.", flush=True)
    if not _over(step, counters, plan):
        session = _Session(run_dir, checkpoints, plan, columns, counters, step)
        # Made on one device and then copied: on several CPU devices the QR factorizations of orthogonal kernels
        # can wait for each other's threads forever.
        state, data = jax.device_put((state, data), placement)
        step = session.run(state, _compiled_once(train_step, placement), data, evaluate)
    best = checkpoints.best(like)
    return Fitted(best.state, best.step, step, counters.seconds)


def _over(step: int, counters: Counters, plan: Plan) -> bool:
    out_of_patience = 0 < plan.patience <= counters.without_best
    return step >= plan.steps or out_of_patience


def _compiled_once(function: Callable[..., Any], placement: NamedSharding) -> Callable[..., Any]:
    """Jitted with the state donated; a second trace is an error.

    A second trace would mean that a step changes the state's shapes or dtypes. That costs an
    unnoticed compilation, and a resumed run would give other numbers.
    """
    traces = 0

    def train_step(state: Any, data: Any) -> Any:
        nonlocal traces
        traces += 1
        if traces > 1:
            shapes = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", state)
            raise AssertionError(f"train_step returned a state unlike the one it was given: {shapes}")
        return function(state, data)

    return jax.jit(train_step, donate_argnums=0, out_shardings=placement)


class _Session:
    """One process's part of a run."""

    def __init__(
        self,
        run_dir: Path,
        checkpoints: Checkpoints,
        plan: Plan,
        columns: Columns,
        counters: Counters,
        step: int,
    ) -> None:
        self.run_dir, self.checkpoints, self.plan = run_dir, checkpoints, plan
        self.counters = counters
        self.started = time.monotonic() - counters.seconds
        self.log = MetricsLog(run_dir, step)
        self.progress = ProgressLine(step, plan.steps, columns, plan.items, plan.items_per_step)
        self.step = self.saved = step
        self.pending: collections.deque[tuple[int, Mapping[str, jax.Array]]] = collections.deque()
        self.window: list[Mapping[str, float]] = []

    def run(
        self,
        state: State,
        train_step: Callable[[State, Any], tuple[State, Mapping[str, jax.Array]]],
        data: Any,
        evaluate: Callable[[State], Mapping[str, float]],
    ) -> int:
        try:
            return self._run(state, train_step, data, evaluate)
        except Exception as error:
            reason = explained(error)
            if reason is None:
                raise
            raise UserError(f"Stopped at step {self.step}: {reason} {self._kept(self.checkpoints.newest())}.") from None

    def _run(
        self,
        state: State,
        train_step: Callable[[State, Any], tuple[State, Mapping[str, jax.Array]]],
        data: Any,
        evaluate: Callable[[State], Mapping[str, float]],
    ) -> int:
        plan = self.plan
        try:
            with self.progress, _StopRequest() as stop:
                while not _over(self.step, self.counters, plan):
                    state, metrics = train_step(state, data)
                    self.step += 1
                    self.pending.append((self.step, metrics))
                    self._fetch(IN_FLIGHT)
                    if self.step % plan.eval_every == 0 or self.step == plan.steps:
                        self._fetch(0)
                        self._evaluate_and_save(state, evaluate)
                    if stop.signal is not None:
                        self._fetch(0)
                        self._leave(state, stop.signal)
        finally:
            self.checkpoints.close()
            self.log.close()
        return self.step

    def _fetch(self, leave: int) -> None:
        """Brings the metrics of all but the last `leave` steps to the host."""
        while len(self.pending) > leave:
            step, arrays = self.pending.popleft()
            metrics = {name: float(value) for name, value in jax.device_get(dict(arrays)).items()}
            self._check(step, metrics)
            self.window.append(metrics)
            self.progress.update(step, metrics)
            if step % self.plan.log_every == 0:
                self._log_window(step)
        if leave == 0:  # before a checkpoint, so that no window spans one
            self._log_window(self.step)

    def _log_window(self, step: int) -> None:
        if self.window:
            count = len(self.window)
            self.log.write(step, {name: sum(m[name] for m in self.window) / count for name in self.window[0]})
            self.window.clear()

    def _evaluate_and_save(self, state: Any, evaluate: Callable[[Any], Mapping[str, float]]) -> None:
        metrics = {name: float(value) for name, value in evaluate(state).items()}
        self._check(self.step, metrics)
        score, counters = metrics[self.plan.monitor], self.counters
        sign = -1.0 if self.plan.higher_is_better else 1.0
        improved = counters.best is None or sign * score < sign * counters.best
        if improved:
            counters.best, counters.best_step, counters.without_best = score, self.step, 0
        else:
            counters.without_best += 1
        self.log.write(self.step, metrics)
        self._save(state, metrics)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        note = "best so far" if improved else f"best {counters.best:.4f} at {counters.best_step}"
        self.progress.say(f"step {self.step}: {shown} ({note})")
        if _over(self.step, counters, self.plan) and self.step < self.plan.steps:
            self.progress.say(f"Stopping early: no new best in {counters.without_best} evaluations.")

    def _save(self, state: Any, metrics: Mapping[str, float] | None) -> None:
        self.log.flush()
        self.counters.seconds = time.monotonic() - self.started
        try:
            self.checkpoints.save(self.step, state, dataclasses.asdict(self.counters), metrics)
        except HoldsNaN as problem:
            raise self._diverged(self.step, f"{problem} became NaN") from None
        self.saved = self.step

    def _leave(self, state: Any, received: signal.Signals) -> None:
        if self.step != self.saved:
            self._save(state, None)
        self.checkpoints.wait()
        self.progress.say(
            f"{received.name}: saved step {self.step} of {self.plan.steps} in {self.run_dir}. "
            "The same command resumes from there."
        )
        raise SystemExit(0)

    def _check(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self._diverged(step, f"{name} became {value}")

    def _diverged(self, step: int, what: str) -> UserError:
        self.checkpoints.wait()
        return UserError(
            f"Stopped: {what} at step {step}. {self._kept(self.saved)}; nothing was saved after it.\n"
            "The same command would fail at the same step again: begin a new run with another --run-dir and a lower "
            "learning rate or stricter clipping."
        )

    def _kept(self, step: int) -> str:
        kept = f"The checkpoint of step {step} is kept" if step else "No checkpoint was saved yet"
        return f"{kept} in {self.checkpoints.directory}"


class _StopRequest:
    """Records SIGTERM and SIGINT instead of dying, so that the step can be finished and saved.

    A second signal has its usual effect, which force-quits.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()
