import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from benchmarks import suites, trial
from benchmarks.baselines import OneHotExtractor, RandomAgent
from benchmarks.evaluation import evaluate, make_env, normalize

TIMES = {"train_seconds", "steps_per_second"}


class Oracle:
    """Copies the prompt, but is wrong on the first token of every row whose prompt starts with an odd symbol."""

    def __init__(self, length):
        self.length = length

    def predict(self, observation, deterministic=False):
        said = (observation != observation.max()).sum(axis=1) - self.length
        actions = observation[np.arange(len(observation)), said]
        spoil = (said == 0) & (observation[:, 0] % 2 == 1)
        return np.where(spoil, 0, actions), None


def copy_env(rows, **keywords):
    return make_env("text_envs/Copy-v0", rows, {"vocab_size": 4, "length": 3, **keywords})


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_returns_and_texts_belong_together(rows, dense):
    result = evaluate(Oracle(3), copy_env(rows, dense=dense), 40, seed=3, deterministic=True)
    assert len(result.returns) == len(result.episodes) == 40
    for value, episode in zip(result.returns, result.episodes, strict=True):
        same = sum(a == b for a, b in zip(episode.prompt, episode.completion, strict=True))
        assert value == episode.reward == pytest.approx(same / 3)
    assert 2 / 3 < result.mean < 1
    assert result.standard_error == pytest.approx(np.std(result.returns, ddof=1) / np.sqrt(40))


def test_episodes_are_rounded_up_to_whole_rows():
    assert len(evaluate(Oracle(3), copy_env(16), 20, seed=0, deterministic=True).returns) == 32


def test_random_agent_earns_what_the_task_says():
    env = copy_env(256)
    result = evaluate(RandomAgent(np.random.default_rng(0)), env, 2048, seed=0, deterministic=False)
    assert abs(result.mean - env.random_return()) < 4 * result.standard_error
    assert normalize(env, env.random_return()) == 0 and normalize(env, env.optimal_return()) == 1


def test_random_agent_obeys_masks():
    masks = np.array([[True, False, True], [False, True, False]])
    actions = np.array(
        [RandomAgent(np.random.default_rng(i)).predict(np.zeros((2, 4)), masks)[0] for i in range(200)]
    )
    assert set(actions[:, 0]) == {0, 2} and set(actions[:, 1]) == {1}


def test_a_task_without_an_optimum_has_no_normalized_score():
    rewards = {"reward": lambda prompts, completions, **columns: [0.5] * len(prompts)}
    env = make_env("text_envs/Sentiment-v0", 4, {"max_new_tokens": 3, **rewards})
    result = evaluate(RandomAgent(np.random.default_rng(0)), env, 8, seed=0, deterministic=False)
    assert result.mean == 0.5 and normalize(env, result.mean) is None
    assert all(episode.prompt for episode in result.episodes)


def test_samples_go_from_worst_to_best():
    result = evaluate(Oracle(3), copy_env(32), 64, seed=1, deterministic=True)
    rewards = [episode.reward for episode in result.worst_to_best(5)]
    assert rewards == sorted(rewards) and rewards[0] == min(result.returns) and rewards[-1] == max(result.returns)
    assert len(result.worst_to_best(1000)) == 64


def test_one_hot_says_every_symbol_and_position():
    import torch

    space = spaces.Box(0, 4, (3,), np.int64)
    extractor = OneHotExtractor(space)
    features = extractor(torch.tensor([[0.0, 2.0, 4.0]]))
    assert features.shape == (1, extractor.features_dim) == (1, 15)
    assert features.reshape(3, 5).argmax(dim=1).tolist() == [0, 2, 4] and features.sum() == 3


def small(agent, **changes):
    (experiment,) = [e for e in suites.get("quick").experiments if (e.task, e.agent) == ("Copy", agent)]
    steps = 0 if agent == "random" else 2_100
    return dataclasses.replace(
        experiment,
        env_kwargs={"vocab_size": 3, "length": 2, "dense": True},
        steps=steps,
        eval_episodes=64,
        **changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("agent", [e.agent for e in suites.get("quick").experiments if e.task == "Copy"])
def test_a_trial_measures_and_repeats(agent):
    experiment = small(agent)
    told = []
    first = trial.train_and_evaluate(experiment, 1, told.append)
    trial.train_and_evaluate(small("PPO"), 5, told.append)  # what ran before in this process must not matter
    again = trial.train_and_evaluate(experiment, 1, told.append)
    other = trial.train_and_evaluate(experiment, 2, told.append)
    measured = [{k: v for k, v in row.items() if k not in TIMES | {"curve"}} for row in (first, again, other)]
    assert measured[0] == measured[1] != measured[2]
    points = [[(point[0], *point[2:]) for point in row["curve"]] for row in (first, again)]
    assert points[0] == points[1]
    assert set(first["evaluation"]) == {"sampled", "greedy"}
    assert first["evaluation"]["sampled"]["episodes"] == 64
    assert all(0 <= fraction <= 1 for fraction in told)
    if experiment.steps:
        steps = [point[0] for point in first["curve"]]
        assert steps == sorted(steps) and len(steps) >= 5 and first["steps"] >= experiment.steps


def test_seeds_of_neighbouring_trials_share_no_rows():
    rows = [set(range(s, s + 256)) for seed in range(20) for s in (trial.derived_seed(seed, i) for i in (0, 1))]
    assert len(set.union(*rows)) == sum(map(len, rows))
