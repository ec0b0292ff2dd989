"""Behaviour cloning: what is recorded is what was demonstrated, the loss is a loop's, and it imitates."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import PPO, BehaviourCloning, Checkpoint, resume
from agents.backbone import Backbone
from agents.demonstrations import (
    Demonstration,
    EpisodeRecorder,
    cloning_batch,
    cloning_batches,
    demonstrate,
    demonstrations_of_pairs,
    in_order,
)
from agents.losses import cloning_loss
from agents.masks import unpack_masks
from agents.models import ModelSpec
from agents.policies import token_log_probs
from agents.reading import ContextReader
from agents.vec_env import VectorEnvAdapter

V = 7
PAIRS = [([1 + i % 6], [1 + (i + k) % 6 for k in range(1, 4)] + [0]) for i in range(60)]  # successors, then the end


def successors(episode: Demonstration) -> np.ndarray:
    """Return what the environment's expert says at each of an episode's positions."""
    return episode.ids[episode.position] % (V - 1) + 1


@pytest.mark.parametrize("reply", [0, 1])
def test_demonstrations_are_the_experts_episodes_whole(vector_env: Callable, reply: int) -> None:
    episodes = demonstrate(VectorEnvAdapter(vector_env(3, reply=reply)), 10, seed=3)
    assert len(episodes) == 10
    gaps = set()
    for episode in episodes:
        np.testing.assert_array_equal(episode.actions, successors(episode))
        following = episode.position[1:] if reply == 0 else episode.position[:-1] + 1
        np.testing.assert_array_equal(episode.ids[following], episode.actions[:-1])
        assert episode.position[-1] == len(episode.ids) - 1
        gaps |= set(np.diff(episode.position))
    assert gaps == ({1} if reply == 0 else {1, 2})
    again = demonstrate(VectorEnvAdapter(vector_env(3, reply=reply)), 4, seed=3)
    for one, other in zip(again, episodes, strict=False):
        np.testing.assert_array_equal(one.ids, other.ids)


def test_the_recorder_keeps_rows_apart() -> None:
    recorder = EpisodeRecorder(2, pad=9)
    first = np.array([[1, 9, 9, 9], [2, 3, 9, 9]])
    second = np.array([[1, 4, 9, 9], [2, 3, 5, 6]])
    assert recorder.add(first, np.array([4, 5]), np.array([False, False])) == []
    [(row, episode)] = recorder.add(second, np.array([7, 8]), np.array([False, True]))
    assert row == 1 and episode.ids.tolist() == [2, 3, 5, 6]
    assert episode.position.tolist() == [1, 3] and episode.actions.tolist() == [5, 8]


def test_the_loss_is_the_likelihood_of_completions_alone(vector_env: Callable) -> None:
    policy = BehaviourCloning("TransformerPolicy", vector_env(2), seed=0, device="cpu").policy.double()
    pairs = [([1, 2, 3], [4, 0]), ([5], [6, 1, 2, 0]), ([2, 2], [0])]
    batch = cloning_batch(demonstrations_of_pairs(pairs, V, 14), "cpu")
    log_prob = policy.packed_log_probs(batch.packs, batch.actions)
    loss = cloning_loss(log_prob, torch.zeros(7)).total
    terms = []
    for prompt, completion in pairs:
        for k, token in enumerate(completion):
            logits = policy.backbone.model(torch.tensor([[*prompt, *completion[:k]]])).logits[0, -1]
            terms.append(-torch.log_softmax(logits, -1)[token])
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-6)
    ours, theirs = (
        torch.autograd.grad(scalar, policy.backbone.model.transformer.wpe.weight)[0]
        for scalar in (loss, torch.stack(terms).mean())
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_batches_hold_every_episode_once() -> None:
    episodes = demonstrations_of_pairs(PAIRS, V, 14)
    everything = sorted(action for e in episodes for action in e.actions.tolist())
    random = list(cloning_batches(episodes, 16, np.random.default_rng(0), "cpu"))
    ordered = list(in_order(episodes, 16, "cpu"))
    for batches in (random, ordered):
        assert len(batches) > 5
        assert sorted(torch.cat([b.actions for b in batches]).tolist()) == everything
    assert list(in_order([], 16, "cpu")) == []


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_it_imitates(vector_env: Callable, pairs: list | None) -> None:
    envs = vector_env(16)
    model = BehaviourCloning("TransformerPolicy", envs, demonstrations=pairs, seed=0, device="cpu")
    losses: list[float] = []
    model.learn(
        10_000, lambda here, _: losses.append(here["self"].logger.name_to_value.get("train/loss", 9)) is None
    )
    assert model.num_timesteps >= 10_000
    assert model.heldout_loss() < 0.25  # uniform: 1.95
    assert model.rollout_buffer.heldout and losses[-1] < 0.5
    prompts = np.full((6, 14), V)
    prompts[:, 0] = np.arange(1, 7)
    actions, _ = model.predict(prompts, deterministic=True)
    assert actions.tolist() == [2, 3, 4, 5, 6, 1]
    if pairs is None:  # what was demonstrated earns a reward for every token
        assert all(episode["r"] == episode["l"] for episode in model.ep_info_buffer)


def test_held_out_episodes_are_never_trained_on(vector_env: Callable) -> None:
    model = BehaviourCloning("TransformerPolicy", vector_env(4), heldout=5, n_steps=64, seed=0, device="cpu")
    trained: list[Demonstration] = []
    imitate = model._imitate
    model._imitate = lambda episodes: (trained.extend(episodes), imitate(episodes))  # type: ignore[method-assign]
    model.learn(4 * 1000)
    assert len(model.rollout_buffer.heldout) == 5
    mine = {id(episode) for episode in model.rollout_buffer.heldout}
    assert not mine & {id(episode) for episode in trained}
    total = sum(len(e.actions) for e in trained) + sum(len(e.actions) for e in model.rollout_buffer.heldout)
    assert 4 * 1000 - 4 * 14 <= total <= model.num_timesteps  # all but the open episodes
    few = BehaviourCloning("TransformerPolicy", vector_env(2), demonstrations=PAIRS[:9], device="cpu")
    assert few.rollout_buffer.heldout == []
    with pytest.raises(ValueError, match="nothing is held out yet"):
        few.heldout_loss()


def test_given_pairs_are_gone_through_in_passes(vector_env: Callable) -> None:
    model = BehaviourCloning("TransformerPolicy", vector_env(2), demonstrations=PAIRS, heldout=0, seed=0)
    buffer = model.rollout_buffer
    counts: dict[int, int] = {}
    for _ in range(120 // 4):  # 120 episodes of 4 actions: two passes
        buffer.reset()
        buffer.draw(16)
        for episode in buffer.episodes:
            counts[id(episode)] = counts.get(id(episode), 0) + 1
    assert sorted(counts.values()) == [2] * 60


def test_short_calls_of_learn_go_on_where_they_stopped(vector_env: Callable) -> None:
    model = BehaviourCloning("TransformerPolicy", vector_env(4, reply=1), n_steps=5, seed=0, device="cpu")
    seen = []
    train = model.train
    model.train = lambda: (seen.extend(model.rollout_buffer.episodes), train())  # type: ignore[method-assign]
    for _ in range(10):
        model.learn(20, reset_num_timesteps=False)
    assert len(seen) > 10
    for episode in seen:
        np.testing.assert_array_equal(episode.actions, successors(episode))


def test_legal_actions_are_recorded_and_the_likelihood_is_theirs(masked_vector_env: Callable) -> None:
    model = BehaviourCloning("TransformerPolicy", masked_vector_env(4), n_steps=32, seed=0, device="cpu")
    seen: list[Demonstration] = []
    imitate = model._imitate
    model._imitate = lambda episodes: (seen.extend(episodes), imitate(episodes))  # type: ignore[method-assign]
    model.learn(512)
    batch = cloning_batch(seen, "cpu")
    legal = unpack_masks(batch.masks, V)
    hidden = torch.cat([p.ids[p.row, p.position] for p in batch.packs])  # the last token of each context
    for last, row in zip(hidden.tolist(), legal, strict=True):
        expected = (np.arange(V) + last) % 2 == 0
        expected[[0, last % (V - 1) + 1]] = True
        assert row.tolist() == expected.tolist()
    with torch.no_grad():
        masked = -model.loss(batch).total
        free = model.policy.packed_log_probs(batch.packs, batch.actions).mean()
    assert masked > free


def test_parts_of_a_minibatch_give_its_gradient(vector_env: Callable) -> None:
    policies = []
    for micro in (None, 20):
        model = BehaviourCloning(
            "TransformerPolicy",
            vector_env(4),
            n_steps=64,
            micro_batch_size=micro,
            policy_kwargs={"optimizer_class": torch.optim.SGD},
            seed=0,
            device="cpu",
        )
        policies.append(model.learn(256).policy.state_dict())
    for name, value in policies[0].items():
        torch.testing.assert_close(value, policies[1][name], rtol=0, atol=1e-5)


def test_batches_stay_on_the_device() -> None:
    backbone = Backbone(ModelSpec(), V, 14).to("meta")
    batch = cloning_batch(demonstrations_of_pairs(PAIRS, V, 14), "meta")
    hidden = ContextReader(backbone).packed_hidden(batch.packs)
    loss = cloning_loss(*token_log_probs(backbone, hidden, batch.actions, False, batch.masks))
    loss.total.backward()
    assert loss.total.device.type == loss.entropy.device.type == "meta"


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_a_resumed_run_ends_like_one_that_did_not_stop(
    vector_env: Callable, tmp_path: Path, pairs: list | None
) -> None:
    model = BehaviourCloning(
        "TransformerPolicy", vector_env(4, reply=1), n_steps=30, demonstrations=pairs, seed=0, device="cpu"
    )
    model.learn(600, Checkpoint(tmp_path / "run", every=240))
    again = resume(sorted((tmp_path / "run").glob("*.zip"))[0], device="cpu")
    assert again.num_timesteps < 600
    again.learn(600 - again.num_timesteps, reset_num_timesteps=False)
    one, other = model.policy.state_dict(), again.policy.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_the_same_seed_gives_the_same_weights(vector_env: Callable, pairs: list | None) -> None:
    weights = []
    for _ in range(2):
        model = BehaviourCloning(
            "TransformerPolicy", vector_env(4), n_steps=32, demonstrations=pairs, seed=7, device="cpu"
        )
        weights.append(model.learn(512).policy.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_checkpoints_go_on_and_ask_for_their_pairs(vector_env: Callable, tmp_path: object) -> None:
    model = BehaviourCloning("TransformerPolicy", vector_env(4), n_steps=32, demonstrations=PAIRS, device="cpu")
    model.learn(256).save(f"{tmp_path}/model")
    obs = vector_env(8).reset(seed=1)[0]
    bare = BehaviourCloning.load(f"{tmp_path}/model", env=vector_env(4), device="cpu")
    np.testing.assert_array_equal(
        bare.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0]
    )
    with pytest.raises(ValueError, match="demonstrations=pairs"):
        bare.learn(64)
    again = BehaviourCloning.load(f"{tmp_path}/model", env=vector_env(4), device="cpu", demonstrations=PAIRS)
    before = model.heldout_loss()
    again.learn(2048)
    assert again.heldout_loss() < before
    warm = PPO("TransformerPolicy", vector_env(4), policy_kwargs={"model": again.policy.backbone.merged()})
    np.testing.assert_array_equal(
        warm.predict(obs, deterministic=True)[0], again.predict(obs, deterministic=True)[0]
    )


def test_an_environment_that_demonstrates_nothing_is_named(
    vector_env: Callable, token_env: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_env, "demonstrate", lambda self: [])
    with pytest.raises(ValueError, match="demonstrated no token at all"):
        BehaviourCloning("TransformerPolicy", vector_env(2), device="cpu").learn(10)
    monkeypatch.delattr(token_env, "demonstrate")
    for env in (vector_env(2), token_env()):
        with pytest.raises(ValueError, match=r"demonstrates nothing .*pass demonstrations=\[\(prompt ids"):
            BehaviourCloning("TransformerPolicy", env, device="cpu").learn(10)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"heldout": -1}, "heldout=-1; give the number of episodes"),
        ({"n_steps": 0}, "n_steps=0; give at least 1"),
        ({"demonstrations": []}, "there are no demonstrations; give at least one pair"),
        ({"demonstrations": [([1], [2, 0]), ([1], [])]}, "demonstration 1 has 1 tokens of prompt and 0 of"),
        ({"demonstrations": [([1], [7])]}, r"demonstration 0 holds the id 7, outside 0\.\.6"),
        ({"demonstrations": [([1] * 10, [1] * 5)]}, "demonstration 0 has 15 tokens, more than the 14 of a context"),
    ],
)
def test_impossible_arguments_are_refused(vector_env: Callable, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BehaviourCloning("TransformerPolicy", vector_env(2), device="cpu", **keywords)
