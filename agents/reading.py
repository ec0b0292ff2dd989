"""Observations as hidden states of a language model: whole, packed, or with a key-value cache."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from .backbone import Backbone
from .buffers import PackedTensors
from .kv_cache import ContextFollower, Decoder, find_decoder

_WHOLE = (torch.int64, torch.int32, np.dtype(np.int64), np.dtype(np.int32))  # need no look for fractions


class ContextReader(nn.Module):
    """A backbone that reads right-padded observations, with or without a key-value cache.

    Args:
        backbone: the model.
        fixed: whether its weights, as they are read here, are never trained: what was computed stays.
    """

    def __init__(self, backbone: Backbone, fixed: bool = False) -> None:
        super().__init__()
        self.backbone, self.fixed = backbone, fixed
        self._loads = backbone.loads
        self._follower: ContextFollower | None = None
        self._following = False
        self._rows: int | None = None  # whose contexts are followed now; other batches are read whole

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Within, successive calls follow growing contexts with a key-value cache; weights must not change."""
        before = self._following, self._rows
        self._following, self._rows = self._decoder is not None, None
        if self._follower is not None and not (self.fixed and self._loads == self.backbone.loads):
            self._follower.forget()
        self._loads = self.backbone.loads
        try:
            with self.backbone.weights_fixed():
                yield
        finally:
            self._following, self._rows = before

    @cached_property
    def _decoder(self) -> type[Decoder] | None:
        decoder, reason = find_decoder(self.backbone)
        if decoder is None:
            warnings.warn(f"no key-value cache for this model, so contexts are read whole: {reason}", stacklevel=2)
        return decoder

    def last_hidden(self, obs: Tensor) -> Tensor:
        """Return (B, D), the hidden state of the last token of each observation (B, L)."""
        if self._following and not torch.is_grad_enabled() and self._rows in (None, len(obs)):
            return self._followed(obs)
        return last_hidden(self.backbone, obs)

    def _followed(self, obs: Tensor) -> Tensor:
        """Return (B, D) with the cache."""
        self._rows = len(obs)
        if self._follower is None or self._follower.n_rows != self._rows:
            assert self._decoder is not None
            self._follower = ContextFollower(self.backbone, self._rows, self._decoder)
        ids = obs.cpu().numpy()
        check_contexts(ids, self.backbone.vocab_size)
        return self._follower.last_hidden(ids, (ids != self.backbone.vocab_size).sum(axis=1))

    def packed_hidden(self, packs: Sequence[PackedTensors]) -> Tensor:
        """Return (N, D), the hidden states at the packs' positions."""
        return torch.cat([self.backbone.hidden(p.ids)[p.row, p.position] for p in packs])


def last_hidden(backbone: Backbone, obs: Tensor) -> Tensor:
    """Return (B, D), the hidden state of each context's last token, of observations (B, L) read whole."""
    length, longest = context_lengths(obs, backbone.vocab_size)
    trimmed = obs[:, :longest].long()
    hidden = backbone.hidden(trimmed.masked_fill(trimmed == backbone.vocab_size, 0))
    return hidden[torch.arange(len(obs), device=obs.device), length - 1]


def context_lengths(obs: Tensor, pad: int) -> tuple[Tensor, int]:
    """Return (B,) tokens in each right-padded observation (B, L), and the most.

    Raises:
        ValueError: see `check_contexts`.
    """
    check_contexts(obs, pad)
    length = (obs != pad).sum(dim=1)
    return length, int(length.max())


def check_contexts(obs: Tensor | np.ndarray, pad: int) -> None:
    """Raise a `ValueError` unless observations (B, L) are token ids below `pad`, then `pad` to the right."""
    if not len(obs):
        raise ValueError("there is no observation; give at least one")
    wrong = (obs < 0) | (obs > pad)
    if obs.dtype not in _WHOLE:
        wrong = wrong | (obs % 1 != 0)  # % also finds nan
    if wrong.any():
        raise ValueError(
            f"an observation holds {obs[wrong][0].item():.6g}, which is no token id 0..{pad - 1} nor the padding "
            f"{pad}; ids are read as they are, so use no VecNormalize(norm_obs=True) or other scaling"
        )
    present = obs != pad
    if (present[:, 1:] > present[:, :-1]).any():
        raise ValueError(
            f"an observation goes on after the padding {pad}; a context is padded on the right only, and alone (no "
            "padding on the left, no VecFrameStack)"
        )
    if not present[:, 0].all():
        raise ValueError(f"an observation holds no token, only the padding {pad}; a context has at least one")
