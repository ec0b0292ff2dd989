"""The reference policy, its charge and its coefficient."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from agents import PPO, KLCoefficient
from agents.kl import finished_sums

LLAMA = LlamaConfig(vocab_size=7, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)


def make(vector_env: Callable, seed: int = 0, **keywords: object) -> PPO:
    return PPO(
        "TransformerPolicy",
        vector_env(4),
        n_steps=32,
        batch_size=128,
        seed=seed,
        device="cpu",
        **keywords,
    )


@pytest.mark.parametrize("lora", [None, 4])
def test_the_initial_policy_is_its_own_reference(vector_env: Callable, lora: int | None) -> None:
    model = make(vector_env, reference="initial", kl_coef=1.0, policy_kwargs={"model": LLAMA, "lora": lora})
    assert model.reference_policy.shares_base is (lora is not None)
    _, callback = model._setup_learn(128)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    assert model.logger.name_to_value["rollout/kl_per_token"] == pytest.approx(0, abs=1e-6)
    before = reference_log_probs(model)
    model.learn(128 * 8)
    _, callback = model._setup_learn(128)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    assert abs(model.logger.name_to_value["rollout/kl_per_token"]) > 1e-4  # an estimate: either sign
    torch.testing.assert_close(before, reference_log_probs(model, model.before), rtol=0, atol=1e-6)
    assert all(p.requires_grad for n, p in model.policy.backbone.named_parameters() if "lora" in n)


def reference_log_probs(model: PPO, batch: object = None) -> torch.Tensor:
    """Return the reference's log-probabilities on a batch, by default the rollout's, kept as `model.before`."""
    model.before = batch or next(model.rollout_buffer.in_order(10**6))
    return model.reference_policy.log_prob(model.before.packs, model.before.actions)


def test_each_token_pays_for_its_own_log_ratio(vector_env: Callable) -> None:
    other = make(vector_env, seed=5).policy
    model = make(vector_env, reference=other, kl_coef=0.5)
    rewards = []
    add = model.rollout_buffer.add
    model.rollout_buffer.add = lambda *args: (rewards.append(args[2].copy()), add(*args))
    _, callback = model._setup_learn(128)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    buffer = model.rollout_buffer
    charged = (np.array(rewards) - buffer.rewards).reshape(-1)
    for batch in buffer.in_order(10**6):
        _, theirs, _ = other.evaluate_packed(batch.packs, batch.actions)
        expected = 0.5 * (batch.old_log_prob - theirs)
        np.testing.assert_allclose(charged[batch.transition], expected.detach(), atol=1e-6)
    assert np.abs(charged).max() > 1e-3


def test_the_coefficient_follows_its_target() -> None:
    fixed, steered = KLCoefficient(0.1), KLCoefficient(0.1, target=2.0, horizon=100)
    for _ in range(50):
        fixed.update(8.0, 16)
        steered.update(8.0, 16)
    assert fixed.value == 0.1 and steered.value > 0.3
    for _ in range(100):
        steered.update(0.1, 16)
    assert steered.value < 0.1


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kl_coef": -0.1}, "kl_coef=-0.1"),
        ({"kl_coef": float("nan")}, "kl_coef=nan"),
        ({"kl_target": 1.0}, "kl_target=1.0 steers kl_coef=0.0"),
        ({"kl_coef": 0.1, "kl_target": 0.0}, "kl_target=0.0"),
    ],
)
def test_impossible_prices_are_refused(vector_env: Callable, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(vector_env, reference="initial", **keywords)


def test_a_lora_policy_as_reference_survives_a_checkpoint(vector_env: Callable, tmp_path: Path) -> None:
    lora = {"policy_kwargs": {"model": LLAMA, "lora": 2}}
    other = make(vector_env, seed=5, **lora)
    other.learn(256)
    model = make(vector_env, reference=other.policy, kl_coef=0.1, **lora)
    _, callback = model._setup_learn(128)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    batch = next(model.rollout_buffer.in_order(10**6))
    expected = reference_log_probs(model, batch)
    torch.testing.assert_close(expected, other.policy.evaluate_packed(batch.packs, batch.actions)[1])
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    torch.testing.assert_close(reference_log_probs(loaded, batch), expected)


def test_sums_over_episodes_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    terms, ends = rng.normal(size=(40, 3)), rng.random((40, 3)) < 0.2
    starts = np.concatenate([np.ones((1, 3), bool), ends[:-1]])
    starts[17, 1] = True  # an episode that a reset cut is nobody's
    expected = []
    for row in range(3):
        running = 0.0
        for t in range(40):
            running = terms[t, row] + (0.0 if starts[t, row] else running)
            if ends[t, row]:
                expected.append(running)
    found, carried = [], np.zeros(3)
    for at in range(0, 40, 5):
        part = slice(at, at + 5)
        finished, carried = finished_sums(terms[part], starts[part], ends[part], carried)
        found += finished.tolist()
    np.testing.assert_allclose(sorted(found), sorted(expected))


def test_the_kl_is_that_of_whole_episodes_however_short_the_rollout(vector_env: Callable) -> None:
    """Episodes of up to 13 tokens in rollouts of 3 steps: many rollouts finish none, and most begin none."""
    model = PPO(
        "TransformerPolicy",
        vector_env(2),
        n_steps=3,
        learning_rate=0.0,
        reference=make(vector_env, seed=5).policy,
        kl_coef=0.5,
        kl_target=1.0,
        kl_horizon=10.0,
        seed=0,
        device="cpu",
    )
    with torch.no_grad():
        model.policy.backbone.model.get_input_embeddings().weight[0] = 0.0  # the end token is seldom said
    buffer, running, measured, rewards = model.rollout_buffer, np.zeros(2), 0, []
    add = buffer.add
    buffer.add = lambda *args: (rewards.append(args[2].copy()), add(*args))
    _, callback = model._setup_learn(10**6)
    for _ in range(40):
        rewards.clear()
        model.logger.name_to_value.clear()
        price = model.kl.value
        model.collect_rollouts(model.env, callback, buffer, 3)
        ratios = (np.array(rewards) - buffer.rewards) / price
        whole = []
        for t in range(3):
            running = np.where(buffer.episode_starts[t], 0.0, running) + ratios[t]
            ended = model._last_episode_starts if t == 2 else buffer.episode_starts[t + 1].astype(bool)
            whole += running[ended].tolist()
        logged = model.logger.name_to_value.get("rollout/kl_per_episode")
        assert (logged is None) is (not whole)
        if whole:
            measured += 1
            assert logged == pytest.approx(np.mean(whole), abs=1e-4) and model.kl.observed == logged
        assert (model.kl.value == price) is (not whole)  # nothing was measured, so nothing is steered
    assert 5 < measured < 35
