"""Masks: only legal actions are tried, and what is learned is learned of the distribution that was sampled."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sb3_contrib
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn import functional as F
from transformers import GPT2Config

import agents
from agents.losses import log_prob_and_entropy, q_targets, soft_q_targets
from agents.masks import check_masks, mask_scores, pack_masks, random_legal, restricts, stack_masks, unpack_masks
from agents.replay import EpisodeReplayBuffer

CONFIG = GPT2Config(vocab_size=9, n_positions=14, n_embd=16, n_layer=1, n_head=2)
SMALL = {"policy_kwargs": {"model": CONFIG}, "seed": 0, "device": "cpu"}


def rollout(env: object, **keywords: object) -> agents.PPO:
    """Return a model away from its start, with a rollout of 20 steps of every row."""
    model = agents.PPO("TransformerPolicy", env, n_steps=20, batch_size=40, **{**SMALL, **keywords})
    model.learn(20 * model.n_envs)
    _, callback = model._setup_learn(20 * model.n_envs)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 20)
    return model


@pytest.mark.parametrize("n_actions", [1, 7, 8, 9, 50])
def test_bits_are_the_masks(n_actions: int) -> None:
    legal = np.random.default_rng(0).random((3, 4, n_actions)) < 0.5
    bits = pack_masks(legal)
    assert bits.shape == (3, 4, -(-n_actions // 8))
    assert (unpack_masks(torch.as_tensor(bits), n_actions).numpy() == legal).all()
    whole = stack_masks([bits[0], np.zeros((2, 0), np.uint8)], "cpu")
    assert (unpack_masks(whole, n_actions).numpy() == np.concatenate([legal[0], np.ones((2, n_actions))])).all()
    assert stack_masks([np.zeros((2, 0), np.uint8)], "cpu") is None


def test_masked_log_probabilities_are_those_of_the_legal_actions_alone() -> None:
    scores = torch.randn(20, 9, dtype=torch.float64, requires_grad=True)
    legal = torch.rand(20, 9) < 0.5
    legal[:, 3] = True
    actions = legal.double().multinomial(1)[:, 0]
    log_prob, entropy = log_prob_and_entropy(mask_scores(scores, legal), actions)
    expected = []
    for row, allowed, action in zip(scores, legal, actions, strict=True):
        left = torch.distributions.Categorical(logits=row[allowed])
        place = allowed[: int(action)].sum()
        expected.append(torch.stack([left.log_prob(place), left.entropy()]))
    torch.testing.assert_close(torch.stack([log_prob, entropy], 1), torch.stack(expected))
    (ours,) = torch.autograd.grad((2 * log_prob + entropy).sum(), scores, retain_graph=True)
    (theirs,) = torch.autograd.grad((torch.stack(expected) @ torch.tensor([2.0, 1.0]).double()).sum(), scores)
    torch.testing.assert_close(ours, theirs)


def test_random_legal_actions_are_uniform() -> None:
    legal = np.tile(np.array([False, True, False, True, True, False]), (30_000, 1))
    counts = np.bincount(random_legal(legal, np.random.default_rng(0)), minlength=6)
    assert (counts[[0, 2, 5]] == 0).all()
    np.testing.assert_allclose(counts[[1, 3, 4]] / 30_000, 1 / 3, atol=0.01)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("PPO", {"n_steps": 16, "value_trunk": "separate"}),
        ("PPO", {"n_steps": 16, "reference": "initial", "kl_coef": 0.1}),
        ("GRPO", {"n_steps": 16, "group_size": 2}),
        ("DQN", {"learning_starts": 100}),
        ("DQN", {"learning_starts": 100, "exploration": "boltzmann"}),
        ("DQN", {"learning_starts": 100, "exploration": "reference", "reference": "initial", "lora": 2}),
        ("DQN", {"learning_starts": 100, "exploration": "reference", "reference": CONFIG, "top_k": 2}),
    ],
)
def test_only_legal_actions_are_tried(masked_vector_env: Callable, name: str, keywords: dict) -> None:
    """The environment raises at any other, before learning starts and after."""
    model_options = {key: keywords[key] for key in ("value_trunk", "lora") if key in keywords}
    others = {key: value for key, value in keywords.items() if key not in model_options}
    model = getattr(agents, name)(
        "TransformerQPolicy" if name == "DQN" else "TransformerPolicy",
        masked_vector_env(4),
        **{**SMALL, "policy_kwargs": {"model": CONFIG, **model_options}},
        **others,
    )
    model.learn(400)
    assert model._n_updates > 0


def test_the_update_sees_the_distribution_that_was_sampled(masked_vector_env: Callable) -> None:
    model = rollout(masked_vector_env(3))
    buffer = model.rollout_buffer
    assert buffer.masks.shape == (20, 3, 1)  # a byte for 7 actions
    for batch in buffer.get(30):
        _, log_prob, entropy = model.policy.evaluate_packed(batch.packs, batch.actions, masks=batch.masks)
        torch.testing.assert_close(log_prob, batch.old_log_prob, rtol=0, atol=1e-5)
        legal = unpack_masks(batch.masks, 7)
        assert legal.gather(1, batch.actions[:, None]).all() and not legal.all()
        assert (entropy < legal.sum(1).double().log() + 1e-5).all()
    assert (model.policy.evaluate_packed(batch.packs, batch.actions)[1] < log_prob + 1e-6).all()


def test_chunks_of_a_large_vocabulary_take_their_masks(
    masked_vector_env: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rollout(masked_vector_env(3))
    batch = next(model.rollout_buffer.in_order(10**6))
    whole = model.policy.evaluate_packed(batch.packs, batch.actions, masks=batch.masks)
    monkeypatch.setattr("agents.policies._CHUNK_ELEMENTS", 7 * 8)
    chunked = model.policy.evaluate_packed(batch.packs, batch.actions, masks=batch.masks)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other)


def test_ppo_loss_and_gradient_equal_maskable_ppos(masked_vector_env: Callable, masked_env: type) -> None:
    model = rollout(masked_vector_env(3), ent_coef=0.01, max_grad_norm=1e9, n_epochs=1)
    model.batch_size = 60
    stock = sb3_contrib.MaskablePPO(
        "MlpPolicy",
        DummyVecEnv([masked_env] * 3),
        n_steps=20,
        batch_size=60,
        n_epochs=1,
        ent_coef=0.01,
        max_grad_norm=1e9,
        device="cpu",
    )
    stock.policy = agents.TransformerPolicy(
        model.observation_space, model.action_space, lambda _: 0.0, model=CONFIG
    )
    stock.policy.load_state_dict(model.policy.state_dict())
    ours, theirs = model.rollout_buffer, stock.rollout_buffer
    for fragment in ours.fragments:
        for position, transition in zip(fragment.position, fragment.transition, strict=True):
            observation = theirs.observations[divmod(transition, 3)]
            observation[:] = 7
            observation[: position + 1] = fragment.ids[: position + 1]
    for name in ("actions", "rewards", "values", "log_probs", "advantages", "returns"):
        getattr(theirs, name)[:] = getattr(ours, name)
    theirs.action_masks[:] = unpack_masks(torch.as_tensor(ours.masks), 7).numpy()
    theirs.pos, theirs.full = ours.pos, True
    stock.set_logger(model.logger)
    gradients = []
    for algorithm in (stock, model):  # stock first: ours normalises its buffer in place
        algorithm.policy.optimizer = torch.optim.SGD(algorithm.policy.parameters(), lr=0.0)
        algorithm.train()
        gradients.append({n: p.grad.clone() for n, p in algorithm.policy.named_parameters() if p.grad is not None})
        gradients[-1]["loss"] = torch.tensor(model.logger.name_to_value["train/loss"])
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][key], rtol=0, atol=1e-5, msg=key)


def test_the_charge_for_kl_is_between_masked_distributions(masked_vector_env: Callable) -> None:
    model = rollout(masked_vector_env(3), reference="initial", kl_coef=0.5, learning_rate=0.0)
    assert model.logger.name_to_value["rollout/kl_per_token"] == pytest.approx(0, abs=1e-6)
    other = rollout(masked_vector_env(3), seed=3).policy
    batch = next(model.rollout_buffer.in_order(10**6))
    reference = agents.ReferencePolicy(model.policy, other).log_prob(batch.packs, batch.actions, batch.masks)
    expected = other.evaluate_packed(batch.packs, batch.actions, masks=batch.masks)[1]
    torch.testing.assert_close(reference, expected.detach())


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("double_q", [False, True])
def test_dqn_loss_equals_a_loop_over_legal_actions(masked_env: type, n_steps: int, double_q: bool) -> None:
    envs = SyncVectorEnv([lambda: TimeLimit(masked_env(), 6)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    model = agents.DQN(
        "TransformerQPolicy", envs, learning_starts=10**9, n_steps=n_steps, gamma=0.9, double_q=double_q, **SMALL
    )
    model.learn(200)
    with torch.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.q_net_target.eval()
    env, losses, bootstrapped = masked_env(), [], 0
    episodes = list(model.replay_buffer.episodes)
    for episode in episodes:
        lengths = episode.lengths.astype(int)
        for t in range(len(episode.actions)):
            end = min(t + n_steps, len(episode.actions))
            target = sum(0.9 ** (k - t) * episode.rewards[k] for k in range(t, end))
            if end < len(episode.actions) or not episode.terminated:
                env.context = list(episode.ids[: lengths[end]].astype(int))
                legal = np.flatnonzero(env.action_masks())
                with torch.no_grad():
                    online, late = (
                        net(torch.as_tensor(env._observe())[None])[0] for net in (model.q_net, model.q_net_target)
                    )
                best = max(legal, key=lambda a: (online if double_q else late)[a].item())
                target += 0.9 ** (end - t) * late[best]
                bootstrapped += end == len(episode.actions)
            env.context = list(episode.ids[: lengths[t]].astype(int))
            value = model.q_net(torch.as_tensor(env._observe())[None])[0, int(episode.actions[t])]
            losses.append(F.smooth_l1_loss(value, torch.as_tensor(target, dtype=torch.float32)))
    assert bootstrapped > 3  # by the masks of the infos of episodes that the time limit cut
    loss = model.loss(model.replay_buffer.batch(episodes))
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=0, atol=1e-5)


def test_masks_survive_the_replay_buffers_file(masked_vector_env: Callable, tmp_path: Path) -> None:
    model = agents.DQN("TransformerQPolicy", masked_vector_env(2), learning_starts=10**9, **SMALL)
    model.learn(100)
    before = [episode.masks for episode in model.replay_buffer.episodes]
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    after = [episode.masks for episode in model.replay_buffer.episodes]
    assert len(before) > 3 and all((a == b).all() for a, b in zip(before, after, strict=True))
    assert all(len(episode.masks) == len(episode.actions) + 1 for episode in model.replay_buffer.episodes)


def test_episodes_without_masks_are_replayed_beside_others(masked_vector_env: Callable) -> None:
    model = agents.DQN("TransformerQPolicy", masked_vector_env(2), learning_starts=10**9, **SMALL)
    model.learn(60)
    buffer = model.replay_buffer
    assert isinstance(buffer, EpisodeReplayBuffer)
    free = buffer.episodes[0]._replace(masks=np.zeros((len(buffer.episodes[0].masks), 0), np.uint8))
    batch = buffer.batch([buffer.episodes[1], free])
    legal = unpack_masks(batch.next_masks, 7)
    assert legal.all(1).sum() >= len(free.actions) and not legal.all()


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_predict_takes_masks(vector_env: Callable, name: str) -> None:
    policy = "TransformerQPolicy" if name == "DQN" else "TransformerPolicy"
    model = getattr(agents, name)(policy, vector_env(8), **SMALL)
    observations = vector_env(40).reset(seed=0)[0]
    masks = np.zeros((40, 7), bool)
    masks[np.arange(40), np.arange(40) % 7] = True
    for deterministic in (True, False):
        actions, _ = model.predict(observations, deterministic=deterministic, action_masks=masks)
        assert (actions == np.arange(40) % 7).all()
        assert model.predict(observations[3], deterministic=deterministic, action_masks=masks[3])[0] == 3
    actions, _ = model.predict(observations, deterministic=False)
    assert len(set(actions)) > 3  # no mask is left behind
    with pytest.raises(ValueError, match=r"shape \(39, 7\) for 40 observations and 7 actions"):
        model.predict(observations, action_masks=masks[1:])
    masks[5] = False
    with pytest.raises(ValueError, match="row 5 leaves no legal action"):
        model.predict(observations, action_masks=masks)


def test_another_environments_prediction_in_a_rollout_is_not_masked(masked_vector_env: Callable) -> None:
    model = agents.PPO("TransformerPolicy", masked_vector_env(3), n_steps=4, **SMALL)
    others = masked_vector_env(50).reset(seed=1)[0]
    seen = []
    model.learn(12, callback=lambda local, _: seen.append(model.predict(others)[0]) or True)
    assert len(seen) == 4 and all(len(actions) == 50 for actions in seen)


@pytest.mark.parametrize("kind", ["sync", "async", "sb3"])
def test_environments_are_asked_whether_they_restrict(masked_env: type, token_env: type, kind: str) -> None:
    for env_class, expected in ((masked_env, True), (token_env, False)):
        if kind == "sb3":
            env = DummyVecEnv([env_class] * 2)
        else:
            batch = {"sync": SyncVectorEnv, "async": AsyncVectorEnv}[kind]
            env = agents.VectorEnvAdapter(batch([env_class] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
        assert restricts(env) is expected
        assert env.reset().shape == (2, 14)  # the question did no harm
        env.close()


def test_an_environment_that_says_it_never_restricts_is_not_asked(masked_env: type) -> None:
    class Free(masked_env):
        restricts = False

        def action_masks(self) -> np.ndarray:
            raise AssertionError("asked")

        def step(self, action: int) -> tuple:
            return super(masked_env, self).step(action)

    model = agents.PPO("TransformerPolicy", Free(), n_steps=8, batch_size=8, **SMALL)
    model.learn(16)
    assert next(model.rollout_buffer.get()).masks is None


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\) for 2 observations and 7 actions"):
        check_masks(np.ones((2, 5)), 2, 7)


def test_masks_stay_on_the_device() -> None:
    bits = torch.zeros(3, 2, dtype=torch.uint8, device="meta")
    q_values, column = torch.zeros(3, 9, device="meta"), torch.zeros(3, device="meta")
    legal = unpack_masks(bits, 9)
    prior = torch.log_softmax(mask_scores(q_values, legal), dim=-1)
    hard = q_targets(column, column, q_values, q_values, legal)
    soft = soft_q_targets(column, column, q_values, prior, 1.0)
    assert hard.device.type == soft.device.type == "meta"


@pytest.mark.parametrize("name", ["PPO", "DQN", "GRPO", "BestOfN", "BehaviourCloning"])
def test_predict_warns_once_where_masks_are_missing(name: str, masked_vector_env: Callable, tmp_path: Path) -> None:
    groups = {"GRPO": {"group_size": 2}, "BestOfN": {"n": 2}}.get(name, {})
    policy = "TransformerQPolicy" if name == "DQN" else "TransformerPolicy"
    model = getattr(agents, name)(policy, masked_vector_env(4), **groups, **SMALL)
    obs = model.env.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(obs, action_masks=np.ones((4, 7), bool))
    with pytest.warns(UserWarning, match=r"sb3_contrib.common.maskable.evaluation.evaluate_policy.*MaskableEval"):
        model.predict(obs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(obs)
    model.save(tmp_path / "model")  # without the environment that was asked
    assert getattr(agents, name).load(tmp_path / "model", device="cpu")._asked is None


def test_sb3_contribs_evaluation_plays_what_is_legal(masked_vector_env: Callable) -> None:
    """The environment raises where it is not, which SB3's own evaluation runs into."""
    model = agents.PPO("TransformerPolicy", masked_vector_env(4), **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = MaskableEvalCallback(
            agents.VectorEnvAdapter(masked_vector_env(4)), eval_freq=32, n_eval_episodes=10, verbose=0, warn=False
        )
        model.learn(256, callback=evaluation)
        mean, _ = evaluate_masked(model, agents.VectorEnvAdapter(masked_vector_env(4)), 10, warn=False)
    assert np.isfinite([mean, evaluation.last_mean_reward]).all()
    with (
        pytest.warns(UserWarning, match="restricts actions"),
        pytest.raises(ValueError, match="is not legal after"),
    ):
        evaluate_policy(model, agents.VectorEnvAdapter(masked_vector_env(4)), 50, deterministic=False, warn=False)
