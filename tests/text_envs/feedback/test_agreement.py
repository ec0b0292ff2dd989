from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_envs.feedback import agreement
from text_envs.feedback.store import Answer


def slow_alpha(counts):
    """Krippendorff's alpha from its definition: observed and expected disagreement over ordered pairs of values."""
    units = [[value for value, times in enumerate(row) for _ in range(times)] for row in counts]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    if len(set(values)) < 2:
        return None
    observed = sum(sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units) / len(values)
    expected = sum(a != b for a, b in permutations(values, 2)) / (len(values) * (len(values) - 1))
    return 1 - observed / expected


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=6))
def test_alpha_is_its_definition(counts):
    assert agreement.alpha(np.array(counts, np.int64).reshape(-1, 3)) == pytest.approx(slow_alpha(counts))


def test_answers_of_several_annotators():
    answers = [
        Answer(pair, annotator, choice)
        for annotator, choices in {"p": "aaab", "q": "aab", "r": "a"}.items()
        for pair, choice in enumerate(choices)
    ]
    found = agreement.agreement([*answers, Answer(9, "s", "tie")])
    assert found.shared == 3
    assert found.alpha == pytest.approx(slow_alpha([[3, 0, 0], [2, 0, 0], [1, 1, 0]]))
    assert found.with_others == {"p": 3 / 4, "q": 3 / 4, "r": 1.0, "s": None}


@pytest.mark.parametrize("choices", [{}, {"p": "ab"}, {"p": "a", "q": "a"}])
def test_where_nothing_can_be_said_it_is_none(choices):
    answers = [Answer(i, who, choice) for who, all in choices.items() for i, choice in enumerate(all)]
    assert agreement.agreement(answers).alpha is None


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "krippendorff", None)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[feedback\]'"):
        agreement.agreement([])
