"""The common form of all libraries' nets: functions without arguments, ready to be timed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import rnnx
from experiments.speed.measure import compiled

PyTree = Any


class Net(NamedTuple):
    """A net of a JAX library."""

    weights: PyTree
    run: Callable[[PyTree, jax.Array], jax.Array]
    """`(weights, xs [batch, time, features]) -> ys [batch, time, width]`"""
    back: Callable[[PyTree], tuple[rnnx.Layer, PyTree]]
    """`weights -> (layer, params)`: the layer of rnnx that computes the same, and its params."""
    start: Callable[[PyTree, jax.Array], PyTree]
    """`(weights, x [batch, features]) -> carry`"""
    step: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, jax.Array]]
    """`(weights, carry, x) -> (carry, y)`"""


class Prepared(NamedTuple):
    """A net that is ready to be timed."""

    forward: Callable[[], Any]
    """Returns the outputs, in any kind of array."""
    gradient: Callable[[], tuple[Any, PyTree]]
    """Returns the loss, and its gradient by the weights."""
    layer: rnnx.Layer
    """The layer of rnnx that computes the same."""
    pulled: Callable[[PyTree], PyTree]
    """Turns a gradient by that layer's params into the one by the weights."""
    temp_mb: float | None
    compile_s: float | None


def loss(ys: jax.Array) -> jax.Array:
    return jnp.mean(jnp.square(ys))


def prepared(net: Net, xs: jax.Array) -> Prepared:
    """The net's programs for these inputs."""

    def loss_of(weights: PyTree, xs: jax.Array) -> jax.Array:
        return loss(net.run(weights, xs))

    def pulled(gradient: PyTree) -> PyTree:
        return jax.jit(lambda weights, g: jax.vjp(lambda w: net.back(w)[1], weights)[1](g)[0])(net.weights, gradient)

    forward = compiled(net.run, net.weights, xs)
    gradient = compiled(jax.value_and_grad(loss_of), net.weights, xs)
    calls = forward.on(net.weights, xs), gradient.on(net.weights, xs)
    return Prepared(*calls, net.back(net.weights)[0], pulled, gradient.temp_mb, gradient.seconds)


def streamed(net: Net, x: jax.Array, steps: int) -> Callable[[], Any]:
    """The closed loop, as one program: each output is the next input."""

    def run(weights: PyTree, x: jax.Array) -> jax.Array:
        def body(state: PyTree, _: None) -> tuple[PyTree, jax.Array]:
            carry, y = net.step(weights, *state)
            return (carry, y), y

        return jax.lax.scan(body, (net.start(weights, x), x), length=steps)[1]

    return compiled(run, net.weights, x).on(net.weights, x)
