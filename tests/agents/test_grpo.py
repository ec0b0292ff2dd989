"""GRPO: advantages and loss against hand-made loops, groups that stay together, and that it learns."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from agents import GRPO
from agents.losses import group_advantages, grpo_loss


@pytest.mark.parametrize("kind", ["grpo", "rloo", "dr_grpo"])
def test_advantages_compare_with_the_group(kind: str) -> None:
    returns = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    expected = []
    for group in returns:
        mean, spread = group.mean(), group.std() + 1e-4
        others = [np.delete(group, i).mean() for i in range(3)]
        expected.append({"grpo": (group - mean) / spread, "rloo": group - others, "dr_grpo": group - mean}[kind])
    np.testing.assert_allclose(group_advantages(returns, kind), expected, atol=1e-12)


def test_the_loss_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    new, old, reference, advantages, entropy = (torch.tensor(rng.normal(size=20)) for _ in range(5))
    loss = grpo_loss(new, old, reference, advantages, entropy, clip_range=0.2, kl_coef=0.3, ent_coef=0.1)
    total = 0.0
    for n, o, r, a, h in zip(*(term.tolist() for term in (new, old, reference, advantages, entropy)), strict=True):
        ratio = np.exp(n - o)
        surrogate = min(a * ratio, a * min(max(ratio, 0.8), 1.2))
        total += (-surrogate + 0.3 * (np.exp(r - n) - (r - n) - 1) - 0.1 * h) / 20
    assert loss.total == pytest.approx(total)
    assert grpo_loss(new, old, None, advantages, entropy, clip_range=0.2, kl_coef=0.3, ent_coef=0.0).kl == 0


def test_groups_are_whole_episodes_of_one_prompt_whatever_the_rollout(vector_env: Callable) -> None:
    model = GRPO("TransformerPolicy", vector_env(6), n_steps=5, group_size=3, seed=0, device="cpu")
    seen: list[tuple] = []
    finished: list[float] = []
    train = GRPO.train

    def spy(self: GRPO) -> None:
        for group in self.rollout_buffer.groups:
            assert len(group) == 3
            prompts = {tuple(e.ids[: e.position[0] + 1]) for e in group}
            assert len(prompts) == 1
            seen.extend(prompts)
            for e in group:
                assert (np.diff(e.position) == 1).all() and len(e.actions) == len(e.log_probs) == len(e.rewards)
                np.testing.assert_array_equal(e.ids[e.position[1:]], e.actions[:-1])
                finished.append(float(e.rewards.sum()))
        train(self)

    model.train = spy.__get__(model)  # type: ignore[method-assign]
    model.learn(6 * 200)
    waiting = [e.rewards.sum() for group in model.rollout_buffer._waiting_groups.values() for e in group]
    everything = sorted(finished + [float(r) for r in waiting])
    assert len(set(seen)) > 10
    returns = model.rollout_buffer._count.sum()
    assert len(everything) == returns  # no episode is lost or counted twice


def test_log_probabilities_are_those_the_tokens_were_sampled_with(vector_env: Callable) -> None:
    model = GRPO(
        "TransformerPolicy", vector_env(4), n_steps=4, group_size=2, learning_rate=0.0, seed=0, device="cpu"
    )  # the policy stays as it is, and most episodes take more than one rollout
    batches = []

    def compare(self: GRPO) -> None:
        for batch in self.rollout_buffer.get(16) if self.rollout_buffer.groups else ():
            own = self.policy.packed_log_probs(batch.packs, batch.actions)
            torch.testing.assert_close(own, batch.old_log_prob, rtol=0, atol=1e-5)
            batches.append(len(batch.actions))

    model.train = compare.__get__(model)  # type: ignore[method-assign]
    model.learn(4 * 100)
    assert sum(batches) > 100


def test_different_prompts_in_a_group_are_refused(vector_env: Callable) -> None:
    model = GRPO("TransformerPolicy", vector_env(4, reply=1), n_steps=16, group_size=2, seed=0, device="cpu")
    with pytest.raises(ValueError, match="rows of one group were shown different prompts"):
        model.learn(4000)  # this environment's replies use up the numbers that prompts come from


@pytest.mark.parametrize("advantage", ["grpo", "rloo"])
def test_it_learns(vector_env: Callable, advantage: str) -> None:
    model = GRPO("TransformerPolicy", vector_env(16), n_steps=32, advantage=advantage, seed=0, device="cpu")
    model.learn(16_000)
    recent = [episode["r"] for episode in model.ep_info_buffer]
    assert np.mean(recent) > 7  # of about 10.5; random: 2


def test_checkpoints_go_on(vector_env: Callable, tmp_path: object) -> None:
    model = GRPO(
        "TransformerPolicy", vector_env(4), n_steps=16, group_size=2, reference="initial", kl_coef=0.1, device="cpu"
    )
    model.learn(256)
    model.save(f"{tmp_path}/model")
    again = GRPO.load(f"{tmp_path}/model", env=vector_env(4), device="cpu")
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[name])
    reference = again.reference_policy.state_dict()
    assert all(torch.equal(value, reference[name]) for name, value in model.reference_policy.state_dict().items())
    again.learn(256)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"group_size": 1}, "group_size=1; a group needs at least 2"),
        ({"group_size": 3}, "4 rows cannot be divided into groups of 3; .*num_envs=3"),
        ({"advantage": "gae"}, "advantage='gae'; choose from grpo, rloo, dr_grpo"),
        ({"kl_coef": 0.1}, "needs a reference"),
        ({"n_epochs": 0}, "n_epochs=0; give at least 1"),
    ],
)
def test_impossible_arguments_are_refused(vector_env: Callable, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRPO("TransformerPolicy", vector_env(4), **{"group_size": 2, "device": "cpu", **keywords})
