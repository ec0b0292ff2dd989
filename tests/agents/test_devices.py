"""A tensor on the wrong device fails here, without a GPU: the model lies on PyTorch's "meta" device, the host's
tensors do not, and an operation between the two raises."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from agents.backbone import Backbone, ModelSpec
from agents.buffers import to_device
from agents.kv_cache import ContextFollower
from agents.losses import dqn_loss, ppo_loss, q_targets
from agents.packing import pack
from agents.policies import ContextReader, token_log_probs

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


def test_forward_and_losses_stay_on_the_device(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    # transformers looks at the positions' values, which "meta" has none of
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)
    packs = [to_device(pack([np.arange(5), np.arange(3)], [np.array([2, 4]), np.array([1])]), "meta")]
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


def test_the_cache_stays_on_the_device(backbone: Backbone) -> None:
    follower = ContextFollower(backbone, 3)
    ids = np.zeros((3, L), np.int64)
    with torch.no_grad():
        for length in ([4, 2, 3], [5, 3, 4], [6, 1, 5]):
            assert follower.last_hidden(ids, np.array(length)).device.type == "meta"
            ids[1] += 1


def test_a_mix_up_is_noticed(backbone: Backbone) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        backbone.hidden(torch.zeros(1, 3, dtype=torch.int64, device="meta")) + torch.zeros(1, 3, 16)
