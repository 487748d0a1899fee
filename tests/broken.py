"""Cells and layers that keep the laws, and for each law one that breaks it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnnx


def leaky(**replaced: Any) -> rnnx.Cell:
    """A leaky integrator that keeps all laws, but for what is replaced."""

    def init(key, x):
        return {"rate": jnp.zeros(x.shape), "start": jnp.zeros(x.shape)}

    def initial_carry(params, x, key):
        return params["start"]

    def step(params, h, x):
        a = jax.nn.sigmoid(params["rate"]).astype(x.dtype)
        h = a * h + (1 - a) * jnp.tanh(x)
        return h, h

    return rnnx.cell(**{"init": init, "initial_carry": initial_carry, "step": step, **replaced})


def layer_with(around: Any) -> rnnx.Layer:
    """The layer of `leaky`, with `around(apply, params, carry, xs, lengths, resets, key)` for its `apply`."""
    layer = rnnx.scan(leaky())

    def apply(params, carry, xs, *, lengths=None, resets=None, key=None):
        return around(layer.apply, params, carry, xs, lengths, resets, key)

    return layer._replace(apply=apply)


def leaky_sum(**replaced: Any) -> rnnx.AssociativeCell:
    """A linear recurrence that keeps all laws, but for what is replaced."""
    functions = {
        "init": lambda key, x: {"keep": jnp.full(x.shape, 0.5)},
        "initial_carry": lambda params, x, key: jnp.zeros_like(params["keep"]),
        "lift": lambda params, x: (params["keep"].astype(x.dtype), x),
        "combine": lambda left, right: (left[0] * right[0], left[1] * right[0] + right[1]),
        "act": lambda h, element: element[0] * h + element[1],
        "readout": lambda params, h, x: h,
    }
    return rnnx.associative_cell(**{**functions, **replaced}, name="leaky_sum")


def valid(xs, lengths):
    """`[batch, time, 1]` booleans."""
    batch, time, _ = xs.shape
    lengths = jnp.full(batch, time) if lengths is None else lengths
    return (jnp.arange(time)[None] < lengths[:, None])[:, :, None]


def mixes_rows():
    def around(apply, params, carry, xs, lengths, resets, key):
        carry, ys = apply(params, carry, xs, lengths=lengths, resets=resets)
        mean = ys.mean(axis=0, keepdims=True)
        return carry, jnp.where(ys == 0, 0, ys - mean)

    return layer_with(around)


def counts_the_time_within_the_call():
    def around(apply, params, carry, xs, lengths, resets, key):
        time = jnp.arange(xs.shape[1], dtype=xs.dtype)[None, :, None]
        return apply(params, carry, xs + 0.1 * time, lengths=lengths, resets=resets)

    return layer_with(around)


def leaves_outputs_in_the_pads():
    def around(apply, params, carry, xs, lengths, resets, key):
        carry, ys = apply(params, carry, xs, lengths=lengths, resets=resets)
        return carry, jnp.where(valid(xs, lengths), ys, 1)

    return layer_with(around)


def masks_by_a_product():
    def around(apply, params, carry, xs, lengths, resets, key):
        carry, ys = apply(params, carry, xs, lengths=lengths, resets=resets)
        return carry, ys + valid(xs, lengths).astype(xs.dtype) * xs

    return layer_with(around)


def only_rate(key, x):
    return {"rate": jnp.zeros(x.shape)}


def resets_to_zeros():
    """Not to the initial carry, which is one."""
    ones, zeros = (
        rnnx.scan(leaky(init=only_rate, initial_carry=lambda params, x, key, n=n: jnp.full_like(params["rate"], n)))
        for n in (1, 0)
    )
    return zeros._replace(initial_carry=ones.initial_carry)


def resets_by_a_product():
    def step(params, h, x_and_reset):
        x, reset = x_and_reset
        a = jax.nn.sigmoid(params["rate"]).astype(x.dtype)
        h = a * h * (1 - reset) + (1 - a) * jnp.tanh(x)
        return h, h

    cell = rnnx.cell(only_rate, lambda params, x, key: jnp.zeros_like(params["rate"]), step)

    def around(apply, params, carry, xs, lengths, resets, key):
        resets = jnp.zeros(xs.shape[:2], bool) if resets is None else resets
        inputs = xs, resets.astype(xs.dtype)
        return rnnx.scan(cell).apply(params, carry, inputs, lengths=lengths, key=key)

    layer = rnnx.scan(leaky(init=only_rate, initial_carry=cell.initial_carry))
    return layer._replace(apply=layer_with(around).apply)


def scales_with_lengths_alone():
    def around(apply, params, carry, xs, lengths, resets, key):
        carry, ys = apply(params, carry, xs, lengths=lengths, resets=resets)
        return carry, ys if lengths is None or resets is not None else 2 * ys

    return layer_with(around)


def carry_like_the_input():
    return rnnx.scan(leaky(initial_carry=lambda params, x, key: params["start"].astype(x.dtype)))


def sums_in_half_precision():
    """In float32 it is exact enough; in bfloat16 it takes the difference of large numbers."""

    def step(params, h, x):
        a = jax.nn.sigmoid(params["rate"]).astype(x.dtype)
        h = a * h + (1 - a) * ((jnp.tanh(x) + 64) - 64 if x.dtype == jnp.bfloat16 else jnp.tanh(x))
        return h, h

    return rnnx.scan(leaky(step=step))


def weakly_typed_carry():
    """Which is in float32 beside params in bfloat16, too."""
    return rnnx.scan(leaky(init=only_rate, initial_carry=lambda params, x, key: jnp.full(x.shape, 0.5)))


def unused_parameter():
    def init(key, x):
        return {"rate": jnp.zeros(x.shape), "start": jnp.zeros(x.shape), "scale": jnp.ones(())}

    return rnnx.scan(leaky(init=init))


@jax.custom_jvp
def tanh_with_a_wrong_derivative(x):
    return jnp.tanh(x)


@tanh_with_a_wrong_derivative.defjvp
def _wrong(primals, tangents):
    y = jnp.tanh(primals[0])
    return y, 2 * (1 - y**2) * tangents[0]


def wrong_derivative():
    def step(params, h, x):
        h = tanh_with_a_wrong_derivative(h * jax.nn.sigmoid(params["rate"]).astype(x.dtype) + x)
        return h, h

    return rnnx.scan(leaky(step=step))


def only_reverse_mode():
    @jax.custom_vjp
    def tanh(x):
        return jnp.tanh(x)

    tanh.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, g: ((1 - y**2) * g,))

    def step(params, h, x):
        h = tanh(h * jax.nn.sigmoid(params["rate"]).astype(x.dtype) + x)
        return h, h

    return rnnx.scan(leaky(step=step))


def noise_of_its_own():
    random = np.random.default_rng(0)

    def around(apply, params, carry, xs, lengths, resets, key):
        if key is not None:
            shape = jax.ShapeDtypeStruct(xs.shape, xs.dtype)
            xs = xs + jax.pure_callback(lambda: random.normal(size=xs.shape).astype(xs.dtype), shape)
        return apply(params, carry, xs, lengths=lengths, resets=resets)

    return layer_with(around)


def wrong_batching_rule():
    @jax.custom_batching.custom_vmap
    def same(x):
        return x

    @same.def_vmap
    def _(size, batched, x):
        return 1.5 * x, batched[0]

    def around(apply, params, carry, xs, lengths, resets, key):
        carry, ys = apply(params, carry, xs, lengths=lengths, resets=resets)
        sign = same(jnp.sign(params["rate"])).astype(ys.dtype)[None, None]
        return carry, jnp.where(valid(xs, lengths), ys + sign, 0)

    return layer_with(around)


def needs_a_known_number_of_steps():
    def around(apply, params, carry, xs, lengths, resets, key):
        int(xs.shape[1])
        return apply(params, carry, xs, lengths=lengths, resets=resets)

    return layer_with(around)


def combine_in_the_other_order():
    return leaky_sum(combine=lambda left, right: (left[0] * right[0], right[1] * left[0] + left[1]))


def a_step_of_another_rate():
    def step(params, h, x):
        h = 0.9 * params["keep"].astype(x.dtype) * h + x
        return h, h

    return leaky_sum(step=step)


def a_product_of_its_own():
    return leaky_sum()._replace(product=lambda a, h: 2 * a * h)


def a_linearized_step_with_a_wrong_push():
    cell = rnnx.cells.elman(4)
    jvp = cell.step.jvp

    def twice(w, carry, residuals, dcarry, input_tangent):
        return jvp(w, carry, residuals, jax.tree.map(lambda d: 2 * d, dcarry), input_tangent)

    return cell._replace(step=rnnx.LinearizedStep(cell.step.forward, cell.step.input_tangent, twice))
