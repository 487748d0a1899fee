"""The control experiment at small size: the tasks, the agent, PPO, and the real config, shrunk."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import ROOT, assert_identical

from experiments.checkpoints import Checkpoints
from experiments.control import Control, Data, Train, compare, environments, evaluate, model, plots, rollouts, train
from experiments.errors import UserError
from experiments.logs import read_metrics
from experiments.runs import saved_settings
from experiments.settings import replace

TINY = replace(
    Control(),
    **{"task": "memory_chain", "memory_length": 3, "width": 8},
    **{"envs": 16, "time": 8, "updates": 60, "learning_rate": 2e-2, "reward_scale": 1.0},
)
TINY_SETTINGS = {"task": "memory_chain", "memory-length": 3, "width": 4, "envs": 4, "time": 10, "epochs": 2}
TINY_SETTINGS |= {"updates": 4, "eval-every": 2, "log-every": 2, "eval-episodes": 4, "test-episodes": 16}


@functools.cache
def chain() -> environments.Environment:
    return environments.make_environment(TINY.data)


def arguments(run_dir: Path, *overrides: str) -> list[str]:
    settings = [text for name, value in TINY_SETTINGS.items() for text in (f"--{name}", str(value))]
    return [str(ROOT / "configs/control/quick.py"), *settings, "--run-dir", str(run_dir), *overrides]


@functools.cache
def compiled_step() -> Any:
    return jax.jit(train.make_train_step(TINY, "gru", chain()))


def initial(seed: jax.Array | int) -> train.TrainState:
    return train.initial_state(TINY, "gru", chain(), seed)


def test_a_run_leaves_a_complete_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "run"
    train.main(arguments(run_dir, "--cells", "memoryless"))
    output = capsys.readouterr().out
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    assert set(results["scores"]) == {"memoryless_mean_return"}
    assert results["environment_steps"] == 4 * 4 * 10
    row = results["cells"]["memoryless"]
    assert -1 <= row["least_return"] <= row["mean_return"] <= 1
    assert f"{'memoryless':<12}{row['mean_return']:>12.2f}" in output
    validations = [line for line in read_metrics(run_dir / "memoryless") if evaluate.MONITOR in line]
    assert [line["step"] for line in validations] == [2, 4]
    assert row["last_validation"] == validations[1][evaluate.MONITOR]
    for name in ("learning_curve.png", "episode.png"):
        assert (run_dir / name).read_bytes().startswith(b"\x89PNG")
    train.main(arguments(run_dir, "--cells", "memoryless"))
    assert "is finished" in capsys.readouterr().out
    compare.curves([str(run_dir), str(run_dir), "--path", str(tmp_path / "more" / "curves.png")])
    assert (tmp_path / "more" / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="memory_chain, but only those of cartpole"):
        compare.animate([str(run_dir)])


def test_a_bit_is_learned_to_be_kept_and_a_saved_state_goes_on_the_same(tmp_path: Path) -> None:
    state, step = initial(0), compiled_step()
    for _ in range(TINY.train.updates - 1):
        state, _ = step(state, None)
    checkpoints = Checkpoints(tmp_path, monitor=evaluate.MONITOR, higher_is_better=True)
    checkpoints.save(1, state, {}, None)
    checkpoints.close()
    restored = checkpoints.resume(jax.eval_shape(lambda: initial(0)))
    assert restored is not None
    after, metrics = step(state, None)
    assert_identical(step(restored.state, None)[0], after)
    assert metrics["train_return"] > 0.8


def test_the_cart_is_seen_without_its_velocities_and_the_time_limit_is_no_fall() -> None:
    environment = environments.make_environment(Data(task="cartpole"))
    state, observation = environment.reset(jax.random.key(0))
    np.testing.assert_allclose(observation, [state.x / 2.4, state.theta / np.deg2rad(12)], rtol=1e-5)
    moving = state._replace(x=jnp.float32(1.2), x_dot=jnp.float32(5), theta=jnp.float32(0), theta_dot=jnp.float32(0))
    after, outcome = environment.step(jax.random.key(1), moving, jnp.array(1))
    np.testing.assert_allclose(outcome.observation, [1.3 / 2.4, 0], atol=1e-6)  # 0.02 s at 5 m/s
    assert after.x_dot > 5  # pushed to the right
    assert not outcome.terminated
    assert not outcome.truncated
    for late, angle, terminated, truncated in (
        (499, 0.0, False, True),
        (10, 0.3, True, False),
        (499, 0.3, True, False),
    ):
        state = moving._replace(time=jnp.int32(late), theta=jnp.float32(angle))
        after, outcome = environment.step(jax.random.key(1), state, jnp.array(1))
        assert (bool(outcome.terminated), bool(outcome.truncated)) == (terminated, truncated)
        assert after.time == 0  # the next episode has begun
        assert abs(outcome.observation[0]) <= 0.05 / 2.4
        np.testing.assert_allclose(outcome.final_observation[0], 1.3 / 2.4, rtol=1e-5)


@pytest.mark.parametrize("answer", [0, 1])
def test_the_chain_shows_its_bit_and_asks_for_it_at_the_end(answer: int) -> None:
    for seed in range(4):
        state, observation = chain().reset(jax.random.key(seed))
        bit = float(observation[2])
        assert bit in (-1, 1)
        shown, rewards, ends = [], [], []
        for step in range(4):
            shown.append(float(observation[2]))
            state, outcome = chain().step(jax.random.key(step), state, jnp.array(answer))
            observation = outcome.observation
            rewards.append(float(outcome.reward))
            ends.append(bool(outcome.terminated))
        assert shown == [bit, bit, 0, 0]
        assert rewards == [0, 0, 0, 1 if answer == (bit + 1) / 2 else -1]
        assert ends == [False, False, False, True]
        assert chain().horizon == 4


def test_advantages_are_discounted_sums_of_surprises_within_the_episode() -> None:
    config, draw = Train(discount=0.9, trace=0.7, reward_scale=0.5), np.random.default_rng(0)
    time = 7
    value, reward, after = draw.normal(size=time + 1), draw.normal(size=time), draw.normal(size=time)
    terminated, truncated = np.zeros(time, bool), np.zeros(time, bool)
    terminated[2] = truncated[4] = True
    expected = []
    for start in range(time):
        total, factor = 0.0, 1.0
        for t in range(start, time):
            following = 0.0 if terminated[t] else after[t] if truncated[t] else value[t + 1]
            total += factor * (0.5 * reward[t] + 0.9 * following - value[t])
            factor *= 0.9 * 0.7
            if terminated[t] or truncated[t]:
                break
        expected.append(total)
    nothing = jnp.zeros((time, 1))
    steps = rollouts.Transition(
        nothing, nothing, nothing, nothing, value[:time, None], reward[:, None], terminated[:, None],
        truncated[:, None], np.where(truncated, after, 0)[:, None],
    )  # fmt: skip
    found = train.advantages(config, jax.tree.map(jnp.asarray, steps), jnp.asarray(value[time:]))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "min_gru"])
def test_what_is_learned_from_is_what_was_played(cell: Any) -> None:
    """Read again in one go, the rollout gives the same decisions, over the borders of its episodes."""
    environment = chain()
    net = model.make_net(TINY.model, cell, environment.actions)
    state = train.initial_state(TINY, cell, environment, 0)
    keys = jax.random.split(jax.random.key(1), 8)
    players, steps = jax.jit(lambda s: rollouts.collect(environment, net, s.params, s.players, keys))(state)
    rows = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), steps)
    assert rows.start.sum() == 16 * 2  # episodes of four steps
    weight = jnp.zeros((16, 8))
    total, metrics = train.loss(
        TINY.train, net, state.params, train.Batch(state.players.carry, rows, weight, rows.value)
    )
    assert abs(metrics["divergence"]) < 1e-6
    assert metrics["value_loss"] < 1e-10  # the target is the value of the rollout itself
    assert total < 1e-6
    np.testing.assert_allclose(players.last_return, rows.reward[:, 4:8].sum(1))
    without_resets = rows._replace(start=jnp.zeros_like(rows.start))
    _, metrics = train.loss(
        TINY.train, net, state.params, train.Batch(state.players.carry, without_resets, weight, rows.value)
    )
    assert metrics["value_loss"] > 1e-6


def test_an_episode_that_ran_out_of_time_is_worth_what_was_still_expected() -> None:
    config = replace(Control(), task="cartpole", width=4, envs=3, time=2)
    environment = environments.make_environment(config.data)
    net = model.make_net(config.model, "gru", environment.actions)
    state = train.initial_state(config, "gru", environment, 0)
    late = state.players.state._replace(time=jnp.array([499, 0, 0], jnp.int32))
    players, steps = rollouts.collect(
        environment, net, state.params, state.players._replace(state=late), jax.random.split(jax.random.key(0), 1)
    )
    assert steps.truncated[0].tolist() == [True, False, False]
    assert (steps.bootstrap[0] != 0).tolist() == [True, False, False]
    assert players.start.tolist() == [True, False, False]
    assert players.last_return.tolist() == [1, 0, 0]


def test_seeds_can_be_vmapped() -> None:
    states = [initial(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together, metrics = jax.jit(jax.vmap(compiled_step(), (0, None)))(stacked, None)
    for seed, state in enumerate(states):
        alone, shown = compiled_step()(state, None)
        for a, b in zip(jax.tree.leaves(alone._replace(key=())), jax.tree.leaves(together._replace(key=()))):
            np.testing.assert_allclose(np.asarray(a, float), np.asarray(b[seed], float), atol=1e-4)
        np.testing.assert_allclose(metrics["loss"][seed], shown["loss"], atol=1e-5)
    assert not np.allclose(metrics["loss"][0], metrics["loss"][1])


def test_returns_are_those_of_episodes_played_step_by_step() -> None:
    """By hand, with the chain's bit and its reward as told in its documentation."""
    net, params = model.make_net(TINY.model, "gru", 2), initial(0).params
    played = jax.device_get(rollouts.play(chain(), net, params, jax.random.key(3), 3, rollouts.greedy))
    for row in range(3):
        carry = net.initial_carry(params, played.observation[:1, :1], None)
        for step in range(4):
            carry, decision = model.one_step(
                net, params, carry, played.observation[row, step][None], jnp.array([False])
            )
            assert played.action[row, step] == decision.logits[0].argmax()
        right = played.action[row, 3] == (played.observation[row, 0, 2] + 1) / 2
        assert played.returns[row] == (1 if right else -1)
    assert played.alive.all()


