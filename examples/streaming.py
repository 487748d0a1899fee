"""Streaming deployment: trained on whole sequences, exported as one step, served without rnnx, a carry for each client.

python examples/streaming.py --out step.jax     # trains a sensor monitor for some seconds, exports and serves it
python examples/streaming.py --serve step.jax   # lines "client value" on standard input; needs only jax and numpy

The monitor predicts the mean and the standard deviation of each next value, and reports a value more than 5 deviations
away. Clients come and go; one call of the exported step serves all clients that have sent a value.
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np


class Server:  # holds the carry of every client between its values
    def __init__(self, path: Path) -> None:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
        self.step, carries = jax.jit(exported.call), exported.in_avals[:-1]
        self.start = [np.zeros(leaf.shape[1:], leaf.dtype) for leaf in carries]  # the initial carry is zeros
        self.clients: dict[str, list[np.ndarray]] = {}

    def push(self, values: dict[str, float]) -> dict[str, tuple[float, float]]:
        """A value of each of some clients, to the mean and deviation of what each is expected to send next."""
        rows = 1 << (len(values) - 1).bit_length()  # filled up to a power of two: few sizes are compiled
        before = [self.clients.get(client, self.start) for client in values] + [self.start] * (rows - len(values))
        xs = np.pad(np.array([*values.values()], np.float32), (0, rows - len(values)))[:, None]
        carries, (mean, deviation) = jax.device_get(self.step([np.stack(leaves) for leaves in zip(*before)], xs))
        self.clients.update((client, [leaf[i] for leaf in carries]) for i, client in enumerate(values))
        return {client: (float(mean[i]), float(deviation[i])) for i, client in enumerate(values)}


def alarms(server: Server, lines):
    expected = {}
    for number, line in enumerate(lines, 1):
        client, value = line.split()
        mean, deviation = expected.get(client, (0.0, np.inf))
        if abs(float(value) - mean) > 5 * deviation:
            yield f"line {number}: {client} sent {float(value):.2f}, expected {mean:.2f} ± {deviation:.2f}"
        expected |= server.push({client: float(value)})


def make_series(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """Waves of any period and phase, with noise, `[rows, length]`."""
    period, phase = rng.uniform(8, 40, (rows, 1)), rng.uniform(0, 2 * np.pi, (rows, 1))
    return (np.sin(2 * np.pi * np.arange(length) / period + phase) + rng.normal(0, 0.1, (rows, length))).astype("f")


def train_and_export(out: Path, steps: int) -> None:
    import flax.linen as nn
    import optax

    import rnnx

    model, optimizer, rng = rnnx.stack(rnnx.lstm(32), nn.Dense(2)), optax.adam(3e-3), np.random.default_rng(0)

    def moments(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        return ys[..., 0], jax.nn.softplus(ys[..., 1]) + 1e-3

    @jax.jit
    def train_step(params, state, series: jax.Array):
        def loss(params):
            mean, deviation = moments(rnnx.unroll(model, params, series[:, :-1, None])[1])
            return (jnp.square((series[:, 1:] - mean) / deviation) / 2 + jnp.log(deviation)).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    params = model.init(jax.random.key(0), xs := jnp.zeros((1, 1, 1)))
    state = optimizer.init(params)
    for _ in range(steps):
        params, state, value = train_step(params, state, make_series(rng, 32, 100))
    print(f"loss after {steps} steps: {value:.3f}")
    leaves, structure = jax.tree.flatten(model.initial_carry(params, xs, None))

    @jax.jit
    def step(leaves, x: jax.Array):
        carry, ys = rnnx.unroll(model, params, x[:, None], carry=jax.tree.unflatten(structure, leaves))
        return jax.tree.leaves(carry), moments(ys[:, 0])

    (rows,) = jax.export.symbolic_shape("rows")
    *leaves, x = (jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype) for leaf in (*leaves, xs[:, 0]))
    out.write_bytes(jax.export.export(step, platforms=["cpu", "cuda", "tpu"])(leaves, x).serialize())


def main(steps: int, out: Path) -> list[str]:
    """The alarms about three clients of whom one sends a wrong value; prints how long a step of 64 clients takes."""
    train_and_export(out, steps)
    series = make_series(np.random.default_rng(1), 3, 200)
    series[1, 150] += 3
    found = list(alarms(Server(out), (f"client{i} {x}" for column in series.T for i, x in enumerate(column))))
    server, columns = Server(out), make_series(np.random.default_rng(2), 64, 101).T
    server.push(dict(enumerate(columns[0])))  # compiled
    begun = time.perf_counter()
    for column in columns[1:]:
        server.push(dict(enumerate(column)))
    micros = 1e4 * (time.perf_counter() - begun)
    print(*found, f"{micros:.0f} µs for a value of each of 64 clients; {out.stat().st_size:,} bytes", sep="\n")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("step.jax"))
    parser.add_argument("--serve", type=Path, help="this exported step, to the lines of standard input")
    given = parser.parse_args()
    if not given.serve:
        main(given.steps, given.out)
    else:
        for alarm in alarms(Server(given.serve), sys.stdin):
            print(alarm, flush=True)
