"""A run from its config to its results: the cell is trained by each method."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments.config import load
from experiments.loop import Fitted, Plan, fit
from experiments.online.config import Method, Online
from experiments.online.data import Stream, initial_stream, read
from experiments.online.evaluate import MONITOR, make_evaluate, report, show
from experiments.online.model import losses, make_cell, make_learner
from experiments.runs import open_run_dir, show_finished

COLUMNS = {"nats per bit": lambda metrics: f"{metrics['loss']:.3f}"}


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    memory: Any
    """The state of an online learner, or the carry of back-propagation."""
    stream: Stream


def make_optimizer(config: Online) -> optax.GradientTransformation:
    train = config.train
    return optax.chain(optax.clip_by_global_norm(train.clip), optax.adam(train.learning_rate, eps=train.eps))


def initial_state(config: Online, method: Method) -> TrainState:
    k_cell, k_readout, k_memory, key = jax.random.split(jax.random.key(config.run.seed), 4)
    batch, bits, width = config.train.batch, config.data.bits, config.model.width
    cell, learner = make_cell(config.model), make_learner(config.model, method)
    x = jax.ShapeDtypeStruct((batch, 2 * bits), jnp.float32)
    params = {
        "cell": cell.init(k_cell, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)),
        "readout": {
            "kernel": jax.nn.initializers.lecun_normal()(k_readout, (width, bits)),
            "bias": jnp.zeros(bits),
        },
    }
    if learner is None:
        xs = jax.ShapeDtypeStruct((batch, 1, *x.shape[1:]), x.dtype)
        memory = rnnx.scan(cell).initial_carry(params["cell"], xs, None)
    else:
        memory = learner.init(params, x, k_memory)
    optimizer = make_optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), key, params, optimizer, memory, initial_stream(config.data, batch))


def make_gradient(config: Online, method: Method) -> Callable[..., tuple[Any, jax.Array, Any]]:
    """`(params, memory, inputs, targets)` of a window, time axis first, to `(memory, loss, gradient)`."""
    learner, layer = make_learner(config.model, method), rnnx.scan(make_cell(config.model))

    def of_step(params: Any, memory: Any, *window: Any) -> tuple[Any, jax.Array, Any]:
        assert learner is not None
        memory, (nats, gradient, _) = learner.update(params, memory, *jax.tree.map(lambda a: a[0], window))
        return memory, nats, gradient

    def of_window(params: Any, memory: Any, *window: Any) -> tuple[Any, jax.Array, Any]:
        def total(params: Any) -> tuple[jax.Array, Any]:
            xs, targets = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), window)
            carry, ys = rnnx.unroll(layer, params["cell"], xs, carry=jax.lax.stop_gradient(memory))
            return losses(params["readout"], ys, targets).sum(), carry

        (nats, memory), gradient = jax.value_and_grad(total, has_aux=True)(params)
        return memory, nats, gradient

    return of_step if learner else of_window


def make_train_step(
    config: Online, method: Method
) -> Callable[[TrainState, None], tuple[TrainState, dict[str, jax.Array]]]:
    """A chunk of the stream, with an update after each of its steps, or of its windows."""
    optimizer, gradient_of, chunk = make_optimizer(config), make_gradient(config, method), config.train.chunk
    window = {"bptt": chunk, "bptt_short": config.train.short_window}.get(method, 1)

    def train_step(state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
        def update(inner: Any, keys: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            params, opt, memory, stream = inner
            stream, (xs, targets) = read(config.data, stream, keys)
            memory, nats, gradient = gradient_of(params, memory, xs, targets)
            # Most steps ask nothing. They change no weights: otherwise Adam would go on by its momentum alone.
            asked = targets.asked.sum()
            gradient = jax.tree.map(lambda g: g / jnp.maximum(asked, 1), gradient)
            changes, after = optimizer.update(gradient, opt, params)
            learned = optax.apply_updates(params, changes), after
            params, opt = jax.tree.map(lambda a, b: jnp.where(asked > 0, a, b), learned, (params, opt))
            return (params, opt, memory, stream), (nats, asked)

        keys = jax.random.split(jax.random.fold_in(state.key, state.step), (chunk // window, window))
        inner = state.params, state.optimizer, state.memory, state.stream
        inner, (nats, asked) = jax.lax.scan(update, inner, keys)
        metrics = {"loss": nats.sum() / jnp.maximum(asked.sum() * config.data.bits, 1)}
        return TrainState(state.step + 1, state.key, *inner), metrics

    return train_step


def fit_one(config: Online, run_dir: Path, method: Method) -> Fitted[TrainState]:
    folder, train = run_dir / method, config.train
    print(f"{method}: {train.steps * train.chunk:,} time steps of {train.batch} streams. Run folder: {folder}")
    return fit(
        folder,
        functools.partial(initial_state, config, method),
        make_train_step(config, method),
        None,
        make_evaluate(config, config.run.seed + 1_000_000, config.run.eval_batch),
        Plan.of(config, monitor=MONITOR, items="time steps", items_per_step=train.chunk),
        COLUMNS,
    )


def main(args: Sequence[str]) -> None:
    config = load(Online, args)
    run_dir = open_run_dir(config)
    if show_finished(run_dir, show):
        return
    report(config, run_dir, {method: fit_one(config, run_dir, method) for method in config.train.methods})
    show(run_dir)
