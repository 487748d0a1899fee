"""Kills runs at random moments and damages their checkpoints: each must end with the bits of an undisturbed run.

python tests/soak.py --kills 200 --seed 0

What is killed when, by which signal, and what is damaged how, follows from the
seed, as far as moments can. The exit status is 1 if a run ended otherwise than undisturbed; all folders are kept then.
"""

import argparse
import concurrent.futures
import dataclasses
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[1]
# Most of the time of so small a run goes into making its code fast.
ENVIRONMENT = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
LONGEST = 300.0
"""Seconds that a process may take to end, by itself or after a signal."""

# Every step is logged by itself: a signal saves in the midst of a window, which would end there.
EXPERIMENTS = {
    "char_lm": "configs/char_lm/kjv.py --steps 600 --eval-every 60 --log-every 1 --warmup 10 --patience 0 --width 8 "
    "--embed 4 --batch 2 --time 8 --train-fraction 0.9 --eval-rows 4 --eval-chars 400 --eval-warmup 16 "
    "--sample-length 40 --corpus {corpus}",
    "forecast": "configs/forecast/quick.py --steps 600 --eval-every 60 --log-every 1 --test 40 --validation 40 "
    "--stride 20 --context 20 --shortest 20 --members 2 --width 4 --batch 8",
    "memory": "configs/memory/quick.py --updates 400 --updates-per-step 2 --eval-every 20 --eval-batch 8 --warmup 10 "
    "--tasks recall --cells lstm min_gru --judged-by lstm_recall --recall-delay 2 --width 4 --batch 4",
}


def write_corpus(path: Path) -> Path:
    """Sentences of a few words: enough structure for a loss that falls."""
    draw = random.Random(0)
    words = ["the", "cat", "dog", "sees", "hears", "a", "bird", "tree", "and"]
    path.write_text("".join(" ".join(draw.choices(words, k=6)).capitalize() + ".\n" for _ in range(300)))
    return path


class Run:
    """A folder, and the command that fills it, however often it is killed."""

    def __init__(self, experiment: str, arguments: str, number: int, folder: Path) -> None:
        self.name = f"{experiment} run {number}"
        self.folder = folder / f"{experiment}-{number}" / "run"
        self.folder.parent.mkdir()
        given = arguments.format(corpus=folder / "corpus.txt").split()
        self.command = [sys.executable, "-m", f"experiments.{experiment}", *given, "--run-dir", str(self.folder)]
        self.printed = self.folder.with_name("printed.txt")

    def start(self) -> subprocess.Popen[bytes]:
        with self.printed.open("wb") as file:
            return subprocess.Popen(self.command, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=file)

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()

    def checkpoints(self) -> list[Path]:
        """Of all its trainings, the newest last."""
        # A folder's own time will not do: it changes when a file in it is removed.
        found = [path for path in self.found("checkpoints/*") if path.name.isdigit()]
        return sorted(found, key=lambda path: (modified(path.parents[1] / "metrics.jsonl"), int(path.name)))

    def half_written(self) -> set[Path]:
        return set(self.found("checkpoints/*tmp*"))

    def found(self, pattern: str) -> list[Path]:
        """In the folder of any of its trainings; pathlib's glob would trip over what is just now being removed."""
        return [Path(p) for depth in ("", "*/", "*/*/") for p in glob.glob(f"{self.folder}/{depth}{pattern}")]


def modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # gone since it was listed
        return 0.0


# What a run left


