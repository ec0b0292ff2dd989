"""Candidates are read one by one as plain transformers would read them, and stock algorithms choose among them."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv
from transformers import GPT2Config, LlamaConfig

import agents

V, L, K, C = 6, 8, 4, 3
LAYOUT = (L, K, C)
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=V, n_positions=L + C, n_embd=16, n_layer=1, n_head=2),
    "llama": LlamaConfig(
        vocab_size=V + 2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        tie_word_embeddings=False,
    ),
}


class CandidateEnv(gym.Env):
    """Two turns; a candidate that begins with the successor of the last token earns 1, an absent one -1."""

    observation_space = spaces.Box(0, V, (L + K * C,), np.int64)
    action_space = spaces.Discrete(K)
    candidate_layout = LAYOUT

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.context, self.turn = list(self.np_random.integers(V, size=self.np_random.integers(1, 3))), 0
        return self._propose(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        chosen = self.candidates[action] if action < len(self.candidates) else []
        reward = float(chosen[0] == (self.context[-1] + 1) % V) if chosen else -1.0
        self.context += chosen
        self.turn += 1
        over = self.turn == 2 or not chosen
        return self._propose(absent=over), reward, over, False, {}

    def _propose(self, absent: bool = False) -> np.ndarray:
        count = 0 if absent else self.np_random.integers(2, K + 1)
        first = self.np_random.permutation(V)[:count]
        if count and (self.context[-1] + 1) % V not in first:
            first[self.np_random.integers(count)] = (self.context[-1] + 1) % V
        self.candidates = [
            [int(f), *self.np_random.integers(V, size=self.np_random.integers(C)).tolist()] for f in first
        ]
        observation = np.full(L + K * C, V, np.int64)
        observation[: len(self.context)] = self.context
        for k, ids in enumerate(self.candidates):
            observation[L + k * C :][: len(ids)] = ids
        return observation


def observations(count: int = 12) -> np.ndarray:
    env = CandidateEnv()
    return np.array([env.reset(seed=i)[0] for i in range(count)])


def policy(name: str = "gpt2", kind: type = agents.CandidatePolicy, **keywords: object) -> torch.nn.Module:
    torch.manual_seed(0)
    made = kind(
        CandidateEnv.observation_space,
        CandidateEnv.action_space,
        lambda _: 1e-3,
        layout=LAYOUT,
        model=CONFIGS[name],
        **keywords,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.double()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("prior", ["mean", "sum", "none"])
def test_logits_and_values_are_those_of_a_loop_over_plain_forwards(name: str, prior: str) -> None:
    made = policy(name, prior=prior)
    made.head.float()
    made.value_head.float()
    obs = observations()
    with torch.no_grad():
        logits, values = made._read(torch.as_tensor(obs), None)
        model = made.backbone.model
        for row, logit, value in zip(obs, logits, values, strict=True):
            context = row[:L][row[:L] != V].tolist()
            hidden = model.base_model(torch.tensor([context])).last_hidden_state[0, -1]
            torch.testing.assert_close(value, made.value_head(hidden.float()))
            for k in range(K):
                said = row[L + k * C : L + (k + 1) * C]
                said = said[said != V].tolist()
                if not said:
                    assert logit[k] < -1e38
                    continue
                output = model(torch.tensor([context + said]), output_hidden_states=True)
                each = output.logits[0, :, :V].log_softmax(-1)
                likelihood = sum(each[len(context) - 1 + i, token] for i, token in enumerate(said))
                expected = made.head(output.hidden_states[-1][0, -1].float())[0].double()
                expected += {"mean": likelihood / len(said), "sum": likelihood, "none": 0.0}[prior]
                torch.testing.assert_close(logit[k].double(), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(made.predict_values(torch.as_tensor(obs)), values, rtol=0, atol=1e-6)


def test_actions_log_probabilities_and_entropies_go_together() -> None:
    made = policy().float()
    obs = torch.as_tensor(observations(40))
    actions, values, log_prob = made(obs)
    again = made.evaluate_actions(obs, actions)
    distribution = made.get_distribution(obs).distribution
    for one, other in zip((values, log_prob, distribution.entropy()), again, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(log_prob, distribution.log_prob(actions))
    present = (obs[:, L:].reshape(-1, K, C) != V).any(2)
    assert present.gather(1, actions[:, None]).all() and not present.all()
    sampled = torch.stack([made(obs)[0] for _ in range(50)], 1)
    assert present.gather(1, sampled).all()


def test_masks_may_be_numbers() -> None:
    made = policy().float()
    obs = torch.as_tensor(observations())
    legal = (obs[:, L:].reshape(-1, K, C) != V).any(2)
    legal[:, 0] = False
    actions, numbers = legal.long().argmax(1), legal.float()  # sb3-contrib's buffer keeps numbers
    for mine, other in zip(
        made.evaluate_actions(obs, actions, numbers), made.evaluate_actions(obs, actions, legal), strict=True
    ):
        assert torch.equal(mine, other)
    probabilities = made.get_distribution(obs, numbers).distribution.probs
    assert (probabilities[~legal] == 0).all() and torch.allclose(probabilities.sum(1), torch.ones(len(obs)))


def test_the_first_policy_is_the_priors() -> None:
    torch.manual_seed(0)
    spaces_ = CandidateEnv.observation_space, CandidateEnv.action_space, lambda _: 1e-3
    made = agents.CandidatePolicy(*spaces_, layout=LAYOUT, prior="none")
    obs = torch.as_tensor(observations(5))
    present = (obs[:, L:].reshape(-1, K, C) != V).any(2)
    torch.testing.assert_close(
        made.get_distribution(obs).distribution.probs, present / present.sum(1, keepdim=True)
    )


def test_q_values_of_absent_candidates_are_never_greedy_and_finite() -> None:
    made = policy(kind=agents.CandidateQPolicy).float()
    obs = torch.as_tensor(observations(30))
    present = (obs[:, L:].reshape(-1, K, C) != V).any(2)
    q_values = made.q_net(obs)
    assert q_values.isfinite().all()
    assert present.gather(1, made._predict(obs)[:, None]).all()
    worst = q_values.masked_fill(~present, torch.inf).amin(1)
    torch.testing.assert_close(q_values[~present], (worst[:, None] - 1).expand_as(q_values)[~present])
    q_values[~present].sum().backward()
    assert not any(p.grad.any() for p in made.q_net.parameters() if p.grad is not None)
    over = obs.clone()
    over[:, L:] = V
    assert (made.q_net(over) == 0).all()


@pytest.mark.parametrize("model", [{"model": CONFIGS["gpt2"]}, {"model": CONFIGS["llama"], "lora": 2}])
def test_stock_ppo_and_dqn_run_and_are_loaded(tmp_path: Path, model: dict) -> None:
    options = {"layout": LAYOUT, **model}
    for algorithm, kind, keywords in (
        (stable_baselines3.PPO, agents.CandidatePolicy, {"n_steps": 16, "batch_size": 32}),
        (stable_baselines3.DQN, agents.CandidateQPolicy, {"learning_starts": 20}),
    ):
        made = algorithm(kind, DummyVecEnv([CandidateEnv] * 2), policy_kwargs=options, device="cpu", **keywords)
        trained = made.policy if kind is agents.CandidatePolicy else made.policy.q_net
        before = {n: p.clone() for n, p in trained.named_parameters()}
        made.learn(96)
        moved = {n for n, p in trained.named_parameters() if not torch.equal(p, before[n])}
        assert moved == {n for n, p in trained.named_parameters() if p.requires_grad}
        made.save(tmp_path / "model")
        loaded = algorithm.load(tmp_path / "model", env=DummyVecEnv([CandidateEnv] * 2), device="cpu")
        expected = made.predict(observations(), deterministic=True)[0]
        assert (loaded.predict(observations(), deterministic=True)[0] == expected).all()
        made.policy.save(tmp_path / "policy")
        again = kind.load(tmp_path / "policy", device="cpu")
        assert (again.predict(observations(), deterministic=True)[0] == expected).all()
        loaded.learn(32, reset_num_timesteps=False)


class SimpleEnv(CandidateEnv):
    """The same, where a candidate's first token alone decides: an even one earns 1."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        even = action < len(self.candidates) and self.candidates[action][0] % 2 == 0
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(even), terminated, truncated, info


