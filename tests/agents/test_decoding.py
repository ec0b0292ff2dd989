"""The lean step equals transformers' own forward, with and without a cache, or is not taken."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

import agents
from agents.backbone import Backbone
from agents.decoding import FAMILIES, LeanDecoder, masked_positions, plain
from agents.kv_cache import CacheDecoder, ContextFollower, check_cache, find_decoder
from agents.models import ModelSpec
from agents.reading import ContextReader

V, L = 11, 24
GPT2 = {"vocab_size": V, "n_positions": L, "n_embd": 32, "n_layer": 2, "n_head": 4}
LLAMA = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
WINDOW = {"head_dim": 8, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
CONFIGS = {
    "gpt2": GPT2Config(**GPT2),
    "gpt2-options": GPT2Config(
        **GPT2, scale_attn_by_inverse_layer_idx=True, activation_function="relu", n_inner=24
    ),
    "llama": LlamaConfig(**LLAMA),
    "llama-biases": LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True, head_dim=16),
    "mistral": MistralConfig(**LLAMA, sliding_window=5),
    "qwen2": Qwen2Config(**LLAMA),
    "qwen3": Qwen3Config(**LLAMA, head_dim=8),
    "qwen3-window": Qwen3Config(**LLAMA, **WINDOW),
}
OPT = OPTConfig(vocab_size=V, hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4)


def build(config: PreTrainedConfig, **spec: object) -> Backbone:
    torch.manual_seed(0)
    backbone = Backbone(ModelSpec(config, **spec), V, L)
    for parameter in backbone.parameters():  # biases, norms and adapters begin where they could be left out
        parameter.data += 0.1 * torch.randn_like(parameter)
    return backbone


def contexts(seed: int, rows: int, calls: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows grow by a token, some by up to four, some start over with others."""
    rng = np.random.default_rng(seed)
    ids, length, made = rng.integers(V, size=(rows, L)), rng.integers(1, 6, size=rows), []
    for _ in range(calls):
        made.append((ids.copy(), length.copy()))
        length = length + np.where(rng.random(rows) < 0.7, 1, rng.integers(1, 5, size=rows))
        for row in np.flatnonzero((length > L) | (rng.random(rows) < 0.1)):
            ids[row, rng.integers(3) :], length[row] = rng.integers(V), rng.integers(1, 9)
    return made