def left_by(run_dir: Path) -> dict[str, Any]:
    """All of a finished run that is the same however it came about: numbers, texts and states, without times."""
    left: dict[str, Any] = {}
    for path in sorted(path for path in run_dir.rglob("*") if path.is_file()):
        if path.name == "lock.json":  # which process had it last
            continue
        if path.suffix == ".json":
            left[str(path.relative_to(run_dir))] = without_times(json.loads(path.read_text()))
        elif not {"checkpoints", "tensorboard", "damaged_checkpoints"} & set(path.parts):
            left[str(path.relative_to(run_dir))] = None if path.suffix == ".png" else path.read_text()
    for checkpoints in sorted(run_dir.rglob("checkpoints")):
        newest = max(int(path.name) for path in checkpoints.iterdir())  # a finished run leaves nothing half written
        counters = without_times(json.loads((checkpoints / str(newest) / "counters" / "metadata").read_text()))
        left[f"{checkpoints.relative_to(run_dir)}: counters"] = counters
        for step in (newest, counters["best_step"]):
            metrics = json.loads((checkpoints / str(step) / "metrics" / "metrics").read_text())
            left[str((checkpoints / str(step)).relative_to(run_dir))] = metrics, bits(checkpoints / str(step) / "state")
    return left


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        # crc32 covers the seconds beside it; of the arrays, all bits are compared.
        return {name: without_times(part) for name, part in value.items() if name not in ("seconds", "crc32")}
    return [without_times(part) for part in value] if isinstance(value, list) else value


reading = threading.Lock()


def bits(state: Path) -> dict[str, tuple[Any, ...]]:
    """Of every array, by its place."""
    with reading, ocp.StandardCheckpointer() as reader:
        arrays = ocp.utils.to_flat_dict(reader.restore(state))
    return {"/".join(map(str, at)): (str(a.dtype), a.shape, np.asarray(a).tobytes()) for at, a in arrays.items()}


def differences(left: dict[str, Any], undisturbed: dict[str, Any]) -> list[str]:
    absent = object()
    return [n for n in sorted({*left, *undisturbed}) if left.get(n, absent) != undisturbed.get(n, absent)]


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """How a run goes that nobody kills."""

    left: dict[str, Any]
    last: str
    """The last checkpoint of its last training."""
    training: float
    """Seconds until it trains."""
    reporting: float
    """Until its last checkpoint is whole."""
    end: float


def undisturbed(run: Run) -> Undisturbed:
    began, wall = time.monotonic(), time.time()
    process = run.start()
    if process.wait(LONGEST):
        raise SystemExit(f"{run.name}, which nobody killed, failed:\n{run.printed.read_text()}")
    end, last = time.monotonic() - began, run.checkpoints()[-1]
    imported = modified(run.folder / "config.json") - wall
    return Undisturbed(left_by(run.folder), str(last.relative_to(run.folder)), imported, modified(last) - wall, end)


# When to kill: `came` is asked until it is true, then the seconds `after` it pass.

Moment = tuple[Callable[[], bool], float]


def starting(run: Run, draw: random.Random, way: Undisturbed) -> Moment:
    """In the midst of imports, or of reading checkpoints."""
    return (lambda: True), draw.uniform(0.0, 1.3 * way.training)


def training(run: Run, draw: random.Random, way: Undisturbed) -> Moment:
    """In any step, evaluation or compilation."""

    def logs() -> float:
        return max(map(modified, run.found("metrics.jsonl")), default=0.0)

    before = logs()
    return (lambda: logs() > before), draw.uniform(0.0, 0.7 * (way.reporting - way.training))


def saving(run: Run, draw: random.Random, way: Undisturbed) -> Moment:
    """While one of the next checkpoints is written: that takes some milliseconds."""
    seen = run.half_written()
    enough = len(seen) + draw.randint(1, 5)

    def actual() -> bool:
        seen.update(run.half_written())
        return len(seen) >= enough

    return actual, draw.uniform(0.0, 0.03)


def reporting(run: Run, draw: random.Random, way: Undisturbed) -> Moment:
    """After the last training: while scores, samples, pictures and results are made."""
    imported = time.monotonic() + way.training
    last = run.folder / way.last
    return (lambda: last.exists() and time.monotonic() > imported), draw.uniform(0.0, way.end - way.reporting)


