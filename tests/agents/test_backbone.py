"""Which models are taken, and that checkpointing, compiling and LoRA change what they should and nothing else."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    OPTConfig,
    PreTrainedConfig,
    ReformerConfig,
    RwkvConfig,
    T5Config,
    T5ForConditionalGeneration,
    XLNetConfig,
)

from agents.backbone import Backbone
from agents.checkpoint import CheckpointError, weights_hash
from agents.kv_cache import CacheDecoder, check_cache
from agents.models import ModelSpec

V, L = 11, 16
SMALL = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = LlamaConfig(**SMALL, intermediate_size=24)
OPT = OPTConfig(**SMALL, ffn_dim=24, max_position_embeddings=L, word_embed_proj_dim=16, pad_token_id=1, dropout=0.3)
GPT2 = GPT2Config(vocab_size=V, n_positions=L, n_embd=16, n_layer=2, n_head=2)
XLNET = XLNetConfig(vocab_size=V, d_model=16, n_layer=1, n_head=2, d_inner=16)
T5 = T5Config(vocab_size=V, d_model=16, num_layers=1, num_heads=2, d_ff=16, d_kv=8)


def build(model: object, seed: int = 0, **options: object) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(ModelSpec(model, **options), V, L)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LLAMA).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (T5, "model='t5' is no causal language model"),
        (T5ForConditionalGeneration(T5), "T5ForConditionalGeneration has an encoder and a decoder"),
        (BertConfig(**SMALL, intermediate_size=24), "BertLMHeadModel reads a text in both directions"),
        (XLNET, "XLNetLMHeadModel reads a text in both directions.*largest gradient"),
        (ReformerConfig(vocab_size=V, is_decoder=True), "ReformerModelWithLMHead gives no gradient in evaluation"),
        (
            Llama4TextConfig(
                **SMALL, num_key_value_heads=2, intermediate_size=24, intermediate_size_mlp=24, pad_token_id=0
            ),
            "Llama4ForCausalLM does not tell where its layers end",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(model: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(model)


@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_looking_ahead_is_noticed_however_little_it_changes(scale: float) -> None:
    """With weights this small what follows moves a hidden state by less than any tolerance of rounding."""
    model = AutoModelForCausalLM.from_config(XLNET)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "rel_attn" in name and "norm" not in name:
                parameter.mul_(scale)
    with pytest.raises(ValueError, match="reads a text in both directions"):
        build(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_told(value: float) -> None:
    model = AutoModelForCausalLM.from_config(GPT2)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = value
    with pytest.raises(ValueError, match="GPT2LMHeadModel computes numbers that are not finite"):
        build(model)


def test_looking_at_a_model_leaves_it_as_it_was() -> None:
    model = AutoModelForCausalLM.from_config(LLAMA)
    model.model.embed_tokens.requires_grad_(False)
    backbone = build(model)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert not backbone.model.get_input_embeddings()._forward_hooks
    assert not backbone.model.get_input_embeddings().weight.requires_grad


def test_rwkv_is_read_whole_and_saved_with_the_weights_it_has(tmp_path: Path) -> None:
    """Seven layers: outside of training transformers halves the weights of the seventh in place."""
    size = {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 7}
    backbone = build(RwkvConfig(vocab_size=V, context_length=L, **size))
    assert "differ" in (check_cache(backbone) or "")
    ids = torch.arange(2 * L).reshape(2, L) % V
    with torch.no_grad():
        mine = backbone.scores(backbone.hidden(ids))
        backbone.merged().save_pretrained(tmp_path)
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(theirs(ids).logits, mine, rtol=0, atol=1e-5)
        for row in range(2):
            alone = theirs(ids[row : row + 1, :5]).logits[0, -1]
            torch.testing.assert_close(mine[row, 4], alone, rtol=0, atol=1e-5)


def losses_and_gradients(backbone: Backbone, train: bool = True) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    backbone.train(train)
    loss = backbone.scores(backbone.hidden(torch.arange(24).reshape(2, 12) % V)).square().mean()
    loss.backward()
    return loss, {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "config", [GPT2, LLAMA, OPT, MambaConfig(vocab_size=V, hidden_size=16, state_size=4, num_hidden_layers=2)]
)
@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, target_modules=["c_attn", "q_proj", "in_proj"])])
def test_gradient_checkpointing_changes_no_number(config: PreTrainedConfig, lora: LoraConfig | None) -> None:
    plain, saving = build(config, lora=lora), build(config, lora=lora, gradient_checkpointing=True)
    calls = []
    for layer in saving.model.modules():
        if "Block" in type(layer).__name__ or "DecoderLayer" in type(layer).__name__:
            layer.register_forward_pre_hook(lambda *args: calls.append(1))
    kept: list[int] = []
    results = []
    for backbone in (plain, saving, copy.deepcopy(saving)):
        held = 0

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            results.append(losses_and_gradients(backbone))
        kept.append(held)
    for loss, gradients in results[1:]:
        assert torch.equal(loss, results[0][0])
        for name, gradient in results[0][1].items():
            torch.testing.assert_close(gradient, gradients[name], rtol=0, atol=1e-7)
    assert kept[1] == kept[2] < 0.8 * kept[0]  # the copy computes its own layers again, not the original's


def test_compiling_changes_no_number_and_takes_any_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's "eager" backend: what is traced is tested here, not the C++ compiler."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, backend="eager", **options))
    plain, compiled = build(LLAMA), build(LLAMA, compile=True)
    torch._dynamo.utils.counters.clear()
    for rows, length in ((2, 5), (3, 7), (4, 16), (5, 11), (7, 13)):
        ids = torch.arange(rows * length).reshape(rows, length) % V
        torch.testing.assert_close(compiled.hidden(ids), plain.hidden(ids), rtol=0, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    again = copy.deepcopy(compiled)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.mul_(2)
        ids = torch.arange(6).reshape(2, 3)
        torch.testing.assert_close(compiled.hidden(ids), plain.hidden(ids), rtol=0, atol=1e-6)
        assert not torch.allclose(again.hidden(ids), plain.hidden(ids), atol=1e-3)


def test_running_out_of_memory_is_no_property_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **keywords: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    backbone = build(GPT2)
    monkeypatch.setattr(CacheDecoder, "advance", fail)
    with pytest.raises(torch.OutOfMemoryError):
        check_cache(backbone)
    for owner, name in ((Backbone, "hidden"), (torch.autograd, "grad")):
        with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
            patch.setattr(owner, name, fail)
            build(GPT2)


def test_lora_without_the_named_layers_lists_those_there_are() -> None:
    for config, layers in ((LLAMA, "down_proj.*q_proj"), (GPT2, "c_attn.*c_proj")):
        with pytest.raises(ValueError, match=rf"does not fit .*linear layers are \[.*{layers}.*W_pack"):
            build(config, lora=LoraConfig(r=2, target_modules=["W_pack"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "all"}, "bias='all', which trains biases of the base.*bias='none'"),
        ({"bias": "lora_only"}, "bias='lora_only', which trains biases of the base"),
        (
            {"target_modules": ["c_attn", "lm_head"]},
            r"names the output layer 'lm_head'.*modules_to_save=\['lm_head'\]",
        ),
        (
            {"target_modules": ["wte"]},
            r"embeddings that are the output layer, too, '.*wte'.*modules_to_save=\['wte'\]",
        ),
        ({"trainable_token_indices": [1, 2]}, r"trainable_token_indices=\[1, 2\].*modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the base.*'gaussian'"),
        (
            {"target_modules": ["c_fc"], "modules_to_save": ["attn"]},
            r"trains '.*h.0.attn' whole and, within it, '.*h.0.attn.c_attn'.*modules_to_save=\['.attn'\]",
        ),
    ],
)
def test_lora_that_would_not_stay_in_its_adapters_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(GPT2, lora=LoraConfig(r=2, **{"target_modules": ["c_attn"], **options}))


def test_a_bias_that_could_not_be_merged_is_refused_before_the_training() -> None:
    with pytest.raises(ValueError, match="lora_bias=True, but '.*q_proj' has no bias"):
        build(LLAMA, lora=LoraConfig(r=2, target_modules=["q_proj"], lora_bias=True))
    build(GPT2, lora=LoraConfig(r=2, target_modules=["c_attn"], lora_bias=True)).merged()


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_that_is_none_is_told(rank: int) -> None:
    with pytest.raises(TypeError, match=f"lora={rank}; give a rank of at least 1"):
        build(GPT2, lora=rank)


def test_one_lora_config_serves_two_models() -> None:
    config = LoraConfig(r=2, target_modules="all-linear")
    build(GPT2, lora=config)
    build(LLAMA, lora=config)
    assert config.target_modules == "all-linear"


@pytest.mark.parametrize(
    ("config", "module"), [(LLAMA, "lm_head"), (LLAMA, "norm"), (GPT2, "wte"), (GPT2, "lm_head")]
)
def test_modules_that_lora_trains_whole_are_switched_off_and_exported(
    config: PreTrainedConfig, module: str, tmp_path: Path
) -> None:
    layers = ["q_proj"] if config is LLAMA else ["c_attn"]
    backbone = build(config, lora=LoraConfig(r=2, target_modules=layers, modules_to_save=[module]))
    ids = torch.arange(10)[None]
    before = backbone.scores(backbone.hidden(ids)).detach()
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    with torch.no_grad(), backbone.weights_fixed():
        for parameter in trained:
            parameter.add_(torch.randn_like(parameter))
        after = backbone.scores(backbone.hidden(ids))
        with backbone.adapters_off():
            assert torch.equal(backbone.scores(backbone.hidden(ids)), before)
        assert torch.equal(backbone.scores(backbone.hidden(ids)), after) and not torch.equal(before, after)
    assert all(parameter.requires_grad for parameter in trained)
    backbone.merged().save_pretrained(tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits.detach()
    torch.testing.assert_close(exported, after, rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{"lora": 2}, {"frozen": True}, {"lora": 2, "dtype": "bfloat16"}])
def test_a_named_base_stays_out_of_the_state_dict(folder: Path, options: dict) -> None:
    backbone = build(folder, **options)
    state = backbone.state_dict()
    assert backbone.source == str(folder)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert state.keys() == trained | {"base_hash"}
    assert bytes(state["base_hash"].tolist()).hex() == weights_hash(AutoModelForCausalLM.from_pretrained(folder))
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    again = build(folder, seed=1, **options)
    again.load_state_dict(backbone.state_dict())
    ids = torch.arange(10)[None]
    assert torch.equal(again.hidden(ids), backbone.hidden(ids))


@pytest.mark.parametrize("options", [{}, {"lora": 2}])
def test_a_base_without_an_address_or_that_is_trained_is_saved_whole(folder: Path, options: dict) -> None:
    given = folder if not options else AutoModelForCausalLM.from_pretrained(folder)
    backbone = build(given, **options)
    assert isinstance(backbone.source, PreTrainedConfig)
    assert backbone.state_dict().keys() >= dict(backbone.named_parameters()).keys()


def test_another_base_is_refused_and_nothing_changes(folder: Path) -> None:
    backbone = build(folder, lora=2)
    state = backbone.state_dict()
    torch.manual_seed(5)
    AutoModelForCausalLM.from_config(LLAMA).save_pretrained(folder)
    other = build(folder, lora=2)
    before = {name: parameter.clone() for name, parameter in other.named_parameters()}
    hashes = f"{other._base_hash}, the adapters were trained on {backbone._base_hash}"
    with pytest.raises(CheckpointError, match=f"has changed: its weights' SHA-256 is {hashes}.*custom_objects"):
        other.load_state_dict(state)
    assert all(torch.equal(parameter, before[name]) for name, parameter in other.named_parameters())
    with pytest.raises(CheckpointError, match=f"heads of a base model with SHA-256 {backbone._base_hash}"):
        build(LLAMA, lora=2).load_state_dict(state)


def test_a_whole_state_dict_replaces_a_named_base(folder: Path) -> None:
    named, whole = build(folder, lora=2), build(LLAMA, seed=7, lora=2)
    named.load_state_dict(whole.state_dict())
    assert named.state_dict().keys() == whole.state_dict().keys()  # and is not taken for the folder's any more
    ids = torch.arange(10)[None]
    assert torch.equal(named.hidden(ids), whole.hidden(ids))


@pytest.mark.parametrize("model", [GPT2, LLAMA, OPT])
def test_no_argument_goes_by_a_name_that_transformers_gives_up(model: PreTrainedConfig) -> None:
    backbone = build(model)
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        whole = backbone.hidden(ids)
        start, length = np.zeros(2, np.int64), np.full(2, 3)
        last = CacheDecoder(backbone, 2).advance(ids.numpy(), start, length)
    torch.testing.assert_close(last, whole[:, -1])
