"""The echo-state network: a random reservoir that is never trained."""

from __future__ import annotations

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import Activation, DType, Integer, NonNegative, UnitInterval, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, factory
from rnnx.cells._kernels import features_of


def _uniform(scale: float, shape: tuple[int, ...], *seed: int) -> np.ndarray:
    # Checkpoints do not contain the weights, so the seed must reproduce them under every version of NumPy and JAX.
    # Of their generators, only RandomState guarantees that. The weights are float64 until the dtype of x is known.
    return np.random.RandomState(seed).uniform(-scale, scale, shape)


@functools.lru_cache(maxsize=8)
def sparse_matrix(width: int, density: float, spectral_radius: float, seed: int) -> np.ndarray:
    """Draws an (H, H) matrix with the given spectral radius and the same number of nonzeros in each column."""
    weights = _uniform(1.0, (width, width), seed, 0)
    # Each unit has the same number of incoming connections, so there is always a cycle, and the radius is not 0.
    into_each = max(1, round(density * width))
    kept = np.argsort(_uniform(1.0, (width, width), seed, 1), axis=0) < into_each
    weights = np.where(kept, weights, 0.0)
    return weights * (spectral_radius / np.abs(np.linalg.eigvals(weights)).max())


@factory
@validated
def reservoir(
    width: Annotated[int, Integer(1, 10_000, "the eigenvalues of a larger matrix take too long")],
    *,
    leak: UnitInterval = 1.0,
    spectral_radius: NonNegative = 0.9,
    density: UnitInterval = 0.1,
    input_scale: float = 1.0,
    bias_scale: float = 1.0,
    activation: Activation = jnp.tanh,
    seed: Annotated[int, Integer(0, why="a seed has 31 bits")] = 0,
    state_dtype: DType = jnp.float32,
) -> Cell:
    r"""The leaky echo-state network: a fixed random recurrent network; only a readout after it is trained.

    .. math::
        h_t = (1 - a)\, h_{t-1} + a \tanh(W x_t + b + R h_{t-1}), \qquad y_t = h_t

    W, b and R are drawn once, from `seed`. They are not params, so they are neither trained nor saved: the same
    arguments always give the same reservoir. Since it is fixed, a linear readout can be computed in closed form, by
    ridge regression of the targets on `ys`. Gradients flow through the reservoir to the layers before it.

    Args:
        width: H, the number of units, usually hundreds or thousands, since they are not trained; at most 10000.
        leak: a, in (0, 1]: how fast the state follows the input. Use a small value if the series changes slowly from
            step to step.
        spectral_radius: the largest absolute eigenvalue of R. Below 1, the influence of the past usually fades; larger
            values keep it longer.
        density: the fraction of the H units that each unit reads; it reads at least one. R is still stored and
            multiplied as a dense matrix.
        input_scale: W is uniform in [-input_scale, input_scale]. Small values keep tanh near its linear part.
        bias_scale: b is uniform in [-bias_scale, bias_scale]. With 0 (and tanh), negating x negates y.
        activation: used in place of tanh; any function of an array.
        seed: the seed of W, b and R; an integer, 0 or more.
        state_dtype: the dtype of the carry.

    Returns:
        The Cell. Params: none, an empty dict. One step takes x `(D,)` and the carry h `(H,)`, initially zero, and
        returns y `(H,)`.

    At a glance: structured | leaky echo-state network, frozen | Jaeger 2001 | 0 parameters.

    Raises:
        ValueError: for a width below 1, a leak or a density outside (0, 1], a negative radius or seed, or (in
            `init`) inputs that are not floating features.

    Other libraries: reservoirpy has the same equation; it draws the entries of W from {-1, 1} and R from a normal
    distribution, has no bias, and by default connects each unit at random to a tenth of the inputs.

    References: H. Jaeger, *The "echo state" approach to analysing and training recurrent neural networks*, GMD
    Report 148 (2001); M. Lukoševičius, *A practical guide to applying echo state networks*, in Neural Networks:
    Tricks of the Trade (2012), which recommends leaky units, uniform weights and sparse connections.

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
