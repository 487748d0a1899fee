"""The settings of both kinds of run."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from experiments import settings
from experiments.errors import UserError
from experiments.settings import Count, Natural, NonNegative, Positive, Range, Rate


@dataclass(frozen=True)
class Data(settings.Settings):
    """The series, and what of it is read and forecast."""

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
    season: Count = 20
    """Steps after which the series repeats, for the baselines, and as the lag of MASE. 1: never."""
    horizon: Count = 20
    """Steps to forecast."""
    test: Count = 200
    """Values at the end of each series, to score on."""
    validation: Count = 200
    """Values before those, to choose the checkpoint by."""
    stride: Count = 5
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
    lags: Count = 10
    """Of the autoregression."""
    context: Count = 40
    """Most values before the origin that a net reads."""
    shortest: Count = 40
    """Fewest values before an origin; a series that has fewer at validation is not validated on."""

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
    """Units of each."""
    dropout: Rate = 0.0
    """On the output of each layer."""
    output: Literal["quantiles", "gaussian"] = "quantiles"
    """Quantiles at 0.05, 0.1, ... 0.95 for each step ahead; or a mean and a standard deviation. The loss is the CRPS of
    either."""
    members: Count = 4
    """Nets, trained side by side from seeds of their own, whose quantiles are averaged."""


@dataclass(frozen=True)
class Train(settings.Optimizer):
    """How they are trained: a warm-up over a tenth of the steps, then a cosine decay to zero."""

    batch: Count = 64
    """Windows in an update of each net."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay; on biases too, since those of the members are stacked."""
    steps: Count = 600
    """Updates in all; the learning rate's schedule stretches over them."""
    refits: Natural = 1
    """Into how many stretches the test part is cut. Before each of them the nets are trained again, on all that comes
    before it and for as many steps as the best checkpoint had. 0: the best checkpoint forecasts. (Baselines are fitted
    again before every origin.)"""

    @property
    def total_updates(self) -> int:
        return self.steps

    @property
    def warmup(self) -> int:
        return self.steps // 10


@dataclass(frozen=True)
class Run(settings.Run):
    """How it is watched, and where it is kept."""

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
                f"--refits is {self.train.refits}, but the test part has --test {self.data.test} values only."
            )


@dataclass(frozen=True)
class MackeyGlassData(settings.Settings):
    """The series."""

    tau: Count = 17
    """Delay of the series."""
    washout: Count = 1000
    """First steps of a series that the readout does not see."""
    train: Count = 20_000
    """Further steps of the training series, which it is fitted to."""
    sequences: Count = 50
    """Series to choose the ridge on, and twice as many, others, to score on."""
    steps_ahead: Count = 84
    """Steps that a network forecasts by itself."""


@dataclass(frozen=True)
class Reservoir(settings.Settings):
    """The echo-state networks, and their readout."""

    networks: Count = 10
    """Each with weights of its own."""
    width: Count = 400
    """Units of each."""
    rate: Positive = 0.44
    """C."""
    decay: Positive = 0.9
    """a."""
    spectral_radius: NonNegative = 0.79
    """Of his recurrent weights."""
    density: Annotated[float, Range("in (0, 1]", lambda x: 0 < x <= 1)] = 0.0125
    """Share of the units that each unit hears."""
    feedback_scale: NonNegative = 0.56
    """Largest weight from the last value."""
    bias_scale: NonNegative = 0.2
    """Largest bias."""
    squares: bool = False
    """Whether the readout has the squares of the states too."""
    ridges: tuple[float, ...] = (0.0, 1e-20, 1e-18, 1e-16, 1e-14, 1e-12, 1e-10)
    """To choose from, as shares of the largest squared singular value of the states."""

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
    `x' = (1 - C a) x + C tanh(...)` is `rnnx.reservoir` with leak C a, but for the size of the states, which is a times
    his; so the recurrent weights are 1 / a times his. His feedback from the output is the input here: x_t = y_{t-1}.
    """

    data: MackeyGlassData = MackeyGlassData()
    model: Reservoir = Reservoir()
    run: settings.Place = field(default_factory=settings.Place)
