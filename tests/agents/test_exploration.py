"""DQN's heads, its exploration, and the target network that LoRA makes small."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import stable_baselines3
import torch
from torch.nn import functional as F
from transformers import GPT2Config

import agents
from agents.losses import (
    dueling_q,
    guided_charges,
    guided_log_probs,
    later_charges,
    soft_q_targets,
    top_actions,
)
from agents.policies import choose

CONFIG = GPT2Config(vocab_size=9, n_positions=14, n_embd=16, n_layer=1, n_head=2)
SMALL = {"seed": 0, "device": "cpu", "learning_starts": 100}


def make(vector_env: Callable, n: int = 4, **keywords: object) -> agents.DQN:
    options = {"model": CONFIG, **keywords.pop("policy_kwargs", {})}
    return agents.DQN("TransformerQPolicy", vector_env(n), policy_kwargs=options, **{**SMALL, **keywords})


def stir(model: agents.DQN) -> None:
    """Give adapters, heads and target network weights that do something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for network in (model.q_net, model.q_net_target):
            for parameter in network.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))


def test_dueling_values_are_the_papers() -> None:
    value, advantages = torch.randn(5, 1), torch.randn(5, 7)
    q_values = dueling_q(value, advantages)
    for i in range(5):
        for a in range(7):
            expected = value[i, 0] + advantages[i, a] - sum(advantages[i]) / 7
            assert q_values[i, a].item() == pytest.approx(expected.item(), abs=1e-6)


def test_dueling_heads_are_trained_and_saved(vector_env: Callable, tmp_path: Path) -> None:
    model = make(vector_env, policy_kwargs={"dueling": True})
    model.learn(800)
    assert model.q_net.value_head.weight.abs().max() > 0
    observations = torch.as_tensor(vector_env(16).reset(seed=4)[0])
    with torch.no_grad():
        expected = model.q_net(observations)
        reader = model.q_net.reader
        advantages = reader.backbone.scores(reader.last_hidden(observations))
    torch.testing.assert_close(
        expected - expected.mean(1, keepdim=True), advantages - advantages.mean(1, keepdim=True)
    )
    model.save(tmp_path / "model")
    loaded = agents.DQN.load(tmp_path / "model", device="cpu")
    torch.testing.assert_close(loaded.q_net(observations).detach(), expected)
    model.policy.save(tmp_path / "policy")
    policy = agents.TransformerQPolicy.load(tmp_path / "policy", device="cpu")
    torch.testing.assert_close(policy.q_net(observations).detach(), expected)


def test_a_dueling_network_works_in_stock_dqn(token_env: type) -> None:
    model = stable_baselines3.DQN(
        agents.TransformerQPolicy, token_env(), learning_starts=20, policy_kwargs={"dueling": True}, device="cpu"
    )
    model.learn(60)
    assert model.q_net.value_head.weight.abs().max() > 0


@pytest.mark.parametrize("stock", [True, False])
@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_a_lora_target_has_the_base_in_common_and_its_own_adapters(
    vector_env: Callable, token_env: type, stock: bool, tau: float
) -> None:
    options = {"model": CONFIG, "lora": 2, "dueling": True}
    common = {"learning_starts": 20, "tau": tau, "target_update_interval": 1, "device": "cpu", "seed": 0}
    if stock:
        model = stable_baselines3.DQN(agents.TransformerQPolicy, token_env(), policy_kwargs=options, **common)
    else:
        model = agents.DQN("TransformerQPolicy", vector_env(2), policy_kwargs=options, **common)
    named = [dict(net.named_parameters()) for net in (model.q_net, model.q_net_target)]
    frozen = {name: p.clone() for name, p in named[0].items() if not p.requires_grad}
    assert frozen and all(named[0][name] is named[1][name] for name in frozen)
    trained = [name for name, p in named[0].items() if p.requires_grad]
    assert trained and all(named[0][name] is not named[1][name] for name in trained)
    model.learn(120)
    assert all(torch.equal(named[0][name], value) for name, value in frozen.items())
    if tau == 1.0:
        model._on_step()
        assert all(torch.equal(named[0][name], named[1][name]) for name in trained)
    assert any(not torch.equal(named[1][name], torch.zeros_like(named[1][name])) for name in trained)


