"""The echo-state network: a random reservoir that is never trained."""

from __future__ import annotations

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import Activation, Integer, NonNegative, UnitInterval, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import features_of


def _uniform(scale: float, shape: tuple[int, ...], *seed: int) -> np.ndarray:
    # The weights are in no checkpoint, so the seed must bring back the same ones under every version of NumPy and
    # JAX: of their generators, RandomState alone promises that. In float64 until the dtype of x is known.
    return np.random.RandomState(seed).uniform(-scale, scale, shape)


@functools.lru_cache(maxsize=8)
def sparse_matrix(width: int, density: float, spectral_radius: float, seed: int) -> np.ndarray:
    """A random (H, H) matrix, each column with the same share of numbers other than 0, of that spectral radius."""
    weights = _uniform(1.0, (width, width), seed, 0)
    # An equal number of connections into each unit: there is then always a cycle, so the radius is not 0.
    into_each = max(1, round(density * width))
    kept = np.argsort(_uniform(1.0, (width, width), seed, 1), axis=0) < into_each
    weights = np.where(kept, weights, 0.0)
    return weights * (spectral_radius / np.abs(np.linalg.eigvals(weights)).max())


@factory
@validated
def reservoir(
    width: Annotated[int, Integer(1, 10_000, "the eigenvalues of so large a matrix take too long")],
    *,
    leak: UnitInterval = 1.0,
    spectral_radius: NonNegative = 0.9,
    density: UnitInterval = 0.1,
    input_scale: float = 1.0,
    bias_scale: float = 1.0,
    activation: Activation = jnp.tanh,
    seed: Annotated[int, Integer(0, why="a seed has 31 bits")] = 0,
    state_dtype: jnp.dtype = jnp.float32,
) -> Cell:
    r"""The leaky echo-state network: a fixed random recurrent network, of which only a readout is to be trained.

    .. math::
        h_t = (1 - a)\, h_{t-1} + a \tanh(W x_t + b + R h_{t-1}), \qquad y_t = h_t

    W, b and R are drawn once, from `seed`. They are no params, so nothing trains or saves them: the same arguments
    make the same reservoir again. As the outputs do not change, a linear readout of them can be had in closed
    form, by ridge regression of the targets on `ys`. Gradients flow through the reservoir to what comes before it.

    Args:
        width: H, the number of units; hundreds or thousands, as they are not trained; 10000 at most.
        leak: a, in (0, 1]: how fast the state follows. Small where the series changes slowly from step to step.
        spectral_radius: of R, its largest absolute eigenvalue. Below 1 the influence of the past fades as a rule;
            larger keeps it longer.
        density: the share of all H units that each unit hears, at least one of them. The product with R is
            computed as a dense one all the same.
        input_scale: W is uniform between minus and plus this. Small keeps tanh near its linear part.
        bias_scale: b is uniform between minus and plus this. With 0, minus x gives minus y.
        activation: tanh, or any function of an array.
        seed: of W, b and R; a whole number, 0 or more.
        state_dtype: of the carry.

    Returns:
        The Cell. Params: none, an empty dict. One step takes x `(D,)` and the carry h `(H,)`, zero at first, and
        gives y `(H,)`.

    At a glance: structured | leaky echo-state network, frozen | Jaeger 2001 | 0 parameters.

    Raises:
        ValueError: for a width below 1, a leak or a density outside (0, 1], a negative radius or seed, or (in
            `init`) inputs which are not floating features.

    Other libraries: reservoirpy has the same equation; it draws W from -1 and 1, R from a normal distribution, no
    bias, and connects each unit at random to a tenth of the inputs by default.

    References: H. Jaeger, *The "echo state" approach to analysing and training recurrent neural networks*, GMD
    Report 148 (2001); M. Lukoševičius, *A practical guide to applying echo state networks*, in Neural Networks:
    Tricks of the Trade (2012), whose choices these are: a leak, uniform weights, few connections.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.reservoir(100, leak=0.3)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 100), (2, 5, 100))
    """

    def init(key: Key, x: PyTree) -> Params:
        features_of(x, "reservoir")
        return {}

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), state_dtype)

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        input_kernel = _uniform(input_scale, (x.shape[0], width), seed, 3).astype(x.dtype)
        return x @ input_kernel + _uniform(bias_scale, (width,), seed, 2).astype(x.dtype)

    def step(w: Params, h: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        recurrent_kernel = sparse_matrix(width, density, spectral_radius, seed).astype(z.dtype)
        h = (1 - leak) * h + leak * activation(z + h.astype(z.dtype) @ recurrent_kernel)
        return h, h

    return cell(init, initial_carry, step, project=project)
