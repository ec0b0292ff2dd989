"""Environments demonstrate: playing what they say earns what is best, alone and in a batch, turn after turn."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import text_envs  # noqa: F401  (registers the ids)
from text_envs import exact

BATCHED = {"vectorization_mode": "vector_entry_point"}


@pytest.mark.parametrize(("name", "level"), [("Sort", "token"), ("GuessNumber", "token"), ("Sort", "utterance")])
def test_demonstrations_played_token_by_token_are_optimal(name: str, level: str) -> None:
    env = gym.make(f"text_envs/{name}-v0", level=level)
    returns = []
    for episode in range(64):
        env.reset(seed=episode)
        total, over, queue = 0.0, False, []
        while not over:
            queue = queue or list(env.unwrapped.demonstrate())
            if level == "utterance":
                action, queue = env.unwrapped.task.codec.decode(queue), []
            else:
                action = queue.pop(0)
            _, reward, over, _, _ = env.step(action)
            total += reward
        returns.append(total)
    assert np.mean(returns) == pytest.approx(env.unwrapped.optimal_return(), abs=0.1)


def test_a_batch_demonstrates_what_its_rows_do_alone_and_an_open_utterance_does_not_matter() -> None:
    envs = gym.make_vec("text_envs/Sort-v0", num_envs=3, **BATCHED)
    with pytest.raises(ResetNeeded, match="reset"):
        envs.unwrapped.demonstrate()
    envs.reset(seed=5)
    shown = envs.unwrapped.demonstrate()
    for row, said in enumerate(shown):
        env = gym.make("text_envs/Sort-v0")
        env.reset(seed=5 + row)
        assert env.unwrapped.demonstrate() == said
    envs.step(np.zeros(3, np.int64))
    assert envs.unwrapped.demonstrate() == shown


def test_a_task_without_a_best_utterance_says_so() -> None:
    env = gym.make("text_envs/Keywords-v0").unwrapped
    with pytest.raises(ResetNeeded):
        env.demonstrate()
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="no exact values"):
        env.demonstrate()


@pytest.mark.parametrize("keywords", [{"k": 10}, {"propose": [str(number) for number in range(10)], "k": 12}])
def test_at_candidate_level_the_action_is_which_candidate_is_best(keywords) -> None:
    keywords = {"level": "candidate", **keywords}
    env = gym.make("text_envs/GuessNumber-v0", **keywords)
    demonstrate = env.get_wrapper_attr("demonstrate")
    with pytest.raises(ResetNeeded):
        demonstrate()
    returns = []
    for episode in range(64):
        env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            action = demonstrate()
            assert env.get_wrapper_attr("candidates")[action] == env.unwrapped.tokenizer.decode(
                env.unwrapped.demonstrate()
            )
            _, reward, over, _, _ = env.step(action)
            total += reward
        returns.append(total)
    assert np.mean(returns) == pytest.approx(env.unwrapped.optimal_return(), abs=0.1)
    envs = gym.make_vec("text_envs/GuessNumber-v0", num_envs=64, autoreset_mode="Disabled", **keywords, **BATCHED)
    with pytest.raises(ResetNeeded):
        envs.demonstrate()
    envs.reset(seed=0)
    totals, live = np.zeros(64), np.ones(64, bool)
    while live.any():
        _, rewards, terminated, _, _ = envs.step(envs.demonstrate())
        totals += rewards * live
        live &= ~terminated
        if terminated.any():
            envs.reset(options={"reset_mask": terminated})  # later episodes do not count
    assert totals.tolist() == returns


def test_a_best_utterance_that_is_not_proposed_is_asked_for() -> None:
    keywords = {"level": "candidate", "propose": ["aa", "ab"], "k": 2, "vocab_size": 2, "length": 2}
    env = gym.make("text_envs/Copy-v0", **keywords)
    envs = gym.make_vec("text_envs/Copy-v0", num_envs=32, **keywords, **BATCHED)
    env.reset(seed=[seed for seed in range(9) if env.unwrapped.reset(seed=seed)[0] == "ba"][0])
    envs.reset(seed=0)
    for demonstrate in (env.get_wrapper_attr("demonstrate"), envs.demonstrate):
        with pytest.raises(NotImplementedError, match="none of the 2 candidates of row .* is what Copy demonstr"):
            demonstrate()
    env = gym.make("text_envs/Keywords-v0", level="candidate", propose="random")
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="no exact values"):
        env.get_wrapper_attr("demonstrate")()


@pytest.mark.parametrize("name", ["Bandit", "Brackets", "Lipogram", "NGram", "Password", "Pattern"])
def test_a_machine_that_all_prompts_share_is_solved_once(name, monkeypatch) -> None:
    envs = gym.make_vec(f"text_envs/{name}-v0", num_envs=70, **BATCHED)
    slow = gym.make_vec(f"text_envs/{name}-v0", num_envs=70, **BATCHED)
    monkeypatch.setattr(slow.task, "one_machine", False)
    envs.reset(seed=0)
    slow.reset(seed=0)
    assert envs.task.one_machine and envs.demonstrate() == slow.demonstrate()
    monkeypatch.setattr(exact, "best_actions", None)
    envs.reset()
    envs.demonstrate()
