"""Exported folders are what transformers loads."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, GPT2Config, pipeline

import agents
from agents.export import fast_tokenizer

CHARACTERS = SimpleNamespace(vocabulary=list("abcdef") + ["<end>"], unit="character", end_token_id=6)
WORDS = SimpleNamespace(vocabulary=["a", "fine", "film.", "<end>"], unit="word", end_token_id=3)
BYTES = SimpleNamespace(vocabulary=[f"<0x{byte:02X}>" for byte in range(256)], unit="byte", end_token_id=None)


@pytest.mark.parametrize(
    ("tokenizer", "text", "ids"),
    [
        (CHARACTERS, "fabc", [5, 0, 1, 2]),
        (WORDS, "a film. fine", [0, 2, 1]),
        (BYTES, "a é\n€", list("a é\n€".encode())),
    ],
)
def test_fast_tokenizers_keep_the_ids(
    tmp_path: Path, tokenizer: SimpleNamespace, text: str, ids: list[int]
) -> None:
    fast_tokenizer(tokenizer).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.encode(text) == ids and loaded.decode(ids) == text
    assert loaded.eos_token_id == tokenizer.end_token_id and len(loaded) == len(tokenizer.vocabulary)


def test_other_units_are_refused() -> None:
    with pytest.raises(ValueError, match="unit='syllable'"):
        fast_tokenizer(SimpleNamespace(vocabulary=["a"], unit="syllable", end_token_id=None))


def test_a_pipeline_says_what_the_policy_says(tmp_path: Path, vector_env: Callable) -> None:
    model = agents.PPO("TransformerPolicy", vector_env(16), seed=0, device="cpu")
    model.learn(8000)
    model.policy.save_pretrained(str(tmp_path), CHARACTERS)
    generate = pipeline("text-generation", str(tmp_path))
    said = generate("cab", max_new_tokens=4, do_sample=False, return_full_text=False)[0]["generated_text"]
    context, expected = [2, 0, 1], ""
    for _ in range(4):
        padded = context + [7] * (14 - len(context))
        context.append(int(model.predict(padded, deterministic=True)[0]))
        if context[-1] == CHARACTERS.end_token_id:
            break
        expected += CHARACTERS.vocabulary[context[-1]]
    assert said == expected


def test_a_model_or_reference_with_another_tokenizer_is_refused(
    tmp_path: Path, vector_env: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = agents.PPO("TransformerPolicy", vector_env(2), device="cpu")
    letters = SimpleNamespace(vocabulary=list("zyxwvu") + ["<end>"], unit="character", end_token_id=6)
    for name, tokenizer in (("same", CHARACTERS), ("other", letters), ("none", None)):
        model.policy.save_pretrained(str(tmp_path / name), tokenizer)
    env = vector_env(2)
    keywords = {"kl_coef": 0.1, "device": "cpu"}
    agents.PPO("TransformerPolicy", env, reference=tmp_path / "other", **keywords)  # which shows no tokenizer
    for environment in env.envs:
        environment.tokenizer = CHARACTERS
    for name in ("same", "none"):
        agents.PPO("TransformerPolicy", env, reference=str(tmp_path / name), **keywords)
    with pytest.raises(ValueError, match="has 5 outputs but the environment has 7 actions"):
        agents.PPO("TransformerPolicy", env, reference=GPT2Config(vocab_size=5), **keywords)
    message = (
        "other has another tokenizer than the environment: 6 of 7 ids differ, for example 0 is 'z' there and 'a'"
    )
    with pytest.raises(ValueError, match=message):
        agents.PPO("TransformerPolicy", env, reference=tmp_path / "other", **keywords)
    for name in ("same", "none"):
        agents.PPO("TransformerPolicy", env, policy_kwargs={"model": tmp_path / name}, device="cpu")
    other = {"policy_kwargs": {"model": str(tmp_path / "other")}, "device": "cpu"}
    for algorithm, policy in ((agents.PPO, "TransformerPolicy"), (agents.DQN, "TransformerQPolicy")):
        with pytest.raises(ValueError, match=message):
            algorithm(policy, env, **other)
    for environment in env.envs:
        environment.tokenizer = SimpleNamespace(encode=None)  # one of a user's own, which tells no vocabulary
    agents.PPO("TransformerPolicy", env, **other)
