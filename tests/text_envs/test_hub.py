import pickle
import sys

import pytest

from text_envs.datasets import Prompts, load_prompts
from text_envs.sources import SourceError

datasets = pytest.importorskip("datasets")

COLUMNS = {"text": ["one two", "three", "one  two", "four"], "n": [1, 2, 3, None]}
EXPECTED = Prompts(tuple(COLUMNS["text"]), {"n": tuple(COLUMNS["n"])})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def data():
    return datasets.Dataset.from_dict(COLUMNS)


@pytest.fixture
def hub(monkeypatch, data):
    """Replace the Hub: `hub` collects what it is asked for."""
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        return data

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def check(prompts, lazy=True):
    assert prompts.lazy == lazy
    assert (
        Prompts(tuple(prompts.texts), {name: tuple(values) for name, values in prompts.columns.items()}) == EXPECTED
    )
    assert [*prompts.first_words(2).unique().texts] == ["one two", "three", "four"]
    assert prompts.columns["n"][2] == 3


@pytest.mark.parametrize("lazy", [False, True])
def test_a_dataset_is_read_as_it_is(data, lazy):
    check(load_prompts(data, lazy=lazy), lazy)
    check(load_prompts(data.with_format("numpy"), lazy=lazy), lazy)
    many = datasets.Dataset.from_dict({"title": [f"{i} {i % 7}" for i in range(2500)]})
    assert [*load_prompts(many, column="title", lazy=lazy).texts] == many.to_dict()["title"]


def test_a_dataset_of_splits_and_a_stream_are_refused(data):
    with pytest.raises(ValueError, match="the dataset has the splits 'train', 'dev'; pass one of them"):
        load_prompts(datasets.DatasetDict(train=data, dev=data))
    with pytest.raises(ValueError, match="the dataset is a stream: .* without streaming=True"):
        load_prompts(data.to_iterable_dataset())


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_wrong_in_a_dataset_is_named_by_row(data, lazy):
    with pytest.raises(
        ValueError, match="the dataset: row 1: no column 'txt', only 'text', 'n'; pass column='text'"
    ):
        load_prompts(data, column="txt", lazy=lazy)
    with pytest.raises(ValueError, match="the dataset: row 1: 'n' is a text with at least one word, got 1"):
        load_prompts(data, column="n", lazy=lazy)
    blank = datasets.Dataset.from_dict({"text": ["", "a", None, "b"]})
    with pytest.raises(ValueError, match="the dataset: row 1: 'text' .* got ''.*skip_blank=True"):
        load_prompts(blank, lazy=lazy)
    assert tuple(load_prompts(blank, lazy=lazy, skip_blank=True).texts) == ("a", "b")


def test_the_hub_is_asked_for_what_the_source_says(hub):
    check(load_prompts("hub:owner/name"), lazy=False)
    check(load_prompts("hub:owner/name?split=train[:10%]+test&config=en&revision=1a=", lazy=True))
    assert hub == [
        (("owner/name", None), {"split": "train"}),
        (("owner/name", "en"), {"split": "train[:10%]+test", "revision": "1a="}),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub:owner/name?splt=test", r"'splt=test' is no option; write split=\.\.\."),
        ("hub:owner/name?x=1", "'x=1' is no option; write config=... or revision=... or split=..."),
        ("hub:owner/name?split", "'split' is no option; write split=..."),
        ("hub:", 'names no dataset; write "hub:owner/name"'),
    ],
)
def test_sources_of_another_form_are_refused(hub, source, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(source)
    assert not hub


def test_without_a_network_the_error_says_how_to_do_it_by_hand(monkeypatch):
    def load_dataset(*args, **options):
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(SourceError) as caught:
        load_prompts("hub:owner/name?split=test")
    for part in ("hub:owner/name?split=test", "no route", "hf download owner/name", ".parquet", "path of"):
        assert part in str(caught.value)


@pytest.mark.parametrize("lazy", [False, True])
def test_folders(tmp_path, data, lazy):
    data.save_to_disk(tmp_path / "saved")
    check(load_prompts(tmp_path / "saved", lazy=lazy), lazy)
    (tmp_path / "parts").mkdir()
    data.select(range(1)).to_parquet(tmp_path / "parts" / "train-0.parquet")
    data.select(range(1, 4)).to_parquet(tmp_path / "parts" / "train-1.parquet")
    data.to_parquet(tmp_path / "parts" / "test.parquet")
    check(load_prompts(str(tmp_path / "parts"), lazy=lazy), lazy)


def test_folders_of_other_things_are_refused(tmp_path, data):
    datasets.DatasetDict(train=data, dev=data).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match="splits has the splits 'train', 'dev'; .*.of a folder, the folder in it"):
        load_prompts(tmp_path / "splits")
    check(load_prompts(tmp_path / "splits" / "dev"), lazy=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: `datasets` cannot read the folder .* pass the path of a file"):
        load_prompts(tmp_path / "empty")


def test_parquet_files_may_stay_on_disk(tmp_path, data):
    data.to_parquet(path := tmp_path / "a.parquet")
    prompts = load_prompts(path, lazy=True)
    check(prompts)
    check(pickle.loads(pickle.dumps(prompts)))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="a.parquet: damaged, or not Parquet: "):
        load_prompts(path, lazy=True)


@pytest.mark.parametrize(("source", "lazy"), [("hub:owner/name", False), ("folder", False), ("a.parquet", True)])
def test_without_datasets_the_extra_is_named(tmp_path, data, monkeypatch, source, lazy):
    (tmp_path / "folder").mkdir()
    data.to_parquet(tmp_path / "a.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=rf"{source} needs .* datasets: pip install 'text-envs\[data\]'"):
        load_prompts(source, lazy=lazy)
