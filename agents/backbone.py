"""Any Hugging Face causal language model as: token ids -> hidden states -> scores of the actions.

Precision lives here, loading in `models.py`, LoRA in `adapters.py`, value heads and sampling in `policies.py`.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .activations import fuse_activations
from .adapters import add_lora, is_tied, merge_adapters, refuse_adapted_head, without_adapters
from .checkpoint import CheckpointError, weights_hash
from .models import ModelSpec, address, as_dtype, load_model, tiny_config
from .updates import is_out_of_memory


class FreshCache(Cache):
    """A cache that keeps nothing, for a whole context a row.

    Without one, transformers looks at the positions' values to see whether a row holds several sequences
    (`find_packed_sequence_indices`), and every forward waits for the device.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what came in."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: nothing came before."""
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return 0."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return the context's own length, from its first token."""
        return query_length, 0


def cache_input(model: nn.Module, past: Cache) -> dict[str, Cache]:
    """Return a cache by the name a model takes it by: from transformers 5.24 on it is `cache`."""
    return {_cache_name(type(model).forward): past}


@cache
def _cache_name(forward: Callable) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class Backbone(nn.Module):
    """A causal language model cut where an agent needs it: below its output layer.

    `hidden` maps ids to final hidden states, `scores` maps chosen hidden states to the environment's V actions.
    A model with more outputs than V has its surplus outputs dropped (they can never be sampled).

    Args:
        spec: what to build.
        vocab_size: V, the number of actions.
        context_length: L, the longest observation.
        fresh_head: replace the output layer by a new untied one (Q-values are not logits).

    Attributes:
        source: what rebuilds the model together with a state dict: its config, or where its untrained base lies.
        loads: how often weights were loaded into it.

    Raises:
        ValueError: if the model has fewer outputs than V, fewer positions than L, an output layer that is not
            a plain linear map of the last hidden state, or attention to what comes later in the text.
    """

    source: str | PreTrainedConfig

    def __init__(self, spec: ModelSpec, vocab_size: int, context_length: int, fresh_head: bool = False) -> None:
        super().__init__()
        source = tiny_config(vocab_size, context_length) if spec.model is None else spec.model
        self.model = fuse_activations(load_model(source, spec.trust_remote_code))
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.dropout = spec.dropout
        dtype = None if spec.dtype is None else as_dtype(spec.dtype)
        self.dtype: torch.dtype | None = None  # while the model is looked at
        self.loads = 0
        self._cast: dict[int, Tensor] | None = (
            None  # output layers in the model's precision, where weights are fixed
        )
        self._context: Cache | None = FreshCache()
        self._compile = False
        self._check_sizes()
        self._check_outputs()
        self.source, self._base_hash = self.config, None
        if isinstance(source, str | Path) and (spec.lora is not None or spec.frozen):
            self.source, self._base_hash = address(source), weights_hash(self.model)
        if spec.lora is not None:
            add_lora(self.model, spec.lora)
            refuse_adapted_head(self.model)
        self.language_head: nn.Linear | None = None
        if fresh_head:
            self._replace_head()
        if spec.frozen:
            self.model.requires_grad_(False)
        if spec.gradient_checkpointing:
            self._checkpoint_layers()
        named = self.named_parameters(remove_duplicate=False)
        self._base_names = [name for name, parameter in named if not parameter.requires_grad]
        self.register_state_dict_post_hook(_leave_base_out)
        self.register_load_state_dict_pre_hook(_expect_same_base)
        self.dtype = dtype
        self._compile = spec.compile
        self._compiled: Callable | None = None
        self.reduce_frozen()
        self.train(False)

    def reduce_frozen(self) -> None:
        """Store the weights that are not trained in the model's precision."""
        if self.dtype is not None:
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(self.dtype)

    @property
    def config(self) -> PreTrainedConfig:
        """The model's config; with it and a state dict the model can be rebuilt."""
        return self.model.config

    @property
    def width(self) -> int:
        """D, the size of a hidden state."""
        return self.head.in_features

    @property
    def head(self) -> nn.Linear:
        """The output layer, (D) -> (outputs)."""
        return self.model.get_output_embeddings()

    @property
    def has_lora(self) -> bool:
        """Whether the model carries adapters that can be switched off."""
        return hasattr(self.model, "peft_config")

    def hidden(self, ids: Tensor, past: Cache | None = None, **past_inputs: Any) -> Tensor:
        """Return final hidden states.

        Args:
            ids: (B, T) int64, right-padded with any valid id: under causal attention padding to the right is
                never seen, so no mask is needed.
            past: keys and values of what came before.
            past_inputs: `attention_mask`, `position_ids` of a call with them.

        Returns:
            (B, T, D).
        """
        with self.autocast():
            if past is not None:
                inputs = {**past_inputs, **cache_input(self.model.base_model, past)}
                return self.model.base_model(input_ids=ids, use_cache=True, **inputs).last_hidden_state
            inputs = {} if self._context is None else cache_input(self.model.base_model, self._context)
            return self._whole()(input_ids=ids, use_cache=False, **inputs).last_hidden_state

    def _whole(self) -> Callable:
        """Return the trunk as it reads whole contexts, compiled at its first use where that is asked for."""
        if not self._compile:
            return self.model.base_model
        if self._compiled is None:
            self._compiled = torch.compile(self.model.base_model.forward, dynamic=True)
        return self._compiled

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_compiled": None}  # a copy compiles its own

    def scores(self, hidden: Tensor) -> Tensor:
        """Return (..., V) float32 scores of hidden states (..., D): logits of a policy, or Q-values."""
        return self._scored(self.head, hidden)

    def language_scores(self, hidden: Tensor) -> Tensor:
        """Return (..., V) float32 logits of the language model, where LoRA left it whole beside a fresh head."""
        return self._scored(self.head if self.language_head is None else self.language_head, hidden)

    def _scored(self, head: nn.Linear, hidden: Tensor) -> Tensor:
        with self.autocast():
            weight = head.weight if self._cast is None or torch.is_grad_enabled() else self._cast_once(head.weight)
            if head.out_features == self.vocab_size:
                return nn.functional.linear(hidden, weight, head.bias).float()
            bias = None if head.bias is None else head.bias[: self.vocab_size]
            return nn.functional.linear(hidden, weight[: self.vocab_size], bias).float()

    def _cast_once(self, weight: Tensor) -> Tensor:
        assert self._cast is not None
        if id(weight) not in self._cast:
            self._cast[id(weight)] = weight.detach().to(self.dtype or weight.dtype)
        return self._cast[id(weight)]

    @contextmanager
    def weights_fixed(self) -> Iterator[None]:
        """Within, weights do not change: the output layer is cast to the model's precision once, not each step."""
        before, self._cast = self._cast, {}
        try:
            yield
        finally:
            self._cast = before

    def autocast(self) -> AbstractContextManager:
        """Return the precision's context, never held around a caller's code: it would change that too."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(next(self.model.parameters()).device.type, dtype=self.dtype)

    def adapters_off(self) -> AbstractContextManager:
        """Run the base model without its LoRA adapters, without a second copy in memory."""
        return without_adapters(self.model)

    def train(self, mode: bool = True) -> Backbone:
        """Switch dropout on only if it was asked for (the models' own defaults are 0.1)."""
        return super().train(mode and self.dropout)

    def merged(self) -> PreTrainedModel:
        """Return a float32 copy of the model with adapters merged, as plain transformers can load it."""
        model = copy.deepcopy(self.model)
        if self.has_lora:
            model = merge_adapters(model)
        model.config.tie_word_embeddings = is_tied(model)
        return model.float()

    def window(self) -> int | None:
        """Return how many tokens an attention layer of limited sight sees, the current one among them."""
        window = getattr(self.config, "sliding_window", None)
        return window if window and getattr(self.config, "use_sliding_window", True) else None

    def layer_kinds(self) -> set[str]:
        """Return the kinds of attention that the config tells apart; empty where all layers are alike."""
        return set(getattr(self.config, "layer_types", None) or ())

    def uncacheable(self) -> str | None:
        """Return why keys and values of this model cannot be cached row by row, or None if they can."""
        kinds = self.layer_kinds() - {"full_attention", "sliding_attention"}
        return f"its layers are of kind {sorted(kinds)}" if kinds else None

    def _check_sizes(self) -> None:
        head = self.model.get_output_embeddings()
        name = type(self.model).__name__
        if self.config.is_encoder_decoder:
            raise ValueError(
                f"{name} has an encoder and a decoder; use a causal language model, such as GPT-2 or Llama"
            )
        if not isinstance(head, nn.Linear):
            raise ValueError(f"{name} has no linear output layer (found {head!r}); pass a causal language model")
        if self.model.base_model is self.model:
            raise ValueError(
                f"{name} does not tell where its layers end and its output layer begins (base_model_prefix="
                f"{self.model.base_model_prefix!r} names no part of it); use another model, such as GPT-2 or Llama"
            )
        embedding: Any = self.model.get_input_embeddings()
        outputs = min(head.out_features, embedding.num_embeddings)
        if outputs < self.vocab_size:
            raise ValueError(
                f"{name} has {outputs} outputs but the environment has {self.vocab_size} actions; use the "
                f"model's own tokenizer in the environment, or a model with vocab_size >= {self.vocab_size}"
            )
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and 0 < positions < self.context_length:  # XLNet says -1
            raise ValueError(
                f"{name} has {positions} positions but observations hold {self.context_length} tokens; use a "
                "model with more positions, or shorter prompts or a smaller max_new_tokens"
            )

    @torch.no_grad()
    def _check_outputs(self) -> None:
        """Refuse a model that is not what we take it for: cut and packed as we do, it would lie."""
        name, cap = type(self.model).__name__, getattr(self.config, "final_logit_softcapping", None)
        if cap is not None:  # too weak to be seen in the small logits of random weights
            raise ValueError(
                f"{name} caps its logits (final_logit_softcapping={cap}), which these policies do not reproduce; "
                "set it to None in the config, or use another model"
            )
        self.model.eval()
        ids = torch.arange(min(12, self.context_length), device=self.model.device)[None] % self.vocab_size
        plain = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        if not plain.isfinite().all():
            raise ValueError(
                f"{name} computes numbers that are not finite (nan or inf), so its weights are damaged; load or "
                "make the model again"
            )
        self._check_direction(name, ids)
        try:
            if not is_close(self.hidden(ids), plain):
                self._context = None
        except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            self._context = None  # no keys and values, such as a state-space model's
        whole, cut = self.model(input_ids=ids, use_cache=False).logits, self.head(plain)
        if not is_close(cut, whole):
            raise ValueError(
                f"{name} changes its logits before or after the output layer (largest difference "
                f"{(whole - cut).abs().max().item():.3g}), which these policies do not reproduce; use a model "
                "without logit soft caps or scales"
            )

    @torch.enable_grad()
    def _check_direction(self, name: str, ids: Tensor) -> None:
        """Refuse a model that looks ahead: what depends on a later token has a gradient there, however small."""
        seen: list[Tensor] = []

        def watch(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
            seen.append(embedded.detach().requires_grad_())
            return seen[-1].clone()

        half = (ids.shape[1] + 1) // 2
        hook = self.model.get_input_embeddings().register_forward_hook(watch)
        try:
            first = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :half]
            (gradient,) = torch.autograd.grad((first * torch.arange(self.width).to(first).cos()).sum(), seen[:1])
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"{name} gives no gradient in evaluation mode, in which these policies are trained "
                f"({type(error).__name__}: {error}); use another model, such as GPT-2 or Llama"
            ) from error
        finally:
            hook.remove()
        ahead = gradient.reshape(ids.shape[1], -1)[half:]  # XLNet holds time first
        if ahead.count_nonzero():
            raise ValueError(
                f"{name} reads a text in both directions: what follows a token changes its hidden state (largest "
                f"gradient {ahead.abs().max().item():.3g}); use a causal language model, such as GPT-2 or Llama"
            )

    def _checkpoint_layers(self) -> None:
        """Let every layer be computed again in the backward pass, Chen et al. 2016, arXiv:1604.06174.

        transformers' own switch works in training mode only, in which dropout would be on.
        """
        layers = [layer for layer in self.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        if not layers:
            raise ValueError(
                f"gradient_checkpointing=True: {type(self.model).__name__} marks no layers to be computed again; "
                "use gradient_checkpointing=False with a smaller micro_batch_size"
            )
        for layer in layers:
            layer.forward = partial(_recomputed, layer.forward)

    def _replace_head(self) -> None:
        head = nn.Linear(self.width, self.head.out_features, bias=False, device=self.model.device)
        nn.init.normal_(head.weight, std=0.02)
        if self.has_lora:  # the base can still speak: it is the reference of guided exploration
            self.language_head = self.head
        self.model.set_output_embeddings(head)
        self.model.config.tie_word_embeddings = False


def _recomputed(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call a layer's forward, keeping only its inputs where a gradient is wanted."""
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def is_close(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors are equal but for rounding."""
    return torch.allclose(left, right, rtol=1e-3, atol=1e-3 * right.abs().max().item())


def _leave_base_out(backbone: Backbone, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Put the hash of an untrained, named base into a state dict in place of its weights."""
    if backbone._base_hash is None:
        return
    for name in backbone._base_names:
        del state[prefix + name]
    state[prefix + "base_hash"] = torch.tensor(list(bytes.fromhex(backbone._base_hash)), dtype=torch.uint8)


def _expect_same_base(backbone: Backbone, state: dict[str, Any], prefix: str, *unused: Any) -> None:
    """Check the hash that stands for a base, and let the base in place stand in for its weights.

    Raises:
        CheckpointError: if the base in place is another.
    """
    backbone.loads += 1
    saved = state.pop(prefix + "base_hash", None)
    if saved is None:
        if backbone._base_hash is not None and any(prefix + name in state for name in backbone._base_names):
            backbone.source, backbone._base_hash = backbone.config, None  # its base is replaced by what is loaded
        return
    there = bytes(saved.tolist()).hex()
    if backbone._base_hash is None:
        raise CheckpointError(
            f"these weights are adapters and heads of a base model with SHA-256 {there}, which they do not hold; "
            "build the policy with the same lora= and model= as a folder, Hub id or GGUF file of that base"
        )
    if there != backbone._base_hash:
        raise CheckpointError(
            f"the base model at {backbone.source} has changed: its weights' SHA-256 is {backbone._base_hash}, the "
            f"adapters were trained on {there}; restore that model, or name where it lies: "
            'load(path, custom_objects={"policy_kwargs": {"model": FOLDER, ...}})'
        )
    own = dict(backbone.named_parameters(remove_duplicate=False))
    state.update({prefix + name: own[name].detach() for name in backbone._base_names})
