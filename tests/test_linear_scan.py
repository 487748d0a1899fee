"""`linear_scan` against `lax.scan` in float64: every form, both ways of evaluating, derivatives of every kind."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnnx.linear import Complex, complex_product, elementwise, linear_scan
from rnnx.testing import assert_close, weighted_sum

TIME = 7
SHAPES: dict[str, tuple[Any, Any, Any]] = {  # of a step's `a`, of h, and what multiplies them
    "numbers": ((2, 3), (2, 3), elementwise),
    "shared": ((2,), (2, 3), elementwise),
    "pairs": (Complex((2, 3), (2, 3)), Complex((2, 3), (2, 3)), complex_product),
    "matrices": ((2, 3, 3), (2, 3, 4), jnp.matmul),
}
RESETS = np.zeros((TIME, 2), bool)
RESETS[[0, 2, 5], 0] = RESETS[[3, 4], 1] = True
every_form = pytest.mark.parametrize("form", SHAPES)
both_ways = pytest.mark.parametrize("sequential", [True, False], ids=["steps", "tree"])


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def drawn(form: str, time: int = TIME, seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    a, h, product = SHAPES[form]

    def is_shape(s: Any) -> bool:
        return isinstance(s, tuple) and not isinstance(s, Complex)

    def arrays(shapes: Any, *more: int) -> Any:
        return jax.tree.map(lambda s: jnp.asarray(random.normal(size=(*more, *s))), shapes, is_leaf=is_shape)

    return (arrays(a, time), arrays(h, time), arrays(h)), product


def by_scan(product: Any, resets: Any, a: Any, b: Any, h0: Any) -> Any:
    def body(h: Any, step: Any) -> Any:
        a, b, reset = step
        if reset is not None:
            h = jax.tree.map(lambda x: jnp.where(reset.reshape(reset.shape + (1,) * (x.ndim - 1)), 0, x), h)
        h = jax.tree.map(jnp.add, product(a, h), b)
        return h, h

    return jax.lax.scan(body, h0, (a, b, resets))[1]


def everything(run: Any, at: Any, direction: Any) -> Any:
    """Values, gradients, the derivative forward, and second derivatives both ways."""

    def loss(*at: Any) -> jax.Array:
        return weighted_sum(jax.tree.map(jnp.sin, run(*at)))

    gradient = jax.grad(loss, argnums=(0, 1, 2))

    def along(*at: Any) -> jax.Array:
        pairs = zip(jax.tree.leaves(gradient(*at)), jax.tree.leaves(direction))
        return sum((jnp.vdot(x, y) for x, y in pairs), jnp.zeros(()))

    forward = jax.jvp(run, at, direction)
    return forward, jax.jvp(gradient, at, direction), jax.grad(along, argnums=(0, 1, 2))(*at)


@both_ways
@every_form
def test_equals_scan_with_resets(form: str, sequential: bool) -> None:
    at, product = drawn(form)
    direction = drawn(form, seed=1)[0]
    ours = functools.partial(linear_scan, product=product, resets=RESETS, sequential=sequential)
    plain = functools.partial(by_scan, product, RESETS)
    expected = jax.jit(functools.partial(everything, plain))(at, direction)
    assert_close(jax.jit(functools.partial(everything, ours))(at, direction), expected, 1e-12)


@both_ways
@every_form
def test_under_vmap_and_checkpoint_and_for_one_argument(form: str, sequential: bool) -> None:
    (a, b, h0), product = drawn(form)
    several = jax.tree.map(lambda *x: jnp.stack(x), *(drawn(form, seed=seed)[0] for seed in (0, 1)))

    def results(run: Any) -> Any:
        def loss(*at: Any) -> jax.Array:
            return weighted_sum(run(*at))

        alone = [jax.grad(lambda x, i=i: loss(*(a, b, h0)[:i], x, *(a, b, h0)[i + 1 :]))((a, b, h0)[i]) for i in (0, 2)]
        over = [jax.vmap(jax.grad(loss, argnums=(0, 1, 2)), in_axes=(0, None, 0))(several[0], b, several[2])]
        over += [jax.vmap(run, in_axes=(None, 0, None))(a, several[1], h0)]
        return alone, over, jax.grad(jax.checkpoint(loss))(a, b, h0)

    ours = jax.jit(lambda: results(functools.partial(linear_scan, product=product, sequential=sequential)))
    assert_close(ours(), jax.jit(lambda: results(functools.partial(by_scan, product, None)))(), 1e-12)


@both_ways
def test_resets_stop_what_diverged(sequential: bool) -> None:
    a, b, h0 = jnp.full((6, 2), 1e200), jnp.ones((6, 2)), jnp.full(2, jnp.inf)
    resets = jnp.zeros((6, 2), bool).at[4].set(True)
    hs = linear_scan(a.at[5].set(0.5), b, h0, resets=resets, sequential=sequential)
    assert not np.isfinite(hs[3]).any()
    np.testing.assert_array_equal(hs[4:], [[1.0, 1.0], [1.5, 1.5]])


@pytest.mark.parametrize("sequential", [True, False, None])
def test_few_steps(sequential: bool | None) -> None:
    for time in (0, 1, 2):
        at, product = drawn("pairs", time)
        ours = linear_scan(*at, product=product, sequential=sequential)
        assert_close(ours, by_scan(product, None, *at), 1e-12)


def test_dtypes() -> None:
    half, single = jnp.ones((3, 2), jnp.bfloat16), jnp.ones((3, 2), jnp.float32)
    assert linear_scan(half, half, half[0]).dtype == jnp.bfloat16
    assert linear_scan(half, half, single[0]).dtype == jnp.float32
    assert linear_scan(single * 1j, single, half[0]).dtype == jnp.complex64
    by_half, by_start = jax.grad(lambda a, h: linear_scan(a, single, h).sum(), argnums=(0, 1))(half, half[0])
    assert by_half.dtype == by_start.dtype == jnp.bfloat16


def test_one_export_serves_all() -> None:
    """Of a known number of steps each platform gets its own form; a symbolic number is walked through."""
    (a, b, h0), _ = drawn("numbers")
    for time in (TIME, jax.export.symbolic_shape("time")[0]):
        structs = [jax.ShapeDtypeStruct((time, *x.shape[1:]), x.dtype) for x in (a, b)]
        gradient = jax.jit(jax.grad(lambda *at: linear_scan(*at).sum(), argnums=(0, 1, 2)))
        exported = jax.export.export(gradient, platforms=["cpu", "cuda", "tpu"])(*structs, h0)
        assert_close(exported.call(a, b, h0), gradient(a, b, h0), 1e-12)


def test_errors() -> None:
    ones = jnp.ones((4, 2))
    with pytest.raises(ValueError, match="with equal time"):
        linear_scan(ones[:3], ones, ones[0])
    with pytest.raises(ValueError, match="same structure and shapes"):
        linear_scan(ones, ones, jnp.ones(3))
    with pytest.raises(ValueError, match="same structure and shapes"):
        linear_scan(jnp.ones((4, 3, 2)), ones[:, :, None], ones[0, :, None], product=jnp.matmul)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_long_sum_in_few_digits_is_rounded_once(dtype):
    """In bfloat16 alone 256 + 1 is 256."""
    time = 1000
    ones = jnp.ones((time, 2), dtype)
    for sequential in (True, False):
        h = linear_scan(ones, ones, jnp.zeros(2, dtype), sequential=sequential)
        assert h.dtype == dtype
        assert_close(h.astype(jnp.float32)[-1], jnp.full(2, float(time)), 2 * float(jnp.finfo(dtype).eps))
