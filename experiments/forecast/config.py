"""The settings of both kinds of run."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, Natural, NonNegative, Positive, Range, Rate


@dataclass(frozen=True)
class Data(settings.Settings):
    """The series, and which parts of it are read and forecast."""

    data: str = "sine"
    """sine (noisy, made here), sunspots or co2 (monthly; both from statsmodels), m1_yearly (181 series, from aeon), or
    the path of a CSV file."""
    column: str = ""
    """For a CSV file: the column to forecast."""
    dates: str = ""
    """For a CSV file: a column of dates, which must be equally spaced. Empty: the rows are assumed to be."""
    fill: Literal["none", "forward", "linear"] = "none"
    """How to fill a missing value. none: it is an error. forward: with the value before it. linear: by interpolation
    between the values around it, which looks ahead and is therefore allowed in the training part only."""
    season: Count = 20
    """Steps after which the series repeats, for the baselines and as the lag of MASE. 1: no season."""
    horizon: Count = 20
    """Steps to forecast."""
    test: Count = 200
    """Values at the end of each series, to score on."""
    validation: Count = 200
    """Values before those, to choose the checkpoint by."""
    stride: Count = 5
    """Steps from one forecast origin to the next, in the parts that are scored."""
    transform: Literal["none", "log", "sqrt"] = "none"
    """Transform of the values that the nets read and forecast; scores and baselines use the values themselves."""
    scaling: Literal["series", "window"] = "series"
    """series: subtract the mean and divide by the standard deviation of the training part. window: subtract the last
    value before the origin and divide by the mean absolute step between the values read. With --base seasonal, the line
    and the seasonal pattern are subtracted instead."""
    base: Literal["level", "drift", "seasonal", "autoreg"] = "level"
    """What the outputs of a net are added to. level: what scaling subtracts. drift: the last value, plus the mean step
    of the values read for every step ahead. seasonal: a line and a seasonal pattern fitted to the values read, of which
    the net sees the residuals. autoreg: a linear autoregression fitted to all values before the origin."""
    lags: Count = 10
    """Lags of the autoregression."""
    context: Count = 40
    """Largest number of values before the origin that a net reads."""
    shortest: Count = 40
    """Smallest number of values before an origin; a series that has fewer at validation is not validated on."""

    def check(self) -> None:
        for part, count in (("test", self.test), ("validation", self.validation)):
            if count < self.horizon:
                raise UserError(
                    f"--{part} is {count}, but must hold at least one forecast of --horizon, {self.horizon}."
                )
        seasons = f"--base seasonal needs two of --season, {self.season}"
        for needed, names, least, why in (
            (self.scaling == "window" or self.base == "drift", "shortest context", 2, "a step needs two values"),
            (self.base == "seasonal", "shortest context", 2 * self.season, seasons),
            (self.base == "autoreg", "shortest", 3 * self.lags, "three for each of --lags"),
        ):
            for name in names.split():
                if needed and getattr(self, name) < least:
                    raise UserError(f"--{name} is {getattr(self, name)}, but must be {least} or more: {why}.")
        if self.data.endswith(".csv") and not self.column:
            raise UserError(f"--column must say which column of {self.data} to forecast.")


@dataclass(frozen=True)
class Model(settings.Settings):
    """Nets that read a window and forecast all steps ahead."""

    cell: Literal["lstm", "gru", "elman", "mgu", "min_gru", "lru"] = "gru"
    """The recurrent cell."""
    layers: Count = 1
    """Recurrent layers on top of each other."""
    width: Count = 32
    """Units of each layer."""
    dropout: Rate = 0.0
    """Dropout on the output of each layer."""
    output: Literal["quantiles", "gaussian"] = "quantiles"
    """Quantiles at 0.05, 0.1, ... 0.95 for each step ahead; or a mean and a standard deviation. The loss is the CRPS
    in both cases."""
    members: Count = 4
    """Nets trained side by side, each from its own seed; their quantiles are averaged."""


@dataclass(frozen=True)
class Train(settings.Optimizer):
    """How the nets are trained: a warm-up over a tenth of the steps, then a cosine decay to zero."""

    batch: Count = 64
    """Windows per update of each net."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay; on biases too, since those of the members are stacked."""
    steps: Count = 600
    """Number of updates; the learning-rate schedule spans them."""
    refits: Natural = 1
    """Number of segments into which the test part is cut. Before each of them the nets are trained again, on all values
    before it and for as many steps as the best checkpoint had. 0: the best checkpoint forecasts. (Baselines are
    refitted before every origin.)"""

    @property
    def total_updates(self) -> int:
        return self.steps

    @property
    def warmup(self) -> int:
        return self.steps // 10


