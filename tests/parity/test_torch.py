"""Against torch.nn.RNN, LSTM and GRU, with random weights and biases: outputs, final states, gradients, lengths.

torch's CPU wheel is installed where Python is 3.11; there these tests run.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnnx
from rnnx.testing import assert_close

torch = pytest.importorskip("torch")

BATCH, TIME, FEATURES, WIDTH = 4, 11, 3, 5
LENGTHS = np.array([11, 7, 1, 9])


def elman_params(w):
    return {
        "input_kernel": w["weight_ih"].T,
        "recurrent_kernel": w["weight_hh"].T,
        "bias": w["bias_ih"] + w["bias_hh"],
    }


def gru_params(w):
    update = np.concatenate([w["bias_hh"][: 2 * WIDTH], np.zeros(WIDTH)])
    return {
        "input_kernel": w["weight_ih"].T,
        "recurrent_kernel": w["weight_hh"].T,
        "bias": w["bias_ih"] + update,
        "recurrent_bias": w["bias_hh"][2 * WIDTH :],
    }


KINDS = {
    "tanh": (lambda **o: torch.nn.RNN(nonlinearity="tanh", **o), lambda: rnnx.elman(WIDTH), elman_params),
    "relu": (
        lambda **o: torch.nn.RNN(nonlinearity="relu", **o),
        lambda: rnnx.elman(WIDTH, activation=jax.nn.relu),
        elman_params,
    ),
    "lstm": (torch.nn.LSTM, lambda: rnnx.lstm(WIDTH), elman_params),
    "gru": (torch.nn.GRU, lambda: rnnx.gru(WIDTH), gru_params),
}


def moved(module, convert, suffix):
    """The params of one layer and direction of a torch module."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return convert({name: getattr(module, f"{name}_{suffix}").detach().numpy() for name in names})


def random_module(kind, dtype, **options):
    torch.manual_seed(0)
    module = KINDS[kind][0](input_size=FEATURES, hidden_size=WIDTH, batch_first=True, dtype=dtype, **options)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


def by_input(module, xs, lengths=None):
    """torch's outputs, final h and the gradient of a weighted sum of both by the inputs."""
    xs = torch.tensor(np.asarray(xs), requires_grad=True)
    if lengths is None:
        ys, state = module(xs)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            xs, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        ys, state = module(packed)
        ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, batch_first=True, total_length=TIME)
    h = state[0] if isinstance(state, tuple) else state
    ((ys**2).sum() + (h**3).sum()).backward()
    return ys.detach().numpy(), h.detach().numpy(), xs.grad.numpy()


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_layer(kind, lengths):
    """In float64 within 1e-12: values, and gradients by inputs and by every weight."""
    with jax.enable_x64(True):
        module = random_module(kind, torch.float64)
        _, make, convert = KINDS[kind]
        layer, params = make(), moved(module, convert, "l0")
        xs = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))

        def loss(params, xs):
            carry, ys = rnnx.unroll(layer, params, xs, lengths=lengths)
            h = carry.h if kind == "lstm" else carry
            return (ys**2).sum() + (h**3).sum(), (ys, h)

        gradients, (ys, h) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, xs)
        expected_ys, expected_h, expected_xs = by_input(module, xs, lengths)
        assert_close((ys, h, gradients[1]), (expected_ys, expected_h[0], expected_xs), 1e-12)
        assert_close(gradients[0]["input_kernel"], module.weight_ih_l0.grad.numpy().T, 1e-12)
        assert_close(gradients[0]["recurrent_kernel"], module.weight_hh_l0.grad.numpy().T, 1e-12)
        assert_close(gradients[0]["bias"], module.bias_ih_l0.grad.numpy(), 1e-12)
        if kind == "gru":
            assert_close(gradients[0]["recurrent_bias"], module.bias_hh_l0.grad.numpy()[2 * WIDTH :], 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_two_layers_both_directions(kind):
    """In float32, with lengths: torch's stack of bidirectional layers is a stack of `bidirectional`."""
    module = random_module(kind, torch.float32, num_layers=2, bidirectional=True)
    _, make, convert = KINDS[kind]
    layer = rnnx.stack(rnnx.bidirectional(make()), rnnx.bidirectional(make()))
    params = {
        f"{i}_bidirectional": {
            "forward": moved(module, convert, f"l{i}"),
            "backward": moved(module, convert, f"l{i}_reverse"),
        }
        for i in range(2)
    }
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    xs = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)

    def loss(xs):
        carry, ys = rnnx.unroll(layer, params, xs, lengths=LENGTHS)
        hs = [c.h if kind == "lstm" else c for both in carry for c in both]
        return (ys**2).sum() + sum((h**3).sum() for h in hs), (ys, jnp.stack(hs))

    gradient, (ys, hs) = jax.jit(jax.grad(loss, has_aux=True))(xs)
    expected_ys, expected_h, expected_xs = by_input(module, xs, LENGTHS)
    assert_close((ys, hs, gradient), (expected_ys, expected_h, expected_xs))
