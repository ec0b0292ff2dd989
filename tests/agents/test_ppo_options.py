"""PPO's options beyond the loss: scaled rewards and advantages, the value's trunk, values of states cut by time."""

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv
from transformers import GPT2Config, LlamaConfig

import agents
import text_envs
from agents.losses import normalize_advantages, whiten_rewards

gym.register_envs(text_envs)
CONFIG = GPT2Config(vocab_size=7, n_positions=14, n_embd=16, n_layer=1, n_head=2)
UNTIED = LlamaConfig(
    vocab_size=7,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    tie_word_embeddings=False,
)


def make(env: object, **keywords: object) -> agents.PPO:
    options = {"model": CONFIG, **keywords.pop("policy_kwargs", {})}
    return agents.PPO("TransformerPolicy", env, n_steps=16, policy_kwargs=options, seed=0, device="cpu", **keywords)


def collect(model: agents.PPO) -> agents.PPO:
    """Return the model with a fresh rollout."""
    _, callback = model._setup_learn(16 * model.n_envs)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 16)
    return model


def test_whitened_rewards_have_unit_variance_about_their_mean() -> None:
    rewards = np.random.default_rng(0).normal(3.0, 5.0, size=(40, 3)).astype(np.float32)
    whitened = whiten_rewards(rewards)
    assert whitened.mean() == pytest.approx(rewards.mean(), abs=1e-5)
    assert whitened.std() == pytest.approx(1.0, abs=1e-5)
    assert (np.argsort(whitened, axis=None) == np.argsort(rewards, axis=None)).all()
    assert (whiten_rewards(np.full((4, 2), 2.0, np.float32)) == 2.0).all()  # nothing to scale


@pytest.mark.parametrize("kl", [{}, {"reference": "initial", "kl_coef": 0.5}])
def test_the_rollout_is_whitened_after_the_charge(vector_env: Callable, kl: dict) -> None:
    rewards, returns = {}, {}
    for whiten in (False, True):
        model = make(vector_env(3), whiten_rewards=whiten, **kl)
        model.learn(48 * 3)
        model.policy.load_state_dict(make(vector_env(3), policy_kwargs={}).policy.state_dict())
        torch.manual_seed(0)
        model.env.seed(0)
        buffer = collect(model).rollout_buffer
        rewards[whiten], returns[whiten] = buffer.rewards.copy(), buffer.returns - buffer.values
    np.testing.assert_allclose(rewards[True], whiten_rewards(rewards[False]), atol=1e-5)
    assert np.abs(returns[True] - returns[False]).max() > 0.1


def test_advantages_are_normalised_and_small_ones_not_scaled_up() -> None:
    advantages = np.random.default_rng(0).normal(2.0, 0.01, (16, 3)).astype(np.float32)
    stock = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)  # as SB3 does, of a minibatch
    np.testing.assert_array_equal(normalize_advantages(advantages, 0.0), stock)
    np.testing.assert_array_equal(normalize_advantages(advantages, 0.001), stock)
    np.testing.assert_allclose(normalize_advantages(advantages, 0.5), (advantages - 2) / 0.5, atol=0.01)


def test_the_floor_is_a_share_of_the_largest_deviation_so_far(vector_env: Callable, tmp_path: Path) -> None:
    model = collect(make(vector_env(3), advantage_floor=0.1))

    def normalised(scale: float) -> float:
        model.rollout_buffer.advantages = scale * np.linspace(-1, 1, 48, dtype=np.float32).reshape(16, 3)
        model._normalize_advantages()
        return float(model.rollout_buffer.advantages.std(ddof=1))

    assert [normalised(scale) for scale in (1.0, 4.0, 2.0, 0.4)] == pytest.approx([1, 1, 1, 1], rel=1e-5)
    assert normalised(0.04) == pytest.approx(0.1, rel=1e-5)  # a hundredth of the largest, and not 1
    model.save(tmp_path / "model.zip")
    model = agents.PPO.load(tmp_path / "model.zip", advantage_floor=0.01)
    model._setup_learn(0, reset_num_timesteps=False)
    assert normalised(0.04) == pytest.approx(1, rel=1e-5)
    with pytest.raises(ValueError, match="advantage_floor=2 is a share"):
        make(vector_env(3), advantage_floor=2)


@pytest.mark.slow
def test_what_is_solved_is_not_forgotten() -> None:
    """Without a floor this run solves the bandit by step 10,000 and ends at half of it."""
    envs = gym.make_vec("text_envs/Bandit-v0", 16, autoreset_mode=AutoresetMode.SAME_STEP)
    model = agents.PPO("TransformerPolicy", envs, learning_rate=1e-3, seed=2, device="cpu")
    model.learn(61_440)
    score = envs.normalize(float(np.mean([episode["r"] for episode in model.ep_info_buffer])))  # type: ignore[attr-defined]
    assert score > 0.9


