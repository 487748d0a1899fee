"""The step of a supervised training: a loss, an optimiser, and the state that `loop.fit` keeps."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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


def make_train_step(
    loss: Loss, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """A step as `loop.fit` takes it; its key follows from the number of the step."""

    def train_step(state: TrainState, data: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.params, key, data)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        shown = {"loss": value, **metrics, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, state.key, params, optimizer_state), shown

    return train_step


def adamw(
    learning_rate: float, steps: int, *, warmup: int = 0, clip: float = 1.0, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """AdamW under a cosine decay to zero after a linear warm-up; decay acts on matrices only, as biases need none."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else learning_rate,
        peak_value=learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
    )

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

    adam = optax.adamw(schedule, weight_decay=weight_decay, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(clip), adam)
    return optax.GradientTransformation(optimizer.init, promoting(optimizer.update))


def promoting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under JAX's usual promotion of dtypes: Optax multiplies and raises floats by its count of steps."""

    @functools.wraps(function)
    def promoted(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return promoted
