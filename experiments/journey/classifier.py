"""Data, nets, training and report; what is drawn in the report stands in `pictures`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnx
from experiments import config as configs
from experiments import results, training
from experiments.errors import UserError
from experiments.journey.traces import Trace, trace_of
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit

COMMAND = "python -m experiments.journey"
CONFIGS = Path("configs/journey")
MONITOR = "val_loss"
COLUMNS = {
    "loss": lambda metrics: f"{metrics['loss']:.3f}",
    "accuracy": lambda metrics: f"{metrics['accuracy']:.1%}",
}
CORNERS = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], np.float32)
"""Of the square, clockwise."""
UNITS = 2
"""Of every state: two numbers are a point of a plane, which is what can be drawn."""
Net = Literal["elman", "gru", "lstm", "stacked", "bidirectional"]
TITLES: dict[Net, str] = {
    "elman": "An Elman network of two units",
    "gru": "A GRU of two units",
    "lstm": "An LSTM of two units",
    "stacked": "Two Elman layers of two units each",
    "bidirectional": "An Elman network of two units in each direction",
}


@dataclasses.dataclass(frozen=True)
class Journey:
    """Trains nets of two hidden units and draws what their states do; every setting below can be overridden."""

    nets: tuple[Net, ...] = ("elman",)
    """Which to train, one after the other; stacked and bidirectional are made of two Elman layers."""

    noise: float = 0.1
    """Standard deviation of what is added to each coordinate; the sides of the square have length 2."""
    train_sequences: int = 2048
    """To train on."""
    val_sequences: int = 2048
    """To choose the checkpoint and the restart by."""
    test_sequences: int = 4096
    """For the final score and the pictures, and for nothing else."""

    restarts: int = 64
    """Initialisations that are trained side by side; the one with the lowest validation loss is kept. Two units have
    none to spare: from some initial weights descent ends in a bad optimum."""
    batch: int = 64
    """Sequences of an update."""
    updates: int = 4000
    """Of the weights, in all; the learning rate's schedule stretches over them."""
    updates_per_step: int = 50
    """Updates in one step of the training loop, which is compiled as one; it must divide the updates."""
    learning_rate: float = 5e-2
    """Peak learning rate of AdamW; after a short warm-up it falls to zero along a cosine."""
    weight_decay: float = 0.05
    """Decoupled weight decay, on matrices only. It keeps the moves short enough to be drawn; 0.2 would make R of
    the Elman network squash the plane onto a line."""

    eval_every: int = 4
    """Steps of the training loop between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    log_every: int = 1
    """Steps over which the training metrics are averaged for one line of the log."""

    animate: bool = False
    """Whether to make a film of the Elman network's plane as well."""
    seed: int = 0
    """Of the sequences, the weights and the batches."""
    run_dir: Path | None = None
    """Folder of the run; default runs/journey/<config's name>-seed<seed>."""


class Sequences(NamedTuple):
    """`xs` `[n, 4, 2]`, the corners in the order of the visit, with noise; `labels` `[n]`, 0 clockwise, 1 not."""

    xs: Any
    labels: Any


class Data(NamedTuple):
    train: Sequences
    val: Sequences
    test: Sequences


def draw(n: int, noise: float, rng: np.random.Generator) -> Sequences:
    """`n` sequences: every start and either direction in turn, so that each of the eight orders is as frequent.

    Sequences 2 k and 2 k + 1 are twins: they start from the same corner in different directions.
    """
    labels, starts = np.arange(n) % 2, np.arange(n) // 2 % 4
    visits = starts[:, None] + np.where(labels == 0, 1, -1)[:, None] * np.arange(4)
    xs = CORNERS[visits % 4] + noise * rng.standard_normal((n, 4, 2), np.float32)
    return Sequences(xs.astype(np.float32), labels.astype(np.int32))


def load_data(config: Journey) -> Data:
    sizes = config.train_sequences, config.val_sequences, config.test_sequences
    return Data(*(draw(n, config.noise, np.random.default_rng([config.seed, i])) for i, n in enumerate(sizes)))


class Model(NamedTuple):
    """`init(key) -> params`, with `net` and `readout` apart; `states(net params, xs) -> [n, 2 or 4]`, what the
    recurrent net ends in; `logits(params, xs) -> [n]`, above 0 for anticlockwise."""

    init: Callable[[jax.Array], Any]
    states: Callable[[Any, jax.Array], jax.Array]
    logits: Callable[[Any, jax.Array], jax.Array]


