"""Any Hugging Face causal language model as: token ids -> hidden states -> scores of the actions.

Loading (config, folder, Hub id, GGUF file, module), LoRA and precision live here; value heads and sampling
live in `policies.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig, PreTrainedModel

ModelSource = str | Path | PreTrainedConfig | PreTrainedModel


@dataclass(frozen=True)
class ModelSpec:
    """What a policy is built from.

    Attributes:
        model: a config (random weights), a folder, a Hub id, a GGUF file, a module, or None for `tiny_config`.
        lora: None (train every weight), a rank, or a `peft.LoraConfig`.
        dtype: None (float32 throughout) or "bfloat16" / "float16": activations under autocast, frozen weights
            stored so, trained weights and optimiser state in float32.
        dropout: whether dropout is active in updates. Off by default: sampled and trained policy must agree.
        trust_remote_code: handed to transformers as it is.
    """

    model: ModelSource | None = None
    lora: int | Any | None = None
    dtype: str | torch.dtype | None = None
    dropout: bool = False
    trust_remote_code: bool = False


def tiny_config(vocab_size: int, context_length: int) -> GPT2Config:
    """Return the default model: GPT-2 with 2 layers, width 64 and 4 heads, without dropout."""
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=context_length,
        n_embd=64,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )


def load_model(source: ModelSource, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return a float32 causal language model from any of the sources that `ModelSpec.model` names.

    Raises:
        FileNotFoundError: if a path that looks local does not exist.
        TypeError: if the source is of another kind.
    """
    if isinstance(source, PreTrainedModel):
        return copy.deepcopy(source).float()  # a caller's module is not trained behind its back
    if isinstance(source, PreTrainedConfig):
        return AutoModelForCausalLM.from_config(source, trust_remote_code=trust_remote_code).float()
    if not isinstance(source, str | Path):
        raise TypeError(
            f"model={source!r} is a {type(source).__name__}; pass a transformers config, a folder, a Hub id, "
            "a .gguf file or a PreTrainedModel"
        )
    path = Path(source).expanduser()
    looks_local = isinstance(source, Path) or path.suffix == ".gguf" or str(source).startswith((".", "/", "~"))
    if looks_local and not path.exists():
        raise FileNotFoundError(f"model={str(source)!r} does not exist; give a folder, a .gguf file or a Hub id")
    if path.suffix == ".gguf":
        return _load_gguf(path)
    where = str(path) if path.exists() else str(source)
    return AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, trust_remote_code=trust_remote_code)


def _load_gguf(path: Path) -> PreTrainedModel:
    """Return a GGUF file's model as an ordinary one (as loaded it is marked quantised, which trainers refuse)."""
    loaded = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config).float()
    model.load_state_dict(loaded.state_dict())
    return model


