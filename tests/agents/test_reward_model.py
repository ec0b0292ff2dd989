"""Reward models learn what is preferred, are saved as transformers loads them, and go on where they were killed."""

import copy
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    RobertaConfig,
)

from agents import TransformerPolicy
from agents.__main__ import main
from agents.checkpoint import CheckpointError
from agents.fitting import Run
from agents.preferences import Comparison
from agents.reward_model import RewardEnsemble, RewardModel, train_reward_model
from agents.reward_training import _Pairs
from agents.scorer import load_scorer, new_scorer

torch.set_num_threads(1)
LETTERS = "abcd"
TINY = GPT2Config(
    vocab_size=5, n_positions=12, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
)
QUICK: dict[str, Any] = {"device": "cpu", "progress_bar": False}
SHORT: dict[str, Any] = {**QUICK, "epochs": 2, "batch_size": 16, "eval_interval": 4}


class Letters:
    """An environment's tokenizer, as `export.fast_tokenizer` reads it."""

    vocabulary, vocab_size, end_token_id, unit = list(LETTERS), 4, None, "character"


def records(n: int = 300, ties: bool = False) -> list[dict[str, Any]]:
    """Return comparisons in which the completion with more of "a" is preferred."""
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    while len(made) < n:
        prompt, *said = ("".join(rng.choice(list(LETTERS), 4)) for _ in range(3))
        rejected, chosen = sorted(said, key=lambda text: text.count("a"))
        tie = rejected.count("a") == chosen.count("a")
        if ties or not tie:
            made.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "tie": tie})
    return made


