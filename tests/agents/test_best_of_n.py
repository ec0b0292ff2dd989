"""Best of n: the best is the best, of one prompt; imitating it makes the policy better."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from agents import BestOfN
from agents.best_of_n import best_of
from agents.buffers import GroupEpisode


def group(*returns: float) -> list[GroupEpisode]:
    """Return episodes of one action, the row's number, and the given returns."""
    return [
        GroupEpisode(np.array([1]), np.array([0]), np.array([i]), np.zeros(1), np.array([r]), np.zeros((1, 0)))
        for i, r in enumerate(returns)
    ]


def test_groups_of_equals_have_no_best() -> None:
    best = best_of([group(0.0, 2.0, 1.0), group(1.0, 1.0, 1.0), group(3.0, 0.0, 3.0)])
    assert [episode.actions.tolist() for episode in best] == [[1], [0]]


def test_the_best_of_each_prompt_is_returned_and_earns_what_it_says(vector_env: Callable) -> None:
    model = BestOfN("TransformerPolicy", vector_env(8), n=4, seed=0, device="cpu")
    best = model.best_episodes(25)
    assert len(best) == 25
    prompts = {tuple(b.episode.ids[: b.episode.position[0] + 1]) for b in best}
    assert len(prompts) > 15
    for episode, returns in best:
        earned = (episode.ids[episode.position] % 6 + 1 == episode.actions).sum()
        assert returns.shape == (4,) and earned == returns.max()
    assert np.mean([b.returns.max() for b in best]) > np.mean([b.returns.mean() for b in best]) + 0.5


def test_all_prompts_count_however_long_their_episodes(vector_env: Callable) -> None:
    """Whatever ends first must not be preferred: a row's episodes 0..k are all there, and none is doubled."""
    model = BestOfN("TransformerPolicy", vector_env(4), n=2, seed=0, device="cpu")
    played = model._play(model.env, 5)
    assert all(len(row) >= 5 for row in played)
    for number in range(5):
        for first in (0, 2):
            one, other = (played[first + i][number][0] for i in range(2))
            np.testing.assert_array_equal(one.ids[: one.position[0] + 1], other.ids[: other.position[0] + 1])


def test_only_what_is_legal_is_said(masked_vector_env: Callable) -> None:
    """The environment raises where it is not."""
    model = BestOfN("TransformerPolicy", masked_vector_env(4), n=2, n_steps=32, seed=0, device="cpu")
    model.learn(512)
    best = best_of(model.rollout_buffer.groups)
    assert best and all(episode.masks.shape == (len(episode.actions), 1) for episode in best)
    assert model.best_returns(4).shape == (4,)


def test_learning_goes_on_after_a_measurement(vector_env: Callable) -> None:
    model = BestOfN("TransformerPolicy", vector_env(4), n=2, n_steps=16, seed=0, device="cpu")
    model.learn(128)
    assert model.best_returns(3).shape == (3,)
    model.learn(128, reset_num_timesteps=False)
    assert model.best_returns(3, vector_env(6)).shape == (3,)
    assert model.num_timesteps == 256


def test_it_learns(vector_env: Callable) -> None:
    model = BestOfN("TransformerPolicy", vector_env(16), n=4, n_steps=32, seed=0, device="cpu")
    model.learn(12_000)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) > 4.5  # random: 2, best: about 10.5


def test_the_same_seed_gives_the_same_weights(vector_env: Callable) -> None:
    weights = []
    for _ in range(2):
        model = BestOfN("TransformerPolicy", vector_env(4), n=2, n_steps=32, seed=7, device="cpu")
        weights.append(model.learn(512).policy.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_checkpoints_go_on(vector_env: Callable, tmp_path: object) -> None:
    model = BestOfN("TransformerPolicy", vector_env(4), n=2, n_steps=16, seed=0, device="cpu")
    model.learn(256).save(f"{tmp_path}/model")
    again = BestOfN.load(f"{tmp_path}/model", env=vector_env(4), device="cpu")
    assert again.n == 2
    obs = vector_env(8).reset(seed=1)[0]
    for deterministic in (True, False):
        torch.manual_seed(0)
        mine = model.predict(obs, deterministic=deterministic)[0]
        torch.manual_seed(0)
        np.testing.assert_array_equal(again.predict(obs, deterministic=deterministic)[0], mine)
    again.learn(256)
    alone = BestOfN.load(f"{tmp_path}/model", device="cpu")
    with pytest.raises(RuntimeError, match="pass env="):
        alone.best_returns(2)
    assert alone.best_returns(2, vector_env(2)).shape == (2,)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n": 1}, "n=1; the best of n needs at least 2"),
        ({"n": 3}, "4 rows cannot be divided into groups of 3; .*num_envs=3"),
        ({"n_epochs": 0}, "n_epochs=0; give at least 1"),
    ],
)
def test_impossible_arguments_are_refused(vector_env: Callable, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BestOfN("TransformerPolicy", vector_env(4), **{"n": 2, "device": "cpu", **keywords})
    model = BestOfN("TransformerPolicy", vector_env(4), n=2, device="cpu")
    with pytest.raises(ValueError, match="3 rows cannot be divided into groups of 2"):
        model.best_returns(2, vector_env(3))
