import json
import os
import re
import signal

import pytest
from stable_baselines3.common.callbacks import BaseCallback

from agents import PPO
from benchmarks import __main__ as command
from benchmarks import train
from benchmarks.errors import UserError
from benchmarks.train import parse_pairs

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


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dqn"])
def test_a_short_training_is_told_and_saved(algorithm, tmp_path, capsys):
    arguments = ["train", "text_envs/Copy-v0", "--algo", algorithm, *SMALL, "--save", str(tmp_path / "saved")]
    extra = ["learning_starts=16"] if algorithm == "dqn" else ["n_steps=8"]
    group = ["--group-size", "4"] if algorithm == "grpo" else []
    assert command.main([*arguments, *group, "--set", *extra, "batch_size=16"]) == 0
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
        (["text_envs/Copy-v0", "--policy", "lora=2"], "--policy lora=2: use --lora"),
        (["text_envs/Copy-v0", "--policy", "value_trunk=half"], "value_trunk"),
        (["text_envs/Copy-v0", "--policy", "depth=2"], "depth"),
        (["text_envs/Copy-v0", "--set", "n_steps=0"], "n_steps"),
        (["text_envs/Copy-v0", "--set", "learning_rate=abc"], "learning_rate=abc: PPO wants float"),
        (["text_envs/Copy-v0", "--algo", "dqn", "--set", "gamma=abc"], "gamma=abc: DQN wants float"),
        (["text_envs/Copy-v0", "--device", "banana"], "--device banana"),
        (["text_envs/Copy-v0", "--lora", "2"], "--lora 2 needs --model"),
        (["text_envs/Copy-v0", "--group-size", "4"], "PPO takes no 'group_size'"),
        (["text_envs/Copy-v0", "--algo", "grpo", "--num-envs", "6"], "6 rows cannot be divided into groups of 8"),
        (["text_envs/Copy-v0", "--algo", "grpo", "--set", "advantage=gae"], "choose from grpo, rloo, dr_grpo"),
        (["CartPole-v1"], "CartPole-v1 is no environment of text-envs"),
        (["text_envs/Copy-v0", "--resume"], "--resume needs --checkpoint DIR"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert command.main(["train", *arguments, "--steps", "64"]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_keywords_reach_the_policy():
    options = train._parser().parse_args(["text_envs/Copy-v0", "--policy", "value_trunk=detached"])
    agent = train.make_agent(options, train.open_env("text_envs/Copy-v0", 2, {}))
    assert agent.policy.value_trunk == "detached"


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


@pytest.mark.parametrize("option", ["--save", "--log", "--checkpoint"])
@pytest.mark.parametrize("where", ["file", "file/below", "/proc/absent"])
def test_a_folder_that_cannot_be_written_is_told_before_the_training(option, where, untrained, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert command.main(["train", "text_envs/Copy-v0", *SMALL, option, str(tmp_path / where)]) == 2
    out, error = capsys.readouterr()
    assert f"{option} " in error and "cannot be written" in error and "before mean return" not in out
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "held"),
    [("--save", "agent.zip"), ("--save", "config.json"), ("--log", "progress.csv"), ("--log", "samples.jsonl")],
)
def test_what_is_there_is_not_overwritten_unasked(option, held, untrained, tmp_path, capsys):
    (tmp_path / held).write_text("mine")
    assert command.main(["train", "text_envs/Copy-v0", *SMALL, option, str(tmp_path)]) == 2
    assert f"already holds {held}" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_what_is_there_is_overwritten_when_asked(tmp_path):
    (tmp_path / "samples.jsonl").write_text("mine")
    (tmp_path / "agent.zip").write_text("mine")
    where = ["--save", str(tmp_path), "--log", str(tmp_path), "--overwrite"]
    assert command.main(["train", "text_envs/Copy-v0", *SMALL, *where, "--set", "n_steps=8"]) == 0
    assert PPO.load(tmp_path / "agent.zip").num_timesteps == 64
    assert "mine" not in (tmp_path / "samples.jsonl").read_text()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "tmp"))]


