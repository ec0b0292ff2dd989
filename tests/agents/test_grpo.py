"""GRPO: advantages and loss against hand-made loops, groups that stay together, and that it learns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import BaseCallback

from agents import GRPO, PPO, BehaviourCloning, BestOfN, VectorEnvAdapter
from agents.losses import group_advantages, grpo_loss


@pytest.mark.parametrize("kind", ["grpo", "rloo", "dr_grpo"])
def test_advantages_compare_with_the_group(kind: str) -> None:
    returns = np.array([[1.0, 2.0, 6.0], [0.0, 0.0, 0.0]])
    expected = []
    for group in returns:
        mean, spread = group.mean(), group.std() + 1e-4
        others = [np.delete(group, i).mean() for i in range(3)]
        expected.append({"grpo": (group - mean) / spread, "rloo": group - others, "dr_grpo": group - mean}[kind])
    np.testing.assert_allclose(group_advantages(returns, kind), expected, atol=1e-12)


def test_the_loss_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    new, old, reference, advantages, entropy = (torch.tensor(rng.normal(size=20)) for _ in range(5))
    loss = grpo_loss(new, old, reference, advantages, entropy, clip_range=0.2, kl_coef=0.3, ent_coef=0.1)
    total = 0.0
    for n, o, r, a, h in zip(*(term.tolist() for term in (new, old, reference, advantages, entropy)), strict=True):
        ratio = np.exp(n - o)
        surrogate = min(a * ratio, a * min(max(ratio, 0.8), 1.2))
        total += (-surrogate + 0.3 * (np.exp(r - n) - (r - n) - 1) - 0.1 * h) / 20
    assert loss.total == pytest.approx(total)
    assert grpo_loss(new, old, None, advantages, entropy, clip_range=0.2, kl_coef=0.3, ent_coef=0.0).kl == 0


def test_groups_are_whole_episodes_of_one_prompt_whatever_the_rollout(vector_env: Callable) -> None:
    model = GRPO(
        "TransformerPolicy", vector_env(6), n_steps=5, group_size=3, max_group_age=10**6, seed=0, device="cpu"
    )
    seen: list[tuple] = []
    finished: list[float] = []
    train = GRPO.train

    def spy(self: GRPO) -> None:
        for group in self.rollout_buffer.groups:
            assert len(group) == 3
            prompts = {tuple(e.ids[: e.position[0] + 1]) for e in group}
            assert len(prompts) == 1
            seen.extend(prompts)
            for e in group:
                assert (np.diff(e.position) == 1).all() and len(e.actions) == len(e.log_probs) == len(e.rewards)
                np.testing.assert_array_equal(e.ids[e.position[1:]], e.actions[:-1])
                finished.append(float(e.rewards.sum()))
        train(self)

    model.train = spy.__get__(model)  # type: ignore[method-assign]
    model.learn(6 * 200)
    waiting = [e.rewards.sum() for group in model.rollout_buffer._waiting_groups.values() for e in group]
    everything = sorted(finished + [float(r) for r in waiting])
    assert len(set(seen)) > 10
    returns = model.rollout_buffer._count.sum()
    assert len(everything) == returns  # no episode is lost or counted twice


def test_log_probabilities_are_those_the_tokens_were_sampled_with(vector_env: Callable) -> None:
    model = GRPO(
        "TransformerPolicy", vector_env(4), n_steps=4, group_size=2, learning_rate=0.0, seed=0, device="cpu"
    )  # the policy stays as it is, and most episodes take more than one rollout
    batches = []

    def compare(self: GRPO) -> None:
        for batch in self.rollout_buffer.get(16) if self.rollout_buffer.groups else ():
            own = self.policy.packed_log_probs(batch.packs, batch.actions)
            torch.testing.assert_close(own, batch.old_log_prob, rtol=0, atol=1e-5)
            batches.append(len(batch.actions))

    model.train = compare.__get__(model)  # type: ignore[method-assign]
    model.learn(4 * 100)
    assert sum(batches) > 100


def test_different_prompts_in_a_group_are_refused(vector_env: Callable) -> None:
    model = GRPO("TransformerPolicy", vector_env(4, reply=1), n_steps=16, group_size=2, seed=0, device="cpu")
    with pytest.raises(ValueError, match="rows of one group were shown different prompts"):
        model.learn(4000)  # this environment's replies use up the numbers that prompts come from


@pytest.mark.parametrize("advantage", ["grpo", "rloo"])
def test_it_learns(vector_env: Callable, advantage: str) -> None:
    model = GRPO("TransformerPolicy", vector_env(16), n_steps=32, advantage=advantage, seed=0, device="cpu")
    model.learn(16_000)
    recent = [episode["r"] for episode in model.ep_info_buffer]
    assert np.mean(recent) > 7  # of about 10.5; random: 2


def test_checkpoints_go_on(vector_env: Callable, tmp_path: object) -> None:
    model = GRPO(
        "TransformerPolicy", vector_env(4), n_steps=16, group_size=2, reference="initial", kl_coef=0.1, device="cpu"
    )
    model.learn(256)
    model.save(f"{tmp_path}/model")
    again = GRPO.load(f"{tmp_path}/model", env=vector_env(4), device="cpu")
    for name, value in model.policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[name])
    reference = again.reference_policy.state_dict()
    assert all(torch.equal(value, reference[name]) for name, value in model.reference_policy.state_dict().items())
    again.learn(256)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"group_size": 1}, "group_size=1; a group needs at least 2"),
        ({"group_size": 3}, "4 rows cannot be divided into groups of 3; .*num_envs=3"),
        ({"advantage": "gae"}, "advantage='gae'; choose from grpo, rloo, dr_grpo"),
        ({"kl_coef": 0.1}, "needs a reference"),
        ({"n_epochs": 0}, "n_epochs=0; give at least 1"),
        ({"max_group_age": 0}, "max_group_age=0; give at least 1"),
    ],
)
def test_impossible_arguments_are_refused(vector_env: Callable, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GRPO("TransformerPolicy", vector_env(4), **{"group_size": 2, "device": "cpu", **keywords})


class Waits(BaseCallback):
    """Keeps how long the oldest episode of an incomplete group has waited, before each rollout."""

    def _on_training_start(self) -> None:
        self.steps: list[int] = []
        self.fresh_starts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        buffer = self.model.rollout_buffer
        self.steps.append(buffer.longest_wait)
        self.fresh_starts += not buffer._count.any()


@pytest.mark.parametrize("bound", [1, 3, 10**6])
def test_no_episode_waits_for_long(vector_env: Callable, bound: int) -> None:
    options = {"n_steps": 20, "n_epochs": 1, "group_size": 4, "max_group_age": bound}
    model = GRPO("TransformerPolicy", vector_env(8), **options, seed=0, device="cpu")
    waits, ages, groups = Waits(), [], []
    train = model.train

    def spy() -> None:
        groups.append(len(model.rollout_buffer.groups))
        train()
        ages.append(model.logger.name_to_value.get("train/group_age", 0.0))

    model.train = spy
    model.learn(8 * 20 * 60, callback=waits)
    assert sum(groups) > 120
    if bound < 10**6:
        assert max(waits.steps) <= 20 * bound and max(ages) <= bound + 2  # looked at once a rollout
        assert 2 <= waits.fresh_starts <= 30
    else:
        assert max(waits.steps) > 60  # so the bounds above are reached without them


class FixedLength(VectorEnvAdapter):
    """All episodes are of seven tokens."""

    def step_wait(self) -> Any:
        self._actions = 1 + self._actions % 6  # the end is never said
        return super().step_wait()


def test_episodes_of_one_length_never_begin_afresh(token_env: type) -> None:
    """Rows of a group end together, even where a rollout cuts every episode."""
    rows = [lambda: TimeLimit(token_env(), 7)] * 4
    env = FixedLength(SyncVectorEnv(rows, autoreset_mode=AutoresetMode.SAME_STEP))
    model = GRPO("TransformerPolicy", env, n_steps=5, group_size=2, seed=0, device="cpu")
    model._begin_afresh = None  # is not called
    model.learn(4 * 5 * 20)
    assert model.rollout_buffer.longest_wait == 0 and model.rollout_buffer._count.tolist() == [14] * 4


def test_training_goes_on_after_a_stop_within_a_rollout(vector_env: Callable) -> None:
    """The steps of the rollout that was broken off are lost, so groups begin anew."""
    model = GRPO("TransformerPolicy", vector_env(4), n_steps=16, group_size=2, seed=0, device="cpu")
    model.learn(4 * 40, callback=lambda local, _: local["self"].num_timesteps < 4 * 25)
    assert model.num_timesteps == 4 * 25
    model.learn(4 * 160, reset_num_timesteps=False)
    assert model.rollout_buffer._count.sum() > 20


def test_the_first_ratio_is_one_in_reduced_precision(token_env: type) -> None:
    rows = [lambda: TimeLimit(token_env(), 7)] * 4
    env = FixedLength(SyncVectorEnv(rows, autoreset_mode=AutoresetMode.SAME_STEP))
    reduced = {"policy_kwargs": {"dtype": "bfloat16"}, "seed": 0, "device": "cpu"}
    model = GRPO("TransformerPolicy", env, n_steps=28, group_size=2, **reduced)
    differences, add = [], model.rollout_buffer.add
    # the cache rounds in other places; how much differs from machine to machine
    model.rollout_buffer.add = lambda *args: add(*args[:-1], args[-1] + 0.01)

    def compare() -> None:
        for batch in model.rollout_buffer.get():
            own = model.policy.packed_log_probs(batch.packs, batch.actions)
            differences.append((own - batch.old_log_prob).abs().max().item())

    model.train = compare
    model.learn(4 * 28 * 2)
    assert len(differences) == 2 and max(differences) < 1e-6


@pytest.mark.parametrize("masked", [False, True])
def test_the_reference_is_asked_once_a_token(
    vector_env: Callable, masked_vector_env: Callable, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = (masked_vector_env if masked else vector_env)(4)
    options = {"n_steps": 40, "n_epochs": 3, "batch_size": 30, "group_size": 2, "reference": "initial"}
    model = GRPO("TransformerPolicy", env, **options, kl_coef=0.1, seed=0, device="cpu")
    asked, seen = [0], []
    ask = model.reference_policy.log_prob

    def counted(packs: Any, actions: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        asked[0] += len(actions)
        return ask(packs, actions, masks)

    def compared(batch: Any, clip_range: float) -> Any:
        seen.append(len(batch.actions))
        expected = ask(batch.packs, batch.actions, batch.masks)
        torch.testing.assert_close(batch.reference_log_prob, expected, rtol=0, atol=1e-5)
        return GRPO.loss(model, batch, clip_range)

    monkeypatch.setattr(model.reference_policy, "log_prob", counted)
    model.loss = compared
    model.learn(4 * 40 * 2)
    assert sum(seen) == 3 * asked[0] > 300 and model.trained_tokens == sum(seen)


@pytest.mark.parametrize("algorithm", [GRPO, BestOfN, BehaviourCloning])
def test_no_values_are_computed(vector_env: Callable, algorithm: type) -> None:
    options = {"group_size": 2} if algorithm is GRPO else {"n": 2} if algorithm is BestOfN else {}
    trunk = {"policy_kwargs": {"value_trunk": "separate"}}
    model = algorithm("TransformerPolicy", vector_env(4), n_steps=16, **options, **trunk, seed=0, device="cpu")
    model.policy.value_reader.backbone.hidden = None  # would fail
    model.learn(128)
    obs = torch.as_tensor(vector_env(4).reset(seed=0)[0])
    with torch.no_grad():
        assert (model.policy.predict_values(obs) == 0).all() and model.policy(obs)[1].shape == (4, 1)
    other = PPO("TransformerPolicy", vector_env(4), **trunk, device="cpu")
    other.policy.load_state_dict(model.policy.state_dict())  # the weights are there for one that has values
