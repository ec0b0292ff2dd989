"""Stable-Baselines3 policies around a causal language model.

Each serves two callers with one set of weights: stock algorithms call SB3's methods (every step reads its whole
context, trimmed to the longest of the batch); ours call `cached` in rollouts and `evaluate_packed` in updates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .backbone import Backbone
from .buffers import PackedTensors
from .losses import dueling_q, log_prob_and_entropy
from .masks import MaskedPolicy, mask_scores, unpack_masks
from .models import ModelSource, ModelSpec
from .reading import ContextReader

_CHUNK_ELEMENTS = 2**25  # scores held at once (128 MiB in float32) when the vocabulary is large


def sharing_copy(module: nn.Module) -> Any:
    """Return a copy whose frozen weights are the module's own: with LoRA only adapters and heads are new."""
    return copy.deepcopy(module, {id(p): p for _, p in module.named_parameters() if not p.requires_grad})


def read_value(head: nn.Linear, hidden: Tensor) -> Tensor:
    """Return (..., 1) of hidden states (..., D), in float32 whatever the model's precision: returns need it."""
    with torch.autocast(hidden.device.type, enabled=False):
        return head(hidden.float())


def zero_head(width: int) -> nn.Linear:
    """Return a linear map (width) -> (1) that begins at 0."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def without_head(backbone: Backbone) -> Backbone:
    """Return the backbone; its output layer, which will not be used, is not trained unless it is the embedding."""
    if backbone.head.weight is not backbone.model.get_input_embeddings().weight:
        backbone.head.requires_grad_(False)
    return backbone


def token_sizes(observation_space: spaces.Space, action_space: spaces.Space) -> tuple[int, int]:
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


class TransformerPolicy(MaskedPolicy):
    """Actor and critic on one causal language model: its logits are the policy, a linear head the value.

    With `has_critic = False`, as algorithms without a value function set it, values are 0 and nothing is computed
    for them.

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
        gradient_checkpointing: see `ModelSpec`.
        compile: see `ModelSpec`.
        value_trunk: "shared" trains the trunk for the value too; "detached" reads it without training it;
            "separate" gives the value a trunk of its own, which begins as a copy. With LoRA both have the same
            frozen base, and the value its own adapters.
        optimizer_class: of the weights that are trained.
        optimizer_kwargs: its arguments but the learning rate; Adam is fused, its epsilon 1e-5 as in SB3's PPO.
    """

    has_critic = True

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
        gradient_checkpointing: bool = False,
        compile: bool = False,
        value_trunk: str = "shared",
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        optimizer_kwargs = optimizer_options(optimizer_class, optimizer_kwargs, {"eps": 1e-5, "fused": True})
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        if use_sde:
            raise ValueError("use_sde=True is for continuous actions; tokens are discrete")
        if value_trunk not in ("shared", "detached", "separate"):
            raise ValueError(f"value_trunk={value_trunk!r}; choose 'shared', 'detached' or 'separate'")
        vocab_size, length = token_sizes(observation_space, action_space)
        self.spec = ModelSpec(model, lora, dtype, dropout, trust_remote_code, gradient_checkpointing, compile)
        self.value_trunk = value_trunk
        self.reader = ContextReader(Backbone(self.spec, vocab_size, length))
        self.value_reader: ContextReader | None = None
        if value_trunk == "separate":
            self.value_reader = ContextReader(without_head(sharing_copy(self.backbone)))
        self.value_head = zero_head(self.backbone.width)
        self.optimizer = make_optimizer(self, lr_schedule)

    @property
    def backbone(self) -> Backbone:
        """The language model."""
        return self.reader.backbone

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Within, successive calls follow growing contexts with a key-value cache; weights must not change."""
        apart = self._value_reader()
        with self.reader.cached(), nullcontext() if apart is None else apart.cached():
            yield

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions (B,), values (B, 1) and log-probabilities (B,) for observations (B, L)."""
        hidden = self.reader.last_hidden(obs)
        log_probs = self._log_probs(hidden)
        actions = choose(log_probs, deterministic)
        return actions, self._values(self._read_value(obs, hidden)), log_probs.gather(1, actions[:, None])[:, 0]

    def evaluate_actions(
        self, obs: Tensor, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (N, 1), log-probabilities (N,) and entropies (N,): one whole context a transition.

        `action_masks` (N, V) are the legal actions, None where all are.
        """
        hidden = self.reader.last_hidden(obs)
        scores = mask_scores(self.backbone.scores(hidden), action_masks)
        log_prob, entropy = log_prob_and_entropy(scores, actions.long().flatten())
        return self._values(self._read_value(obs, hidden)), log_prob, entropy

    def evaluate_packed(
        self,
        packs: Sequence[PackedTensors],
        actions: Tensor,
        entropy_gradient: bool = True,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values (N,), log-probabilities (N,) and entropies (N,): one forward a pack of fragments.

        `masks` are the bits (N, ceil(V / 8)) of the legal actions, None where all are.
        """
        hidden = self.reader.packed_hidden(packs)
        log_prob, entropy = token_log_probs(self.backbone, hidden, actions, entropy_gradient, masks)
        apart = self._value_reader()
        if apart is not None:
            hidden = apart.packed_hidden(packs)
        return self._values(hidden)[:, 0], log_prob, entropy

    def packed_log_probs(
        self, packs: Sequence[PackedTensors], actions: Tensor, masks: Tensor | None = None
    ) -> Tensor:
        """Return log-probabilities (N,), one forward a pack of fragments; for `masks` see `evaluate_packed`."""
        return token_log_probs(self.backbone, self.reader.packed_hidden(packs), actions, None, masks)[0]

    def predict_values(self, obs: Tensor) -> Tensor:
        """Return (B, 1)."""
        if not self.has_critic:
            return torch.zeros(len(obs), 1, device=obs.device)
        return self._values((self.value_reader or self.reader).last_hidden(obs))

    def get_distribution(self, obs: Tensor, action_masks: Tensor | None = None) -> CategoricalDistribution:
        """Return SB3's distribution over the V actions, of which `action_masks` (B, V) are legal (None: all)."""
        distribution = CategoricalDistribution(self.backbone.vocab_size)
        scores = self.backbone.scores(self.reader.last_hidden(obs))
        return distribution.proba_distribution(mask_scores(scores, action_masks))

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        return choose(self._log_probs(self.reader.last_hidden(observation)), deterministic)

    def _log_probs(self, hidden: Tensor) -> Tensor:
        """Return (B, V) log-probabilities of the step's legal actions."""
        return torch.log_softmax(mask_scores(self.backbone.scores(hidden), self.legal()), dim=-1)

    def _read_value(self, obs: Tensor, hidden: Tensor) -> Tensor:
        """Return the hidden states (B, D) that values are read from."""
        apart = self._value_reader()
        return hidden if apart is None else apart.last_hidden(obs)

    def _value_reader(self) -> ContextReader | None:
        """Return what reads values, None where that is what reads the policy, or nothing."""
        return self.value_reader if self.has_critic else None

    def _values(self, hidden: Tensor) -> Tensor:
        if not self.has_critic:
            return torch.zeros(len(hidden), 1, device=hidden.device)
        return read_value(self.value_head, hidden.detach() if self.value_trunk == "detached" else hidden)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **constructor_parameters(self, self.spec, self.backbone),
            "value_trunk": self.value_trunk,
        }


