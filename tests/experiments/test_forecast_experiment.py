"""Forecasts at small size: the real configs, shrunk; the data, the metrics and the baselines by themselves."""

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import ROOT
from scipy.stats import norm

from experiments import config as configs
from experiments.errors import UserError
from experiments.forecast import (
    Data,
    Forecast,
    Model,
    Reservoir,
    baselines,
    evaluate,
    mackey_glass,
    model,
    train,
    windows,
)
from experiments.forecast import data as series_
from experiments.forecast.train import main as run
from experiments.logs import read_metrics
from experiments.settings import replace

TINY = ["--members", "2", "--width", "4", "--batch", "8", "--steps", "4", "--eval-every", "2", "--log-every", "2"]


def config_file(name: str) -> str:
    return str(ROOT / f"configs/forecast/{name}.py")


def options(**settings: Any) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def of_file(name: str, *overrides: str) -> Any:
    return configs.load(Forecast, [config_file(name), *overrides])


def some(values: Any, name: str = "some") -> series_.Series:
    return series_.plain(name, np.asarray(values, float), np.arange(len(values)))


def nets_of(config: Forecast) -> model.Nets:
    return model.make_nets(config.model, config.data)


def small(**changes: Any) -> Forecast:
    settings = {"season": 2, "horizon": 2, "test": 4, "validation": 4, "stride": 1, "context": 6, "shortest": 3}
    return replace(Forecast(), **{**settings, "lags": 1, "cell": "elman", "width": 4, "members": 2, **changes})


