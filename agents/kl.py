"""Distance to a reference policy: its log-probabilities, and the coefficient that charges for it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbone import Backbone, ModelSource, ModelSpec
from .buffers import PackedTensors
from .policies import ContextReader, TransformerPolicy, token_log_probs


class ReferencePolicy(nn.Module):
    """Log-probabilities of a frozen policy.

    Args:
        policy: the policy that is trained.
        source: "initial" (the policy as it is now: its own base model with the adapters off where it has LoRA,
            else a frozen copy), a trained `TransformerPolicy`, or any source of `ModelSpec.model`.
    """

    def __init__(self, policy: TransformerPolicy, source: str | ModelSource | TransformerPolicy) -> None:
        super().__init__()
        live = policy.backbone
        self._live = [live]  # in a list: its weights are the policy's, not ours to save
        self.shares_base = isinstance(source, str) and source == "initial" and live.has_lora
        if self.shares_base:
            return
        if isinstance(source, str) and source == "initial":
            backbone = copy.deepcopy(live)
        else:
            model = source.backbone.merged() if isinstance(source, TransformerPolicy) else source
            spec = ModelSpec(model, dtype=policy.spec.dtype)
            backbone = Backbone(spec, live.vocab_size, live.context_length)
        self.frozen = ContextReader(backbone.requires_grad_(False)).to(policy.device)

    @torch.no_grad()
    def log_prob(self, packs: Sequence[PackedTensors], actions: Tensor) -> Tensor:
        """Return (N,) log-probabilities of actions at the packs' positions, in nats."""
        reader = ContextReader(self._live[0]) if self.shares_base else self.frozen
        with reader.backbone.adapters_off() if self.shares_base else nullcontext():
            return token_log_probs(reader.backbone, reader.packed_hidden(packs), actions)[0]


@dataclass
class KLCoefficient:
    """What a nat of log-ratio costs in reward: fixed, or steered towards a target.

    Attributes:
        value: the coefficient now.
        target: nats per episode to hold; None keeps `value` fixed.
        horizon: episodes over which the coefficient follows; smaller follows faster.
        observed: nats per episode in the last rollout.

    Source: Ziegler et al. 2019, section 2.2, arXiv:1909.08593.
    """

    value: float
    target: float | None = None
    horizon: float = 1000.0
    observed: float = 0.0

    def update(self, kl: float, episodes: int) -> None:
        """Follow the KL (nats per episode) seen over some episodes."""
        self.observed = kl
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error * min(1.0, episodes / self.horizon)
