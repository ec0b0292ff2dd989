"""Checkpoints that are kept, measures against hand-made ones, and stops where they should be."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.logger import Logger, make_output_format

import agents
from agents import (
    DQN,
    GRPO,
    PPO,
    BehaviourCloning,
    Checkpoint,
    SampleTexts,
    StopAtKL,
    StopAtScore,
    TextMetrics,
    resume,
    runs,
)
from agents.models import tiny_config
from agents.vec_env import VectorEnvAdapter

SMALL: dict[str, Any] = {"seed": 0, "device": "cpu"}


class Recorder(BaseCallback):
    """Keeps the episodes that ended, the last action of each, and what was logged."""

    def _on_training_start(self) -> None:
        self.infos: list[dict[str, Any]] = []
        self.last_actions: list[int] = []
        self.sampled: list[np.ndarray] = []
        self.logged: dict[str, list[float]] = {}
        dump = self.logger.dump

        def keep(step: int = 0) -> None:
            for name, value in self.logger.name_to_value.items():
                self.logged.setdefault(name, []).append(value)
            dump(step)

        self.logger.dump = keep

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals["dones"]):
            self.infos.append(self.locals["infos"][row])
            self.last_actions.append(int(self.locals["actions"][row]))
        if "log_probs" in self.locals:
            self.sampled.append(self.locals["log_probs"].numpy())
        return True


class TellingEnv(VectorEnvAdapter):
    """Adds the infos of a text task, and knows its end token."""

    end_token_id = 0

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [0] if attr_name == "end_token_id" else super().get_attr(attr_name, indices)

    def step_wait(self) -> Any:
        observations, rewards, ended, infos = super().step_wait()
        for row in np.flatnonzero(ended):
            length = infos[row]["episode"]["l"]
            infos[row]["reward_terms"] = {"long": length / 10, "rare": length if length > 3 else np.nan}
            infos[row]["reward_clean"] = 2.0 * length
        return observations, rewards, ended, infos


def test_measures_are_those_of_a_loop(vector_env: Callable) -> None:
    model = PPO("TransformerPolicy", TellingEnv(vector_env(4)), n_steps=64, **SMALL)
    recorder = Recorder()
    model.learn(256, callback=[recorder, TextMetrics()])
    lengths = np.array([info["episode"]["l"] for info in recorder.infos])
    expected = {
        "text/length": lengths.mean(),
        "text/reward_clean": 2 * lengths.mean(),
        "text/ended": np.mean(np.array(recorder.last_actions) == 0),
        "text/entropy": -np.mean(recorder.sampled),
        "reward/long": lengths.mean() / 10,
        "reward/rare": lengths[lengths > 3].mean(),
    }
    for name, value in expected.items():
        assert recorder.logged[name] == [pytest.approx(value, rel=1e-5)], name
    assert 1 < expected["text/entropy"] < np.log(7) + 0.01


def test_the_clean_rewards_of_turns_are_summed(paid_env: Callable) -> None:
    model, recorder = PPO("TransformerPolicy", paid_env(4), n_steps=64, **SMALL), Recorder()
    model.learn(256, callback=[recorder, TextMetrics()])
    returns = [info["episode"]["r"] for info in recorder.infos]
    assert recorder.logged["text/reward_clean"] == [pytest.approx(np.mean(returns), rel=1e-5)]


def any_algorithm(name: str, env: Any) -> Any:
    """Return an algorithm with rollouts of 16 steps."""
    keywords: dict[str, Any] = {
        "PPO": {"n_steps": 16},
        "DQN": {"learning_starts": 16, "batch_size": 32},
        "GRPO": {"n_steps": 16, "group_size": 2},
        "BestOfN": {"n_steps": 16, "n": 2},
        "BehaviourCloning": {"n_steps": 16},
        "pairs": {"n_steps": 16, "demonstrations": [([1], [2, 3, 0]), ([2], [3, 4, 0])]},
    }[name]
    algorithm = BehaviourCloning if name == "pairs" else getattr(agents, name)
    return algorithm("TransformerQPolicy" if name == "DQN" else "TransformerPolicy", env, **keywords, **SMALL)


class Letters:
    """A tokenizer."""

    def decode(self, ids: list[int]) -> str:
        return "".join(".abcdef"[i] for i in ids)


class SpellingEnv(TellingEnv):
    """Has a tokenizer, too."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [Letters()] if attr_name == "tokenizer" else super().get_attr(attr_name, indices)


