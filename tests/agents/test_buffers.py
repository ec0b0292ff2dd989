"""Buffers keep what happened, once."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents import DQN, PPO
from agents.replay import EpisodeReplayBuffer


def test_fragments_cover_the_rollout_and_carry_their_context(vector_env: Callable) -> None:
    model = PPO("TransformerPolicy", vector_env(3, reply=1), n_steps=40, seed=0, device="cpu")
    observations = []
    step = model.env.step_wait

    def remember() -> tuple:
        observations.append(model._last_obs.copy())
        return step()

    model.env.step_wait = remember
    _, callback = model._setup_learn(120)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 40)
    buffer = model.rollout_buffer
    flat = np.array(observations).reshape(120, -1)
    seen = []
    for fragment in buffer.fragments:
        for position, transition in zip(fragment.position, fragment.transition, strict=True):
            context = flat[transition][flat[transition] != 7]
            assert (fragment.ids[: position + 1] == context).all()
            seen.append(transition)
    assert sorted(seen) == list(range(120))
    starts = buffer.episode_starts.copy()
    starts[0] = 1
    assert len(buffer.fragments) == starts.sum()
    batches = list(buffer.get(30))
    assert len(batches) > 1
    assert sorted(np.concatenate([b.transition.numpy() for b in batches])) == list(range(120))
    for batch in batches:
        assert (batch.actions.numpy() == buffer.actions.reshape(-1)[batch.transition]).all()


def test_passes_without_a_gradient_are_of_the_size_asked_for(vector_env: Callable) -> None:
    model = PPO("TransformerPolicy", vector_env(3), n_steps=40, seed=0, device="cpu")
    _, callback = model._setup_learn(120)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 40)
    buffer = model.rollout_buffer
    sizes = [len(fragment.transition) for fragment in buffer.fragments]
    batches = [batch.transition.numpy() for batch in buffer.in_order(15)]
    assert sorted(np.concatenate(batches)) == list(range(120))
    assert len(batches) <= 8 and max(map(len, batches)) < 15 + max(sizes)


def test_gae_is_recomputed_independently(vector_env: Callable) -> None:
    model = PPO("TransformerPolicy", vector_env(2), n_steps=20, gamma=0.9, gae_lambda=0.8, seed=0, device="cpu")
    model.policy.value_head.weight.data.normal_()
    _, callback = model._setup_learn(40)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 20)
    buffer = model.rollout_buffer
    last_values, dones = buffer._last
    for row in range(2):
        running = 0.0
        for t in reversed(range(20)):
            ended = dones[row] if t == 19 else buffer.episode_starts[t + 1, row]
            following = last_values[row].item() if t == 19 else buffer.values[t + 1, row]
            delta = buffer.rewards[t, row] + 0.9 * following * (1 - ended) - buffer.values[t, row]
            running = delta + 0.9 * 0.8 * (1 - ended) * running
            assert buffer.advantages[t, row] == pytest.approx(running, abs=1e-5)


def test_replay_forgets_the_oldest_episodes_first(vector_env: Callable) -> None:
    model = DQN("TransformerQPolicy", vector_env(3), buffer_size=100, learning_starts=10**9, seed=0, device="cpu")
    model.learn(600)
    buffer = model.replay_buffer
    assert 60 < buffer.size() <= 100
    assert buffer.size() == sum(len(episode.actions) for episode in buffer.episodes)
    batch = buffer.sample(64)
    assert 32 <= len(batch.actions) <= 128


def test_a_time_limit_is_bootstrapped(vector_env: Callable) -> None:
    buffer = DQN("TransformerQPolicy", vector_env(1), device="cpu").replay_buffer
    context = np.full((1, 14), 7)
    context[0, :2] = [1, 2]
    longer = context.copy()
    longer[0, 2] = 3
    for cut in (False, True):
        buffer.add(
            context, longer, np.array([3]), np.array([0.5]), np.array([True]), [{"TimeLimit.truncated": cut}]
        )
    terminated, truncated = (buffer.batch([episode]) for episode in buffer.episodes)
    assert terminated.discounts.tolist() == [0.0] and truncated.discounts.tolist() == [1.0]
    assert truncated.packs[0].position.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("n_steps", "stock"), [(1, ReplayBuffer), (3, partial(NStepReplayBuffer, n_steps=3, gamma=0.9))]
)
def test_rewards_are_normalised_as_in_stock_buffers(
    token_env: type, n_steps: int, stock: Callable[..., ReplayBuffer]
) -> None:
    env = VecNormalize(DummyVecEnv([token_env]), norm_obs=False, gamma=0.9)
    model = DQN("TransformerQPolicy", env, n_steps=n_steps, gamma=0.9, learning_starts=50, seed=0, device="cpu")
    ours, theirs = model.replay_buffer, stock(400, env.observation_space, env.action_space, device="cpu")
    add, sample, asked = ours.add, ours.sample, []
    ours.add = lambda *step: (add(*step), theirs.add(*step))
    ours.sample = lambda size, env=None: asked.append(env) or sample(size, env)
    model.learn(200)
    assert asked and all(given is env for given in asked)
    mine = torch.cat([ours.batch([episode], env).rewards for episode in ours.episodes])
    expected = theirs._get_samples(np.arange(ours.size()), env).rewards.flatten()
    torch.testing.assert_close(mine, expected)
    raw = torch.cat([ours.batch([episode]).rewards for episode in ours.episodes])
    assert not torch.allclose(mine, raw, atol=0.1)


def test_replay_memory_is_a_small_part_of_a_stock_buffers(token_env: type) -> None:
    env = token_env(vocab_size=1000, length=512)
    ours = EpisodeReplayBuffer(10_000, env.observation_space, env.action_space)
    stock = ReplayBuffer(10_000, env.observation_space, env.action_space)
    context = np.random.default_rng(0).integers(1000, size=512)
    for _ in range(3):
        for t in range(500):
            now, then = context.copy(), context.copy()
            now[8 + t :], then[9 + t :] = 1000, 1000
            ours.add(now[None], then[None], np.array([5]), np.array([0.0]), np.array([t == 499]), [{}])
    per_transition = ours.nbytes() / ours.size()
    stock_bytes = sum(getattr(stock, n).nbytes for n in ("observations", "next_observations")) / 10_000
    assert stock_bytes == 16 * 512
    assert per_transition < stock_bytes / 500


def test_stock_load_replay_buffer_works(vector_env: Callable, tmp_path: object) -> None:
    model = DQN("TransformerQPolicy", vector_env(2), seed=0, device="cpu")
    model.learn(200)
    model.save_replay_buffer(f"{tmp_path}/buffer.pkl")
    size = model.replay_buffer.size()
    model.load_replay_buffer(f"{tmp_path}/buffer.pkl")
    assert model.replay_buffer.size() == size > 0
    assert isinstance(model, stable_baselines3.DQN)


def test_an_episode_cut_by_a_reset_is_dropped(vector_env: Callable, tmp_path: object) -> None:
    model = DQN("TransformerQPolicy", vector_env(3), learning_starts=10**9, train_freq=1, seed=0, device="cpu")
    model.learn(33)
    model.learn(33)  # resets the environment in the middle of episodes
    model.set_env(vector_env(3))
    model.learn(33, reset_num_timesteps=False)
    model.save_replay_buffer(f"{tmp_path}/buffer.pkl")
    other = DQN("TransformerQPolicy", vector_env(5), learning_starts=10**9, train_freq=1, seed=0, device="cpu")
    other.load_replay_buffer(f"{tmp_path}/buffer.pkl")
    other.learn(100)
    assert len(other.replay_buffer.episodes) > 10
    for episode in other.replay_buffer.episodes:
        assert (np.diff(episode.lengths.astype(int)) == 1).all()
        assert episode.lengths[-1] == len(episode.ids)
        first = episode.lengths[0]
        assert (episode.ids[first:] == episode.actions).all()


def test_a_step_that_adds_no_token_goes_on_with_the_episode(vector_env: Callable) -> None:
    buffer = DQN("TransformerQPolicy", vector_env(1), device="cpu").replay_buffer
    contexts = [np.array([[1, 2, *tokens, *[7] * (12 - len(tokens))]]) for tokens in ([], [3], [3], [3, 4])]
    for t, (now, then) in enumerate(pairwise(contexts)):
        buffer.add(now, then, np.array([t]), np.array([0.0]), np.array([t == 2]), [{}])
    (episode,) = buffer.episodes
    assert episode.actions.tolist() == [0, 1, 2] and episode.lengths.tolist() == [2, 3, 3, 4]
    buffer.add(contexts[0], contexts[1], np.array([5]), np.array([0.0]), np.array([False]), [{}])
    other = np.array([[6, 5, 4, 3, *[7] * 10]])  # longer, but no continuation: the row was reset without an end
    buffer.add(other, other, np.array([6]), np.array([0.0]), np.array([True]), [{}])
    assert buffer.episodes[-1].actions.tolist() == [6]
