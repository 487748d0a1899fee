"""The linear cells against their authors' packages and others' ports of them: those that are installed (peers.txt).

Both sides get the same random numbers, in the peer's layout: weights, biases, inputs and, where the peer takes one,
the state to start from. `convert` makes our params of them inside of what is differentiated, so that gradients are
compared by the peer's own. In float64, but for peers that insist on float32.
"""

import importlib.util
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.cells.s5 import _hippo_normal
from rnnx.testing import assert_close

BATCH, TIME, FEATURES, WIDTH, HEADS = 3, 8, 3, 4, 2
DOUBLE, SINGLE = 1e-10, 2e-5


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def random_like(shapes, features=WIDTH):
    """Random numbers in these shapes, and inputs."""
    rng = np.random.default_rng(0)
    weights = {name: 0.5 * rng.normal(size=shape) for name, shape in shapes.items()}
    return {**weights, "xs": rng.normal(size=(BATCH, TIME, features))}


def score(states, ys):
    return (ys**2).sum() + sum((s**3).sum() for s in states)


def results(run, numbers):
    """Of `run(numbers) -> (states, ys)` in JAX: gradients by all numbers, and the values."""

    def loss(numbers):
        states, ys = run(numbers)
        return score(states, ys), (states, ys)

    return jax.jit(jax.grad(loss, has_aux=True))(numbers)


def torch_results(run, numbers, dtype):
    """The same for a `run` in torch."""
    torch = pytest.importorskip("torch")
    leaves = {name: torch.tensor(n, dtype=getattr(torch, dtype), requires_grad=True) for name, n in numbers.items()}
    states, ys = run(leaves)
    score(states, ys).backward()
    values = tuple(s.detach().numpy() for s in states), ys.detach().numpy()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}, values


def ours(layer, convert, start=None, states=lambda carry: jax.tree.leaves(carry)):
    """`start`: makes the carry to start from of the numbers; `states`: what of the carry is compared, as a tuple."""

    def run(numbers):
        carry = None if start is None else start(numbers)
        carry, ys = rnnx.unroll(layer, convert(numbers), numbers["xs"], carry=carry)
        return tuple(states(carry)), ys

    return run


def no_states(carry):
    return ()


def test_lru():
    """memax, which has the code of N. Zucchet's minimal-LRU, in complex64."""
    pytest.importorskip("memax")
    theirs = pytest.importorskip("memax.linen.semigroups.lru").LRU
    model = theirs(theirs.default_algebra(recurrent_size=WIDTH), theirs.default_scan(), WIDTH, WIDTH)
    squares = dict.fromkeys(("B_re", "B_im", "C_re", "C_im"), (WIDTH, WIDTH))
    numbers = random_like({**squares, **dict.fromkeys(("D", "nu_log", "theta_log", "gamma_log"), (WIDTH,))})

    def convert(w):
        kernels = {"input_kernel_re": "B_re", "input_kernel_im": "B_im"}
        kernels |= {"output_kernel_re": "C_re", "output_kernel_im": "C_im"}
        vectors = {"nu": w["nu_log"], "theta": w["theta_log"], "log_gamma": w["gamma_log"], "skip": w["D"]}
        return {name: w[theirs].T for name, theirs in kernels.items()} | vectors

    def run(numbers):
        params = {name: n for name, n in numbers.items() if name != "xs"}
        never = jnp.zeros(TIME, bool)
        ys = jax.vmap(lambda x: model.apply({"params": params}, model.zero_carry(), (x, never))[1])(numbers["xs"])
        return (), ys

    with jax.enable_x64(False):
        numbers = jax.tree.map(lambda n: n.astype(np.float32), numbers)
        with jax.numpy_rank_promotion("allow"):
            expected = results(run, numbers)
        assert_close(results(ours(rnnx.lru(WIDTH), convert, states=no_states), numbers), expected, SINGLE)