@pytest.mark.parametrize("name", ["PPO", "DQN", "GRPO", "BestOfN", "BehaviourCloning", "pairs"])
def test_every_algorithm_is_measured(name: str, vector_env: Callable, tmp_path: Path) -> None:
    model, recorder = any_algorithm(name, SpellingEnv(vector_env(4))), Recorder()
    samples = SampleTexts(tmp_path / "samples.jsonl", every=64)
    model.learn(256, callback=[recorder, TextMetrics(), samples, Checkpoint(tmp_path / "run")], log_interval=1)
    expected = {"time/rollout_tokens_per_second", "time/train_tokens_per_second"}
    if name != "pairs":  # no episode of the environment ends
        lengths = np.array([info["episode"]["l"] for info in recorder.infos])
        expected |= {"text/length", "text/ended", "text/reward_clean", "reward/long"}
        assert min(lengths) <= np.mean(recorder.logged["text/length"]) <= max(lengths)
        assert (tmp_path / "samples.jsonl").read_text().count("completion") >= 4
    assert expected <= set(recorder.logged)
    assert ("text/entropy" in recorder.logged) is (name in {"PPO", "GRPO", "BestOfN"})


@pytest.mark.parametrize("name", ["PPO", "DQN", "GRPO", "BestOfN", "BehaviourCloning"])
def test_tokens_are_those_that_updates_were_made_of(name: str, vector_env: Callable) -> None:
    """The best of n trains on one of n, GRPO on the groups that are complete, DQN on whole episodes."""
    model, seen = any_algorithm(name, vector_env(4)), []
    loss, metrics, counted = model.loss, TextMetrics(), []
    model.loss = lambda batch, *rest: (seen.append(len(batch.actions)), loss(batch, *rest))[1]
    metrics._trained_on = lambda updates: counted.append(TextMetrics._trained_on(metrics, updates)) or counted[-1]
    model.learn(256, callback=metrics)
    model.learn(64, callback=metrics, reset_num_timesteps=False)
    assert 0 < sum(counted) <= sum(seen) == model.trained_tokens


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_speeds_count_tokens(name: str, vector_env: Callable) -> None:
    if name == "PPO":
        model = PPO("TransformerPolicy", vector_env(4), n_steps=16, n_epochs=3, **SMALL)
    else:
        model = DQN("TransformerQPolicy", vector_env(4), learning_starts=16, batch_size=32, **SMALL)
    recorder = Recorder()
    started = time.perf_counter()
    model.learn(256, callback=[recorder, TextMetrics()], log_interval=1)
    seconds = time.perf_counter() - started
    rollout, train = (recorder.logged[f"time/{part}_tokens_per_second"] for part in ("rollout", "train"))
    assert min(rollout) > 0.2 * 256 / seconds  # parts are faster than the whole; the first one warms up
    assert max(train) > model.trained_tokens / seconds
    if name == "PPO":
        assert model.trained_tokens == 3 * 256


def test_stock_algorithms_are_measured_too(vector_env: Callable) -> None:
    env = TellingEnv(vector_env(4))
    model = stable_baselines3.PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, **SMALL)
    recorder = Recorder()
    model.learn(256, callback=[recorder, TextMetrics()])
    assert {"text/length", "text/entropy", "time/train_tokens_per_second"} <= set(recorder.logged)


def test_the_latest_checkpoints_stay(vector_env: Callable, tmp_path: Path) -> None:
    model = PPO("TransformerPolicy", vector_env(4), n_steps=4, **SMALL)
    model.learn(160, callback=Checkpoint(tmp_path, every=32, keep=2))
    assert [runs.steps_of(path) for path in runs.checkpoints(tmp_path)] == [128, 160]
    model.learn(40, callback=Checkpoint(tmp_path, every=64, keep=2), reset_num_timesteps=False)
    assert [runs.steps_of(path) for path in runs.checkpoints(tmp_path)] == [192, 208]


def test_a_folder_of_another_run_is_left_alone(vector_env: Callable, tmp_path: Path) -> None:
    PPO("TransformerPolicy", vector_env(4), n_steps=4, **SMALL).learn(32, callback=Checkpoint(tmp_path))
    held = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"holds checkpoint_0+32.zip, but this run is at step 0; resume\("):
        PPO("TransformerPolicy", vector_env(4), n_steps=4, **SMALL).learn(32, callback=Checkpoint(tmp_path))
    assert sorted(tmp_path.iterdir()) == held


class StopAt(BaseCallback):
    """Stops in the middle of a rollout."""

    def _on_step(self) -> bool:
        return self.num_timesteps < 40


class Shown(BaseCallback):
    """Sees that the agent reads what the environment shows."""

    def _on_rollout_start(self) -> None:
        shown = np.stack([env.unwrapped._observe() for env in self.training_env.env.envs])
        np.testing.assert_array_equal(self.model._last_obs, shown)

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_a_stop_within_a_rollout_is_saved_and_begins_new_episodes(
    name: str, vector_env: Callable, tmp_path: Path
) -> None:
    if name == "PPO":
        model = PPO("TransformerPolicy", vector_env(4), n_steps=6, **SMALL)
    elif name == "GRPO":
        model = GRPO("TransformerPolicy", vector_env(4), n_steps=6, group_size=2, **SMALL)
    else:
        model = DQN("TransformerQPolicy", vector_env(4), learning_starts=8, **SMALL)
    model.learn(400, callback=[StopAt(), Checkpoint(tmp_path)])
    again = resume(tmp_path, device="cpu")
    assert again.num_timesteps == 40 and again._last_obs is None
    for stopped in (again, model):
        stopped.learn(100, callback=Shown(), reset_num_timesteps=False)  # GRPO refuses groups of different prompts
        assert stopped.num_timesteps >= 140