class Interrupt(BaseCallback):
    """Ctrl-C in the second rollout."""

    def _on_step(self):
        if self.num_timesteps == 48:
            os.kill(os.getpid(), signal.SIGINT)
        return True


@pytest.fixture
def interrupted(monkeypatch):
    learn = PPO.learn

    def stopped(self, steps, callback, **keywords):
        return learn(self, steps, callback=[*callback, Interrupt()], **keywords)

    monkeypatch.setattr(PPO, "learn", stopped)


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


class FailingReward:
    """Fails when it is told to."""

    fails = False

    def __call__(self, prompts, completions, **columns):
        if FailingReward.fails:
            raise ZeroDivisionError("nothing to divide by")
        return [float(len(text)) for text in completions]


@pytest.fixture
def rewarded(tmp_path, monkeypatch):
    """Arguments of an environment with a reward that can be made to fail."""
    (tmp_path / "prompts.txt").write_text("a b\nb a\n")
    monkeypatch.setattr(FailingReward, "fails", False)
    monkeypatch.setattr(train, "FailingReward", FailingReward, raising=False)  # "module:factory" finds it there
    reward = "reward=benchmarks.train:FailingReward"
    small = ["--num-envs", "4", "--eval-episodes", "4", "--steps", "128", "--set", "n_steps=8", "--seed", "1"]
    return ["train", "text_envs/Keywords-v0", "--env", reward, f"prompts={tmp_path}/prompts.txt", *small]


def failing_later(monkeypatch):
    """Let the reward fail from step 80 on."""
    learn = PPO.learn

    class Later(BaseCallback):
        def _on_step(self):
            FailingReward.fails = self.num_timesteps >= 80
            return True

    def watched(self, steps, callback, **keywords):
        return learn(self, steps, callback=[*callback, Later()], **keywords)

    monkeypatch.setattr(PPO, "learn", watched)


def test_a_reward_that_raises_costs_no_run(rewarded, tmp_path, monkeypatch, capsys):
    kept = ["--checkpoint", str(tmp_path / "run"), "--checkpoint-every", "32", "--save", str(tmp_path / "saved")]
    with monkeypatch.context() as patches:
        failing_later(patches)
        assert command.main([*rewarded, *kept]) == 1
    out, error = capsys.readouterr()
    assert "nothing to divide by" in error and "RewardError" in error
    told = " ".join(out.split())
    assert re.search(r"stopped after \d+ of 128 steps by RewardError: .*nothing to divide by", told)
    step = re.search(r"the same command with --resume goes on from step (\d+) ", told)[1]
    assert int(step) in (64, 96) and PPO.load(tmp_path / "saved" / "agent.zip").num_timesteps > int(step)

    FailingReward.fails = False  # it was mended
    assert command.main([*rewarded, *kept, "--resume"]) == 0
    resumed = capsys.readouterr().out
    assert f"goes on after {step} of 128 steps" in resumed and "before mean" not in resumed
    assert command.main(rewarded) == 0  # what the run would have been
    assert last_line(capsys.readouterr().out) == last_line(resumed)


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch, capsys):
    arguments = ["train", "text_envs/Copy-v0", *SMALL, "--checkpoint", str(tmp_path / "run")]
    arguments += ["--log", str(tmp_path / "log"), "--resume"]
    with monkeypatch.context() as patches:
        patches.setattr(train, "_learned", lambda model, options, *_: train._callbacks(model, options) and 1 / 0)
        with pytest.raises(ZeroDivisionError):  # the logger has written its first file
            command.main(arguments)
    assert (tmp_path / "log" / "progress.csv").exists()
    assert command.main([*arguments, "--seed", "5"]) == 2, "another run"
    assert "already holds progress.csv" in capsys.readouterr().err
    assert command.main(arguments) == 0
    assert "before mean return" in " ".join(capsys.readouterr().out.split())


