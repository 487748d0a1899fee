"""Names values inside a function by JAX's `checkpoint_name`, so that `rnnx.expose` can find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxprs_in_params

PyTree = Any


def named(**values: Any) -> tuple[Any, ...]:
    """Names values inside a step, so that `rnnx.expose` can add them to the outputs.

    Args:
        values: arrays, or pytrees of them, by name: usually the symbol in the paper's equation.

    Returns:
        The same values in the same order. Each passes through JAX's `checkpoint_name`, which is the identity: XLA
        compiles the same program. (So these names also work in the policies of `jax.checkpoint`.)

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> i, f = rnnx.named(i=jnp.ones(2), f=jnp.zeros(2))
        >>> i.tolist(), f.tolist()
        ([1.0, 1.0], [0.0, 0.0])
    """
    return tuple(checkpoint_name(value, name) for name, value in values.items())


def with_named(function: Callable[..., Any]) -> Callable[..., tuple[Any, dict[str, list[jax.Array]]]]:
    """Makes `function` also return the arrays named inside it: for each name a list, in the order of naming.

    Names inside a loop, a branch or a nested `jax.jit` cannot be returned: they are left out.
    """

    def wrapped(*args: Any) -> tuple[Any, dict[str, list[jax.Array]]]:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        jaxpr, n = closed.jaxpr, len(closed.jaxpr.outvars)
        naming = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "name"]
        more = [*jaxpr.outvars, *(eqn.outvars[0] for eqn in naming)]
        jaxpr = jaxpr.replace(outvars=more, debug_info=jaxpr.debug_info._replace(result_paths=None))
        results = jax.core.eval_jaxpr(jaxpr, closed.consts, *jax.tree.leaves(args))
        found: dict[str, list[jax.Array]] = {}
        for eqn, value in zip(naming, results[n:]):
            found.setdefault(eqn.params["name"], []).append(value)
        return jax.tree.unflatten(jax.tree.structure(shape), results[:n]), found

    return wrapped


def nested_names(function: Callable[..., Any], *args: Any) -> set[str]:
    """The names inside loops, branches and nested `jax.jit`, which `with_named` leaves out."""

    def within(jaxpr: Jaxpr) -> Iterator[str]:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "name":
                yield eqn.params["name"]
            for inner in jaxprs_in_params(eqn.params):
                yield from within(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)

    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return {name for eqn in jaxpr.eqns for inner in jaxprs_in_params(eqn.params) for name in within(inner)}
