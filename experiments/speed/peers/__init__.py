"""The libraries, one file for each. What each file has:

`prepare(cell, params, xs)` returns a `Prepared`; `stream(cell, params, x, steps)` a function that makes `steps` steps
in a closed loop and waits for them. Both return None if the library has no such cell. `cell` is "elman", "lstm" or
"gru", `params` are those of rnnx's layer of that name. If a library computes a cell differently, `NOTES[cell]` says
how.
"""

import importlib
import importlib.metadata
import importlib.util
from typing import Any, NamedTuple

from experiments.speed.measure import Row


class Library(NamedTuple):
    """Where a library is found."""

    module: str
    """The module in `experiments.speed.peers`."""
    needs: str
    distribution: str
    pip: str


LIBRARIES = {
    "rnnx": Library("rnnx", "rnnx", "rnnx", "-e ."),
    "rnnx scan": Library("rnnx_scan", "rnnx", "rnnx", "-e ."),
    "linen": Library("linen", "flax", "flax", "flax"),
    "nnx": Library("nnx", "flax", "flax", "flax"),
    "haiku": Library("haiku", "haiku", "dm-haiku", "dm-haiku"),
    "equinox": Library("equinox", "equinox", "equinox", "equinox"),
    "keras": Library("keras_jax", "keras", "keras", "keras"),
    "torch": Library("torch", "torch", "torch", "torch"),
}
PLAIN = "rnnx scan"
JAX_PEERS = tuple(name for name in LIBRARIES if name not in ("rnnx", PLAIN, "torch"))
MEMAX = Library("", "memax", "memax", "--no-deps memax jaxtyping beartype wadler-lindig")


def installed(library: Library) -> bool:
    return importlib.util.find_spec(library.needs) is not None


def load(name: str) -> Any:
    return importlib.import_module(f"experiments.speed.peers.{LIBRARIES[name].module}")


def note(name: str, cell: str) -> str:
    """What the library computes differently from rnnx's default."""
    return getattr(load(name), "NOTES", {}).get(cell, "")


def version(library: Library) -> str | None:
    try:
        return importlib.metadata.version(library.distribution)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return None


def versioned(row: Row, library: Library) -> Row:
    return {**row, "version": version(library)}
