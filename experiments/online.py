"""Learning online: an update after every step of an endless stream, by each method with the same cell.

python -m experiments.online configs/online/quick.py [overrides]

The stream asks for memory. A cue shows some bits, amid distractors; some steps later the bits are asked for; then the
next cue comes, without any reset. At first the cell hears nothing: its input weights are zero. They are only drawn
away from there by credit that reaches from the question back to the cue: truncated back-propagation with a window
that is not longer than this gap leaves the weights of the cue at exactly zero, and the score at chance, however long
it learns.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

import rnnx
import rnnx.online
from experiments import config as configs
from experiments import results
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit

COMMAND = "python -m experiments.online"
CONFIGS = Path("configs/online")
MONITOR = "val_nats_per_bit"
COLUMNS = {"nats per bit": lambda metrics: f"{metrics['loss']:.3f}"}
Method = Literal["rtrl", "snap1", "eprop", "uoro", "bptt", "bptt_short"]


@dataclasses.dataclass(frozen=True)
class Recall:
    """Trains one cell on a stream by several methods; every setting below can be overridden."""

    methods: tuple[Method, ...] = ("rtrl", "snap1", "eprop", "uoro", "bptt", "bptt_short")
    """Which to compare. bptt and bptt_short are truncated back-propagation, with windows of `chunk` and
    `short_window` steps and one update for each window; all others update after every step."""
    bits: int = 2
    """Bits of a cue, and as many distractors in every step."""
    shortest: int = 5
    """Fewest steps from a cue to its question."""
    longest: int = 10
    """Most steps from a cue to its question."""

    cell: Literal["lstm", "gru"] = "lstm"
    """The recurrent cell."""
    width: int = 16
    """Its units."""

    batch: int = 8
    """Streams that are learned from side by side."""
    chunk: int = 64
    """Time steps per step of the training loop: how often metrics come, not how far credit reaches."""
    steps: int = 300
    """Steps of the training loop."""
    short_window: int = 4
    """Window of bptt_short, in time steps; it must divide the chunk."""
    learning_rate: float = 3e-3
    """Of Adam."""
    eps: float = 1e-3
    """Of Adam."""
    clip: float = 1.0
    """Largest global norm of the gradient of one update."""

    eval_every: int = 20
    """Steps of the training loop between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    eval_batch: int = 64
    """Streams of a validation."""
    eval_time: int = 200
    """Time steps of each."""
    log_every: int = 5
    """Steps over which the training metrics are averaged for one line of the log."""
    seed: int = 0
    """Of the weights, the streams and the signs of uoro."""
    run_dir: Path | None = None
    """Folder of the run; default runs/online/<config's name>-seed<seed>."""


class Stream(NamedTuple):
    """Where each row of the batch stands: `wait` `[batch]`, steps until the question, and the `bits` `[batch, n]`."""

    wait: jax.Array
    bits: jax.Array


class Question(NamedTuple):
    """`bits` `[..., n]`, -1 or 1, and whether they are `asked` for at this step, `[...]`."""

    bits: jax.Array
    asked: jax.Array


class TrainState(NamedTuple):
    """All that the next step depends on, so that saving it makes a resumed run exact."""

    step: jax.Array
    key: jax.Array
    params: Any
    optimizer: Any
    memory: Any
    """Of an online learner its state, of back-propagation the carry."""
    stream: Stream


def listen(config: Recall, stream: Stream, key: jax.Array) -> tuple[Stream, tuple[jax.Array, Question]]:
    """One time step of every row: what is heard, `[batch, 2 bits]`, and what should be known."""
    k_bits, k_gap, k_noise = jax.random.split(key, 3)
    begins = stream.wait == 0
    shape = stream.bits.shape
    bits = jnp.where(begins[:, None], jax.random.rademacher(k_bits, shape, jnp.float32), stream.bits)
    gap = jax.random.randint(k_gap, shape[:1], config.shortest, config.longest + 1)
    wait = jnp.where(begins, gap, stream.wait - 1)
    cue = jnp.where(begins[:, None], bits, 0)
    x = jnp.concatenate([cue, jax.random.rademacher(k_noise, shape, jnp.float32)], axis=1)
    return Stream(wait, bits), (x, Question(bits, wait == 0))


def new_stream(config: Recall, batch: int) -> Stream:
    return Stream(jnp.zeros(batch, jnp.int32), jnp.ones((batch, config.bits)))


def make_cell(config: Recall) -> rnnx.Cell:
    """Its input weights begin at zero: it hears nothing yet."""
    cells: dict[str, Callable[..., rnnx.Cell]] = {"lstm": rnnx.cells.lstm, "gru": rnnx.cells.gru}
    return cells[config.cell](config.width, kernel_init=jax.nn.initializers.zeros)


def loss(readout: Any, y: jax.Array, question: Question) -> jax.Array:
    """Nats, summed over the bits, of one step of one row; none where nothing is asked."""
    logits = y @ readout["kernel"] + readout["bias"]
    return jnp.where(question.asked, jax.nn.softplus(-question.bits * logits).sum(), 0)