def test_s5():
    """s5-pytorch, which keeps both of each conjugate pair, in complex64."""
    torch = pytest.importorskip("torch")
    model = pytest.importorskip("s5.s5_model")
    units = 5
    numbers = random_like(
        {
            "rate_re": (units,),
            "rate_im": (units,),
            "log_step": (units,),
            "input_kernel_re": (WIDTH, units),
            "input_kernel_im": (WIDTH, units),
            "output_kernel_re": (units, WIDTH),
            "output_kernel_im": (units, WIDTH),
            "skip": (WIDTH,),
            "re": (BATCH, units),
            "im": (BATCH, units),
        }
    )
    numbers["rate_re"] = -0.1 - abs(numbers["rate_re"])
    eye = torch.eye(2 * units, dtype=torch.complex64)
    ssm = model.S5SSM(
        torch.ones(2 * units, dtype=torch.complex64), eye, eye, WIDTH, 2 * units, 0.1, 1.0, bcInit="dense"
    )

    def paired(w, name):
        half = torch.complex(w[f"{name}re"], w[f"{name}im"])
        return torch.cat([half, half.conj()], -1 if name != "output_kernel_" else 0)

    def run(w):
        weights = {
            "Lambda": paired(w, "rate_"),
            "B": torch.view_as_real(paired(w, "input_kernel_").T.resolve_conj()),
            "C": paired(w, "output_kernel_").T,
            "D": w["skip"],
            "log_step": torch.cat([w["log_step"]] * 2),
        }
        rows = zip(w["xs"], paired(w, ""))
        rows = [torch.func.functional_call(ssm, weights, (x, 1.0, start, True)) for x, start in rows]
        last = torch.stack([state[:units] for _, state in rows])
        return (last.real, last.imag), torch.stack([y for y, _ in rows])

    def convert(w):
        return {name: n for name, n in w.items() if name not in ("xs", "re", "im")}

    layer = rnnx.s5(WIDTH, state=2 * units)
    started = ours(layer, convert, lambda w: rnnx.cells.Complex(w["re"], w["im"]))
    assert_close(results(started, numbers), torch_results(run, numbers, "float32"), SINGLE)


def test_s5_spectrum():
    pytest.importorskip("torch")
    init = pytest.importorskip("s5.init")
    rate, _, _, basis, _ = init.make_DPLR_HiPPO(8)
    half, half_basis = _hippo_normal(8)
    assert_close(half, rate[:4], DOUBLE)
    assert_close(half_basis * half @ half_basis.conj().T, basis[:, :4] * rate[:4] @ basis[:, :4].conj().T, DOUBLE)


