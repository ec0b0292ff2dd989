"""Checkpoints: adapters without their base, and errors for what cannot be loaded."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from agents import DQN, GRPO, PPO, BehaviourCloning, BestOfN
from agents.checkpoint import FORMAT_VERSION, CheckpointError

LLAMA = LlamaConfig(vocab_size=7, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
ALGORITHMS = {"PPO": PPO, "DQN": DQN, "GRPO": GRPO}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    wide = {**LLAMA.to_dict(), "intermediate_size": 2048}  # so that a base in a checkpoint is seen in its size
    AutoModelForCausalLM.from_config(LlamaConfig(**wide)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def make(name: str, vector_env: Callable, model: object, **keywords: object) -> PPO | DQN | GRPO:
    common = {"seed": 0, "device": "cpu", "policy_kwargs": {"model": model, "lora": 2}, **keywords}
    if name == "DQN":
        return DQN("TransformerQPolicy", vector_env(4), learning_starts=20, **common)
    if name == "GRPO":
        return GRPO("TransformerPolicy", vector_env(4), n_steps=20, group_size=2, **common)
    return PPO("TransformerPolicy", vector_env(4), n_steps=16, **common)


@pytest.mark.parametrize("reference", [None, "initial", "folder"])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_lora_checkpoint_names_its_base(
    tmp_path: Path, folder: Path, vector_env: Callable, name: str, reference: str | None
) -> None:
    keywords: dict = {}
    if reference is not None:
        keywords = {"reference": str(folder) if reference == "folder" else reference}
        keywords |= {"exploration": "reference"} if name == "DQN" else {"kl_coef": 0.1}
    model = make(name, vector_env, folder, **keywords)
    model.learn(100)
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 0.5 * (folder / "model.safetensors").stat().st_size
    loaded = ALGORITHMS[name].load(tmp_path / "model", env=vector_env(4), device="cpu")
    observations = vector_env(16).reset(seed=4)[0]
    with torch.no_grad():
        obs = torch.as_tensor(observations)
        if name == "DQN":
            assert torch.equal(loaded.q_net(obs), model.q_net(obs))
            assert torch.equal(loaded.q_net_target(obs), model.q_net_target(obs))
        else:
            ours, theirs = (m.policy.get_distribution(obs).distribution.logits for m in (model, loaded))
            assert torch.equal(ours, theirs)
        if reference is not None:
            assert torch.equal(
                loaded.reference_policy.step_log_probs(obs), model.reference_policy.step_log_probs(obs)
            )
    loaded.learn(20, reset_num_timesteps=False)
    loaded.policy.save_pretrained(str(tmp_path / "merged"))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    backbone, ids = loaded.policy.backbone, torch.as_tensor(observations[:, :1])
    with torch.no_grad():
        expected = backbone.scores(backbone.hidden(ids))
        torch.testing.assert_close(merged(ids).logits, expected, rtol=0, atol=1e-5)


def test_a_policy_alone_is_saved_the_same_way(tmp_path: Path, folder: Path, vector_env: Callable) -> None:
    model = make("PPO", vector_env, folder)
    model.policy.save(tmp_path / "policy.pth")
    assert (tmp_path / "policy.pth").stat().st_size < 0.25 * (folder / "model.safetensors").stat().st_size
    loaded = type(model.policy).load(tmp_path / "policy.pth", device="cpu")
    observations = vector_env(16).reset(seed=4)[0]
    ours, theirs = (p.predict(observations, deterministic=True)[0] for p in (model.policy, loaded))
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_base_that_changed_or_moved_is_named(
    tmp_path: Path, folder: Path, vector_env: Callable, name: str
) -> None:
    model, algorithm = make(name, vector_env, folder), ALGORITHMS[name]
    model.save(tmp_path / "model.zip")
    shutil.move(folder, tmp_path / "moved")
    with pytest.raises(CheckpointError, match="names a base model that cannot be loaded.*custom_objects"):
        algorithm.load(tmp_path / "model.zip")
    where = {"policy_kwargs": {"model": tmp_path / "moved", "lora": 2}}
    loaded = algorithm.load(tmp_path / "model.zip", device="cpu", custom_objects=where)
    assert loaded.policy.backbone.source == str(tmp_path / "moved")
    AutoModelForCausalLM.from_config(LLAMA).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="has changed: its weights' SHA-256 is"):
        algorithm.load(tmp_path / "model.zip", device="cpu")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_truncated_stream_is_named(vector_env: Callable, keep: float) -> None:
    stream = io.BytesIO()
    model = make("PPO", vector_env, LLAMA)
    model.save(stream)
    stream.seek(3)
    PPO.load(stream, device="cpu")  # wherever it stands
    data = stream.getvalue()
    with pytest.raises(CheckpointError, match="BytesIO.*truncated"):
        PPO.load(io.BytesIO(data[: int(keep * len(data))]))


def test_a_damaged_stream_is_named(vector_env: Callable) -> None:
    stream = io.BytesIO()
    make("PPO", vector_env, LLAMA).save(stream)
    data = bytearray(stream.getvalue())
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(CheckpointError, match="damaged"):
        PPO.load(io.BytesIO(data))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_another_algorithms_checkpoint_is_named(tmp_path: Path, vector_env: Callable, name: str) -> None:
    make(name, vector_env, LLAMA).save(tmp_path / "model")
    for other in ALGORITHMS.keys() - {name}:
        message = rf"no checkpoint of agents\.{other}: agents\.{name} wrote it; use {name}\.load"
        with pytest.raises(CheckpointError, match=message):
            ALGORITHMS[other].load(tmp_path / "model")


class Mine(PPO):
    """A user's subclass."""


