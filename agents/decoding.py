"""A lean decode step for GPT-2 and the Llama family: the new tokens of every row in one pass over the weights.

transformers spends most of a small step in the Python of its modules. This reads the same weights, live, and leaves
out what a rollout never uses: dropout, outputs of inner layers, layouts with a row of padding for each row. Each
linear map is still the module's own where it is not a plain one, so adapters work.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from .backbone import Backbone


def out_of_sight(backbone: Backbone, position: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """Return (b, t, width) for each kind of layer: True where a query must not look.

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


def kinds_of_layers(backbone: Backbone) -> list[str]:
    """Return the kind of each layer, a key of `out_of_sight`."""
    n_layers = backbone.config.num_hidden_layers
    if backbone.window() is None:
        return ["full_attention"] * n_layers
    return list(getattr(backbone.config, "layer_types", None) or ["sliding_attention"] * n_layers)


class Layer(Protocol):
    """A layer's own maps; it adds attention's share and then the perceptron's to its input (N, D)."""

    scale: float  # on attention's products

    def heads(self, x: Tensor, rotation: Any) -> Tensor:
        """Return (N, H + 2 H', d) of the layer's input (N, D): H queries, H' keys, H' values."""

    def leave(self, attended: Tensor) -> Tensor:
        """Return attention's share (N, D) of what its heads saw (N, H d)."""

    def perceptron(self, x: Tensor) -> Tensor:
        """Return the perceptron's share (N, D)."""


