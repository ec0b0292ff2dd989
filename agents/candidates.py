"""Policies that choose among proposed utterances, each read by a causal language model after the context.

A step is a whole utterance, so nothing is cached between steps and Stable-Baselines3's own algorithms and buffers
are all they need: `stable_baselines3.PPO(CandidatePolicy, env, policy_kwargs={"layout": env.candidate_layout})`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from .backbone import Backbone
from .losses import log_prob_and_entropy
from .masks import MaskedPolicy, mask_scores
from .models import ModelSource, ModelSpec
from .policies import (
    QPolicy,
    TrainedParameters,
    choose,
    constructor_parameters,
    make_optimizer,
    optimizer_options,
    read_value,
    token_log_probs,
    without_head,
    zero_head,
)
from .reading import context_lengths, last_hidden

Prior = Literal["mean", "sum", "none"]
Layout = Sequence[int]


class Candidates(NamedTuple):
    """What a model makes of B contexts with K candidates each.

    Attributes:
        context: (B, D) hidden state of each context's last token.
        last: (B, K, D) hidden state of each candidate's last token.
        log_prob: (B, K) log-likelihood of each candidate after its context, in nats.
        length: (B, K) its tokens.
        present: (B, K), False where there is no candidate; the others' values mean nothing there.
    """

    context: Tensor
    last: Tensor
    log_prob: Tensor
    length: Tensor
    present: Tensor


class CandidateReader(nn.Module):
    """A backbone that reads observations [context | candidate 1 | ... | candidate K], each padded with V.

    Args:
        observation_space: Box(0, V, (L + K * C,), int64).
        action_space: Discrete(K).
        layout: (L, K, C), the environment's `candidate_layout`.
        spec: of the model.

    Raises:
        ValueError: if spaces and layout do not go together.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        layout: Layout | None,
        spec: ModelSpec,
    ) -> None:
        super().__init__()
        self.layout = check_layout(observation_space, action_space, layout)
        length, _, size = self.layout
        vocab_size = int(observation_space.high.flat[0])  # type: ignore[attr-defined]  # a Box: just checked
        self.backbone = Backbone(spec, vocab_size, length + size)

    def forward(self, obs: Tensor, likelihood: bool = True) -> Candidates:
        """Return what the model makes of observations (B, L + K * C); without `likelihood` its column is 0."""
        length, k, size = self.layout
        pad, rows = self.backbone.vocab_size, len(obs)
        before = context_lengths(obs[:, :length], pad)[0][:, None]  # (B, 1)
        context, candidates = obs[:, :length].long(), obs[:, length:].long().reshape(rows, k, size)
        spoken = (candidates != pad).sum(dim=2)  # (B, K)
        whole = self._joined(context, candidates, before)[:, :, : int((before + spoken).max())]
        hidden = self.backbone.hidden(whole.flatten(0, 1).masked_fill(whole.flatten(0, 1) == pad, 0))
        hidden = hidden.unflatten(0, (rows, k))  # (B, K, T, D)
        row, column = (torch.arange(n, device=obs.device) for n in (rows, k))
        last = hidden[row[:, None], column, before + spoken - 1]
        log_prob = torch.zeros_like(spoken, dtype=last.dtype)
        if likelihood:
            said = torch.arange(whole.shape[2], device=obs.device)[1:]
            said = (said >= before[..., None]) & (said < (before + spoken)[..., None])  # (B, K, T - 1)
            each, _ = token_log_probs(
                self.backbone, hidden[:, :, :-1][said], whole[:, :, 1:][said], entropy_gradient=None
            )
            log_prob = (
                torch.zeros(said.shape, dtype=each.dtype, device=obs.device).masked_scatter(said, each).sum(2)
            )
        return Candidates(hidden[row, 0, before[:, 0] - 1], last, log_prob, spoken, spoken > 0)

    def _joined(self, context: Tensor, candidates: Tensor, before: Tensor) -> Tensor:
        """Return (B, K, L + C) ids: each candidate where its context ends, then padding."""
        pad = self.backbone.vocab_size
        rows, k, size = candidates.shape
        whole = torch.full((rows, k, context.shape[1] + size), pad, device=context.device)
        whole[:, :, : context.shape[1]] = context[:, None]
        where = before[..., None] + torch.arange(size, device=context.device)  # (B, 1, C)
        return whole.scatter(2, where.expand(rows, k, size), candidates)


