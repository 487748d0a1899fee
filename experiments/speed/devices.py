"""`python -m experiments.speed.devices TASK` times a layer on one device and on all; prints the rows as JSON."""

import json
import sys
from typing import Any

import jax

import rnnx
from experiments.speed.agreement import random_net
from experiments.speed.measure import Row, both, compiled, interleaved
from experiments.speed.peers import LIBRARIES, versioned
from experiments.speed.peers.net import loss
from experiments.speed.peers.rnnx import LAYERS
from experiments.speed.shapes import Shape, parse


def measure(cell: str, shape: Shape, *, budget: float, rounds: int) -> list[Row]:
    params, xs = random_net(cell, shape)
    layer = LAYERS[cell](shape.width)
    layers = {"rnnx": layer, "rnnx.sharded": rnnx.sharded(layer)}
    calls: dict[str, Any] = {}
    programs = {}
    for name, each in layers.items():

        def run(params: Any, xs: Any, each: rnnx.Layer = each) -> jax.Array:
            return rnnx.unroll(each, params, xs)[1]

        def loss_of(params: Any, xs: Any, run: Any = run) -> jax.Array:
            return loss(run(params, xs))

        forward, gradient = compiled(run, params, xs), compiled(jax.value_and_grad(loss_of), params, xs)
        programs[name] = gradient
        # The arguments are on the devices where the program wants them, as in training, and not moved in every call.
        calls[f"forward {name}"] = forward.on(*jax.device_put((params, xs), forward.program.input_shardings[0]))
        calls[f"gradient {name}"] = gradient.on(*jax.device_put((params, xs), gradient.program.input_shardings[0]))
    times = interleaved(calls, budget=budget, rounds=rounds)
    rows = []
    for name, program in programs.items():
        measured = both(
            "devices",
            name,
            cell,
            shape,
            times,
            temp_mb=program.temp_mb,
            compile_s=program.seconds,
            devices=1 if name == "rnnx" else jax.local_device_count(),
        )
        rows.append(versioned(measured, LIBRARIES["rnnx"]))
    return rows


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    shape = parse(task.pop("shape"))
    print(json.dumps(measure(task.pop("cell"), shape, **task)))
