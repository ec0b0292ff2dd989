import os
import signal

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from agents import PPO
from benchmarks import __main__ as command
from benchmarks import train
from benchmarks.errors import UserError
from benchmarks.train import parse_pairs, prepare_folder

SMALL = ["--env", "vocab_size=3", "length=2", "--num-envs", "4", "--eval-episodes", "8", "--steps", "64"]


def test_values_are_literals_or_text():
    pairs = ["dense=True", "length=3", "prompts=my file.txt", "rate=1e-4", "words=['a', 'b']", "x=a=b", "n=None"]
    pairs += ["no=false", "yes=TRUE", "odd={[]: 1}"]
    assert parse_pairs(pairs, "--env") == {
        "dense": True,
        "length": 3,
        "prompts": "my file.txt",
        "rate": 1e-4,
        "words": ["a", "b"],
        "x": "a=b",
        "n": None,
        "no": False,
        "yes": True,
        "odd": "{[]: 1}",
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
        (["text_envs/Copy-v0", "--env", "level=utterance"], "the token level is what is trained"),
        (["text_envs/Copy-v0", "--env", "num_envs=3"], "--env num_envs=3: use --num-envs"),
        (["text_envs/Copy-v0", "--env", "autoreset_mode=NextStep"], "leave it out"),
        (["text_envs/Copy-v0", "--set", "device=cpu"], "--set device=cpu: use --device"),
        (["text_envs/Copy-v0", "--set", "seed=1"], "use --seed"),
        (["text_envs/Copy-v0", "--set", "batch_size=0"], "batch_size"),
        (["text_envs/Copy-v0", "--set", "n_steps=0"], "n_steps"),
        (["text_envs/Copy-v0", "--set", "learning_rate=abc"], "learning_rate=abc: PPO wants float"),
        (["text_envs/Copy-v0", "--algo", "dqn", "--set", "gamma=abc"], "gamma=abc: DQN wants float"),
        (["text_envs/Copy-v0", "--device", "banana"], "--device banana"),
        (["text_envs/Copy-v0", "--lora", "2"], "--lora 2 needs --model"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert command.main(["train", *arguments, "--steps", "64"]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("value", ["1.5", "many", "0", "-3"])
def test_a_count_that_is_none_is_shown(value, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["train", "text_envs/Copy-v0", "--steps", value])
    assert f"{value!r} is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_episode_has_no_standard_error(capsys):
    arguments = ["--eval-episodes", "1", "--num-envs", "2", "--steps", "8", "--set", "n_steps=4"]
    assert command.main(["train", "text_envs/Copy-v0", *arguments]) == 0
    out = capsys.readouterr().out
    assert "(1 episode)" in out and "nan" not in out


@pytest.fixture
def untrained(monkeypatch):
    """Training fails the test: what is told must be told before."""
    monkeypatch.setattr(PPO, "learn", lambda *_, **__: pytest.fail("it was trained"))


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/absent"])
def test_a_folder_that_cannot_be_written_is_told_before_the_training(where, untrained, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert command.main(["train", "text_envs/Copy-v0", *SMALL, "--save", str(tmp_path / where)]) == 2
    out, error = capsys.readouterr()
    assert "cannot be written" in error and "before mean return" not in out
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("held", ["agent.zip", "config.json"])
def test_what_is_saved_is_not_overwritten_unasked(held, untrained, tmp_path, capsys):
    (tmp_path / held).write_text("mine")
    assert command.main(["train", "text_envs/Copy-v0", *SMALL, "--save", str(tmp_path)]) == 2
    assert f"already holds {held}" in capsys.readouterr().err
    prepare_folder(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [held]


def test_the_probe_leaves_nothing_behind(tmp_path):
    prepare_folder(tmp_path / "new" / "folder", overwrite=False)
    assert list((tmp_path / "new" / "folder").iterdir()) == []


class Interrupt(BaseCallback):
    """Ctrl-C in the second rollout."""

    def _on_step(self):
        if self.num_timesteps == 48:
            os.kill(os.getpid(), signal.SIGINT)
        return True


@pytest.fixture
def interrupted(monkeypatch):
    learn = PPO.learn
    monkeypatch.setattr(PPO, "learn", lambda self, steps, callback: learn(self, steps, callback=Interrupt()))


def test_ctrl_c_saves_what_there_is(interrupted, tmp_path, capsys):
    arguments = ["train", "text_envs/Copy-v0", *SMALL, "--set", "n_steps=8", "--save", str(tmp_path)]
    assert command.main(arguments) == 130
    out, error = capsys.readouterr()
    assert "stopped after 48 of 64 steps" in out and "saved" in out and "goes on" not in out + error
    assert PPO.load(tmp_path / "agent.zip").num_timesteps == 48
    assert (tmp_path / "config.json").exists()


def test_ctrl_c_without_save_says_what_is_lost(interrupted, capsys):
    assert command.main(["train", "text_envs/Copy-v0", *SMALL, "--set", "n_steps=8"]) == 130
    out, error = capsys.readouterr()
    assert "nothing was saved" in out and "goes on" not in out + error


def test_ctrl_c_in_the_evaluation_costs_no_agent(tmp_path, monkeypatch, capsys):
    evaluate = train.evaluate

    def stopped_when_trained(model, *arguments):
        if model.num_timesteps:
            raise KeyboardInterrupt
        return evaluate(model, *arguments)

    monkeypatch.setattr(train, "evaluate", stopped_when_trained)
    arguments = ["train", "text_envs/Copy-v0", *SMALL, "--set", "n_steps=8", "--save", str(tmp_path)]
    assert command.main(arguments) == 130
    assert (tmp_path / "agent.zip").exists()
    assert capsys.readouterr().err.endswith("\nstopped\n")