class CandidatePolicy(MaskedPolicy):
    """Actor and critic over candidates, whose logits are prior + head(hidden state of a candidate's last token).

    The head begins at 0, so the first policy is the prior's. The value is read where the context ends. Absent
    candidates are never chosen, with `action_masks` or without.

    Args:
        observation_space: Box(0, V, (L + K * C,), int64), see `CandidateReader`.
        action_space: Discrete(K).
        lr_schedule: learning rate as a function of the remaining progress.
        use_sde: must be False (it is for continuous actions).
        layout: (L, K, C), the environment's `candidate_layout`: the spaces tell only L + K * C and K.
        prior: "mean" log-likelihood of a candidate's tokens; their "sum", which is the model's own distribution
            over the candidates and prefers short ones; or "none", as fits candidates that the model sampled.
        value_trunk: "shared" trains the trunk for the value too; "detached" reads it without training it.
        model: see `ModelSpec`; None builds a small GPT-2 from scratch.
        lora: see `ModelSpec`.
        dtype: see `ModelSpec`.
        dropout: see `ModelSpec`.
        trust_remote_code: see `ModelSpec`.
        gradient_checkpointing: see `ModelSpec`.
        optimizer_class: of the weights that are trained.
        optimizer_kwargs: its arguments but the learning rate; Adam is fused, its epsilon 1e-5 as in SB3's PPO.

    Raises:
        ValueError: if the layout is missing or does not fit the spaces, or an argument is none of its choices.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        layout: Layout | None = None,
        prior: Prior = "mean",
        value_trunk: Literal["shared", "detached"] = "shared",
        model: ModelSource | None = None,
        lora: int | Any | None = None,
        dtype: str | None = None,
        dropout: bool = False,
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        optimizer_kwargs = optimizer_options(optimizer_class, optimizer_kwargs, {"eps": 1e-5, "fused": True})
        super().__init__(
            observation_space, action_space, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs
        )
        if use_sde:
            raise ValueError("use_sde=True is for continuous actions; candidates are discrete")
        if prior not in get_args(Prior):
            raise ValueError(f"prior={prior!r}; choose from {', '.join(get_args(Prior))}")
        if value_trunk not in ("shared", "detached"):
            raise ValueError(f"value_trunk={value_trunk!r}; choose 'shared' or 'detached'")
        self.spec = ModelSpec(model, lora, dtype, dropout, trust_remote_code, gradient_checkpointing)
        self.prior, self.value_trunk = prior, value_trunk
        self.reader = CandidateReader(observation_space, action_space, layout, self.spec)
        if prior == "none":
            without_head(self.backbone)
        self.head, self.value_head = zero_head(self.backbone.width), zero_head(self.backbone.width)
        self.optimizer = make_optimizer(self, lr_schedule)

    @property
    def backbone(self) -> Backbone:
        """The language model."""
        return self.reader.backbone

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (B,), values (B, 1) and log-probabilities (B,) for observations (B, L + K * C)."""
        logits, values = self._read(obs, self.legal())
        log_probs = torch.log_softmax(logits, dim=-1)
        actions = choose(log_probs, deterministic)
        return actions, values, log_probs.gather(1, actions[:, None])[:, 0]

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (N, 1), log-probabilities (N,) and entropies (N,); `action_masks` (N, K) are the legal."""
        logits, values = self._read(obs, action_masks)
        log_prob, entropy = log_prob_and_entropy(logits, actions.long().flatten())
        return values, log_prob, entropy

    def predict_values(self, obs: Tensor) -> Tensor:
        """Return (B, 1)."""
        return self._values(last_hidden(self.backbone, obs[:, : self.reader.layout[0]]))

    def get_distribution(self, obs: Tensor, action_masks: Tensor | None = None) -> CategoricalDistribution:
        """Return SB3's distribution over the K candidates."""
        distribution = CategoricalDistribution(self.reader.layout[1])
        return distribution.proba_distribution(self._read(obs, action_masks)[0])

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        return choose(torch.log_softmax(self._read(observation, self.legal())[0], dim=-1), deterministic)

    def _read(self, obs: Tensor, legal: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return logits (B, K), least where a candidate is absent or not legal, and values (B, 1)."""
        read = self.reader(obs, likelihood=self.prior != "none")
        logits = read_value(self.head, read.last)[..., 0]
        if self.prior != "none":
            logits = logits + read.log_prob / (read.length.clamp(min=1) if self.prior == "mean" else 1)
        logits = mask_scores(logits, read.present if legal is None else read.present & legal.bool())
        return logits, self._values(read.context)

    def _values(self, hidden: Tensor) -> Tensor:
        return read_value(self.value_head, hidden.detach() if self.value_trunk == "detached" else hidden)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = constructor_parameters(self, self.spec, self.backbone)
        del parameters["compile"]
        return {
            **parameters,
            "layout": self.reader.layout,
            "prior": self.prior,
            "value_trunk": self.value_trunk,
        }


class CandidateQNetwork(TrainedParameters, BaseModel):
    """Q-values of candidates, read at each one's last token."""

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Discrete, layout: Layout | None, spec: ModelSpec
    ) -> None:
        super().__init__(observation_space, action_space)
        self.reader = CandidateReader(observation_space, action_space, layout, spec)
        without_head(self.reader.backbone)
        self.head = zero_head(self.reader.backbone.width)

    def forward(self, obs: Tensor) -> Tensor:
        """Return (B, K) for observations (B, L + K * C).

        An absent candidate has one less than the worst present one: it is never greedy, and stays finite in the
        loss of stock DQN, whose exploration knows no masks. Where there is none at all the values are 0.
        """
        read = self.reader(obs, likelihood=False)
        q_values = read_value(self.head, read.last)[..., 0]
        worst = q_values.detach().masked_fill(~read.present, torch.inf).amin(dim=1, keepdim=True)
        absent = torch.where(worst.isfinite(), worst - 1, 0.0)
        return torch.where(read.present, q_values, absent)