def test_a_subclass_is_its_base(tmp_path: Path, vector_env: Callable) -> None:
    Mine("TransformerPolicy", vector_env(2), device="cpu").save(tmp_path / "mine")
    assert type(PPO.load(tmp_path / "mine", device="cpu")) is PPO
    assert type(Mine.load(tmp_path / "mine", device="cpu")) is Mine


def rewrite(path: Path, change: Callable[[dict], object]) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(parts["data"])
    change(data)
    parts["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda data: data["checkpoint_format"].update(version=FORMAT_VERSION + 1),
            f"has format {FORMAT_VERSION + 1}, this version of agents reads up to {FORMAT_VERSION}",
        ),
        (lambda data: data.pop("policy_class"), r"no checkpoint of agents\.PPO .*versions.*Stable-Baselines3: 2"),
        (lambda data: data.pop("observation_space"), r"no checkpoint of agents\.PPO \(KeyError"),
    ],
)
def test_another_versions_checkpoint_is_named(
    tmp_path: Path, vector_env: Callable, change: Callable[[dict], object], message: str
) -> None:
    path = tmp_path / "model.zip"
    make("PPO", vector_env, LLAMA).save(path)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        PPO.load(path)


def changed(algorithm: type, path: Path, vector_env: Callable, **keywords: object) -> Any:
    return algorithm.load(path, env=vector_env(4), device="cpu", **keywords)


def test_dqn_learns_with_what_load_was_told(tmp_path: Path, vector_env: Callable) -> None:
    model = DQN("TransformerQPolicy", vector_env(4), learning_starts=20, seed=0, device="cpu").learn(100)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    loaded = changed(DQN, tmp_path / "model", vector_env, gamma=0.5, n_steps=3, micro_batch_size=40)
    buffer = loaded.replay_buffer
    assert (buffer.gamma, buffer.n_steps, buffer.max_tokens) == (0.5, 3, 40)
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    buffer = loaded.replay_buffer
    assert (buffer.gamma, buffer.n_steps, buffer.max_tokens) == (0.5, 3, 40) and buffer.episodes
    loaded.gamma = 0.25
    loaded.learn(64)
    assert buffer.gamma == 0.25
    loaded.save(tmp_path / "again")
    assert DQN.load(tmp_path / "again", device="cpu").replay_buffer.n_steps == 3


def test_ppo_charges_what_load_was_told(tmp_path: Path, vector_env: Callable) -> None:
    PPO("TransformerPolicy", vector_env(4), n_steps=16, reference="initial", kl_coef=0.1, device="cpu").save(
        tmp_path / "model"
    )
    loaded = changed(PPO, tmp_path / "model", vector_env, kl_coef=0.7, kl_target=5.0, kl_horizon=10.0)
    assert (loaded.kl.value, loaded.kl.target, loaded.kl.horizon) == (0.7, 5.0, 10.0)
    loaded.save(tmp_path / "again")
    assert PPO.load(tmp_path / "again", device="cpu").kl.target == 5.0
    with pytest.raises(ValueError, match="kl_coef=-1 is a price"):
        changed(PPO, tmp_path / "model", vector_env, kl_coef=-1)


def test_groups_are_as_load_was_told(tmp_path: Path, vector_env: Callable) -> None:
    BestOfN("TransformerPolicy", vector_env(4), n=2, device="cpu").save(tmp_path / "best")
    best = changed(BestOfN, tmp_path / "best", vector_env, n=4)
    assert (best.n, best.rollout_buffer.group_size) == (4, 4)
    best.learn(64)
    GRPO("TransformerPolicy", vector_env(4), group_size=2, device="cpu").save(tmp_path / "grpo")
    loaded = changed(GRPO, tmp_path / "grpo", vector_env, group_size=4, advantage="rloo")
    assert (loaded.rollout_buffer.group_size, loaded.rollout_buffer.advantage) == (4, "rloo")
    with pytest.raises(ValueError, match="advantage='gae'; choose from"):
        changed(GRPO, tmp_path / "grpo", vector_env, advantage="gae")
    BehaviourCloning("TransformerPolicy", vector_env(4), device="cpu").save(tmp_path / "cloned")
    assert changed(BehaviourCloning, tmp_path / "cloned", vector_env, heldout=3).rollout_buffer.n_heldout == 3


