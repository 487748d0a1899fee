"""The liquid time-constant network."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softplus

from rnnx.arguments import DType, Layers, validated
from rnnx.base import Cell, Key, Params, PyTree, Weights, cell, factory
from rnnx.cells._kernels import features_of


@factory
@validated
def ltc(width: int, *, unfolds: Layers = 6, param_dtype: DType = jnp.float32) -> Cell:
    r"""The liquid time-constant network: neurons with membranes and synapses, and time steps of any length.

    Neuron i has the membrane potential v_i. Each of its synapses comes from a neuron or an input j. The potential of j
    opens the synapse, which then pulls v_i towards the reversal potential E_ji. The time constant of v_i therefore
    depends on the inputs and the state:

    .. math::
        C_i \dot v_i &= g_i (V_i - v_i) + \sum_j s_{ji}(v_j) (E_{ji} - v_i) + \sum_k s'_{ki}(u_k) (E'_{ki} - v_i) \\
        s_{ji}(v_j) &= w_{ji}\, \sigma(\sigma_{ji} (v_j - \mu_{ji})), \qquad u = a \odot x_t + b, \qquad
        y_t = a' \odot v + b'

    where softplus makes C, g, w and w' positive. A step of length dt takes L substeps of
    :math:`\delta = dt / L`, each implicit only in v_i (the authors' fused solver, which is stable for any dt):

    .. math::
        v_i \leftarrow \frac{C_i v_i + \delta (g_i V_i + \sum_j s_{ji} E_{ji} + \sum_k s'_{ki} E'_{ki})}
        {C_i + \delta (g_i + \sum_j s_{ji} + \sum_k s'_{ki})}

    This is the form in the authors' package `ncps`, fully connected. Algorithm 1 of the paper is more general: there,
    any network may drive the conductances; here, each synapse has one sigmoid.

    Args:
        width: H, the number of neurons.
        unfolds: L, the number of substeps in each step; at most 1000.
        param_dtype: the dtype of all params, and so of the carry.

    Returns:
        The Cell. Params: `recurrent` (H, H) and `input` (D, H), each with `w`, `mu`, `sigma` and `erev` (E); row j,
        column i belongs to the synapse from j to i; `gleak` (g), `vleak` (V) and `cm` (C), each (H,); `input_w` and
        `input_b` (a, b), each (D,); `output_w` and `output_b` (a', b'), each (H,). w, gleak and cm are the
        values before softplus. One step takes `{"x": (D,), "dt": ()}` and the carry v `(H,)`, initially zero, and
        returns y `(H,)`.

        All are initialised as in `ncps`: uniform, in ranges where neurons are neither dead nor saturated for inputs
        between about 0 and 1: w and gleak in [0.001, 1), mu in [0.3, 0.8), sigma in [3, 8), cm in [0.4, 0.6) (before
        softplus), vleak in [-0.2, 0.2); erev is 1 with probability 2/3, else -1; the input and output maps are the
        identity.

    At a glance: continuous time | liquid time constants, inputs `{"x", "dt"}` | Hasani et al. 2021 | 4 H (D + H) + 5 H
    + 2 D parameters.

    Raises:
        ValueError: for a width or unfolds below 1, or (in `init`) inputs that are not a dict of floating features x
            and a floating dt.

    `dt` is the time since the previous step. It must not be negative; if it is 0, v does not change. Its unit matters:
    with the initial params, v changes over a time of about 1. `dt` may be float32 when x is bfloat16; the outputs are
    then float32. A step costs O(L H (D + H)) in time and O(H (D + H)) in memory.

    Other libraries: `ncps` divides by dt, so that dt = 0 gives NaN, and adds 1e-8 to the denominator, which is always
    positive here. In its `LTCCell` without `implicit_param_constraints`, w, gleak and cm must be clipped after
    each update; its `LTC` uses softplus by default, as here.

    References: R. Hasani, M. Lechner et al., *Liquid time-constant networks*, AAAI 2021, arXiv 2006.04439;
    M. Lechner et al., *Neural circuit policies enabling auditable autonomy*, Nature Machine Intelligence 2 (2020).

    Example::

        >>> import jax, jax.numpy as jnp, rnnx
        >>> layer = rnnx.ltc(4)
        >>> xs = {"x": jnp.ones((2, 5, 3)), "dt": jnp.full((2, 5), 0.1)}
        >>> carry, ys = rnnx.unroll(layer, layer.init(jax.random.key(0), xs), xs)
        >>> carry.shape, ys.shape
        ((2, 4), (2, 5, 4))
    """

    def init(key: Key, x: PyTree) -> Params:
        features = features_in_time(x, "ltc")
        k_recurrent, k_input, k_gleak, k_vleak, k_cm = jax.random.split(key, 5)

        def uniform(key: Key, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
            dtype = jnp.promote_types(param_dtype, jnp.float32)
            return jax.random.uniform(key, shape, dtype, low, high).astype(param_dtype)

        def synapses(key: Key, sources: int) -> dict[str, jax.Array]:
            k_w, k_mu, k_sigma, k_erev = jax.random.split(key, 4)
            shape = (sources, width)
            return {
                "w": uniform(k_w, shape, 0.001, 1),
                "mu": uniform(k_mu, shape, 0.3, 0.8),
                "sigma": uniform(k_sigma, shape, 3, 8),
                "erev": jnp.where(jax.random.bernoulli(k_erev, 2 / 3, shape), 1, -1).astype(param_dtype),
            }

        return {
            "recurrent": synapses(k_recurrent, width),
            "input": synapses(k_input, features),
            "gleak": uniform(k_gleak, (width,), 0.001, 1),
            "vleak": uniform(k_vleak, (width,), -0.2, 0.2),
            "cm": uniform(k_cm, (width,), 0.4, 0.6),
            "input_w": jnp.ones((features,), param_dtype),
            "input_b": jnp.zeros((features,), param_dtype),
            "output_w": jnp.ones((width,), param_dtype),
            "output_b": jnp.zeros((width,), param_dtype),
        }

    def prepare(params: Params, key: Key | None) -> Weights:
        positive = {name: softplus(params[name]) for name in ("gleak", "cm")}
        conducting = {name: {**params[name], "w": softplus(params[name]["w"])} for name in ("recurrent", "input")}
        return {**params, **positive, **conducting}

    def initial_carry(w: Weights, x: PyTree, key: Key | None) -> jax.Array:
        return jnp.zeros((width,), w["cm"].dtype)

    def conductances(w: Weights, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the current into each neuron at v = 0 and its decrease per unit of v, summed over the synapses."""
        w = jax.tree.map(lambda a: a.astype(source.dtype), w)
        s = w["w"] * sigmoid(w["sigma"] * (source[:, None] - w["mu"]))
        return (s * w["erev"]).sum(axis=0), s.sum(axis=0)

    def project(w: Weights, x: PyTree, key: Key | None) -> PyTree:
        u = x["x"]
        flow, slope = conductances(w["input"], u * w["input_w"].astype(u.dtype) + w["input_b"].astype(u.dtype))
        gleak, vleak = w["gleak"].astype(u.dtype), w["vleak"].astype(u.dtype)
        return flow + gleak * vleak, slope + gleak, x["dt"] / unfolds

    def step(w: Weights, v: jax.Array, z: PyTree) -> tuple[jax.Array, jax.Array]:
        input_flow, input_slope, delta = z
        cm = w["cm"]
        for _ in range(unfolds):
            flow, slope = conductances(w["recurrent"], v.astype(input_flow.dtype))
            # The authors' code divides cm by delta instead: that is equivalent, but gives NaN where delta is 0.
            v = (cm * v + delta * (flow + input_flow)) / (cm + delta * (slope + input_slope))
        return v, w["output_w"] * v + w["output_b"]

    return cell(init, initial_carry, step, project=project, prepare=prepare)


def features_in_time(x: PyTree, name: str) -> int:
    """Returns the width D of one step's input `{"x": (D,), "dt": ()}`; for any other input, raises an error that names
    the cell.
    """

    def describe(x: PyTree) -> str:
        return f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else f"{type(x).__name__}"

    if not isinstance(x, Mapping) or set(x) != {"x", "dt"}:
        actual = f"a dict of {sorted(map(str, x))}" if isinstance(x, Mapping) else describe(x)
        raise ValueError(
            f'{name} takes features and the time since the previous step, xs {{"x": [batch, time, features], "dt": '
            f'[batch, time]}}, but got {actual} for one step; if all steps are equally long, pass {{"x": xs, "dt": '
            f"jnp.ones(xs.shape[:2], xs.dtype)}}"
        )
    dt = x["dt"]
    if not hasattr(dt, "shape") or dt.shape != () or not jnp.issubdtype(dt.dtype, jnp.floating):
        raise ValueError(
            f"{name}: dt is one floating number per step, [batch, time], but got {describe(dt)} for one step; "
            f"pass dt[..., 0], or dt.astype(jnp.float32)"
        )
    return features_of(x["x"], name)
