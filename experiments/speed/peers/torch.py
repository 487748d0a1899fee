"""torch.nn, on the same device as JAX: the CPU, or a GPU with cuDNN."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from experiments.speed.peers.net import Prepared
from experiments.speed.peers.rnnx import LAYERS, width_of
from rnnx.interop import to_torch, to_torch_arrays

GPU = jax.default_backend() == "gpu"
DEVICE = "cuda" if GPU else "cpu"
torch.backends.cudnn.allow_tf32 = False

NETS: dict[str, Any] = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
CELLS: dict[str, Any] = {"elman": torch.nn.RNNCell, "lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}


def waited(results: Any) -> Any:
    """Waits for a GPU, as torch returns before it is done."""
    if GPU:
        torch.cuda.synchronize()
    return results


def prepare(cell: str, params: Any, xs: jax.Array) -> Prepared:
    features, width = params["input_kernel"].shape[0], width_of(params)
    layer = LAYERS[cell](width)
    module = NETS[cell](features, width, batch_first=True).to(DEVICE)
    module.load_state_dict(to_torch(layer, params))
    inputs, weights = torch.tensor(np.asarray(xs), device=DEVICE), dict(module.named_parameters())

    def forward() -> Any:
        with torch.no_grad():
            return waited(module(inputs)[0])

    def gradient() -> tuple[Any, Any]:
        value = module(inputs)[0].square().mean()
        return waited((value, dict(zip(weights, torch.autograd.grad(value, list(weights.values()))))))

    def pulled(gradient: Any) -> Any:
        """In torch's layout; two biases that are summed have the same gradient."""
        entries = to_torch_arrays(layer, jax.device_get(gradient))
        both, inner = entries["bias_ih_l0"], entries["bias_hh_l0"]
        inside = np.arange(len(both)) >= (2 * width if cell == "gru" else len(both))  # only b'_n of a GRU
        return {**entries, "bias_hh_l0": np.where(inside, inner, both)}

    return Prepared(forward, gradient, layer, pulled, None, None)


def stream(cell: str, params: Any, x: jax.Array, steps: int) -> Callable[[], Any]:
    """A loop in Python over torch's cell."""
    features, width = params["input_kernel"].shape[0], width_of(params)
    one = CELLS[cell](features, width).to(DEVICE)
    state_dict = to_torch(LAYERS[cell](width), params)
    one.load_state_dict({name.removesuffix("_l0"): value for name, value in state_dict.items()})
    first = torch.tensor(np.asarray(x), device=DEVICE)

    def run() -> Any:
        with torch.no_grad():
            y, state, ys = first, None, []
            for _ in range(steps):
                state = one(y, state)
                y = state[0] if cell == "lstm" else state
                ys.append(y)
            return waited(torch.stack(ys, dim=1)).cpu()

    return run
