"""Comparisons are read with errors by line, split by prompts, and agreement is what a loop counts."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.preferences import Comparison, agreement, read_comparisons, split

GOOD = {"prompt": "p", "chosen": "yes", "rejected": "no", "annotator": "ann"}


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return path


def test_a_file_and_mappings_are_read_alike(tmp_path: Path) -> None:
    records = [GOOD, {**GOOD, "tie": True}, {**GOOD, "prompt": "", "tie": None}]
    expected = [Comparison("p", "yes", "no"), Comparison("p", "yes", "no", True), Comparison("", "yes", "no")]
    assert read_comparisons(records) == expected
    assert read_comparisons(write(tmp_path / "some.jsonl", GOOD, records[1], "", records[2], "")) == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", r"some.jsonl:2 is no JSON"),
        ("[1]", r"some.jsonl:2 is \[1\]; expected"),
        ({"prompt": "p", "chosen": "yes"}, "some.jsonl:2: there is no 'rejected'; give plain text"),
        ({**GOOD, "chosen": [{"role": "user", "content": "hi"}]}, "'chosen' is .*through their template"),
        ({**GOOD, "tie": 1}, "'tie' is 1; give true or false"),
        ({**GOOD, "prompt": "\ud800"}, "half a character"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_comparisons(write(tmp_path / "some.jsonl", GOOD, line))


def test_bytes_that_are_no_text_and_absent_or_empty_files(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9", "chosen": "", "rejected": ""}')
    with pytest.raises(ValueError, match="latin.jsonl:1 is no JSON in UTF-8"):
        read_comparisons(tmp_path / "latin.jsonl")
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        read_comparisons(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no comparison"):
        read_comparisons(write(tmp_path / "empty.jsonl", "", " "))


@given(st.lists(st.text(max_size=3), min_size=40, max_size=60), st.floats(0.2, 0.8))
def test_sides_share_no_prompt_and_lose_nothing(prompts: list[str], fraction: float) -> None:
    comparisons = [Comparison(prompt, str(i), "") for i, prompt in enumerate(prompts + ["a", "b", "c", "d", "e"])]
    try:
        train, held = split(comparisons, fraction)
    except ValueError as error:  # hardly any prompts
        assert "leaves a side empty" in str(error)
        return
    assert not {c.prompt for c in train} & {c.prompt for c in held}
    assert sorted(train + held) == sorted(comparisons)
    more, _ = split([*comparisons, Comparison("new", "", "")], fraction)
    assert more[: len(train)] == train


def test_the_share_held_out_is_the_fraction_and_one_prompt_cannot_be_split() -> None:
    many = [Comparison(str(i), "a", "b") for i in range(4000)]
    assert len(split(many, 0.1)[1]) == pytest.approx(400, abs=80)
    with pytest.raises(ValueError, match="of 1 prompts cannot be split.*--heldout"):
        split([Comparison("p", "a", "b")] * 9, 0.5)


def test_agreement_is_what_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    log_odds, prompts = rng.normal(size=500) * 2 + 1, [str(i % 100) for i in range(500)]
    log_odds[:10] = 0
    found = agreement(log_odds, prompts, rng)
    assert found.accuracy == pytest.approx(sum(1.0 if x > 0 else 0.5 if x == 0 else 0.0 for x in log_odds) / 500)
    error = 0.0
    for b in range(10):
        sure = 1 / (1 + np.exp(-np.abs(log_odds)))
        inside = (sure >= 0.5 + b / 20) & ((sure < 0.55 + b / 20) | (b == 9))
        if inside.any():
            hits = np.where(log_odds == 0, 0.5, log_odds > 0)
            error += abs(sure[inside].sum() - hits[inside].sum()) / 500
    assert found.calibration_error == pytest.approx(error)
    assert sum(count for _, _, count in found.reliability) == found.comparisons == 500
    assert found.low < found.accuracy < found.high


def test_intervals_hold_the_truth_about_as_often_as_they_say_and_draw_prompts() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        right = np.repeat(rng.random(60) < 0.7, 5)  # a prompt's comparisons agree
        found = agreement(np.where(right, 1.0, -1.0), [str(i // 5) for i in range(300)], rng)
        covered += found.low <= 0.7 <= found.high
    assert covered >= 50
    one = agreement(np.where(rng.random(300) < 0.7, 1.0, -1.0), [""] * 300, rng)
    assert 0.02 < one.high - one.low < 0.15


def test_where_all_are_right_or_all_wrong_the_interval_is_no_point() -> None:
    rng = np.random.default_rng(0)
    prompts = ["p", "p", "q", "r"]  # three prompts
    right, wrong = (agreement(np.full(4, sign), prompts, rng) for sign in (1.0, -1.0))
    assert (right.low, right.high) == pytest.approx((0.29240, 1), abs=1e-5)  # tables: 3 of 3
    assert (wrong.low, wrong.high) == pytest.approx((0, 0.70760), abs=1e-5)
    even = agreement(np.zeros(4), prompts, rng)
    assert even.low == even.high == 0.5


def test_calibrated_scores_have_a_small_calibration_error() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(size=20_000) * 2
    honest = np.where(rng.random(20_000) < 1 / (1 + np.exp(-difference)), difference, -difference)
    assert agreement(honest, [""] * 20_000, rng).calibration_error < 0.015
    assert agreement(4 * honest, [""] * 20_000, rng).calibration_error > 0.08
    with pytest.raises(ValueError, match="all finite"):
        agreement(np.array([np.nan]), [""], rng)