def test_guided_probabilities_and_targets_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    q_values, prior = rng.normal(size=(6, 5)), rng.dirichlet(np.ones(5), size=6)
    rewards, discounts = rng.normal(size=(2, 6))
    probabilities = guided_log_probs(torch.tensor(q_values), 0.3, torch.tensor(np.log(prior))).exp().numpy()
    boltzmann = guided_log_probs(torch.tensor(q_values), 0.3).exp().numpy()
    targets = soft_q_targets(
        torch.tensor(rewards), torch.tensor(discounts), torch.tensor(q_values), torch.tensor(np.log(prior)), 0.3
    ).numpy()
    for i in range(6):
        weights = prior[i] * np.exp(q_values[i] / 0.3)
        np.testing.assert_allclose(probabilities[i], weights / weights.sum())
        np.testing.assert_allclose(boltzmann[i], np.exp(q_values[i] / 0.3) / np.exp(q_values[i] / 0.3).sum())
        assert targets[i] == pytest.approx(rewards[i] + discounts[i] * 0.3 * np.log(weights.sum()))
        best = probabilities[i] @ q_values[i] - 0.3 * probabilities[i] @ np.log(probabilities[i] / prior[i])
        assert best == pytest.approx(0.3 * np.log(weights.sum()))  # the soft value is what this policy attains


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5])
def test_soft_returns_of_any_length_are_exact(n_steps: int) -> None:
    """Two actions, three steps: at the exact soft values the mean target is the exact value, of every action.

    The mean is over what the guided policy does; without the charges only one step gives it.
    """
    rng, gamma, tau = np.random.default_rng(0), 0.9, 0.5
    states = [said for length in range(3) for said in product(range(2), repeat=length)]
    reward = {(*said, a): rng.normal() for said in states for a in range(2)}
    log_prior = {said: np.log(rng.dirichlet(np.ones(2))) for said in states}
    q, value, policy = {}, {said: 0.0 for said in product(range(2), repeat=3)}, {}
    for said in reversed(states):
        q[said] = np.array([reward[(*said, a)] + gamma * value[(*said, a)] for a in range(2)])
        weights = np.exp(log_prior[said] + q[said] / tau)
        value[said], policy[said] = tau * np.log(weights.sum()), weights / weights.sum()
    means = {(*said, a): 0.0 for said in states for a in range(2)}
    plain = dict.fromkeys(means, 0.0)
    for episode in product(range(2), repeat=3):
        path = [episode[:t] for t in range(3)]
        row = torch.tensor(np.stack([q[s] for s in path])), torch.tensor(np.stack([log_prior[s] for s in path]))
        left = torch.tensor([3, 2, 1])
        charges = later_charges(guided_charges(row[0], tau, row[1]), left, n_steps, gamma)
        for t, said in enumerate(path):
            after = path[t + n_steps :][:1]
            chance = np.prod([policy[path[k]][episode[k]] for k in range(t + 1, 3)])
            earned = sum(gamma**k * reward[(*s, episode[t + k])] for k, s in enumerate(path[t : t + n_steps]))
            beyond = [table[after[0]] if after else np.zeros(2) for table in (q, log_prior)]
            target = soft_q_targets(
                torch.tensor([earned], dtype=torch.float64) - charges[t],
                torch.tensor([gamma**n_steps * len(after)], dtype=torch.float64),
                *(torch.tensor(row[None]) for row in beyond),
                tau,
            ).item()
            means[(*said, episode[t])] += chance * target
            plain[(*said, episode[t])] += chance * (target + charges[t].item())
    exact = {(*said, a): q[said][a] for said in states for a in range(2)}
    assert means == pytest.approx(exact, abs=1e-12)
    assert (plain == pytest.approx(exact, abs=1e-3)) is (n_steps == 1)


def test_top_actions() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0]])
    assert top_actions(scores, 2).tolist() == [[False, True, True], [True, False, True]]
    assert top_actions(scores, 8).all()


def frequencies(model: agents.DQN, observation: np.ndarray) -> np.ndarray:
    actions, _ = model.predict(np.repeat(observation, 20_000, axis=0))
    return np.bincount(actions, minlength=7) / 20_000


