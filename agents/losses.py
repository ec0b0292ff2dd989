"""The equations that algorithms minimise: pure functions of tensors, no state and no logging."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class PPOLoss(NamedTuple):
    """PPO's loss and what is logged of it; all scalars, the last two without gradient."""

    total: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor


def log_prob_and_entropy(
    logits: Tensor, actions: Tensor, entropy_gradient: bool | None = True
) -> tuple[Tensor, Tensor]:
    """Return (N,) log-probabilities of actions and (N,) entropies, in nats.

    Args:
        logits: (N, V).
        actions: (N,) int64.
        entropy_gradient: False saves the entropy's backward pass over (N, V), where it is only logged; None saves
            it whole: nan stands for what was not asked for.
    """
    normalizer = logits.logsumexp(dim=-1)
    log_prob = logits.gather(-1, actions[:, None])[:, 0] - normalizer
    if entropy_gradient is None:
        return log_prob, torch.full_like(log_prob, torch.nan)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        probabilities = (logits - normalizer[:, None]).exp()
        entropy = normalizer - (probabilities * logits).sum(-1)
    return log_prob, entropy


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the policy's loss and, without gradient, the fraction that is clipped and the KL to the old policy.

    Every tensor is (N,), means are over transitions.

    Source: Schulman et al. 2017, eq. 7, arXiv:1707.06347; the KL is the k3 estimator of
    http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy = -torch.min(advantages * ratio, advantages * clipped).mean()
    with torch.no_grad():
        clip_fraction = ((ratio - 1).abs() > clip_range).float().mean()
        approx_kl = (ratio - 1 - log_ratio).mean()
    return policy, clip_fraction, approx_kl


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantages: Tensor,
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    entropy: Tensor,
    *,
    clip_range: float,
    clip_range_vf: float | None,
    ent_coef: float,
    vf_coef: float,
) -> PPOLoss:
    """Return the clipped surrogate, value and entropy terms; every tensor is (N,), means are over transitions.

    Source: Schulman et al. 2017, eq. 9, arXiv:1707.06347; value clipping as in Stable-Baselines3.
    """
    policy, clip_fraction, approx_kl = clipped_surrogate(log_prob, old_log_prob, advantages, clip_range)
    if clip_range_vf is not None:
        values = old_values + (values - old_values).clamp(-clip_range_vf, clip_range_vf)
    value = F.mse_loss(returns, values)
    entropy = entropy.mean()
    total = policy - ent_coef * entropy + vf_coef * value
    return PPOLoss(total, policy, value, entropy, clip_fraction, approx_kl)


Advantage = Literal["grpo", "rloo", "dr_grpo"]


def group_advantages(returns: NDArray[np.float64], kind: Advantage) -> NDArray[np.float64]:
    """Return (G, n) advantages of (G, n) returns, n episodes of each of G prompts.

    "grpo" divides the difference to the group's mean by its standard deviation (Shao et al. 2024,
    arXiv:2402.03300), "dr_grpo" does not (Liu et al. 2025, arXiv:2503.20783), "rloo" takes the mean of the
    other episodes (Ahmadian et al. 2024, arXiv:2402.14740).
    """
    difference = returns - returns.mean(axis=1, keepdims=True)
    if kind == "grpo":
        return difference / (returns.std(axis=1, keepdims=True) + 1e-4)
    if kind == "rloo":
        return difference * (returns.shape[1] / (returns.shape[1] - 1))
    return difference


class GRPOLoss(NamedTuple):
    """GRPO's loss and what is logged of it; all scalars, the last three without gradient."""

    total: Tensor
    policy: Tensor
    entropy: Tensor
    kl: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor


