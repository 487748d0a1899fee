"""Helpers for the linear cells: products in float32 or wider for the state, discretisations, initialisers, norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rnnx.base import Key, Params, PyTree
from rnnx.cells._kernels import Initializer, features_of, per_gate
from rnnx.linear import Complex, complex_product
from rnnx.sequences import upcast


def exponential(x: Complex) -> Complex:
    scale = jnp.exp(x.re)
    return Complex(scale * jnp.cos(x.im), scale * jnp.sin(x.im))


def held(rate: Complex, step: jax.Array) -> tuple[Complex, Complex]:
    """Discretises dh/dt = rate h + u by zero-order hold over a time `step`; returns the factors of h and u."""
    z = Complex(rate.re * step, rate.im * step)
    a = exponential(z)
    # a - 1 without cancellation: in float32 the plain difference loses four digits for a short step.
    less_one = Complex(jnp.expm1(z.re) * jnp.cos(z.im) - 2 * jnp.sin(z.im / 2) ** 2, a.im)
    size = rate.re**2 + rate.im**2
    return a, complex_product(less_one, Complex(rate.re / size, -rate.im / size))


def outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """The outer product `a b^T` of each head."""
    return jnp.einsum("hk,hv->hkv", a, b)


def exp_of(log: jax.Array) -> jax.Array:
    """A rate or scale from its logarithm, in float32 or wider, capped at e^30.

    No useful rate is that high, and infinity times a step of 0 would give a NaN value and gradient.
    """
    return jnp.exp(jnp.minimum(upcast(log), 30))


def wide_dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` with operands in the dtype of `x`, accumulated and returned in float32 or wider.

    For values that set a decay or are stored in the state, where rounding errors would accumulate.
    """
    return jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))


def wide_affine(w: Params, x: jax.Array, key: Key | None = None) -> jax.Array:
    """`W x + b` for all gates at once, in float32 or wider."""
    return wide_dot(x, w["input_kernel"]) + upcast(w["bias"])


def log_uniform(low: float, high: float) -> Initializer:
    """Initialises with the logarithms of numbers that are log-uniform between `low` and `high`."""

    def init(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, math.log(low), math.log(high)).astype(dtype)

    return init


def inverse_softplus(y: jax.Array) -> jax.Array:
    return y + jnp.log(-jnp.expm1(-y))


def input_gates_init(
    name: str, width: int, gates: int, kernel_init: Initializer, bias_init: Initializer, param_dtype: Any
) -> Callable[[Key, PyTree], Params]:
    """The `init` of a cell whose gates read only the input: kernel (D, gates·H), bias (gates·H,)."""

    def init(key: Key, x: PyTree) -> Params:
        k_input, k_bias = jax.random.split(key)
        return {
            "input_kernel": per_gate(kernel_init, gates)(k_input, (features_of(x, name), gates * width), param_dtype),
            "bias": bias_init(k_bias, (gates * width,), param_dtype),
        }

    return init


def check_channels(features: int, width: int, name: str) -> None:
    """Raises if the input of a channel-wise layer does not have `width` features."""
    if features != width:
        raise ValueError(
            f"{name}({width}) takes as many features as it gives, but got {features} in one step; put an "
            f"nn.Dense({width}) before it"
        )


def unit(x: jax.Array) -> jax.Array:
    """Scales each head's vector to unit length, or slightly less, so that the gradient at a zero vector is finite."""
    return x * jax.lax.rsqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)


def rms_norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Scales each head's vector `(heads, V)` to a mean square of 1, then multiplies it by `scale` (V,)."""
    size = jax.lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5)
    return x * size * jnp.broadcast_to(scale, x.shape)
