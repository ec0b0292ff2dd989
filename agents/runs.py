"""Runs on disk that go on as if they had never stopped: what a model's own checkpoint lacks for that.

A checkpoint of a run is SB3's zip file of the model, which `load` reads as any other, with two members more:
`run.json` says what it is, `run.pkl` holds buffers, counters, generators and the environment. Unpickling runs
code, as SB3's own `load` does: resume what you trust.
"""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import warnings
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import BaseBuffer, RolloutBuffer
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from torch import Tensor

from .checkpoint import CheckpointError, check_checkpoint, write_whole

_FORMAT = 1
_ABOUT, _STATE = "run.json", "run.pkl"
_BUFFERS = ("rollout_buffer", "replay_buffer")
_ALIASES = {"batch_norm_stats", "batch_norm_stats_target"}  # lists of the networks' own tensors, in SB3's DQN
_PACKAGES = ("torch", "numpy", "stable-baselines3", "transformers")
_NAME = re.compile(r"checkpoint_(\d+)\.zip")
_UNPICKLABLE = (TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError, pickle.PicklingError)


@dataclass(frozen=True)
class RandomState:
    """The states of the global generators.

    Attributes:
        python: of `random`.
        numpy: of `numpy.random`.
        torch: of the CPU.
        cuda: of every CUDA device, none where CUDA was not in use.
    """

    python: Any
    numpy: Any
    torch: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> RandomState:
        """Return the present states."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def restore(self) -> None:
        """Set the global generators, those of CUDA as far as there are devices."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
        for device, state in enumerate(self.cuda[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)


@dataclass(frozen=True)
class RunState:
    """What a run consists of beside weights and optimisers.

    Attributes:
        algorithm: the model's class.
        attributes: of the model: counters, schedules, generators, the last observations, statistics.
        buffers: by the names of the model's attributes.
        env: the environment with its running episodes; None where it is not saved.
        random: the global generators.
    """

    algorithm: type[BaseAlgorithm]
    attributes: dict[str, Any]
    buffers: dict[str, BaseBuffer]
    env: VecEnv | None
    random: RandomState


def save_run(
    model: BaseAlgorithm, path: str | Path, *, environment: bool = True, between_rollouts: bool = True
) -> None:
    """Write a checkpoint of a run: the whole file, or the old one stays.

    Args:
        model: an algorithm of ours or of SB3.
        path: the file to make.
        environment: save the environment too; without it a resumed run begins new episodes.
        between_rollouts: False where a rollout was broken off: what the policy saw last is no longer what the
            environment shows, so a resumed run begins new episodes.

    Raises:
        TypeError: if the environment cannot be pickled.
    """
    about = {
        "format": _FORMAT,
        "algorithm": f"{type(model).__module__}.{type(model).__qualname__}",
        "timesteps": model.num_timesteps,
        **_surroundings(model.device),
    }
    state = _state(model, environment, between_rollouts)

    def write(temporary: Path) -> None:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(_ABOUT, json.dumps(about, indent=1))
            with archive.open(_STATE, "w", force_zip64=True) as file:
                cloudpickle.dump(state, file)  # environments are made by lambdas, which pickle refuses

    try:
        write_whole(path, write)
    except _UNPICKLABLE as error:
        _explain(model.env if environment else None, error)
        raise


def resume(path: str | Path, env: Any = None, device: torch.device | str = "auto") -> Any:
    """Return a saved run's model, ready to go on.

        model = resume("runs/copy")
        model.learn(total - model.num_timesteps, callback=Checkpoint("runs/copy"), reset_num_timesteps=False)

    On the CPU, with the same number of threads and the same versions, what follows equals an uninterrupted run
    bit for bit. The global generators of Python, NumPy and PyTorch are set to what they were.

    Args:
        path: a checkpoint, or a folder of `Checkpoint`, whose latest is taken.
        env: an environment instead of the saved one; it begins new episodes.
        device: as in SB3's `load`.

    Raises:
        FileNotFoundError: if there is no such file, or no checkpoint in the folder.
        CheckpointError: if the file is damaged, no checkpoint of a run, another version's, or needs code that
            cannot be imported.
        ValueError: if neither an environment was saved nor one is given.
    """
    path = Path(path)
    if path.is_dir():
        return _resume_latest(path, env, device)
    path = check_checkpoint(path)
    state = _read(path, get_device(device))
    if env is None and state.env is None:
        raise ValueError(f"{path} was saved without its environment; pass resume(path, env=...)")
    model: Any = state.algorithm.load(path, device=device)
    vars(model).update(state.attributes)
    for name, buffer in state.buffers.items():
        buffer.device = model.device
        setattr(model, name, buffer)
    if env is None:
        model.env = state.env
    else:
        model.set_env(env)
        if model.seed is not None:  # the run's own seed would show it the prompts of its beginning again
            model.env.seed(int(np.random.SeedSequence([model.seed, model.num_timesteps]).generate_state(1)[0] >> 1))
    state.random.restore()
    return model


def checkpoints(folder: str | Path) -> list[Path]:
    """Return the checkpoints of a run, the earliest first."""
    return sorted(
        (path for path in Path(folder).glob("checkpoint_*.zip") if _NAME.fullmatch(path.name)), key=steps_of
    )


def checkpoint_path(folder: str | Path, steps: int) -> Path:
    """Return where the checkpoint after so many environment steps lies."""
    return Path(folder) / f"checkpoint_{steps:012d}.zip"


def steps_of(path: Path) -> int:
    """Return the environment steps after which a checkpoint was made, as its name says."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path.name!r} is no checkpoint's name, such as checkpoint_000000010000.zip")
    return int(found[1])


def _resume_latest(folder: Path, env: Any, device: torch.device | str) -> Any:
    found = checkpoints(folder)
    if not found:
        raise FileNotFoundError(f"no checkpoint_*.zip in {folder}; check the folder given to resume()")
    try:
        return resume(found[-1], env, device)
    except CheckpointError as error:
        if len(found) == 1:
            raise
        raise CheckpointError(f"{error}; the checkpoint before it is {found[-2]}, pass its path") from error


def _state(model: BaseAlgorithm, environment: bool, between_rollouts: bool) -> RunState:
    """Return what is to be pickled; nothing of it is copied but what must be."""
    modules, tensors = model._get_torch_save_params()
    elsewhere = {name.partition(".")[0] for name in modules + tensors}
    left_out = elsewhere | set(model._excluded_save_params()) | _ALIASES
    attributes = {name: value for name, value in vars(model).items() if name not in left_out}
    if not (environment and between_rollouts):
        attributes["_last_obs"] = None  # SB3 then resets the environment
    buffers = {name: getattr(model, name) for name in _BUFFERS if getattr(model, name, None) is not None}
    for name, buffer in buffers.items():
        if isinstance(buffer, RolloutBuffer):  # a rollout begins by emptying it, so its transitions need no room
            buffers[name] = copy.copy(buffer)
            buffers[name].reset()
    env = model.get_env() if environment else None
    if env is not None and unwrap_vec_normalize(env) is not None:
        raise TypeError(
            "VecNormalize leaves out its environment when it is pickled, so the run cannot be saved whole; token "
            "observations need no normalisation, leave the wrapper out, or pass environment=False"
        )
    return RunState(type(model), attributes, buffers, env, RandomState.now())


def _explain(env: VecEnv | None, error: Exception) -> None:
    """Raise a TypeError if it is the environment that cannot be pickled."""
    if env is None:
        return
    try:
        cloudpickle.dumps(env)
    except _UNPICKLABLE:
        raise TypeError(
            f"the environment ({_innermost(env)}) cannot be pickled ({type(error).__name__}: {error}), so a "
            "resumed run could not be exact; use one that lives in this process (gym.make_vec's batched ones, "
            "SyncVectorEnv, DummyVecEnv), or pass environment=False, with which it begins new episodes"
        ) from error


def _innermost(env: VecEnv) -> str:
    return type(getattr(env, "env", env)).__name__


def _read(path: Path, device: torch.device) -> RunState:
    """Return a checkpoint's run state.

    Raises:
        CheckpointError: if there is none, it is another version's, or it cannot be unpickled.
    """
    with zipfile.ZipFile(path) as archive:
        if not {_ABOUT, _STATE} <= set(archive.namelist()):
            raise CheckpointError(
                f"{path} holds a model but not the state of its run, which the callback Checkpoint saves; load it "
                "with its class's load() and begin a new run"
            )
        about = json.loads(archive.read(_ABOUT))
        if about.get("format") != _FORMAT:
            raise CheckpointError(
                f"{path} was written by another version of agents (format {about.get('format')!r}, this one reads "
                f"{_FORMAT}); resume it with that version, or load() its model and begin a new run"
            )
        _warn_of_changes(path, about, device)
        try:
            with archive.open(_STATE) as file:
                return pickle.load(file)
        except (*_UNPICKLABLE, ImportError, EOFError, KeyError, IndexError, pickle.UnpicklingError) as error:
            raise CheckpointError(
                f"{path}: the state of the run of {about.get('algorithm')} cannot be read ({type(error).__name__}: "
                f"{error}); make the modules that define its environment and reward importable as they were"
            ) from error


def _surroundings(device: torch.device) -> dict[str, Any]:
    """Return what the last bits of a result depend on beside the program."""
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        **{name: version(name) for name in _PACKAGES},
    }


def _warn_of_changes(path: Path, about: dict[str, Any], device: torch.device) -> None:
    now = _surroundings(device)
    changes = [
        f"{name} {about.get(name)} then, {value} now" for name, value in now.items() if about.get(name) != value
    ]
    if changes:
        warnings.warn(
            f"{path} goes on in other surroundings ({'; '.join(changes)}), so its results will not equal those of "
            "an uninterrupted run to the last bit",
            stacklevel=4,
        )