@pytest.mark.parametrize("before", [None, "initial"])
def test_a_reference_given_to_load_stays(tmp_path: Path, vector_env: Callable, before: str | None) -> None:
    model = PPO("TransformerPolicy", vector_env(4), n_steps=16, reference=before, seed=0, device="cpu").learn(64)
    model.save(tmp_path / "model")
    other = PPO("TransformerPolicy", vector_env(4), seed=5, device="cpu")
    obs = torch.as_tensor(vector_env(8).reset(seed=4)[0])
    loaded = changed(PPO, tmp_path / "model", vector_env, reference=other.policy, kl_coef=0.1)
    loaded.learn(64).save(tmp_path / "again")
    again = PPO.load(tmp_path / "again", device="cpu")
    initial = changed(PPO, tmp_path / "model", vector_env, reference="initial")
    with torch.no_grad():  # "initial" is the policy as loaded, not as it began
        for agent, kept in ((loaded, other), (again, other), (initial, model)):
            expected = kept.policy.get_distribution(obs).distribution.logits
            torch.testing.assert_close(agent.reference_policy.step_log_probs(obs), expected)
    assert changed(PPO, tmp_path / "model", vector_env, reference=None).reference_policy is None


def test_a_keyword_that_nothing_reads_is_refused(tmp_path: Path, vector_env: Callable) -> None:
    PPO("TransformerPolicy", vector_env(4), device="cpu").save(tmp_path / "model")
    for wrong in ({"gama": 0.5}, {"stats_window_size": 3}, {"policy": "TransformerPolicy"}):
        with pytest.raises(TypeError, match=f"PPO.load takes no {next(iter(wrong))}"):
            changed(PPO, tmp_path / "model", vector_env, **wrong)
    BestOfN("TransformerPolicy", vector_env(4), n=2, device="cpu").save(tmp_path / "best")
    with pytest.raises(TypeError, match="BestOfN.load takes no reference"):
        changed(BestOfN, tmp_path / "best", vector_env, reference="initial")
    with pytest.raises(ValueError, match="replay_buffer_kwargs holds gamma=0.9; give that to the algorithm"):
        DQN("TransformerQPolicy", vector_env(4), replay_buffer_kwargs={"gamma": 0.9}, device="cpu")


def test_the_first_checkpoints_are_read(tmp_path: Path, vector_env: Callable) -> None:
    """They kept what buffers are told in the keywords of the buffers alone."""
    keywords = {"seed": 0, "device": "cpu"}
    dqn = DQN("TransformerQPolicy", vector_env(4), n_steps=3, **keywords)
    dqn.n_steps, dqn.replay_buffer_kwargs = 1, {"seed": 0, "gamma": 1.0, "n_steps": 3}
    grpo = GRPO("TransformerPolicy", vector_env(4), group_size=2, **keywords)
    grpo.rollout_buffer_kwargs = {"seed": 0, "group_size": 2, "advantage": "rloo"}
    cloned = BehaviourCloning("TransformerPolicy", vector_env(4), **keywords)
    cloned.rollout_buffer_kwargs = {"seed": 0, "heldout": 3}
    del grpo.advantage, cloned.heldout
    for model in (dqn, grpo, cloned):
        model.save(tmp_path / type(model).__name__)
    assert changed(DQN, tmp_path / "DQN", vector_env).replay_buffer.n_steps == 3
    assert changed(GRPO, tmp_path / "GRPO", vector_env).rollout_buffer.advantage == "rloo"
    assert changed(BehaviourCloning, tmp_path / "BehaviourCloning", vector_env).rollout_buffer.n_heldout == 3


def test_a_new_seed_begins_new_draws(tmp_path: Path, vector_env: Callable) -> None:
    model = GRPO("TransformerPolicy", vector_env(4), n_steps=16, group_size=2, seed=0, device="cpu")
    model.learn(128).save(tmp_path / "model")
    loaded = changed(GRPO, tmp_path / "model", vector_env, seed=7)
    assert loaded.rng.random() == np.random.default_rng(7).random()
    assert loaded.rollout_buffer.rng.random() == np.random.default_rng(7).random()


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_a_lack_of_memory_is_no_bad_checkpoint(
    tmp_path: Path, vector_env: Callable, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    PPO("TransformerPolicy", vector_env(4), device="cpu").save(tmp_path / "model")

    def fail(*args: object, **keywords: object) -> None:
        raise error

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", fail)
    with pytest.raises(type(error), match=str(error)):
        PPO.load(tmp_path / "model", device="cpu")
