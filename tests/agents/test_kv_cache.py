"""Cached contexts equal the full forward, whatever the rows do."""

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from agents.backbone import Backbone, ModelSpec
from agents.kv_cache import ContextFollower, check_cache

V, L = 11, 24
SMALL = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=V, n_positions=L, n_embd=32, n_layer=2, n_head=4),
    "llama": LlamaConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=L),
    "qwen3": Qwen3Config(
        **SMALL, intermediate_size=48, num_key_value_heads=2, head_dim=8, max_position_embeddings=L
    ),
    "opt": OPTConfig(**SMALL, ffn_dim=48, max_position_embeddings=L, word_embed_proj_dim=32, pad_token_id=1),
}


def build(config: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(ModelSpec(config), V, L).double()


def random_contexts(rng: np.random.Generator, steps: int, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows grow by one to four tokens, start over, or keep their first tokens and change the rest."""
    ids, length = rng.integers(V, size=(rows, L)), rng.integers(1, 6, size=rows)
    calls = []
    for _ in range(steps):
        calls.append((ids.copy(), length.copy()))
        length = length + rng.integers(1, 5, size=rows)
        for row in np.flatnonzero(length > L):
            ids[row, rng.integers(3) :] = rng.integers(V)
            length[row] = rng.integers(1, 6)
    return calls


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rows", [1, 5])
def test_cached_equals_full_forward(name: str, rows: int) -> None:
    backbone = build(CONFIGS[name])
    follower = ContextFollower(backbone, rows)
    with torch.no_grad():
        for ids, length in random_contexts(np.random.default_rng(rows), 25, rows):
            cached = follower.last_hidden(ids, length)
            for row in range(rows):
                whole = backbone.hidden(torch.as_tensor(ids[row : row + 1, : length[row]]))[0, -1]
                torch.testing.assert_close(cached[row], whole, rtol=0, atol=1e-10)


def test_only_new_tokens_are_computed() -> None:
    backbone = build(CONFIGS["gpt2"])
    computed: list[int] = []
    backbone.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    follower = ContextFollower(backbone, 4)
    rng = np.random.default_rng(0)
    ids = rng.integers(V, size=(4, L))
    with torch.no_grad():
        for n in (5, 6, 7):
            follower.last_hidden(ids, np.full(4, n))
        assert computed == [20, 4, 4]
        ids[2] = (ids[2] + 1) % V  # one row starts over with six tokens: five are prefilled alone
        follower.last_hidden(ids, np.array([8, 8, 6, 8]))
    assert computed[3:] == [5, 4]


def test_forgetting_recomputes_after_the_weights_change() -> None:
    backbone = build(CONFIGS["llama"])
    follower = ContextFollower(backbone, 2)
    ids, length = np.random.default_rng(0).integers(V, size=(2, L)), np.array([9, 4])
    with torch.no_grad():
        follower.last_hidden(ids, length)
        for parameter in backbone.parameters():
            parameter.mul_(1.1)
        follower.forget()
        fresh = ContextFollower(backbone, 2).last_hidden(ids, length)
        assert torch.equal(follower.last_hidden(ids, length), fresh)


def test_a_window_shorter_than_the_context_is_not_cached() -> None:
    config = MistralConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, sliding_window=8)
    assert "window (8)" in str(build(config).uncacheable())
    config.sliding_window = L
    assert check_cache(build(config)) is None


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=V, hidden_size=16, state_size=4, num_hidden_layers=1),
        BloomConfig(vocab_size=V, hidden_size=16, n_layer=1, n_head=2),
        GPTNeoConfig(
            vocab_size=V,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            max_position_embeddings=L,
            attention_types=[[["global", "local"], 1]],
            window_size=4,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_what_the_cache_cannot_follow_is_not_cached(config: PreTrainedConfig) -> None:
    assert check_cache(build(config)) is not None
