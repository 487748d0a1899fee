"""Measurements of rnnx alone: growth with time, memory, compile time, two devices."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import rnnx
from experiments.errors import UserError
from experiments.speed.agreement import random_net
from experiments.speed.measure import Case, Compiled, Row, Tick, compiled, interleaved, row
from experiments.speed.peers import LIBRARIES, versioned
from experiments.speed.peers.net import loss
from experiments.speed.peers.rnnx import LAYERS, plain
from experiments.speed.shapes import ON_TWO_DEVICES, Plan, Shape

FEATURES, WIDTH = 64, 128
GROWTH_BATCHES, GROWTH_TIMES = (1, 8), (256, 16384)
AUTODIFF = (Shape(8, 2048, FEATURES, WIDTH), Shape(8, 4096, FEATURES, WIDTH))
LONG = Shape(1, 65536, FEATURES, WIDTH)
KEPT_EVERY = 256
DEEP = Shape(32, 128, WIDTH, WIDTH)
DEPTH = 8
COMPILED_TIMES = 5


def every_output(ys: jax.Array) -> jax.Array:
    return loss(ys)


def last_output(ys: jax.Array) -> jax.Array:
    """One answer to a whole sequence. (A loss of all outputs keeps their squares, whatever the evaluator does.)"""
    return loss(ys[:, -1])


def gradient_of(
    layer: rnnx.Layer, params: Any, xs: jax.Array, of: Callable[[jax.Array], jax.Array] = every_output
) -> Compiled:
    """The compiled loss and its gradient by the params."""
    return compiled(jax.value_and_grad(lambda p, xs: of(rnnx.unroll(layer, p, xs)[1])), params, xs)


def gradients(
    section: str,
    variants: Mapping[str, rnnx.Layer],
    cell: str,
    shape: Shape,
    plan: Plan,
    tick: Tick,
    of: Callable[[jax.Array], jax.Array] = every_output,
) -> list[Row]:
    """Loss and gradient of layers with the same params; ratios are relative to the first."""
    params, xs = random_net(cell, shape)
    programs = {name: gradient_of(layer, params, xs, of) for name, layer in variants.items()}
    calls = {name: program.on(params, xs) for name, program in programs.items()}
    times = interleaved(calls, budget=plan.budget, rounds=plan.rounds, tick=tick)
    base = times[next(iter(variants))]
    return [
        ours(section, name, cell, shape, grad=times[name], base_grad=base, temp_mb=p.temp_mb, compile_s=p.seconds)
        for name, p in programs.items()
    ]


def ours(*args: Any, **kwargs: Any) -> Row:
    return versioned(row(*args, **kwargs), LIBRARIES["rnnx"])


def growth_cases(plan: Plan) -> list[Case]:
    return [
        *(Case("growth", f"batch {batch}", functools.partial(measure_growth, plan, batch)) for batch in GROWTH_BATCHES),
        *(
            Case("growth", f"autodiff at {shape}", functools.partial(measure_autodiff, plan, shape))
            for shape in AUTODIFF
        ),
    ]


def measure_growth(plan: Plan, batch: int, tick: Tick) -> list[Row]:
    """The time of one step within short and long sequences."""
    layer, calls, programs = rnnx.lstm(WIDTH), {}, {}
    shapes = {str(time): Shape(batch, time, FEATURES, WIDTH) for time in GROWTH_TIMES}
    for name, shape in shapes.items():
        params, xs = random_net("lstm", shape)
        programs[name] = gradient_of(layer, params, xs)
        calls[name] = programs[name].on(params, xs)
    times = interleaved(calls, budget=plan.budget, rounds=plan.rounds, tick=tick)
    short = str(GROWTH_TIMES[0])
    rows = []
    for name, shape in shapes.items():
        p = programs[name]
        measured = ours("growth", "rnnx", "lstm", shape, grad=times[name], temp_mb=p.temp_mb, compile_s=p.seconds)
        per_step = times[name] / shape.time
        measured["us_per_step"] = float(np.median(per_step) * 1e6)
        measured["per_step_ratio"] = float(np.median(per_step * GROWTH_TIMES[0] / times[short]))
        rows.append(measured)
    return rows


def measure_autodiff(plan: Plan, shape: Shape, tick: Tick) -> list[Row]:
    variants = {"rnnx": rnnx.lstm(shape.width), "rnnx scan": plain("lstm", shape.width)}
    return gradients("growth", variants, "lstm", shape, plan, tick)


def memory_cases(plan: Plan) -> list[Case]:
    cell = rnnx.cells.lstm(LONG.width)
    variants = {
        "rnnx scan": rnnx.scan(cell),
        f"rnnx scan, checkpoint_every={KEPT_EVERY}": rnnx.scan(cell, checkpoint_every=KEPT_EVERY),
    }
    measure: Callable[[Tick], list[Row]] = functools.partial(
        gradients, "memory", variants, "lstm", LONG, plan, of=last_output
    )
    return [Case("memory", f"lstm at {LONG}", measure)]


def compile_cases(plan: Plan) -> list[Case]:
    return [Case("compile", cell, functools.partial(measure_compile, plan, cell)) for cell in plan.cells]


def measure_compile(plan: Plan, cell: str, tick: Tick) -> list[Row]:
    """Compiles each in turn, always from empty caches. A first compilation is not counted: it loads code."""
    layers = {
        "rnnx": LAYERS[cell](DEEP.width),
        f"rnnx.repeat(layer, {DEPTH})": rnnx.repeat(LAYERS[cell](DEEP.width), DEPTH),
    }
    xs = jax.random.normal(jax.random.key(0), DEEP[:3])
    arguments = {name: (layer.init(jax.random.key(1), xs), xs) for name, layer in layers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    temp = {}
    for i in range(COMPILED_TIMES + 1):
        for name, layer in layers.items():
            jax.clear_caches()
            program = gradient_of(layer, *arguments[name])
            temp[name] = program.temp_mb
            if i:
                seconds[name].append(program.seconds)
        tick(i / COMPILED_TIMES)
    one = np.array(next(iter(seconds.values())))
    rows = []
    for name, of in seconds.items():
        measured = ours("compile", name, cell, DEEP, temp_mb=temp[name], compile_s=float(np.median(of)))
        rows.append({**measured, "compile_ratio": float(np.median(np.array(of) / one)), "rounds": COMPILED_TIMES})
    return rows


def device_cases(plan: Plan) -> list[Case]:
    return [
        Case("devices", f"{cell} at {shape}", functools.partial(measure_devices, plan, cell, shape))
        for cell in plan.cells
        for shape in ON_TWO_DEVICES
    ]


def measure_devices(plan: Plan, cell: str, shape: Shape, tick: Tick) -> list[Row]:
    """In a process of its own, as the number of devices is fixed when JAX starts."""
    task = json.dumps({"cell": cell, "shape": str(shape), "budget": plan.budget, "rounds": plan.rounds})
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.speed.devices", task]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"The process with two devices failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