@pytest.mark.parametrize("exploration", ["boltzmann", "reference", "top_k"])
def test_actions_are_drawn_and_chosen_as_told(vector_env: Callable, exploration: str) -> None:
    guided = {"exploration": "reference", "reference": "initial", "policy_kwargs": {"lora": 2}}
    keywords = {
        "boltzmann": {"exploration": "boltzmann"},
        "reference": guided,
        "top_k": {**guided, "top_k": 3},
    }[exploration]
    model = make(vector_env, temperature=0.2, **keywords)
    stir(model)
    observation = vector_env(1).reset(seed=4)[0]
    ids = torch.as_tensor(observation)
    with torch.no_grad():
        q_values = model.q_net(ids)[0].double()
        prior = torch.full((7,), 1 / 7, dtype=torch.float64)
        if exploration != "boltzmann":
            prior = model.reference_policy.step_log_probs(ids)[0].double().exp()
    weights = prior * (q_values / 0.2).exp()
    greedy = weights
    if exploration == "top_k":
        allowed = torch.zeros(7, dtype=torch.float64)
        allowed[prior.topk(3).indices] = 1
        weights, greedy = weights * allowed, allowed * (q_values - q_values.min() + 1)
    np.testing.assert_allclose(frequencies(model, observation), weights / weights.sum(), atol=0.015)
    assert model.predict(observation[0], deterministic=True)[0] == int(greedy.argmax())


def test_the_reference_is_the_language_model_that_lora_left_whole(vector_env: Callable) -> None:
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_config(CONFIG).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = make(
        vector_env, exploration="reference", reference="initial", policy_kwargs={"model": module, "lora": 2}
    )
    model.learn(300)
    ids = torch.randint(7, (3, 14))
    with torch.no_grad():
        expected = module(ids).logits[:, -1, :7].log_softmax(-1)
        for cached in (False, True):
            with model.reference_policy.cached() if cached else torch.no_grad():
                torch.testing.assert_close(model.reference_policy.step_log_probs(ids), expected)
    assert not model.reference_policy.state_dict()  # it is the policy's own base


def test_warm_up_draws_from_the_reference(vector_env: Callable) -> None:
    model = make(
        vector_env,
        n=400,
        exploration="reference",
        reference="initial",
        learning_starts=10**9,
        policy_kwargs={"lora": 2},
    )
    with torch.no_grad():  # one token far likelier than the others
        embedding = model.policy.backbone.language_head.weight
        embedding[:] = 0
        embedding[5] = 5 * torch.randn(16)
    stir(model)
    _, callback = model._setup_learn(400)
    prior = model.reference_policy.step_log_probs(torch.as_tensor(model._last_obs)).exp().mean(0)
    model.q_net.reader.last_hidden = None  # the network is not asked
    actions, _ = model._sample_action(10**9, n_envs=400)
    np.testing.assert_allclose(np.bincount(actions, minlength=7) / 400, prior, atol=0.07)


@pytest.mark.parametrize(("top_k", "n_steps"), [(None, 1), (3, 1), (None, 3), (3, 3), (None, 20)])
def test_the_loss_equals_a_loop_over_single_contexts(vector_env: Callable, top_k: int | None, n_steps: int) -> None:
    model = make(
        vector_env,
        exploration="reference",
        reference="initial",
        top_k=top_k,
        temperature=0.5,
        gamma=0.9,
        n_steps=n_steps,
        learning_starts=10**9,
        policy_kwargs={"lora": 2},
    )
    stir(model)
    model.learn(120)
    losses = []
    for episode in model.replay_buffer.episodes:
        lengths = episode.lengths.astype(int)
        for t in range(len(episode.actions)):
            states = []
            for length in lengths[t : t + n_steps + 1]:
                states.append(np.full((1, 14), 7))
                states[-1][0, :length] = episode.ids[:length]
            now, *later = (torch.as_tensor(state) for state in states)
            target = torch.tensor(sum(0.9**k * r for k, r in enumerate(episode.rewards[t : t + n_steps])))
            for k, then in enumerate(later, start=1):
                with torch.no_grad():
                    prior = model.reference_policy.step_log_probs(then)[0]
                    late, online = model.q_net_target(then)[0], model.q_net(then)[0]
                if k < n_steps:
                    if top_k is None and t + k < len(episode.actions):
                        policy = guided_log_probs(late, 0.5, prior)
                        target -= 0.9**k * 0.5 * (policy.exp() @ (policy - prior))
                    continue
                if top_k is None:
                    value = 0.5 * sum(p.exp() * (q / 0.5).exp() for p, q in zip(prior, late, strict=True)).log()
                else:
                    value = late[max(prior.topk(3).indices.tolist(), key=lambda a: online[a])]
                target += 0.9**k * value * (t + k < len(episode.actions))
            losses.append(F.smooth_l1_loss(model.q_net(now)[0, int(episode.actions[t])], target.float()))
    loss = model.loss(model.replay_buffer.batch(list(model.replay_buffer.episodes)))
    assert len(losses) > 50
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=0, atol=1e-5)


