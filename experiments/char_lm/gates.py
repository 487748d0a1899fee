"""What the gates of a trained model do while it reads a sentence."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

import rnnx
from experiments.char_lm.model import make_layers
from experiments.char_lm.trained import Trained, check_text, read_trained, read_vocabulary
from experiments.config import parse
from experiments.errors import UserError
from experiments.settings import Count, Natural
from experiments.text import encode, pieces_of

ROLES = {"i": "learn", "f": "forget (0 forgets, 1 keeps)", "c": "remember", "o": "use"}
"""What the gates and the memory of an LSTM do."""


@dataclasses.dataclass(frozen=True)
class Gates:
    """Draws the gates of a trained model while it reads a text."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    text: str = "In the beginning God created the heaven and the earth."
    """What the model reads."""
    gates: tuple[str, ...] = ("i", "f", "c", "o")
    """What to draw: names that the cell gives its gates, or fields of its carry; for an LSTM i, f, g, o, h and c."""
    layer: Natural = 0
    """Which recurrent layer, counted from 0 at the input."""
    units: Count = 12
    """How many units to draw: those whose gates change most over the text."""
    out: Path = Path("gates.png")
    """The picture."""


def main(args: Sequence[str]) -> None:
    from experiments.char_lm import plots

    options = parse(Gates, args, command="python -m experiments.char_lm gates")
    vocab = read_vocabulary(options.run)
    check_text(options.run, vocab, options.text, "text")
    trained = read_trained(options.run, vocab)
    if options.layer >= trained.config.model.layers:
        raise UserError(f"--layer is {options.layer}, but the run has {trained.config.model.layers}: 0 is the first")
    pieces = pieces_of(options.text, vocab.level)
    values = gate_values(trained, encode(pieces, vocab), options.gates, options.layer)
    shown = liveliest(values, options.units)
    plots.gates(options.out, pieces, {name: v[:, shown] for name, v in values.items()}, shown, ROLES)
    print(options.out)


def gate_values(trained: Trained, tokens: np.ndarray, gates: Sequence[str], layer: int) -> dict[str, np.ndarray]:
    """The values `[time, units]` of each name while the model reads the tokens `[time]`."""
    settings = trained.config.model
    cell = getattr(rnnx.cells, settings.cell)(settings.width)
    below = make_layers(trained.config, len(trained.vocab.pieces))[: 2 + 2 * layer]
    params = {name: of for name, of in trained.params.items() if int(name.split("_")[0]) <= len(below)}

    def read(*names: str) -> Any:
        exposed = rnnx.expose(cell, *names, "carry")
        one = rnnx.as_cell(exposed) if isinstance(exposed, rnnx.AssociativeCell) else exposed
        return rnnx.unroll(rnnx.stack(*below, rnnx.scan(one)), params, tokens[None])[1]

    fields = getattr(jax.eval_shape(read)["carry"], "_fields", None)  # a bare array is h
    ys = read(*[name for name in gates if name not in (fields or ("h",))])
    carry = ys["carry"]._asdict() if fields else {"h": ys["carry"]}
    return {name: np.asarray({**ys, **carry}[name])[0] for name in gates}


def liveliest(values: Mapping[str, np.ndarray], units: int) -> np.ndarray:
    """The units whose gates change most, in index order."""
    change = sum(v.std(axis=0) / max(v.std(), 1e-6) for v in values.values())
    return np.sort(np.argsort(-change)[:units])
