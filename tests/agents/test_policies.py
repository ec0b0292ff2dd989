"""Policies serve stock algorithms, ours, predict, save, load and transformers."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, MambaConfig

import agents
from agents.backbone import Backbone
from agents.checkpoint import CheckpointError
from agents.models import ModelSpec, load_model
from agents.policies import choose, token_log_probs

LLAMA = LlamaConfig(vocab_size=7, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)


@pytest.mark.parametrize("policy_kwargs", [{}, {"model": LLAMA, "lora": 2, "value_trunk": "detached"}])
def test_stock_ppo_runs(token_env: type, policy_kwargs: dict) -> None:
    model = stable_baselines3.PPO(
        agents.TransformerPolicy, token_env(), n_steps=32, policy_kwargs=policy_kwargs, device="cpu"
    )
    before = {n: p.clone() for n, p in model.policy.named_parameters()}
    model.learn(64)
    moved = {n for n, p in model.policy.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in model.policy.named_parameters() if p.requires_grad}


def test_stock_dqn_runs(token_env: type) -> None:
    model = stable_baselines3.DQN(agents.TransformerQPolicy, token_env(), learning_starts=20, device="cpu")
    before = [p.clone() for p in model.q_net.parameters()]
    model.learn(60)
    assert any(not torch.equal(p, b) for p, b in zip(model.q_net.parameters(), before, strict=True))


@pytest.mark.parametrize(("name", "policy"), [("PPO", "TransformerPolicy"), ("DQN", "TransformerQPolicy")])
def test_save_load_predict(tmp_path: Path, vector_env: Callable, name: str, policy: str) -> None:
    algorithm = getattr(agents, name)
    model = algorithm(policy, vector_env(), seed=0, device="cpu", policy_kwargs={"model": LLAMA, "lora": 2})
    model.learn(400)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=vector_env(), device="cpu")
    observations = vector_env(16).reset(seed=4)[0]
    expected = model.predict(observations, deterministic=True)[0]
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    with model.policy.cached():
        assert np.array_equal(model.predict(observations, deterministic=True)[0], expected)
    assert model.predict(observations[0], deterministic=True)[0] == expected[0]
    loaded.learn(200, reset_num_timesteps=False)
    mean, _ = evaluate_policy(loaded, vector_env(2).envs[0], n_eval_episodes=3, warn=False)
    assert np.isfinite(mean)


def test_the_reference_survives_a_checkpoint(tmp_path: Path, vector_env: Callable) -> None:
    model = agents.PPO(
        "TransformerPolicy",
        vector_env(),
        n_steps=32,
        reference="initial",
        kl_coef=0.1,
        seed=0,
        device="cpu",
    )
    model.learn(96 * 3)
    model.save(tmp_path / "model.zip")
    loaded = agents.PPO.load(tmp_path / "model.zip", env=vector_env(), device="cpu")
    old, new = (m.reference_policy.state_dict() for m in (model, loaded))
    assert old and all(torch.equal(old[key], new[key]) for key in old)
    assert not torch.equal(
        next(iter(model.policy.backbone.parameters())),
        next(iter(model.reference_policy.parameters())),
    )


def test_a_failed_save_leaves_the_old_checkpoint(
    tmp_path: Path, vector_env: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = agents.PPO("TransformerPolicy", vector_env(), device="cpu")
    path = tmp_path / "model.zip"
    model.save(path)
    before = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(stable_baselines3.PPO, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.zip"]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, vector_env: Callable, keep: float) -> None:
    path = tmp_path / "model.zip"
    agents.PPO("TransformerPolicy", vector_env(), device="cpu").save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match=r"model\.zip .*not a whole checkpoint"):
        agents.PPO.load(path)


def test_a_damaged_or_foreign_checkpoint_is_named(tmp_path: Path, vector_env: Callable) -> None:
    path = tmp_path / "model.zip"
    agents.PPO("TransformerPolicy", vector_env(), device="cpu").save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        agents.PPO.load(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="another kind of file"):
        agents.PPO.load(path)
    with pytest.raises(FileNotFoundError, match=r"absent"):
        agents.PPO.load(tmp_path / "absent")


def test_a_model_that_does_not_fit_is_refused(vector_env: Callable) -> None:
    with pytest.raises(ValueError, match="has 5 outputs but the environment has 7 actions"):
        agents.PPO("TransformerPolicy", vector_env(), policy_kwargs={"model": GPT2Config(vocab_size=5)})
    with pytest.raises(ValueError, match="has 8 positions but observations hold 14 tokens"):
        agents.PPO(
            "TransformerPolicy",
            vector_env(),
            policy_kwargs={"model": GPT2Config(vocab_size=7, n_positions=8)},
        )


def test_other_spaces_are_refused() -> None:
    box = spaces.Box(-1.0, 1.0, (4,), np.float32)
    with pytest.raises(ValueError, match="not a token environment"):
        agents.TransformerPolicy(box, spaces.Discrete(3), lambda _: 1e-3)


@pytest.mark.parametrize("algorithm", [agents.PPO, agents.BehaviourCloning])
def test_continuous_actions_are_refused(algorithm: type) -> None:
    with pytest.raises(ValueError, match=r"action space Box.* is not a token environment"):
        algorithm("TransformerPolicy", "Pendulum-v1")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [("./no/such/folder", FileNotFoundError, "does not exist"), (3, TypeError, "model=3 is a int")],
)
def test_a_wrong_model_source_is_named(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_model(source)


def test_options_are_checked(vector_env: Callable) -> None:
    for keywords, message in [
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"value_trunk": "both"}, "value_trunk='both'"),
    ]:
        with pytest.raises(ValueError, match=message):
            agents.PPO("TransformerPolicy", vector_env(), policy_kwargs=keywords)
    with pytest.raises(ValueError, match="needs a reference"):
        agents.PPO("TransformerPolicy", vector_env(), kl_coef=0.1)
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        agents.DQN("TransformerQPolicy", vector_env(), optimize_memory_usage=True)


def test_surplus_outputs_are_never_sampled(vector_env: Callable) -> None:
    config = GPT2Config(vocab_size=50, n_positions=14, n_embd=16, n_layer=1, n_head=2)
    model = agents.PPO("TransformerPolicy", vector_env(), policy_kwargs={"model": config}, device="cpu")
    observations = torch.as_tensor(vector_env(512).reset(seed=0)[0])
    assert int(model.policy(observations)[0].max()) == 6
    assert model.policy.get_distribution(observations).distribution.probs.shape == (512, 7)


def test_dropout_is_off_unless_asked_for(vector_env: Callable) -> None:
    config = GPT2Config(vocab_size=7, n_positions=14, n_embd=16, n_layer=1, n_head=2)
    for asked in (False, True):
        model = agents.PPO(
            "TransformerPolicy",
            vector_env(),
            policy_kwargs={"model": config, "dropout": asked},
            device="cpu",
        )
        model.policy.set_training_mode(True)
        assert any(m.training for m in model.policy.backbone.modules()) is asked


def test_large_vocabularies_are_scored_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = Backbone(ModelSpec(LLAMA), 7, 14)
    hidden, actions = torch.randn(50, 32, requires_grad=True), torch.randint(7, (50,))
    results = []
    for limit in (10**6, 7 * 8):
        monkeypatch.setattr("agents.policies._CHUNK_ELEMENTS", limit)
        log_prob, entropy = token_log_probs(backbone, hidden, actions)
        (gradient,) = torch.autograd.grad((log_prob * 2 + entropy).sum(), hidden)
        alone, none = token_log_probs(backbone, hidden, actions, entropy_gradient=None)
        assert torch.equal(alone, log_prob) and none.isnan().all()
        results.append((log_prob, entropy, gradient))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked)


def test_bfloat16_keeps_trained_weights_in_float32_and_the_first_ratio_at_one(
    vector_env: Callable,
) -> None:
    model = agents.PPO(
        "TransformerPolicy",
        vector_env(),
        n_steps=32,
        batch_size=96,
        n_epochs=1,
        policy_kwargs={"model": LLAMA, "lora": 2, "dtype": "bfloat16"},
        seed=0,
        device="cpu",
    )
    model.learn(96 * 2)
    for name, parameter in model.policy.backbone.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
    _, callback = model._setup_learn(96)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 32)
    for batch in model.rollout_buffer.in_order(10**6):
        _, log_prob, _ = model.policy.evaluate_packed(batch.packs, batch.actions)
        torch.testing.assert_close(log_prob, batch.old_log_prob, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_save_pretrained_is_the_same_model(
    tmp_path: Path, vector_env: Callable, lora: int | None, name: str
) -> None:
    policy = {"PPO": "TransformerPolicy", "DQN": "TransformerQPolicy"}[name]
    config = GPT2Config(vocab_size=9, n_positions=14, n_embd=16, n_layer=1, n_head=2)
    model = getattr(agents, name)(
        policy, vector_env(), seed=0, device="cpu", policy_kwargs={"model": config, "lora": lora}
    )
    model.learn(2000 if name == "DQN" else 400)
    model.policy.save_pretrained(str(tmp_path))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(7, (3, 10))
    with torch.no_grad():
        backbone = model.policy.backbone
        expected = backbone.scores(backbone.hidden(ids))
        torch.testing.assert_close(plain(ids).logits[..., :7], expected, rtol=0, atol=1e-5)


def test_a_model_without_keys_and_values_warns_and_stays_right(vector_env: Callable) -> None:
    config = MambaConfig(vocab_size=7, hidden_size=16, state_size=4, num_hidden_layers=1)
    model = agents.PPO("TransformerPolicy", vector_env(), n_steps=16, policy_kwargs={"model": config}, device="cpu")
    _, callback = model._setup_learn(48)
    with pytest.warns(UserWarning, match="no key-value cache.*linear_attention"):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    batch = next(model.rollout_buffer.in_order(10**6))
    torch.testing.assert_close(model.policy.packed_log_probs(batch.packs, batch.actions), batch.old_log_prob)


def test_sampling_follows_the_distribution() -> None:
    torch.manual_seed(0)
    log_probs = torch.log_softmax(torch.tensor([[2.0, -torch.inf, 0.0, -3.0, 1.0]]), dim=-1)
    counts = torch.bincount(choose(log_probs.expand(200_000, -1), deterministic=False), minlength=5)
    assert counts[1] == 0
    torch.testing.assert_close(counts / 200_000, log_probs[0].exp(), rtol=0, atol=0.005)


def test_another_batch_does_not_disturb_the_rows_that_are_followed(vector_env: Callable) -> None:
    policy = agents.PPO("TransformerPolicy", vector_env(), seed=0, device="cpu").policy
    observations = torch.as_tensor(vector_env(5).reset(seed=0)[0])
    with torch.no_grad():
        expected = policy.predict_values(observations)
        with policy.cached():
            policy.predict_values(observations)
            follower = policy.reader._follower
            alone = policy.predict_values(observations[2:3])
            again = policy.predict_values(observations)
    assert policy.reader._follower is follower
    torch.testing.assert_close(alone, expected[2:3])
    torch.testing.assert_close(again, expected)


def test_a_checkpoint_of_another_algorithm_is_named(tmp_path: Path, vector_env: Callable) -> None:
    agents.PPO("TransformerPolicy", vector_env(), device="cpu").save(tmp_path / "ppo")
    stock = stable_baselines3.PPO("MlpPolicy", vector_env(1).envs[0], n_steps=8, batch_size=8, device="cpu")
    stock.save(tmp_path / "stock")
    for algorithm, name in ((agents.DQN, "ppo"), (agents.PPO, "stock")):
        with pytest.raises(CheckpointError, match=rf"{name}\.zip is no checkpoint of agents"):
            algorithm.load(tmp_path / name)
    (tmp_path / "ppo").mkdir()  # a folder of the same name is not in the way
    agents.PPO.load(tmp_path / "ppo")


def test_checkpoints_have_ordinary_permissions_and_follow_links(tmp_path: Path, vector_env: Callable) -> None:
    model = agents.PPO("TransformerPolicy", vector_env(), device="cpu")
    (tmp_path / "plain").touch()
    model.save(tmp_path / "target.zip")
    assert (tmp_path / "target.zip").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "link.zip").symlink_to(tmp_path / "target.zip")
    model.save(tmp_path / "link.zip")
    assert (tmp_path / "link.zip").is_symlink()


def test_a_given_module_is_copied(vector_env: Callable) -> None:
    module = AutoModelForCausalLM.from_config(LLAMA)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for name, policy in (("PPO", "TransformerPolicy"), ("DQN", "TransformerQPolicy")):
        model = getattr(agents, name)(
            policy, vector_env(), policy_kwargs={"model": module, "lora": 2}, device="cpu"
        )
        model.learn(400)
    after = module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_capped_logits_are_refused(vector_env: Callable) -> None:
    config = Gemma2Config(
        vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    with pytest.raises(ValueError, match="final_logit_softcapping=30"):
        agents.PPO("TransformerPolicy", vector_env(), policy_kwargs={"model": config})


@pytest.mark.parametrize("lora", [True, "8", 0])
def test_a_wrong_lora_is_named(vector_env: Callable, lora: object) -> None:
    with pytest.raises(TypeError, match=f"lora={lora!r}"):
        agents.PPO("TransformerPolicy", vector_env(), policy_kwargs={"lora": lora})


def test_an_observation_without_tokens_is_refused(vector_env: Callable) -> None:
    model = agents.PPO("TransformerPolicy", vector_env(), device="cpu")
    with pytest.raises(ValueError, match="no token, only the padding 7"):
        model.predict(np.full(14, 7))


def test_precision_does_not_leak_into_callbacks(vector_env: Callable) -> None:
    seen = []

    def callback(local: dict, _: dict) -> bool:
        seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return True

    model = agents.PPO(
        "TransformerPolicy", vector_env(), n_steps=4, policy_kwargs={"dtype": "bfloat16"}, device="cpu"
    )
    model.learn(12, callback=callback)
    assert set(seen) == {torch.float32}
