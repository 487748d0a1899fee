"""The same nets in every library: forward, loss and gradient, memory, compile time, streaming."""

import functools

import jax
import jax.numpy as jnp

from experiments.speed import peers
from experiments.speed.agreement import check, check_streams, random_net
from experiments.speed.measure import Case, Row, Tick, both, compiled, interleaved, row
from experiments.speed.shapes import Plan, Shape, matrix_flops

PRODUCT = 1024
"""Rows and columns of the matrices whose product measures the speed of the machine."""
STREAM = Shape(1, 512, 256, 256)
"""A stream of 512 steps; each output is the next input, so both have the same width."""


def cases(plan: Plan) -> list[Case]:
    return [
        Case("nets", f"{cell} at {shape}", functools.partial(measure, plan, cell, shape)) for cell, shape in plan.nets
    ]


def measure(plan: Plan, cell: str, shape: Shape, tick: Tick) -> list[Row]:
    params, xs = random_net(cell, shape)
    nets = {name: peers.load(name).prepare(cell, params, xs) for name in plan.libraries}
    nets = {name: net for name, net in nets.items() if net is not None}
    deviation = check(cell, nets, params, xs)

    matrix = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT))
    calls = {"product": compiled(jnp.matmul, matrix, matrix).on(matrix, matrix)}
    for name, net in nets.items():
        calls[f"forward {name}"], calls[f"gradient {name}"] = net.forward, net.gradient
    times = interleaved(calls, budget=plan.budget, rounds=plan.rounds, tick=tick)

    rows = []
    for name, net in nets.items():
        measured = both(
            "nets",
            name,
            cell,
            shape,
            times,
            temp_mb=net.temp_mb,
            compile_s=net.compile_s,
            note=peers.note(name, cell),
            deviation=deviation,
        )
        rows.append(peers.versioned(measured, peers.LIBRARIES[name]))
    rate = 2 * PRODUCT**3 / times["product"]
    forward, gradient = matrix_flops(cell, shape)
    floor = row(
        "nets",
        "floor",
        cell,
        shape,
        forward=forward / rate,
        grad=gradient / rate,
        base_forward=times["forward rnnx"],
        base_grad=times["gradient rnnx"],
        note=f"matrix products at {float(jnp.median(rate)) / 1e9:.0f} GFLOP/s",
    )
    return [*rows, {**floor, "version": jax.__version__}]


def stream_cases(plan: Plan) -> list[Case]:
    return [Case("stream", cell, functools.partial(measure_stream, plan, cell)) for cell in plan.cells]


def measure_stream(plan: Plan, cell: str, tick: Tick) -> list[Row]:
    params, xs = random_net(cell, STREAM)
    loops = {name: peers.load(name).stream(cell, params, xs[:, 0], STREAM.time) for name in plan.libraries}
    loops = {name: loop for name, loop in loops.items() if loop is not None}
    check_streams(cell, loops)
    times = interleaved(loops, budget=plan.budget, rounds=plan.rounds, tick=tick)
    rows = []
    for name, seconds in times.items():
        measured = row(
            "stream", name, cell, STREAM, forward=seconds, base_forward=times["rnnx"], note=peers.note(name, cell)
        )
        measured["steps_per_s"] = STREAM.time / (measured["forward_ms"] / 1e3)
        rows.append(peers.versioned(measured, peers.LIBRARIES[name]))
    return rows