def test_soft_returns_read_each_context_once(vector_env: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(
        vector_env,
        exploration="reference",
        reference="initial",
        n_steps=50,
        learning_starts=10**9,
        policy_kwargs={"lora": 2},
    )
    model.learn(120)
    batch = model.replay_buffer.batch(list(model.replay_buffer.episodes))
    readers = (model.q_net.reader, model.q_net_target.reader, *model.reference_policy._readers)
    reads: list[int] = []
    for number, reader in enumerate(readers):
        read = reader.packed_hidden
        reader.packed_hidden = lambda packs, number=number, read=read: reads.append(number) or read(packs)
    steps: list[int] = []
    monkeypatch.setattr("agents.dqn.later_charges", lambda *given: steps.append(given[2]) or later_charges(*given))
    model.loss(batch)
    assert sorted(reads) == [0, 1, 2]
    assert steps == [max(len(episode.actions) for episode in model.replay_buffer.episodes)]


def test_it_learns_with_a_reference(vector_env: Callable) -> None:
    model = agents.DQN(
        "TransformerQPolicy",
        vector_env(16),
        exploration="reference",
        reference=CONFIG,  # near uniform
        temperature=0.05,
        seed=0,
        device="cpu",
    )
    model.learn(8000)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) > 6  # of about 10.5; random: 2


def test_checkpoints_hold_the_reference(vector_env: Callable, tmp_path: Path) -> None:
    for keywords in ({"reference": CONFIG}, {"reference": "initial", "policy_kwargs": {"lora": 2}}):
        model = make(vector_env, exploration="reference", top_k=4, temperature=0.3, **keywords)
        model.learn(300)
        model.save(tmp_path / "model")
        loaded = agents.DQN.load(tmp_path / "model", env=vector_env(4), device="cpu")
        ids = torch.as_tensor(vector_env(8).reset(seed=0)[0])
        expected = model.reference_policy.step_log_probs(ids)
        torch.testing.assert_close(loaded.reference_policy.step_log_probs(ids), expected)
        assert (loaded.exploration, loaded.top_k, loaded.temperature) == ("reference", 4, 0.3)
        loaded.learn(100)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"exploration": "greedy"}, "exploration='greedy'; choose from epsilon, boltzmann, reference"),
        ({"exploration": "boltzmann", "temperature": 0.0}, "temperature=0.0"),
        ({"exploration": "reference"}, "needs a reference"),
        ({"reference": CONFIG}, "are for exploration='reference', not 'epsilon'"),
        ({"exploration": "boltzmann", "top_k": 3}, "top_k=3 are for exploration='reference'"),
        ({"exploration": "reference", "reference": CONFIG, "top_k": 0}, "top_k=0"),
        ({"exploration": "reference", "reference": "initial"}, "reference='initial' needs LoRA here"),
    ],
)
def test_impossible_arguments_are_refused(vector_env: Callable, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(vector_env, **keywords)


def test_the_rounding_of_a_draw_never_leaves_the_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1 - 2**-53, dtype=torch.float64))
    scores = torch.randn(50_000, 6)
    scores[:, 4:] = torch.finfo(torch.float32).min
    assert choose(torch.log_softmax(scores, dim=-1), deterministic=False).max() == 3