def last_line(out):
    """Return what a command says of the trained agent."""
    return next(line for line in out.splitlines() if line.startswith("after"))


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "dqn"])
def test_a_stopped_run_goes_on_to_the_same_result(algorithm, tmp_path, monkeypatch, capsys):
    extra = ["learning_starts=16"] if algorithm == "dqn" else ["n_steps=8"]
    group = ["--group-size", "2"] if algorithm == "grpo" else []
    arguments = [
        "train",
        "text_envs/Copy-v0",
        "--algo",
        algorithm,
        *SMALL,
        *group,
        "--set",
        *extra,
        "batch_size=16",
    ]
    assert command.main(arguments) == 0
    whole = last_line(capsys.readouterr().out)

    kept = ["--checkpoint", str(tmp_path / "run"), "--checkpoint-every", "16", "--log", str(tmp_path / "log")]
    kept += ["--samples", "2", "--resume"]
    kind = train._ALGORITHMS[algorithm][0]
    learn = kind.learn
    with monkeypatch.context() as patches:
        patches.setattr(kind, "learn", lambda self, n, callback, **k: learn(self, n, [*callback, Interrupt()], **k))
        assert command.main([*arguments, *kept]) == 130
    out = " ".join(capsys.readouterr().out.split())
    assert "before mean return" in out  # --resume began the run, there was nothing yet
    assert re.search(r"stopped after 48 of 64 steps; the same command with --resume goes on from step \d+ ", out)
    assert command.main([*arguments, *kept]) == 0
    assert last_line(capsys.readouterr().out) == whole
    samples = [json.loads(line) for line in (tmp_path / "log" / "samples.jsonl").read_text().splitlines()]
    assert samples and [s["step"] for s in samples] == sorted(s["step"] for s in samples)
    logs = {path.suffix for path in (tmp_path / "log").iterdir()}
    assert ".csv" in logs and any("tfevents" in path.name for path in (tmp_path / "log").iterdir())

    assert command.main([*arguments, *kept]) == 0  # a finished run is evaluated again
    assert last_line(capsys.readouterr().out) == whole


@pytest.fixture
def run_folder(tmp_path, capsys):
    """The checkpoints of a finished run."""
    arguments = ["train", "text_envs/Copy-v0", *SMALL, "--set", "n_steps=8", "--checkpoint", str(tmp_path / "run")]
    assert command.main(arguments) == 0
    capsys.readouterr()
    return tmp_path / "run"


def test_a_run_is_not_mixed_with_another(run_folder, untrained, capsys):
    again = ["train", "text_envs/Copy-v0", *SMALL, "--checkpoint", str(run_folder)]
    assert command.main([*again, "--set", "n_steps=8"]) == 2
    assert "already holds a run of 64 steps; add --resume" in capsys.readouterr().err
    assert command.main([*again, "--set", "n_steps=8", "--resume", "--algo", "dqn"]) == 2
    assert "was begun with --algo ppo, not dqn; give the same" in capsys.readouterr().err
    assert command.main([*again, "--resume"]) == 2
    assert "was begun with --set n_steps=8, not (not given)" in capsys.readouterr().err


def test_a_damaged_run_is_told(run_folder, untrained, capsys):
    last = sorted(run_folder.glob("*.zip"))[-1]
    last.write_bytes(b"")
    again = [
        "train",
        "text_envs/Copy-v0",
        *SMALL,
        "--set",
        "n_steps=8",
        "--checkpoint",
        str(run_folder),
        "--resume",
    ]
    assert command.main(again) == 2
    assert "--resume: " in (error := capsys.readouterr().err) and "the checkpoint before it is" in error
    (run_folder / "options.json").unlink()
    assert command.main(again) == 2
    assert "options.json, which says how the run was begun, cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "3"])
def test_as_many_samples_are_shown_as_wanted(count, tmp_path, capsys):
    arguments = ["train", "text_envs/Copy-v0", *SMALL, "--set", "n_steps=8", "--samples", count]
    assert command.main([*arguments, "--log", str(tmp_path)]) == 0
    assert ("Samples after training" in capsys.readouterr().out) == (count == "3")
    assert (tmp_path / "samples.jsonl").exists() == (count == "3")
