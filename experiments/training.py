"""The step of supervised training: a loss, an optimiser, and the state that `loop.fit` keeps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.settings import Optimizer

Loss = Callable[[Any, jax.Array, Any], tuple[jax.Array, Mapping[str, jax.Array]]]
"""`(params, key, data) -> (loss, further metrics)`; the key draws the batch and the noise."""


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any


def initial_state(
    seed: int | jax.Array, init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step; `init` makes the params from a key."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params = init(init_key)
    return TrainState(jnp.zeros((), jnp.int32), key, params, optimizer.init(params))


Step = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(loss: Loss, optimizer: optax.GradientTransformation) -> Step:
    """A step for `loop.fit`; its random key is derived from the step number."""

    def train_step(state: TrainState, data: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, key, data)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        shown = {"loss": value, **metrics, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, state.key, params, optimizer_state), shown

    return train_step


def in_chunks(update: Step, updates: int) -> Step:
    """A step for `loop.fit` that makes several updates and averages their metrics."""

    def train_step(state: TrainState, data: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        state, metrics = jax.lax.scan(lambda s, _: update(s, data), state, length=updates)
        return state, jax.tree.map(jnp.mean, metrics)

    return train_step


def make_schedule(train: Optimizer, final_fraction: float = 0.0) -> optax.Schedule:
    """A linear warm-up, then a cosine decay to `final_fraction` of the peak."""
    peak = train.learning_rate
    return promoting(
        optax.warmup_cosine_decay_schedule(
            init_value=0.0 if train.warmup else peak,
            peak_value=peak,
            warmup_steps=train.warmup,
            decay_steps=max(train.total_updates, train.warmup + 1),
            end_value=peak * final_fraction,
        )
    )


def make_optimizer(train: Optimizer, final_fraction: float = 0.0, b2: float = 0.999) -> optax.GradientTransformation:
    """AdamW after clipping; weight decay acts on matrices only, as biases need none."""

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

    schedule = make_schedule(train, final_fraction)
    adamw = optax.adamw(schedule, b2=b2, weight_decay=train.weight_decay, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(train.clip), adamw)
    return optax.GradientTransformation(optimizer.init, promoting(optimizer.update))


def update_average(average: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """The running average of the weights after one more step.

    Its decay starts at 0.1 and grows to `decay`: otherwise the random initial weights would stay in it for a long time.
    """
    return optax.incremental_update(params, average, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))


def promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under JAX's standard dtype promotion: Optax mixes floats with its integer count of steps."""

    @functools.wraps(function)
    def promoted(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoted
