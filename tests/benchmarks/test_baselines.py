import builtins
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

import agents
from benchmarks import suites
from benchmarks.baselines import OneHotExtractor, RandomAgent, maskable_ppo, stock_dqn, stock_ppo
from benchmarks.evaluation import evaluate, make_env

TINY = {
    "text_envs/Copy-v0": {"vocab_size": 3, "length": 2, "dense": True},
    "text_envs/GuessNumber-v0": {"numbers": 3, "turns": 2, "dense": True},
}
CANDIDATES = {"vocab_size": 3, "length": 2, "level": "candidate", "propose": ["aa", "ab", "ca"], "k": 3}


@pytest.mark.parametrize("env_id", TINY)
@pytest.mark.parametrize("agent", suites.AGENTS)
def test_every_agent_makes_a_row(agent, env_id):
    """A few hundred steps, masks or none: the row has all that the report reads."""
    experiment = suites.experiment(
        agent, "Tiny", env_id, 320, env_kwargs=TINY[env_id], num_envs=8, eval_episodes=32
    )
    if "DQN" not in agent and agent != "random":
        experiment = replace(experiment, agent_kwargs={**experiment.agent_kwargs, "n_steps": 16})
    row = suites.resolve(experiment.trial)(experiment, 0, lambda done: None)
    assert row["evaluation"]["sampled"]["normalized"] is not None and len(row["samples"]) == 9
    if agent == "random":
        assert row["steps"] == 0 and row["curve"] == []
    else:
        steps = [point[0] for point in row["curve"]]
        assert len(steps) >= 5 and steps == sorted(set(steps))
        assert row["steps"] >= max(320, steps[-1]) and row["steps_per_second"] > 0


@pytest.mark.parametrize("name", ["candidate_ppo", "candidate_dqn"])
def test_agents_that_choose_candidates_make_a_row(name):
    options = {"learning_starts": 96} if name == "candidate_dqn" else {"n_steps": 16, "batch_size": 64}
    experiment = suites.Experiment(
        "Tiny",
        name,
        "text_envs/Copy-v0",
        f"benchmarks.baselines:{name}",
        CANDIDATES,
        options,
        steps=160,
        num_envs=8,
        eval_episodes=32,
        trial="benchmarks.suite_granularity:train_evaluate_and_count",
    )
    row = suites.resolve(experiment.trial)(experiment, 0, lambda done: None)
    assert row["steps"] >= 160 and row["tokens"] == 2 * row["steps"]
    assert {sample["completion"] for sample in row["samples"]} <= {"aa", "ab", "ca"}
    assert all(len(sample["prompt"]) == 2 for sample in row["samples"])


def test_masked_ppo_says_only_what_is_legal():
    env = make_env("text_envs/GuessNumber-v0", 8, {"dense": True})
    step, legal = env.step, []

    def checked(actions):
        legal.append(env.action_masks()[np.arange(8), actions])
        return step(actions)

    env.step = checked
    agent = maskable_ppo(env, 0, n_steps=16).learn(256)
    evaluate(agent, env, 16, 0, deterministic=False)
    assert len(legal) > 32 and np.all(legal)


def test_stock_agents_keep_their_own_ratios():
    env = make_env("text_envs/Copy-v0", 16, {})
    ppo, dqn, masked = stock_ppo(env, 0, one_hot=True), stock_dqn(env, 0), maskable_ppo(env, 0)
    assert {agent.gamma for agent in (ppo, dqn, masked)} == {1.0}
    assert ppo.n_steps * ppo.n_envs == masked.n_steps * masked.n_envs == 2048
    transitions = dqn.train_freq.frequency * dqn.n_envs
    assert transitions / dqn.gradient_steps == 4
    assert isinstance(dqn.q_net.features_extractor, OneHotExtractor)


def test_without_sb3_contrib_the_remedy_is_told(monkeypatch):
    def absent(name, *arguments, **options):
        if name == "sb3_contrib":
            raise ImportError(name)
        return real(name, *arguments, **options)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[benchmarks\]'"):
        maskable_ppo(make_env("text_envs/Copy-v0", 2, {}), 0)


@pytest.mark.parametrize("task", ["Copy", "GuessNumber"])
def test_experts_are_optimal(task):
    env = make_env(f"text_envs/{task}-v0", 16, {})
    episodes = agents.demonstrations.demonstrate(agents.VectorEnvAdapter(env), 256, seed=0)
    lengths = [len(episode.actions) for episode in episodes]
    assert len(episodes) == 256 and max(lengths) <= env.single_observation_space.shape[0]
    if task == "Copy":
        assert all((episode.ids[:8] == [*episode.ids[8:], episode.actions[-1]]).all() for episode in episodes)
    else:  # binary search over ten numbers needs at most four guesses
        assert max(lengths) <= 4 and np.mean(lengths) < 3.1


def test_random_agent_obeys_masks():
    masks = np.array([[True, False, True], [False, True, False]])
    actions = np.array(
        [RandomAgent(np.random.default_rng(i)).predict(np.zeros((2, 4)), masks)[0] for i in range(200)]
    )
    assert set(actions[:, 0]) == {0, 2} and set(actions[:, 1]) == {1}


def test_one_hot_says_every_symbol_and_position():
    import torch

    space = spaces.Box(0, 4, (3,), np.int64)
    extractor = OneHotExtractor(space)
    features = extractor(torch.tensor([[0.0, 2.0, 4.0]]))
    assert features.shape == (1, extractor.features_dim) == (1, 15)
    assert features.reshape(3, 5).argmax(dim=1).tolist() == [0, 2, 4] and features.sum() == 3
