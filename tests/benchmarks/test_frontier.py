"""The measured policy beside the exact frontier."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from agents import ReferencePolicy, TransformerPolicy
from benchmarks import frontier, suites
from benchmarks.evaluation import make_env
from benchmarks.report.frontier import gap, sections
from text_envs import exact

SMALL = {"vocab_size": 3, "order": 3, "length": 4, "dense": True}


def env_of(rows: int) -> Any:
    return make_env("text_envs/NGram-v0", rows, SMALL)


def test_the_module_gives_the_tasks_own_probabilities():
    task = env_of(1).task
    contexts = task.cases()[0].tokens  # in the order of the table
    said = np.concatenate([np.full((len(contexts), 2), 2), contexts], axis=1)  # what stands before does not matter
    log_probs = frontier.NGramModel(task)(torch.as_tensor(said))
    np.testing.assert_allclose(log_probs[:, -1].exp(), task.reference, rtol=1e-5)


@pytest.fixture(scope="module")
def regularized():
    """The exact optimum at a price, and an agent that plays it."""
    env = env_of(1)
    task = env.task
    point, policy = exact.regularized(task.automaton(task.cases()[0]), task.reference, 0.05)
    log_policy = torch.as_tensor(np.log(policy), dtype=torch.float32)  # (T, S, V)

    def distribution(obs: torch.Tensor) -> Any:
        length = (obs != task.vocab_size).sum(1)
        last = torch.stack([obs.gather(1, (length - back)[:, None])[:, 0] for back in (2, 1)], dim=1)
        state = last @ torch.tensor([task.vocab_size, 1])
        logits = log_policy[length - task.max_prompt_tokens, state]
        return SimpleNamespace(distribution=SimpleNamespace(logits=logits))

    base = TransformerPolicy(env.single_observation_space, env.single_action_space, lambda _: 1e-3)
    agent = SimpleNamespace(
        device="cpu",
        policy=SimpleNamespace(get_distribution=distribution, set_training_mode=lambda mode: None),
        reference_policy=ReferencePolicy(base, frontier.NGramModel(task)),
    )
    return task, point, agent


def test_a_measurement_finds_the_exact_point(regularized):
    _, point, agent = regularized
    found = frontier.measure(agent, env_of(20_000), seed=1)
    assert found["reward"] == pytest.approx(point.reward, abs=4 * found["reward_error"])
    assert found["kl"] == pytest.approx(point.kl, abs=4 * found["kl_error"])
    assert found["reward_error"] < 0.002 and found["kl_error"] < 0.02


def test_the_curve_passes_through_exact_points_and_rises(regularized):
    task, point, _ = regularized
    kl, reward = frontier.curve(task)
    assert (np.diff(kl) > 0).all() and (np.diff(reward) > 0).all()
    assert np.interp(point.kl, kl, reward) == pytest.approx(point.reward, abs=1e-4)
    assert reward[0] == task.reference_return()
    measurement = {
        "reward": point.reward,
        "frontier_reward": float(np.interp(point.kl, kl, reward)),
        "reference_reward": task.reference_return(),
        "optimal_reward": task.optimal_return(),
    }
    assert gap(measurement) == pytest.approx(0, abs=1e-3)
    assert gap({**measurement, "reward": task.reference_return()}) > 0.3


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_a_trial_measures_what_was_trained_and_the_report_shows_it(agent, look_of):
    experiment = suites.Experiment(
        task="NGram, 0.1 a nat",
        agent=agent,
        env_id="text_envs/NGram-v0",
        factory=f"benchmarks.frontier:{agent}",
        env_kwargs=SMALL,
        agent_kwargs={"beta": 0.1},
        steps=2048,
        trial="benchmarks.frontier:trial",
    )
    fields = frontier.trial(experiment, 0, lambda done: None)
    found = fields["measurement"]
    assert fields["steps"] >= 2048 and found["kl"] > 0
    assert found["reward"] - 4 * found["reward_error"] < found["frontier_reward"] <= found["optimal_reward"]
    rows = [{**fields, "experiment": experiment.configuration(), "seed": 0}]
    (section,) = sections(rows, look_of(rows))
    (row,) = section.tables[0].rows
    assert [cell.text for cell in row[:4]] == [agent, "0.1", f"{found['kl']:.3f}", f"{found['reward']:.3f}"]
    assert section.figures[0].name == "frontier-ngram"


def test_the_suite_has_enough_prices():
    suite = suites.get("frontier")
    for agent in ("PPO", "DQN"):
        prices = {e.agent_kwargs["beta"] for e in suite.experiments if e.agent == agent}
        assert len(prices) >= 3