class CandidateQPolicy(QPolicy):
    """Q-network and target network over candidates; with LoRA both have the same frozen base.

    Args:
        observation_space: Box(0, V, (L + K * C,), int64), see `CandidateReader`.
        action_space: Discrete(K).
        lr_schedule: learning rate as a function of the remaining progress.
        layout: (L, K, C), the environment's `candidate_layout`: the spaces tell only L + K * C and K.
        model: see `ModelSpec`; None builds a small GPT-2 from scratch.
        lora: see `ModelSpec`.
        dtype: see `ModelSpec`.
        dropout: see `ModelSpec`.
        trust_remote_code: see `ModelSpec`.
        gradient_checkpointing: see `ModelSpec`.
        optimizer_class: of the weights that are trained.
        optimizer_kwargs: its arguments but the learning rate; Adam is fused.

    Raises:
        ValueError: if the layout is missing or does not fit the spaces.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        layout: Layout | None = None,
        model: ModelSource | None = None,
        lora: int | Any | None = None,
        dtype: str | None = None,
        dropout: bool = False,
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        optimizer_kwargs = optimizer_options(optimizer_class, optimizer_kwargs, {"fused": True})
        super().__init__(
            observation_space, action_space, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs
        )
        self.spec = ModelSpec(model, lora, dtype, dropout, trust_remote_code, gradient_checkpointing)
        self._build(CandidateQNetwork(observation_space, action_space, layout, self.spec), lr_schedule)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = constructor_parameters(self, self.spec, self.backbone)
        del parameters["compile"]
        return {**parameters, "layout": self.q_net.reader.layout}


def check_layout(
    observation_space: spaces.Space, action_space: spaces.Space, layout: Layout | None
) -> tuple[int, int, int]:
    """Return (L, K, C) of a candidate environment.

    Raises:
        ValueError: if the layout is missing, or the spaces are not those of candidates so laid out.
    """
    if layout is None:
        raise ValueError(
            "the spaces do not tell how long a candidate is; pass the environment's layout, "
            'policy_kwargs={"layout": env.candidate_layout} (of a VecEnv: env.get_attr("candidate_layout")[0])'
        )
    length, k, size = (int(n) for n in layout)
    if not (
        isinstance(observation_space, spaces.Box)
        and isinstance(action_space, spaces.Discrete)
        and observation_space.shape == (length + k * size,)
        and np.issubdtype(observation_space.dtype, np.integer)
        and bool((observation_space.high == observation_space.high[0]).all())
        and (action_space.start, action_space.n) == (0, k)
        and min(length, k, size) > 0
    ):
        raise ValueError(
            f"observation space {observation_space} with action space {action_space} is not that of candidates "
            f"laid out as (L, K, C) = {(length, k, size)}; expected Box(0, V, (L + K * C,), int64) and Discrete(K)"
        )
    return length, k, size
