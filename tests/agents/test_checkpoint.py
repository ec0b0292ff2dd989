"""Checkpoints: adapters without their base, and errors for what cannot be loaded."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from agents import DQN, GRPO, PPO
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