class GPT2Layer:
    """One map to queries, keys and values; layer norms and biases."""

    def __init__(self, block: Any) -> None:
        attention, mlp = block.attn, block.mlp
        self.before_attention, self.to_heads, self.from_heads = block.ln_1, attention.c_attn, attention.c_proj
        self.before_perceptron, self.widen, self.narrow = block.ln_2, mlp.c_fc, mlp.c_proj
        self.activation, self.n_heads, self.scale = mlp.act, attention.num_heads, attention.scaling

    def heads(self, x: Tensor, rotation: None) -> Tensor:
        """See `Layer`; positions are in the input already."""
        return _linear(self.to_heads, self.before_attention(x)).view(x.shape[0], 3 * self.n_heads, -1)

    def leave(self, attended: Tensor) -> Tensor:
        """See `Layer`."""
        return _linear(self.from_heads, attended)

    def perceptron(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        return _linear(self.narrow, self.activation(_linear(self.widen, self.before_perceptron(x))))


class LlamaLayer:
    """Rotary positions, RMS norms (of heads too, in Qwen 3), fewer keys than queries, a gated perceptron."""

    def __init__(self, block: Any) -> None:
        attention = block.self_attn
        self.before_attention, self.from_heads = block.input_layernorm, attention.o_proj
        self.projections = attention.q_proj, attention.k_proj, attention.v_proj
        self.q_norm, self.k_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
        self.before_perceptron, self.gated = block.post_attention_layernorm, block.mlp
        self.size, self.scale = attention.head_dim, attention.scaling

    def heads(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """See `Layer`; `rotation` are cosines and sines (N, 1, d)."""
        x = self.before_attention(x)
        q, k, v = (to_heads(x).view(x.shape[0], -1, self.size) for to_heads in self.projections)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        cos, sin = rotation
        turned = torch.cat((q, k), dim=1)
        first, second = turned.chunk(2, dim=-1)
        return torch.cat((turned * cos + torch.cat((-second, first), dim=-1) * sin, v), dim=1)

    def leave(self, attended: Tensor) -> Tensor:
        """See `Layer`."""
        return self.from_heads(attended)

    def perceptron(self, x: Tensor) -> Tensor:
        """See `Layer`."""
        return self.gated(self.before_perceptron(x))


class GPT2:
    """GPT-2, whose positions are embedded."""

    def __init__(self, trunk: Any) -> None:
        self.tokens, self.positions, self.norm = trunk.wte, trunk.wpe, trunk.ln_f
        self.layers: list[Layer] = [GPT2Layer(block) for block in trunk.h]

    def embed(self, ids: Tensor, position: Tensor) -> tuple[Tensor, Any]:
        """Return (N, D) of tokens (N,), and what `heads` wants to know of their positions: nothing."""
        return self.tokens(ids) + self.positions(position), None


class Llama:
    """Llama, Mistral, Qwen 2 and Qwen 3, whose positions turn queries and keys."""

    def __init__(self, trunk: Any) -> None:
        self.tokens, self.rotary, self.norm = trunk.embed_tokens, trunk.rotary_emb, trunk.norm
        self.layers: list[Layer] = [LlamaLayer(block) for block in trunk.layers]

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


def _linear(module: nn.Module, x: Tensor) -> Tensor:
    """Return a linear map of (N, D); Conv1D's own forward is twice as slow as its product."""
    return torch.addmm(module.bias, x, module.weight) if type(module) is Conv1D else module(x)


Sight = dict[str, Tensor | None]  # by kind of layer: True where a query may look; None where it may everywhere


class Prefill(NamedTuple):
    """What is new of some rows before their last token: (b, t) tokens, shorter rows' last one several times.

    Attributes:
        rows: (b,).
        tokens: t of each row.
        width: slots that their queries look at.
        sight: masks (b, 1, G t, width), G queries to a key.
    """

    rows: Tensor
    tokens: int
    width: int
    sight: Sight


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
        trunk = backbone.model.base_model
        name = type(trunk).__name__
        if name not in FAMILIES:
            raise TypeError(f"{name} has no lean decode step; those that have one: {', '.join(FAMILIES)}")
        self.backbone, self.n_rows, self.capacity = backbone, n_rows, backbone.context_length
        self.family = FAMILIES[name](trunk)
        self.kinds = kinds_of_layers(backbone)
        self.n_heads = backbone.config.num_attention_heads
        self.n_keys = getattr(backbone.config, "num_key_value_heads", None) or self.n_heads
        self.cache: list[Tensor] = []  # (B, L, 2 H', d) of each layer: keys, then values

    def advance(self, ids: np.ndarray, start: np.ndarray, length: np.ndarray) -> Tensor:
        """Compute tokens [start, length) of every row; return (B, D), the hidden states of the last ones.

        Args:
            ids: (B, L) int64.
            start: (B,), tokens of each row that are known already, less than `length`.
            length: (B,), tokens of each row.
        """
        device = self.family.tokens.weight.device
        row, position = np.arange(self.n_rows), length - 1
        width, sight = int(length.max()), self._sight(position[:, None], device)
        prefill = None
        rows = np.flatnonzero(start < position)
        if len(rows):
            span = np.arange((position - start).max())
            more = np.minimum(start[rows, None] + span, position[rows, None] - 1)  # (b, t)
            seen = self._sight(more, device)
            prefill = Prefill(torch.as_tensor(rows, device=device), len(span), int(more.max()) + 1, seen)
            row = np.concatenate((row, np.repeat(rows, len(span))))
            position = np.concatenate((position, more.ravel()))
        fed = np.stack((ids[row, position], position, row * self.capacity + position))
        ids_t, position_t, slot = torch.as_tensor(fed, device=device)
        with self.backbone.autocast():
            x, rotation = self.family.embed(ids_t, position_t)
            with torch.inference_mode():  # a twentieth quicker than torch.no_grad
                x = self._layers(x, rotation, slot, width, sight, prefill)
        return x.clone()  # a tensor like any other

    def _sight(self, position: np.ndarray, device: torch.device) -> Sight:
        """Return the masks (b, 1, G t, width) of queries at (b, t), `width` being the longest's."""
        seen: Sight = {}
        for kind, hidden in out_of_sight(self.backbone, position, int(position.max()) + 1).items():
            seen[kind] = None
            if hidden.any():
                tiled = np.tile(~hidden, (1, self.n_heads // self.n_keys, 1))
                seen[kind] = torch.as_tensor(tiled, device=device)[:, None]
        return seen

    def _layers(
        self, x: Tensor, rotation: Any, slot: Tensor, width: int, sight: Sight, prefill: Prefill | None
    ) -> Tensor:
        """Return (B, D) of embedded tokens (N, D), the first B of which are the rows' last."""
        for i, (layer, kind) in enumerate(zip(self.family.layers, self.kinds, strict=True)):
            heads = layer.heads(x, rotation)
            queries, fresh = heads[:, : self.n_heads], heads[:, self.n_heads :]
            if len(self.cache) == i:
                self.cache.append(fresh.new_zeros(self.n_rows, self.capacity, *fresh.shape[1:]))
            cache = self.cache[i]
            cache.view(-1, *fresh.shape[1:]).index_copy_(0, slot, fresh)
            last = queries[: self.n_rows].unflatten(1, (self.n_keys, -1))  # (B, H', G, d)
            attended = self._attend(last, cache[:, :width], sight[kind], layer.scale).flatten(1)
            if prefill is not None:
                more = self._attend_more(queries[self.n_rows :], cache, kind, prefill, layer.scale)
                attended = torch.cat((attended, more))
            x = x + layer.leave(attended)
            x = x + layer.perceptron(x)
        return self.family.norm(x[: self.n_rows])

    def _attend_more(self, queries: Tensor, cache: Tensor, kind: str, prefill: Prefill, scale: float) -> Tensor:
        """Return (b t, H d) of a prefill's queries (b t, H, d)."""
        rows, t, width, sight = prefill
        size = queries.shape[2]
        apart = queries.view(len(rows), t, self.n_keys, -1, size).permute(0, 2, 3, 1, 4)  # (b, H', G, t, d)
        seen = self._attend(apart.flatten(2, 3), cache[rows, :width], sight[kind], scale)
        return seen.view(apart.shape).permute(0, 3, 1, 2, 4).reshape(len(queries), -1)

    def _attend(self, queries: Tensor, kept: Tensor, sight: Tensor | None, scale: float) -> Tensor:
        """Return what queries (b, H', q, d) see of keys and values (b, width, 2 H', d): (b, H', q, d).

        The queries that share a key stand side by side like queries in time: no key is copied for them.
        """
        keys, values = kept.transpose(1, 2).chunk(2, dim=1)  # (b, H', width, d)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=sight, scale=scale)