def file_of(path: Path, made: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("reward") / "model"
    return train_reward_model(
        records(), folder, model=TINY, tokenizer=Letters(), epochs=8, learning_rate=1e-2, **QUICK
    )


def test_a_trivial_preference_is_learned(fitted: Any) -> None:
    reward = RewardModel(fitted.folder, device="cpu")
    assert fitted.heldout.accuracy > 0.9 and fitted.heldout.low <= fitted.heldout.accuracy <= fitted.heldout.high
    none, some, all_ = reward(["bcbc"] * 3, ["bbcd", "abda", "aaaa"], completion_ids=[[0]] * 3)
    assert none < some < all_
    assert fitted.history[-1][2] < fitted.history[0][2] and fitted.tie_threshold is None
    assert reward([], []) == []


def test_scores_are_those_of_transformers_whatever_the_batch(fitted: Any) -> None:
    reward = RewardModel(fitted.folder, device="cpu")
    network = AutoModelForSequenceClassification.from_pretrained(fitted.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(fitted.folder)
    texts = ["a", "abab", "dcba" * 3, "bb"]
    alone = [network(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]
    assert reward([""] * 4, texts) == pytest.approx(alone, abs=1e-5)
    assert reward(["", "ab", "dc", "b"], ["a", "ab", "ba" + "dcba" * 2, "b"]) == pytest.approx(alone, abs=1e-5)


def test_separator_stands_between_prompt_and_completion(fitted: Any) -> None:
    plain, apart = RewardModel(fitted.folder, device="cpu"), RewardModel(fitted.folder, separator="d", device="cpu")
    assert apart(["ab"], ["ca"]) == plain(["abd"], ["ca"])


def test_the_separator_of_the_training_is_remembered(tmp_path: Path) -> None:
    train_reward_model(records(60), tmp_path, model=TINY, tokenizer=Letters(), separator="d", **SHORT)
    noted, given, without = (
        RewardModel(tmp_path, separator=s, device="cpu")(["ab"], ["c"]) for s in (None, "d", "")
    )
    assert noted == given != without
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not say which separator"):
        RewardModel(tmp_path)


def test_it_is_shared_not_copied_and_pickled_without_weights(fitted: Any) -> None:
    reward = RewardModel(fitted.folder, device="cpu")
    assert copy.deepcopy(reward) is reward
    packed = pickle.dumps(reward)
    assert len(packed) < 2000
    assert pickle.loads(packed)(["ab"], ["a"]) == reward(["ab"], ["a"])


def test_ties_are_learned(tmp_path: Path) -> None:
    made = records(300, ties=True)
    assert 50 < sum(record["tie"] for record in made) < 200
    arguments = {**QUICK, "epochs": 8, "learning_rate": 1e-2}
    fitted = train_reward_model(made, tmp_path, model=TINY, tokenizer=Letters(), **arguments)
    assert fitted.heldout.accuracy > 0.9 and fitted.ties > 0 and fitted.tie_threshold > 0.3
    with pytest.raises(ValueError, match="all 2 held-out comparisons are ties"):
        train_reward_model(
            [r for r in made if not r["tie"]],
            tmp_path / "other",
            heldout=[r for r in made if r["tie"]][:2],
            **QUICK,
        )


@pytest.mark.parametrize("ties", [False, True])
def test_held_out_ties_or_their_absence_change_no_likelihood(tmp_path: Path, ties: bool) -> None:
    made = records(200, ties=True)
    train = [r for r in made[:150] if ties or not r["tie"]]
    held = [r for r in made[150:] if not (ties and r["tie"])]
    fitted = train_reward_model(train, tmp_path, heldout=held, model=TINY, tokenizer=Letters(), **SHORT)
    decided = [r for r in held if not r["tie"]]
    score = RewardModel(tmp_path, device="cpu")
    chosen, rejected = (
        np.array(score([r["prompt"] for r in decided], [r[side] for r in decided]))
        for side in ("chosen", "rejected")
    )
    margin = chosen - rejected - (fitted.tie_threshold or 0.0)
    assert fitted.heldout_loss == pytest.approx(np.logaddexp(0, -margin).mean(), abs=1e-5)
    assert (fitted.tie_threshold is not None) == ties and fitted.heldout.comparisons == len(decided)


@pytest.mark.parametrize("config", [
    TINY,
    LlamaConfig(vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16),
    BertConfig(vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16),
])  # fmt: skip
@pytest.mark.parametrize("options", [{}, {"lora": 2}, {"frozen": True}], ids=str)
def test_every_kind_of_model_is_trained_and_loaded(tmp_path: Path, config: Any, options: dict[str, Any]) -> None:
    before = new_scorer(config, Letters(), seed=0)
    train_reward_model(records(40), tmp_path, model=config, tokenizer=Letters(), **options, **SHORT)
    after = load_scorer(tmp_path)
    changed = {
        name for name, value in after.network.state_dict().items()
        if not torch.equal(value, before.network.state_dict()[name])
    }  # fmt: skip
    heads = {name for name in changed if name.startswith(("score", "classifier"))}
    assert heads and (changed == heads) == (options == {"frozen": True})
    assert before.network.state_dict().keys() == after.network.state_dict().keys()


def test_modules_that_lora_trains_whole_are_saved(tmp_path: Path) -> None:
    scorer = new_scorer(TINY, Letters())
    scorer.restrict(LoraConfig(r=2, target_modules=["c_attn"], modules_to_save=["ln_f"]), frozen=False)
    with torch.no_grad():
        for parameter in scorer.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    scorer.save(tmp_path)
    texts = ["abcd", "ddb"]
    assert load_scorer(tmp_path).score(texts) == pytest.approx(scorer.score(texts), rel=1e-4, abs=1e-4)


def test_what_is_loaded_scores_like_what_was_trained(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=20, pad_token_id=7,
    )  # fmt: skip
    scorer = new_scorer(config, Letters())  # whose token for padding is another
    assert scorer.tokenizer.pad_token_id == 4
    scorer.save(tmp_path)
    texts = ["abcd", "a", "bb"]
    assert load_scorer(tmp_path).score(texts) == pytest.approx(scorer.score(texts), abs=1e-6)


def test_a_head_on_a_policys_backbone(tmp_path: Path) -> None:
    from gymnasium import spaces

    seen, said = spaces.Box(0, 4, (12,), np.int64), spaces.Discrete(4)
    policy = TransformerPolicy(seen, said, lambda _: 1e-3, lora=2)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    scorer = new_scorer(policy, Letters())
    ids = torch.tensor([[0, 3, 1, 2]])
    hidden = scorer.network.base_model(ids).last_hidden_state
    torch.testing.assert_close(hidden, policy.backbone.hidden(ids), atol=1e-4, rtol=1e-4)
    policy.save_pretrained(str(tmp_path / "policy"), Letters())
    theirs = new_scorer(str(tmp_path / "policy"))  # the folder of a policy does as well
    torch.testing.assert_close(theirs.network.base_model(ids).last_hidden_state, hidden, atol=1e-4, rtol=1e-4)
    assert scorer.score(["ab", "d"]) and theirs.tokenizer.pad_token_id == 4


def test_padding_is_no_letter_so_that_texts_end_where_they_end() -> None:
    scorer = new_scorer(TINY, Letters())
    for text in ("a", "ba", "caa", LETTERS):
        assert scorer.score([text, LETTERS * 3])[0] == pytest.approx(scorer.score([text])[0], abs=1e-6)


def test_the_default_reads_any_text_and_is_the_same_for_a_seed(tmp_path: Path) -> None:
    made = [{**record, "prompt": record["prompt"] + "é\n<|endoftext|>猫"} for record in records(60)]
    before = torch.random.get_rng_state()
    fits = [train_reward_model(made, tmp_path / str(i), seed=i % 2, **SHORT) for i in range(3)]
    assert torch.equal(torch.random.get_rng_state(), before)
    one, other, again = (RewardModel(fit.folder, device="cpu")(["😀"], ["aa" * 200]) for fit in fits)
    assert one == again != other


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"model": TINY, "tokenizer": Letters(), **SHORT}
    whole = train_reward_model(records(), tmp_path / "whole", **arguments)
    save, saved = Run.save, []

    def stop_after_two(self: Run, state: dict) -> None:
        save(self, state)
        saved.append(state["step"])
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        train_reward_model(records(), tmp_path / "parts", **arguments)
    parts = train_reward_model(records(), tmp_path / "parts", **arguments)
    assert saved[:3] == [4, 8, 12]
    assert (parts.history, parts.heldout) == (whole.history, whole.heldout)
    files = [(tmp_path / part / "model.safetensors").read_bytes() for part in ("whole", "parts")]
    assert files[0] == files[1]
    count = len(saved)
    assert train_reward_model(records(), tmp_path / "parts", **arguments) == parts and len(saved) == count
    with pytest.raises(ValueError, match="other settings: .*batch_size=16 there and 8 here"):
        train_reward_model(records(), tmp_path / "parts", **{**arguments, "batch_size": 8})
    with pytest.raises(ValueError, match="other settings: .*comparisons="):
        train_reward_model(records()[1:], tmp_path / "parts", **arguments)


HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_processes_do_not_train_into_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out" / "checkpoint" / ".lock")]
    file = file_of(tmp_path / "some.jsonl", records(40))
    ours = ["reward-model", str(file), "--out", str(tmp_path / "out"), "--epochs", "1", "--device", "cpu"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        assert main(ours) == 2
        assert "another process is training into" in capsys.readouterr().err
        other.kill()
    assert main(ours) == 0 and not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.slow
def test_the_command_killed_with_signal_9_goes_on(tmp_path: Path) -> None:
    file = file_of(tmp_path / "some.jsonl", records(400))
    command = [sys.executable, "-m", "agents", "reward-model", str(file), "--batch-size", "4", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", str(tmp_path / "killed")], env=environment)
    while not (tmp_path / "killed" / "checkpoint" / "state.pt").exists():
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "training.json").exists()
    for name in ("killed", "whole"):
        subprocess.run([*command, "--out", str(tmp_path / name)], env=environment, check=True)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("killed", "whole"))
    assert one == other


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    arguments = {**SHORT, "learning_rate": 1e30, "max_grad_norm": 1e30}
    with pytest.raises(FloatingPointError, match=r"lower learning_rate=1e\+30"):
        train_reward_model(records(100), tmp_path / "nan", model=TINY, tokenizer=Letters(), **arguments)
    assert not (tmp_path / "nan" / "config.json").exists()


def test_damaged_and_foreign_folders_are_told(fitted: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder"):
        RewardModel(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no whole reward model"):
        RewardModel(tmp_path)
    foreign = {
        "causal": new_scorer(TINY, Letters()).network.base_model,  # no head
        "two": AutoModelForSequenceClassification.from_config(copy.deepcopy(TINY)),
    }
    for name, told in (("causal", "it lacks 'score.weight'"), ("two", "2 outputs, not one")):
        foreign[name].save_pretrained(tmp_path / name)
        new_scorer(TINY, Letters()).tokenizer.save_pretrained(tmp_path / name)
        with pytest.raises(CheckpointError, match=told):
            RewardModel(tmp_path / name)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        folder = tmp_path / f"damaged-{name}"
        folder.mkdir()
        for file in fitted.folder.iterdir():
            content = file.read_bytes()
            (folder / file.name).write_bytes(content[: len(content) // 2] if file.name == name else content)
        with pytest.raises(CheckpointError, match="no whole reward model"):
            RewardModel(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="no run here made"):
        train_reward_model(records(40), tmp_path / "mine", model=TINY, tokenizer=Letters(), **SHORT)


def test_texts_and_models_that_do_not_fit_are_told(fitted: Any, tmp_path: Path) -> None:
    reward = RewardModel(fitted.folder, device="cpu")
    with pytest.raises(ValueError, match="13 tokens, and GPT2ForSequenceClassification reads 12"):
        reward(["a"], ["b" * 12])
    with pytest.raises(ValueError, match="no tokens for 'xyz'"):
        reward(["a", ""], ["b", "xyz"])
    with pytest.raises(ValueError, match="none that begins or ends a text"):
        reward([""], [""])
    with pytest.raises(ValueError, match="has no tokenizer beside it; give tokenizer="):
        train_reward_model(records(40), tmp_path / "new", model=TINY, **SHORT)
    with pytest.raises(ValueError, match="5 tokens but GPT2ForSequenceClassification only 3"):
        new_scorer(GPT2Config(vocab_size=3, n_embd=8, n_layer=1, n_head=1), Letters())
    with pytest.raises(TypeError, match="model=3 is a int"):
        new_scorer(3, Letters())
    with pytest.raises(ValueError, match="epochs=0"):
        train_reward_model(records(40), tmp_path / "new", **{**SHORT, "epochs": 0})
    assert not (tmp_path / "new").exists()


def test_an_ensemble_is_the_mean_less_the_spread() -> None:
    def constant(*values: float) -> Any:
        return lambda prompts, completions, **columns: list(values)

    members = [constant(1.0, 0.0), constant(3.0, 0.0)]
    assert RewardEnsemble(members, 0.5)(["", ""], ["", ""]) == [1.5, 0.0]
    assert RewardEnsemble(members, 0.0)(["", ""], ["", ""]) == [2.0, 0.0]
    for wrong in (members[:1], []):
        with pytest.raises(ValueError, match="at least two members"):
            RewardEnsemble(wrong)
    with pytest.raises(ValueError, match="coefficient=-1"):
        RewardEnsemble(members, -1)


def test_losses_stay_on_the_device() -> None:
    scorer = new_scorer(TINY, Letters())
    pairs = _Pairs(scorer, [Comparison("a", "ab", "b"), Comparison("b", "cab", "b", True)], "", True)
    scorer.to("meta")
    loss = pairs.loss([0, 1], 0.1)
    loss.backward()
    assert loss.device.type == "meta" and scorer.raw_threshold.grad is not None


def test_the_command_trains_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path / "some.jsonl", records(80))
    command = ["reward-model", str(file), "--out", str(tmp_path / "model"), "--epochs", "1", "--device", "cpu"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert re.search(r"accuracy [01]\.", told) and "95%, over prompts" in told and "calibration error 0." in told
    assert len(RewardModel(tmp_path / "model", device="cpu")(["ab"], ["a"])) == 1
    assert main(command) == 0 and capsys.readouterr().out == told
    again = [*command[:3], str(tmp_path / "tuned"), *command[4:], "--model", str(tmp_path / "model")]
    others = file_of(tmp_path / "others.jsonl", records(100)[80:])
    assert main([*again, "--frozen", "--heldout", str(others)]) == 0
    assert "held out: 20 comparisons" in capsys.readouterr().out
    turned = {**records(1)[0], "tie": True}
    turned["chosen"], turned["rejected"] = turned["rejected"], turned["chosen"]
    file_of(others, [*records(100)[80:], turned])
    assert main([*again, "--heldout", str(others)]) == 2
    assert "1 of 21 held-out comparisons are trained on too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "options", "told"),
    [
        (['{"prompt": ""}'], [], "some.jsonl:1: there is no 'chosen'"),
        ([json.dumps(record) for record in records(20)], ["--lora", "2"], "--lora and --frozen need --model"),
        ([json.dumps(record) for record in records(20)], ["--epochs", "0"], "epochs=0"),
        ([json.dumps({**record, "prompt": ""}) for record in records(9)], [], "cannot be split"),
        (
            [json.dumps(record) for record in records(20)],
            ["--model", "path/to/none"],
            "model='path/to/none' does not exist",
        ),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], options: list[str], told: str
) -> None:
    (tmp_path / "some.jsonl").write_text("\n".join(lines))
    assert main(["reward-model", str(tmp_path / "some.jsonl"), "--out", str(tmp_path / "model"), *options]) == 2
    error = capsys.readouterr().err
    assert told in error and error.startswith("text-envs: error: ") and "Traceback" not in error
    assert not (tmp_path / "model").exists()
