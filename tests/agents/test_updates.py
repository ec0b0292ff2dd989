"""Updates: parts give a minibatch's gradient, nothing that is not finite reaches the weights, memory is named."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from agents import DQN, GRPO, PPO
from agents.packing import buckets
from agents.updates import Update, by_pack, memory_advice


def make(name: str, vector_env: Callable, **keywords: object) -> PPO | DQN | GRPO:
    common = {"seed": 0, "device": "cpu", **keywords}
    if name == "DQN":
        return DQN("TransformerQPolicy", vector_env(4), learning_starts=20, batch_size=64, **common)
    if name == "GRPO":
        return GRPO("TransformerPolicy", vector_env(4), n_steps=40, batch_size=64, group_size=2, **common)
    return PPO("TransformerPolicy", vector_env(4), n_steps=24, batch_size=64, target_kl=0.5, **common)


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_parts_give_the_same_gradient(vector_env: Callable, name: str) -> None:
    """In float64, where rounding cannot hide a wrong weight; the parts' sizes differ."""
    model = make(name, vector_env, policy_kwargs={"optimizer_class": torch.optim.SGD}, learning_rate=0.1)
    model.learn(200)
    model.policy.double()
    if name != "DQN":
        model.policy.value_head.float()  # by design, whatever the trunk's precision
    buffer = model.replay_buffer if name == "DQN" else model.rollout_buffer
    losses, gradients = [], []
    for most in (None, 30):
        buffer.max_tokens, buffer.rng = most, np.random.default_rng(3)
        batch = buffer.sample(64) if name == "DQN" else next(iter(buffer.get(64)))
        loss_of = {
            "PPO": lambda part: model.loss(part, 0.2, None),
            "GRPO": lambda part: model.loss(part, 0.2),
            "DQN": lambda part: model.loss(part),
        }[name]
        update = Update(model.policy.optimizer, 1.0, in_parts=most is not None)
        losses.append(update.backward(batch, loss_of))
        gradients.append([p.grad.clone() for p in model.policy.parameters() if p.grad is not None])
        assert (len(batch.packs) > 2) is (most is not None)
    for whole, parts in zip(*losses, strict=True) if name != "DQN" else [losses]:
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)  # columns of the buffers are float32
    assert max(float(g.abs().max()) for g in gradients[0]) > 1e-3
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_runs_in_parts_end_with_the_same_weights(vector_env: Callable, name: str) -> None:
    """With plain gradient steps: Adam would make much of the rounding of a gradient near 0."""
    sgd = {"policy_kwargs": {"optimizer_class": torch.optim.SGD}, "learning_rate": 0.05}
    weights = []
    for most in (None, 30):
        model = make(name, vector_env, micro_batch_size=most, **sgd)
        model.learn(200)
        weights.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)


def test_a_batch_is_its_parts(vector_env: Callable) -> None:
    model = make("DQN", vector_env, micro_batch_size=30)
    model.learn(200)
    batch = model.replay_buffer.sample(100)
    parts = by_pack(batch)
    assert len(parts) > 2 and [len(part.actions) for part in parts] == batch.n_states
    for column in ("actions", "rewards", "discounts"):
        assert torch.equal(torch.cat([getattr(part, column) for part in parts]), getattr(batch, column))
    assert all(part.next_masks is None and len(part.packs) == 1 for part in parts)


@pytest.mark.parametrize("most", [1, 20, 50, 10**6])
def test_groups_of_rows_keep_to_the_most(most: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, size=40)
    groups = buckets(lengths, most=most)
    assert sorted(np.concatenate(groups)) == list(range(40))
    for group in groups:
        assert len(group) == 1 or lengths[group].max() * len(group) <= most


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])  # ours: fused; not fused
def test_a_loss_that_is_not_a_number_stops_before_the_weights_change(
    vector_env: Callable, name: str, optimizer: type[torch.optim.Optimizer]
) -> None:
    model = make(name, vector_env, policy_kwargs={"optimizer_class": optimizer}, learning_rate=1e-3)
    model.learn(200)
    seen: list[list[torch.Tensor]] = []
    loss_of = model.loss

    def poisoned(*args: object) -> object:
        seen.append([p.detach().clone() for p in model.policy.parameters()])
        loss = loss_of(*args)
        if len(seen) < 3:
            return loss
        return loss * torch.nan if name == "DQN" else loss._replace(total=loss.total * torch.nan)

    model.loss = poisoned
    state = model.policy.optimizer.state_dict
    with pytest.raises(FloatingPointError, match="minibatch 3 of this update has loss nan.*Lower learning_rate"):
        model.learn(400, reset_num_timesteps=False)
    assert not torch.equal(seen[2][0], seen[1][0])
    for before, now in zip(seen[2], model.policy.parameters(), strict=True):
        assert torch.equal(before, now)
    for moments in state()["state"].values():
        assert all(torch.as_tensor(value).isfinite().all() for value in moments.values() if value is not None)


def test_a_gradient_that_is_not_finite_stops_as_well() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    update = Update(torch.optim.Adam([weight], fused=True), 1.0)
    for number in range(3):
        torch.nn.init.zeros_(weight)
        update.optimizer.zero_grad()
        loss = (weight.sqrt() if number == 1 else weight).sum()  # the root's gradient is infinite at 0
        loss.backward()
        update.step(loss.detach())
    with pytest.raises(FloatingPointError, match="minibatch 2 "):
        update.check()
    assert torch.equal(weight, torch.zeros(2))


class ArrayMemoryError(MemoryError):
    """Like numpy's own, not made of a message."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(shape, dtype)


@pytest.mark.parametrize("phase", ["train", "collect_rollouts"])
@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("can't allocate memory"),
        ArrayMemoryError((2**40,), "float32"),
    ],
)
def test_out_of_memory_says_what_to_lower(
    vector_env: Callable, name: str, phase: str, error: RuntimeError | MemoryError
) -> None:
    model = make(name, vector_env)

    def fail(*args: object, **keywords: object) -> None:
        raise error

    if phase == "train":
        model.loss = fail
    else:
        model.policy.cached = fail
    expected = MemoryError if isinstance(error, MemoryError) else type(error)
    with pytest.raises(expected, match="out of memory.*micro_batch_size.*gradient_checkpointing.*environments"):
        model.learn(200)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="^mat1 and mat2"), memory_advice():
        raise RuntimeError("mat1 and mat2")


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_a_micro_batch_holds_a_token(vector_env: Callable, name: str) -> None:
    with pytest.raises(ValueError, match="micro_batch_size=0; give at least 1"):
        make(name, vector_env, micro_batch_size=0)
