"""Columns keep what samples brought, each row its own; `take` picks rows of what scores detail."""

import numpy as np
import pytest

from text_envs.columns import Columns, take


def test_rows_keep_theirs_until_they_begin_again():
    columns = Columns(3, "Told")
    columns.keep({"secret": np.array([1, 2, 3])}, slice(None))
    columns.keep({"secret": np.array([9])}, np.array([1]))
    assert columns.of(slice(None))["secret"].tolist() == [1, 9, 3]
    assert columns.of(np.array([2, 1]))["secret"].tolist() == [3, 9]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("to", "a longer text"),
        (1, 2.5),
        (True, 7),
        ([1, 2], [0.5, 1.5]),
        (3, "three"),
        ("three", None),
        (2**60 + 1, 0.5),
        (-1, 2**63 + 1),
    ],
)
def test_a_column_keeps_values_that_need_more_room_than_those_before(first, second):
    columns = Columns(2, "Told")
    columns.keep({"told": np.array([first, first])}, slice(None))
    columns.keep({"told": np.array([second])}, np.array([1]))
    assert columns.of(slice(None))["told"].tolist() == [first, second]


@pytest.mark.parametrize(("first", "second", "kind"), [(1, 2.5, "f"), (2**60 + 1, 2.5, "O"), (1, "one", "O")])
def test_numbers_stay_numbers_unless_they_would_be_rounded(first, second, kind):
    columns = Columns(1, "Told")
    for value in (first, second):
        columns.keep({"told": np.array([value])}, slice(None))
    assert columns.of(slice(None))["told"].dtype.kind == kind


def test_a_column_has_one_shape():
    columns = Columns(2, "Told")
    columns.keep({"told": np.zeros((2, 2))}, slice(None))
    message = r"Told.sample returned the column 'told' with values of shape \(3,\), and of shape \(2,\) before; pad"
    with pytest.raises(ValueError, match=message):
        columns.keep({"told": np.zeros((1, 3))}, np.array([0]))


def test_take_picks_from_arrays_lists_and_nested_details():
    details = {"of": {"reward": np.array([0.0, 1.0, 2.0])}, "text": ["a", "b", "c"]}
    taken = take(details, np.array([2, 0]))
    assert taken["of"]["reward"].tolist() == [2.0, 0.0]
    assert taken["text"] == ["c", "a"]