def test_s6():
    """mambapy's block without its convolution and gate."""
    torch = pytest.importorskip("torch")
    mamba = pytest.importorskip("mambapy.mamba")
    state, rank = 5, 2
    config = mamba.MambaConfig(WIDTH, 1, dt_rank=rank, d_state=state, expand_factor=1, pscan=False)

    class Scan(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.block = mamba.MambaBlock(config)

        def forward(self, xs):
            return self.block.ssm(xs, None)

    names = ("x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D")
    shapes = {name: tuple(dict(Scan().named_parameters())[f"block.{name}"].shape) for name in names}

    def run(w):
        weights = {f"block.{name}": w[name] for name in names}
        return (), torch.func.functional_call(Scan(), weights, (w["xs"],))

    def convert(w):
        return {
            "input_kernel": w["x_proj.weight"].T,
            "step_kernel": w["dt_proj.weight"].T,
            "step_bias": w["dt_proj.bias"],
            "log_decay": w["A_log"],
            "skip": w["D"],
        }

    numbers = random_like(shapes)
    layer = rnnx.s6(WIDTH, state=state, rank=rank)
    expected = torch_results(run, numbers, "float32")
    assert_close(results(ours(layer, convert, states=no_states), numbers), expected, SINGLE)


@pytest.fixture(scope="module")
def recurrentgemma_layers():
    """DeepMind's layers, without run-time checks of types: they want a version of typeguard that others cannot have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "typeguard", types.SimpleNamespace(typechecked=lambda function: function))
        return pytest.importorskip("recurrentgemma.jax.layers")


@pytest.mark.parametrize("heads", [1, 2])
def test_rg_lru(recurrentgemma_layers, heads):
    """Its first step leaves the root out: ours begins with the second, from the state after the first."""
    model = recurrentgemma_layers.RGLRU(WIDTH, heads)
    size = WIDTH // heads
    gates = {"a_w": (heads, size, size), "input_w": (heads, size, size), "a_b": (heads, size), "input_b": (heads, size)}
    numbers = random_like({**gates, "a_param": (WIDTH,)})

    def run(w):
        gates = {f"{gate}_gate": {"w": w[f"{gate}_w"], "b": w[f"{gate}_b"]} for gate in ("a", "input")}
        positions = jnp.broadcast_to(jnp.arange(TIME), (BATCH, TIME))
        ys, last = model.apply({"params": {**gates, "a_param": w["a_param"]}}, w["xs"], positions)
        return (last,), ys[:, 1:]

    def run_ours(w):
        first = w["xs"][:, 0]
        gate = jnp.einsum("bhi,hij->bhj", first.reshape(BATCH, heads, size), w["input_w"]) + w["input_b"][None]
        bias = jnp.stack([w["a_b"].reshape(-1), w["input_b"].reshape(-1)])
        params = {"gate_kernel": jnp.stack([w["a_w"], w["input_w"]]), "gate_bias": bias, "rate": w["a_param"]}
        carry = jax.nn.sigmoid(gate.reshape(BATCH, WIDTH)) * first
        last, ys = rnnx.unroll(rnnx.rg_lru(WIDTH, heads=heads), params, w["xs"][:, 1:], carry=carry)
        return (last,), ys

    with jax.numpy_rank_promotion("allow"):
        expected = results(run, numbers)
    assert_close(results(run_ours, numbers), expected, SINGLE)  # their states are summed up in float32


# The module, the class, its kernel and how many gates that holds: the candidate comes first there, last here.
MINIMAL = {
    "min_gru": ("minGRU_pytorch.minGRU", "minGRU", "to_hidden_and_gate.weight", 2),
    "min_lstm": ("minGRU_pytorch.minLSTM", "minLSTM", "to_hidden_and_f_i_gate.weight", 3),
}


@pytest.mark.parametrize("name", MINIMAL)
def test_minimal(name):
    """P. Wang's minGRU-pytorch, in log-space; its minLSTM cannot continue from a state."""
    torch = pytest.importorskip("torch")
    module, kind, kernel, gates = MINIMAL[name]
    model = getattr(pytest.importorskip(module), kind)(WIDTH).double()
    shapes = {kernel: (gates * WIDTH, WIDTH)} | ({"start": (BATCH, 1, WIDTH)} if name == "min_gru" else {})
    numbers = random_like(shapes)
    if name == "min_gru":
        numbers["start"] = abs(numbers["start"])

    def run(w):
        ys, last = torch.func.functional_call(model, {kernel: w[kernel]}, (w["xs"], w.get("start"), True))
        return (last[:, 0],), ys

    def convert(w):
        return {"input_kernel": jnp.roll(w[kernel].T, -WIDTH, axis=1), "bias": jnp.zeros(gates * WIDTH)}

    start = (lambda w: w["start"][:, 0]) if name == "min_gru" else None
    layer = getattr(rnnx, name)(WIDTH, param_dtype=jnp.float64)
    assert_close(results(ours(layer, convert, start), numbers), torch_results(run, numbers, "float64"), DOUBLE)


@pytest.fixture(scope="module")
def sru_package():
    """The authors' package without compiling its kernels: gradients on a CPU go through plain torch anyway."""
    torch = pytest.importorskip("torch")
    extension = pytest.importorskip("torch.utils.cpp_extension")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "load", lambda **options: None)
        patch.setattr(torch.jit, "script", lambda function: function)
        return pytest.importorskip("sru")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("features", [FEATURES, WIDTH])
