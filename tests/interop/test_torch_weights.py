"""Weights from torch and back, against torch itself: outputs, final states, gradients, all weights and biases random.

torch's CPU wheel is installed where Python is 3.11; there these tests run.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.interop.torch import from_torch, from_torch_arrays, to_torch, to_torch_arrays
from rnnx.testing import assert_close, cotangent_of

torch = pytest.importorskip("torch")

BATCH, TIME, FEATURES, WIDTH = 4, 7, 3, 5
LENGTHS = np.array([7, 4, 1, 6])

NETS = {
    "tanh": lambda **o: torch.nn.RNN(FEATURES, WIDTH, nonlinearity="tanh", **o),
    "relu": lambda **o: torch.nn.RNN(FEATURES, WIDTH, nonlinearity="relu", **o),
    "lstm": lambda **o: torch.nn.LSTM(FEATURES, WIDTH, **o),
    "projected": lambda **o: torch.nn.LSTM(FEATURES, WIDTH, proj_size=2, **o),
    "gru": lambda **o: torch.nn.GRU(FEATURES, WIDTH, **o),
}
CELLS = {
    "tanh": lambda **o: torch.nn.RNNCell(FEATURES, WIDTH, nonlinearity="tanh", **o),
    "relu": lambda **o: torch.nn.RNNCell(FEATURES, WIDTH, nonlinearity="relu", **o),
    "lstm": lambda **o: torch.nn.LSTMCell(FEATURES, WIDTH, **o),
    "gru": lambda **o: torch.nn.GRUCell(FEATURES, WIDTH, **o),
}


def randomized(module):
    torch.manual_seed(0)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


def inputs(dtype):
    return np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(dtype)


def in_torch(module, xs, lengths):
    """`((h, c), ys)` (or `((h,), ys)`), and the gradients of a weighted sum of all of them by xs and weights."""
    xs, first = torch.tensor(xs, requires_grad=True), module.batch_first
    sequences = xs if first else xs.transpose(0, 1)
    if lengths is None:
        ys, state = module(sequences)
    else:
        pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
        ys, state = module(pack(sequences, torch.tensor(lengths), batch_first=first, enforce_sorted=False))
        ys, _ = pad(ys, batch_first=first, total_length=TIME)
    ys = ys if first else ys.transpose(0, 1)
    out = (state if isinstance(state, tuple) else (state,), ys)
    values = jax.tree.map(lambda t: t.detach().numpy(), out)
    leaves = zip(jax.tree.leaves(out), jax.tree.leaves(cotangent_of(values)))
    sum((t * torch.tensor(w)).sum() for t, w in leaves).backward()
    return values, xs.grad.numpy(), {name: p.grad.numpy() for name, p in module.named_parameters()}


def states(carry):
    """rnnx's carries in torch's order: `(h,)` or `(h, c)`, each `[layers * directions, batch, ...]`."""
    if isinstance(carry, rnnx.BiCarry):
        parts = [states(side) for side in carry]
    elif isinstance(carry, rnnx.cells.LSTMCarry):
        return tuple(a[None] for a in carry)
    elif isinstance(carry, tuple):
        parts = [states(c) for c in carry if not (isinstance(c, tuple) and c == ())]
    else:
        return (carry[None],)
    return tuple(jnp.concatenate(leaves) for leaves in zip(*parts))


def in_rnnx(layer, params, xs, lengths):
    def loss(params, xs):
        carry, ys = rnnx.unroll(layer, params, xs, lengths=lengths)
        out = states(carry), ys
        leaves = zip(jax.tree.leaves(out), jax.tree.leaves(cotangent_of(out)))
        return sum((y * w).sum() for y, w in leaves), out

    (by_params, by_xs), out = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
    return out, by_xs, by_params


def assert_same(module, layer, params, dtype, lengths, tolerance):
    xs = inputs(dtype)
    expected_out, expected_xs, expected_weights = in_torch(module, xs, lengths)
    out, by_xs, by_params = in_rnnx(layer, params, xs, lengths)
    assert all(a.dtype == dtype for a in jax.tree.leaves((out, params)))
    assert_close((out, by_xs), (expected_out, expected_xs), tolerance)
    # The gradients lie as the weights do, but for bias_hh: where it is added to bias_ih they are the same.
    moved = to_torch_arrays(layer, by_params)
    for name, expected in expected_weights.items():
        actual = moved[name]
        if name.startswith("bias_hh"):
            actual = np.where(actual == 0, moved[name.replace("hh", "ih")], actual)
        assert_close({name: actual}, {name: expected}, tolerance)


@pytest.mark.parametrize(
    ("kind", "layers", "both"),
    [*((kind, 2, True) for kind in NETS if kind != "relu"), ("projected", 1, True), ("relu", 1, False)],
)
def test_float64(kind, layers, both):
    """With lengths; with and without `batch_first`, which makes no difference."""
    with jax.enable_x64(True):
        options = {"num_layers": layers, "bidirectional": both, "batch_first": both}
        module = randomized(NETS[kind](dtype=torch.float64, **options))
        assert_same(module, *from_torch(module), np.float64, LENGTHS, 1e-12)


@pytest.mark.parametrize("kind", NETS)
def test_float32(kind):
    module = randomized(NETS[kind](num_layers=2))
    assert_same(module, *from_torch(module), np.float32, LENGTHS, 2e-5)


@pytest.mark.parametrize("kind", NETS)
def test_without_biases_and_lengths(kind):
    with jax.enable_x64(True):
        module = randomized(NETS[kind](bias=False, dtype=torch.float64))
        layer, params = from_torch(module)
        assert not params["bias"].any()
        assert_same(module, layer, params, np.float64, None, 1e-12)
        same = NETS[kind](bias=False, dtype=torch.float64)
        same.load_state_dict(to_torch(layer, params, bias=False))
        assert all((a == b).all() for a, b in zip(module.parameters(), same.parameters()))


@pytest.mark.parametrize(("kind", "bias"), [*((kind, True) for kind in CELLS), ("gru", False)])
def test_cells(kind, bias):
    """A cell's steps, in float64; and its state dict through `from_torch_arrays`."""
    with jax.enable_x64(True):
        module = randomized(CELLS[kind](bias=bias, dtype=torch.float64))
        layer, params = from_torch(module)
        xs = inputs(np.float64)
        state, expected = None, []
        for x in torch.tensor(xs).unbind(1):
            state = module(x, state)
            expected.append((state[0] if kind == "lstm" else state).detach().numpy())
        carry, ys = rnnx.unroll(layer, params, xs)
        assert_close(ys, np.stack(expected, axis=1), 1e-12)
        assert_close(
            tuple(carry) if kind == "lstm" else carry, jax.tree.map(lambda s: s.detach().numpy(), state), 1e-12
        )
        mode = {"lstm": "LSTM", "gru": "GRU"}.get(kind, f"RNN_{kind.upper()}")
        assert_identical(from_torch_arrays(module.state_dict(), mode=mode), (layer, params))
        if bias:
            module.load_state_dict({n.removesuffix("_l0"): a for n, a in to_torch(layer, params).items()})


