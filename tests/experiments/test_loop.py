"""The loop on a task of its own: it knows nothing of text, and neither do these tests."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.checkpoints import Checkpoints
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.loop import Fitted, Plan, fit

State = dict[str, jax.Array]


def initial_state() -> State:
    return {"x": jnp.array(10.0), "step": jnp.int32(0)}


def halve(state: State, data: jax.Array) -> tuple[State, dict[str, jax.Array]]:
    x = state["x"] * data
    return {"x": x, "step": state["step"] + 1}, {"loss": x}


def evaluate(state: State) -> dict[str, float]:
    return {"error": float(state["x"])}


def run(
    run_dir: Path,
    step: Callable[..., Any] = halve,
    evaluate: Callable[[Any], Mapping[str, float]] = evaluate,
    **options: Any,
) -> Fitted[State]:
    run_dir.mkdir(exist_ok=True)
    settings = {"steps": 12, "eval_every": 4, "log_every": 3, "monitor": "error", **options}
    return fit(run_dir, initial_state, step, jnp.array(0.5), evaluate, Plan(**settings), {})


def test_it_trains_logs_and_returns_the_best(tmp_path: Path) -> None:
    fitted = run(tmp_path)
    assert (fitted.best_step, fitted.last_step) == (12, 12)
    assert fitted.best["x"] == pytest.approx(10 / 2**12)
    rows = read_metrics(tmp_path)
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == [3, 4, 6, 8, 9, 12]
    assert losses[3] == pytest.approx((5 + 2.5 + 1.25) / 3)
    assert [row["step"] for row in rows if "error" in row] == [4, 8, 12]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, step=lambda state, data: 1 / 0)
    assert again.best_step == first.best_step
    assert again.seconds == first.seconds


def test_it_stops_early_and_stays_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = run(tmp_path, evaluate=lambda state: {"error": abs(int(state["step"]) - 4)}, patience=1, steps=100)
    assert (fitted.best_step, fitted.last_step) == (4, 8)
    assert "Stopping early" in capsys.readouterr().out
    again = run(tmp_path, step=lambda state, data: 1 / 0, patience=1, steps=100)
    assert (again.best_step, again.last_step) == (4, 8)


def test_higher_can_be_better(tmp_path: Path) -> None:
    assert run(tmp_path, higher_is_better=True, patience=1).best_step == 4


def test_the_last_step_is_evaluated_whatever_the_interval(tmp_path: Path) -> None:
    assert run(tmp_path, steps=6, eval_every=100).best_step == 6


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("at", [6, 7, 8])
def test_a_loss_that_is_not_finite_stops_it_before_a_checkpoint(tmp_path: Path, value: float, at: int) -> None:
    def step(state: State, data: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        state, metrics = halve(state, data)
        return state, {"loss": jnp.where(state["step"] == at, value, metrics["loss"])}

    with pytest.raises(UserError, match=f"loss became (nan|inf) at step {at}") as error:
        run(tmp_path, step)
    assert "checkpoint of step 4 is kept" in str(error.value)
    restored = Checkpoints(tmp_path / "checkpoints", monitor="error").resume(jax.eval_shape(initial_state))
    assert restored is not None
    assert restored.step == 4


def test_an_update_or_evaluation_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    def step(state: State, data: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        state, metrics = halve(state, data)
        return {**state, "x": jnp.where(state["step"] == 8, jnp.nan, state["x"])}, metrics

    with pytest.raises(UserError, match=r"\['x'\] became NaN at step 8"):
        run(tmp_path / "a", step, evaluate=lambda state: {"error": 1.0})
    with pytest.raises(UserError, match="error became nan at step 8"):
        run(tmp_path / "b", step)
    for name in "ab":
        assert [path.name for path in (tmp_path / name / "checkpoints").iterdir()] == ["4"]


def test_a_state_that_changes_its_type_is_an_error(tmp_path: Path) -> None:
    def step(state: State, data: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        return {**state, "x": jnp.append(state["x"], 0.0)}, {"loss": jnp.float32(0)}

    with pytest.raises(AssertionError, match="unlike the one it was given"):
        run(tmp_path, step)


def test_it_compiles_once_resumed_or_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def compilations() -> int:
        count = sum("Compiling jit(train_step)" in message for message in caplog.messages)
        caplog.clear()
        return count

    with jax.log_compiles():
        run(tmp_path, steps=8, eval_every=4)
        assert compilations() == 1
        for path in (tmp_path / "checkpoints" / "8").rglob("*"):
            if path.is_file():
                path.write_text("", encoding="utf-8")
        fitted = run(tmp_path, steps=8, eval_every=4)
        assert compilations() == 1
    assert fitted.last_step == 8


def test_a_resumed_log_holds_each_step_once(tmp_path: Path) -> None:
    run(tmp_path, steps=8)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 9, "loss": 7.0}) + '\n{"step": 10, "lo')
    run(tmp_path, steps=12)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [3, 4, 6, 8, 9, 12]
    assert 7.0 not in [row.get("loss") for row in rows]
