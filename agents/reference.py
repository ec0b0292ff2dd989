"""The reference policy: its log-probabilities, and the algorithms that stay near it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from .algorithm import TextAlgorithm, attribute
from .backbone import Backbone
from .buffers import PackedTensors
from .export import check_tokenizer
from .masks import mask_scores
from .models import ModelSource, ModelSpec
from .policies import TransformerPolicy, TransformerQPolicy, token_log_probs
from .reading import ContextReader
from .replay import split_states

ReferenceSource = str | ModelSource | TransformerPolicy | nn.Module


class LogProbModule(nn.Module):
    """A module of log-probabilities in the place of a language model: its scores are its hidden states.

    Args:
        module: maps ids (B, T), right-padded with any valid id, to log-probabilities (B, T, V) of what follows each
            token; logits do as well.
        vocab_size: V.
    """

    def __init__(self, module: nn.Module, vocab_size: int) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).eval()
        self.vocab_size, self.loads = vocab_size, 0

    @property
    def source(self) -> nn.Module:
        """The module: what rebuilds this."""
        return self.module

    def hidden(self, ids: Tensor) -> Tensor:
        """Return (B, T, V) of ids (B, T).

        Raises:
            ValueError: if the module returns another shape.
        """
        scores = self.module(ids)
        expected = (*ids.shape, self.vocab_size)
        if not isinstance(scores, Tensor) or scores.shape != expected:
            found = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
            raise ValueError(
                f"the reference {type(self.module).__name__} returns {found} for ids {tuple(ids.shape)}; a module "
                f"takes ids (B, T) and returns log-probabilities (B, T, V), here {expected}"
            )
        return scores

    def scores(self, hidden: Tensor) -> Tensor:
        """Return (..., V) in float32."""
        return hidden.float()

    language_scores = scores


class ModuleReader(ContextReader):
    """A reader of a `LogProbModule`; it reads contexts whole."""

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Do as ever: a module of log-probabilities has no key-value cache."""
        yield