@torch.no_grad()
def assert_followed(backbone: Backbone, rows: int, tolerance: float = 1e-10) -> None:
    lean, cached = (ContextFollower(backbone, rows, decoder) for decoder in (LeanDecoder, CacheDecoder))
    for ids, length in contexts(rows, rows):
        hidden = lean.last_hidden(ids, length)
        torch.testing.assert_close(hidden, cached.last_hidden(ids, length), rtol=0, atol=tolerance)
        for row in range(rows):
            whole = backbone.hidden(torch.as_tensor(ids[row : row + 1, : length[row]]))[0, -1]
            torch.testing.assert_close(hidden[row], whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_lean_equals_cached_equals_whole(name: str, rows: int) -> None:
    backbone = build(CONFIGS[name]).double()
    assert find_decoder(backbone) == (LeanDecoder, None)
    assert_followed(backbone, rows)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_adapters_speak_and_can_be_silenced(name: str) -> None:
    backbone = build(CONFIGS[name], lora=2).double()
    assert_followed(backbone, 3)
    ids, length = contexts(0, 3)[0]
    with torch.no_grad():
        follower = ContextFollower(backbone, 3, LeanDecoder)
        loud = follower.last_hidden(ids, length)
        with backbone.adapters_off():
            assert_followed(backbone, 3)
            follower.forget()
            assert (follower.last_hidden(ids, length) - loud).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
@pytest.mark.parametrize("spec", [{}, {"frozen": True}], ids=str)
def test_half_precision(name: str, spec: dict) -> None:
    backbone = build(CONFIGS[name], dtype="bfloat16", **spec)
    assert find_decoder(backbone)[0] is LeanDecoder
    assert_followed(backbone, 3, tolerance=0.15)  # of numbers up to about 3, with 8 bits each


def test_weights_are_read_live() -> None:
    backbone = build(CONFIGS["qwen3"]).double()
    follower = ContextFollower(backbone, 2, LeanDecoder)
    ids, length = contexts(0, 2)[0]
    with torch.no_grad():
        before = follower.last_hidden(ids, length)
        for parameter in backbone.parameters():
            parameter.mul_(1.1)
        follower.forget()
        after = follower.last_hidden(ids, length)
        assert not torch.allclose(before, after)
        assert torch.equal(after, ContextFollower(backbone, 2, LeanDecoder).last_hidden(ids, length))


def test_only_new_tokens_are_computed_and_all_at_once() -> None:
    backbone = build(CONFIGS["gpt2"])
    computed: list[int] = []
    follower = ContextFollower(backbone, 4, LeanDecoder)
    embed = follower.decoder.family.embed
    follower.decoder.family.embed = lambda ids, position: computed.append(len(ids)) or embed(ids, position)
    ids = np.random.default_rng(0).integers(V, size=(4, L))
    with torch.no_grad():
        for n in (5, 6, 7):
            follower.last_hidden(ids, np.full(4, n))
        ids[2] = (ids[2] + 1) % V  # one row starts over with six tokens
        follower.last_hidden(ids, np.array([8, 8, 6, 8]))
    assert computed == [20, 4, 4, 9]


def test_what_comes_out_is_a_tensor_like_any_other() -> None:
    backbone = build(CONFIGS["gpt2"])
    ids, length = contexts(0, 2)[0]
    with torch.no_grad():
        hidden = ContextFollower(backbone, 2, LeanDecoder).last_hidden(ids, length)
    loss = (hidden * torch.ones(32, requires_grad=True)).sum()  # keeps it for the backward pass
    loss.backward()


def test_another_family_has_no_lean_step() -> None:
    backbone = build(OPT)
    with pytest.raises(TypeError, match="OPTModel has no lean decode step; those that have one: GPT2Model, Llama"):
        LeanDecoder(backbone, 2)
    assert find_decoder(backbone) == (CacheDecoder, None)


def test_a_model_that_computes_something_else_takes_its_own_forward() -> None:
    backbone = build(CONFIGS["gpt2"])
    backbone.model.base_model.h[0].register_forward_hook(lambda module, args, output: output * 1.5)
    reason = check_cache(backbone, LeanDecoder)
    assert reason is not None and reason.startswith("cached and whole contexts differ by")
    assert find_decoder(backbone) == (CacheDecoder, None)


def test_a_model_without_keys_and_values_has_no_decoder() -> None:
    backbone = build(MambaConfig(vocab_size=V, hidden_size=16, state_size=4, num_hidden_layers=1))
    decoder, reason = find_decoder(backbone)
    assert decoder is None and reason == "its layers are of kind ['linear_attention']"


def test_masked_positions() -> None:
    backbone = build(MistralConfig(**LLAMA, sliding_window=2))
    hidden = masked_positions(backbone, np.array([[0, 2]]), 4)
    assert hidden["full_attention"].tolist() == [[[False, True, True, True], [False, False, False, True]]]
    assert hidden["sliding_attention"].tolist() == [[[False, True, True, True], [True, False, False, True]]]


def test_a_rollout_takes_the_lean_step_and_its_policy_can_be_copied(vector_env: Callable) -> None:
    model = agents.PPO("TransformerPolicy", vector_env(), n_steps=32, batch_size=96, seed=0, device="cpu")
    model.learn(96)
    follower = model.policy.reader._follower
    assert follower is not None and isinstance(follower.decoder, LeanDecoder)
    twin = copy.deepcopy(model.policy)
    norm = twin.reader._follower.decoder.family.norm
    assert norm.keywords["weight"] is twin.backbone.model.base_model.ln_f.weight  # of the copy's own model
    obs = torch.as_tensor(model.env.reset())
    with torch.no_grad(), twin.cached(), model.policy.cached():
        theirs, own = (policy.get_distribution(obs).distribution for policy in (model.policy, twin))
        assert torch.equal(own.logits, theirs.logits)


def test_families_are_those_of_transformers() -> None:
    kinds = {type(build(config).model.base_model).__name__ for config in CONFIGS.values()}
    assert kinds == set(FAMILIES)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("kind", ["linear", "conv", "adapters on linear", "adapters on conv"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_an_operation_gives_its_modules_bits(kind: str, dtype: str | None) -> None:
    lora = 2 if kind.startswith("adapters") else None
    backbone = build(CONFIGS["gpt2" if kind.endswith("conv") else "llama"], dtype=dtype, lora=lora)
    block = backbone.model.base_model.h[0] if kind.endswith("conv") else backbone.model.base_model.layers[0]
    module = block.mlp.c_fc if kind.endswith("conv") else block.mlp.up_proj
    operation, x = plain(module, backbone.dtype), torch.randn(5, 32)
    assert operation is not module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        operation = plain(module, backbone.dtype)
        with backbone.autocast():
            assert torch.equal(operation(x), module(x))
            if lora:
                loud = operation(x)
                with backbone.adapters_off():
                    assert torch.equal(operation(x), module(x)) and not torch.equal(operation(x), loud)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_weights_are_cast_once_in_a_block_and_again_in_the_next(name: str) -> None:
    backbone = build(CONFIGS[name], dtype="bfloat16")
    reader, casts = ContextReader(backbone), []
    ids, length = contexts(0, 2)[0]
    obs = [torch.as_tensor(np.where(np.arange(L) < (length + more)[:, None], ids, V)) for more in (0, 1)]
    matrices = {tuple(p.shape) for p in backbone.parameters() if p.ndim == 2}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = operation(*args, **(kwargs or {}))
            if operation is torch.ops.aten._to_copy.default and tuple(out.shape) in matrices:
                casts.append(tuple(out.shape))
            return out

    hidden = []
    with torch.no_grad():
        for _ in range(2):
            with reader.cached():
                backbone.scores(reader.last_hidden(obs[0]))
                casts.clear()
                with Watch():
                    hidden.append(backbone.scores(reader.last_hidden(obs[1])))
                assert not casts
            torch.testing.assert_close(hidden[-1], backbone.scores(reader.last_hidden(obs[1])), rtol=0, atol=0.1)
            for parameter in backbone.parameters():
                parameter.mul_(1.5)
        assert (hidden[1] - hidden[0]).abs().max() > 0.5


def test_what_a_fixed_reader_knows_stays_until_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, fed = build(CONFIGS["gpt2"]), []
    advance = LeanDecoder.advance
    monkeypatch.setattr(
        LeanDecoder,
        "advance",
        lambda self, ids, start, length: (
            fed.append(int((length - start).sum())) or advance(self, ids, start, length)
        ),
    )
    ids, length = contexts(0, 2)[0]
    obs = torch.as_tensor(np.where(np.arange(L) < length[:, None], ids, V))
    for fixed, expected in ((False, [length.sum()] * 3), (True, [length.sum(), 2, length.sum()])):
        reader = ContextReader(backbone, fixed=fixed)
        assert reader._decoder is LeanDecoder
        fed.clear()
        with torch.no_grad():
            for block in range(3):
                if block == 2:
                    backbone.load_state_dict(backbone.state_dict())
                with reader.cached():
                    reader.last_hidden(obs)
        assert fed == expected


def test_a_policy_in_reduced_precision_can_be_copied_after_a_rollout(vector_env: Callable) -> None:
    """What was cast has no graph, which could not be copied."""
    options = {"policy_kwargs": {"dtype": "bfloat16"}, "seed": 0, "device": "cpu"}
    model = agents.PPO("TransformerPolicy", vector_env(), n_steps=16, **options).learn(48)
    assert not model.policy.reader._follower.decoder.family.layers[0].qkv_proj.keywords["mat2"].requires_grad
    copy.deepcopy(model.policy)