def assert_identical(made, expected):
    assert str(made[0]) == str(expected[0])
    assert jax.tree.structure(made[1]) == jax.tree.structure(expected[1])
    for a, b in zip(jax.tree.leaves(made[1]), jax.tree.leaves(expected[1])):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def one_of(kind):
    make = {
        "tanh": rnnx.elman,
        "relu": lambda width, **o: rnnx.elman(width, activation=jax.nn.relu, **o),
        "projected": lambda width, **o: rnnx.lstm(width, projection=2, **o),
    }
    return make.get(kind) or getattr(rnnx, kind)


def random_params(layer):
    """With a negative zero in each row."""
    random = np.random.default_rng(0)

    def values(like):
        p = random.normal(size=like.shape)
        p[..., 0] = -0.0
        return jnp.asarray(p, like.dtype)

    return jax.tree.map(values, jax.eval_shape(layer.init, jax.random.key(0), inputs(np.float32)))


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, dtype) for kind in NETS for dtype in ("float32", "float64")), ("gru", "bfloat16")]
)
def test_to_torch_and_back(kind, dtype):
    """The identity, bit for bit, by way of a module that loads the state dict strictly; -0.0 stays -0.0."""
    with jax.enable_x64(dtype == "float64"):
        options = {} if dtype == "float32" else {"param_dtype": jnp.dtype(dtype)}
        for layers, both in [(1, False), (2, True)] if dtype == "float64" else [(2, False)]:
            made = [one_of(kind)(WIDTH, **options) for _ in range(layers)]
            made = [rnnx.bidirectional(layer) for layer in made] if both else made
            layer = rnnx.stack(*made) if layers > 1 else made[0]
            params = random_params(layer)
            module = NETS[kind](num_layers=layers, bidirectional=both, dtype=getattr(torch, dtype))
            result = module.load_state_dict(to_torch(layer, params), strict=True)
            assert result.missing_keys == result.unexpected_keys == []
            assert_identical(from_torch(module), (layer, params))
            assert_identical(from_torch_arrays(to_torch_arrays(layer, params), mode=module.mode), (layer, params))


