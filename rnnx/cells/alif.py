"""The adaptive leaky integrate-and-fire network: spiking units whose threshold rises with each spike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnnx.arguments import DType, NonNegative, Positive, Real, describe, validated
from rnnx.base import Cell, Key, Params, PyTree, cell, exportable, factory
from rnnx.cells._kernels import Initializer, default_kernel_init, dot, features_of, per_gate


@exportable
class ALIFCarry(NamedTuple):
    """The state of an ALIF: spikes `z`, membrane voltage `v`, adaptation `a`, each `[batch, H]`."""

    z: jax.Array
    v: jax.Array
    a: jax.Array


def spike(v: jax.Array, damping: float) -> jax.Array:
    """1 where v is above 0, else 0. Its derivative is replaced by `damping * max(0, 1 - |v|)`."""
    # Not a jax.custom_jvp: when a scan is differentiated in reverse mode, JAX drops the rule from the forward pass, and
    # second derivatives would miss the path through z. Instead, this adds a 0 that has the intended derivative.
    u = jnp.clip(v, -1, 1)
    area = damping * (u - u * jnp.abs(u) / 2)  # under the triangle, up to v
    return (v > 0).astype(v.dtype) + (area - jax.lax.stop_gradient(area))


def _numbers(where: str, value: Any) -> float | np.ndarray:
    """One number, or one for each unit."""
    if np.ndim(value) == 0:
        return Real()(where, value)
    values = np.asarray(value)
    if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        raise ValueError(f"{where} is {describe(value)}, but it must be finite numbers")
    return values


@factory
@validated
def alif(
    width: int,
    *,
    tau: Positive = 20.0,
    tau_adaptation: Positive = 200.0,
    threshold: Positive = 0.6,
    beta: Annotated[float | Sequence[float], _numbers] = 0.17,
    damping: NonNegative = 0.3,
    kernel_init: Initializer = default_kernel_init,
    recurrent_kernel_init: Initializer = default_kernel_init,
    param_dtype: DType = jnp.float32,
) -> Cell:
    r"""A recurrent network of adaptive leaky integrate-and-fire units (LSNN), trained with a pseudo-derivative.

    .. math::
        v_t &= \alpha v_{t-1} + W x_t + R z_{t-1} - z_{t-1} \theta, \qquad \alpha = e^{-1/\tau} \\
        a_t &= \rho a_{t-1} + z_{t-1}, \qquad \rho = e^{-1/\tau_a} \\
        z_t &= H\!\left(\frac{v_t - (\theta + \beta a_t)}{\theta}\right), \qquad y_t = z_t

    The step function H is 1 above 0, else 0. Its derivative, which is 0 wherever it is defined, is replaced by
    :math:`\gamma \max(0, 1 - |\cdot|)`, in forward and in reverse mode; second derivatives differentiate this
    replacement. The resulting surrogate gradients are not the gradients of the loss, but following them lowers it in
    practice. Units have no self-connections: the diagonal of R is not used.

    Args:
        width: H, the number of units.
        tau: the time constant of the voltage, in steps.
        tau_adaptation: the time constant of the threshold, in steps. It sets how long a unit remembers its
            spikes; choose roughly the length of memory that the task needs.
        threshold: :math:`\theta`, the voltage threshold of a unit that has not fired for a long time. A spike also
            lowers the voltage by this amount.
        beta: how much a spike raises the threshold: one number, or one for each unit. With 0, a unit does not
            adapt; the authors mix both kinds. The default is the authors' 1.7, rescaled for the equations above:
            1.7 (1 - rho) / (1 - alpha) at the default time constants. Recompute it for other time constants.
        damping: :math:`\gamma`, the height of the pseudo-derivative. Values below 1 keep gradients from exploding.
        kernel_init: initialises `input_kernel`. LeCun normal preserves the variance of x through W.
        recurrent_kernel_init: initialises `recurrent_kernel`. LeCun normal, following the authors.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `input_kernel` (D, H), `recurrent_kernel` (H, H), whose diagonal is not used. One step
        takes x `(D,)` and `ALIFCarry(z, v, a)`, each `(H,)`, initially zero, and returns y `(H,)`, of zeros and ones.

    At a glance: spiking | adaptive leaky integrate-and-fire | Bellec et al. 2018, 2020 | H (D + H) parameters.

    Raises:
        ValueError: for a width below 1, a time constant or a threshold not above 0, a number of betas other than
            1 or H, or (in `init`) inputs that are not floating features.

    Other forms: the equations above are from the authors' e-prop paper. Their earlier code (LSNN) multiplies W x + R z
    by :math:`1 - \alpha` and the z that raises a by :math:`1 - \rho`. It also uses the raised threshold in the reset
    and the denominator. Their code can also keep a unit silent for some steps after a spike (a refractory period), and
    delay spikes; this cell does neither. Other libraries for spiking networks (norse, snnTorch) have other
    pseudo-derivatives.

    References: G. Bellec et al., *Long short-term memory and learning-to-learn in networks of spiking neurons*,
    NeurIPS 2018, arXiv 1803.09574; G. Bellec et al., *A solution to the learning dilemma for recurrent networks of
    spiking neurons*, Nature Communications 11 (2020).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.alif(4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.v.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """
    if np.shape(beta) not in ((), (width,)):
        raise ValueError(f"alif: beta has the shape {np.shape(beta)}, but it must be one number, or {width} of them")
    alpha, rho, rise = math.exp(-1 / tau), math.exp(-1 / tau_adaptation), np.broadcast_to(beta, (width,))

    def init(key: Key, x: PyTree) -> Params:
        features = features_of(x, "alif")
        k_input, k_recurrent = jax.random.split(key)
        return {
            "input_kernel": per_gate(kernel_init, 1)(k_input, (features, width), param_dtype),
            "recurrent_kernel": per_gate(recurrent_kernel_init, 1)(k_recurrent, (width, width), param_dtype),
        }

    def prepare(params: Params, key: Key | None) -> Params:
        kernel = params["recurrent_kernel"]
        return {**params, "recurrent_kernel": jnp.where(np.eye(width, dtype=bool), 0, kernel)}

    def initial_carry(w: Params, x: PyTree, key: Key | None) -> ALIFCarry:
        zero = jnp.zeros((width,), w["recurrent_kernel"].dtype)
        return ALIFCarry(zero, zero, zero)

    def project(w: Params, x: jax.Array, key: Key | None) -> jax.Array:
        return dot(x, w["input_kernel"])

    def step(w: Params, carry: ALIFCarry, wx: jax.Array) -> tuple[ALIFCarry, jax.Array]:
        z, v, a = carry
        v = alpha * v + wx + dot(z, w["recurrent_kernel"], wx.dtype) - threshold * z
        a = rho * a + z
        z = spike((v - threshold - rise.astype(a.dtype) * a) / threshold, damping)
        return ALIFCarry(z, v, a), z

    return cell(init, initial_carry, step, prepare=prepare, project=project)
