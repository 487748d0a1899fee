"""h_t = a_t h_{t-1} + b_t over arrays `[time, batch, width]`, and the gradient of a weighted sum of all h by a, b, h_0.

The floor is the time to move the same bytes without any recurrence: a and b are read and one such array is written; for
the gradient a, w and h are read and two such arrays are written.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnx
from experiments.errors import UserError
from experiments.speed import peers
from experiments.speed.agreement import TOLERANCE
from experiments.speed.measure import Case, Row, Tick, both, compiled, interleaved
from experiments.speed.shapes import LinearShape, Plan

Recurrence = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(a, b, h0) -> h`"""


def scan(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
    def step(h: jax.Array, ab: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h = ab[0] * h + ab[1]
        return h, h

    return jax.lax.scan(step, h0, (a, b))[1]


Element = tuple[jax.Array, jax.Array]


def combine(left: Element, right: Element) -> Element:
    return right[0] * left[0], right[0] * left[1] + right[1]


def associative_scan(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
    # h0 is merged into the first step, which is less work than one more element.
    first = jnp.expand_dims(a[0] * h0 + b[0], 0)
    return jax.lax.associative_scan(combine, (a, jnp.concatenate([first, b[1:]])))[1]


def memax(a: jax.Array, b: jax.Array, h0: jax.Array) -> jax.Array:
    """memax's semigroup scan; batch and width are the features of one sequence, so that it need not be vmapped."""
    from memax.linen.scans import semigroup_scan

    return semigroup_scan(combine, (jnp.ones_like(h0), h0), (a, b))[1]


def recurrences() -> dict[str, Recurrence]:
    found: dict[str, Recurrence] = {"rnnx": rnnx.linear_scan, "scan": scan, "associative_scan": associative_scan}
    return found | ({"memax": memax} if peers.installed(peers.MEMAX) else {})


def cases(plan: Plan) -> list[Case]:
    return [Case("linear", str(shape), functools.partial(measure, plan, shape)) for shape in plan.linear]


def inputs(shape: LinearShape) -> tuple[jax.Array, ...]:
    k_a, k_b, k_h, k_w = jax.random.split(jax.random.key(0), 4)
    a = jax.random.uniform(k_a, shape, minval=0.8, maxval=1.0)
    return a, jax.random.normal(k_b, shape), jax.random.normal(k_h, shape[1:]), jax.random.normal(k_w, shape)


def bytes_forward(a: jax.Array, b: jax.Array) -> jax.Array:
    return a + b


def bytes_gradient(a: jax.Array, b: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
    h = jax.lax.optimization_barrier(a + b)
    return w * h, w * a


def measure(plan: Plan, shape: LinearShape, tick: Tick) -> list[Row]:
    a, b, h0, w = inputs(shape)
    programs: dict[str, Any] = {}
    for name, run in recurrences().items():

        def weighted(a: Any, b: Any, h0: Any, w: Any, run: Recurrence = run) -> jax.Array:
            return jnp.sum(w * run(a, b, h0))

        programs[name] = compiled(run, a, b, h0), compiled(jax.value_and_grad(weighted, (0, 1, 2)), a, b, h0, w)
    calls = {
        "forward floor": compiled(bytes_forward, a, b).on(a, b),
        "gradient floor": compiled(bytes_gradient, a, b, w).on(a, b, w),
    }
    for name, (forward, gradient) in programs.items():
        calls[f"forward {name}"] = forward.on(a, b, h0)
        calls[f"gradient {name}"] = gradient.on(a, b, h0, w)
    check_all(calls, list(programs))
    times = interleaved(calls, budget=plan.budget, rounds=plan.rounds, tick=tick)
    rows = []
    for name in (*programs, "floor"):
        measured = both(
            "linear",
            name,
            "linear",
            shape,
            times,
            temp_mb=programs[name][1].temp_mb if name in programs else None,
            compile_s=programs[name][1].seconds if name in programs else None,
            note="" if name in programs else "moving the bytes",
        )
        of = {"rnnx": peers.LIBRARIES["rnnx"], "memax": peers.MEMAX}.get(name)
        rows.append({**measured, "version": peers.version(of) if of else jax.__version__})
    return rows


def check_all(calls: dict[str, Callable[[], Any]], names: list[str]) -> None:
    """Checks that all give the same states and gradients as `lax.scan`."""
    expected = calls["forward scan"](), calls["gradient scan"]()[1]
    for name in names:
        actual = calls[f"forward {name}"](), calls[f"gradient {name}"]()[1]
        for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)):
            difference = float(np.abs(np.asarray(x - y)).max() / np.abs(np.asarray(y)).max())
            if not difference <= TOLERANCE:
                raise UserError(
                    f"The linear recurrence of {name} differs from lax.scan's by {difference:.2g}: it is wrong."
                )
