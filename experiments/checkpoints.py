"""Checkpoints of the whole training state, written by orbax in the background and atomically."""

import dataclasses
import json
import logging
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.errors import UserError

State = TypeVar("State")

_DISCARDED = "discarded"
"""Folder of checkpoints that are about to be deleted."""

# Orbax also raises every error that it logs with a traceback, and we report it in one sentence.
logging.getLogger("absl").addFilter(lambda record: not record.exc_info)


@dataclasses.dataclass(frozen=True)
class Restored(Generic[State]):
    """A restored checkpoint: its step, the state, and the host's counters."""

    step: int
    state: State
    counters: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the newest two and the best by the metric `monitor`.

    Two, so that there is another to fall back on if one is damaged. A checkpoint without metrics
    (saved when the run was interrupted) can be one of the newest, but never the best.
    """

    def __init__(self, directory: Path, *, monitor: str, higher_is_better: bool = False) -> None:
        self.directory = directory.absolute()
        self._monitor = monitor
        self._sign = -1.0 if higher_is_better else 1.0
        self._manager: ocp.CheckpointManager | None = None

    def save(
        self,
        step: int,
        state: Any,
        counters: Mapping[str, Any],
        metrics: Mapping[str, float] | None,
    ) -> None:
        """Copies the state and returns; the copy is written in the background while the caller trains.

        The copy allows the caller to donate the state to its next step. Raises HoldsNaN, with
        nothing saved, for a state from which training could not continue.
        """
        host = jax.tree.map(_to_host, state)
        for path, leaf in jax.tree.leaves_with_path(host):
            # Infinities can be intended: a running maximum starts at -inf.
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and np.isnan(leaf).any():
                raise HoldsNaN(jax.tree_util.keystr(path))
        metrics = None if metrics is None else dict(metrics)
        counters = {**counters, "crc32": _checksum(host, dict(counters), metrics)}
        manager = self._open()
        manager.wait_until_finished()  # a pending save may still be moving a checkpoint into the folder cleared next
        self._clear()
        manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(host), counters=ocp.args.JsonSave(counters)),
            metrics=metrics,
        )

    def wait(self) -> None:
        """Returns when everything saved is on disk; raises the error of a failed write."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def close(self) -> None:
        if self._manager is not None:
            self._manager.close()
            self._manager = None
            self._clear()

    def resume(self, like: State) -> Restored[State] | None:
        """The newest good checkpoint, or None if the run has saved none yet.

        `like` is the state's tree of ShapeDtypeStructs. Every checkpoint is read once here, and
        damaged ones are moved out of the way, so that the run can save those steps again; if all
        are damaged, nothing is moved.
        """
        steps = self._steps()
        newest: Restored[State] | None = None
        damaged = {}
        for step in reversed(steps):
            try:
                restored = self._read(step, like)
                newest = newest or restored
            except _Damage as damage:
                damaged[step] = str(damage)
        if newest is None and damaged:
            raise self._nothing_left(damaged)
        for step, why in damaged.items():
            aside = self._set_aside(step)
            print(f"Checkpoint {step} is damaged and was moved to {aside}: {why}")
        if newest is not None and any(step > newest.step for step in damaged):
            print(f"Falling back to the previous good checkpoint, step {newest.step}.")
        return newest

    def best(self, like: State) -> Restored[State]:
        """The best good checkpoint by metric, or the newest if none has metrics. Moves nothing."""
        damaged = {}
        for step in self._from_the_best():
            try:
                restored = self._read(step, like)
            except _Damage as damage:
                damaged[step] = str(damage)
                continue
            for other, why in damaged.items():
                print(f"Checkpoint {other} is damaged: {why}")
            if damaged:
                print(f"Falling back to the next good checkpoint, step {step}.")
            return restored
        raise self._nothing_left(damaged)

    def newest(self) -> int:
        """The step of the newest complete checkpoint on disk, damaged or not; 0 if there is none."""
        return max(self._steps(), default=0)

    def _open(self) -> ocp.CheckpointManager:
        # Opened only at the first save, when damaged checkpoints are out of the way. Opening it
        # deletes what a killed save left, which a process that only reads the run must not do.
        if self._manager is None:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    # Given so that orbax writes the metrics; the policy decides which checkpoints are kept.
                    best_fn=lambda metrics: -self._sign * metrics[self._monitor],
                    preservation_policy=_NewestTwoAndBest(self._monitor, self._sign),
                    cleanup_tmp_directories=True,
                    todelete_subdir=_DISCARDED,
                ),
            )
        return self._manager

    def _clear(self) -> None:
        # Orbax renames a checkpoint before it is deleted: a kill while deleting in place would leave part of it.
        shutil.rmtree(self.directory / _DISCARDED, ignore_errors=True)

    def _steps(self) -> list[int]:
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def _from_the_best(self) -> list[int]:
        def order(step: int) -> tuple[bool, float, int]:
            try:
                path = self.directory / str(step) / "metrics" / "metrics"
                score = self._sign * json.loads(path.read_text(encoding="utf-8"))[self._monitor]
                return (False, score, step)
            except (OSError, ValueError, KeyError, TypeError):
                return (True, 0.0, -step)

        return sorted(self._steps(), key=order)

    def _read(self, step: int, like: State) -> Restored[State]:
        path = self.directory / str(step)
        raw = jax.tree.map(_host_like, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(raw), counters=ocp.args.JsonRestore())
        try:
            scored = path / "metrics" / "metrics"
            metrics = json.loads(scored.read_text(encoding="utf-8")) if scored.exists() else None
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                read = reader.restore(path, args=args)
            counters = dict(read["counters"])
            written: tuple[Any, ...] = ()
            if "checksum" in counters:  # early runs had a checksum of the arrays only
                expected = counters.pop("checksum")
            else:
                expected, written = counters.pop("crc32"), (counters, metrics)
        except Exception as error:  # what orbax raises depends on which of its files is damaged
            raise _Damage(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from None
        for (name, struct), leaf in zip(jax.tree.leaves_with_path(raw), jax.tree.leaves(read["state"]), strict=True):
            if (struct.shape, struct.dtype) != (leaf.shape, leaf.dtype):  # orbax does not check this
                raise _Damage(
                    f"{jax.tree_util.keystr(name)} is {leaf.dtype}{leaf.shape}, not {struct.dtype}{struct.shape}"
                )
        if _checksum(read["state"], *written) != expected:
            raise _Damage("its values are not the ones that were saved (the checksum differs)")
        return Restored(step, jax.tree.map(_from_host, like, read["state"]), counters)

    def _set_aside(self, step: int) -> Path:
        folder = self.directory.with_name("damaged_checkpoints")
        folder.mkdir(exist_ok=True)
        taken = len(list(folder.iterdir()))
        return (self.directory / str(step)).rename(folder / f"{step}-{taken}")

    def _nothing_left(self, damaged: Mapping[int, str]) -> UserError:
        if not damaged:
            return UserError(
                f"There is no checkpoint in {self.directory}: the run has not saved any yet, "
                "or this is not its folder. Train it first."
            )
        listed = "\n".join(f"  step {step}: {why}" for step, why in damaged.items())
        return UserError(
            f"All checkpoints in {self.directory} are damaged:\n{listed}\n"
            "None of them was changed. Restore one from a backup, or start a new run with another --run-dir."
        )


class HoldsNaN(Exception):
    """Names the part of a state that holds NaN."""


class _Damage(Exception):
    """Why a checkpoint cannot be used."""


@dataclasses.dataclass
class _NewestTwoAndBest:
    monitor: str
    sign: float

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        del context  # part of orbax's protocol
        scored = [info for info in checkpoints if info.metrics is not None]
        best = min(scored, key=lambda info: self.sign * info.metrics[self.monitor], default=None)
        newest = {info.step for info in checkpoints[-2:]}
        return [info.step in newest or info is best for info in checkpoints]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: jax.Array) -> np.ndarray:
    # A copy: on a CPU np.asarray would be a view of a buffer that is about to be donated.
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _host_like(leaf: Any) -> np.ndarray:
    raw = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
    return np.empty(raw.shape, raw.dtype)


def _from_host(like: Any, leaf: np.ndarray) -> jax.Array:
    # A copy again: memory that numpy owns could not be donated.
    array = jnp.array(leaf, copy=True)
    return jax.random.wrap_key_data(array) if _is_key(like) else array


def _checksum(host: Any, *written: Any) -> int:
    """CRC-32 over every leaf and over what is written as JSON: none of the files has its own checksum."""
    total = zlib.crc32("".join(json.dumps(part, sort_keys=True) for part in written).encode())
    for leaf in jax.tree.leaves(host):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total
