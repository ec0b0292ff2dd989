"""A killed run goes on to the bits that it would have had; what cannot go on is refused with the reason."""

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from transformers import GPT2Config

from agents import DQN, GRPO, PPO, Checkpoint, resume, runs
from agents.checkpoint import CheckpointError

MODEL = GPT2Config(
    vocab_size=7,
    n_positions=14,
    n_embd=16,
    n_layer=1,
    n_head=2,
    resid_pdrop=0.1,  # with dropout asked for, updates draw from torch's generator too
    embd_pdrop=0.1,
    attn_pdrop=0.1,
    bos_token_id=None,
    eos_token_id=None,
)
TOTAL, KILLED_AT, EVERY = 720, 430, 100
NAMES = ("PPO", "GRPO", "DQN", "stock")


def make(name: str, env: Any) -> Any:
    """Return an algorithm with everything that has a state of its own."""
    common: dict[str, Any] = {"seed": 3, "device": "cpu"}
    policy_kwargs = {"model": MODEL, "dropout": True}
    if name == "PPO":
        keywords = {"n_steps": 7, "batch_size": 16, "n_epochs": 2, "reference": "initial", "kl_target": 1.0}
        return PPO("TransformerPolicy", env, kl_coef=0.1, policy_kwargs=policy_kwargs, **keywords, **common)
    if name == "GRPO":
        keywords = {"n_steps": 5, "batch_size": 16, "group_size": 2, "reference": "initial", "kl_coef": 0.1}
        return GRPO("TransformerPolicy", env, policy_kwargs=policy_kwargs, **keywords, **common)
    if name == "DQN":
        keywords = {"learning_starts": 50, "batch_size": 16, "buffer_size": 300, "target_update_interval": 60}
        return DQN("TransformerQPolicy", env, policy_kwargs=policy_kwargs, **keywords, **common)
    env = DummyVecEnv([env.env_fns[0]] * 4)
    return stable_baselines3.PPO("MlpPolicy", env, n_steps=12, batch_size=24, n_epochs=2, **common)


