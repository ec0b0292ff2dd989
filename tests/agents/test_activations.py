"""The activation that takes one operation is the one that takes eight."""

import copy

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PhiConfig

from agents.activations import fuse_activations
from agents.backbone import Backbone
from agents.models import ModelSpec

V = 11
GPT2 = GPT2Config(vocab_size=V, n_positions=14, n_embd=16, n_layer=2, n_head=2)
SMALL = {
    "vocab_size": V,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def kinds(model: torch.nn.Module) -> set[str]:
    return {type(part).__name__ for part in model.modules()}


def test_a_fused_model_computes_the_same_and_keeps_its_weights_and_config() -> None:
    plain = AutoModelForCausalLM.from_config(GPT2).double().eval()
    fused = fuse_activations(copy.deepcopy(plain))
    assert kinds(plain) ^ kinds(fused) == {"NewGELUActivation", "GELUTanh"}
    assert fused.state_dict().keys() == plain.state_dict().keys()
    assert fused.config.activation_function == "gelu_new"
    ids, gradients = torch.arange(20).reshape(2, 10) % V, []
    for model in (plain, fused):
        model(ids).logits.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_policies_models_are_fused() -> None:
    for config in (GPT2, PhiConfig(**SMALL)):
        assert "NewGELUActivation" not in kinds(Backbone(ModelSpec(config), V, 14))


def test_other_activations_stay() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL))
    assert kinds(fuse_activations(copy.deepcopy(model))) == kinds(model)
