"""The scores: how many symbols, and how many sources, are wrong."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import runs
from experiments.files import read_json
from experiments.loop import Fitted
from experiments.translate.config import Translate
from experiments.translate.data import Symbols, Translations
from experiments.translate.decoding import Translator

MONITOR = "val_error_rate"
SHOWN = 6


def distance(a: Symbols, b: Symbols) -> int:
    """The least number of insertions, deletions and substitutions that turns one into the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def error_rates(written: Sequence[Symbols], right: Mapping[Symbols, Sequence[Symbols]]) -> dict[str, float]:
    """`symbol_error_rate`: edits to the nearest correct target, per symbol of it; `error_rate`: the share of sources
    for which no correct target was written. `written` are in the order of `right`."""
    edits = symbols = wrong = 0
    for own, targets in zip(written, right.values(), strict=True):
        away, length = min((distance(own, target), len(target)) for target in targets)
        edits, symbols, wrong = edits + away, symbols + length, wrong + (away > 0)
    return {"symbol_error_rate": edits / symbols, "error_rate": wrong / len(written)}


def make_evaluate(
    config: Translate, translate: Translator, right: Mapping[Symbols, Sequence[Symbols]]
) -> Callable[[Any], dict[str, float]]:
    part = dict(list(right.items())[: config.run.eval_sources])

    def evaluate(state: Any) -> dict[str, float]:
        rates = error_rates(translate(state.average, list(part), beam=1), part)
        return {f"val_{name}": rate for name, rate in rates.items()}

    return evaluate


def report(config: Translate, run_dir: Path, data: Translations, translate: Translator, fitted: Fitted[Any]) -> None:
    """Scores the best checkpoint on the test set, greedily and by beam search. Writes results.json last."""
    from experiments.plots import learning_curve  # not at the top: a second of start-up
    from experiments.translate import plots

    print(f"Translating {len(data.test):,} test sources, with one hypothesis and with {config.run.beam}.", flush=True)
    params, sources = fitted.best.average, list(data.test)
    written = {beam: translate(params, sources, beam=beam) for beam in (1, config.run.beam)}
    greedy, searched = (error_rates(written[beam], data.test) for beam in (1, config.run.beam))
    learning_curve(
        run_dir,
        MONITOR,
        label="training: nats per symbol; validation: error rate",
        title=f"{run_dir.name}: {searched['error_rate']:.1%} of test sources wrong",
    )
    drawn = np.random.default_rng(config.run.seed).choice(len(sources), min(SHOWN, len(sources)), replace=False)
    maps = []
    for i in drawn:
        target, weights = translate.attention(params, sources[i])
        maps.append((sources[i], target, weights, target in data.test[sources[i]]))
    plots.attention(run_dir / "attention.png", maps, f"{run_dir.name}: attention of the decoder")
    runs.finish(
        run_dir,
        {name: searched[name] for name in ("symbol_error_rate", "error_rate")},
        seed=config.run.seed,
        seconds=fitted.seconds,
        greedy=greedy,
        beam=config.run.beam,
        test_sources=len(sources),
        examples=[
            {"source": "".join(sources[i]), "written": " ".join(written[config.run.beam][i])} for i in drawn.tolist()
        ],
        best_step=fitted.best_step,
        steps=fitted.last_step,
        parameters=runs.count(params),
        data_sha256=data.sha256,
    )


def show(run_dir: Path) -> None:
    run = read_json(run_dir / "results.json")
    print(f"--- results ({run_dir / 'results.json'}; plots: attention.png, learning_curve.png)")
    print(f"{'':<24}{'symbols wrong':>15}{'sources wrong':>15}")
    for name, rates in (("one hypothesis", run["greedy"]), (f"beam search, {run['beam']}", run["scores"])):
        print(f"{name:<24}{rates['symbol_error_rate']:>15.2%}{rates['error_rate']:>15.2%}")
    for example in run["examples"]:
        print(f"    {example['source']:<24} {example['written']}")