@pytest.mark.parametrize("options", [{}, {"lora": 2}, {"model": UNTIED}])
def test_a_separate_trunk_learns_values_alone(vector_env: Callable, options: dict) -> None:
    model = make(vector_env(3), policy_kwargs={"value_trunk": "separate", **options})
    model.learn(48 * 2)
    policy = collect(model).policy
    batch = next(model.rollout_buffer.in_order(10**6))
    values, log_prob, _ = policy.evaluate_packed(batch.packs, batch.actions)
    own = {n for n, p in policy.named_parameters() if p.requires_grad}
    moved = {}
    for name, output in (("value", values), ("policy", log_prob)):
        policy.zero_grad()
        output.square().sum().backward()
        moved[name] = {n for n, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert not moved["value"] & moved["policy"]
    assert any(n.startswith("value_reader") for n in moved["value"])
    assert own >= moved["value"] | moved["policy"]
    assert {n for n in own if n.startswith("value_reader.backbone.model.lm_head")} == set()  # unused and untrained
    if "lora" in options:
        theirs = dict(policy.value_reader.named_parameters())
        for name, parameter in policy.reader.named_parameters():
            assert (theirs[name] is parameter) is not parameter.requires_grad  # a frozen base in common


@pytest.mark.parametrize("trunk", ["shared", "detached", "separate"])
def test_every_trunk_reads_the_same_cached_packed_and_whole(vector_env: Callable, trunk: str) -> None:
    model = make(vector_env(3, reply=1), policy_kwargs={"value_trunk": trunk})
    model.learn(48 * 2)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    observations = []
    step = model.env.step_wait
    model.env.step_wait = lambda: (observations.append(model._last_obs.copy()), step())[1]
    buffer = collect(model).rollout_buffer
    flat = torch.as_tensor(np.concatenate(observations))
    with torch.no_grad():
        values, log_prob, entropy = model.policy.evaluate_actions(flat, torch.as_tensor(buffer.actions.reshape(-1)))
        torch.testing.assert_close(values[:, 0], model.policy.predict_values(flat)[:, 0])
        torch.testing.assert_close(torch.as_tensor(buffer.values.reshape(-1)), values[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(torch.as_tensor(buffer.log_probs.reshape(-1)), log_prob, rtol=0, atol=1e-5)
        for batch in buffer.get(20):
            packed = model.policy.evaluate_packed(batch.packs, batch.actions)
            for ours, whole in zip(packed, (values[:, 0], log_prob, entropy), strict=True):
                torch.testing.assert_close(ours, whole[batch.transition], rtol=0, atol=1e-5)


def test_a_separate_trunk_works_in_stock_ppo_and_is_saved(
    token_env: type, vector_env: Callable, tmp_path: Path
) -> None:
    options = {"model": CONFIG, "value_trunk": "separate"}
    stock = stable_baselines3.PPO(
        agents.TransformerPolicy, token_env(), n_steps=32, policy_kwargs=options, device="cpu"
    )
    before = {n: p.clone() for n, p in stock.policy.named_parameters()}
    stock.learn(64)
    assert all(not torch.equal(p, before[n]) for n, p in stock.policy.named_parameters() if p.requires_grad)
    model = make(vector_env(2), policy_kwargs={"value_trunk": "separate", "lora": 2})
    model.learn(64)
    model.save(tmp_path / "model")
    loaded = agents.PPO.load(tmp_path / "model", env=vector_env(2), device="cpu")
    observations = torch.as_tensor(vector_env(8).reset(seed=0)[0])
    torch.testing.assert_close(
        loaded.policy.predict_values(observations), model.policy.predict_values(observations), rtol=0, atol=0
    )
    loaded.learn(64)


@pytest.mark.parametrize("trunk", ["shared", "separate"])
def test_values_of_cut_states_enter_as_in_stock(token_env: type, trunk: str) -> None:
    buffers = []
    options = {"model": CONFIG, "value_trunk": trunk}
    for algorithm in (stable_baselines3.PPO, agents.PPO):
        env = DummyVecEnv([lambda: TimeLimit(token_env(), 4)] * 3)
        model = algorithm(
            agents.TransformerPolicy, env, n_steps=16, batch_size=48, gamma=0.9, policy_kwargs=options, device="cpu"
        )
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in model.policy.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape))
        env.seed(3)
        buffers.append(collect(model).rollout_buffer)
    stock, ours = buffers
    assert not np.isin(ours.rewards, [0.0, 1.0]).all()  # some hold a discounted value
    for name in ("actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns"):
        np.testing.assert_allclose(getattr(ours, name), getattr(stock, name), atol=1e-5, err_msg=name)
