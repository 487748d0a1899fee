"""The settings of both kinds of run, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments import config as configs
from experiments.errors import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every run has."""

    seed: int = 0
    """Of the weights and the batches."""
    run_dir: Path | None = None
    """Folder of the run; default runs/forecast/<config's name>-seed<seed>."""


@dataclasses.dataclass(frozen=True)
class Forecast(Settings):
    """Trains recurrent nets to forecast one series or many; every setting below can be overridden."""

    data: str = "sine"
    """sine (noisy, made here), sunspots or co2 (monthly; both from statsmodels), m1_yearly (181 series, from aeon), or
    the path of a CSV file."""
    column: str = ""
    """Of a CSV file: the column to forecast."""
    dates: str = ""
    """Of a CSV file: a column of dates, which must come at equal steps. Empty: the rows are taken to."""
    fill: Literal["none", "forward", "linear"] = "none"
    """What stands in for a missing value: nothing, so that it is an error; the value before it; or the line between
    the values around it, which looks ahead and is therefore taken within the training part alone."""
    season: int = 20
    """Steps after which the series comes round again, for the baselines, and as the lag of MASE. 1: never."""
    horizon: int = 20
    """Steps to forecast."""
    test: int = 200
    """Values at the end of each series, to score on."""
    validation: int = 200
    """Values before those, to choose the checkpoint by."""
    stride: int = 5
    """Steps from one origin of a forecast to the next, where forecasts are scored."""

    transform: Literal["none", "log", "sqrt"] = "none"
    """Of the values that the nets read and forecast; scores and baselines are of the values themselves."""
    scaling: Literal["series", "window"] = "series"
    """series: less the mean, over the standard deviation, both of the training part. window: less the last value before
    the origin, over the mean size of the steps between the values read. Where a line and a seasonal pattern are the
    base, they are what is taken away."""
    base: Literal["level", "drift", "seasonal", "autoreg"] = "level"
    """What the outputs of a net are added to: what scaling takes away; the last value, and the mean step of those read
    for every step ahead; a line and a seasonal pattern fitted to the values read, of which the net sees what they leave
    over; or a linear autoregression, fitted to all that comes before the origin."""
    lags: int = 10
    """Of the autoregression."""
    context: int = 40
    """Most values before the origin that a net reads."""
    shortest: int = 40
    """Fewest values before an origin; a series that has fewer at validation is not validated on."""

    cell: Literal["lstm", "gru", "elman", "mgu", "min_gru", "lru"] = "gru"
    """The recurrent cell."""
    layers: int = 1
    """Recurrent layers on top of each other."""
    width: int = 32
    """Units of each."""
    dropout: float = 0.0
    """On what each layer puts out."""
    output: Literal["quantiles", "gaussian"] = "quantiles"
    """Quantiles at 0.05, 0.1, ... 0.95 for each step ahead; or a mean and a standard deviation. The loss is the CRPS of
    either."""
    members: int = 4
    """Nets, trained side by side from seeds of their own, whose quantiles are averaged."""

    refits: int = 1
    """Into how many stretches the test part is cut. Before each of them the nets are trained anew, for as many steps as
    the best checkpoint had, on all that comes before it. 0: the best checkpoint forecasts. (Baselines are fitted anew
    before every origin.)"""
    steps: int = 600
    """Updates."""
    batch: int = 64
    """Windows in an update of each net."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW; a warm-up over a tenth of the steps, then a cosine to zero."""
    weight_decay: float = 1e-2
    """Decoupled; on biases too, since those of the members are stacked."""
    clip: float = 1.0
    """Largest global norm of the gradient."""
    eval_every: int = 30
    """Steps between validations; each is followed by a checkpoint. One more comes at the
    end, the only one if this is above the steps."""
    patience: int = 0
    """Validations without a new best before training stops early; 0: never."""
    log_every: int = 10
    """Steps over which the training metrics are averaged for one line of the log."""