def make_model(name: Net) -> Model:
    elman = rnnx.elman(UNITS)
    nets: dict[Net, tuple[rnnx.Layer, Callable[[Any], jax.Array]]] = {
        "elman": (elman, lambda carry: carry),
        "gru": (rnnx.gru(UNITS), lambda carry: carry),
        "lstm": (rnnx.lstm(UNITS), lambda carry: carry.h),
        "stacked": (rnnx.stack(elman, elman), lambda carry: carry[1]),
        "bidirectional": (rnnx.bidirectional(elman), lambda carry: jnp.concatenate(carry, axis=-1)),
    }
    net, final = nets[name]
    readout = nn.Dense(1)

    def states(params: Any, xs: jax.Array) -> jax.Array:
        return final(rnnx.unroll(net, params, xs)[0])

    def init(key: jax.Array) -> Any:
        net_key, readout_key = jax.random.split(key)
        xs = jnp.zeros((1, 4, 2))
        params = net.init(net_key, xs)
        return {"net": params, "readout": readout.init(readout_key, states(params, xs))["params"]}

    def logits(params: Any, xs: jax.Array) -> jax.Array:
        logits: Any = readout.apply({"params": params["readout"]}, states(params["net"], xs))
        return logits[:, 0]

    return Model(init, states, logits)


def score(model: Model, params: Any, sequences: Sequences) -> dict[str, jax.Array]:
    """The mean loss in nats and the share of sequences that are told right."""
    logits = model.logits(params, sequences.xs)
    losses = optax.sigmoid_binary_cross_entropy(logits, sequences.labels)
    return {"loss": losses.mean(), "accuracy": ((logits > 0) == sequences.labels).mean()}


def make_optimizer(config: Journey) -> optax.GradientTransformation:
    return training.adamw(
        config.learning_rate, config.updates, warmup=config.updates // 20, weight_decay=config.weight_decay
    )


def initial_states(config: Journey, model: Model) -> training.TrainState:
    """A state for each restart; every leaf is `[restarts, ...]`."""

    def start(seed: Any) -> training.TrainState:
        return training.initial_state(seed, model.init, make_optimizer(config))

    return jax.vmap(start)(config.seed * config.restarts + jnp.arange(config.restarts))


def make_train_step(
    config: Journey, model: Model
) -> Callable[[training.TrainState, Sequences], tuple[training.TrainState, dict[str, jax.Array]]]:
    """Several updates of all restarts; the metrics are those of the restart that does best."""

    def loss(params: Any, key: jax.Array, data: Sequences) -> tuple[jax.Array, dict[str, jax.Array]]:
        rows = jax.random.randint(key, (config.batch,), 0, len(data.labels))
        scores = score(model, params, Sequences(data.xs[rows], data.labels[rows]))
        return scores["loss"], {"accuracy": scores["accuracy"]}

    update = jax.vmap(training.make_train_step(loss, make_optimizer(config)), in_axes=(0, None))

    def train_step(state: training.TrainState, data: Sequences) -> tuple[training.TrainState, dict[str, jax.Array]]:
        state, metrics = jax.lax.scan(lambda s, _: update(s, data), state, length=config.updates_per_step)
        means = {name: values.mean(axis=0) for name, values in metrics.items()}
        best = means["loss"].argmin()
        return state, {name: values[best] for name, values in means.items()}

    return train_step


def make_score_all(model: Model, sequences: Sequences) -> Callable[[Any], dict[str, np.ndarray]]:
    """Scores the params `[restarts, ...]` of all restarts."""
    scores = jax.jit(jax.vmap(lambda params: score(model, params, sequences)))
    return lambda params: jax.device_get(scores(params))