@dataclass(frozen=True)
class Run(settings.Run):
    """How the run is monitored, and where it is kept."""

    eval_every: Count = 30


@dataclass(frozen=True)
class Forecast(settings.Experiment):
    """Trains recurrent nets to forecast one series or many; every setting below can be overridden."""

    data: Data = Data()
    model: Model = Model()
    train: Train = Train()
    run: Run = Run()

    def check(self) -> None:
        super().check()
        if self.train.refits > self.data.test:
            raise UserError(
                f"--refits is {self.train.refits}, but the test part has only --test {self.data.test} values."
            )


@dataclass(frozen=True)
class MackeyGlassData(settings.Settings):
    """The series."""

    tau: Count = 17
    """Delay of the series."""
    washout: Count = 1000
    """First steps of a series that the readout does not see."""
    train: Count = 20_000
    """Further steps of the training series, to which the readout is fitted."""
    sequences: Count = 50
    """Series to choose the ridge on; twice as many other series are scored on."""
    steps_ahead: Count = 84
    """Steps that a network forecasts from its own outputs."""


@dataclass(frozen=True)
class Reservoir(settings.Settings):
    """The echo-state networks, and their readout."""

    networks: Count = 10
    """Number of networks, each with its own weights."""
    width: Count = 400
    """Units of each network."""
    rate: Positive = 0.44
    """C of Jaeger's leaky unit."""
    decay: Positive = 0.9
    """a of Jaeger's leaky unit."""
    spectral_radius: NonNegative = 0.79
    """Spectral radius of Jaeger's recurrent weights."""
    density: Annotated[float, Range("in (0, 1]", lambda x: 0 < x <= 1)] = 0.0125
    """Share of the units from which each unit gets input."""
    feedback_scale: NonNegative = 0.56
    """Largest weight from the last value."""
    bias_scale: NonNegative = 0.2
    """Largest bias."""
    squares: bool = False
    """Whether the readout gets the squares of the states too."""
    ridges: tuple[float, ...] = (0.0, 1e-20, 1e-18, 1e-16, 1e-14, 1e-12, 1e-10)
    """Ridge penalties to choose from, as shares of the largest squared singular value of the states."""

    def check(self) -> None:
        leak = self.rate * self.decay
        if leak > 1:
            raise UserError(f"--rate times --decay is {leak:g}, but must not be above 1: it is the leak.")
        if not self.ridges or min(self.ridges) < 0:
            raise UserError(f"--ridges is {self.ridges}, but must be one or more numbers, 0 or more.")


@dataclass(frozen=True)
class MackeyGlass(settings.Experiment):
    """Fits echo-state networks to the Mackey-Glass series; every setting below can be overridden.

    The series and the networks are those of H. Jaeger, GMD Report 148, section 6. His leaky unit
    `x' = (1 - C a) x + C tanh(...)` is `rnnx.reservoir` with leak C a, except that the states here are a times his, so
    the recurrent weights are 1 / a times his. His feedback from the output is the input here: x_t = y_{t-1}.
    """

    data: MackeyGlassData = MackeyGlassData()
    model: Reservoir = Reservoir()
    run: settings.Place = field(default_factory=settings.Place)
