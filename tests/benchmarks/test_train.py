import pytest

from benchmarks import __main__ as command
from benchmarks.errors import UserError
from benchmarks.train import parse_pairs

SMALL = ["--env", "vocab_size=3", "length=2", "--num-envs", "4", "--eval-episodes", "8", "--steps", "64"]


def test_values_are_literals_or_text():
    pairs = ["dense=True", "length=3", "prompts=my file.txt", "rate=1e-4", "words=['a', 'b']", "x=a=b", "n=None"]
    assert parse_pairs(pairs, "--env") == {
        "dense": True,
        "length": 3,
        "prompts": "my file.txt",
        "rate": 1e-4,
        "words": ["a", "b"],
        "x": "a=b",
        "n": None,
    }


@pytest.mark.parametrize("pair", ["dense", "=1", "a b=1"])
def test_what_is_no_pair_is_refused(pair):
    with pytest.raises(UserError, match="KEY=VALUE"):
        parse_pairs([pair], "--env")


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_short_training_is_told_and_saved(algorithm, tmp_path, capsys):
    arguments = ["train", "text_envs/Copy-v0", "--algo", algorithm, *SMALL, "--save", str(tmp_path / "saved")]
    extra = ["n_steps=8"] if algorithm == "ppo" else ["learning_starts=16"]
    assert command.main([*arguments, "--set", *extra, "batch_size=16"]) == 0
    out = capsys.readouterr().out
    assert "before mean return" in out and "after  mean return" in out and "normalised score" in out
    assert (tmp_path / "saved" / "agent.zip").exists() and (tmp_path / "saved" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text_envs/Cpoy-v0"], "Cpoy"),
        (["text_envs/Copy-v0", "--env", "lenght=3"], "lenght"),
        (["text_envs/Copy-v0", "--env", "length=0"], "0"),
        (["text_envs/Copy-v0", "--set", "learnign_rate=1"], "PPO takes no 'learnign_rate'"),
        (["text_envs/Copy-v0", "--algo", "dqn", "--kl-coef", "1"], "DQN takes no 'kl_coef'"),
        (["text_envs/Copy-v0", "--kl-coef", "0.1"], "needs a reference"),
        (["text_envs/Sentiment-v0", "--env", "prompts=absent.txt"], "absent.txt"),
        (["text_envs/Copy-v0", "--model", "./no/such/folder"], "./no/such/folder"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert command.main(["train", *arguments, "--steps", "64"]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
