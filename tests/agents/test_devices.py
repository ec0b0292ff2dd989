"""A tensor on the wrong device fails here, without a GPU: the model lies on PyTorch's "meta" device, the host's
tensors do not, and an operation between the two raises.

PyTorch's FakeTensorMode with fake CUDA tensors would be nearer to the real thing, but a build without CUDA has no
device guard for them: indexing, `nn.Linear` and every backward pass raise "PyTorch is not linked with support for
cuda devices" or end the process (2.13). A device of its own by `_setup_privateuseone_for_python_backend` hung, or
ended the process, in the backward passes of LoRA policies.
"""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from transformers import GPT2Config, LlamaConfig

import agents
from agents.backbone import Backbone
from agents.buffers import pack_to_device
from agents.decoding import LeanDecoder
from agents.kv_cache import CacheDecoder, ContextFollower, Decoder
from agents.losses import dqn_loss, ppo_loss, q_targets
from agents.models import ModelSpec
from agents.packing import pack
from agents.policies import token_log_probs
from agents.reading import ContextReader
from agents.updates import Update

V, L = 7, 14
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=V, n_positions=L, n_embd=16, n_layer=1, n_head=2),
    "llama": LlamaConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    ),
}


@pytest.fixture(params=CONFIGS)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return Backbone(ModelSpec(CONFIGS[request.param]), V, L).to("meta")


def test_forward_and_losses_stay_on_the_device(backbone: Backbone) -> None:
    packs = [pack_to_device(pack([np.arange(5), np.arange(3)], [np.array([2, 4]), np.array([1])]), "meta")]
    hidden = ContextReader(backbone).packed_hidden(packs)
    actions = torch.zeros(3, dtype=torch.int64, device="meta")
    log_prob, entropy = token_log_probs(backbone, hidden, actions)
    column = torch.zeros(3, device="meta")
    loss = ppo_loss(
        log_prob,
        column,
        column,
        hidden.mean(-1),
        column,
        column,
        entropy,
        clip_range=0.2,
        clip_range_vf=0.2,
        ent_coef=0.1,
        vf_coef=0.5,
    )
    loss.total.backward()
    q_values = backbone.scores(hidden.detach())
    q_loss = dqn_loss(q_values, actions, q_targets(column, column, q_values.detach(), q_values.detach()))
    assert loss.total.device.type == q_loss.device.type == "meta"


@pytest.mark.parametrize("decoder", [CacheDecoder, LeanDecoder])
def test_the_cache_stays_on_the_device(backbone: Backbone, decoder: type[Decoder]) -> None:
    follower = ContextFollower(backbone, 3, decoder)
    ids = np.zeros((3, L), np.int64)
    with torch.no_grad():
        for length in ([4, 2, 3], [5, 3, 4], [6, 1, 5]):
            assert follower.last_hidden(ids, np.array(length)).device.type == "meta"
            ids[1] += 1


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
@pytest.mark.parametrize(
    "options",
    [{}, {"micro_batch_size": 30}, {"policy_kwargs": {"lora": 2, "gradient_checkpointing": True}}],
    ids=str,
)
def test_updates_stay_on_the_device(
    vector_env: Callable, monkeypatch: pytest.MonkeyPatch, name: str, options: dict
) -> None:
    """A real rollout on the host, then the algorithm's own `train` on "meta", steps of the optimiser included.

    "meta" has no values: whatever reads one outside of the places listed here, before the update's end, raises.
    """
    common = {"seed": 0, "device": "cpu", **options}
    if name != "DQN":
        common |= {"reference": "initial", "kl_coef": 0.1, "ent_coef": 0.01}
    if name == "GRPO":
        common |= {"group_size": 2}
    kwargs = {"learning_starts": 20} if name == "DQN" else {"n_steps": 40}
    policy = "TransformerQPolicy" if name == "DQN" else "TransformerPolicy"
    model = getattr(agents, name)(policy, vector_env(4), **kwargs, **common)
    _, callback = model._setup_learn(200)
    if name == "DQN":
        model.collect_rollouts(
            model.env, callback, TrainFreq(50, TrainFrequencyUnit.STEP), model.replay_buffer, learning_starts=100
        )
        model.replay_buffer.device = "meta"
    else:
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 40)
        model.rollout_buffer.device = "meta"
    model.policy.to("meta")
    if getattr(model, "reference_policy", None) is not None:
        model.reference_policy.to("meta")
    trained = model.q_net if name == "DQN" else model.policy
    parameters = [p for p in trained.parameters() if p.requires_grad]
    model.policy.optimizer = torch.optim.SGD(parameters, lr=0.1)
    assert all(p.device.type == "meta" for p in parameters) and len(parameters) > 4
    steps = []
    monkeypatch.setattr(Update, "check", lambda update: steps.append(len(update.losses)))
    monkeypatch.setattr(torch, "autocast", lambda *args, **keywords: nullcontext())  # knows no "meta"
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: 0.0)  # what is logged when the update is over
    as_tensor = torch.as_tensor  # to a device it waits for all that the device still computes
    monkeypatch.setattr(torch, "as_tensor", lambda array: as_tensor(array))
    model.train(2) if name == "DQN" else model.train()
    assert steps and steps[-1] >= 2


def test_a_mix_up_is_noticed(backbone: Backbone) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        backbone.hidden(torch.zeros(1, 3, dtype=torch.int64, device="meta")) + torch.zeros(1, 3, 16)