class Backbone(nn.Module):
    """A causal language model cut where an agent needs it: below its output layer.

    `hidden` maps ids to final hidden states, `scores` maps chosen hidden states to the environment's V actions.
    A model with more outputs than V has its surplus outputs dropped (they can never be sampled).

    Args:
        spec: what to build.
        vocab_size: V, the number of actions.
        context_length: L, the longest observation.
        fresh_head: replace the output layer by a new untied one (Q-values are not logits).

    Raises:
        ValueError: if the model has fewer outputs than V, fewer positions than L, or an output layer that is not
            a plain linear map of the last hidden state.
    """

    def __init__(self, spec: ModelSpec, vocab_size: int, context_length: int, fresh_head: bool = False) -> None:
        super().__init__()
        source = tiny_config(vocab_size, context_length) if spec.model is None else spec.model
        self.model = load_model(source, spec.trust_remote_code)
        self.vocab_size = vocab_size
        self.context_length = context_length
        self.dropout = spec.dropout
        self.dtype = None if spec.dtype is None else _as_dtype(spec.dtype)
        self._check_sizes()
        self._check_head()
        if spec.lora is not None:
            self._add_lora(spec.lora)
        if fresh_head:
            self._replace_head()
        if self.dtype is not None:
            for parameter in self.model.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(self.dtype)
        self.train(False)

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

    def hidden(self, ids: Tensor, **cache_inputs: Any) -> Tensor:
        """Return final hidden states.

        Args:
            ids: (B, T) int64, right-padded with any valid id: under causal attention padding to the right is
                never seen, so no mask is needed.
            cache_inputs: `past_key_values`, `attention_mask`, `position_ids` of a cached call.

        Returns:
            (B, T, D).
        """
        with self.autocast():
            return self.model.base_model(
                input_ids=ids, use_cache="past_key_values" in cache_inputs, **cache_inputs
            ).last_hidden_state

    def scores(self, hidden: Tensor) -> Tensor:
        """Return (..., V) float32 scores of hidden states (..., D): logits of a policy, or Q-values."""
        with self.autocast():
            head = self.head
            if head.out_features == self.vocab_size:
                return head(hidden).float()
            bias = None if head.bias is None else head.bias[: self.vocab_size]
            return nn.functional.linear(hidden, head.weight[: self.vocab_size], bias).float()

    def autocast(self) -> AbstractContextManager:
        """Return the precision's context, never held around a caller's code: it would change that too."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(next(self.model.parameters()).device.type, dtype=self.dtype)

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """Run the base model without its LoRA adapters, without a second copy in memory."""
        self.model.disable_adapters()
        try:
            yield
        finally:
            self.model.enable_adapters()

    def train(self, mode: bool = True) -> Backbone:
        """Switch dropout on only if it was asked for (the models' own defaults are 0.1)."""
        return super().train(mode and self.dropout)

    def merged(self) -> PreTrainedModel:
        """Return a float32 copy of the model with adapters merged, as plain transformers can load it."""
        model = copy.deepcopy(self.model)
        if self.has_lora:
            model = _merge_adapters(model)
        model.config.tie_word_embeddings = _is_tied(model)
        return model.float()

    def uncacheable(self) -> str | None:
        """Return why keys and values of this model cannot be cached row by row, or None if they can."""
        config = self.config
        window = getattr(config, "sliding_window", None)
        if window and getattr(config, "use_sliding_window", True) and window < self.context_length:
            return f"its attention window ({window}) is shorter than the context ({self.context_length})"
        kinds = set(getattr(config, "layer_types", None) or ()) - {
            "full_attention",
            "sliding_attention",
        }
        if kinds:
            return f"its layers are of kind {sorted(kinds)}"
        return None

    def _check_sizes(self) -> None:
        head = self.model.get_output_embeddings()
        name = type(self.model).__name__
        if not isinstance(head, nn.Linear):
            raise ValueError(f"{name} has no linear output layer (found {head!r}); pass a causal language model")
        embedding: Any = self.model.get_input_embeddings()
        outputs = min(head.out_features, embedding.num_embeddings)
        if outputs < self.vocab_size:
            raise ValueError(
                f"{name} has {outputs} outputs but the environment has {self.vocab_size} actions; use the "
                f"model's own tokenizer in the environment, or a model with vocab_size >= {self.vocab_size}"
            )
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and positions < self.context_length:
            raise ValueError(
                f"{name} has {positions} positions but observations hold {self.context_length} tokens; use a "
                "model with more positions, or shorter prompts or a smaller max_new_tokens"
            )

    @torch.no_grad()
    def _check_head(self) -> None:
        """Refuse a model whose logits are more than its output layer (soft caps, scales): cutting it would lie."""
        cap = getattr(self.config, "final_logit_softcapping", None)
        if cap is not None:  # too weak to be seen in the small logits of random weights
            raise ValueError(
                f"{type(self.model).__name__} caps its logits (final_logit_softcapping={cap}), which these "
                "policies do not reproduce; set it to None in the config, or use another model"
            )
        self.model.eval()
        ids = torch.arange(min(4, self.vocab_size), device=self.model.device)[None]
        whole = self.model(input_ids=ids, use_cache=False).logits
        cut = self.head(self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        if not torch.allclose(whole, cut, rtol=1e-3, atol=1e-3 * whole.abs().max().item()):
            raise ValueError(
                f"{type(self.model).__name__} changes its logits after the output layer (largest difference "
                f"{(whole - cut).abs().max().item():.3g}), which these policies do not reproduce; use a model "
                "without logit soft caps or scales"
            )

    def _add_lora(self, lora: Any) -> None:
        """Add adapters on every linear layer but the output, Hu et al. 2021, arXiv:2106.09685."""
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise ImportError(f"lora={lora!r} needs peft; install text-envs[lora]") from error
        config = lora
        if isinstance(lora, bool) or not isinstance(lora, int | LoraConfig) or lora == 0:
            raise TypeError(f"lora={lora!r}; give a rank of at least 1, a peft.LoraConfig, or None")
        if isinstance(lora, int):
            config = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
        self.model.add_adapter(config)

    def _replace_head(self) -> None:
        head = nn.Linear(self.width, self.head.out_features, bias=False, device=self.model.device)
        nn.init.normal_(head.weight, std=0.02)
        self.model.set_output_embeddings(head)
        self.model.config.tie_word_embeddings = False


def _as_dtype(name: str | torch.dtype) -> torch.dtype:
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, torch.dtype) and name in known.values():
        return name
    if name not in known:
        raise ValueError(f"dtype={name!r}; choose from {sorted(known)} or None for float32")
    return known[name]


def _is_tied(model: PreTrainedModel) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _merge_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Fold every adapter into its layer and put the plain layer back in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model.float()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model._hf_peft_config_loaded = False
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model