def test_a_run_leaves_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    smaller = options(season=4, horizon=4, context=8, stride=45, refits=2, cell="elman")
    arguments = [config_file("sunspots"), *TINY, "--run-dir", str(run_dir), *smaller]
    run(arguments)
    output = capsys.readouterr().out
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert set(results["methods"]) == {"net", "base_alone", *baselines.BASELINES}
    assert np.isfinite(list(results["scores"].values())).all()
    best = min(results["methods"][name]["mase"] for name in baselines.BASELINES)
    assert results["scores"]["mase_best_baseline"] == best
    assert results["scores"]["mase"] == results["methods"]["net"]["mase"]
    assert f"{results['scores']['mase']:>18.4f}" in output
    assert [row["step"] for row in read_metrics(run_dir) if evaluate.MONITOR in row] == [2, 4]
    assert read_metrics(run_dir / "refit2")[-1]["step"] == results["best_step"]
    for picture in ("forecast", "methods", "learning_curve"):
        assert (run_dir / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    run(arguments)
    assert "is finished" in capsys.readouterr().out


def test_a_run_on_a_csv_file(tmp_path: Path) -> None:
    rows = [f"2001-{month:02}-01,{10 + month % 3}" for month in range(1, 13)]
    rows += [f"2002-{month:02}-01,{12 + month % 3 + month % 2}" for month in range(1, 13)]
    path = write(tmp_path, "month,sales", *rows)
    run_dir = tmp_path / "run"
    small = options(season=3, horizon=3, test=4, validation=4, context=4, shortest=4)
    given = ["--data", path, "--column", "sales", "--dates", "month", "--run-dir", str(run_dir)]
    other = options(stride=1, refits=0, output="gaussian", cell="elman")
    run([config_file("quick"), *TINY, *given, *small, *other])
    assert json.loads((run_dir / "results.json").read_text(encoding="utf-8"))["forecasts"] == 2


def test_the_mackey_glass_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    shrunk = ["--networks", "2", "--width", "60", "--density", "0.1", "--washout", "100", "--train", "600"]
    run([config_file("mackey_glass"), *shrunk, "--sequences", "3", "--steps-ahead", "20", "--run-dir", str(run_dir)])
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert 0 < results["scores"]["median_nrmse20"] < 0.05
    assert results["nrmse_one_step"] < 1e-2
    assert (run_dir / "rollout.png").read_bytes().startswith(b"\x89PNG")
    assert f"{results['scores']['median_nrmse20']:.2e}" in capsys.readouterr().out
    assert jnp.zeros(()).dtype == jnp.float32  # float64 is for the run alone


@pytest.mark.parametrize("scaling", ["series", "window"])
@pytest.mark.parametrize("base", ["level", "drift", "seasonal", "autoreg"])
def test_no_window_knows_what_comes_after_its_origin(scaling: Any, base: Any) -> None:
    config = small(scaling=scaling, base=base, transform="log")
    values = np.exp(np.random.RandomState(0).normal(size=24).cumsum() / 5)
    whole = windows.split(config.data, [some(values)])
    for part, made in whole._asdict().items():
        for row, origin in enumerate(made.origin):
            # In the training part, the mean and the spread of the whole part are known.
            known = max(origin, 16 if scaling == "series" else 0)
            changed = windows.split(config.data, [some(np.r_[values[:known], 2 * values[known:]])])._asdict()[part]
            for field in ("inputs", "lengths", "base", "scale"):
                assert (getattr(changed, field)[row] == getattr(made, field)[row]).all(), (part, field, origin)
    assert whole.train.origin.tolist() == list(range(3, 16))
    assert whole.train.counted.sum(axis=1).tolist() == [2] * 12 + [1]
    refit = windows.to_learn_from(config.data, [some(values)], 4)
    assert refit.origin.tolist() == list(range(3, 20))
    assert refit.counted.sum(axis=1).tolist() == [2] * 16 + [1]
    assert whole.validation.origin.tolist() == [16, 17, 18]
    assert whole.test.origin.tolist() == [20, 21, 22]
    assert whole.test.counted.all()
    assert whole.validation.counted.all()


@pytest.mark.parametrize("transform", ["none", "log", "sqrt"])
@pytest.mark.parametrize("base", ["level", "drift", "seasonal"])
@pytest.mark.parametrize("scaling", ["series", "window"])
def test_targets_put_back_are_the_values(transform: Any, base: Any, scaling: Any) -> None:
    config = small(transform=transform, base=base, scaling=scaling)
    series = [some(1 + np.random.RandomState(i).uniform(size=20 + i)) for i in range(2)]
    made = windows.split(config.data, series).test
    back = evaluate.unscaled(config.data, made, made.targets[..., None])[..., 0]
    np.testing.assert_allclose(back, evaluate.actual(config.data, series, made), rtol=1e-5)
    for i, origin, value in zip(made.series, made.origin, evaluate.actual(config.data, series, made)):
        assert value.tolist() == series[i].values[origin : origin + 2].tolist()


def test_a_window_by_hand() -> None:
    config = small(scaling="window", base="drift", context=4)
    inputs, length, base, scale = windows.prepared(config.data, np.array([9.0, 1, 2, 4, 7]), np.zeros(3))
    assert (length, scale) == (4, 2)
    assert inputs[:, 0].tolist() == [-3, -2.5, -1.5, 0]
    assert inputs[:, 1].tolist() == [0, 0.5, 1, 1.5]
    assert base.tolist() == [9, 11]
    short, length, _, _ = windows.prepared(config.data, np.array([2.0, 4, 7]), np.zeros(3))
    assert (length, short[3].tolist()) == (3, [0, 0])
    seasonal = small(scaling="window", base="seasonal", context=4, horizon=3)
    _, _, base, _ = windows.prepared(seasonal.data, np.array([0.0, 10, 1, 13]), np.zeros(3))
    # The seasons differ by 1 and by 3, so the line rises by 1 a step; less it, they are -0.5 and 9.5.
    np.testing.assert_allclose(base, [3.5, 14.5, 5.5])


def test_nets_trained_anew_know_nothing_of_what_they_forecast() -> None:
    config = small(horizon=2, test=7, stride=3, refits=3)
    series = [some(np.arange(30.0)), some(np.arange(24.0))]
    test = windows.split(config.data, series).test
    parts = windows.stretches(config.data, config.train.refits, series, test)
    assert [held_out for held_out, _ in parts] == [7, 5]  # none begins in the last three
    assert sum(rows.astype(int) for _, rows in parts).tolist() == [1] * len(test.origin)
    for held_out, rows in parts:
        learnt = windows.to_learn_from(config.data, series, held_out)
        for i in range(len(series)):
            own = learnt.series == i
            last = (learnt.origin[own] + learnt.counted[own].sum(axis=1)).max()
            first = test.origin[rows & (test.series == i)].min()
            assert last == len(series[i].values) - held_out <= first
    assert windows.stretches(config.data, 0, series, test) == []


def test_an_autoregression_is_had_back() -> None:
    past = [1.0, 2]
    for _ in range(20):
        past.append(1.5 * past[-1] - 0.9 * past[-2] + 3)
    np.testing.assert_allclose(windows.autoregression(np.array(past[:-3]), 3, 2), past[-3:], rtol=1e-9)


def test_metrics_agree_with_other_ways_to_them() -> None:
    draw = np.random.RandomState(0)
    mean, std, value = draw.normal(size=5), draw.uniform(0.5, 2, size=5), draw.normal(size=5)
    z = (value - mean) / std
    closed = std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    # The levels from 0.05 to 0.95 leave out the ends of the distribution.
    np.testing.assert_allclose(evaluate.crps(value, evaluate.gaussian(mean, std)), closed, rtol=0.1)
    outputs, value32 = jnp.stack([mean, np.log(np.expm1(std))], axis=-1), jnp.float32(value)
    np.testing.assert_allclose(model.crps(small(output="gaussian").model, outputs, value32), closed, rtol=1e-3)
    quantiles = np.sort(draw.normal(size=(5, 19)))
    of_quantiles = model.crps(small().model, jnp.float32(quantiles), value32)
    np.testing.assert_allclose(of_quantiles, evaluate.crps(value, quantiles), rtol=1e-4)
    assert evaluate.smape(np.array([1.0, 0, 2]), np.array([3.0, 0, 2])).tolist() == [100, 0, 0]
    assert evaluate.naive_error(np.array([1.0, 2, 4, 4]), 2) == 2.5

    point = np.array([[[2.0, 4]], [[1.0, 1]], [[0.0, 0]]])[:, 0]
    values = np.array([[1.0, 1], [1, 3], [6, 0]])
    scores = evaluate.score(np.array([0, 0, 1]), values, np.repeat(point[..., None], 19, axis=-1), np.array([2.0, 3]))
    assert scores.mase == pytest.approx(((0.5 + 1.5 + 0 + 1) / 4 + (2 + 0) / 2) / 2)
    assert scores.next_value_mase == pytest.approx(((0.5 + 0) / 2 + 2) / 2)
    assert scores.scaled_crps == pytest.approx(scores.mase)  # of a forecast without any spread


def test_baselines_that_can_be_done_by_hand() -> None:
    mean, std = baselines.seasonal_naive(np.array([1.0, 5, 2, 7]), 3, 2)
    assert mean.tolist() == [2, 7, 2]
    np.testing.assert_allclose(std, np.sqrt(2.5) * np.sqrt([1, 1, 2]))
    mean, std = baselines.drift(np.array([1.0, 2, 5]), 2, 1)
    assert mean.tolist() == [7, 9]
    np.testing.assert_allclose(std, [np.sqrt(1.5), np.sqrt(4)])


@pytest.mark.parametrize("name", ["theta", "autoreg", "exponential_smoothing"])
@pytest.mark.parametrize(("length", "season"), [(40, 4), (9, 1), (9, 6)])
def test_baselines_follow_a_trend_and_a_season(name: str, length: int, season: int) -> None:
    time = np.arange(length + 4)
    series = (
        200
        + time
        + 5 * np.sin(2 * np.pi * time / 4) * (season == 4)
        + np.random.RandomState(0).normal(size=len(time)) / 9
    )
    mean, std = baselines.quietly(baselines.BASELINES[name], series[:length], 4, season)
    assert mean.shape == std.shape == (4,)
    assert (std > 0).all()
    assert np.abs(mean - series[length:]).max() < 2.5


@pytest.mark.parametrize("cell", get_args(get_type_hints(Model)["cell"]))
def test_every_cell_forecasts(cell: Any) -> None:
    made = nets_of(small(cell=cell, layers=2, output="gaussian"))
    one = jax.eval_shape(lambda key: jax.tree.map(lambda leaf: leaf[0], made.init(key)), jax.random.key(0))
    inputs, lengths = jax.ShapeDtypeStruct((3, 6, 2), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.int32)
    assert jax.eval_shape(lambda *args: made.apply(*args, None), one, inputs, lengths).shape == (3, 2, 2)


def test_the_last_value_read_decides_and_no_pad() -> None:
    made = nets_of(small())
    params = jax.tree.map(lambda leaf: leaf[0], jax.jit(made.init)(jax.random.key(0)))
    inputs = jax.random.normal(jax.random.key(1), (3, 6, 2))
    lengths = jnp.array([3, 6, 1])
    pads = jnp.arange(6)[None, :, None] >= lengths[:, None, None]
    last = jnp.arange(6)[None, :, None] == lengths[:, None, None] - 1
    apply = jax.jit(lambda xs: made.apply(params, xs, lengths, None))
    outputs = apply(inputs)
    np.testing.assert_allclose(outputs, apply(jnp.where(pads, 1e6, inputs)), rtol=1e-5)
    assert (np.abs(outputs - apply(jnp.where(last, 1.0, inputs))).max(axis=(1, 2)) > 0).all()


def test_members_differ_and_what_is_not_counted_teaches_nothing() -> None:
    config = small()
    made = nets_of(config)
    params = jax.jit(made.init)(jax.random.key(0))
    assert all((leaf[0] != leaf[1]).any() for leaf in jax.tree.leaves(params) if leaf.ndim > 2)
    data = windows.split(config.data, [some(np.random.RandomState(0).normal(size=20).cumsum())]).train
    loss = jax.jit(train.make_loss(config, made))
    changed = data._replace(targets=np.where(data.counted, data.targets, 1e9))
    assert loss(params, jax.random.key(1), data)[0] == loss(params, jax.random.key(1), changed)[0]


def test_series_from_packages() -> None:
    [spots] = series_.load(of_file("sunspots").data)
    assert (len(spots.values), spots.times[0], spots.values[0], spots.values.max()) == (309, 1700, 5, 190.2)
    [air] = series_.load(of_file("co2").data)
    assert len(air.values) == 526  # months from March 1958 to December 2001
    assert air.values[0] == pytest.approx(316.1)
    assert not air.filled[-150:].any()
    assert air.filled.sum() > 5
    with pytest.raises(UserError, match=r"59 of 2284 values of co2 are missing \(the week of 1958-05-10"):
        series_.load(of_file("co2", "--fill", "none").data)


def test_the_series_of_m1() -> None:
    config = of_file("m1_yearly")
    series = series_.load(config.data)
    lengths = [len(one.values) for one in series]
    assert (len(series), min(lengths), max(lengths)) == (181, 15, 58)
    assert (config.data.horizon, config.data.test, config.data.season) == (6, 6, 1)
    assert series[0].values[:2].tolist() == [3600, 7700]
    made = windows.split(config.data, series).test
    assert [lengths[i] - origin for i, origin in zip(made.series, made.origin)] == [6] * 181


def test_mackey_glass_follows_its_equation() -> None:
    with jax.enable_x64(True):
        y = mackey_glass.mackey_glass(0, 2, 400, 17, settle=0)
    assert y.shape == (2, 400)
    assert (y[0] != y[1]).any()
    history = 1.2 + 0.2 * (np.random.RandomState(0).uniform(size=(170, 2)) - 0.5)
    dense = [*history[:, 1], history[-1, 1]]
    for _ in range(400 * 10):
        late = dense[-1 - 170]
        dense.append(dense[-1] + (0.2 * late / (1 + late**10) - 0.1 * dense[-1]) / 10)
    # What comes first is the step after the history.
    np.testing.assert_allclose(y[1, :50], dense[171::10][:50], rtol=1e-9)
    assert 0.2 < y[:, 200:].min() < 0.6 < 1.2 < y[:, 200:].max() < 1.4


def test_the_reservoir_is_that_of_jaeger() -> None:
    """His leaky unit, written out, has the states of ours, but for their size."""
    config = Reservoir(width=30, density=0.2)
    with jax.enable_x64(True):
        states, _ = mackey_glass.make_layers(config, 3)
        xs = jnp.asarray(np.random.RandomState(0).normal(size=(1, 20, 1)) / 3)
        ys = np.asarray(states.apply({}, states.initial_carry({}, xs, None), xs)[1][0])
        from rnnx.cells.reservoir import reservoir, sparse_matrix

        cell = reservoir(30, input_scale=0.56, bias_scale=0.2, density=0.2, seed=3)
        w = sparse_matrix(30, 0.2, config.spectral_radius, 3)
        assert np.abs(np.linalg.eigvals(w)).max() == pytest.approx(0.79)
        x = np.zeros(30)
        for t in range(20):
            z = np.asarray(cell.project({}, xs[0, t], None))
            x = (1 - 0.44 * 0.9) * x + 0.44 * np.tanh(z + x @ w)
            np.testing.assert_allclose(ys[t], 0.9 * x, rtol=1e-8, atol=1e-12)


def test_the_readout_is_the_ridge_regression() -> None:
    with jax.enable_x64(True):
        draw = np.random.RandomState(0)
        states, targets = draw.normal(size=(40, 5)), draw.normal(size=40)
        fits = mackey_glass.readouts(jnp.asarray(states), jnp.asarray(targets), (0.0, 0.1))
        wide = np.c_[states, np.ones(40)]
        largest = np.linalg.norm(wide, 2) ** 2
        for fitted, ridge in zip(fits, (0.0, 0.1)):
            direct = np.linalg.solve(wide.T @ wide + ridge * largest * np.eye(6), wide.T @ targets)
            np.testing.assert_allclose(np.r_[fitted["kernel"][:, 0], fitted["bias"]], direct, rtol=1e-9)
    truth = np.array([[1.0, 2], [3, 4]])
    assert mackey_glass.nrmse(truth, truth + np.array([0, 1]))[1] == pytest.approx(1 / truth.std())


def write(folder: Path, *lines: str) -> str:
    path = folder / "some.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def days(*cells: str) -> list[str]:
    return ["day,value", *(f"2001-01-{day:02},{cell}" for day, cell in enumerate(cells, 1))]


NUMBERS = [str(value % 7) for value in range(30)]
CSV = ["--column", "value", "--season", "2", "--horizon", "2", "--test", "4", "--validation", "4"]
CSV += ["--context", "3", "--shortest", "3"]


@pytest.mark.parametrize(
    ("lines", "overrides", "message"),
    [
        (days(*NUMBERS), ["--column", "price"], "has no column 'price'; it has 'day', 'value'"),
        (days(*NUMBERS[:5], "n.b.", *NUMBERS), [], "some.csv, line 7, column 'value': 'n.b.' is not a number"),
        (days(*NUMBERS[:5], "inf", *NUMBERS), [], "some.csv, line 7, column 'value': inf is not finite"),
        (days(*NUMBERS[:5], "", "nan", *NUMBERS), [], "2 of 37 values of"),
        (days("", *NUMBERS), ["--fill", "forward"], "begins with missing values (line 2)"),
        (days(*NUMBERS, ""), ["--fill", "linear"], "ends with missing values"),
        (days(*NUMBERS[:25], "", *NUMBERS[:4]), ["--fill", "linear"], "would let forecasts look ahead: value 26"),
        (days(*NUMBERS[:11]), [], "has at most 11 values in a series, but 12 are needed"),
        (days(*"1212121212121212"), [], "repeat a --season of 2 exactly"),
        (days(*NUMBERS), ["--transform", "log"], "--transform log needs values above 0, but 'value' has 0"),
        (
            [*days(*NUMBERS[:28])[:-1], "2001-02-27,1"],
            ["--dates", "day"],
            "(line 29) it is 31 days, but mostly it is 1",
        ),
        ([*days(*NUMBERS)[:20], "soon,1"], ["--dates", "day"], "the dates cannot be read"),
    ],
)
def test_bad_files_are_refused_before_anything_is_written(
    tmp_path: Path, lines: list[str], overrides: list[str], message: str
) -> None:
    arguments = [config_file("quick"), *TINY, "--data", write(tmp_path, *lines), *CSV, *overrides]
    with pytest.raises(UserError) as error:
        run([*arguments, "--run-dir", str(tmp_path / "run")])
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("cells", "how", "filled"),
    [
        (["1", "", "", "4"], "forward", [1, 1, 1, 4]),
        (["1", "", "", "4"], "linear", [1, 2, 3, 4]),
        (["1", "2", "", "NaN"], "forward", [1, 2, 2, 2]),
    ],
)
def test_gaps_are_filled_as_named(tmp_path: Path, cells: list[str], how: Any, filled: list[float]) -> None:
    data = Data(data=write(tmp_path, *days(*cells)), column="value", fill=how)
    one = series_.from_csv(data)
    assert one.values.tolist() == filled
    assert one.filled.tolist() == [cell in ("", "NaN") for cell in cells]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("quick", ["--steps", "0"], "--steps is 0, but must be 1 or more"),
        ("quick", ["--dropout", "1"], "--dropout is 1.0, but must be at least 0 and below 1"),
        ("quick", ["--horizon", "999"], "--test is 200, but must hold at least one forecast of --horizon, 999"),
        ("quick", ["--base", "autoreg", "--shortest", "29"], "--shortest is 29, but must be 30 or more"),
        ("quick", ["--data", "none.csv", "--column", "x"], "--data is 'none.csv', but must be one of sine, sunspots"),
        ("quick", ["--data", "none.csv"], "--column must say which column of none.csv"),
        (
            "quick",
            ["--base", "seasonal", "--shortest", "30"],
            "--shortest is 30, but must be 40 or more: --base seasonal needs two of --season, 20",
        ),
        ("mackey_glass", ["--density", "0"], "--density is 0.0, but must be in (0, 1]"),
        ("mackey_glass", ["--rate", "2"], "--rate times --decay is 1.8, but must not be above 1"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, name: str, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run([config_file(name), *overrides, "--run-dir", str(tmp_path / "run")])
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()
