"""What a run logs: metrics.jsonl, TensorBoard events, and the progress line."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from experiments.errors import UserError

Metrics = Mapping[str, float]
Columns = Mapping[str, Callable[[Metrics], str]]
"""Caption of a column of the progress line -> how to write it, given a step's metrics."""


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl; a last line cut short by a kill is left out."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = {}
        numbers = row.values() if isinstance(row, dict) and isinstance(row.get("step"), int) else [None]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
            raise UserError(
                f"{path}, line {number} is damaged: {line[:80].decode(errors='replace')!r}, but expected a "
                "step and its metrics. Correct or delete that line, and give the same command again."
            )
        rows.append(row)
    return rows


class MetricsLog:
    """Appends to metrics.jsonl and to TensorBoard's events.

    A resumed run repeats the steps after its checkpoint, so what was logged after
    `from_step` is dropped first: each step is logged once.
    """

    def __init__(self, run_dir: Path, from_step: int) -> None:
        kept = [row for row in read_metrics(run_dir) if row["step"] <= from_step]
        path = run_dir / "metrics.jsonl"
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        partial.replace(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        (run_dir / "tensorboard").mkdir(exist_ok=True)
        # Not tensorboardX's SummaryWriter: it writes in a thread, and waits for it forever once the disk is full.
        self._events = EventsWriter(str(run_dir / "tensorboard" / "events"))
        self._event(from_step + 1, session_log=SessionLog(status=SessionLog.START))  # hides what was logged after

    def write(self, step: int, metrics: Metrics) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._event(step, summary=scalar(name, value))

    def _event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        """Called before a checkpoint is saved, so that nothing logged before it can be lost."""
        self._events.flush()

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            self._events.close()


class ProgressLine:
    """A live bar on a terminal, otherwise a plain line from time to time."""

    SECONDS_BETWEEN_PLAIN_LINES = 10.0

    def __init__(self, start: int, steps: int, columns: Columns, items: str, per_step: int) -> None:
        self._steps, self._columns = steps, columns
        self._items, self._per_step = items, per_step
        # The rate is measured from the first update, which comes after compilation.
        self._first: tuple[float, int] | None = None
        self._printed = 0.0
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self._task = self._bar.add_task("compiling", total=steps, completed=start)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, metrics: Metrics) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._printed = (now, step), now
            return
        began, start = self._first
        rate = (step - start) / max(now - began, 1e-3)
        shown = [f"{caption} {write(metrics)}" for caption, write in self._columns.items()]
        shown.append(f"{rate * self._per_step:,.0f} {self._items}/s")
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=" · ".join(shown))
        elif now - self._printed >= self.SECONDS_BETWEEN_PLAIN_LINES:
            self._printed = now
            left = int((self._steps - step) / rate)
            shown.append(f"{left // 60}:{left % 60:02d} left")
            print(f"step {step}/{self._steps}: {' · '.join(shown)}", flush=True)

    def say(self, text: str) -> None:
        """Prints a separate line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)
