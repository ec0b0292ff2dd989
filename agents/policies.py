"""Stable-Baselines3 policies around a causal language model.

Each serves two callers with one set of weights: stock algorithms call SB3's methods (every step reads its whole
context, trimmed to the longest of the batch); ours call `cached` in rollouts and `evaluate_packed` in updates.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .backbone import Backbone, ModelSource, ModelSpec
from .buffers import PackedTensors
from .kv_cache import ContextFollower, check_cache
from .losses import log_prob_and_entropy

_CHUNK_ELEMENTS = 2**25  # scores held at once (128 MiB in float32) when the vocabulary is large


class ContextReader(nn.Module):
    """A backbone that reads right-padded observations, with or without a key-value cache."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self._follower: ContextFollower | None = None
        self._following = False
        self._rows: int | None = None  # whose contexts are followed now; other batches are read whole

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Within, successive calls follow growing contexts with a key-value cache; weights must not change."""
        self._following = self._uncacheable is None
        self._rows = None
        if self._follower is not None:
            self._follower.forget()
        try:
            yield
        finally:
            self._following = False

    @cached_property
    def _uncacheable(self) -> str | None:
        reason = check_cache(self.backbone)
        if reason is not None:
            warnings.warn(f"no key-value cache for this model, so contexts are read whole: {reason}", stacklevel=2)
        return reason

    def last_hidden(self, obs: Tensor) -> Tensor:
        """Return (B, D), the hidden state of the last token of each observation (B, L)."""
        if self._following and not torch.is_grad_enabled() and self._rows in (None, len(obs)):
            return self._followed(obs)
        pad = self.backbone.vocab_size
        length = (obs != pad).sum(dim=1)
        shortest, longest = (int(bound) for bound in torch.aminmax(length))
        if shortest < 1:
            raise ValueError(f"an observation holds no token, only the padding {pad}; a context has at least one")
        trimmed = obs[:, :longest].long()
        hidden = self.backbone.hidden(trimmed.masked_fill(trimmed == pad, 0))
        return hidden[torch.arange(len(obs), device=obs.device), length - 1]

    def _followed(self, obs: Tensor) -> Tensor:
        """Return (B, D) with the cache."""
        self._rows = len(obs)
        if self._follower is None or self._follower.n_rows != self._rows:
            self._follower = ContextFollower(self.backbone, self._rows)
        ids = obs.cpu().numpy()
        return self._follower.last_hidden(ids, (ids != self.backbone.vocab_size).sum(axis=1))

    def packed_hidden(self, packs: Sequence[PackedTensors]) -> Tensor:
        """Return (N, D), the hidden states at the packs' positions."""
        return torch.cat([self.backbone.hidden(p.ids)[p.row, p.position] for p in packs])


def _check_spaces(observation_space: spaces.Space, action_space: spaces.Space) -> tuple[int, int]:
    """Return (V, L) of a token environment.

    Raises:
        ValueError: if the spaces are not those of token ids padded with V.
    """
    if not (
        isinstance(observation_space, spaces.Box)
        and isinstance(action_space, spaces.Discrete)
        and len(observation_space.shape) == 1
        and np.issubdtype(observation_space.dtype, np.integer)
        and action_space.start == 0
        and bool((observation_space.high == action_space.n).all())
    ):
        raise ValueError(
            f"observation space {observation_space} with action space {action_space} is not a token environment; "
            "expected Box(0, V, (L,), int64) padded with V, and Discrete(V)"
        )
    return int(action_space.n), int(observation_space.shape[0])


