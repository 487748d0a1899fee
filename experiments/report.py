"""The table of results, from the results.json of actual runs.

python -m experiments.report            shows the table
python -m experiments.report --json     shows a row per score, as JSON
python -m experiments.report --docs     writes the table into docs/results.md
"""

import dataclasses
import itertools
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments import command
from experiments.config import parse
from experiments.errors import UserError
from experiments.files import write_text
from experiments.published import PUBLISHED
from experiments.runs import read_results

RECORDS = Path("experiments/records")
PAGE = Path("docs/results.md")
BEGIN, END = "<!-- results: python -m experiments.report --docs -->", "<!-- end of results -->"


@dataclasses.dataclass(frozen=True)
class Options:
    """Shows the results on record."""

    json: bool = False
    """Print a JSON list with an object per score, including the published figure and its source."""
    docs: bool = False
    """Write the table between its markers in docs/results.md."""
    runs: Annotated[Path, tyro.conf.Positional] = RECORDS
    """Folder that holds <experiment>/<config>-seed<n>.json."""


def read_runs(folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The runs of each `(experiment, config)`, by seed."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*/*-seed*.json")):
        config, seed = path.stem.rsplit("-seed", 1)
        run = read_results(path)
        if str(run.get("seed")) != seed or not isinstance(run.get("scores"), dict):
            raise UserError(f"{path} is not the results.json of seed {seed}: it has seed {run.get('seed')}.")
        runs.setdefault((path.parent.name, config), []).append(run)
    return runs


def rows_of(runs: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row per score; all seeds of a config must have the same scores."""
    rows = []
    for (experiment, config), seeds in runs.items():
        metrics = list(seeds[0]["scores"])
        for run in seeds:
            if list(run["scores"]) != metrics:
                raise UserError(
                    f"{experiment} {config}: seed {run['seed']} has the scores {', '.join(run['scores'])}, but seed "
                    f"{seeds[0]['seed']} has {', '.join(metrics)}. Run them again with the same code."
                )
        for metric in metrics:
            values = [run["scores"][metric] for run in seeds]
            published = PUBLISHED.get((experiment, config, metric), [])
            rows.append(
                {
                    "experiment": experiment,
                    "config": config,
                    "metric": metric,
                    "mean": statistics.fmean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "seeds": len(values),
                    "seconds": statistics.fmean(run["seconds"] for run in seeds),
                    "published": published[0].figure if published else None,
                    "source": "; ".join(f"{p.figure:g}: {p.source}" for p in published) or None,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown, with a line for each config."""
    lines = ["| experiment, config | scores (mean ± standard deviation) | seeds | minutes each |", "|---|---|---|---|"]
    configs = itertools.groupby(rows, key=lambda row: (row["experiment"], row["config"]))
    for (experiment, config), own in configs:
        scores = list(own)
        shown = "<br>".join(score(row) for row in scores)
        lines.append(
            f"| `{experiment}` `{config}` | {shown} | {scores[0]['seeds']} | {scores[0]['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def score(row: dict[str, Any]) -> str:
    spread = "" if row["std"] is None else f" ± {row['std']:.2g}"
    published = f" (published: {row['source']})" if row["source"] else ""
    return f"{row['metric'].replace('_', ' ')} **{row['mean']:.4g}**{spread}{published}"


def with_table(page: str, written: str) -> str:
    """The results page with this table between its markers."""
    if len(re.findall(f"{re.escape(BEGIN)}.*?{re.escape(END)}", page, re.S)) != 1:
        raise UserError(f"{PAGE} must have the table's markers, once each:\n{BEGIN}\n{END}")
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n{written}\n{END}{rest.split(END)[1]}"


def main(args: Sequence[str]) -> None:
    options = parse(Options, args, command="python -m experiments.report")
    rows = rows_of(read_runs(options.runs))
    if not rows:
        raise UserError(f"{options.runs} holds no results; python -m experiments.seeds makes some.")
    if options.docs:
        write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), table(rows)))
    sys.stdout.write((json.dumps(rows, indent=2) if options.json else table(rows)) + "\n")


if __name__ == "__main__":
    command.run(main)
