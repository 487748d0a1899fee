"""Learning curves, an episode of each task, and the carts in motion."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from experiments.control.config import Cell
from experiments.control.rollouts import Episodes
from experiments.plots import plt, save

COLOURS: dict[Cell, str] = {"gru": "tab:blue", "lstm": "tab:orange", "min_gru": "tab:green", "memoryless": "0.35"}


def learning_curves(
    path: Path, steps: np.ndarray, runs: Sequence[Mapping[Cell, Sequence[float]]], *, target: float, title: str
) -> None:
    """Draws the validations `[evaluations]` of each cell of each run; of several runs the mean and the range."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for cell in runs[0]:
        length = min(len(run[cell]) for run in runs)  # some may have stopped early
        values, own = np.stack([run[cell][:length] for run in runs]), steps[:length]
        axes.fill_between(own, values.min(0), values.max(0), color=COLOURS[cell], alpha=0.15, linewidth=0)
        axes.plot(own, values.mean(0), color=COLOURS[cell], marker="o", markersize=3, label=cell)
    axes.axhline(target, color="black", linestyle="dotted", linewidth=1, label=f"target {target:g}")
    axes.set(xlabel="environment steps", ylabel="mean return of actions drawn from the policy")
    figure.suptitle(title)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
    save(figure, path)


def cartpole_episode(
    path: Path,
    played: Mapping[Cell, Episodes],
    probed: Mapping[Cell, np.ndarray],
    *,
    reward_scale: float,
    title: str,
) -> None:
    """The first episode of each net, a column for each; `probed` are the velocities `[episodes, time, 2]` as a
    linear probe reads them from the hidden units."""
    lengths = [int(episodes.alive[0].sum()) for episodes in played.values()]
    figure, rows = plt.subplots(
        5,
        len(played),
        figsize=(13, 8),
        layout="constrained",
        sharex="col",
        sharey="row",
        squeeze=False,
        height_ratios=[3, 3, 0.6, 2, 4],
        width_ratios=[max(length, max(lengths) / 3) for length in lengths],
    )
    for column, (cell, episodes) in enumerate(played.items()):
        observed, hidden, action, value, units = rows[:, column]
        last = lengths[column]
        time, truth = np.arange(last), episodes.state.theta_dot[0, :last]
        observed.plot(time, episodes.observation[0, :last, 0], color="tab:blue", label="place of the cart")
        observed.plot(time, episodes.observation[0, :last, 1], color="tab:red", label="angle of the pole")
        observed.set_title(f"{cell}: {last} steps")
        hidden.plot(time, truth, color="tab:red", alpha=0.35, linewidth=3, label="true")
        hidden.plot(time, probed[cell][0, :last, 1], color="black", linewidth=0.8, label="linear probe of the units")
        action.imshow(
            episodes.action[0, None, :last], aspect="auto", cmap="binary", interpolation="none", vmin=0, vmax=1
        )
        value.plot(time, episodes.decision.value[0, :last], color="tab:green")
        heat_strip(units, by_correlation(np.asarray(episodes.decision.hidden[0, :last]), truth))
        units.set_xlabel("step")
        for axes in (observed, hidden, value):
            axes.grid(alpha=0.3)
    rows[0, 0].set_ylim(-1.05, 1.05)
    worth = "value" if reward_scale == 1 else f"value\n(rewards × {reward_scale:g})"
    labels = ["observed,\nshare of the limit", "hidden: speed of\nthe pole, rad/s", "push", worth, "hidden units"]
    for axes, label in zip(rows[:, 0], labels):
        axes.set_ylabel(label)
    rows[2, 0].set_yticks([0], ["black: right\nwhite: left"], fontsize="x-small")
    rows[4, 0].set_yticks([])
    for axes in rows[:2, 0]:
        axes.legend(loc="lower right", ncols=2, fontsize="small")
    figure.suptitle(title)
    save(figure, path)


