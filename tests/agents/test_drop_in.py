"""Scripts written for Stable-Baselines3 run when only their import is switched; its other algorithms run too."""

from pathlib import Path

import gymnasium as gym
import pytest
import sb3_contrib
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import agents
import text_envs

gym.register_envs(text_envs)

SMALL = {"vocab_size": 4, "length": 3, "dense": True}

SCRIPT = """\
import gymnasium as gym
from stable_baselines3.common.callbacks import (
    CallbackList, CheckpointCallback, EvalCallback, StopTrainingOnRewardThreshold
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from {module} import {algorithm}
from agents import {policy}

env = VecNormalize(make_vec_env("text_envs/Copy-v0", n_envs=4, seed=1, env_kwargs=small), norm_obs=False)
evaluation = VecNormalize(
    make_vec_env("text_envs/Copy-v0", n_envs=2, env_kwargs=small), norm_obs=False, norm_reward=False, training=False
)
stop = StopTrainingOnRewardThreshold(reward_threshold=2.0)
callback = CallbackList([
    CheckpointCallback(save_freq=32, save_path=folder, name_prefix="checkpoint"),
    EvalCallback(evaluation, callback_on_new_best=stop, eval_freq=32, n_eval_episodes=4, log_path=folder,
                 best_model_save_path=folder, verbose=0),
])
model = {algorithm}(
    {policy}, env, learning_rate=LinearSchedule(1e-3, 1e-4, 1.0), gamma=0.99, seed=3, device="cpu", verbose=0,
    policy_kwargs=dict(optimizer_kwargs=dict(eps=1e-5)), {options}
)
model.set_logger(configure(folder, ["csv"]))
model.learn(total_timesteps=384, callback=callback, log_interval=1, progress_bar=False)
model.learn(total_timesteps=128, reset_num_timesteps=False)
mean, _ = evaluate_policy(model, evaluation, n_eval_episodes=8, deterministic=False)
model.save(folder + "/final")
model = {algorithm}.load(folder + "/final", env=env, print_system_info=False)
model.set_parameters(model.get_parameters())
action, state = model.predict(evaluation.reset(), deterministic=True)
single = gym.make("text_envs/Copy-v0", **small)
one, _ = model.predict(single.reset(seed=0)[0])
"""
OPTIONS = {
    "PPO": ("TransformerPolicy", "n_steps=32, batch_size=32, n_epochs=2, ent_coef=0.01, target_kl=0.5"),
    "DQN": ("TransformerQPolicy", "learning_starts=64, buffer_size=1000, train_freq=4, exploration_fraction=0.5"),
}


@pytest.mark.parametrize("module", ["stable_baselines3", "agents"])
@pytest.mark.parametrize("algorithm", OPTIONS)
def test_a_script_runs_with_either_import(module: str, algorithm: str, tmp_path: Path) -> None:
    policy, options = OPTIONS[algorithm]
    names = {"small": SMALL, "folder": str(tmp_path)}
    exec(SCRIPT.format(module=module, algorithm=algorithm, policy=policy, options=options), names)
    assert names["model"].num_timesteps == 512
    assert names["action"].shape == (2,) and 0 <= int(names["one"]) < 4
    assert -1e-9 <= names["mean"] <= 1
    made = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoint_384_steps.zip", "best_model.zip", "evaluations.npz", "progress.csv", "final.zip"} <= made
    assert "train/loss" in (tmp_path / "progress.csv").read_text()


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (sb3_contrib.MaskablePPO, {"n_steps": 32, "batch_size": 64}),
        (sb3_contrib.TRPO, {"n_steps": 32, "batch_size": 64}),
        (sb3_contrib.QRDQN, {"learning_starts": 64, "policy_kwargs": {"n_quantiles": 8}}),
    ],
)
@pytest.mark.parametrize("env_id", ["text_envs/Copy-v0", "text_envs/Wordle-v0"])
def test_contributed_algorithms_run_with_their_mlp_policy(algorithm: type, options: dict, env_id: str) -> None:
    env = make_vec_env(env_id, n_envs=4, env_kwargs=SMALL if "Copy" in env_id else {})
    model = algorithm("MlpPolicy", env, seed=0, device="cpu", **options).learn(256)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=4)
    assert 0 <= mean <= 1


def test_a_policy_of_another_kind_is_told_where_it_runs() -> None:
    with pytest.raises(ValueError, match="policy='MlpPolicy'; PPO takes 'TransformerPolicy'"):
        agents.PPO("MlpPolicy", "text_envs/Copy-v0")