def make_optimizer(config: Recall) -> optax.GradientTransformation:
    """Adam with a large eps: with a small one, gradients that vanish once all is learned are made large again."""
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(config.learning_rate, eps=config.eps))


def make_learner(config: Recall, method: Method) -> rnnx.online.Online | None:
    """None for back-propagation."""
    makers = {name: getattr(rnnx.online, name) for name in ("rtrl", "snap1", "eprop", "uoro")}
    return makers[method](make_cell(config), loss) if method in makers else None


def initial_state(config: Recall, method: Method) -> TrainState:
    k_cell, k_readout, k_memory, key = jax.random.split(jax.random.key(config.seed), 4)
    cell, learner = make_cell(config), make_learner(config, method)
    x = jax.ShapeDtypeStruct((config.batch, 2 * config.bits), jnp.float32)
    kernel = jax.nn.initializers.lecun_normal()(k_readout, (config.width, config.bits))
    params = {
        "cell": cell.init(k_cell, jax.ShapeDtypeStruct(x.shape[1:], x.dtype)),
        "readout": {"kernel": kernel, "bias": jnp.zeros(config.bits)},
    }
    if learner is None:
        xs = jax.ShapeDtypeStruct((config.batch, 1, *x.shape[1:]), x.dtype)
        memory = rnnx.scan(cell).initial_carry(params["cell"], xs, None)
    else:
        memory = learner.init(params, x, k_memory)
    optimizer = make_optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), key, params, optimizer, memory, new_stream(config, config.batch))