# What to do to the newest checkpoint


def truncate(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(max(path.stat().st_size, 1))])


def flip(path: Path, draw: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(min(len(raw), 3)):
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    path.write_bytes(raw)


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def damage(checkpoint: Path, draw: random.Random) -> str:
    """Does one of these to one file of it, to several or to all; says what."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    if not files:
        return "nothing left to damage"
    how = draw.choice([truncate, flip, empty, remove])
    chosen = draw.sample(files, draw.choice([1, 1, draw.randint(1, len(files)), len(files)]))
    for path in chosen:
        how(path, draw)
    few = ", ".join(str(path.relative_to(checkpoint)) for path in chosen[:2])
    return f"{how.__name__} {len(chosen)} of {len(files)} files ({few}{', ...' if len(chosen) > 2 else ''})"


# The soak


@dataclasses.dataclass
class Tally:
    """What happened."""

    kills: int = 0
    resumes: int = 0
    """Starts after a kill that went on from a checkpoint."""
    damaged: int = 0
    refused: int = 0
    """Starts that found every checkpoint damaged and said so; then copies were put back, as they ask for."""
    half_written: int = 0
    """Kills that left a checkpoint which was being written."""
    runs: int = 0
    """That came to their end and were compared."""
    mismatches: list[str] = dataclasses.field(default_factory=list)


class Soak:
    """`experiments`: their names, and the arguments of each."""

    def __init__(self, kills: int, seed: int, experiments: Mapping[str, str], workers: int, folder: Path) -> None:
        self.kills, self.seed, self.experiments, self.workers, self.folder = kills, seed, experiments, workers, folder
        self.tally, self.lock, self.begun = Tally(), threading.Lock(), 0
        write_corpus(folder / "corpus.txt")

    def run(self) -> Tally:
        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:
            alone = [Run(*experiment, 0, self.folder) for experiment in self.experiments.items()]
            self.ways = dict(zip(self.experiments, pool.map(undisturbed, alone)))
            for done in [pool.submit(self.work) for _ in range(self.workers)]:
                done.result()
        return self.tally

    def work(self) -> None:
        while self.tally.kills < self.kills:
            with self.lock:
                self.begun += 1
                number = self.begun
            experiment, arguments = list(self.experiments.items())[number % len(self.experiments)]
            run, draw = Run(experiment, arguments, number, self.folder), random.Random(f"{self.seed} {number}")
            wrong = Disturbed(run, draw, self.ways[experiment], self).go()
            with self.lock:
                self.tally.runs += 1
                self.tally.mismatches += [f"{run.name}: {what}" for what in wrong]
            for what in wrong:
                self.say(f"WRONG {run.name}: {what}")
            if not wrong:
                shutil.rmtree(run.folder.parent)

    def count(self, **more: int) -> None:
        with self.lock:
            for name, number in more.items():
                setattr(self.tally, name, getattr(self.tally, name) + number)

    def say(self, text: str) -> None:
        print(f"{self.tally.kills:4}/{self.kills}  {text}", flush=True)


class Disturbed:
    """A run that is killed some times, then left to come to its end."""

    def __init__(self, run: Run, draw: random.Random, way: Undisturbed, soak: Soak) -> None:
        self.run, self.draw, self.way, self.soak = run, draw, way, soak
        self.wrong: list[str] = []
        self.copies: dict[Path, Path] = {}
        """Of checkpoints, before they were damaged."""

    def go(self) -> list[str]:
        moments = [starting, training, training, saving, saving]
        self.draw.shuffle(moments)
        for moment in [*moments, reporting, reporting, None, None, None]:
            if self.run.finished or self.wrong:
                break
            self.once(moment if self.soak.tally.kills < self.soak.kills else None)
        if not self.wrong:
            self.wrong = (
                [f"{name} differs" for name in differences(left_by(self.run.folder), self.way.left)]
                if self.run.finished
                else ["does not come to its end"]
            )
        return self.wrong

    def once(self, moment: Callable[..., Moment] | None) -> None:
        number = self.draw.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])
        actual, after = moment(self.run, self.draw, self.way) if moment else ((lambda: False), 0.0)
        process = self.run.start()
        killed = self.kill(process, number, actual, after)
        try:
            status = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            process.kill()
            self.wrong.append(f"did not end in {LONGEST:.0f} s; it had printed:\n{self.run.printed.read_text()}")
            return
        printed = self.run.printed.read_text(errors="replace")
        self.soak.count(resumes="Resuming " in printed)
        self.look_at(printed)
        if killed:
            self.after_kill(number, moment.__name__ if moment else "", status, printed)
        elif status == 1 and "All checkpoints in" in printed and self.copies:
            self.put_back()
        elif status != 0:
            self.wrong.append(f"ended by itself with status {status}:\n{printed}")

    def kill(
        self, process: subprocess.Popen[bytes], number: signal.Signals, actual: Callable[[], bool], after: float
    ) -> bool:
        """Returns whether the process was alive then."""
        deadline = time.monotonic() + LONGEST
        while process.poll() is None and time.monotonic() < deadline:
            if actual():
                time.sleep(after)
                process.send_signal(number)
                return process.returncode is None
            time.sleep(0.001)
        return False

    def after_kill(self, number: signal.Signals, moment: str, status: int, printed: str) -> None:
        # Outside the training SIGTERM ends the process as it ends any; of SIGINT experiments.command makes 130.
        allowed = {-number} if number == signal.SIGKILL else {0, -number, 128 + number}
        if status == 0 and not self.run.finished and "The same command resumes from there" not in printed:
            allowed = set()
        if status not in allowed:
            self.wrong.append(f"{number.name} while {moment} ended it with status {status}:\n{printed}")
        self.soak.count(kills=1, half_written=bool(self.run.half_written()))
        what = f"{self.run.name}: {number.name} while {moment}"
        half = 2 * self.soak.tally.damaged < self.soak.tally.kills
        if half and self.run.checkpoints() and not self.run.finished:
            newest = self.run.checkpoints()[-1]
            if newest not in self.copies:  # else it may still be damaged; and if it was made again, then alike
                self.copies[newest] = self.run.folder.with_name(f"copy{len(self.copies)}")
                shutil.copytree(newest, self.copies[newest])
            what += f"; {newest.relative_to(self.run.folder)}: {damage(newest, self.draw)}"
            self.soak.count(damaged=1)
        self.soak.say(what)

    def look_at(self, printed: str) -> None:
        """Only what was damaged may be called damaged."""
        named = {int(step) for step in re.findall(r"^Checkpoint (\d+) is damaged", printed, re.MULTILINE)}
        innocent = named - {int(path.name) for path in self.copies}
        if innocent:
            self.wrong.append(f"calls checkpoints {innocent} damaged, which nobody touched:\n{printed}")

    def put_back(self) -> None:
        self.soak.count(refused=1)
        for place, copy in self.copies.items():
            if place.exists():
                shutil.rmtree(place)
                shutil.copytree(copy, place)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    options.add_argument("--workers", type=int, default=2, help="runs at the same time")
    options.add_argument("--json", type=Path, help="where to write the tally")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    experiments = {name: EXPERIMENTS[name] for name in given.experiments}
    tally = Soak(given.kills, given.seed, experiments, given.workers, folder).run()
    counts = {**dataclasses.asdict(tally), "seconds": round(time.monotonic() - began), "seed": given.seed}
    if given.json:
        given.json.write_text(json.dumps(counts, indent=2) + "\n")
    shown = {**counts, "mismatches": len(tally.mismatches)}
    print(", ".join(f"{name.replace('_', ' ')} {number}" for name, number in shown.items()))
    if tally.mismatches:
        raise SystemExit(f"Look at the runs in {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
