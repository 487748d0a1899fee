"""The plots of forecasts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from experiments.forecast.config import Data
from experiments.forecast.data import Series
from experiments.forecast.evaluate import Scores
from experiments.forecast.model import LEVELS, MEDIAN
from experiments.forecast.windows import Windows
from experiments.plots import plt, save

NET, BASELINE = "tab:blue", "tab:orange"


def forecasts(
    path: Path,
    data: Data,
    series: Sequence[Series],
    windows: Windows,
    net: np.ndarray,
    baseline: np.ndarray,
    name: str,
    panels: int = 6,
) -> None:
    """The last forecasts of a series that do not overlap, or the last of several series: fans, and the true values."""
    shown = choose(data, windows, panels)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4 * columns, 2.8 * rows), layout="constrained", squeeze=False)
    for axes, row in zip(grid.flat, shown):
        one, origin = series[windows.series[row]], windows.origin[row]
        before = max(0, origin - max(2 * data.horizon, data.season))
        ahead = slice(origin, origin + data.horizon)
        axes.plot(one.times[before : ahead.stop], one.values[before : ahead.stop], "k.-", linewidth=1, markersize=4)
        axes.axvline((one.times[origin - 1] + one.times[origin]) / 2, color="gray", linestyle=":", linewidth=1)
        for low in (0, 4):
            limits = net[row, :, low], net[row, :, -1 - low]
            axes.fill_between(one.times[ahead], *limits, color=NET, alpha=0.2, linewidth=0)
        axes.plot(one.times[ahead], net[row, :, MEDIAN], color=NET, linewidth=2)
        axes.plot(one.times[ahead], baseline[row, :, MEDIAN], color=BASELINE, linewidth=1.5, linestyle="--")
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if len(series) > 1:
            axes.set_title(one.name, fontsize=10)
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    width = [f"{LEVELS[-1 - low] - LEVELS[low]:.0%}" for low in (4, 0)]
    handles = [
        plt.Line2D([], [], color="k", marker=".", label="true values"),
        plt.Line2D([], [], color=NET, linewidth=2, label=f"nets: median, {width[0]} and {width[1]} intervals"),
        plt.Line2D([], [], color=BASELINE, linestyle="--", label=f"best baseline: {name.replace('_', ' ')}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    what = series[0].name if len(series) == 1 else f"{len(shown)} of {len(series)} series of {data.data}"
    figure.suptitle(f"{what}: {data.horizon} steps ahead")
    save(figure, path)


def choose(data: Data, windows: Windows, panels: int) -> list[int]:
    """Indices of the windows to draw."""
    names = np.unique(windows.series)
    if len(names) > 1:
        expected = names[np.linspace(0, len(names) - 1, min(panels, len(names))).astype(int)]
        return [int(np.flatnonzero(windows.series == i)[-1]) for i in expected]
    chosen: list[int] = []
    for row in range(len(windows.origin) - 1, -1, -1):
        if len(chosen) < panels and (not chosen or windows.origin[row] + data.horizon <= windows.origin[chosen[-1]]):
            chosen.append(row)
    return chosen[::-1]


def bars(path: Path, table: Mapping[str, Scores], title: str) -> None:
    """MASE, and the scaled CRPS below it, of every method, the best on top."""
    names = sorted(table, key=lambda name: -table[name].mase)
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for offset, field, alpha in ((0.2, "mase", 1.0), (-0.2, "scaled_crps", 0.45)):
        values = [getattr(table[name], field) for name in names]
        colors = [NET if name == "net" else "gray" for name in names]
        drawn = axes.barh(np.arange(len(names)) + offset, values, height=0.38, color=colors, alpha=alpha)
        axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_xlabel("MASE (full colour) and scaled CRPS (pale): lower is better")
    figure.suptitle(title, fontsize=11)
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def rollout(path: Path, truth: np.ndarray, forecast: np.ndarray, errors: np.ndarray) -> None:
    """One rollout beside the truth, both `[time]`, and how the errors of all networks `[networks, time]` grow."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 6), layout="constrained")
    above.plot(truth, color="k", linewidth=3, alpha=0.35, label="Mackey-Glass")
    above.plot(forecast, color=NET, linewidth=1.3, label="rollout of the median network")
    above.set(xlabel="steps after the last value heard", ylabel="y")
    above.margins(x=0, y=0.25)
    above.legend(loc="upper right", ncols=2)
    ahead = np.arange(1, errors.shape[1] + 1)
    below.semilogy(ahead, errors.T, color=NET, alpha=0.3, linewidth=1)
    below.semilogy(
        ahead, np.median(errors, axis=0), color=NET, linewidth=2.5, label=f"median of {len(errors)} networks"
    )
    at, median = errors.shape[1], np.median(errors[:, -1])
    below.plot(at, median, "k*", markersize=12, label=f"after {at} steps: {median:.1e}")
    below.set(xlabel="steps ahead", ylabel="NRMSE over test series")
    below.margins(x=0)
    below.grid(alpha=0.3)
    below.legend(loc="lower right")
    figure.suptitle(f"Echo-state networks on their own: {median:.1e} off after {at} steps")
    save(figure, path)