class TransformerPolicy(BasePolicy):
    """Actor and critic on one causal language model: its logits are the policy, a linear head the value.

    Args:
        observation_space: Box(0, V, (L,), int64), right-padded with V.
        action_space: Discrete(V).
        lr_schedule: learning rate as a function of the remaining progress.
        use_sde: must be False (it is for continuous actions).
        model: see `ModelSpec`; None builds a small GPT-2 from scratch.
        lora: see `ModelSpec`.
        dtype: see `ModelSpec`.
        dropout: see `ModelSpec`.
        trust_remote_code: see `ModelSpec`.
        value_trunk: "shared" trains the trunk for the value too; "detached" reads it without training it.
        optimizer_class: of the weights that are trained.
        optimizer_kwargs: its arguments but the learning rate; Adam is fused, its epsilon 1e-5 as in SB3's PPO.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        use_sde: bool = False,
        *,
        model: ModelSource | None = None,
        lora: int | Any | None = None,
        dtype: str | None = None,
        dropout: bool = False,
        trust_remote_code: bool = False,
        value_trunk: str = "shared",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if optimizer_kwargs is None:
            optimizer_kwargs = {"eps": 1e-5, "fused": True} if optimizer_class is torch.optim.Adam else {}
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        if use_sde:
            raise ValueError("use_sde=True is for continuous actions; tokens are discrete")
        if value_trunk not in ("shared", "detached"):
            raise ValueError(f"value_trunk={value_trunk!r}; choose 'shared' or 'detached'")
        vocab_size, length = _check_spaces(observation_space, action_space)
        self.spec = ModelSpec(model, lora, dtype, dropout, trust_remote_code)
        self.value_trunk = value_trunk
        self.reader = ContextReader(Backbone(self.spec, vocab_size, length))
        self.value_head = nn.Linear(self.backbone.width, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.optimizer = _make_optimizer(self, lr_schedule)

    @property
    def backbone(self) -> Backbone:
        """The language model."""
        return self.reader.backbone

    def cached(self) -> Any:
        """Within, successive calls follow growing contexts with a key-value cache; weights must not change."""
        return self.reader.cached()

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (B,), values (B, 1) and log-probabilities (B,) for observations (B, L)."""
        hidden = self.reader.last_hidden(obs)
        log_probs = torch.log_softmax(self.backbone.scores(hidden), dim=-1)
        actions = _choose(log_probs, deterministic)
        return actions, self._values(hidden), log_probs.gather(1, actions[:, None])[:, 0]

    def evaluate_actions(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (N, 1), log-probabilities (N,) and entropies (N,): one whole context a transition."""
        hidden = self.reader.last_hidden(obs)
        log_prob, entropy = log_prob_and_entropy(self.backbone.scores(hidden), actions.long().flatten())
        return self._values(hidden), log_prob, entropy

    def evaluate_packed(
        self, packs: Sequence[PackedTensors], actions: Tensor, entropy_gradient: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (N,), log-probabilities (N,) and entropies (N,): one forward a pack of fragments."""
        hidden = self.reader.packed_hidden(packs)
        log_prob, entropy = token_log_probs(self.backbone, hidden, actions, entropy_gradient)
        return self._values(hidden)[:, 0], log_prob, entropy

    def packed_log_probs(self, packs: Sequence[PackedTensors], actions: Tensor) -> Tensor:
        """Return log-probabilities (N,), one forward a pack of fragments."""
        return token_log_probs(self.backbone, self.reader.packed_hidden(packs), actions)[0]

    def predict_values(self, obs: Tensor) -> Tensor:
        """Return (B, 1)."""
        return self._values(self.reader.last_hidden(obs))

    def get_distribution(self, obs: Tensor) -> CategoricalDistribution:
        """Return SB3's distribution over the V actions."""
        distribution = CategoricalDistribution(self.backbone.vocab_size)
        return distribution.proba_distribution(self.backbone.scores(self.reader.last_hidden(obs)))

    def save_pretrained(self, directory: str, tokenizer: Any = None) -> None:
        """Write the language model, adapters merged, as a folder that transformers loads; see `export.py`."""
        from .export import save_pretrained

        save_pretrained(self.backbone, directory, tokenizer)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        scores = self.backbone.scores(self.reader.last_hidden(observation))
        return _choose(torch.log_softmax(scores, dim=-1), deterministic)

    def _values(self, hidden: Tensor) -> Tensor:
        if self.value_trunk == "detached":
            hidden = hidden.detach()
        with torch.autocast(hidden.device.type, enabled=False):  # returns are learned in float32
            return self.value_head(hidden.float())

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **_constructor_parameters(self, self.spec, self.backbone),
            "value_trunk": self.value_trunk,
        }


class TransformerQNetwork(BasePolicy):
    """Q-values of every action, read off a causal language model with an output layer of its own."""

    def __init__(self, observation_space: spaces.Box, action_space: spaces.Discrete, spec: ModelSpec) -> None:
        super().__init__(observation_space, action_space)
        vocab_size, length = _check_spaces(observation_space, action_space)
        self.reader = ContextReader(Backbone(spec, vocab_size, length, fresh_head=True))

    def forward(self, obs: Tensor) -> Tensor:
        """Return (B, V) for observations (B, L)."""
        return self.reader.backbone.scores(self.reader.last_hidden(obs))

    def evaluate_packed(self, packs: Sequence[PackedTensors]) -> Tensor:
        """Return (N, V), one forward a pack of fragments."""
        return self.reader.backbone.scores(self.reader.packed_hidden(packs))

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:  # type: ignore[override]
        return self(observation).argmax(dim=1)


