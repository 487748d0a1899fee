"""The measurements at a tiny size: what they leave behind, and that a peer which computes something else is found."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.speed import __main__ as speed
from experiments.speed import peers
from experiments.speed.agreement import check, random_net
from experiments.speed.bars import bars, slower
from experiments.speed.measure import interleaved, row
from experiments.speed.report import KEYS, print_bars
from experiments.speed.shapes import SHAPES, Shape, matrix_flops

LIBRARIES = [name for name, library in peers.LIBRARIES.items() if peers.installed(library)]
TINY = Shape(2, 3, 4, 5)


@pytest.fixture(autouse=True)
def allow_rank_promotion():
    """Other libraries broadcast to higher ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_a_run_leaves_rows_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows_file, picture = tmp_path / "rows.json", tmp_path / "speed.png"
    options = f"--only nets --shapes 2,3,4,5 --cells lstm --budget 0 --rounds 1 --json {rows_file} --png {picture}"
    speed.main(options.split())
    rows = json.loads(rows_file.read_text(encoding="utf-8"))
    assert {"linen", "nnx"} <= set(LIBRARIES)
    assert [r["library"] for r in rows] == [*LIBRARIES, "floor"]
    for r in rows:
        assert set(KEYS) <= set(r)
        assert (r["section"], r["cell"], r["shape"], r["rounds"]) == ("nets", "lstm", "2,3,4,5", 1)
        assert r["forward_ms"] > 0
        assert r["grad_ms"] > 0
        if r["library"] not in ("torch", "floor"):
            assert r["compile_s"] > 0
            assert r["temp_mb"] > 0
        if r["library"] != "floor":
            assert r["version"]
            assert r["deviation"] < 1e-3
    assert picture.read_bytes().startswith(b"\x89PNG")
    first = capsys.readouterr().out
    assert "loss+gradient beside the fastest JAX peer, each net" in " ".join(first.split())

    picture.unlink()
    speed.main(["--read", str(rows_file), "--png", str(picture)])
    assert picture.exists()
    again = capsys.readouterr().out
    table = first[first.index("lstm at") :]  # after a line for each library that is not installed
    assert again.split("written to")[0].split() == table.split("written to")[0].split()


def test_a_spoilt_weight_is_found() -> None:
    cell = "gru"
    params, xs = random_net(cell, TINY)
    nets = {name: peers.load(name).prepare(cell, params, xs) for name in ("rnnx", *LIBRARIES[-2:])}
    assert check(cell, nets, params, xs) < 1e-5
    spoilt = {**params, "recurrent_kernel": params["recurrent_kernel"].at[1, 2].add(0.1)}
    for name in LIBRARIES[-2:]:
        wrong = {**nets, name: peers.load(name).prepare(cell, spoilt, xs)}
        with pytest.raises(UserError, match=f"{name} and rnnx DO NOT AGREE"):
            check(cell, wrong, params, xs)


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gone = peers.LIBRARIES["haiku"]._replace(needs="no_such_package")
    monkeypatch.setitem(peers.LIBRARIES, "haiku", gone)
    plan = speed.make_plan(speed.Speed(quick=True, libraries=("haiku", "linen")), speed.Console())
    assert plan.libraries == ("rnnx", "linen")
    assert "pip install dm-haiku" in capsys.readouterr().out


@pytest.mark.parametrize("options", ["--shapes 1,2,3", "--rounds 0", "--budget -1", "--read no_such_file"])
def test_what_cannot_be_measured_is_refused(options: str) -> None:
    with pytest.raises(SystemExit) as error:
        speed.main(options.split())
    assert isinstance(error.value, UserError)


def test_timings_of_all_rounds() -> None:
    calls = {"a": lambda: None, "b": lambda: sum(range(1000))}
    times = interleaved(calls, budget=0, rounds=3)
    assert {name: len(of) for name, of in times.items()} == {"a": 3, "b": 3}
    assert 0 < times["a"].min() < times["b"].min()


def net_row(library: str, ratio: float, **more: object) -> dict[str, object]:
    base = np.ones(3)
    given = {
        "forward": base,
        "grad": ratio * base,
        "base_forward": base,
        "base_grad": base,
        "temp_mb": ratio,
        "note": "",
    }
    return row("nets", library, "lstm", SHAPES[1], **{**given, **more})


def test_bars() -> None:
    measured = [net_row("rnnx", 1.0), net_row("linen", 2.0), net_row("haiku", 1.05), net_row("torch", 0.5)]
    found = {bar.what: bar for bar in bars(measured)}
    mean = found["loss+gradient beside the fastest JAX peer, geometric mean of 1 nets"]
    assert (mean.reached, mean.holds) == ("1.05", False)
    each = found["loss+gradient beside the fastest JAX peer, each net"]
    assert each.reached == f"lowest 1.05 (haiku, lstm {SHAPES[1]})"
    assert each.holds
    memory = found[f"temp memory of loss+gradient beside linen, lstm {SHAPES[1]}"]
    assert memory.holds
    assert memory.reached.startswith("0.50")
    torch = found["loss+gradient beside torch.nn.LSTM, geometric mean of 1 shapes"]
    assert not torch.holds
    assert slower(measured) == [f"torch: loss+gradient of lstm at {SHAPES[1]}, 0.50 of the time"]


def test_bars_are_those_of_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    measured = [net_row("rnnx", 1.0), net_row("linen", 2.0)]
    assert {r["device"] for r in measured} == {"cpu"}
    for device, shown in (("cpu", True), ("NVIDIA H100 80GB HBM3", False)):
        print_bars(speed.Console(), [{**r, "device": device} for r in measured])
        assert ("expected" in capsys.readouterr().out) == shown


def test_floor_of_matrix_products() -> None:
    """Of an LSTM: x and h to four gates; backwards the same products for the weights, and one for h."""
    forward, gradient = matrix_flops("lstm", Shape(2, 3, 4, 5))
    assert forward == 2 * 3 * 2 * (4 + 5) * 20
    assert gradient - forward == 2 * 3 * 2 * (4 + 5) * 20 + 2 * 3 * 2 * 5 * 20
