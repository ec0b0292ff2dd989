"""The timings run and say what they measured, at sizes that take a second; no time is ever asserted."""

import json

import pytest

from benchmarks import speed, speed_envs, timing


@pytest.fixture
def tiny(monkeypatch):
    for name, value in {"BATCH": 8, "STEPS": 40, "SINGLE_STEPS": 20, "TEXT_BATCH": 4, "SUITE_EPISODES": 4}.items():
        monkeypatch.setattr(speed_envs, name, value)
    monkeypatch.setattr(speed_envs, "SUITE_BATCH", 2)


def test_a_row_has_both_rates_and_their_ratio():
    calls = []

    def worker(name, units):
        return lambda: calls.append(name) or units

    row = timing.compare("a job", "steps/s", worker("ours", 10), worker("theirs", 5), "theirs", repeats=3)
    assert calls == ["ours", "theirs", *["theirs", "ours"] * 3]  # a warm-up of each, then in turn
    assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
    assert row["ours"] > 0 and row["theirs"] > 0 and "x theirs" in row["told"]


def test_environments_are_timed_and_other_sections_stay(tiny, tmp_path, capsys):
    out = tmp_path / "speed.json"
    out.write_text(json.dumps({"agents": {"rows": ["as they were"]}}))
    assert speed.main(["--only", "envs", "--repeats", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["agents"] == {"rows": ["as they were"]}
    names = [row["name"] for row in written["envs"]["rows"]]
    for part in ("Copy-v0, batch", "Copy-v0, batch of 8, dense", "NGram-v0", "single", "VADER", "ReasoningGym"):
        assert any(part in name for name in names), part
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert 0 < next(row["share"] for row in written["envs"]["rows"] if "share" in row) < 1