def make_evaluate(model: Model, sequences: Sequences) -> Callable[[training.TrainState], dict[str, float]]:
    score_all = make_score_all(model, sequences)

    def evaluate(state: training.TrainState) -> dict[str, float]:
        scores = score_all(state.params)
        best = scores["loss"].argmin()
        return {MONITOR: scores["loss"][best], "val_accuracy": scores["accuracy"][best]}

    return evaluate


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Journey(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    settings = configs.settings(config)
    del settings["animate"]  # a film can be asked for later
    configs.claim(run_dir, settings)
    film_wanted = config.animate and not (run_dir / "elman_journey.gif").exists()
    if not film_wanted and results.show_finished(run_dir, lambda: show(run_dir)):
        return

    data = load_data(config)
    fitted = {}
    for net in config.nets:
        folder = run_dir / net
        folder.mkdir(exist_ok=True)
        model = make_model(net)
        print(f"{net}: {config.restarts} restarts of {config.updates:,} updates. Run folder: {folder}", flush=True)
        fitted[net] = fit(
            folder,
            functools.partial(initial_states, config, model),
            make_train_step(config, model),
            jax.tree.map(jnp.asarray, data.train),
            make_evaluate(model, data.val),
            Plan(
                steps=config.updates // config.updates_per_step,
                eval_every=config.eval_every,
                log_every=config.log_every,
                monitor=MONITOR,
                items="updates",
                items_per_step=config.updates_per_step,
            ),
            COLUMNS,
        )
    report(config, run_dir, data, fitted)
    show(run_dir)


def report(config: Journey, run_dir: Path, data: Data, fitted: Mapping[Net, Fitted[training.TrainState]]) -> None:
    """Scores the best restart of each net at its best checkpoint. Writes results.json last: it marks the end."""
    from experiments.journey import animation, pictures  # not at the top: a second of start-up
    from experiments.plots import learning_curve

    rows: dict[Net, dict[str, Any]] = {}
    drawn: dict[str, tuple[Trace, pictures.Readout, float]] = {}
    xs, labels = data.test
    for net, run in fitted.items():
        model = make_model(net)
        val, test = (make_score_all(model, part)(run.best.params) for part in (data.val, data.test))
        best = int(val["loss"].argmin())
        params = jax.tree.map(lambda leaf, best=best: np.asarray(leaf[best]), run.best.params)
        accuracy = float(test["accuracy"][best])
        rows[net] = {
            "test_accuracy": accuracy,
            "test_nats": float(test["loss"][best]),
            "val_accuracy": float(val["accuracy"][best]),
            "restart": best,
            "val_accuracy_of_restarts": [round(float(value), 4) for value in val["accuracy"]],
            "restarts_at_99_percent": int((val["accuracy"] >= 0.99).sum()),
            "parameters": results.count(params),
            "best_update": run.best_step * config.updates_per_step,
            "seconds": round(run.seconds, 1),
        }
        trace, readout = trace_of(net, params["net"], xs), pictures.readout_of(params)
        drawn[net] = trace, readout, accuracy
        pictures.journey(
            run_dir / f"{net}_journey.png",
            f"{TITLES[net]}: {accuracy:.2%} of the test sequences told apart",
            trace,
            readout,
            xs,
            labels,
        )
        if net == "elman":
            most, least = np.linalg.svd(params["net"]["recurrent_kernel"], compute_uv=False)
            pictures.elman_plane(
                run_dir / "elman_plane.png",
                f"What each move does to all states between -1 and 1: R stretches by {most:.2g} and {least:.2g}",
                params["net"],
                xs,
                trace.planes[0].points,
            )
            if config.animate:
                print("Drawing the film.", flush=True)
                animation.film(run_dir / "elman_journey.gif", trace.planes[0].points, readout, xs, labels)
        learning_curve(
            run_dir / net / "learning_curve.png",
            read_metrics(run_dir / net),
            train="loss",
            validation=MONITOR,
            label="nats",
            title=f"{run_dir.name}, {net}: the best of {config.restarts} restarts",
        )
    pictures.final_states(run_dir / "final_states.png", "Where the test sequences end", drawn, labels)
    results.finish(
        run_dir,
        scores_of({net: row["test_accuracy"] for net, row in rows.items()}),
        seed=config.seed,
        seconds=sum(run.seconds for run in fitted.values()),
        nets=rows,
        noise=config.noise,
        restarts=config.restarts,
        updates=config.updates,
        test_sequences=config.test_sequences,
    )


def scores_of(accuracies: Mapping[Net, float]) -> dict[str, float]:
    """By net, where there are several."""
    if len(accuracies) == 1:
        return {"test_accuracy": next(iter(accuracies.values()))}
    return {f"{net}_test_accuracy": accuracy for net, accuracy in accuracies.items()}


def show(run_dir: Path) -> None:
    run = configs.read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'})")
    print(f"{'net':<15}{'test accuracy':>13}{'nats':>9}{'parameters':>12}{'seconds':>9}  restarts with 99 %")
    for net, row in run["nets"].items():
        print(
            f"{net:<15}{row['test_accuracy']:>13.2%}{row['test_nats']:>9.4f}{row['parameters']:>12}"
            f"{row['seconds']:>9.1f}  {row['restarts_at_99_percent']} of {run['restarts']}"
        )
    print(f"{'chance':<15}{0.5:>13.2%}{np.log(2):>9.4f}")
    for picture in sorted([*run_dir.glob("*.png"), *run_dir.glob("*.gif")]):
        print(picture)


def check(config: Journey) -> None:
    counts = "restarts batch updates updates_per_step eval_every log_every"
    configs.check(
        config,
        [
            (counts, "1 or more", lambda x: x >= 1),
            ("train_sequences val_sequences test_sequences", "8 or more, for 8 orders", lambda x: x >= 8),
            ("noise weight_decay", "0 or more", lambda x: x >= 0),
            ("learning_rate", "above 0", lambda x: x > 0),
        ],
    )
    if not config.nets or len(set(config.nets)) < len(config.nets):
        raise UserError(f"--nets is {' '.join(config.nets) or 'empty'}, but must name each net once.")
    if config.updates % config.updates_per_step:
        raise UserError(
            f"--updates-per-step is {config.updates_per_step}, but must divide --updates, {config.updates}."
        )
    if config.animate and "elman" not in config.nets:
        raise UserError(f"--animate shows the Elman network, but --nets is {' '.join(config.nets)}: add elman to it.")


def main(args: Sequence[str]) -> None:
    train(args)