class ReferencePolicy(nn.Module):
    """Log-probabilities of a frozen policy.

    Args:
        policy: the policy that is trained, or the Q-policy.
        source: "initial" (the policy as it is now: its own base model with the adapters off where it has LoRA,
            else a frozen copy), a trained `TransformerPolicy`, any source of `ModelSpec.model`, or any other module
            that gives log-probabilities, see `LogProbModule`. A frozen copy is kept.

    Raises:
        ValueError: if it is "initial" for a Q-policy without LoRA, whose output layer says Q-values.
    """

    def __init__(self, policy: TransformerPolicy | TransformerQPolicy, source: ReferenceSource) -> None:
        super().__init__()
        live = policy.backbone
        initial = isinstance(source, str) and source == "initial"
        self.shares_base = initial and live.has_lora
        self._readers: list[ContextReader] = []  # in a list: the policy's own weights are not ours to save
        if self.shares_base:
            self._readers.append(ContextReader(live, fixed=True))  # with the adapters off
            return
        if initial and isinstance(policy, TransformerQPolicy):
            raise ValueError(
                "reference='initial' needs LoRA here: a Q-network that is trained whole keeps nothing of its "
                "language model; pass that model as reference=, or policy_kwargs={'lora': rank}"
            )
        self.frozen = self._reader(policy, copy.deepcopy(live) if initial else source)
        self.frozen.requires_grad_(False).to(policy.device)
        if initial:
            self.frozen.backbone.reduce_frozen()
        self._readers.append(self.frozen)
        if isinstance(self.frozen, ModuleReader):
            self.frozen.last_hidden(torch.zeros(1, live.context_length, dtype=torch.long, device=policy.device))

    @staticmethod
    def _reader(
        policy: TransformerPolicy | TransformerQPolicy, source: Backbone | ReferenceSource
    ) -> ContextReader:
        if isinstance(source, Backbone):
            return ContextReader(source, fixed=True)
        live = policy.backbone
        if isinstance(source, TransformerPolicy):
            source = source.backbone.merged()
        if isinstance(source, nn.Module) and not isinstance(source, PreTrainedModel):
            module: Any = LogProbModule(source, live.vocab_size)  # it has what of a backbone is read
            return ModuleReader(module)
        if not isinstance(source, str | Path | PreTrainedConfig | PreTrainedModel):
            raise TypeError(
                f"reference={source!r} is a {type(source).__name__}; pass 'initial', a policy, a folder, a Hub id, "
                "a .gguf file, a PreTrainedModel, or a module of ids (B, T) -> log-probabilities (B, T, V)"
            )
        spec = ModelSpec(source, dtype=policy.spec.dtype, frozen=True)
        return ContextReader(Backbone(spec, live.vocab_size, live.context_length), fixed=True)

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Within, `step_log_probs` follows growing contexts with a key-value cache."""
        with ExitStack() as following:
            with self._speaking() as reader:  # what it reads of the weights now must be the reference's
                following.enter_context(reader.cached())
            yield

    @torch.no_grad()
    def log_prob(self, packs: Sequence[PackedTensors], actions: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return (N,) log-probabilities of actions at the packs' positions, in nats.

        `masks` are the bits (N, ceil(V / 8)) of the actions that it chooses among, None for all.
        """
        with self._speaking() as reader:
            return token_log_probs(reader.backbone, reader.packed_hidden(packs), actions, None, masks)[0]

    @torch.no_grad()
    def packed_log_probs(self, packs: Sequence[PackedTensors], legal: Tensor | None = None) -> Tensor:
        """Return (N, V) log-probabilities at the packs' positions, of the legal actions (N, V), None: of all."""
        with self._speaking() as reader:
            return _log_probs(reader.backbone, reader.packed_hidden(packs), legal)

    @torch.no_grad()
    def split_log_probs(
        self,
        packs: Sequence[PackedTensors],
        n_states: list[int],
        legal: Tensor | None = None,
        next_legal: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (N, V) log-probabilities at the states and (N, V) at the next states of a `ReplayBatch`."""
        with self._speaking() as reader:
            states, following = split_states(reader.packed_hidden(packs), n_states)
            return _log_probs(reader.backbone, states, legal), _log_probs(reader.backbone, following, next_legal)

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
    reference: ReferenceSource | None
    reference_policy: ReferencePolicy | None

    def _setup_model(self) -> None:
        (expected,) = self.policy_aliases.values()
        if not issubclass(self.policy_class, expected):
            raise TypeError(
                f"{type(self).__name__} is for a {expected.__name__}, got {self.policy_class.__name__}; use that "
                "with Stable-Baselines3's own algorithms (its actions are not tokens that a context grows by)"
            )
        self._check_ids(self.policy_kwargs.get("model"))
        super()._setup_model()  # type: ignore[safe-super]  # SB3's algorithm comes next
        self._make_reference()
        self._remember_architecture()

    def _make_reference(self) -> None:
        """Set the reference policy that `reference` names, and put what rebuilds it in its place."""
        self.reference_policy = None
        if self.reference is None:
            return
        if self.reference != "initial":
            self._check_ids(self.reference)
        self.reference_policy = ReferencePolicy(self.policy, self.reference)
        if not self.reference_policy.shares_base:
            self.reference = self.reference_policy.frozen.backbone.source

    def _check_ids(self, source: object) -> None:
        """Raise if a model that is named has a tokenizer whose ids mean something else than the environment's."""
        if self.env is not None and isinstance(source, str | Path):
            tokenizer = attribute(self.env, "tokenizer")
            if tokenizer is not None:
                check_tokenizer(source, tokenizer)

    @classmethod
    def _load(cls, path: Any, env: Any, device: Any, kwargs: dict[str, Any]) -> Self:
        """Load; a reference that is given replaces the saved one.

        "initial" is then the policy as loaded, with LoRA its base model: trained adapters are off.
        """
        if "reference" not in kwargs:
            return super()._load(path, env, device, kwargs)
        if "reference" not in cls._arguments():
            raise TypeError(f"{cls._name()}.load takes no reference: it learns without one")
        model = super()._load(path, env, device, {**kwargs, "reference": None})
        model.reference = kwargs["reference"]
        model._make_reference()
        return model

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: Any = "auto") -> None:
        """Load weights, as in SB3; those of a reference only where there is one to take them."""
        without = self.reference_policy is None or self.reference_policy.shares_base
        if without and isinstance(load_path_or_dict, dict):
            load_path_or_dict = {k: v for k, v in load_path_or_dict.items() if k != "reference_policy"}
        super().set_parameters(load_path_or_dict, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "reference_policy"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        if self.reference_policy is not None and not self.reference_policy.shares_base:
            state_dicts = [*state_dicts, "reference_policy"]
        return state_dicts, variables
