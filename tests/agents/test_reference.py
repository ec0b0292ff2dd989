"""Any module of log-probabilities as the reference."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config

from agents import DQN, PPO, ReferencePolicy

VOCAB = 7  # of the environment in conftest.py


class Bigram(nn.Module):
    """The next token's log-probabilities depend on the last one."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        super().__init__()
        draws = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed))
        self.table = nn.Parameter(torch.log_softmax(draws, dim=1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.table[ids]


def make(vector_env: Callable, reference: nn.Module, **keywords: object) -> PPO:
    options = {"n_steps": 32, "batch_size": 128, "kl_coef": 0.5, "seed": 0, "device": "cpu", **keywords}
    return PPO("TransformerPolicy", vector_env(4), reference=reference, **options)


def test_a_module_is_asked_where_tokens_were_chosen(vector_env: Callable) -> None:
    model = make(vector_env, bigram := Bigram(VOCAB))
    rewards = collected_rewards(model)
    (batch,) = model.rollout_buffer.in_order(10**6)
    buffer = model.rollout_buffer
    last = torch.cat([p.ids[p.row, p.position] for p in batch.packs])
    expected = bigram.table[last, batch.actions].detach()
    torch.testing.assert_close(model.reference_policy.log_prob(batch.packs, batch.actions), expected)
    charged = torch.as_tensor(rewards - buffer.rewards).reshape(-1)[batch.transition]
    torch.testing.assert_close(charged, 0.5 * (batch.old_log_prob - expected), atol=1e-6, rtol=0)


def collected_rewards(model: PPO) -> Tensor:
    """Fill the rollout buffer and return its rewards before the charge."""
    rewards = []
    add = model.rollout_buffer.add
    model.rollout_buffer.add = lambda *args: (rewards.append(torch.as_tensor(args[2].copy())), add(*args))
    _, callback = model._setup_learn(128)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    return torch.stack(rewards).numpy()


def test_a_module_is_kept_as_it_was_and_saved(vector_env: Callable, tmp_path: Path) -> None:
    bigram = Bigram(VOCAB)
    model = make(vector_env, bigram)
    obs = torch.as_tensor(model.env.reset())
    before = model.reference_policy.step_log_probs(obs)
    with torch.no_grad():
        bigram.table.zero_()
    model.learn(128)
    torch.testing.assert_close(model.reference_policy.step_log_probs(obs), before)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    torch.testing.assert_close(loaded.reference_policy.step_log_probs(obs), before)
    assert not any(p.requires_grad for p in loaded.reference_policy.parameters())


def test_soft_q_learning_draws_from_a_module(vector_env: Callable) -> None:
    model = DQN(
        "TransformerQPolicy",
        vector_env(4),
        exploration="reference",
        reference=Bigram(VOCAB),
        temperature=0.5,
        learning_starts=64,
        seed=0,
        device="cpu",
    )
    model.learn(256)
    obs = torch.as_tensor(model._last_obs)
    with torch.no_grad():
        last = obs.gather(1, (obs != VOCAB).sum(1, keepdim=True) - 1)[:, 0]
        expected = model.reference_policy.frozen.backbone.module.table[last]
    torch.testing.assert_close(model.reference_policy.step_log_probs(obs), expected)


def test_masks_leave_a_distribution_over_what_is_legal(vector_env: Callable) -> None:
    model = make(vector_env, Bigram(VOCAB))
    legal = torch.zeros(4, VOCAB, dtype=torch.bool)
    legal[:, :2] = True
    log_probs = model.reference_policy.step_log_probs(torch.as_tensor(model.env.reset()), legal)
    torch.testing.assert_close(log_probs[:, :2].exp().sum(1), torch.ones(4))
    assert (log_probs[:, 2:].exp() == 0).all()


class Fixed(nn.Module):
    """Returns the same whatever it is shown."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, ids: Tensor) -> object:
        return self.value


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Bigram(3), r"Bigram returns \(1, 14, 3\) for ids \(1, 14\)"),
        (Fixed(None), "Fixed returns a NoneType for ids"),
    ],
)
def test_other_shapes_are_refused_at_once(vector_env: Callable, module: nn.Module, message: str) -> None:
    model = PPO("TransformerPolicy", vector_env(4), device="cpu")
    with pytest.raises(ValueError, match=message):
        ReferencePolicy(model.policy, module)


def test_what_is_no_reference_is_refused(vector_env: Callable) -> None:
    with pytest.raises(TypeError, match=r"reference=3 is a int; pass 'initial', a policy"):
        make(vector_env, 3)


def test_what_the_reference_never_says_is_told(vector_env: Callable) -> None:
    bigram = Bigram(VOCAB)
    with torch.no_grad():
        bigram.table[:, 1:] = -torch.inf
    with pytest.raises(ValueError, match="probability 0"):
        make(vector_env, bigram).learn(128)


@pytest.mark.parametrize("source", ["initial", "policy"])
def test_a_frozen_copy_takes_no_more_than_the_precision_asked_for(
    vector_env: Callable, tmp_path: Path, source: str
) -> None:
    reduced = {"policy_kwargs": {"dtype": "bfloat16"}}
    other = PPO("TransformerPolicy", vector_env(4), **reduced, device="cpu").policy
    model = make(vector_env, source if source == "initial" else other, **reduced)
    frozen = model.reference_policy.frozen
    assert {p.dtype for p in frozen.parameters()} == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.policy.parameters())
    obs = torch.as_tensor(model.env.reset())
    before = model.reference_policy.step_log_probs(obs)
    model.learn(128).save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    assert torch.equal(loaded.reference_policy.step_log_probs(obs), before)


def test_the_cached_reference_stays_the_base_where_whole_layers_are_trained(vector_env: Callable) -> None:
    peft = pytest.importorskip("peft")
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    lora = peft.LoraConfig(r=2, target_modules=["c_attn"], modules_to_save=["mlp"])
    model = DQN(
        "TransformerQPolicy",
        vector_env(4),
        exploration="reference",
        reference="initial",
        policy_kwargs={"model": config, "lora": lora},
        seed=0,
        device="cpu",
    )
    with torch.no_grad():
        for parameter in model.q_net.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    obs, reference = torch.as_tensor(model.env.reset()), model.reference_policy
    expected = reference.step_log_probs(obs)
    for _ in range(2):
        with model.policy.cached(), reference.cached():
            torch.testing.assert_close(reference.step_log_probs(obs), expected, rtol=0, atol=1e-5)
        model.set_parameters(model.get_parameters())
