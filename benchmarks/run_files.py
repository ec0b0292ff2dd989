"""The folders of `text-envs train`: the saved agent, checkpoints that a run goes on from, logs."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, make_output_format

from agents.checkpoint import CheckpointError, write_text
from agents.runs import checkpoints, resume, steps_of

from .errors import UserError

AGENT, MODEL = "agent.zip", "config.json"
PROGRESS, SAMPLES = "progress.csv", "samples.jsonl"
_RUN = "options.json"
_DEFINING = (  # options that make a run what it is; --steps, --device and what is shown may change
    "env_id",
    "env",
    "num_envs",
    "algo",
    "set",
    "policy",
    "model",
    "lora",
    "dtype",
    "reference",
    "kl_coef",
    "group_size",
    "seed",
)


def prepare(options: argparse.Namespace, goes_on: bool) -> None:
    """Make the folders and see that they can be written, before hours are spent on what goes there.

    Args:
        options: of the command.
        goes_on: the run was resumed, so what the folders hold is its own.

    Raises:
        UserError: if one cannot be made or written, or holds what may not be overwritten.
    """
    overwrite = options.overwrite or goes_on or _begun_before(options)
    if options.save is not None:
        _prepare(options.save, "--save", (AGENT, MODEL), overwrite)
    if options.log is not None:
        _prepare(options.log, "--log", (PROGRESS, SAMPLES), overwrite)
        if not goes_on:
            (options.log / SAMPLES).unlink(missing_ok=True)
    if options.checkpoint is not None:
        _prepare(options.checkpoint, "--checkpoint", (), True)


def _prepare(folder: Path, option: str, names: tuple[str, ...], overwrite: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder} cannot be written ({error.strerror}); choose another folder") from error
    held = [name for name in names if (folder / name).exists()]
    if held and not overwrite:
        raise UserError(
            f"{option} {folder} already holds {' and '.join(held)}; choose another folder, or add --overwrite"
        )


def resumed(options: argparse.Namespace) -> Any:
    """Return the model of the run that goes on, None where one begins.

    Raises:
        UserError: if --checkpoint is missing, holds a run although --resume was not given, or holds one that was
            begun with other options or cannot be read.
    """
    folder = options.checkpoint
    if folder is None:
        if options.resume:
            raise UserError("--resume needs --checkpoint DIR: the folder that the run's checkpoints are in")
        return None
    found = checkpoints(folder)
    if not found:
        return None
    if not options.resume:
        raise UserError(
            f"--checkpoint {folder} already holds a run of {steps_of(found[-1]):,} steps; add --resume to go on "
            "with it, or choose another folder"
        )
    _check_same_run(options, folder / _RUN)
    try:
        return resume(folder, device=options.device)
    except CheckpointError as error:
        raise UserError(f"--resume: {error}") from error
    except RuntimeError as error:  # PyTorch's, of a device that is unknown or absent
        raise UserError(f"the run in {folder} cannot go on with --device {options.device}: {error}") from error


def remember(options: argparse.Namespace) -> None:
    """Write down what a run is, so that only the same goes on with its checkpoints."""
    if options.checkpoint is not None:
        text = json.dumps(_definition(options), indent=1)
        write_text(options.checkpoint / _RUN, text)


def _begun_before(options: argparse.Namespace) -> bool:
    """Return whether --resume finds the same run, killed before its first checkpoint: what it wrote is its own."""
    if not options.resume:
        return False
    try:
        return json.loads((options.checkpoint / _RUN).read_text(encoding="utf-8")) == _definition(options)
    except (OSError, ValueError):
        return False


def _check_same_run(options: argparse.Namespace, path: Path) -> None:
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--resume: {path}, which says how the run was begun, cannot be read ({error}); go on with it from "
            "Python, by agents.resume, or choose another folder"
        ) from error
    for name, value in _definition(options).items():
        if begun.get(name) != value:
            option = "ENV_ID" if name == "env_id" else "--" + name.replace("_", "-")
            raise UserError(
                f"--resume: the run in {path.parent} was begun with {option} {_shown(begun.get(name))}, not "
                f"{_shown(value)}; give the same, or another folder for another run"
            )


def _definition(options: argparse.Namespace) -> dict[str, Any]:
    found = {name: getattr(options, name) for name in _DEFINING}
    return {name: sorted(value) if isinstance(value, list) else value for name, value in found.items()}


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "(not given)"
    return " ".join(value) if isinstance(value, list) else str(value)


def what_is_left(options: argparse.Namespace) -> str:
    """Return what a message says about a run that stopped early."""
    found = [] if options.checkpoint is None else checkpoints(options.checkpoint)
    if found:
        return f"the same command with --resume goes on from step {steps_of(found[-1]):,} ({found[-1]})"
    if options.save is not None:
        return "the agent as it was then is saved"
    return "nothing was saved, --save DIR keeps the agent and --checkpoint DIR the run"


def logger(folder: Path, steps: int) -> Logger:
    """Return a logger for TensorBoard and CSV; a run that goes on after some steps has a table of its own."""
    suffix = f"-{steps}" if steps else ""
    return Logger(str(folder), [make_output_format(kind, str(folder), suffix) for kind in ("csv", "tensorboard")])