class Kill(BaseCallback):
    """Kills this process in the middle of a rollout, without any clean-up."""

    def _on_step(self) -> bool:
        if self.num_timesteps >= KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def kill_while_writing(state: Any, file: Any) -> None:
    """Write half of a state and kill this process, once there are two checkpoints."""
    data = runs.cloudpickle.dumps(state)
    if state.attributes["num_timesteps"] < 200:
        file.write(data)
        return
    file.write(data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def be_killed(conftest: str, folder: Path) -> None:
    """Train every algorithm in a process that is killed, and PPO in one that is killed while it writes."""
    spec = importlib.util.spec_from_file_location("toy", conftest)
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    torch.set_num_threads(1)
    env_fns = [toy.SuccessorEnv] * 4
    for name in (*NAMES, "writing"):
        child = os.fork()
        if child == 0:
            env = SyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP)
            if name == "writing":
                runs.cloudpickle.dump = kill_while_writing
            model = make("PPO" if name == "writing" else name, env)
            model.learn(TOTAL, callback=[Checkpoint(folder / name, EVERY), Kill()])
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, name


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that five killed processes left behind."""
    folder = tmp_path_factory.mktemp("killed")
    conftest = Path(__file__).with_name("conftest.py")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, str(conftest), str(folder)], check=True, env=environment)
    return folder


def assert_same(one: Any, other: Any) -> None:
    """Compare weights and optimisers bit for bit, and the episodes that training went through."""
    assert one.num_timesteps == other.num_timesteps
    for name, parameters in one.get_parameters().items():
        torch.testing.assert_close(other.get_parameters()[name], parameters, rtol=0, atol=0)
    assert [(e["r"], e["l"]) for e in one.ep_info_buffer] == [(e["r"], e["l"]) for e in other.ep_info_buffer]


@pytest.fixture(scope="module")
def uninterrupted() -> Callable[[str, Any], Any]:
    """A function (name, env) -> the model of a run that was never stopped."""
    known: dict[str, Any] = {}

    def learnt(name: str, env: Any) -> Any:
        if name not in known:
            known[name] = make(name, env).learn(TOTAL)
        return known[name]

    return learnt


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_to_the_same_bits(
    name: str, killed: Path, uninterrupted: Callable, vector_env: Callable
) -> None:
    whole = uninterrupted(name, vector_env(4))
    np.random.seed(99)  # of no importance: the checkpoint brings the generators' states
    torch.manual_seed(99)
    model = resume(killed / name, device="cpu")
    assert 0 < model.num_timesteps <= KILLED_AT
    model.learn(TOTAL - model.num_timesteps, callback=Checkpoint(killed / name, EVERY), reset_num_timesteps=False)
    assert_same(whole, model)


def test_a_kill_during_the_write_leaves_the_former_checkpoint(
    killed: Path, uninterrupted: Callable, vector_env: Callable
) -> None:
    folder = killed / "writing"
    left = [path for path in folder.iterdir() if path.name.startswith(".new-")]
    assert left and all(zipfile.ZipFile(path).testzip() is None for path in runs.checkpoints(folder))
    model = resume(folder, device="cpu")
    model.learn(TOTAL - model.num_timesteps, callback=Checkpoint(folder, EVERY), reset_num_timesteps=False)
    assert_same(uninterrupted("PPO", vector_env(4)), model)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_run_is_extended_as_in_one_process(name: str, vector_env: Callable, tmp_path: Path) -> None:
    model = make(name, vector_env(4))
    model.learn(200, callback=Checkpoint(tmp_path))
    state = runs.RandomState.now()
    model.learn(160, reset_num_timesteps=False)
    again = resume(tmp_path, device="cpu")
    assert torch.equal(torch.get_rng_state(), state.torch)
    again.learn(160, reset_num_timesteps=False)
    assert_same(model, again)


def test_saving_disturbs_nothing(uninterrupted: Callable, vector_env: Callable, tmp_path: Path) -> None:
    model = make("GRPO", vector_env(4)).learn(TOTAL, callback=Checkpoint(tmp_path, every=1))
    assert_same(uninterrupted("GRPO", vector_env(4)), model)


@pytest.fixture
def saved(vector_env: Callable, tmp_path: Path) -> Path:
    """The folder of a short run of PPO with checkpoints at 0, 56 and 84 steps."""
    make("PPO", vector_env(4)).learn(80, callback=Checkpoint(tmp_path / "run", every=56))
    return tmp_path / "run"


def test_a_checkpoint_is_a_model_like_any_other(saved: Path, vector_env: Callable) -> None:
    assert [runs.steps_of(path) for path in runs.checkpoints(saved)] == [0, 56, 84]
    model = PPO.load(runs.checkpoints(saved)[-1], env=vector_env(2), device="cpu")
    assert model.num_timesteps == 84
    model.learn(28)


def test_another_environment_begins_new_episodes(saved: Path, vector_env: Callable) -> None:
    shown = []
    for _ in range(2):
        model = resume(saved, env=vector_env(4), device="cpu")
        model.learn(28, reset_num_timesteps=False)
        assert model.num_timesteps == 112
        shown.append(model._last_obs)
    np.testing.assert_array_equal(*shown)


def test_a_damaged_checkpoint_names_the_one_before(saved: Path) -> None:
    *_, before, last = runs.checkpoints(saved)
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=f"the checkpoint before it is {before}"):
        resume(saved, device="cpu")
    assert resume(before, device="cpu").num_timesteps == 56


def test_what_is_no_checkpoint_of_a_run_is_refused(saved: Path, vector_env: Callable, tmp_path: Path) -> None:
    make("PPO", vector_env(4)).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="not the state of its run"):
        resume(tmp_path / "model.zip")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint_\*\.zip in"):
        resume(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        resume(tmp_path / "absent")


def rewritten(path: Path, member: str, data: str) -> Path:
    """Return a copy of a checkpoint with other data in one of its members."""
    copy = path.with_name("new_" + path.name)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name == member else old.read(name))
    return copy


def test_another_version_and_missing_code_are_told(saved: Path) -> None:
    path = runs.checkpoints(saved)[-1]
    with pytest.raises(CheckpointError, match="another version of agents .format 99"):
        resume(rewritten(path, "run.json", '{"format": 99}'))
    with pytest.warns(UserWarning, match="torch 0.1 then"), pytest.raises(CheckpointError, match="no_such_module"):
        about = '{"format": 1, "algorithm": "agents.ppo.PPO", "torch": "0.1"}'
        copy = rewritten(path, "run.json", about)
        resume(rewritten(copy, "run.pkl", "cno_such_module\nReward\n."), device="cpu")


def test_the_same_surroundings_are_not_worth_a_warning(saved: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resume(saved, device="cpu")


def train_into(folder: str, env_fns: list, go: Any, stop: Any) -> None:
    """Train into a folder and stay in the first rollout until told to stop."""

    class Wait(BaseCallback):
        def _on_step(self) -> bool:
            go.set()
            return not stop.wait(60)

    env = SyncVectorEnv(env_fns, autoreset_mode=AutoresetMode.SAME_STEP)
    make("PPO", env).learn(100, callback=[Checkpoint(folder), Wait()])


def test_two_processes_cannot_train_into_one_folder(vector_env: Callable, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    go, stop = context.Event(), context.Event()
    other = context.Process(target=train_into, args=(str(tmp_path), vector_env(4).env_fns, go, stop))
    other.start()
    try:
        assert go.wait(60)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(
            RuntimeError, match=f"another process is training into {tmp_path}; give each run a fold"
        ):
            make("PPO", vector_env(4)).learn(100, callback=Checkpoint(tmp_path))
        assert sorted(tmp_path.iterdir()) == before
    finally:
        stop.set()
        other.join(60)
    resume(tmp_path, device="cpu").learn(28, callback=Checkpoint(tmp_path), reset_num_timesteps=False)


def test_a_run_that_raised_goes_on_in_the_same_process(vector_env: Callable, tmp_path: Path) -> None:
    class Fail(BaseCallback):
        def _on_step(self) -> bool:
            raise InterruptedError

    first = Checkpoint(tmp_path)  # it still holds the folder, and so does this process
    with pytest.raises(InterruptedError):
        make("PPO", vector_env(4)).learn(100, callback=[first, Fail()])
    resume(tmp_path, device="cpu").learn(28, callback=Checkpoint(tmp_path), reset_num_timesteps=False)
    assert [runs.steps_of(path) for path in runs.checkpoints(tmp_path)] == [0, 28]


class Handle:
    """Something that has no place on a disk."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a handle")


def test_an_environment_that_cannot_be_pickled_is_told_at_once(vector_env: Callable, tmp_path: Path) -> None:
    env = vector_env(4)
    env.handle = Handle()
    model = make("PPO", env)
    with pytest.raises(TypeError, match=r"\(SyncVectorEnv\) cannot be pickled .*a handle.*environment=False"):
        model.learn(100, callback=Checkpoint(tmp_path))
    assert model.num_timesteps == 0 and runs.checkpoints(tmp_path) == []
    model.learn(100, callback=Checkpoint(tmp_path, environment=False))
    with pytest.raises(ValueError, match="saved without its environment"):
        resume(tmp_path, device="cpu")
    resume(tmp_path, env=vector_env(4), device="cpu").learn(28, reset_num_timesteps=False)


def test_normalised_environments_are_refused(vector_env: Callable, tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([vector_env(1).env_fns[0]]))
    model = stable_baselines3.PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(TypeError, match="VecNormalize leaves out its environment"):
        model.learn(8, callback=Checkpoint(tmp_path))


if __name__ == "__main__":
    be_killed(sys.argv[1], Path(sys.argv[2]))
