"""A lean decode step for GPT-2 and the Llama family: the new tokens of every row in one pass over the weights.

transformers spends most of a small step in the Python of its modules. This reads the same weights and leaves out
what a rollout never uses: dropout, outputs of inner layers, layouts with a row of padding for each row. In reduced
precision weights are cast once for all steps. A module that is not a plain one is still called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUTanh
from transformers.pytorch_utils import Conv1D

from .backbone import Backbone
from .transfer import to_device


def masked_positions(backbone: Backbone, position: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """Return (b, t, width) for each type of layer: True where a query must not look.

    Args:
        backbone: the model.
        position: (b, t) of the queries.
        width: slots that are looked at, of which slot i holds a row's token i.
    """
    slot, window = np.arange(width), backbone.window()
    hidden = {"full_attention": slot > position[:, :, None]}
    if window is not None:
        hidden["sliding_attention"] = hidden["full_attention"] | (slot <= position[:, :, None] - window)
    return hidden


def layer_types(backbone: Backbone) -> list[str]:
    """Return the type of each layer, a key of `masked_positions`."""
    n_layers = backbone.config.num_hidden_layers
    if backbone.window() is None:
        return ["full_attention"] * n_layers
    return list(getattr(backbone.config, "layer_types", None) or ["sliding_attention"] * n_layers)


def plain(module: nn.Module, dtype: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """Return what a module does with (N, D), on its own weights: its operation where that is all there is to it.

    In a small step the call of a module takes as long as its operation, and under autocast it casts its weights.

    Args:
        module: of the model.
        dtype: what autocast casts to; None without it. Its copies of weights that have another are of now.
    """
    weights = dict(module.named_parameters(recurse=False))
    if type(module) in (Conv1D, nn.Linear):
        cast: dict[str, Tensor] = {
            name: weight if dtype in (None, weight.dtype) else weight.detach().to(dtype)
            for name, weight in weights.items()
        }
        if type(module) is Conv1D:
            return partial(torch.addmm, cast["bias"], mat2=cast["weight"])
        return partial(F.linear, weight=cast["weight"], bias=cast.get("bias"))
    if f"{type(module).__module__}.{type(module).__name__}" == "peft.tuners.lora.layer.Linear":
        return LoraMap(module, dtype) if LoraMap.is_plain(module) else module
    if type(module) is nn.LayerNorm:
        weight, bias = weights.get("weight"), weights.get("bias")
        shape, eps = module.normalized_shape, module.eps
        return partial(torch.layer_norm, normalized_shape=shape, weight=weight, bias=bias, eps=eps)
    if type(module) is nn.Embedding:
        return partial(torch.embedding, weights["weight"])
    if type(module) is GELUTanh:
        return partial(F.gelu, approximate="tanh")
    return module


class LoraMap:
    """A linear map with adapters, which may be switched on and off, Hu et al. 2021, arXiv:2106.09685."""

    def __init__(self, module: Any, dtype: torch.dtype | None) -> None:
        self.module, self.base = module, plain(module.base_layer, dtype)
        self.adapters = [
            (plain(module.lora_A[name], dtype), plain(module.lora_B[name], dtype), module.scaling[name])
            for name in module.active_adapters
            if name in module.lora_A
        ]

    @staticmethod
    def is_plain(module: Any) -> bool:
        """Return whether there is nothing to a peft layer but its low-rank products."""
        return not (module.merged or module.training or getattr(module, "lora_variant", None))

    def __call__(self, x: Tensor) -> Tensor:
        """Return (N, D') of (N, D)."""
        result = self.base(x)
        if not self.module.disable_adapters:
            for down, up, scaling in self.adapters:
                result = result + up(down(x)) * scaling
        return result


class Layer(Protocol):
    """A layer's own maps; it adds attention's output and then the MLP's to its input (N, D)."""

    head_dim: int  # d
    scale: float  # on attention's products

    def heads(self, x: Tensor, rotary: Any) -> Tensor:
        """Return (N, H + 2 H', d) of the layer's input (N, D): H queries, H' keys, H' values."""

    def output_projection(self, attended: Tensor) -> Tensor:
        """Return attention's output (N, D) of what its heads attended to (N, H d)."""

    def mlp(self, x: Tensor) -> Tensor:
        """Return the MLP's output (N, D)."""


class GPT2Layer:
    """One map to queries, keys and values; layer norms and biases."""

    def __init__(self, block: Any, dtype: torch.dtype | None) -> None:
        attention, mlp = block.attn, block.mlp
        self.attention_norm, self.qkv_proj = plain(block.ln_1), plain(attention.c_attn, dtype)
        self.o_proj, self.mlp_norm = plain(attention.c_proj, dtype), plain(block.ln_2)
        self.up_proj, self.down_proj = plain(mlp.c_fc, dtype), plain(mlp.c_proj, dtype)
        self.activation = plain(mlp.act)
        self.head_dim, self.scale = attention.head_dim, attention.scaling

    def heads(self, x: Tensor, rotary: None) -> Tensor:
        """See `Layer`; positions are in the input already."""
        return self.qkv_proj(self.attention_norm(x)).view(x.shape[0], -1, self.head_dim)

    def output_projection(self, attended: Tensor) -> Tensor:
        """See `Layer`."""
        return self.o_proj(attended)

    def mlp(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.down_proj(self.activation(self.up_proj(self.mlp_norm(x))))


class LlamaLayer:
    """Rotary embeddings, RMS norms (of heads too, in Qwen 3), grouped queries, a gated MLP."""

    def __init__(self, block: Any, dtype: torch.dtype | None) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.attention_norm, self.o_proj = block.input_layernorm, plain(attention.o_proj, dtype)
        self.qkv_proj = [plain(p, dtype) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
        self.q_norm, self.k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        self.mlp_norm, self.activation = block.post_attention_layernorm, mlp.act_fn
        self.gate_proj, self.up_proj = plain(mlp.gate_proj, dtype), plain(mlp.up_proj, dtype)
        self.down_proj = plain(mlp.down_proj, dtype)
        self.head_dim, self.scale = attention.head_dim, attention.scaling

    def heads(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """See `Layer`; `rotary` are cosines and sines (N, 1, d)."""
        x = self.attention_norm(x)
        q, k, v = (project(x).view(x.shape[0], -1, self.head_dim) for project in self.qkv_proj)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        cos, sin = rotary
        qk = torch.cat((q, k), dim=1)
        first, second = qk.chunk(2, dim=-1)
        return torch.cat((qk * cos + torch.cat((-second, first), dim=-1) * sin, v), dim=1)

    def output_projection(self, attended: Tensor) -> Tensor:
        """See `Layer`."""
        return self.o_proj(attended)

    def mlp(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        x = self.mlp_norm(x)
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class GPT2:
    """GPT-2, whose positions are embedded."""

    def __init__(self, trunk: Any, dtype: torch.dtype | None) -> None:
        self.tokens, self.positions, self.norm = plain(trunk.wte), plain(trunk.wpe), plain(trunk.ln_f)
        self.layers: list[Layer] = [GPT2Layer(block, dtype) for block in trunk.h]

    def embed(self, ids: Tensor, position: Tensor) -> tuple[Tensor, Any]:
        """Return (N, D) of tokens (N,), and what `heads` wants to know of their positions: nothing."""
        return self.tokens(ids) + self.positions(position), None


class Llama:
    """Llama, Mistral, Qwen 2 and Qwen 3, with rotary position embeddings."""

    def __init__(self, trunk: Any, dtype: torch.dtype | None) -> None:
        self.tokens, self.rotary, self.norm = plain(trunk.embed_tokens), trunk.rotary_emb, trunk.norm
        self.layers: list[Layer] = [LlamaLayer(block, dtype) for block in trunk.layers]

    def embed(self, ids: Tensor, position: Tensor) -> tuple[Tensor, Any]:
        """Return (N, D) of tokens (N,), and the cosines and sines (N, 1, d) of their positions."""
        x = self.tokens(ids)
        cos, sin = self.rotary(x, position[None])
        return x, (cos[0, :, None], sin[0, :, None])


FAMILIES: dict[str, type[GPT2 | Llama]] = {
    "GPT2Model": GPT2,
    "LlamaModel": Llama,
    "MistralModel": Llama,
    "Qwen2Model": Llama,
    "Qwen3Model": Llama,
}


# by type of layer: added to a query's products, 0 or -inf; None where it attends to all
AttentionMasks = dict[str, Tensor | None]


class Prefill(NamedTuple):
    """What is new of some rows before their last token: (b, t) tokens, shorter rows' last one several times.

    Attributes:
        rows: (b,).
        tokens: t of each row.
        width: slots that their queries look at.
        masks: (b, 1, G t, width), G queries to a key.
    """

    rows: Tensor
    tokens: int
    width: int
    masks: AttentionMasks


class LeanDecoder:
    """Keys and values of B rows of up to L tokens, and the step that adds to them.

    A step computes the last token of each row, and with them, in the same products, what else is new of rows that
    grew by more than a token or started over.

    Args:
        backbone: the model.
        n_rows: B.

    Raises:
        TypeError: if the model is of none of `FAMILIES`.
    """

    def __init__(self, backbone: Backbone, n_rows: int) -> None:
        trunk: Any = backbone.model.base_model
        name = type(trunk).__name__
        if name not in FAMILIES:
            raise TypeError(f"{name} has no lean decode step; those that have one: {', '.join(FAMILIES)}")
        self.backbone, self.n_rows, self.capacity = backbone, n_rows, backbone.context_length
        self.weight = trunk.get_input_embeddings().weight
        self.refresh()
        self.layer_types = layer_types(backbone)
        self.n_heads = backbone.config.num_attention_heads
        self.n_kv_heads = getattr(backbone.config, "num_key_value_heads", None) or self.n_heads
        self.rows = np.arange(n_rows)
        self.cache: Tensor | None = None  # (layers, B, L, 2 H', d): keys, then values

    def refresh(self) -> None:
        """Take the weights as they are now."""
        trunk: Any = self.backbone.model.base_model
        self.family = FAMILIES[type(trunk).__name__](trunk, self.backbone.dtype)

    def advance(self, ids: np.ndarray, start: np.ndarray, length: np.ndarray) -> Tensor:
        """Compute tokens [start, length) of every row; return (B, D), the hidden states of the last ones.

        Args:
            ids: (B, L) int64.
            start: (B,), tokens of each row that are known already, less than `length`.
            length: (B,), tokens of each row.
        """
        row, position = self.rows, length - 1
        device = self.weight.device
        width, masks = int(length.max()), self._attention_masks(position[:, None])
        prefill = None
        rows = np.flatnonzero(start < position)
        if len(rows):
            span = np.arange((position - start).max())
            more = np.minimum(start[rows, None] + span, position[rows, None] - 1)  # (b, t)
            seen = self._attention_masks(more)
            prefill = Prefill(to_device(rows, device), len(span), int(more.max()) + 1, seen)
            row = np.concatenate((row, np.repeat(rows, len(span))))
            position = np.concatenate((position, more.ravel()))
        fed = np.stack((ids[row, position], position, row * self.capacity + position))
        ids_t, position_t, slot = to_device(fed, device).unbind()
        with self.backbone.autocast():
            x, rotary = self.family.embed(ids_t, position_t)
            with torch.inference_mode():  # a twentieth quicker than torch.no_grad
                x = self._layers(x, rotary, slot, width, masks, prefill)
        return x.clone()  # a tensor like any other

    def _attention_masks(self, position: np.ndarray) -> AttentionMasks:
        """Return the masks (b, 1, G t, width) of queries at (b, t), `width` being the longest's."""
        seen: AttentionMasks = {}
        for layer_type, hidden in masked_positions(self.backbone, position, int(position.max()) + 1).items():
            seen[layer_type] = None
            if hidden.any():
                tiled = np.tile(hidden, (1, self.n_heads // self.n_kv_heads, 1))
                hide = to_device(tiled, self.weight.device)[:, None]
                seen[layer_type] = torch.zeros_like(hide, dtype=self.weight.dtype).masked_fill_(hide, -torch.inf)
        return seen

    def _layers(
        self, x: Tensor, rotary: Any, slot: Tensor, width: int, masks: AttentionMasks, prefill: Prefill | None
    ) -> Tensor:
        """Return (B, D) of embedded tokens (N, D), the first B of which are the rows' last."""
        if self.cache is None:
            self.cache = self._allocate()
        keys, values = self.cache.narrow(2, 0, width).transpose(2, 3).chunk(2, dim=2)
        views = self.cache.flatten(1, 2).unbind(), keys.unbind(), values.unbind()
        layers = zip(self.family.layers, self.layer_types, *views, strict=True)
        for i, (layer, layer_type, tokens, k, v) in enumerate(layers):
            heads = layer.heads(x, rotary)  # (N, H + 2 H', d)
            queries, fresh = heads.split_with_sizes((self.n_heads, 2 * self.n_kv_heads), dim=1)
            tokens.index_copy_(0, slot, fresh.to(tokens.dtype))
            last = queries if prefill is None else queries[: self.n_rows]
            last = last.view(self.n_rows, self.n_kv_heads, -1, layer.head_dim)  # (B, H', G, d)
            attended = _attend(last, k, v, masks[layer_type], layer.scale).flatten(1)
            if prefill is not None:
                more = self._attend_more(queries[self.n_rows :], self.cache[i], layer_type, prefill, layer.scale)
                attended = torch.cat((attended, more))
            x = x + layer.output_projection(attended)
            x = x + layer.mlp(x)
        return self.family.norm(x if prefill is None else x[: self.n_rows])

    def _allocate(self) -> Tensor:
        """Return the memory of all layers."""
        head_dim = self.family.layers[0].head_dim
        shape = len(self.layer_types), self.n_rows, self.capacity, 2 * self.n_kv_heads, head_dim
        return self.weight.new_zeros(shape, dtype=self.backbone.dtype)

    def _attend_more(
        self, queries: Tensor, cache: Tensor, layer_type: str, prefill: Prefill, scale: float
    ) -> Tensor:
        """Return (b t, H d) of a prefill's queries (b t, H, d)."""
        rows, t, width, masks = prefill
        size = queries.shape[2]
        apart = queries.view(len(rows), t, self.n_kv_heads, -1, size).permute(0, 2, 3, 1, 4)  # (b, H', G, t, d)
        keys, values = cache[rows, :width].transpose(1, 2).chunk(2, dim=1)
        seen = _attend(apart.flatten(2, 3), keys, values, masks[layer_type], scale)
        return seen.view(apart.shape).permute(0, 3, 1, 2, 4).reshape(len(queries), -1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return attention (b, H', q, d) of queries (b, H', q, d) to keys and values (b, H', width, d).

    The queries that share a key stand side by side like queries in time: no key is copied for them.
    """
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
