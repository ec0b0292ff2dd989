"""A key-value cache whose rows have their own lengths, and the bookkeeping that feeds only unseen tokens.

What the published caches keep and this one drops: a common length. Rows that reset are rewound alone. The quicker
way of the common families, without transformers' modules, is in `decoding.py`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from .backbone import Backbone
from .decoding import LeanDecoder, layer_types, masked_positions
from .transfer import to_device
from .updates import is_out_of_memory


class RaggedLayer(CacheLayerMixin):
    """One layer's keys and values, (B, capacity + 1, H, D); the last slot takes what padding writes.

    `rows`, `slots` and `width` say where the next `update` writes and how much it returns; `RaggedCache.aim`
    sets them.
    """

    is_sliding = False

    def __init__(self, n_rows: int, capacity: int) -> None:
        super().__init__()
        self.n_rows, self.capacity = n_rows, capacity
        self.rows: Tensor | None = None  # (b,) or None for every row
        self.index: tuple[Tensor, Tensor]  # (b, 1) rows, (b, t) slots
        self.width = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate once, on the device and in the precision of the first keys."""
        heads, size = key_states.shape[1], key_states.shape[3]
        self.keys = key_states.new_zeros(self.n_rows, self.capacity + 1, heads, size)
        self.values = value_states.new_zeros(self.n_rows, self.capacity + 1, heads, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (b, H, t, D) at each row's own slots and return (b, H, width, D) of the same rows."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        self.keys.index_put_(self.index, key_states.transpose(1, 2))
        self.values.index_put_(self.index, value_states.transpose(1, 2))
        keys, values = self.keys[:, : self.width], self.values[:, : self.width]
        if self.rows is not None:
            keys, values = keys[self.rows], values[self.rows]
        return keys.transpose(1, 2), values.transpose(1, 2)

    def get_seq_length(self) -> int:
        """Return the slots in use by the longest row of the current call."""
        return self.width

    def get_max_length(self) -> int:
        """Return the slots of a row."""
        return self.capacity

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (width, 0): callers always pass an explicit mask of that width."""
        return self.width, 0


class RaggedCache(Cache):
    """A `transformers.Cache` of `RaggedLayer`s.

    Args:
        n_layers: layers of the model.
        n_rows: B.
        capacity: L, tokens a row can hold.
    """

    def __init__(self, n_layers: int, n_rows: int, capacity: int) -> None:
        self.ragged = [RaggedLayer(n_rows, capacity) for _ in range(n_layers)]
        super().__init__(layers=list(self.ragged))

    def aim(self, rows: Tensor | None, index: tuple[Tensor, Tensor], width: int) -> None:
        """Say where the next forward pass writes and how many slots its queries may see."""
        for layer in self.ragged:
            layer.rows, layer.index, layer.width = rows, index, width


class Decoder(Protocol):
    """Keys and values of growing rows, and how the next tokens are computed with them."""

    def __init__(self, backbone: Backbone, n_rows: int) -> None: ...

    def refresh(self) -> None:
        """Take the weights as they are now, where copies of them are kept."""

    def advance(self, ids: np.ndarray, start: np.ndarray, length: np.ndarray) -> Tensor:
        """Compute tokens [start, length) of every row; return (B, D), the hidden states of the last ones.

        Args:
            ids: (B, L) int64.
            start: (B,), tokens of each row that are known already, less than `length`.
            length: (B,), tokens of each row.
        """


class CacheDecoder:
    """Any model of transformers whose attention takes keys and values from a cache, through its own forward.

    Args:
        backbone: the model.
        n_rows: B.
    """

    def __init__(self, backbone: Backbone, n_rows: int) -> None:
        self.backbone, self.n_rows = backbone, n_rows
        self.cache = RaggedCache(backbone.config.num_hidden_layers, n_rows, backbone.context_length)

    def refresh(self) -> None:
        """Do nothing: the model's own modules are called."""

    def advance(self, ids: np.ndarray, start: np.ndarray, length: np.ndarray) -> Tensor:
        """See `Decoder`."""
        long = np.flatnonzero(length - start > 1)
        if 0 < len(long) < self.n_rows:  # rows that reset are prefilled alone, up to their last token
            self._feed(ids, start[long], length[long] - 1, long)
            start = np.where(length - start > 1, length - 1, start)
        hidden = self._feed(ids, start, length, None)
        last = to_device(length - start - 1, hidden.device)
        return hidden[torch.arange(self.n_rows, device=hidden.device), last]

    def _feed(self, ids: np.ndarray, start: np.ndarray, stop: np.ndarray, rows: np.ndarray | None) -> Tensor:
        """Compute tokens [start, stop) of the given rows (None: every row); return (b, t, D)."""
        device = self.backbone.head.weight.device
        count = stop - start
        span = np.arange(count.max())  # (t,)
        position = start[:, None] + span  # (b, t)
        real = span < count[:, None]
        row = np.arange(self.n_rows) if rows is None else rows
        width = int(stop.max())
        feed = np.where(real, ids[row[:, None], np.minimum(position, ids.shape[1] - 1)], 0)
        slot = np.where(real, position, self.backbone.context_length)
        row_t = to_device(row, device)
        self.cache.aim(
            None if rows is None else row_t,
            (row_t[:, None], to_device(slot, device)),
            width,
        )
        return self.backbone.hidden(
            to_device(feed, device),
            past=self.cache,
            attention_mask=self._mask(position, width),
            position_ids=to_device(np.where(real, position, 0), device),
        )

    def _mask(self, position: np.ndarray, width: int) -> Tensor | dict[str, Tensor]:
        """Return (b, 1, t, width), added to attention: hides what comes later or is out of a layer's sight.

        A model whose layers differ takes one mask for each kind of layer.
        """
        masks = {
            kind: self._additive(hide) for kind, hide in masked_positions(self.backbone, position, width).items()
        }
        if len(masks) > 1 and "sliding_attention" in self.backbone.layer_kinds():
            return masks
        return masks[layer_types(self.backbone)[0]]

    def _additive(self, hide: np.ndarray) -> Tensor:
        weight = self.backbone.head.weight
        dtype = self.backbone.dtype or weight.dtype
        mask = torch.zeros(hide.shape, dtype=dtype, device=weight.device)
        return mask.masked_fill_(to_device(hide, weight.device), torch.finfo(dtype).min)[:, None]


class ContextFollower:
    """Hidden states of growing contexts, each token computed once.

    Every call compares the contexts with what each row last held, rewinds the row to the longest common prefix
    and feeds the rest. Resets, multi-token replies and repeated prompts need no signal from the caller, and a
    stale row cannot happen; only a change of weights must be announced, with `forget`.

    Args:
        backbone: the model.
        n_rows: B.
        decoder: what computes the tokens, see `find_decoder`.
    """

    def __init__(self, backbone: Backbone, n_rows: int, decoder: type[Decoder] = CacheDecoder) -> None:
        self.decoder, self.n_rows = decoder(backbone, n_rows), n_rows
        self.tokens = np.zeros((n_rows, backbone.context_length), np.int64)
        self.length = np.zeros(n_rows, np.int64)  # tokens of each row whose keys and values are in the cache

    def forget(self) -> None:
        """Drop what was computed (the weights changed); the memory stays allocated."""
        self.length[:] = 0
        self.decoder.refresh()

    def last_hidden(self, ids: np.ndarray, length: np.ndarray) -> Tensor:
        """Return (B, D), the hidden state of each context's last token.

        Args:
            ids: (B, L) int64, right-padded with anything.
            length: (B,), tokens of each context, at least 1.
        """
        start = self._common_prefix(ids, length)
        self.length[:] = start  # what follows is written over, even where it fails half-way
        hidden = self.decoder.advance(ids, start, length)
        self.tokens[:] = ids
        self.length[:] = length
        return hidden

    def _common_prefix(self, ids: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Return (B,) how many leading tokens are in the cache; the last token is always fed again."""
        differs = ids != self.tokens
        first = np.where(differs.any(axis=1), differs.argmax(axis=1), ids.shape[1])
        return np.minimum(np.minimum(first, self.length), length - 1)


def find_decoder(backbone: Backbone) -> tuple[type[Decoder] | None, str | None]:
    """Return the quickest decoder that is right for a model, or None and why none is."""
    reason = None
    for decoder in (LeanDecoder, CacheDecoder):
        reason = check_cache(backbone, decoder)
        if reason is None:
            return decoder, None
    return None, reason


@torch.no_grad()
def check_cache(backbone: Backbone, decoder: type[Decoder] = CacheDecoder) -> str | None:
    """Return why a decoder cannot follow contexts of this model, or None if it can.

    What its config does not tell, two contexts do, one of full and one of half the length: fed in two parts, they
    must give what they give at once.
    """
    reason = backbone.uncacheable()
    if reason is not None:
        return reason
    full, half = backbone.context_length, max(1, backbone.context_length // 2)
    ids = np.random.default_rng(0).integers(backbone.vocab_size, size=(2, full))
    try:
        follower = ContextFollower(backbone, 2, decoder)
        follower.last_hidden(ids, np.array([half, 1]))
        cached = follower.last_hidden(ids, np.array([full, half]))
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        return f"it does not work with keys and values of its own rows ({type(error).__name__}: {error})"
    both = backbone.hidden(to_device(ids, cached.device))
    whole = torch.stack([both[0, full - 1], both[1, half - 1]])
    scale = whole.abs().max().item() or 1.0
    difference = (whole - cached).abs().max().item() / scale
    tolerance = 1e-4 if backbone.dtype is None else 0.1
    return (
        None if difference < tolerance else f"cached and whole contexts differ by {difference:.2g} of the largest"
    )
