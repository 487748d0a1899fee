"""Checkpoints: what is kept, and that damage to any file of one is never taken for a good state."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import assert_identical

from experiments.checkpoints import Checkpoints, HoldsNaN
from experiments.errors import UserError


def state(step: int) -> Any:
    weights = jax.random.normal(jax.random.key(step), (40, 50))
    return {"weights": weights, "key": jax.random.key(step), "none": (), "step": jnp.int32(step)}


LIKE = jax.eval_shape(state, 0)


def checkpoints(folder: Path, **options: Any) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", monitor="score", **options)


def save(folder: Path, scores: dict[int, float | None], **options: Any) -> None:
    store = checkpoints(folder, **options)
    for step, score in scores.items():
        store.save(step, state(step), {"best": score}, None if score is None else {"score": score})
    store.close()


def kept(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_the_newest_two_and_the_best_stay(tmp_path: Path) -> None:
    save(tmp_path, {1: 5.0, 2: 3.0, 3: 4.0, 4: 4.5, 5: 6.0})
    assert kept(tmp_path) == [2, 4, 5]
    assert checkpoints(tmp_path).best(LIKE).step == 2
    newest = checkpoints(tmp_path).resume(LIKE)
    assert newest is not None
    assert (newest.step, newest.counters) == (5, {"best": 6.0})
    assert_identical(newest.state, state(5))


def test_nothing_is_cleared_while_orbax_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be moving an old checkpoint into the folder that is cleared: the run would stop."""
    busy = []

    def clear(store: Checkpoints) -> None:
        busy.append(store._manager is not None and store._manager.is_saving_in_progress())

    monkeypatch.setattr(Checkpoints, "_clear", clear)
    save(tmp_path, {step: 5.0 - step for step in range(1, 5)})
    assert len(busy) == 5
    assert not any(busy)


def test_higher_can_be_better_and_a_score_can_be_missing(tmp_path: Path) -> None:
    save(tmp_path, {1: 5.0, 2: 3.0, 3: None, 4: None, 5: 1.0}, higher_is_better=True)
    assert kept(tmp_path) == [1, 4, 5]
    assert checkpoints(tmp_path, higher_is_better=True).best(LIKE).step == 1


def test_the_best_is_known_after_a_restart(tmp_path: Path) -> None:
    for step, score in enumerate([2.0, 1.0, 3.0, 4.0, 5.0]):
        save(tmp_path, {step: score})
    assert kept(tmp_path) == [1, 3, 4]


def test_nothing_saved_is_no_error_until_it_is_needed(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).resume(LIKE) is None
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints(tmp_path).best(LIKE)


def test_nan_is_not_saved(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    with pytest.raises(HoldsNaN, match="weights"):
        store.save(1, {"weights": jnp.array([1.0, jnp.nan])}, {}, None)
    store.save(1, {"weights": jnp.array([1.0, -jnp.inf])}, {}, None)
    store.close()
    assert kept(tmp_path) == [1]


def test_the_saved_values_are_those_of_the_moment(tmp_path: Path) -> None:
    """The state is donated while the checkpoint is still being written."""
    store = checkpoints(tmp_path)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    values = {"a": jnp.ones((500, 500))}
    store.save(1, values, {}, {"score": 1.0})
    for _ in range(20):
        values = overwrite(values)
    store.close()
    restored = checkpoints(tmp_path).resume(jax.eval_shape(lambda: values))
    assert restored is not None
    assert (restored.state["a"] == 1).all()


@pytest.mark.parametrize("how", ["truncate", "flip", "remove"])
def test_damage_to_any_file_is_noticed_or_harmless(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, {1: 2.0, 2: 1.0})
    newest = tmp_path / "checkpoints" / "2"
    noticed = 0
    for path in sorted(p for p in newest.rglob("*") if p.is_file()):
        intact = path.read_bytes()
        spoiled = bytearray(intact)
        if how == "truncate":
            path.write_bytes(intact[: len(intact) // 2])
        elif how == "flip":
            spoiled[len(intact) // 2] ^= 0xFF
            path.write_bytes(spoiled)
        else:
            path.unlink()
        restored = checkpoints(tmp_path).resume(LIKE)
        assert restored is not None
        output = capsys.readouterr().out
        assert_identical(restored.state, state(restored.step))
        if restored.step == 1:
            noticed += 1
            assert "Checkpoint 2 is damaged" in output
            assert "Falling back to the previous good checkpoint, step 1" in output
            save(tmp_path, {2: 3.0})  # the run makes that step again
            shutil.rmtree(newest)
            aside = max((tmp_path / "damaged_checkpoints").iterdir(), key=lambda p: int(p.name.split("-")[1]))
            aside.rename(newest)  # nothing was deleted
        path.write_bytes(intact)
    assert noticed >= 4


@pytest.mark.parametrize("file", ["counters/metadata", "metrics/metrics"])
def test_a_changed_digit_in_what_is_written_as_text_is_damage(tmp_path: Path, file: str) -> None:
    """It would stay good JSON, and make another checkpoint the best."""
    save(tmp_path, {1: 2.5, 2: 1.5})
    path = tmp_path / "checkpoints" / "2" / file
    path.write_text(path.read_text().replace("1.5", "3.5"))
    restored = checkpoints(tmp_path).resume(LIKE)
    assert restored is not None
    assert restored.step == 1


def test_missing_metrics_are_damage(tmp_path: Path) -> None:
    """Without them the best checkpoint would count as one that was never scored."""
    save(tmp_path, {1: 2.0, 2: 1.0})
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "metrics")
    restored = checkpoints(tmp_path).resume(LIKE)
    assert restored is not None
    assert restored.step == 1


def test_a_kill_while_an_old_one_is_deleted_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(path: Path, **options: Any) -> None:
        for file in path.rglob("metadata"):
            file.unlink()

    with monkeypatch.context() as patch:
        patch.setattr("experiments.checkpoints.shutil.rmtree", killed)
        save(tmp_path, {1: 3.0, 2: 2.0, 3: 1.0})
    assert checkpoints(tmp_path).resume(LIKE) is not None
    assert "damaged" not in capsys.readouterr().out
    save(tmp_path, {4: 0.5})
    assert kept(tmp_path) == [3, 4]


def test_if_all_are_damaged_nothing_is_touched(tmp_path: Path) -> None:
    save(tmp_path, {1: 2.0, 2: 1.0})
    for path in (tmp_path / "checkpoints").glob("*/counters/metadata"):
        path.write_text("{", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda: checkpoints(tmp_path).resume(LIKE), lambda: checkpoints(tmp_path).best(LIKE)):
        with pytest.raises(UserError, match="All checkpoints") as error:
            attempt()
        assert "step 1" in str(error.value)
        assert "step 2" in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_damage_to_an_older_one_does_not_stop_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0})
    (tmp_path / "checkpoints" / "1" / "metrics" / "metrics").write_text("{", encoding="utf-8")
    restored = checkpoints(tmp_path).resume(LIKE)
    assert restored is not None
    assert restored.step == 3
    output = capsys.readouterr().out
    assert "Checkpoint 1 is damaged" in output
    assert "Falling back" not in output
    save(tmp_path, {4: 5.0})
    assert kept(tmp_path) == [2, 3, 4]


def test_another_shape_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, {1: 1.0})
    other = {**LIKE, "weights": jax.ShapeDtypeStruct((3, 3), np.float32)}
    with pytest.raises(UserError, match="All checkpoints"):
        checkpoints(tmp_path).resume(other)
