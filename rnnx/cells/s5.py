"""The simplified state space layer."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import lecun_normal

from rnnx.arguments import DType, Integer, Positive, ascending, validated
from rnnx.base import AssociativeCell, Key, Params, PyTree, Weights, factory
from rnnx.cells._kernels import dot, features_of
from rnnx.cells._linear import check_channels, exp_of, held, log_uniform, upcast, wide_dot
from rnnx.linear import Affine, Complex, affine_cell, complex_product


class _Input(NamedTuple):
    b: Complex
    x: jax.Array


@factory
@validated
def s5(
    width: int,
    *,
    state: int = 64,
    blocks: int = 1,
    step_min: Positive = 0.001,
    step_max: Positive = 0.1,
    param_dtype: DType = jnp.float32,
) -> AssociativeCell:
    r"""The S5 layer: one diagonal state space model with many inputs and outputs, discretised by zero-order hold.

    .. math::
        \bar\Lambda &= e^{\Lambda \Delta}, \qquad \bar B = \Lambda^{-1}(\bar\Lambda - I) B \\
        h_t &= \bar\Lambda h_{t-1} + \bar B x_t, \qquad y_t = 2\,\mathrm{Re}(C h_t) + D \odot x_t

    The units form conjugate pairs; only one unit of each pair is kept, which explains the factor 2.

    Args:
        width: H, the number of input and output features.
        state: P, the size of the state; it must be even. P/2 complex units are kept.
        blocks: the number of identical diagonal blocks, each a HiPPO matrix, that initialise the state matrix.
            2 * blocks must divide P, and P / blocks must be at most 4096.
        step_min: the shortest initial time step \Delta.
        step_max: the longest initial time step. Each unit has its own \Delta, initially log-uniform between the two.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The AssociativeCell. Params: `rate_re`, `rate_im` (the real and imaginary parts of \Lambda) and `log_step`
        (P/2,), `input_kernel_re`, `input_kernel_im` (H, P/2), `output_kernel_re`, `output_kernel_im` (P/2, H), `skip`
        (H,). \Lambda starts as the eigenvalues of the normal part of HiPPO-LegS, whose state approximates the past; B
        and C are LeCun normal, then transformed to the basis of its eigenvectors; D is standard normal. One step
        takes x `(H,)` and the carry `(re, im)`, each `(P/2,)`, initially zero, and returns y `(H,)`. The state is
        computed in float32 or wider.

    At a glance: linear | diagonal state space, zero-order hold | Smith et al. 2023 | 129 H + 96 parameters.

    Raises:
        ValueError: for a width below 1, a state that 2 * blocks does not divide, and (in `init`) for inputs that
            are not H floating features.

    The real part of \Lambda is clipped to at most -1e-4, so that the state cannot grow; in the authors' code, this is
    an option. Also, the initial variance of B is 1/P in their code, but 1/H here, since B reads H inputs.

    Reference: J. Smith, A. Warrington and S. Linderman, *Simplified state space layers for sequence modeling*,
    ICLR 2023, arXiv 2208.04933.

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.s5(4, state=16)
        >>> xs = jnp.ones((2, 5, 4))
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.re.shape, ys.shape
        ((2, 8), (2, 5, 4))
    """
    ascending("s5", step_min=step_min, step_max=step_max)
    if state % (2 * blocks):
        raise ValueError(f"s5: the state is {state}, but it must be a multiple of 2 * blocks = {2 * blocks}")
    Integer(1, 4096, "a larger eigenbasis takes too long to compute; use more blocks")(
        "s5: state / blocks", state // blocks
    )
    units = state // 2

    def init(key: Key, x: PyTree) -> Params:
        check_channels(features_of(x, "s5"), width, "s5")
        rate, basis = _hippo_normal(state // blocks)
        k_input, k_re, k_im, k_skip, k_step = jax.random.split(key, 5)
        # Transform B and C to the eigenbasis, block by block: V^* B and C V.
        b = lecun_normal()(k_input, (width, state)).reshape(width, blocks, -1)
        c_re, c_im = (lecun_normal()(k, (state, width)).reshape(blocks, -1, width) for k in (k_re, k_im))
        v_re, v_im = jnp.asarray(basis.real, b.dtype), jnp.asarray(basis.imag, b.dtype)
        params = {
            "rate_re": jnp.tile(jnp.asarray(rate.real, b.dtype), blocks),
            "rate_im": jnp.tile(jnp.asarray(rate.imag, b.dtype), blocks),
            "log_step": log_uniform(step_min, step_max)(k_step, (units,), jnp.float32),
            "input_kernel_re": jnp.einsum("hbn,np->hbp", b, v_re).reshape(width, units),
            "input_kernel_im": -jnp.einsum("hbn,np->hbp", b, v_im).reshape(width, units),
            "output_kernel_re": _basis_change(c_re, c_im, v_re, -v_im).reshape(units, width),
            "output_kernel_im": _basis_change(c_re, c_im, v_im, v_re).reshape(units, width),
            "skip": jax.random.normal(k_skip, (width,)),
        }
        return jax.tree.map(lambda a: a.astype(param_dtype), params)

    def prepare(params: Params, key: Key | None) -> Weights:
        re, im = upcast((params["rate_re"], params["rate_im"]))
        decay, scale = held(Complex(jnp.minimum(re, -1e-4), im), exp_of(params["log_step"]))
        return {**params, "decay": decay, "scale": scale}

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> Complex:
        zero = jnp.zeros_like(w["rate_re"])
        return Complex(zero, zero)

    def project(w: Weights, x: jax.Array, key: Key | None) -> _Input:
        b = Complex(wide_dot(x, w["input_kernel_re"]), wide_dot(x, w["input_kernel_im"]))
        return _Input(complex_product(w["scale"], b), x)

    def lift(w: Weights, z: _Input) -> Affine:
        return Affine(w["decay"], z.b)

    def readout(w: Weights, h: Complex, z: _Input) -> jax.Array:
        x = z.x
        real = dot(h.re, w["output_kernel_re"], x.dtype) - dot(h.im, w["output_kernel_im"], x.dtype)
        return 2 * real + w["skip"].astype(x.dtype) * x

    return affine_cell(init, initial_carry, lift, readout, product=complex_product, prepare=prepare, project=project)


@functools.lru_cache(maxsize=8)
def _hippo_normal(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns half of the eigenvalues of the normal part (n, n) of HiPPO-LegS, and their eigenvectors, as columns."""
    p = np.sqrt(2 * np.arange(n) + 1)
    legs = -(np.tril(np.outer(p, p)) - np.diag(np.arange(n)))
    q = np.sqrt(np.arange(n) + 0.5)
    normal = legs + np.outer(q, q)  # -1/2 on the diagonal, skew-symmetric off it
    imag, vectors = np.linalg.eigh(-1j * (normal - np.diag(np.diag(normal))))
    return (np.diag(normal).mean() + 1j * imag)[: n // 2], vectors[:, : n // 2]


def _basis_change(c_re: jax.Array, c_im: jax.Array, v_re: jax.Array, v_im: jax.Array) -> jax.Array:
    return jnp.einsum("bnh,np->bph", c_re, v_re) + jnp.einsum("bnh,np->bph", c_im, v_im)
