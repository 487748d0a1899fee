"""The model, and a step of its training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import rnnx
from experiments.char_lm.corpus import read_chunk
from experiments.char_lm.settings import CharLM
from experiments.training import promoting


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    average: Any
    """Of the params over the steps."""
    carry: Any
    """Of each row of the batch."""


def training_devices(batch: int) -> tuple[jax.Device, ...]:
    """As many of those that there are as the rows of a batch divide evenly over; by default a CPU is one device."""
    found = jax.devices()
    return tuple(found[: max(count for count in range(1, len(found) + 1) if batch % count == 0)])


def make_model(config: CharLM, vocab_size: int) -> rnnx.Layer:
    make: Callable[[int], rnnx.Layer] = getattr(rnnx, config.cell)
    recurrent = [(make(config.width), rnnx.dropout(config.dropout)) for _ in range(config.layers)]
    stacked = rnnx.stack(
        nn.Embed(vocab_size, config.embed),
        rnnx.dropout(config.embed_dropout),
        *(layer for pair in recurrent for layer in pair),
        nn.Dense(vocab_size),
    )
    return rnnx.sharded(stacked, training_devices(config.batch))


def make_optimizer(config: CharLM) -> tuple[optax.GradientTransformation, optax.Schedule]:
    peak = config.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup else peak,
        peak_value=peak,
        warmup_steps=config.warmup,
        decay_steps=max(config.steps, config.warmup + 1),
        end_value=peak * config.final_lr_fraction,
    )

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

    adamw = optax.adamw(schedule, b2=config.beta2, weight_decay=config.weight_decay, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip), adamw)
    return optax.GradientTransformation(optimizer.init, promoting(optimizer.update)), promoting(schedule)


def initial_state(config: CharLM, model: rnnx.Layer) -> TrainState:
    tokens = jnp.zeros((config.batch, config.time), jnp.int32)
    init_key, key = jax.random.split(jax.random.key(config.seed))
    params = model.init(init_key, tokens)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params=params,
        optimizer=make_optimizer(config)[0].init(params),
        average=params,
        carry=model.initial_carry(params, tokens, None),
    )


def make_train_step(
    config: CharLM, model: rnnx.Layer, split: int
) -> Callable[[TrainState, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    optimizer, schedule = make_optimizer(config)

    def train_step(state: TrainState, text: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        reset_key, noise_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        inputs, targets, resets = read_chunk(config, split, text, state.step, reset_key)

        def loss_and_carry(params: Any) -> tuple[jax.Array, Any]:
            carry, logits = rnnx.unroll(
                model,
                params,
                inputs,
                carry=jax.lax.stop_gradient(state.carry),
                resets=resets,
                key=noise_key,
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            return losses.mean(), carry

        (loss, carry), gradient = jax.value_and_grad(loss_and_carry, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # An average that began at the random weights would carry them along for long.
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradient),
            "learning_rate": schedule(state.step),
        }
        return (
            TrainState(
                step=state.step + 1,
                key=state.key,
                params=params,
                optimizer=optimizer_state,
                average=optax.incremental_update(params, state.average, 1 - decay),
                carry=carry,
            ),
            metrics,
        )

    return train_step