def memory_chain_episode(path: Path, played: Mapping[Cell, Episodes], *, title: str) -> None:
    """An episode that began with -1 and one with 1, a column for each: units of the first net, decisions of all."""
    figure, rows = plt.subplots(
        3, 2, figsize=(11, 7.5), layout="constrained", sharex=True, sharey="row", height_ratios=[2, 3, 4]
    )
    first, episodes = next(iter(played.items()))
    bits = episodes.observation[:, 0, 2]
    ends = [episodes.decision.hidden[bits == bit, -1].mean(0) for bit in (-1, 1)]
    order = np.argsort(ends[1] - ends[0])
    for column, bit in enumerate((-1, 1)):
        cue, decision, units = rows[:, column]
        row = int(np.argmax(bits == bit))
        time = np.arange(episodes.alive.shape[1])
        cue.bar(time, episodes.observation[row, :, 2], color="tab:red", label="bit")
        cue.plot(time, episodes.observation[row, :, 0], color="0.5", label="time left")
        cue.axhline(0, color="black", linewidth=0.5)
        cue.set_title(f"begins with {bit:+d}; reward {episodes.reward[row].sum():+.0f} to {first}")
        for cell, of_cell in played.items():
            logits = of_cell.decision.logits[row]
            odds = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
            decision.plot(time, odds, color=COLOURS[cell], label=cell)
            decision.plot(time[-1], odds[-1], "o", color=COLOURS[cell], clip_on=False, zorder=3)
        decision.set_ylim(-0.05, 1.05)
        heat_strip(units, np.asarray(episodes.decision.hidden[row])[:, order])
        units.set_xlabel("step; the action of the last one is the decision")
        for axes in (cue, decision):
            axes.grid(alpha=0.3)
    for axes, label in zip(rows[:, 0], ["observed", "probability of\naction 1", f"hidden units of {first}"]):
        axes.set_ylabel(label)
    rows[2, 0].set_yticks([])
    rows[0, 1].legend(loc="lower right", fontsize="small")
    rows[1, 0].legend(loc="upper right", fontsize="small")
    figure.suptitle(title)
    save(figure, path)


def heat_strip(axes: Axes, hidden: np.ndarray) -> None:
    """Units `[time, units]` as rows; the colours span 98 % of the absolute values."""
    reach = float(np.quantile(np.abs(hidden), 0.98)) + 1e-9
    axes.imshow(hidden.T, aspect="auto", cmap="RdBu_r", interpolation="none", vmin=-reach, vmax=reach)


def by_correlation(hidden: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """The units `[time, units]`, sorted by their correlation with the signal `[time]`."""
    return hidden[:, np.argsort(correlations(hidden, signal))]


def correlations(hidden: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """`[units]`; zero for a unit that never changes."""
    hidden, signal = hidden - hidden.mean(0), signal - signal.mean()
    scale = np.sqrt((hidden**2).sum(0) * (signal**2).sum())
    return np.divide(signal @ hidden, scale, out=np.zeros_like(scale), where=scale > 0)


def animate(path: Path, played: Mapping[Cell, Episodes], every: int = 3) -> None:
    """The first episode of each net, one above the other, as a GIF; every `every`-th step is drawn."""
    figure, rows = plt.subplots(
        len(played), figsize=(6, 1.9 * len(played)), layout="constrained", sharex=True, squeeze=False
    )
    drawn = []
    for axes, (cell, episodes) in zip(rows[:, 0], played.items()):
        axes.set(xlim=(-2.6, 2.6), ylim=(-0.3, 1.3), aspect="equal", yticks=[])
        axes.axhline(0, color="0.6", linewidth=1)
        for limit in (-2.4, 2.4):
            axes.axvline(limit, color="tab:red", linestyle="dotted", linewidth=1)
        cart = axes.add_patch(Rectangle((0, -0.12), 0.5, 0.24, color=COLOURS[cell]))
        (pole,) = axes.plot([], [], color="black", linewidth=4, solid_capstyle="round")
        drawn.append((axes, cell, episodes, cart, pole))

    def draw(frame: int) -> list[Rectangle]:
        for axes, cell, episodes, cart, pole in drawn:
            last = int(episodes.alive[0].sum()) - 1
            now = min(frame * every, last)
            x, theta = float(episodes.state.x[0, now]), float(episodes.state.theta[0, now])
            cart.set_x(x - 0.25)
            pole.set_data([x, x + np.sin(theta)], [0, np.cos(theta)])
            over = frame * every > last and last + 1 < episodes.alive.shape[1]
            pole.set_color("tab:red" if over else "black")
            axes.set_title(f"{cell}: {now + 1} steps" + (", lost" if over else ""), fontsize="medium")
        return []

    frames = -(-max(int(episodes.alive[0].sum()) for episodes in played.values()) // every) + 15
    FuncAnimation(figure, draw, frames=frames).save(path, writer=PillowWriter(fps=17), dpi=80)
    plt.close(figure)