def test_sru(sru_package, features):
    torch = pytest.importorskip("torch")
    model = sru_package.SRUCell(features, WIDTH, v1=True, use_tanh=True, rescale=False).double()
    blocks = 3 if features == WIDTH else 4
    numbers = random_like({"weight": (features, blocks * WIDTH), "bias": (2 * WIDTH,), "c": (BATCH, WIDTH)}, features)

    def run(w):
        weights = {"weight": w["weight"], "bias": w["bias"]}
        ys, c = torch.func.functional_call(model, weights, (w["xs"].transpose(0, 1), w["c"]))
        return (c,), ys.transpose(0, 1)

    def convert(w):
        """Each unit's columns stand together there."""
        kernel = w["weight"].reshape(features, WIDTH, blocks).swapaxes(1, 2).reshape(features, -1)
        return {"input_kernel": kernel, "bias": w["bias"]}

    layer = rnnx.sru(WIDTH)
    expected = torch_results(run, numbers, "float64")
    assert_close(results(ours(layer, convert, lambda w: w["c"]), numbers), expected, DOUBLE)


KEYS, VALUES = 6, 8


def in_heads(x):
    """[batch, time, heads * size] to [batch, heads, time, size]."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def flattened(x):
    return x.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("form", ["recurrent", "parallel"])
def test_mlstm(form):
    """The authors' plain torch backends, with their 1e-6 in the denominator left out; keys as wide as values there."""
    torch = pytest.importorskip("torch")
    backends = pytest.importorskip("xlstm.blocks.mlstm.backends")
    size = WIDTH // HEADS
    kernels = {"input_kernel": (FEATURES, 4 * WIDTH), "bias": (4 * WIDTH,)}
    gates = {"gate_kernel": (FEATURES, 2 * HEADS), "gate_bias": (2 * HEADS,)}
    start = {"c": (BATCH, HEADS, size, size), "n": (BATCH, HEADS, size), "m": (BATCH, HEADS)}
    numbers = random_like({**kernels, **gates, **(start if form == "recurrent" else {})}, FEATURES)

    def run(w):
        q, k, v, o = (w["xs"] @ w["input_kernel"] + w["bias"]).chunk(4, -1)
        i, f = (in_heads(gate) for gate in (w["xs"] @ w["gate_kernel"] + w["gate_bias"]).chunk(2, -1))
        given = *(in_heads(a) for a in (q, k, v)), i, f
        if form == "parallel":
            return (), o.sigmoid() * flattened(backends.parallel_stabilized_simple(*given, eps=0.0))
        states, ys = (w["c"], w["n"][..., None], w["m"][..., None, None]), []
        for t in range(TIME):
            now = [a[:, :, t : t + 1].clone() for a in given]
            y, states = backends.recurrent_step_stabilized_simple(*states, *now, eps=0.0)
            ys.append(y)
        c, n, m = states
        return (c, n[..., 0], m[..., 0, 0]), o.sigmoid() * flattened(torch.cat(ys, 2))

    def convert(w):
        return {name: w[name] for name in (*kernels, *gates)}

    layer = rnnx.mlstm(WIDTH, heads=HEADS, param_dtype=jnp.float64)
    if form == "parallel":
        run_ours = ours(layer, convert, states=no_states)
    else:
        run_ours = ours(layer, convert, lambda w: rnnx.cells.MLSTMCarry(w["c"], w["n"], w["m"]))
    assert_close(results(run_ours, numbers), torch_results(run, numbers, "float64"), DOUBLE)


