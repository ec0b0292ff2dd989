"""Warm start: tokenizers round-trip, models learn what is there, killed runs end like those that were not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from agents import PPO
from agents.checkpoint import CheckpointError
from agents.corpus import encode, read_corpus, split
from agents.fitting import Run, Schedule
from agents.warm_start import clone, pretrain, small_config, train_tokenizer, unigram_loss

WORDS = "the cat sat on a mat and saw it all the way to the sea".split()
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 12)) + "." for i in range(1, 200)]
TINY = GPT2Config(vocab_size=300, n_positions=16, n_embd=16, n_layer=1, n_head=2)
SHORT = {
    "model": TINY,
    "context_length": 16,
    "steps": 12,
    "batch_size": 64,
    "eval_interval": 4,
    "device": "cpu",
    "progress_bar": False,
}


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return train_tokenizer(TEXTS, 300, progress_bar=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


# Tokenizer.


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_decodes_to_itself(tokenizer: object, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_tokenizer_learns_merges_and_ends(tokenizer: object) -> None:
    assert 257 < len(tokenizer) <= 300
    assert len(tokenizer.encode("the cat sat")) < len("the cat sat") / 2
    assert tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""


def test_a_trained_tokenizer_is_loaded_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train_tokenizer(TEXTS, 300, tmp_path, progress_bar=False)
    with pytest.raises(ValueError, match="holds a tokenizer of .*give another folder"):
        train_tokenizer(TEXTS, 290, tmp_path, progress_bar=False)
    monkeypatch.delattr("agents.corpus.trainers.BpeTrainer")
    again = train_tokenizer(TEXTS, 300, tmp_path)
    assert again.get_vocab() == first.get_vocab() and again.eos_token == first.eos_token
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged .*delete it"):
        train_tokenizer(TEXTS, 300, tmp_path)
    (tmp_path / "tokenizer_training.json").unlink()
    with pytest.raises(ValueError, match="not trained here"):
        train_tokenizer(TEXTS, 300, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((TEXTS, 256), ValueError, "vocab_size=256; .* at least 257"),
        (([],), ValueError, "the corpus holds no text"),
        (([" ", "\n"],), ValueError, "the corpus holds no text"),
        ((["a", 3],), TypeError, "text 1 of the corpus is 3, a int"),
        (("no such file",), FileNotFoundError, "corpus='no such file' is no file"),
    ],
)
def test_a_corpus_that_is_none_is_refused(arguments: tuple, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        train_tokenizer(*arguments, progress_bar=False)


def test_a_file_is_read_by_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("first line\nsecond line\n\n \n\nanother ä\n", encoding="utf-8")
    assert read_corpus(path) == read_corpus(str(path)) == ["first line\nsecond line", "another ä\n"]
    path.write_text("\n\n")
    with pytest.raises(ValueError, match=r"corpus\.txt holds no text"):
        read_corpus(path)


# Data.


def test_an_end_token_written_in_a_text_is_text(tokenizer: object) -> None:
    [ids] = encode(tokenizer, ["say <|endoftext|> now"], tokenizer.eos_token_id)
    assert (ids == tokenizer.eos_token_id).sum() == 1 and ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("count", [1, 3, 40])
def test_held_out_tokens_are_apart_and_about_as_many_as_asked_for(count: int) -> None:
    texts = [np.full(10 + i % 5, i) for i in range(count)]
    train, heldout = split(texts, 0.1, np.random.default_rng(0))
    whole = np.concatenate(texts)
    assert sorted([*train, *heldout]) == sorted(whole)
    assert 0.05 * len(whole) < len(heldout) < 0.2 * len(whole) + 1
    if count == 40:
        assert not set(train) & set(heldout)


def test_the_unigram_loss_is_that_of_a_loop() -> None:
    train, heldout = np.array([0, 0, 1, 2]), np.array([0, 3, 1])
    expected = -np.mean([np.log((list(train).count(t) + 1) / (4 + 5)) for t in heldout])
    assert unigram_loss(train, heldout, 5) == pytest.approx(expected)


# Pretraining.


def test_pretraining_learns_more_than_frequencies(tokenizer: object, tmp_path: Path) -> None:
    fitted = pretrain(
        TEXTS,
        tokenizer,
        tmp_path / "model",
        model=GPT2Config(vocab_size=300, n_positions=16, n_embd=32, n_layer=1, n_head=2),
        context_length=16,
        steps=250,
        batch_size=256,
        learning_rate=1e-2,
        device="cpu",
        progress_bar=False,
    )
    assert fitted.heldout_loss < 0.6 * fitted.unigram_loss
    assert [step for step, _, _ in fitted.history] == [100, 200, 250] and fitted.steps == 250
    assert not (tmp_path / "model" / "checkpoint").exists()
    model = AutoModelForCausalLM.from_pretrained(fitted.folder)
    loaded = AutoTokenizer.from_pretrained(fitted.folder)
    assert model.config.eos_token_id == loaded.eos_token_id == tokenizer.eos_token_id
    # transformers' own loss on held-out text, for the same model
    ids = torch.tensor([loaded.encode(TEXTS[0])[:16]])
    assert model(ids, labels=ids).loss.item() < 0.6 * fitted.unigram_loss


def test_the_losses_are_transformers_own(tokenizer: object, tmp_path: Path) -> None:
    fitted = pretrain(
        TEXTS[:1] * 40, tokenizer, tmp_path / "model", **{**SHORT, "steps": 1, "heldout_fraction": 0.04}
    )
    model = AutoModelForCausalLM.from_pretrained(fitted.folder)
    [ids] = encode(tokenizer, TEXTS[:1], tokenizer.eos_token_id)
    stream = torch.tensor(np.tile(ids, 2))  # two of 40 equal texts hold at least 4%
    terms = []
    for start in range(0, len(stream) - 1, 16):
        stretch = stream[None, start : start + 17]
        logits = model(stretch[:, :-1]).logits
        terms.append(torch.nn.functional.cross_entropy(logits[0], stretch[0, 1:], reduction="none"))
    assert fitted.heldout_loss == pytest.approx(torch.cat(terms).mean().item(), abs=1e-5)


def test_a_pretrained_folder_is_a_policys_model(tokenizer: object, token_env: type, tmp_path: Path) -> None:
    folder = pretrain(TEXTS, tokenizer, tmp_path / "model", **SHORT).folder
    env = token_env(vocab_size=len(tokenizer), length=14)
    model = PPO("TransformerPolicy", env, policy_kwargs={"model": str(folder)}, n_steps=16, device="cpu")
    for name, value in weights(folder).items():
        assert torch.equal(value, model.policy.backbone.model.state_dict()[name])
    model.learn(16)


def test_an_environments_own_tokenizer_will_do(tmp_path: Path) -> None:
    class Letters:  # what text_envs' CharacterTokenizer is
        vocabulary = [*"abc", "<end>"]
        vocab_size, end_token_id, unit = 4, 3, "character"

        def encode(self, text: str) -> list[int]:
            return ["abc".index(letter) for letter in text]

    fitted = pretrain(["abcabcabc"] * 100, Letters(), tmp_path / "model", **{**SHORT, "model": None})
    assert AutoTokenizer.from_pretrained(fitted.folder).encode("cab") == [2, 0, 1]
    assert AutoModelForCausalLM.from_pretrained(fitted.folder).config.eos_token_id == 3


@pytest.mark.parametrize("patience", [None, 2])
def test_a_run_that_was_broken_off_ends_like_one_that_was_not(
    tokenizer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int | None
) -> None:
    arguments = {**SHORT, "patience": patience, "learning_rate": 0.03}
    whole = pretrain(TEXTS, tokenizer, tmp_path / "whole", **arguments)
    save, saved = Run.save, []

    def stop_after_two(self: Run, state: dict) -> None:
        save(self, state)
        saved.append(state["step"])
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TEXTS, tokenizer, tmp_path / "parts", **arguments)
    parts = pretrain(TEXTS, tokenizer, tmp_path / "parts", **arguments)
    assert saved == [4, 8, 12]
    assert (parts.history, parts.steps, parts.heldout_loss) == (whole.history, whole.steps, whole.heldout_loss)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = pretrain(TEXTS, tokenizer, tmp_path / "parts", **arguments)  # finished: nothing is trained
    assert again == parts and saved == [4, 8, 12]


KILLED = """
import json, sys, time
import torch
torch.set_num_threads(1)
from agents.fitting import Run
from agents.warm_start import pretrain, train_tokenizer
from transformers import AutoConfig
save = Run.save
Run.save = lambda self, state: (save(self, state), time.sleep(0.1))  # so that the signal finds it at work
folder, (texts, arguments) = sys.argv[1], json.loads(sys.argv[2])
tokenizer = train_tokenizer(texts, 300, f"{folder}/tokenizer", progress_bar=False)
pretrain(texts, tokenizer, f"{folder}/killed", model=AutoConfig.from_pretrained(f"{folder}/config"), **arguments)
"""


def test_a_run_killed_with_signal_9_goes_on(tokenizer: object, tmp_path: Path) -> None:
    config = tmp_path / "config"
    TINY.save_pretrained(config)
    arguments = {**SHORT, "steps": 60, "eval_interval": 5}
    passed = json.dumps([TEXTS, {name: value for name, value in arguments.items() if name != "model"}])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), passed], env=environment)
    state = tmp_path / "killed" / "checkpoint" / "state.pt"
    while not state.exists():
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "training.json").exists()
    theirs = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert theirs.get_vocab() == tokenizer.get_vocab()  # whatever the process hashes
    killed = pretrain(TEXTS, theirs, tmp_path / "killed", **arguments)
    whole = pretrain(TEXTS, tokenizer, tmp_path / "whole", **arguments)
    assert killed.history == whole.history
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_and_global_generators(tokenizer: object, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    folders = [pretrain(TEXTS, tokenizer, tmp_path / str(i), seed=i % 2, **SHORT).folder for i in range(3)]
    first, other, again = map(weights, folders)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_early_stopping_takes_the_best_weights_back(tokenizer: object, tmp_path: Path) -> None:
    few = TEXTS[:12]  # overfits at once
    arguments = {**SHORT, "steps": 400, "learning_rate": 0.03, "heldout_fraction": 0.3, "batch_size": 32}
    stopped = pretrain(few, tokenizer, tmp_path / "stopped", patience=3, **arguments)
    losses = [heldout for _, _, heldout in stopped.history]
    assert stopped.steps < 400
    assert stopped.heldout_loss == min(losses) < losses[-1]
    best = stopped.history[int(np.argmin(losses))][0]
    assert best == stopped.steps - 3 * 4
    kept = pretrain(few, tokenizer, tmp_path / "kept", **{**arguments, "steps": 400, "patience": 1000})
    assert kept.heldout_loss <= stopped.heldout_loss


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": 10**6}, "fewer than a batch of 1000000; give more text"),
        (
            {"model": GPT2Config(vocab_size=280, n_positions=16, n_embd=16, n_layer=1, n_head=1)},
            "only 280; train a tokenizer",
        ),
        ({"context_length": 17, "batch_size": 170}, "16 positions"),
        ({"steps": 0}, "steps=0; give at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan; give a positive"),
        ({"heldout_fraction": 1.0}, r"heldout_fraction=1\.0"),
        ({"batch_size": 15}, "batch_size=15 tokens with context_length=16"),
    ],
)
def test_impossible_arguments_are_refused(tokenizer: object, tmp_path: Path, keywords: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(TEXTS, tokenizer, tmp_path / "model", **{**SHORT, **keywords})
    assert not (tmp_path / "model").exists()


def test_what_is_in_the_folder_is_not_harmed(tokenizer: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    pretrain(TEXTS, tokenizer, folder, **SHORT)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="other settings: steps=12 there and 13 here; give another folder"):
        pretrain(TEXTS, tokenizer, folder, **{**SHORT, "steps": 13})
    with pytest.raises(ValueError, match="other settings: corpus="):
        pretrain(TEXTS[1:], tokenizer, folder, **SHORT)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "training.json").write_text(json.dumps({"steps": 3}))
    with pytest.raises(CheckpointError, match=r"training\.json is damaged .*delete .* to begin again"):
        pretrain(TEXTS, tokenizer, folder, **SHORT)
    (folder / "training.json").unlink()
    with pytest.raises(FileExistsError, match="no run here made"):
        pretrain(TEXTS, tokenizer, folder, **SHORT)
    with pytest.raises(NotADirectoryError):
        pretrain(TEXTS, tokenizer, folder / "config.json", **SHORT)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_a_damaged_checkpoint_is_named(tokenizer: object, tmp_path: Path, damage: str) -> None:
    state = tmp_path / "model" / "checkpoint" / "state.pt"
    run = Run(tmp_path / "model", {})
    run.save({"model": {"weight": torch.zeros(1000)}})
    content = state.read_bytes()
    state.write_bytes({"truncated": content[: len(content) // 2], "foreign": b"hello" * 100, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged .*delete .*model to begin again"):
        pretrain(TEXTS, tokenizer, tmp_path / "model", **SHORT)


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(tokenizer: object, tmp_path: Path) -> None:
    arguments = {**SHORT, "learning_rate": 1e25, "warmup": 0.0, "max_grad_norm": 1e30}
    with pytest.raises(FloatingPointError, match=r"by step \d+ the training loss is .*lower learning_rate=1e\+25"):
        pretrain(TEXTS, tokenizer, tmp_path / "model", **arguments)
    assert not (tmp_path / "model" / "training.json").exists()


def test_the_schedule_rises_and_falls() -> None:
    schedule = Schedule(100, 2.0, 0.1, 0.0, 1.0, 10, None)
    rates = [schedule.at(step) for step in range(100)]
    assert np.argmax(rates) == 9 and rates[0] == pytest.approx(0.2) and rates[9] > 1.9
    assert rates[9:] == sorted(rates[9:], reverse=True) and 0 < rates[-1] < 0.01
    assert Schedule(100, 2.0, 0.0, 0.0, 1.0, 10, None).at(0) == 2.0


# Cloning.


def test_cloning_an_environments_demonstrations(vector_env: Callable, tmp_path: Path) -> None:
    arguments = {"episodes": 100, "steps": 80, "batch_size": 64, "device": "cpu", "progress_bar": False}
    fitted = clone(small_config(7, 14), vector_env(8), tmp_path / "model", **arguments)
    assert fitted.heldout_loss < 0.1 < fitted.unigram_loss
    model = AutoModelForCausalLM.from_pretrained(fitted.folder)
    assert model(torch.arange(1, 7)[:, None]).logits[:, -1].argmax(-1).tolist() == [2, 3, 4, 5, 6, 1]
    again = clone(small_config(7, 14), vector_env(8), tmp_path / "again", **arguments)
    assert again.history == fitted.history
    policy = PPO("TransformerPolicy", vector_env(2), policy_kwargs={"model": str(fitted.folder)}).policy
    obs = np.full((1, 14), 7)
    obs[0, 0] = 3
    assert policy.predict(obs, deterministic=True)[0] == 4


def test_cloning_pairs_goes_on_where_it_was_broken_off(
    tokenizer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(ids[:2].tolist(), ids[2:10].tolist()) for ids in encode(tokenizer, TEXTS, tokenizer.eos_token_id)]
    arguments = {
        "tokenizer": tokenizer,
        "steps": 12,
        "eval_interval": 4,
        "batch_size": 64,
        "device": "cpu",
        "progress_bar": False,
    }
    whole = clone(TINY, pairs, tmp_path / "whole", **arguments)
    with monkeypatch.context() as patch:
        patch.setattr("agents.warm_start.mean_loss", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            clone(TINY, iter(pairs), tmp_path / "parts", **arguments)
    parts = clone(TINY, iter(pairs), tmp_path / "parts", **arguments)
    assert parts.history == whole.history and whole.history[-1][2] < whole.history[0][2]
    assert AutoTokenizer.from_pretrained(parts.folder).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "there are no demonstrations"),
        ([([1], [2])], "1 demonstrations cannot be both"),
        ([([1], [400])] * 3, r"demonstration 0 holds the id 400, outside 0\.\.299"),
        ([([1] * 10, [2] * 10)] * 3, "20 tokens, more than the 16"),
    ],
)
def test_impossible_demonstrations_are_refused(tmp_path: Path, pairs: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clone(TINY, pairs, tmp_path / "model", device="cpu", progress_bar=False)
