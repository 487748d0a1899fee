"""The series: made here, from packages, or from a file; refused if something is missing or does not fit."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.errors import UserError
from experiments.files import package_folder
from experiments.forecast.config import Data
from experiments.text import read_file


class Series(NamedTuple):
    """`values`, finite; where they were `filled`; the `times`, for the axis of a plot; each `[time]`."""

    name: str
    values: np.ndarray
    filled: np.ndarray
    times: np.ndarray


def load(data: Data) -> list[Series]:
    made = {"sine": noisy_sine, "sunspots": sunspots, "co2": co2, "m1_yearly": m1_yearly}
    if data.data in made:
        series = made[data.data](data)
    elif Path(data.data).is_file():
        series = [from_csv(data)]
    else:
        raise UserError(f"--data is {data.data!r}, but must be one of {', '.join(made)}, or the path of a CSV file.")
    for one in series:
        check(data, one)
    longest, needed = max(len(one.values) for one in series), data.shortest + 1 + data.validation + data.test
    if longest < needed:
        raise UserError(
            f"{data.data} has at most {longest} values in a series, but {needed} are needed: --shortest "
            f"{data.shortest} to read, 1 to learn from, --validation {data.validation} and --test {data.test}. "
            "Give more, or lower these."
        )
    return series


def noisy_sine(data: Data, length: int = 1200, period: float = 20, noise: float = 0.2) -> list[Series]:
    """The same for every seed, so that scores compare."""
    times = np.arange(length)
    values = np.sin(2 * np.pi * times / period) + noise * np.random.RandomState(0).normal(size=length)
    return [plain("noisy sine", values, times)]


def sunspots(data: Data) -> list[Series]:
    from statsmodels.datasets import sunspots as dataset  # not at the top: a second of start-up

    table = dataset.load_pandas().data
    return [plain("yearly sunspots", table["SUNACTIVITY"].to_numpy(float), table["YEAR"].to_numpy(float))]


def co2(data: Data) -> list[Series]:
    """Monthly means of weekly values; missing weeks are filled first. A month counts as filled if any week in it is."""
    from statsmodels.datasets import co2 as dataset

    table = dataset.load_pandas().data
    weeks = table["co2"].to_numpy(float)
    months = table.index.year.to_numpy() * 12 + table.index.month.to_numpy() - 1
    values, filled = fill(weeks, data, lambda i: f"the week of {table.index[i]:%Y-%m-%d}")
    expected = np.unique(months)
    return [
        Series(
            "CO2 at Mauna Loa",
            np.array([values[months == month].mean() for month in expected]),
            np.array([filled[months == month].any() for month in expected]),
            expected / 12,
        )
    ]


def m1_yearly(data: Data) -> list[Series]:
    path = package_folder("aeon", "m1_yearly") / "datasets/data/m1_yearly_dataset/m1_yearly_dataset.tsf"
    series = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line and line[0] not in "#@":
            name, start, numbers = line.split(":")
            values = np.array(numbers.split(","), float)
            series.append(plain(name, values, int(start[:4]) + np.arange(len(values))))
    return series


def plain(name: str, values: np.ndarray, times: np.ndarray) -> Series:
    return Series(name, values, np.zeros(len(values), bool), times)


def from_csv(data: Data) -> Series:
    path = data.data
    rows = csv.DictReader(io.StringIO(read_file(Path(path)), newline=""))
    cells: list[float] = []
    lines: list[int] = []
    dates: list[str | None] = []
    try:
        columns = rows.fieldnames or []
        for column in filter(None, (data.column, data.dates)):
            if columns.count(column) != 1:
                many = "no column" if column not in columns else f"{columns.count(column)} columns"
                raise UserError(
                    f"{path} has {many} {column!r}; it has {', '.join(map(repr, columns))[:300] or 'none'}."
                )
        for row in rows:
            cells.append(number(row[data.column], f"{path}, line {rows.line_num}, column {data.column!r}"))
            lines.append(rows.line_num)
            dates.append(row[data.dates] if data.dates else None)
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num + 1}: {error}. Expected values separated by commas.") from None
    if data.dates:
        check_dates(dates, lines, path)
    values, filled = fill(np.array(cells, float), data, lambda i: f"line {lines[i]}")
    return Series(data.column, values, filled, np.arange(len(values)))


def number(cell: str | None, where: str) -> float:
    """The number in a cell; NaN if the cell is empty or says so."""
    text = (cell or "").strip()
    if text.lower() in {"", "nan", "na", "null"}:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise UserError(
            f"{where}: {text[:80]!r} is not a number. Correct it, or leave the cell empty and name a --fill."
        ) from None
    if not math.isfinite(value):
        raise UserError(f"{where}: {text} is not finite. Correct it, or leave the cell empty and name a --fill.")
    return value


def check_dates(dates: Sequence[str | None], lines: list[int], path: str) -> None:
    """Months and years count as equal steps, however many days they have."""
    import pandas

    try:
        index = pandas.DatetimeIndex(dates)
    except ValueError as error:
        raise UserError(f"{path}: the dates cannot be read: {str(error)[:200]}. Write them as 2001-12-31.") from None
    if len(index) < 3 or index.hasnans:
        raise UserError(
            f"{path} has {int(index.notna().sum())} dates in {len(index)} rows, but every row needs one, and at "
            "least 3 are needed."
        )
    if pandas.infer_freq(index) is None:
        steps = np.diff(index.to_numpy()) / np.timedelta64(1, "D")
        usual, _ = Counter(steps).most_common(1)[0]
        odd = int(np.argmax(np.abs(steps - usual)))
        raise UserError(
            f"{path}: the dates do not come at equal steps: from {dates[odd]} to {dates[odd + 1]} (line "
            f"{lines[odd + 1]}) it is {steps[odd]:g} days, but mostly it is {usual:g}. Give every date a row, with an "
            "empty cell where the value is missing, and name a --fill."
        )


def fill(values: np.ndarray, data: Data, place: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
    """The values with missing ones filled, and where they were missing. `place` describes where an index is."""
    missing = np.isnan(values)
    if not missing.any():
        return values, missing
    at = np.flatnonzero(missing)
    where = ", ".join(place(i) for i in at[:3]) + (", ..." if len(at) > 3 else "")
    if data.fill == "none":
        raise UserError(
            f"{len(at)} of {len(values)} values of {data.data} are missing ({where}). Say how to fill them: "
            "--fill forward or --fill linear."
        )
    known = np.flatnonzero(~missing)
    if missing[0]:
        raise UserError(f"{data.data} begins with missing values ({where}), which no value before them can fill.")
    if data.fill == "linear" and missing[-1]:
        raise UserError(f"{data.data} ends with missing values; --fill linear needs one after them. Use forward.")
    if data.fill == "linear":
        return np.interp(np.arange(len(values)), known, values[known]), missing
    return values[known[np.searchsorted(known, np.arange(len(values)), side="right") - 1]], missing


def check(data: Data, series: Series) -> None:
    """Refuses a series that does not fit the settings."""
    count = len(series.values)
    trained = count - data.validation - data.test
    needed = max(data.shortest, data.season + 1 + data.validation) + data.test
    if count < needed:
        raise UserError(
            f"The series {series.name!r} has {count} values, but {needed} are needed: --test {data.test}, and before "
            f"them --shortest {data.shortest} to read, or --validation {data.validation} and more than a --season, "
            f"{data.season}. Give a longer one, or lower these."
        )
    if data.fill == "linear" and series.filled[trained - 1 :].any():
        at = trained - 1 + int(np.argmax(series.filled[trained - 1 :]))
        raise UserError(
            f"--fill linear would let forecasts look ahead: value {at + 1} of {series.name!r} is missing, and from "
            f"{trained} on they are for validation and test. Use --fill forward."
        )
    if data.transform == "log" and series.values.min() <= 0:
        raise UserError(f"--transform log needs values above 0, but {series.name!r} has {series.values.min():g}.")
    if data.transform == "sqrt" and series.values.min() < 0:
        raise UserError(f"--transform sqrt needs values of 0 or more, but {series.name!r} has {series.values.min():g}.")
    known = series.values[:trained]
    if not np.abs(known[data.season :] - known[: -data.season]).any():
        raise UserError(
            f"The first {trained} values of {series.name!r}, to train on, repeat a --season of {data.season} "
            "exactly: MASE, which divides by the change from one season to the next, is undefined."
        )
