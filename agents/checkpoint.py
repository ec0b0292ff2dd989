"""Checkpoints that are whole or absent, and errors that say what is wrong with one that is neither."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from torch import nn

FORMAT_VERSION = 1  # of what our algorithms write; raised when an older reader could not read it


class CheckpointError(ValueError):
    """A file that cannot be loaded as a checkpoint; nothing was changed."""


def write_whole(path: str | Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path` and put it in place at once, so that a crash leaves the old one.

    Args:
        path: the file to make; ".zip" is added where there is no ending, as SB3 does.
        write: writes the file at the path it is given.
    """
    path = Path(path)
    if not path.suffix:
        path = path.with_suffix(".zip")
    path = path.resolve()  # through a link, to the file that it names
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=path.suffix, prefix=".new-", dir=path.parent)
    os.close(handle)
    try:
        write(Path(temporary))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights: names, shapes and values in a fixed order."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.cpu().contiguous().flatten().numpy())
    return digest.hexdigest()


def _umask() -> int:
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    return umask


def check_checkpoint(path: str | Path) -> Path:
    """Return the file's path, ".zip" added where it is missing; it is a whole SB3 checkpoint.

    Raises:
        FileNotFoundError: if there is no such file, with or without ".zip".
        CheckpointError: if it is truncated, damaged or something else.
    """
    path = Path(path)
    if not path.is_file() and path.with_name(path.name + ".zip").is_file():
        path = path.with_name(path.name + ".zip")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; check the path given to load()")
    remedy = "load an earlier checkpoint, or train again"
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) is not a whole checkpoint: truncated or another kind of file; "
            + remedy
        )
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        missing = {"data", "policy.pth"} - set(archive.namelist())
    if damaged:
        raise CheckpointError(f"{path}: its part {damaged!r} is damaged; {remedy}")
    if missing:
        raise CheckpointError(f"{path} is a zip file without {sorted(missing)}: no SB3 checkpoint; {remedy}")
    return path