def fla_module(path):
    """A file of fla-core by itself: the package wants triton, its plain functions do not."""
    pytest.importorskip("torch")
    found = importlib.util.find_spec("fla")
    if found is None:
        pytest.skip("fla-core is not installed")
    spec = importlib.util.spec_from_file_location(
        "fla_" + path.replace("/", "_"), Path(*found.submodule_search_locations, f"{path}.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gla_in_torch(F, w):
    naive = fla_module("ops/gla/naive")
    q, k, v, r, low = (w["xs"] @ w["input_kernel"]).split([KEYS, KEYS, VALUES, VALUES, 2], -1)
    decay = F.logsigmoid(low @ w["decay_kernel"] + w["decay_bias"]) / 16
    by_head = (a.unflatten(-1, (HEADS, -1)) for a in (q, k, v, decay))
    o, state = naive.naive_recurrent_gla(*by_head, w["start"], output_final_state=True)
    o = F.rms_norm(o, o.shape[-1:], w["norm_scale"], 1e-5).flatten(2)
    return (state,), (o * F.silu(r)) @ w["output_kernel"]


def delta_in_torch(F, w):
    naive = fla_module("ops/delta_rule/naive")
    q, k, v, beta = (w["xs"] @ w["input_kernel"]).split([KEYS, KEYS, VALUES, HEADS], -1)
    q, k, v = (in_heads(F.silu(a)) for a in (q, k, v))
    q, k = (a * (a.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for a in (q, k))
    o, state = naive.delta_rule_recurrence(q, k, v, beta.sigmoid().transpose(1, 2), w["start"])
    o = F.rms_norm(o, o.shape[-1:], w["norm_scale"], 1e-5)
    return (state,), flattened(o) @ w["output_kernel"]


def gated_delta_in_torch(F, w):
    naive = fla_module("ops/gated_delta_rule/naive")
    q, k, v, r, beta, step = (w["xs"] @ w["input_kernel"]).split([KEYS, KEYS, VALUES, VALUES, HEADS, HEADS], -1)
    q, k, v = (F.silu(a).unflatten(-1, (HEADS, -1)) for a in (q, k, v))
    q, k = (a * (a.square().sum(-1, keepdim=True) + 1e-6).rsqrt() for a in (q, k))
    decay = -w["log_rate"].exp() * F.softplus(step + w["step_bias"])
    o, state = naive.naive_recurrent_gated_delta_rule(
        q, k, v, beta.sigmoid(), decay, initial_state=w["start"], output_final_state=True
    )
    o = F.rms_norm(o, o.shape[-1:], w["norm_scale"], 1e-5).flatten(2)
    return (state,), (o * F.silu(r)) @ w["output_kernel"]


FLA = {
    "gla": (gla_in_torch, {"rank": 2}, 2 * KEYS + 2 * VALUES + 2, {"decay_kernel": (2, KEYS), "decay_bias": (KEYS,)}),
    "delta_net": (delta_in_torch, {}, 2 * KEYS + VALUES + HEADS, {}),
    "gated_delta_net": (
        gated_delta_in_torch,
        {},
        2 * (KEYS + VALUES + HEADS),
        {"log_rate": (HEADS,), "step_bias": (HEADS,)},
    ),
}


@pytest.mark.parametrize("name", FLA)
def test_matrix_memories(name):
    """The authors' flash-linear-attention: its plain recurrences, in float32, between our projections in torch."""
    torch = pytest.importorskip("torch")
    in_torch, options, columns, own = FLA[name]
    kernels = {"input_kernel": (FEATURES, columns), "output_kernel": (VALUES, WIDTH), "norm_scale": (VALUES // HEADS,)}
    numbers = random_like({**kernels, **own, "start": (BATCH, HEADS, KEYS // HEADS, VALUES // HEADS)}, FEATURES)

    def convert(w):
        return {key: w[key] for key in (*kernels, *own)}

    layer = getattr(rnnx, name)(WIDTH, heads=HEADS, key_width=KEYS, value_width=VALUES, **options)
    expected = torch_results(lambda w: in_torch(torch.nn.functional, w), numbers, "float32")
    assert_close(results(ours(layer, convert, lambda w: w["start"]), numbers), expected, SINGLE)
