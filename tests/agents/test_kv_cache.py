"""Cached contexts equal the full forward, whatever the rows do."""

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen3Config,
    RecurrentGemmaConfig,
)

from agents.backbone import Backbone
from agents.buffers import pack_to_device
from agents.kv_cache import ContextFollower, check_cache
from agents.models import ModelSpec
from agents.packing import pack
from agents.reading import ContextReader

V, L = 11, 24
SMALL = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL_GQA = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=V, n_positions=L, n_embd=32, n_layer=2, n_head=4),
    "llama": LlamaConfig(**SMALL_GQA),
    "qwen3": Qwen3Config(**SMALL_GQA, head_dim=8),
    "qwen3-window": Qwen3Config(
        **SMALL_GQA, head_dim=8, use_sliding_window=True, sliding_window=5, max_window_layers=1
    ),
    "mistral": MistralConfig(**SMALL_GQA, sliding_window=5),
    "opt": OPTConfig(**SMALL, ffn_dim=48, max_position_embeddings=L, word_embed_proj_dim=32, pad_token_id=1),
    "gpt-neox": GPTNeoXConfig(**SMALL, intermediate_size=48),
    "gemma3": Gemma3TextConfig(
        **SMALL_GQA, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi": PhiConfig(**SMALL, intermediate_size=48),
    "falcon": FalconConfig(**SMALL, alibi=False),
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


def test_a_step_that_fails_half_way_leaves_no_stale_row(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build(CONFIGS["gpt2"])
    follower = ContextFollower(backbone, 2)
    ids, other = np.random.default_rng(0).integers(V, size=(2, 2, L))
    advance = follower.decoder.advance

    def fail(*args: np.ndarray) -> torch.Tensor:
        advance(*args)
        raise MemoryError

    with torch.no_grad():
        before = follower.last_hidden(ids, np.array([9, 4]))
        monkeypatch.setattr(follower.decoder, "advance", fail)
        with pytest.raises(MemoryError):
            follower.last_hidden(other, np.array([8, 5]))
        monkeypatch.undo()
        torch.testing.assert_close(follower.last_hidden(ids, np.array([9, 4])), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_contexts_equal_each_context_alone(name: str) -> None:
    """Both with our FreshCache and padding, against transformers called plainly on one unpadded context."""
    backbone = build(CONFIGS[name])
    rng = np.random.default_rng(0)
    contexts = [rng.integers(V, size=n) for n in (L, 7, 13)]
    positions = [np.arange(len(ids)) for ids in contexts]
    packs = [pack_to_device(pack(contexts, positions), "cpu")]
    with torch.no_grad():
        packed = ContextReader(backbone).packed_hidden(packs)
        alone = [
            backbone.model.base_model(input_ids=torch.as_tensor(ids)[None], use_cache=False).last_hidden_state[0]
            for ids in contexts
        ]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["gpt2", "qwen3-window", "mistral"])
def test_whole_contexts_never_look_at_positions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers does without our FreshCache waits for the device."""
    backbone = build(CONFIGS[name])
    looks: list[int] = []
    monkeypatch.setattr(
        "transformers.masking_utils.find_packed_sequence_indices", lambda ids: looks.append(len(ids))
    )
    backbone.hidden(torch.zeros(2, 9, dtype=torch.int64))
    assert not looks
    backbone.model.base_model(input_ids=torch.zeros(2, 9, dtype=torch.int64), use_cache=False)
    assert looks  # or this test would not notice


@pytest.mark.parametrize("name", CONFIGS)
def test_these_models_are_cached(name: str) -> None:
    assert check_cache(build(CONFIGS[name])) is None


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=V, hidden_size=16, state_size=4, num_hidden_layers=1),
        RecurrentGemmaConfig(
            **SMALL, intermediate_size=48, lru_width=32, num_key_value_heads=1, attention_window_size=5
        ),
        BartConfig(
            vocab_size=V,
            d_model=16,
            decoder_layers=1,
            encoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=16,
        ),
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


def test_a_cached_block_within_another_leaves_it_on() -> None:
    reader = ContextReader(build(CONFIGS["gpt2"]))
    obs = torch.tensor([[1, 2, 3, *[V] * (L - 3)]])
    with torch.no_grad(), reader.cached():
        reader.last_hidden(obs)
        with reader.cached():
            reader.last_hidden(obs.repeat(3, 1))
        outer, reader.backbone.hidden = reader.backbone.hidden, None  # what reads whole contexts
        expected = reader.last_hidden(obs)
    reader.backbone.hidden = outer
    torch.testing.assert_close(reader.last_hidden(obs), expected)
    with pytest.raises(RuntimeError), reader.cached():
        raise RuntimeError
    assert not reader._following
