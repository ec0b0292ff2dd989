"""Our updates give stock Stable-Baselines3's loss and gradient on the same transitions."""

from collections.abc import Callable

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from torch.nn import functional as F
from transformers import GPT2Config, LlamaConfig

from agents import DQN, PPO, TransformerPolicy
from agents.replay import EpisodeReplayBuffer

CONFIGS = {
    "gpt2": GPT2Config(vocab_size=7, n_positions=14, n_embd=32, n_layer=2, n_head=4),
    "llama": LlamaConfig(
        vocab_size=9,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
    ),  # two outputs more than actions
}


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=0, atol=1e-5, msg=name)


def stock_copy(model: PPO, observations: np.ndarray) -> stable_baselines3.PPO:
    """Return stock PPO with our weights and, in a stock buffer, our transitions."""
    stock = stable_baselines3.PPO(
        TransformerPolicy,
        model.env,
        n_steps=model.n_steps,
        batch_size=model.n_steps * model.n_envs,
        n_epochs=1,
        gamma=1.0,
        ent_coef=model.ent_coef,
        policy_kwargs=model.policy_kwargs,
        device="cpu",
    )
    stock.policy.load_state_dict(model.policy.state_dict())
    ours, theirs = model.rollout_buffer, stock.rollout_buffer
    assert type(theirs) is RolloutBuffer
    theirs.observations[:] = observations
    for name in (
        "actions",
        "rewards",
        "episode_starts",
        "values",
        "log_probs",
        "advantages",
        "returns",
    ):
        getattr(theirs, name)[:] = getattr(ours, name)
    theirs.pos, theirs.full = ours.pos, True
    return stock


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("reply", [0, 2])
def test_ppo_loss_and_gradient_equal_stock(vector_env: Callable, name: str, reply: int) -> None:
    model = PPO(
        "TransformerPolicy",
        vector_env(4, reply=reply),
        n_steps=24,
        batch_size=96,
        n_epochs=1,
        ent_coef=0.01,
        max_grad_norm=1e9,
        policy_kwargs={"model": CONFIGS[name]},
        seed=1,
        device="cpu",
    )
    observations = []
    model.learn(96)  # one update away from the symmetric start
    step = model.env.step_wait

    def remember() -> tuple:
        observations.append(model._last_obs.copy())
        return step()

    model.env.step_wait = remember
    _, callback = model._setup_learn(96)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 24)
    stock = stock_copy(model, np.array(observations))
    stock.max_grad_norm = 1e9
    stock.set_logger(model.logger)
    stock.clip_range = model.clip_range
    for algorithm in (stock, model):  # stock first: ours normalises its buffer in place
        algorithm.policy.optimizer = torch.optim.SGD(algorithm.policy.parameters(), lr=0.0)
        algorithm.train()
    assert_same_gradients(gradients(model.policy), gradients(stock.policy))
    assert model.policy.value_head.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_dqn_loss_and_gradient_equal_stock(vector_env: Callable, name: str, n_steps: int) -> None:
    """The stock side: one whole observation a transition, targets by SB3's formula."""
    model = DQN(
        "TransformerQPolicy",
        vector_env(3, reply=1),
        learning_starts=10**9,
        n_steps=n_steps,
        gamma=0.9,
        double_q=False,
        policy_kwargs={"model": CONFIGS[name]},
        seed=2,
        device="cpu",
    )
    transitions: list[list[tuple]] = [[] for _ in range(3)]
    episodes: list[list[tuple]] = []
    add = model.replay_buffer.add

    def remember(obs, next_obs, action, reward, done, infos) -> None:  # noqa: ANN001
        for row in range(3):
            transitions[row].append((obs[row].copy(), next_obs[row].copy(), action[row], reward[row]))
            if done[row]:
                episodes.append(transitions[row])
                transitions[row] = []
        add(obs, next_obs, action, reward, done, infos)

    model.replay_buffer.add = remember
    model.learn(150)
    with torch.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = model.replay_buffer.batch(list(model.replay_buffer.episodes))
    loss = model.loss(batch)
    loss.backward()
    ours = gradients(model.q_net)
    model.q_net.zero_grad()

    observations, actions, targets = [], [], []
    for episode in episodes:
        for t in range(len(episode)):
            ahead = episode[t : t + n_steps]
            reward = sum(0.9**k * item[3] for k, item in enumerate(ahead))
            final = t + n_steps >= len(episode)
            with torch.no_grad():
                value = model.q_net_target(torch.as_tensor(ahead[-1][1])[None]).max()
            targets.append(reward + (1 - final) * 0.9 ** len(ahead) * value)
            observations.append(episode[t][0])
            actions.append(int(episode[t][2]))
    q_values = model.q_net(torch.as_tensor(np.array(observations)))
    chosen = q_values.gather(1, torch.as_tensor(actions)[:, None])[:, 0]
    stock_loss = F.smooth_l1_loss(chosen, torch.stack(targets).float())
    stock_loss.backward()
    assert len(targets) == batch.actions.numel() > 50
    torch.testing.assert_close(loss, stock_loss, rtol=0, atol=1e-6)
    assert_same_gradients(ours, gradients(model.q_net))