def test_weights_of_rnnx_in_torch():
    layer = rnnx.stack(rnnx.bidirectional(rnnx.gru(WIDTH)), rnnx.dropout(0.5), rnnx.bidirectional(rnnx.gru(WIDTH)))
    params, xs = random_params(layer), inputs(np.float32)
    module = torch.nn.GRU(FEATURES, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
    module.load_state_dict(to_torch(layer, params))
    ys, h = module(torch.tensor(xs))
    carry, actual = rnnx.unroll(layer, params, xs)
    assert_close((actual, states(carry)[0]), (ys.detach().numpy(), h.detach().numpy()))


def test_dropout_between_the_layers():
    layer, _ = from_torch(torch.nn.GRU(FEATURES, WIDTH, num_layers=3, dropout=0.25))
    assert [child.spec.name for _, child in layer.spec.children] == ["gru", "dropout", "gru", "dropout", "gru"]
    assert layer.spec.children[1][1].spec.options == {"rate": 0.25}


def test_nothing_is_shared():
    module = torch.nn.LSTM(FEATURES, WIDTH)
    _, params = from_torch(module)
    before = np.array(params["bias"]), np.array(params["input_kernel"])
    state = to_torch(rnnx.lstm(WIDTH), params)
    with torch.no_grad():
        for t in (*module.parameters(), *state.values()):
            t.add_(1.0)
    assert (before[0] == params["bias"]).all()
    assert (before[1] == params["input_kernel"]).all()


def test_float64_without_x64():
    with pytest.raises(ValueError, match=r"the weights are float64, which JAX would round to float32.*enable_x64"):
        from_torch(torch.nn.GRU(FEATURES, WIDTH, dtype=torch.float64))


def test_what_is_no_module(tmp_path):
    module = torch.nn.LSTM(FEATURES, WIDTH)
    with pytest.raises(TypeError, match=r"got a state dict, which does not tell its kind.*from_torch_arrays"):
        from_torch(module.state_dict())
    path = tmp_path / "lstm.pt"
    torch.save(module, path)
    for file in (path, str(path), pathlib.Path("nowhere")):
        with pytest.raises(TypeError, match=r"opens no files.*weights_only=True"):
            from_torch(file)
    with pytest.raises(TypeError, match=r"but got Linear$"):
        from_torch(torch.nn.Linear(3, 3))
    with pytest.raises(TypeError, match=r"Sequential; it contains \['0'\]"):
        from_torch(torch.nn.Sequential(module))
    with pytest.raises(TypeError, match="but got int"):
        from_torch(3)
    other = type("MyLSTM", (torch.nn.LSTM,), {})(FEATURES, WIDTH)
    with pytest.raises(TypeError, match=r"MyLSTM is a subclass of.*mode='LSTM'"):
        from_torch(other)
    assert from_torch_arrays(other.state_dict(), mode=other.mode)[0].spec.name == "lstm"


def test_a_module_at_odds_with_itself():
    module = torch.nn.LSTM(FEATURES, WIDTH, num_layers=2)
    module.weight_hh_l1 = torch.nn.Parameter(torch.zeros(15, 5))
    with pytest.raises(ValueError, match=r"weight_hh_l1 has shape \(15, 5\), expected \(20, 5\) in LSTM of width 5"):
        from_torch(module)
    module = torch.nn.GRU(FEATURES, WIDTH, num_layers=2)
    del module.bias_ih_l1
    with pytest.raises(ValueError, match=r"bias_ih_l1 of shape \(15,\) is missing"):
        from_torch(module)
    module.register_parameter("scale", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match=r"unexpected entries \['scale'\] for GRU"):
        from_torch(module)
    parametrized = torch.nn.utils.parametrizations.weight_norm(torch.nn.GRU(FEATURES, WIDTH), "weight_hh_l0")
    with pytest.raises(TypeError, match="ParametrizedGRU"):
        from_torch(parametrized)


def arrays_of(kind, **options):
    return {name: p.numpy() for name, p in NETS[kind](**options).state_dict().items()}


def changed(arrays, **changes):
    return {name: a for name, a in {**arrays, **changes}.items() if a is not None}


@pytest.mark.parametrize(
    ("kind", "mode", "changes", "message"),
    [
        ("lstm", "RNN", {}, r"mode is 'RNN', but it must be one of \['RNN_TANH', 'RNN_RELU', 'LSTM', 'GRU'\]"),
        ("lstm", "GRU", {}, r"weight_ih_l0 has shape \(20, 3\), expected \(15, 3\) in GRU of width 5"),
        ("tanh", "LSTM", {}, r"weight_ih_l0 has shape \(5, 3\), expected \(20, 3\)"),
        ("projected", "GRU", {}, "a projection, which only an LSTM has"),
        ("gru", "GRU", {"weight_hh_l1": None}, r"weight_hh_l1 of shape \(15, 5\) is missing"),
        ("gru", "GRU", {"weight_hh_l0": None}, "weight_hh_l0 is missing"),
        ("gru", "GRU", {"weight_hh_l0": np.zeros(15)}, r"weight_hh_l0 has shape \(15,\), expected a matrix"),
        ("gru", "GRU", {"bias_hh_l1": None}, r"bias_hh_l1 of shape \(15,\) is missing"),
        ("gru", "GRU", {"bias_hh_l1": np.zeros(12, "f")}, r"bias_hh_l1 has shape \(12,\), expected \(15,\)"),
        ("gru", "GRU", {"weight_ih_l1": np.zeros((15, 3), "f")}, r"shape \(15, 3\), expected \(15, 5\)"),
        ("gru", "GRU", {"weight_ih_l0": np.zeros((15, 3))}, "weight_hh_l0 is float32, but weight_ih_l0 is float64"),
        ("gru", "GRU", {"bias_hh_l1": np.zeros(15, int)}, "bias_hh_l1 is int64, expected floating numbers"),
        ("gru", "GRU", {"bias_hh_l1": np.full(15, None)}, "bias_hh_l1 is object, expected floating numbers"),
        ("gru", "GRU", {"weight_ih_l3": np.zeros((15, 5), "f")}, r"weight_ih_l2 of shape \(15, 5\) is missing"),
        (
            "gru",
            "GRU",
            {"weight_ih_l999999999999": np.zeros((15, 5), "f")},
            "unexpected entries .*weight_ih_l999999999999",
        ),
        ("gru", "GRU", {"weight_ih_l1_reverse": np.zeros((15, 5))}, r"weight_ih_l0_reverse of shape .* is missing"),
        ("gru", "GRU", {"fc.weight": np.zeros((2, 2))}, r"\['fc.weight'\] are not entries .* without a prefix"),
        (
            "gru",
            "GRU",
            {"weight_ih": np.zeros((15, 3), "f")},
            r"unexpected entries \['weight_ih'\]",
        ),
    ],
)
def test_arrays_that_do_not_fit(kind, mode, changes, message):
    with pytest.raises(ValueError, match=message):
        from_torch_arrays(changed(arrays_of(kind, num_layers=2), **changes), mode=mode)


def test_no_arrays_at_all():
    with pytest.raises(ValueError, match=r"weight_ih is missing; there are \[\]"):
        from_torch_arrays({}, mode="GRU")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rnnx.gru(4, reset_after=False), "before the recurrent product, but torch's GRU after it"),
        (lambda: rnnx.elman(4, activation=jax.nn.gelu), "has tanh and relu, but got elman with"),
        (lambda: rnnx.lstm(4, peephole=True), "lstm with peephole=True has no equivalent in torch"),
        (lambda: rnnx.lstm(4, coupled=True), "lstm with coupled=True has no equivalent"),
        (lambda: rnnx.lstm(4, layer_norm=True), "lstm with layer_norm=True has no equivalent"),
        (lambda: rnnx.stack(rnnx.gru(4), rnnx.gru(5)), "have the same kind, width and"),
        (lambda: rnnx.stack(rnnx.gru(4), rnnx.lstm(4)), "have the same kind, width and"),
        (lambda: rnnx.stack(rnnx.gru(4), rnnx.bidirectional(rnnx.gru(4))), "have the same kind, width and"),
        (lambda: rnnx.bidirectional(rnnx.gru(4), rnnx.lstm(4)), "have the same kind, width and"),
        (
            lambda: rnnx.stack(rnnx.elman(4), rnnx.elman(4, activation=jax.nn.relu)),
            "have the same kind, width and",
        ),
        (
            lambda: rnnx.stack(rnnx.lstm(4, projection=2), rnnx.lstm(4, projection=3)),
            "have the same kind, width and",
        ),
        (lambda: rnnx.bidirectional(rnnx.gru(4), merge=jnp.add), "another merge"),
    ],
)
def test_what_torch_has_not(make, message):
    layer = make()
    params = random_params(layer)
    with pytest.raises(ValueError, match=message):
        to_torch(layer, params)


def test_biases_that_would_be_lost():
    layer, params = from_torch(randomized(torch.nn.GRU(FEATURES, WIDTH)))
    for name in ("bias", "recurrent_bias"):
        with pytest.raises(ValueError, match="bias is False, but the biases of gru are not zero"):
            to_torch(layer, {**params, name: jnp.zeros_like(params[name])}, bias=False)