class TrainedParameters(nn.Module):
    """A mixin before a network whose copies have its frozen weights in common."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield the weights that are trained: SB3 averages what this yields into the target network's."""
        return (p for p in super().parameters(recurse) if p.requires_grad)


class TransformerQNetwork(TrainedParameters, BaseModel):
    """Q-values of every action, read off a causal language model with an output layer of its own."""

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        spec: ModelSpec,
        dueling: bool = False,
    ) -> None:
        super().__init__(observation_space, action_space)
        vocab_size, length = token_sizes(observation_space, action_space)
        self.reader = ContextReader(Backbone(spec, vocab_size, length, fresh_head=True))
        self.value_head: nn.Linear | None = None
        if dueling:
            self.value_head = zero_head(self.reader.backbone.width)

    def forward(self, obs: Tensor) -> Tensor:
        """Return (B, V) for observations (B, L)."""
        return self.read(self.reader.last_hidden(obs))

    def evaluate_packed(self, packs: Sequence[PackedTensors]) -> Tensor:
        """Return (N, V), one forward a pack of fragments."""
        return self.read(self.reader.packed_hidden(packs))

    def read(self, hidden: Tensor) -> Tensor:
        """Return (..., V) at hidden states (..., D)."""
        scores = self.reader.backbone.scores(hidden)
        if self.value_head is None:
            return scores
        return dueling_q(read_value(self.value_head, hidden), scores)


class QPolicy(MaskedPolicy):
    """A Q-network and its target network; with LoRA both have the same frozen base."""

    q_net: Any
    q_net_target: Any

    def _build(self, q_net: nn.Module, lr_schedule: Schedule) -> None:
        """Set the networks, which begin alike, and the optimiser."""
        self.q_net, self.q_net_target = q_net, sharing_copy(q_net)
        self.q_net_target.set_training_mode(False)
        self.optimizer = make_optimizer(self, lr_schedule, self.q_net)

    @property
    def backbone(self) -> Backbone:
        """The language model that Q-values are read from."""
        return self.q_net.reader.backbone

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """Return greedy actions (B,) for observations (B, ...)."""
        return self._predict(obs, deterministic)

    def set_training_mode(self, mode: bool) -> None:
        """Set dropout and the like; the target network never trains."""
        self.q_net.set_training_mode(mode)
        self.training = mode

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:  # type: ignore[override]
        return mask_scores(self.q_net(observation), self.legal()).argmax(dim=1)