def test_a_linear_probe_finds_a_linear_function_of_the_units_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    hidden, alive = draw.normal(size=(8, 30, 3)), np.arange(30) < draw.integers(10, 30, (8, 1))
    known, unknown = 1 + hidden @ [1.0, -2.0, 0.5], draw.normal(size=(8, 30))

    class Cart:
        x_dot, theta_dot = known, unknown

    decision = model.Decision(None, None, np.where(alive[..., None], hidden, 1e3))
    episodes = rollouts.Episodes(Cart, None, None, decision, np.zeros((8, 30)), alive)
    probed, of_known, of_unknown = evaluate.probe_velocities(episodes)
    assert of_known == pytest.approx(1)
    assert of_unknown < 0.2
    np.testing.assert_allclose(probed[alive][:, 0], known[alive], rtol=1e-6)


def test_plots_of_carts(tmp_path: Path) -> None:
    config = replace(Control(), task="cartpole", width=3, envs=2)
    environment = environments.make_environment(config.data)._replace(horizon=12)
    net = model.make_net(config.model, "memoryless", 2)
    params = train.initial_state(config, "memoryless", environment, 0).params
    played = {"gru": jax.device_get(rollouts.play(environment, net, params, jax.random.key(0), 2, rollouts.greedy))}
    probed = evaluate.probe_velocities(played["gru"]).velocities
    plots.cartpole_episode(tmp_path / "episode.png", played, {"gru": probed}, reward_scale=0.5, title="")
    plots.animate(tmp_path / "carts.gif", played, every=6)
    assert (tmp_path / "episode.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "carts.gif").read_bytes().startswith(b"GIF")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--updates", "0"], "--updates is 0, but must be 1 or more"),
        (["--learning-rate", "0"], "--learning-rate is 0.0, but must be above 0"),
        (["--discount", "1.5"], "--discount is 1.5, but must be between 0 and 1"),
        (["--entropy-weight", "-1"], "--entropy-weight is -1.0, but must be 0 or more"),
        (["--minibatches", "3"], "--envs is 4, but must be a multiple of --minibatches, 3"),
        (["--cells", "gru", "gru"], "--cells is gru gru, but must have one name or more, each once"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as error:
        train.main(arguments(tmp_path / "run", *overrides))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_more_plots_are_of_finished_runs_that_differ_in_the_seed_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no results\.json"):
        compare.animate([str(tmp_path)])
    for name, width in (("a", 4), ("b", 5)):
        (tmp_path / name).mkdir()
        saved = {**saved_settings(TINY), "width": width, "seed": width}
        (tmp_path / name / "config.json").write_text(json.dumps(saved), encoding="utf-8")
        (tmp_path / name / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"(?s)differ in more than the seed:\n  width: saved 4, given 5$"):
        compare.curves([str(tmp_path / "a"), str(tmp_path / "b")])
