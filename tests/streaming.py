"""Streams a stack of cells step by step, as a program does that serves it: equal to whole sequences, memory flat.

python tests/streaming.py --steps 1000000
python tests/streaming.py --steps 1000000 --resets 0.001
"""

import argparse
import dataclasses
import functools
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import psutil

import rnnx

BATCH, FEATURES, CHUNK = 2, 3, 1000
EPS = float(np.finfo(np.float32).eps)


# A tree adds up in another order than step after step: whole sequences are not the same program.
TREE = rnnx.associative_scan(rnnx.cells.min_gru(8), sequential=False)
LAYER = rnnx.stack(rnnx.lstm(8), rnnx.gru(8), rnnx.lru(8), TREE, nn.Dense(4))


@functools.partial(jax.jit, donate_argnums=1)
def run(params: Any, carry: Any, xs: jax.Array, anew: jax.Array) -> Any:
    return rnnx.unroll(LAYER, params, xs, carry=carry, resets=anew)


@dataclasses.dataclass
class Streamed:
    """What was seen, chunk after chunk."""

    deviations: list[float]
    """Largest difference of streamed and whole outputs, over the largest output."""
    megabytes: list[float]
    """Of the process."""
    arrays: list[int]
    """Alive in JAX."""
    microseconds: float
    """A step, as the host sees it."""

    def growth(self) -> float:
        """Megabytes from the end of the first tenth to the end."""
        return self.megabytes[-1] - self.megabytes[len(self.megabytes) // 10]

    def drift(self) -> float:
        """How much larger deviations are in the last half than in the first, where those may be none."""
        half = len(self.deviations) // 2
        return max(self.deviations[half:]) / max(*self.deviations[:half], EPS)


def stream(steps: int, resets: float = 0.0, seed: int = 0) -> Streamed:
    """Runs the same inputs twice: in steps of one, and in chunks of a thousand; carries are passed on in both.

    `resets` is the chance that a row begins anew before a step.
    """
    draw, process = np.random.default_rng(seed), psutil.Process()
    example = jax.ShapeDtypeStruct((BATCH, 1, FEATURES), jnp.float32)
    params = LAYER.init(jax.random.key(seed), example)
    # Two copies: each is donated.
    one, whole = (jax.tree.map(jnp.copy, LAYER.initial_carry(params, example, None)) for _ in range(2))
    seen = Streamed([], [], [], 0.0)
    seconds = 0.0
    for _ in range(steps // CHUNK):
        xs = draw.normal(size=(BATCH, CHUNK, FEATURES)).astype(np.float32)
        anew = draw.random((BATCH, CHUNK)) < resets
        whole, expected = run(params, whole, xs, anew)
        began = time.perf_counter()
        ys = np.empty(expected.shape, np.float32)
        for t in range(CHUNK):
            one, y = run(params, one, xs[:, t : t + 1], anew[:, t : t + 1])
            ys[:, t] = y[:, 0]
        seconds += time.perf_counter() - began
        # Carries too: what is not read yet will be.
        pairs = zip(jax.tree.leaves((ys, one)), jax.tree.leaves((expected, whole)))
        seen.deviations.append(max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs))
        seen.megabytes.append(process.memory_info().rss / 1e6)
        seen.arrays.append(len(jax.live_arrays()))
    seen.microseconds = 1e6 * seconds / steps
    return seen


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=1_000_000)
    options.add_argument("--resets", type=float, default=0.0, help="chance that a row begins anew before a step")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    seen = stream(given.steps, given.resets, given.seed)
    print(
        f"{given.steps:,} steps: {seen.microseconds:.0f} µs each; "
        f"largest deviation {max(seen.deviations) / EPS:.1f} eps, last half over first half {seen.drift():.2f}; "
        f"memory grew by {seen.growth():.2f} MB after the first tenth; "
        f"arrays alive: {seen.arrays[1]} after two chunks, {seen.arrays[-1]} at the end"
    )


if __name__ == "__main__":
    main()