class TransformerQPolicy(BasePolicy):
    """Q-network and target network on a causal language model.

    Args:
        observation_space: Box(0, V, (L,), int64), right-padded with V.
        action_space: Discrete(V).
        lr_schedule: learning rate as a function of the remaining progress.
        model: see `ModelSpec`; None builds a small GPT-2 from scratch.
        lora: see `ModelSpec`.
        dtype: see `ModelSpec`.
        dropout: see `ModelSpec`.
        trust_remote_code: see `ModelSpec`.
        optimizer_class: of the weights that are trained.
        optimizer_kwargs: its arguments but the learning rate; Adam is fused.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        model: ModelSource | None = None,
        lora: int | Any | None = None,
        dtype: str | None = None,
        dropout: bool = False,
        trust_remote_code: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if optimizer_kwargs is None:
            optimizer_kwargs = {"fused": True} if optimizer_class is torch.optim.Adam else {}
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.spec = ModelSpec(model, lora, dtype, dropout, trust_remote_code)
        self.q_net = TransformerQNetwork(observation_space, action_space, self.spec)
        self.q_net_target = copy.deepcopy(self.q_net)
        self.q_net_target.set_training_mode(False)
        self.optimizer = _make_optimizer(self, lr_schedule, self.q_net)

    @property
    def backbone(self) -> Backbone:
        """The language model whose output layer gives Q-values."""
        return self.q_net.reader.backbone

    def cached(self) -> Any:
        """Within, successive calls follow growing contexts with a key-value cache; weights must not change."""
        return self.q_net.reader.cached()

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """Return greedy actions (B,) for observations (B, L)."""
        return self._predict(obs, deterministic)

    def save_pretrained(self, directory: str, tokenizer: Any = None) -> None:
        """Write a folder that transformers loads, whose greedy decoding is the greedy policy; see `export.py`."""
        from .export import save_pretrained

        save_pretrained(self.backbone, directory, tokenizer)

    def set_training_mode(self, mode: bool) -> None:
        """Set dropout and the like; the target network never trains."""
        self.q_net.set_training_mode(mode)
        self.training = mode

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:  # type: ignore[override]
        return self.q_net._predict(observation, deterministic)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return _constructor_parameters(self, self.spec, self.backbone)


def token_log_probs(
    backbone: Backbone, hidden: Tensor, actions: Tensor, entropy_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N,) of actions and entropies (N,) at hidden states (N, D).

    A large vocabulary is scored in chunks that are computed again in the backward pass: (N, V) is never kept.
    """

    def score(part: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return log_prob_and_entropy(backbone.scores(part), chosen, entropy_gradient)

    rows = max(1, _CHUNK_ELEMENTS // backbone.vocab_size)
    if len(hidden) <= rows:
        return score(hidden, actions)
    parts = [
        checkpoint(score, part, chosen, use_reentrant=False)
        for part, chosen in zip(hidden.split(rows), actions.split(rows), strict=True)
    ]
    log_prob, entropy = zip(*parts, strict=True)
    return torch.cat(log_prob), torch.cat(entropy)


def _choose(log_probs: Tensor, deterministic: bool) -> Tensor:
    """Return (B,) the likeliest or a sampled action of (B, V) log-probabilities."""
    if deterministic:
        return log_probs.argmax(dim=-1)
    # Inverse transform sampling: torch.multinomial draws V exponentials a row, five times slower at V = 49,152.
    cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
    draw = torch.rand(len(log_probs), 1, dtype=torch.float64, device=log_probs.device)
    chosen = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)[:, 0]
    return chosen.clamp_(max=log_probs.shape[-1] - 1)


def _make_optimizer(
    policy: BasePolicy, lr_schedule: Schedule, trained: nn.Module | None = None
) -> torch.optim.Optimizer:
    parameters = [p for p in (trained or policy).parameters() if p.requires_grad]
    return policy.optimizer_class(parameters, lr=lr_schedule(1), **policy.optimizer_kwargs)  # type: ignore[call-arg]


def _constructor_parameters(policy: BasePolicy, spec: ModelSpec, backbone: Backbone) -> dict[str, Any]:
    """Return what rebuilds a policy: the weights come from its state dict, so the config stands for the model."""
    return {
        "observation_space": policy.observation_space,
        "action_space": policy.action_space,
        "lr_schedule": policy._dummy_schedule,
        "model": backbone.config,
        "lora": spec.lora,
        "dtype": spec.dtype,
        "dropout": spec.dropout,
        "trust_remote_code": spec.trust_remote_code,
        "optimizer_class": policy.optimizer_class,
        "optimizer_kwargs": policy.optimizer_kwargs,
    }
