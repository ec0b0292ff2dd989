"""Distance to a reference policy: its log-probabilities, and the coefficient that charges for it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .algorithm import TextAlgorithm, find_tokenizer
from .backbone import Backbone, ModelSource, ModelSpec
from .buffers import PackedTensors
from .export import check_tokenizer
from .masks import mask_scores
from .policies import ContextReader, TransformerPolicy, TransformerQPolicy, token_log_probs


class ReferencePolicy(nn.Module):
    """Log-probabilities of a frozen policy.

    Args:
        policy: the policy that is trained, or the Q-policy.
        source: "initial" (the policy as it is now: its own base model with the adapters off where it has LoRA,
            else a frozen copy), a trained `TransformerPolicy`, or any source of `ModelSpec.model`.

    Raises:
        ValueError: if it is "initial" for a Q-policy without LoRA, whose output layer says Q-values.
    """

    def __init__(
        self, policy: TransformerPolicy | TransformerQPolicy, source: str | ModelSource | TransformerPolicy
    ) -> None:
        super().__init__()
        live = policy.backbone
        self._live = [live]  # in a list: its weights are the policy's, not ours to save
        initial = isinstance(source, str) and source == "initial"
        self.shares_base = initial and live.has_lora
        self._readers: list[ContextReader] = []  # in a list for the same reason
        if self.shares_base:
            self._readers.append(ContextReader(live))
            return
        if initial and isinstance(policy, TransformerQPolicy):
            raise ValueError(
                "reference='initial' needs LoRA here: a Q-network that is trained whole keeps nothing of its "
                "language model; pass that model as reference=, or policy_kwargs={'lora': rank}"
            )
        if initial:
            backbone = copy.deepcopy(live)
        else:
            model = source.backbone.merged() if isinstance(source, TransformerPolicy) else source
            spec = ModelSpec(model, dtype=policy.spec.dtype, frozen=True)
            backbone = Backbone(spec, live.vocab_size, live.context_length)
        self.frozen = ContextReader(backbone.requires_grad_(False)).to(policy.device)
        self._readers.append(self.frozen)

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Within, `step_log_probs` follows growing contexts with a key-value cache."""
        (reader,) = self._readers
        with reader.cached():
            yield

    @torch.no_grad()
    def log_prob(self, packs: Sequence[PackedTensors], actions: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return (N,) log-probabilities of actions at the packs' positions, in nats.

        `masks` are the bits (N, ceil(V / 8)) of the actions that it chooses among, None for all.
        """
        with self._speaking() as reader:
            return token_log_probs(reader.backbone, reader.packed_hidden(packs), actions, masks=masks)[0]

    @torch.no_grad()
    def packed_log_probs(self, packs: Sequence[PackedTensors], legal: Tensor | None = None) -> Tensor:
        """Return (N, V) log-probabilities at the packs' positions, of the legal actions (N, V), None: of all."""
        with self._speaking() as reader:
            return _log_probs(reader.backbone, reader.packed_hidden(packs), legal)

    @torch.no_grad()
    def step_log_probs(self, obs: Tensor, legal: Tensor | None = None) -> Tensor:
        """Return (B, V) log-probabilities at observations (B, L), of the legal actions (B, V), None: of all."""
        with self._speaking() as reader:
            return _log_probs(reader.backbone, reader.last_hidden(obs), legal)

    @contextmanager
    def _speaking(self) -> Iterator[ContextReader]:
        """Hold the model as the reference is: without its adapters where it is the policy's own base."""
        (reader,) = self._readers
        if not self.shares_base:
            yield reader
            return
        with reader.backbone.adapters_off():
            yield reader


def _log_probs(backbone: Backbone, hidden: Tensor, legal: Tensor | None) -> Tensor:
    return torch.log_softmax(mask_scores(backbone.language_scores(hidden), legal), dim=-1)


class ReferenceAlgorithm(TextAlgorithm):
    """A mixin before an algorithm of SB3 whose constructor sets `reference`: makes that policy, and saves it."""

    policy: Any  # a TransformerPolicy or a TransformerQPolicy; SB3 declares its own
    reference: str | ModelSource | TransformerPolicy | None
    reference_policy: ReferencePolicy | None

    def _setup_model(self) -> None:
        (expected,) = self.policy_aliases.values()
        if not issubclass(self.policy_class, expected):
            raise TypeError(
                f"{type(self).__name__} is for a {expected.__name__}, got {self.policy_class.__name__}; use that "
                "with Stable-Baselines3's own algorithms (its actions are not tokens that a context grows by)"
            )
        super()._setup_model()  # type: ignore[safe-super]  # SB3's algorithm comes next
        self.reference_policy = None
        if self.reference is not None:
            if self.env is not None and isinstance(self.reference, str | Path) and self.reference != "initial":
                for tokenizer in find_tokenizer(self.env):
                    check_tokenizer(self.reference, tokenizer)
            self.reference_policy = ReferencePolicy(self.policy, self.reference)
            if not self.reference_policy.shares_base:
                self.reference = self.reference_policy.frozen.backbone.source
        self._remember_architecture()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "reference_policy"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        if self.reference_policy is not None and not self.reference_policy.shares_base:
            state_dicts = [*state_dicts, "reference_policy"]
        return state_dicts, variables


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