def make_train_step(
    config: Recall, method: Method
) -> Callable[[TrainState, None], tuple[TrainState, dict[str, jax.Array]]]:
    """A chunk of the stream, with an update after each of its steps, or windows."""
    optimizer, learner, layer = make_optimizer(config), make_learner(config, method), rnnx.scan(make_cell(config))
    window = 1 if learner else {"bptt": config.chunk, "bptt_short": config.short_window}[method]

    def over_window(params: Any, memory: Any, xs: jax.Array, questions: Question) -> tuple[Any, jax.Array, Any]:
        """Time-major in: `(memory, loss, gradient)`."""
        if learner is not None:
            now = jax.tree.map(lambda a: a[0], (xs, questions))
            memory, (nats, gradient, _) = learner.update(params, memory, *now)
            return memory, nats, gradient

        def summed(params: Any) -> tuple[jax.Array, Any]:
            rows = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (xs, questions))
            carry, ys = rnnx.unroll(layer, params["cell"], rows[0], carry=jax.lax.stop_gradient(memory))
            return jax.vmap(jax.vmap(loss, (None, 0, 0)), (None, 0, 0))(params["readout"], ys, rows[1]).sum(), carry

        (nats, memory), gradient = jax.value_and_grad(summed, has_aux=True)(params)
        return memory, nats, gradient

    def train_step(state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
        def update(inner: Any, keys: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
            params, opt, memory, stream = inner
            stream, (xs, questions) = jax.lax.scan(functools.partial(listen, config), stream, keys)
            memory, nats, gradient = over_window(params, memory, xs, questions)
            # Most steps ask nothing; then nothing is learned, instead of Adam going on by its momentum alone.
            asked = questions.asked.sum()
            gradient = jax.tree.map(lambda g: g / jnp.maximum(asked, 1), gradient)
            changes, after = optimizer.update(gradient, opt, params)
            learned = optax.apply_updates(params, changes), after
            params, opt = jax.tree.map(lambda a, b: jnp.where(asked > 0, a, b), learned, (params, opt))
            return (params, opt, memory, stream), (nats, asked)

        keys = jax.random.split(jax.random.fold_in(state.key, state.step), (config.chunk // window, window))
        inner = state.params, state.optimizer, state.memory, state.stream
        (params, opt, memory, stream), (nats, asked) = jax.lax.scan(update, inner, keys)
        metrics = {"loss": nats.sum() / jnp.maximum(asked.sum() * config.bits, 1)}
        return TrainState(state.step + 1, state.key, params, opt, memory, stream), metrics

    return train_step


def make_evaluate(config: Recall, seed: int) -> Callable[[TrainState], dict[str, float]]:
    """Nats and accuracy per bit on streams of their own, with the params held fast."""
    layer = rnnx.scan(make_cell(config))

    @jax.jit
    def score(params: Any) -> dict[str, jax.Array]:
        keys = jax.random.split(jax.random.key(seed), config.eval_time)
        _, heard = jax.lax.scan(functools.partial(listen, config), new_stream(config, config.eval_batch), keys)
        xs, questions = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), heard)
        _, ys = rnnx.unroll(layer, params["cell"], xs)
        nats = jax.vmap(jax.vmap(loss, (None, 0, 0)), (None, 0, 0))(params["readout"], ys, questions)
        logits = ys @ params["readout"]["kernel"] + jnp.broadcast_to(params["readout"]["bias"], questions.bits.shape)
        right = jnp.where(questions.asked[..., None], logits * questions.bits > 0, False)
        asked = questions.asked.sum() * config.bits
        return {MONITOR: nats.sum() / asked, "val_accuracy": right.sum() / asked}

    return lambda state: {name: float(value) for name, value in score(state.params).items()}


def train(args: Sequence[str]) -> None:
    config, name = configs.load(Recall(), args, command=COMMAND, directory=CONFIGS)
    check(config)
    run_dir = configs.run_folder(config, name, CONFIGS)
    configs.claim(run_dir, configs.settings(config))
    if results.show_finished(run_dir, lambda: show(run_dir)):
        return

    fitted = {}
    for method in config.methods:
        folder = run_dir / method
        folder.mkdir(exist_ok=True)
        print(f"{method}: {config.steps * config.chunk:,} time steps of {config.batch} streams. Run folder: {folder}")
        fitted[method] = fit(
            folder,
            functools.partial(initial_state, config, method),
            make_train_step(config, method),
            None,
            make_evaluate(config, config.seed + 1_000_000),
            Plan(
                steps=config.steps,
                eval_every=config.eval_every,
                log_every=config.log_every,
                monitor=MONITOR,
                items="time steps",
                items_per_step=config.chunk,
            ),
            COLUMNS,
        )
    report(config, run_dir, fitted)
    show(run_dir)


def report(config: Recall, run_dir: Path, fitted: Mapping[Method, Fitted[TrainState]]) -> None:
    """Scores the best checkpoint of each method. Writes results.json last: it marks the end."""
    evaluate = make_evaluate(dataclasses.replace(config, eval_batch=4 * config.eval_batch), config.seed + 2_000_000)
    methods = {}
    for method, run in fitted.items():
        scores = evaluate(run.best)
        methods[method] = {
            "nats_per_bit": scores[MONITOR],
            "accuracy": scores["val_accuracy"],
            "best_step": run.best_step,
            "seconds": round(run.seconds, 1),
            # Between updates; within its window, back-propagation keeps every step besides.
            "memory_numbers_per_stream": numbers(run.best.memory) // config.batch,
        }
    curves(run_dir, config)
    results.finish(
        run_dir,
        {f"{method}_nats_per_bit": row["nats_per_bit"] for method, row in methods.items()},
        seed=config.seed,
        seconds=sum(run.seconds for run in fitted.values()),
        methods=methods,
        steps=config.steps,
        time_steps=config.steps * config.chunk,
        streams=config.batch,
        parameters=numbers(next(iter(fitted.values())).best.params),
    )


def numbers(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating))


def curves(run_dir: Path, config: Recall) -> None:
    """Draws the validations of all methods into one picture."""
    from experiments import plots  # not at the top: a second of start-up

    figure, axes = plots.plt.subplots(figsize=(8, 4.5), layout="constrained")
    for method in config.methods:
        rows = [row for row in read_metrics(run_dir / method) if MONITOR in row]
        steps, values = [row["step"] * config.chunk for row in rows], [row[MONITOR] for row in rows]
        axes.plot(steps, values, marker="o", markersize=3, label=method)
    axes.axhline(plots.np.log(2), color="black", linestyle="dotted", linewidth=1, label="chance")
    axes.set(xlabel="time steps", ylabel="nats per bit", ylim=(0, 1), title=f"{run_dir.name}: validation")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(run_dir / "learning_curve.png", dpi=150)
    plots.plt.close(figure)


def show(run_dir: Path) -> None:
    run = configs.read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; curves: {run_dir / 'learning_curve.png'})")
    print(f"{'method':<12}{'nats per bit':>14}{'accuracy':>10}{'seconds':>9}{'numbers kept per stream':>25}")
    for method, row in run["methods"].items():
        print(
            f"{method:<12}{row['nats_per_bit']:>14.4f}{row['accuracy']:>10.1%}{row['seconds']:>9.0f}"
            f"{row['memory_numbers_per_stream']:>25,}"
        )


def check(config: Recall) -> None:
    sizes = "bits shortest width batch chunk steps short_window eval_every eval_batch eval_time log_every"
    configs.check(
        config, [(sizes, "1 or more", lambda x: x >= 1), ("learning_rate eps clip", "above 0", lambda x: x > 0)]
    )
    if not config.methods or len(set(config.methods)) < len(config.methods):
        raise UserError(f"--methods is {' '.join(config.methods) or 'empty'}, but must name each method once.")
    if config.longest < config.shortest:
        raise UserError(f"--longest is {config.longest}, but must be at least --shortest, {config.shortest}.")
    if config.chunk % config.short_window:
        raise UserError(f"--short-window is {config.short_window}, but must divide --chunk, {config.chunk}.")
    if config.eval_time <= config.longest:
        raise UserError(f"--eval-time is {config.eval_time}, but must be above --longest, {config.longest}.")


def main(args: Sequence[str]) -> None:
    train(args)


if __name__ == "__main__":
    # Under its own name, the one by which config files import Recall from here.
    from experiments import command, online

    command.run(online.main)