def grpo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    reference_log_prob: Tensor | None,
    advantages: Tensor,
    entropy: Tensor,
    *,
    clip_range: float,
    kl_coef: float,
    ent_coef: float,
) -> GRPOLoss:
    """Return the clipped surrogate with group advantages and the KL to a reference; every tensor is (N,).

    Means are over tokens (Yu et al. 2025, eq. 8, arXiv:2503.14476), not first over each completion's: every token
    weighs the same, so a completion weighs by its length.

    Source: Shao et al. 2024, eq. 3 and the estimator of eq. 4, arXiv:2402.03300.
    """
    policy, clip_fraction, approx_kl = clipped_surrogate(log_prob, old_log_prob, advantages, clip_range)
    kl = torch.zeros_like(policy)
    if reference_log_prob is not None:
        difference = reference_log_prob - log_prob
        kl = (difference.exp() - difference - 1).mean()
    entropy = entropy.mean()
    total = policy + kl_coef * kl - ent_coef * entropy
    return GRPOLoss(total, policy, entropy, kl.detach(), clip_fraction, approx_kl)


def normalize_advantages(advantages: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """Return advantages (T, B) less their mean, divided by their standard deviation or by `least`, if that is more.

    Source: the advantages of Schulman et al. 2017, arXiv:1707.06347, as implementations normalise them; that small
    ones are not scaled up is from Hafner et al. 2023, arXiv:2301.04104, section "Actor critic learning", where the
    bound is 1.
    """
    deviation = advantages.std(ddof=1)
    return (advantages - advantages.mean()) / (np.maximum(deviation, least) + 1e-8)


def whiten_rewards(rewards: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rewards with unit variance about their own mean, which stays.

    Source: Ziegler et al. 2019, arXiv:1909.08593, whose code whitens without shifting the mean; the option
    `whiten_rewards` of TRL's PPO. Described by Huang et al. 2024, arXiv:2403.17031.
    """
    mean = rewards.mean()
    return (rewards - mean) / np.sqrt(rewards.var() + 1e-8) + mean


def dueling_q(value: Tensor, advantages: Tensor) -> Tensor:
    """Return Q-values (..., V) of a state's value (..., 1) and its actions' advantages (..., V).

    Source: Wang et al. 2016, eq. 9, arXiv:1511.06581.
    """
    return value + advantages - advantages.mean(dim=-1, keepdim=True)


def guided_log_probs(q_values: Tensor, temperature: float, log_reference: Tensor | None = None) -> Tensor:
    """Return (..., V) log-probabilities of the policy proportional to reference * exp(Q / temperature).

    It maximises the expected Q-value less `temperature` times the KL to the reference; None is the uniform one,
    which makes it Boltzmann's.

    Source: Schulman et al. 2017, arXiv:1704.06440.
    """
    scores = q_values / temperature
    return torch.log_softmax(scores if log_reference is None else scores + log_reference, dim=-1)


def guided_charges(q_values: Tensor, temperature: float, log_reference: Tensor) -> Tensor:
    """Return (...,) temperature times the KL to the reference of the policy that `guided_log_probs` gives.

    It is what that policy's mean Q-value exceeds the soft value by.
    """
    scores = q_values / temperature + log_reference
    soft_value = temperature * scores.logsumexp(dim=-1)
    return (torch.softmax(scores, dim=-1) * q_values).sum(dim=-1) - soft_value


def later_charges(charges: Tensor, left: Tensor, n_steps: int, gamma: float) -> Tensor:
    """Return (N,) the discounted charges of the n - 1 steps that follow each one within its episode.

    Args:
        charges: (N,) of each step; the steps of an episode lie side by side.
        left: (N,) steps of the episode from each one on, that one among them.
        n_steps: n, length of the returns.
        gamma: discount.

    Source: Schulman et al. 2017, the n-step returns of soft Q-learning, arXiv:1704.06440.
    """
    total = torch.zeros_like(charges)
    for k in range(1, min(n_steps, len(charges))):
        total[:-k] += gamma**k * charges[k:] * (left[:-k] > k)
    return total


def top_actions(scores: Tensor, k: int) -> Tensor:
    """Return (..., V), True on the k largest scores."""
    kept = torch.zeros_like(scores, dtype=torch.bool)
    return kept.scatter_(-1, scores.topk(min(k, scores.shape[-1]), dim=-1).indices, True)


class CloningLoss(NamedTuple):
    """Behaviour cloning's loss and what is logged of it, in nats; scalars, the last without gradient."""

    total: Tensor
    entropy: Tensor


def cloning_loss(log_prob: Tensor, entropy: Tensor) -> CloningLoss:
    """Return the mean negative log-likelihood of tokens to imitate.

    Args:
        log_prob: (N,) of the tokens.
        entropy: (N,) of the policy there.
    """
    return CloningLoss(-log_prob.mean(), entropy.detach().mean())


@torch.no_grad()
def q_targets(
    rewards: Tensor,
    discounts: Tensor,
    next_q_target: Tensor,
    next_q_online: Tensor | None = None,
    legal: Tensor | None = None,
) -> Tensor:
    """Return (N,) bootstrapped targets: rewards + discounts * value of the next state.

    Args:
        rewards: (N,) one-step reward, or discounted sum of n.
        discounts: (N,) gamma^n, 0 where the episode terminated.
        next_q_target: (N, V) target network on the state n steps ahead.
        next_q_online: (N, V) online network on the same states, for double Q-learning; None takes the maximum.
        legal: (N, V), the actions that the maximum is over; None: all.

    Source: Mnih et al. 2015; van Hasselt et al. 2016, eq. 4, arXiv:1509.06461.
    """
    greedy = next_q_target if next_q_online is None else next_q_online
    if legal is not None:
        greedy = greedy.masked_fill(~legal, -torch.inf)
    next_value = next_q_target.gather(1, greedy.argmax(dim=1, keepdim=True))[:, 0]
    return rewards + discounts * next_value


@torch.no_grad()
def soft_q_targets(
    rewards: Tensor, discounts: Tensor, next_q_target: Tensor, log_reference: Tensor, temperature: float
) -> Tensor:
    """Return (N,) targets whose next value is temperature * log sum reference * exp(Q / temperature).

    Args:
        rewards: (N,) one-step reward, or discounted sum of n.
        discounts: (N,) gamma^n, 0 where the episode terminated.
        next_q_target: (N, V) target network on the state n steps ahead.
        log_reference: (N, V) log-probabilities of the reference there.
        temperature: price of a nat of KL to the reference, in reward.

    Source: Schulman et al. 2017, arXiv:1704.06440.
    """
    next_value = temperature * torch.logsumexp(log_reference + next_q_target / temperature, dim=1)
    return rewards + discounts * next_value


def dqn_loss(q_values: Tensor, actions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean Huber loss of (N, V) Q-values at (N,) actions against (N,) targets.

    Source: Mnih et al. 2015; threshold 1 as in Stable-Baselines3.
    """
    return F.smooth_l1_loss(q_values.gather(1, actions[:, None])[:, 0], targets)


def bradley_terry_loss(
    chosen: Tensor,
    rejected: Tensor,
    tie: Tensor | None = None,
    tie_threshold: Tensor | float = 0.0,
    center_coef: float = 0.0,
) -> Tensor:
    """Return the mean negative log-likelihood of comparisons; every tensor but the threshold is (N,).

    Args:
        chosen: scores, in log-odds, of what was preferred; of a tie, of one of the two.
        rejected: scores of the others.
        tie: bool, True where neither was preferred; None: nowhere.
        tie_threshold: log-odds that a difference must overcome not to be a tie, at least 0; above 0 where there
            are ties.
        center_coef: weight of the squared sum of both scores, which sets the scores' mean, otherwise free, to 0.

    Source: Bradley & Terry 1952; ties as in Rao & Kupper 1967, with theta = exp(tie_threshold); centring as in
    Eisenstein et al. 2023, arXiv:2312.09244.
    """
    difference = chosen - rejected
    log_prob = F.logsigmoid(difference - tie_threshold)
    if tie is not None:
        threshold = torch.as_tensor(tie_threshold, dtype=difference.dtype, device=difference.device)
        # log(theta^2 - 1), without an overflow
        both = 2 * threshold + torch.log(-torch.expm1(-2 * threshold))
        log_tie = log_prob + F.logsigmoid(-difference - threshold) + both
        log_prob = torch.where(tie, log_tie, log_prob)
    return center_coef * (chosen + rejected).square().mean() - log_prob.mean()
