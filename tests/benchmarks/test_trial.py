import dataclasses

import numpy as np
import pytest

from benchmarks import suites, trial
from benchmarks.baselines import RandomAgent
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


def small(agent, **changes):
    (experiment,) = [e for e in suites.get("quick").experiments if (e.task, e.agent) == ("Copy", agent)]
    steps = 0 if agent == "random" else 2_100
    return dataclasses.replace(
        experiment,
        env_kwargs={"vocab_size": 3, "length": 2, "dense": True},
        steps=steps,
        eval_episodes=64,
        **{"target": None, **changes},
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


class Model:
    """What a callback asks of an agent whose episodes go as they are told."""

    def __init__(self, *returns):
        self.returns, self.num_timesteps = list(returns), 0

    def learn(self, total_timesteps, callback):
        callback.init_callback(self)
        callback.on_training_start({}, {})
        for value in self.returns:
            self.num_timesteps += 10
            callback.update_locals({"dones": np.array([True]), "infos": [{"episode": {"r": value}}]})
            if not callback.on_step():
                break
        callback.on_training_end()

    def get_env(self):
        return None

    logger = None


def curve_of(*returns, **stops):
    model, told = Model(*returns), []
    curve = trial.LearningCurve(20, 10 * len(returns), told.append, lambda value: value / 10, **stops)
    model.learn(0, curve)
    return curve, told


def test_a_curve_has_the_mean_of_every_interval():
    curve, told = curve_of(1, 3, 4, 8, 5)
    assert [(point[0], *point[2:]) for point in curve.points] == [(20, 2, 0.2), (40, 6, 0.6), (50, 5, 0.5)]
    assert told == [0.4, 0.8] and curve.reached is None
    seconds = [point[1] for point in curve.points]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("counts_from_0", [True, False])
def test_a_curve_goes_on_through_several_trainings(counts_from_0):
    curve, model = trial.LearningCurve(20, 80, lambda done: None), Model(1, 2, 3, 4)
    for _ in range(2):
        model.learn(0, curve)
        model.num_timesteps *= not counts_from_0
    assert [(point[0], point[2]) for point in curve.points] == [(20, 1.5), (40, 3.5), (60, 1.5), (80, 3.5)]
    assert curve.steps == 80 and curve.points == sorted(curve.points)


def test_a_curve_sums_the_clean_rewards_of_an_episodes_turns():
    curve = trial.LearningCurve(20, 40, lambda done: None)
    model = Model()
    curve.init_callback(model)
    curve.on_training_start({}, {})
    noisy = {"episode": {"r": 99.0}}
    for model.num_timesteps, infos in (
        (10, [{"reward_clean": 1.0}, {}]),
        (20, [{"reward_clean": 2.0, **noisy}, noisy]),  # two turns; and an environment that tells none
        (30, [{}, {"reward_clean": 5.0}]),
        (40, [{"reward_clean": 7.0, **noisy}, {"reward_clean": 1.0, **noisy}]),
    ):
        curve.update_locals({"infos": infos})
        assert curve.on_step()
    assert [point[2] for point in curve.points] == [(3 + 99) / 2, (7 + 6) / 2]


def test_training_stops_at_the_first_point_that_reaches_the_target():
    curve, _ = curve_of(9, 1, 7, 7, 9, 9, 9, 9, target=0.7)  # a single episode does not count, an interval does
    assert curve.reached == 40 and [point[0] for point in curve.points] == [20, 40]
    assert curve_of(9, 1, 7, target=0.95)[0].reached is None


def test_training_stops_when_its_seconds_are_over():
    assert [point[0] for point in curve_of(1, 2, 3, seconds=0.0)[0].points] == [10]
    assert [point[0] for point in curve_of(1, 2, 3, seconds=100.0)[0].points] == [20, 30]


def test_a_trial_says_when_it_reached_its_target():
    easy = {"agent_kwargs": {"n_steps": 16}, "target": 0.2}
    row = trial.train_and_evaluate(small("PPO", **easy), 0, lambda done: None)
    again = trial.train_and_evaluate(small("PPO", **easy), 0, lambda done: None)
    assert row["reached"] == row["steps"] == row["curve"][-1][0] < 2_100
    assert row["curve"][-1][3] >= 0.2 > max(point[3] for point in row["curve"][:-1])
    assert row["evaluation"] == again["evaluation"] and row["samples"] == again["samples"]
    assert trial.train_and_evaluate(small("random", target=0.9), 0, lambda done: None)["steps"] == 0


def clone(steps, **agent_kwargs):
    small = {"env_kwargs": {"vocab_size": 3, "length": 2}, "agent_kwargs": agent_kwargs, "eval_episodes": 64}
    experiment = suites.experiment("behaviour cloning", "Copy", "text_envs/Copy-v0", steps, **small)
    return trial.clone_and_evaluate(experiment, 0, lambda done: None)


def test_what_imitates_is_judged_by_its_own_episodes(monkeypatch):
    monkeypatch.setattr(trial, "PLAYED", 64)
    row = clone(2_100)
    steps, scores = [point[0] for point in row["curve"]], [point[3] for point in row["curve"]]
    assert steps == sorted(set(steps)) and steps[-1] == row["steps"]
    assert scores[0] < 0.6 and scores[-1] > 0.8  # the demonstrations would score 1 from the first step
    assert row["curve"][-1][1] <= row["train_seconds"]


def test_playing_in_between_changes_nothing(monkeypatch):
    rows = []
    for played in (16, 64):
        monkeypatch.setattr(trial, "PLAYED", played)
        rows.append(clone(320, n_steps=16))
    assert rows[0]["curve"] != rows[1]["curve"]
    assert rows[0]["evaluation"] == rows[1]["evaluation"] and rows[0]["samples"] == rows[1]["samples"]
