"""Losses against loops written from the papers."""

import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agents.losses import bradley_terry_loss, dqn_loss, log_prob_and_entropy, ppo_loss, q_targets


@pytest.mark.parametrize("clip_range_vf", [None, 0.1])
def test_ppo_loss_is_the_papers(clip_range_vf: float | None) -> None:
    rng = np.random.default_rng(0)
    log_prob, old, advantage, value, old_value, returns = rng.normal(size=(6, 40))
    entropy = rng.random(40)
    expected_policy = expected_value = clipped = kl = 0.0
    for i in range(40):
        ratio = math.exp(log_prob[i] - old[i])
        bounded = min(max(ratio, 0.8), 1.2)
        expected_policy -= min(ratio * advantage[i], bounded * advantage[i]) / 40
        predicted = value[i]
        if clip_range_vf:
            predicted = old_value[i] + min(max(value[i] - old_value[i], -clip_range_vf), clip_range_vf)
        expected_value += (returns[i] - predicted) ** 2 / 40
        clipped += (abs(ratio - 1) > 0.2) / 40
        kl += (ratio - 1 - math.log(ratio)) / 40
    loss = ppo_loss(
        *map(torch.as_tensor, (log_prob, old, advantage, value, old_value, returns, entropy)),
        clip_range=0.2,
        clip_range_vf=clip_range_vf,
        ent_coef=0.3,
        vf_coef=0.7,
    )
    assert loss.policy.item() == pytest.approx(expected_policy)
    assert loss.value.item() == pytest.approx(expected_value)
    assert loss.clip_fraction.item() == pytest.approx(clipped)
    assert loss.approx_kl.item() == pytest.approx(kl)
    expected = expected_policy - 0.3 * entropy.mean() + 0.7 * expected_value
    assert loss.total.item() == pytest.approx(expected)


@pytest.mark.parametrize("gradient", [True, False])
def test_log_prob_and_entropy_are_the_categorical_distributions(gradient: bool) -> None:
    logits = torch.randn(30, 9, dtype=torch.float64, requires_grad=True)
    actions = torch.randint(9, (30,))
    distribution = torch.distributions.Categorical(logits=logits)
    log_prob, entropy = log_prob_and_entropy(logits, actions, entropy_gradient=gradient)
    torch.testing.assert_close(log_prob, distribution.log_prob(actions))
    torch.testing.assert_close(entropy, distribution.entropy())
    (ours,) = torch.autograd.grad((log_prob + (entropy if gradient else 0)).sum(), logits, retain_graph=True)
    theirs = distribution.log_prob(actions) + (distribution.entropy() if gradient else 0)
    torch.testing.assert_close(ours, torch.autograd.grad(theirs.sum(), logits)[0])
    assert entropy.requires_grad is gradient


def test_an_entropy_that_is_not_asked_for_is_not_computed() -> None:
    logits, actions = torch.randn(30, 9, requires_grad=True), torch.randint(9, (30,))
    log_prob, entropy = log_prob_and_entropy(logits, actions, entropy_gradient=None)
    assert torch.equal(log_prob, log_prob_and_entropy(logits, actions)[0])
    assert entropy.isnan().all() and not entropy.requires_grad


def test_q_targets_single_and_double() -> None:
    rewards, discounts = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0])
    target = torch.tensor([[3.0, 7.0], [5.0, 4.0]])
    online = torch.tensor([[9.0, 1.0], [0.0, 1.0]])
    assert q_targets(rewards, discounts, target).tolist() == [4.5, 2.0]
    assert q_targets(rewards, discounts, target, online).tolist() == [2.5, 2.0]


def test_dqn_loss_is_hubers() -> None:
    q_values = torch.tensor([[0.0, 1.0], [4.0, 0.0]])
    loss = dqn_loss(q_values, torch.tensor([1, 0]), torch.tensor([1.5, 1.0]))
    assert loss.item() == pytest.approx((0.5 * 0.5**2 + (3 - 0.5)) / 2)


def test_bradley_terry_loss_is_the_papers() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(2, 30))
    tie, theta, expected = rng.random(30) < 0.4, 1.7, 0.0
    for a, b, neither in zip(np.exp(chosen), np.exp(rejected), tie, strict=True):
        draw = (theta**2 - 1) * a * b / ((a + theta * b) * (b + theta * a))
        expected -= math.log(draw if neither else a / (a + theta * b)) / 30
        expected += 0.2 * math.log(a * b) ** 2 / 30
    given = map(torch.as_tensor, (chosen, rejected, tie, math.log(theta)))
    assert bradley_terry_loss(*given, center_coef=0.2).item() == pytest.approx(expected)


def test_bradley_terry_loss_does_not_overflow() -> None:
    far, tie = torch.tensor([500.0, -500.0], requires_grad=True), torch.tensor([False, True])
    threshold = torch.tensor(200.0, requires_grad=True)
    loss = bradley_terry_loss(far, torch.zeros(2), tie, threshold)
    loss.backward()
    assert loss.item() == pytest.approx(150) and far.grad.isfinite().all() and threshold.grad.isfinite()


def test_bradley_terry_loss_is_that_of_trl() -> None:
    trainer = pytest.importorskip("trl").RewardTrainer
    rewards = torch.randn(12)
    accelerator = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    theirs = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=0.3),
        accelerator=accelerator,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    inputs = {"attention_mask": torch.ones(12, 1)}
    loss = trainer.compute_loss(theirs, lambda **_: SimpleNamespace(logits=rewards[:, None]), inputs)
    torch.testing.assert_close(bradley_terry_loss(*rewards.chunk(2), center_coef=0.3), loss)