def test_stock_ppo_learns_to_choose() -> None:
    model = stable_baselines3.PPO(
        agents.CandidatePolicy,
        DummyVecEnv([CandidateEnv] * 8),
        learning_rate=5e-3,
        n_steps=32,
        batch_size=128,
        n_epochs=4,
        gamma=1.0,
        policy_kwargs={"layout": LAYOUT, "model": CONFIGS["gpt2"]},
        seed=0,
        device="cpu",
    )
    model.learn(3072)
    mean, _ = evaluate_policy(model, DummyVecEnv([CandidateEnv] * 8), n_eval_episodes=100, warn=False)
    assert mean > 1.5  # of 2; a random present one: 0.7


def test_stock_dqn_learns_to_choose() -> None:
    model = stable_baselines3.DQN(
        agents.CandidateQPolicy,
        DummyVecEnv([SimpleEnv] * 8),
        learning_rate=3e-3,
        learning_starts=128,
        train_freq=4,
        gradient_steps=16,
        target_update_interval=100,
        gamma=1.0,
        exploration_fraction=0.3,
        policy_kwargs={"layout": LAYOUT, "model": CONFIGS["gpt2"]},
        seed=0,
        device="cpu",
    )
    model.learn(4096)
    mean, _ = evaluate_policy(model, DummyVecEnv([SimpleEnv] * 8), n_eval_episodes=400, warn=False)
    assert mean > 1.2  # of 1.82 (sometimes none is even); a random present one: 1


def test_wrong_layouts_and_words_are_refused() -> None:
    two = CandidateEnv.observation_space, CandidateEnv.action_space, lambda _: 1e-3
    for kind in (agents.CandidatePolicy, agents.CandidateQPolicy):
        with pytest.raises(ValueError, match=r'pass the environment\'s layout, policy_kwargs=\{"layout"'):
            kind(*two)
        with pytest.raises(ValueError, match=r"laid out as \(L, K, C\) = \(8, 4, 2\)"):
            kind(*two, layout=(L, K, 2))
    for keywords in ({"prior": "max"}, {"value_trunk": "separate"}, {"use_sde": True}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            agents.CandidatePolicy(*two, layout=LAYOUT, **keywords)
    empty = np.full((1, L + K * C), V)
    with pytest.raises(ValueError, match="holds no token"):
        policy().float().predict(empty)


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_our_algorithms_say_that_stock_ones_are_for_candidates(name: str) -> None:
    kind = agents.CandidateQPolicy if name == "DQN" else agents.CandidatePolicy
    env = DummyVecEnv([CandidateEnv] * 8)
    with pytest.raises(TypeError, match=rf"got {kind.__name__}; use that with Stable-Baselines3's own"):
        getattr(agents, name)(kind, env, policy_kwargs={"layout": LAYOUT}, device="cpu")