@dataclasses.dataclass(frozen=True)
class MackeyGlass(Settings):
    """Fits echo-state networks to the Mackey-Glass series; every setting below can be overridden.

    The series and the networks are those of H. Jaeger, GMD Report 148, section 6. His leaky unit
    `x' = (1 - C a) x + C tanh(...)` is `rnnx.reservoir` with leak C a, but for the size of the states, which is a times
    his; so the recurrent weights are 1 / a times his. His feedback from the output is the input here: x_t = y_{t-1}.
    """

    networks: int = 10
    """Each with weights of its own."""
    width: int = 400
    """Units of each."""
    rate: float = 0.44
    """C."""
    decay: float = 0.9
    """a."""
    spectral_radius: float = 0.79
    """Of his recurrent weights."""
    density: float = 0.0125
    """Share of the units that each unit hears."""
    feedback_scale: float = 0.56
    """Largest weight from the last value."""
    bias_scale: float = 0.2
    """Largest bias."""
    squares: bool = False
    """Whether the readout has the squares of the states too."""

    tau: int = 17
    """Delay of the series."""
    washout: int = 1000
    """First steps of a series that the readout does not see."""
    train: int = 20_000
    """Further steps of the training series, which it is fitted to."""
    sequences: int = 50
    """Series to choose the ridge on, and twice as many, others, to score on."""
    ridges: tuple[float, ...] = (0.0, 1e-20, 1e-18, 1e-16, 1e-14, 1e-12, 1e-10)
    """To choose from, as shares of the largest squared singular value of the states."""
    steps_ahead: int = 84
    """Steps of a free run."""


def check_forecast(config: Forecast) -> None:
    counts = "season horizon test validation stride lags context shortest"
    configs.check(
        config,
        [
            (f"{counts} layers width members steps batch eval_every log_every", "1 or more", lambda x: x >= 1),
            ("learning_rate clip", "above 0", lambda x: x > 0),
            ("dropout", "in [0, 1)", lambda x: 0 <= x < 1),
            ("weight_decay patience refits seed", "0 or more", lambda x: x >= 0),
        ],
    )
    for part in ("test", "validation"):
        if getattr(config, part) < config.horizon:
            raise UserError(
                f"--{part} is {getattr(config, part)}, but must hold at least one forecast of --horizon, "
                f"{config.horizon}."
            )
    if config.refits > config.test:
        raise UserError(f"--refits is {config.refits}, but the test part has --test {config.test} values only.")
    if config.scaling == "window" or config.base == "drift":
        configs.check(config, [("shortest context", "2 or more: a step needs two values", lambda x: x >= 2)])
    if config.base == "seasonal" and min(config.shortest, config.context) < 2 * config.season:
        raise UserError(
            f"--shortest is {config.shortest} and --context {config.context}, but --base seasonal needs two of "
            f"--season, {config.season}, or more."
        )
    if config.base == "autoreg":
        least = 3 * config.lags
        configs.check(config, [("shortest", f"{least} or more: three for each of --lags", lambda x: x >= least)])
    if config.data.endswith(".csv") and not config.column:
        raise UserError(f"--column must say which column of {config.data} to forecast.")


def check_mackey_glass(config: MackeyGlass) -> None:
    configs.check(
        config,
        [
            ("networks width tau washout train sequences steps_ahead", "1 or more", lambda x: x >= 1),
            ("rate decay", "above 0", lambda x: x > 0),
            ("density", "in (0, 1]", lambda x: 0 < x <= 1),
            ("spectral_radius feedback_scale bias_scale seed", "0 or more", lambda x: x >= 0),
        ],
    )
    if config.rate * config.decay > 1:
        raise UserError(
            f"--rate times --decay is {config.rate * config.decay:g}, but must not be above 1: it is the leak."
        )
    if not config.ridges or min(config.ridges) < 0:
        raise UserError(f"--ridges is {config.ridges}, but must be one or more numbers, 0 or more.")