def test_training_stops_at_a_score(vector_env: Callable, capsys: pytest.CaptureFixture) -> None:
    model = PPO("TransformerPolicy", vector_env(16), n_steps=32, stats_window_size=50, **SMALL)
    model.learn(40_000, callback=StopAtScore(4.0, episodes=50))
    assert model.num_timesteps < 20_000
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) >= 3.5  # of that moment, and a step
    assert "the last 50 episodes returned" in capsys.readouterr().out
    with pytest.raises(ValueError, match="keeps the returns of 50; give it stats_window_size=60"):
        model.learn(64, callback=StopAtScore(4.0, episodes=60))


def test_sb3_stops_at_the_score_of_an_evaluation(vector_env: Callable) -> None:
    model = PPO("TransformerPolicy", vector_env(16), n_steps=32, **SMALL)
    evaluation = EvalCallback(
        VectorEnvAdapter(vector_env(4)),
        callback_on_new_best=StopTrainingOnRewardThreshold(4.0, verbose=0),
        eval_freq=50,
        n_eval_episodes=20,
        verbose=0,
    )
    model.learn(40_000, callback=evaluation)
    assert model.num_timesteps < 20_000 and evaluation.best_mean_reward >= 4.0


@pytest.mark.parametrize("algorithm", [PPO, GRPO])
def test_training_stops_at_a_kl(algorithm: Any, vector_env: Callable, capsys: pytest.CaptureFixture) -> None:
    keywords = {"group_size": 8} if algorithm is GRPO else {}
    model = algorithm("TransformerPolicy", vector_env(16), n_steps=32, reference="initial", **keywords, **SMALL)
    stop = StopAtKL(0.5)
    model.learn(20_000, callback=stop)
    assert 512 < model.num_timesteps < 20_000 and stop._measured() > 0.5
    assert "nats an episode from the reference, more than 0.5" in capsys.readouterr().out
    without = algorithm("TransformerPolicy", vector_env(16), **keywords, **SMALL)
    with pytest.raises(ValueError, match="has no reference to be far from"):
        without.learn(64, callback=stop)
    explorer = DQN(
        "TransformerQPolicy",
        vector_env(4),
        exploration="reference",
        reference=tiny_config(7, 14),
        **SMALL,
    )
    with pytest.raises(ValueError, match="DQN measures no KL"):
        explorer.learn(64, callback=stop)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Checkpoint("x", every=0), "every=0; give at least 1"),
        (lambda: Checkpoint("x", keep=0), "keep=0; give at least 1"),
        (lambda: StopAtScore(float("nan")), "score=nan; give a finite"),
        (lambda: StopAtScore(1.0, episodes=0), "episodes=0; give at least 1"),
        (lambda: StopAtKL(0.0), "nats=0.0; give a positive"),
        (lambda: StopAtKL(float("nan")), "nats=nan; give a positive"),
    ],
)
def test_impossible_arguments_are_refused(wrong: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_everything_lands_in_csv(vector_env: Callable, tmp_path: Path) -> None:
    model = PPO("TransformerPolicy", vector_env(4), n_steps=16, **SMALL)
    model.set_logger(Logger(str(tmp_path), [make_output_format(kind, str(tmp_path)) for kind in ("csv", "json")]))
    model.learn(192, callback=TextMetrics())
    rows = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert len(rows) == 3 and "time/train_tokens_per_second" in rows[-1]
    assert "text/entropy" in (tmp_path / "progress.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_weights_and_biases_takes_what_tensorboard_does(vector_env: Callable, tmp_path: Path) -> None:
    """As the README says; offline, in a process of its own, for it patches what TensorBoard's writer does."""
    pytest.importorskip("wandb")
    script = f"""
import importlib.util, sys, wandb
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from agents import PPO, TextMetrics
spec = importlib.util.spec_from_file_location("toy", {str(Path(__file__).with_name("conftest.py"))!r})
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
run = wandb.init(project="test", dir={str(tmp_path)!r}, mode="offline", sync_tensorboard=True)
env = SyncVectorEnv([toy.SuccessorEnv] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
model = PPO("TransformerPolicy", env, n_steps=16, seed=0, device="cpu", tensorboard_log={str(tmp_path / "tb")!r})
model.learn(256, callback=TextMetrics(), log_interval=1)
run.finish()
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True)
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for name in (b"rollout/ep_rew_mean", b"text/entropy", b"time/rollout_tokens_per_second", b"train/approx_kl"):
        assert name in written.read_bytes()