class TransformerQPolicy(QPolicy):
    """Q-network and target network on a causal language model.

    With LoRA both have the same frozen base, and the target network adapters and heads of its own.

    Args:
        observation_space: Box(0, V, (L,), int64), right-padded with V.
        action_space: Discrete(V).
        lr_schedule: learning rate as a function of the remaining progress.
        model: see `ModelSpec`; None builds a small GPT-2 from scratch.
        lora: see `ModelSpec`.
        dtype: see `ModelSpec`.
        dropout: see `ModelSpec`.
        trust_remote_code: see `ModelSpec`.
        gradient_checkpointing: see `ModelSpec`.
        compile: see `ModelSpec`.
        dueling: give the state's value a head of its own, beside those of the actions' advantages.
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
        gradient_checkpointing: bool = False,
        compile: bool = False,
        dueling: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        optimizer_kwargs = optimizer_options(optimizer_class, optimizer_kwargs, {"fused": True})
        super().__init__(
            observation_space,
            action_space,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.spec = ModelSpec(model, lora, dtype, dropout, trust_remote_code, gradient_checkpointing, compile)
        self.dueling = dueling
        self._build(TransformerQNetwork(observation_space, action_space, self.spec, dueling), lr_schedule)

    def cached(self) -> Any:
        """Within, successive calls follow growing contexts with a key-value cache; weights must not change."""
        return self.q_net.reader.cached()

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**constructor_parameters(self, self.spec, self.backbone), "dueling": self.dueling}


def token_log_probs(
    backbone: Backbone,
    hidden: Tensor,
    actions: Tensor,
    entropy_gradient: bool | None = True,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N,) of actions and entropies (N,) at hidden states (N, D).

    For `entropy_gradient` see `log_prob_and_entropy`; `masks` are the bits (N, ceil(V / 8)) of the legal actions,
    None where all are. A large vocabulary is scored in chunks that are computed again in the backward pass: (N, V)
    is never kept.
    """

    def score(part: Tensor, chosen: Tensor, bits: Tensor | None) -> tuple[Tensor, Tensor]:
        legal = None if bits is None else unpack_masks(bits, backbone.vocab_size)
        return log_prob_and_entropy(mask_scores(backbone.scores(part), legal), chosen, entropy_gradient)

    rows = max(1, _CHUNK_ELEMENTS // backbone.vocab_size)
    if len(hidden) <= rows:
        return score(hidden, actions, masks)
    chunks = hidden.split(rows)
    bits = [None] * len(chunks) if masks is None else masks.split(rows)
    parts = [
        checkpoint(score, *chunk, use_reentrant=False)
        for chunk in zip(chunks, actions.split(rows), bits, strict=True)
    ]
    log_prob, entropy = zip(*parts, strict=True)
    return torch.cat(log_prob), torch.cat(entropy)


def choose(log_probs: Tensor, deterministic: bool) -> Tensor:
    """Return (B,) the likeliest or a sampled action of (B, V) log-probabilities."""
    if deterministic:
        return log_probs.argmax(dim=-1)
    # Inverse transform sampling: torch.multinomial draws V exponentials a row, five times slower at V = 49,152.
    cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
    draw = torch.rand(len(log_probs), 1, dtype=torch.float64, device=log_probs.device)
    chosen = torch.searchsorted(cumulative, draw * cumulative[:, -1:], right=True)[:, 0]
    return chosen.clamp_(max=log_probs.shape[-1] - 1)


def optimizer_options(
    optimizer_class: type[torch.optim.Optimizer], given: dict[str, Any] | None, adam: dict[str, Any]
) -> dict[str, Any]:
    """Return an optimiser's arguments: those that are given, or else Adam's, and none for another one."""
    if given is not None:
        return given
    return adam if optimizer_class is torch.optim.Adam else {}


def make_optimizer(
    policy: BasePolicy, lr_schedule: Schedule, trained: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Return the policy's optimiser of the weights that are trained, its own or those of a part of it."""
    parameters = [p for p in (trained or policy).parameters() if p.requires_grad]
    return policy.optimizer_class(parameters, lr=lr_schedule(1), **policy.optimizer_kwargs)  # type: ignore[call-arg]


def constructor_parameters(policy: BasePolicy, spec: ModelSpec, backbone: Backbone) -> dict[str, Any]:
    """Return what rebuilds a policy; its weights come from its state dict, see `Backbone.source`."""
    return {
        "observation_space": policy.observation_space,
        "action_space": policy.action_space,
        "lr_schedule": policy._dummy_schedule,
        "model": backbone.source,
        "lora": spec.lora,
        "dtype": spec.dtype,
        "dropout": spec.dropout,
        "trust_remote_code": spec.trust_remote_code,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "compile": spec.compile,
        "optimizer_class": policy.optimizer_class,
        "optimizer_kwargs": policy.optimizer_kwargs,
    }
