"""Checkpoints that are whole or absent, and errors that say what is wrong with one that is neither."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, overload

from torch import nn

FORMAT_VERSION = 1  # of what our algorithms write; raised when an older reader could not read it


class CheckpointError(ValueError):
    """A file that cannot be loaded as a checkpoint; nothing was changed."""


class FolderInUseError(RuntimeError):
    """A folder into which another process is training."""


def locked(folder: Path) -> IO[str]:
    """Return the open file by which this process holds a folder, until it is closed or the process ends.

    Raises:
        FolderInUseError: if another process holds it: two runs would replace each other's checkpoints.
    """
    file = open(folder / ".lock", "w")  # noqa: SIM115 - it stays open while training goes on
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise FolderInUseError(
                f"another process is training into {folder}; give each run a folder of its own, or end that one "
                "first"
            ) from error
        except OSError:  # a file system without locks
            pass
    return file


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


def write_text(path: str | Path, text: str) -> None:
    """Write a file of UTF-8 text: the whole file, or the old one stays."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_whole(path, write)


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


@overload
def check_checkpoint(source: str | Path) -> Path: ...
@overload
def check_checkpoint(source: IO[bytes]) -> IO[bytes]: ...
def check_checkpoint(source: str | Path | IO[bytes]) -> Path | IO[bytes]:
    """Return what can be loaded: the file's path, ".zip" added where it is missing, or the open file.

    Raises:
        FileNotFoundError: if there is no such file, with or without ".zip".
        CheckpointError: if it is truncated, damaged or something else.
    """
    if isinstance(source, str | Path):
        source = _find(Path(source))
    remedy = "load an earlier checkpoint, or train again"
    if not zipfile.is_zipfile(source):
        size = source.stat().st_size if isinstance(source, Path) else source.seek(0, os.SEEK_END)
        raise CheckpointError(
            f"{source} ({size:,} bytes) is not a whole checkpoint: truncated or another kind of file; {remedy}"
        )
    try:
        with zipfile.ZipFile(source) as archive:
            damaged = archive.testzip()
            missing = {"data", "policy.pth"} - set(archive.namelist())
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{source} is damaged ({error}); {remedy}") from error
    if damaged:
        raise CheckpointError(f"{source}: its part {damaged!r} is damaged; {remedy}")
    if missing:
        raise CheckpointError(f"{source} is a zip file without {sorted(missing)}: truncated or foreign; {remedy}")
    return source


def check_format(source: Path | IO[bytes], algorithm: str) -> None:
    """Compare a whole checkpoint's format with what is about to load it.

    Args:
        source: see `check_checkpoint`.
        algorithm: name of our class that loads it.

    Raises:
        CheckpointError: if a newer version or another algorithm of ours wrote it.
    """
    with zipfile.ZipFile(source) as archive:
        saved = json.loads(archive.read("data")).get("checkpoint_format")
    if saved is None:  # a stock algorithm's
        return
    if saved["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{source} has format {saved['version']}, this version of agents reads up to {FORMAT_VERSION}; "
            "load it with a newer text-envs"
        )
    if saved["algorithm"] != algorithm:
        theirs = saved["algorithm"]
        raise CheckpointError(
            f"{source} is no checkpoint of agents.{algorithm}: agents.{theirs} wrote it; use {theirs}.load"
        )


def saved_names(source: Path | IO[bytes]) -> set[str]:
    """Return the names of the attributes that a whole checkpoint holds."""
    with zipfile.ZipFile(source) as archive:
        return set(json.loads(archive.read("data")))


def versions(source: Path | IO[bytes]) -> str:
    """Return what a checkpoint says of the versions of the packages it was written with."""
    with zipfile.ZipFile(source) as archive:
        if "system_info.txt" not in archive.namelist():
            return "unknown versions"
        lines = archive.read("system_info.txt").decode().splitlines()
    wanted = ("- Stable-Baselines3", "- PyTorch", "- Python")
    return ", ".join(line.removeprefix("- ") for line in lines if line.startswith(wanted))


def _find(path: Path) -> Path:
    if not path.is_file() and path.with_name(path.name + ".zip").is_file():
        path = path.with_name(path.name + ".zip")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; check the path given to load()")
    return path