def test_one_step_batch_equals_stock_dqn_train(token_env: type) -> None:
    """Stock DQN.train on its own buffer, filled with the same episodes, moves the weights as ours does."""
    ours = DQN("TransformerQPolicy", token_env(), double_q=False, learning_rate=1e-2, seed=0, device="cpu")
    theirs = stable_baselines3.DQN(
        ours.policy_class,
        token_env(),
        learning_rate=1e-2,
        gamma=1.0,
        seed=0,
        device="cpu",
        max_grad_norm=10,
    )
    theirs.policy.load_state_dict(ours.policy.state_dict())
    for model in (ours, theirs):
        model._setup_learn(1)
        model.policy.optimizer = torch.optim.SGD(model.q_net.parameters(), lr=1e-2)
    env = token_env()
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    for _ in range(200):
        action = env.action_space.sample()
        next_obs, reward, terminated, _, _ = env.step(action)
        for model in (ours, theirs):
            model.replay_buffer.add(
                obs[None],
                next_obs[None],
                np.array([action]),
                np.array([reward]),
                np.array([terminated]),
                [{}],
            )
        obs = env.reset()[0] if terminated else next_obs
    assert isinstance(ours.replay_buffer, EpisodeReplayBuffer)
    count = ours.replay_buffer.size()
    ours.replay_buffer.sample = lambda size, env=None: ours.replay_buffer.batch(list(ours.replay_buffer.episodes))
    whole = np.arange(count)
    theirs.replay_buffer.sample = lambda size, env=None: theirs.replay_buffer._get_samples(whole)
    for model in (ours, theirs):
        model.train(gradient_steps=1, batch_size=count)
    for (name, mine), other in zip(
        ours.q_net.state_dict().items(), theirs.q_net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("double_q", [True, False])
def test_only_what_counts_is_scored(vector_env: Callable, double_q: bool) -> None:
    """Loss and gradient are those of both networks scoring states and next states, with a gradient throughout."""
    model = DQN("TransformerQPolicy", vector_env(3), learning_starts=10**9, double_q=double_q, seed=2, device="cpu")
    model.learn(150)
    model.policy.double()
    with torch.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = model.replay_buffer.batch(list(model.replay_buffer.episodes))
    batch = batch._replace(rewards=batch.rewards.double(), discounts=batch.discounts.double())
    rows: dict[str, list[tuple[int, bool]]] = {"q_net": [], "q_net_target": []}
    for name, seen in rows.items():
        head = getattr(model, name).reader.backbone
        score = head.scores
        head.scores = lambda hidden, score=score, seen=seen: (
            seen.append((len(hidden), torch.is_grad_enabled())) or score(hidden)
        )
    loss = model.loss(batch)
    loss.backward()
    ours, n = gradients(model.q_net), len(batch.actions)
    assert sorted(rows["q_net"]) == ([(n, False)] if double_q else []) + [(n, True)]
    assert rows["q_net_target"] == [(n, False)]
    model.q_net.zero_grad()

    states, online, late = [], [], []
    for pack, count in zip(batch.packs, batch.n_states, strict=True):
        q_values, target = (network.evaluate_packed([pack]) for network in (model.q_net, model.q_net_target))
        states.append(q_values[:count])
        online.append(q_values[count:])
        late.append(target[count:])
    with torch.no_grad():
        late_q, chosen = torch.cat(late), torch.cat(online if double_q else late).argmax(1, keepdim=True)
        targets = batch.rewards + batch.discounts * late_q.gather(1, chosen)[:, 0]
    whole = F.smooth_l1_loss(torch.cat(states).gather(1, batch.actions[:, None])[:, 0], targets)
    whole.backward()
    torch.testing.assert_close(loss, whole, rtol=1e-12, atol=0)
    for name, gradient in gradients(model.q_net).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-9, atol=1e-14, msg=name)
