import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from benchmarks import stats

MATRICES = st.integers(0, 2**32 - 1).map(lambda seed: _matrix(np.random.default_rng(seed)))


def _matrix(rng):
    return rng.normal(size=rng.integers(1, 8, size=2))


@given(MATRICES)
def test_iqm_is_scipys_trimmed_mean(scores):
    assert stats.iqm(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None))


@given(MATRICES)
def test_statistics_of_resamples_are_those_of_each(scores):
    many = np.stack([scores, scores + 1, scores[::-1]])
    for statistic in (stats.mean, stats.iqm):
        np.testing.assert_allclose(statistic(many), [statistic(one) for one in many])


def test_iqm_by_hand():
    assert stats.iqm(np.array([[-100.0], [1.0], [3.0], [100.0]])) == 2.0


def test_probability_of_improvement_is_a_count_over_pairs():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, size=(5, 3)), rng.integers(0, 4, size=(4, 3))
    wins = [float(a > b) + 0.5 * float(a == b) for task in range(3) for a in x[:, task] for b in y[:, task]]
    assert stats.probability_of_improvement(x, y) == pytest.approx(np.mean(wins))
    assert stats.probability_of_improvement(x, y) + stats.probability_of_improvement(y, x) == pytest.approx(1)


def test_bootstrap_agrees_with_an_independent_loop():
    scores = np.random.default_rng(0).normal(size=(6, 4)) + np.arange(4)
    low, high = stats.bootstrap_interval(stats.iqm, scores, rng=np.random.default_rng(1), n_resamples=20_000)
    draw = np.random.default_rng(2)
    values = []
    for _ in range(20_000):
        tasks = [[column[draw.integers(6)] for _ in range(6)] for column in scores.T]
        values.append(trim_mean(np.concatenate(tasks), 0.25))
    spread = np.std(values)
    assert low == pytest.approx(np.percentile(values, 2.5), abs=0.05 * spread)
    assert high == pytest.approx(np.percentile(values, 97.5), abs=0.05 * spread)


def test_bootstrap_keeps_tasks_apart():
    scores = np.array([[0.0, 10.0], [0.0, 10.0]])  # no spread within a task, so none in the interval
    assert stats.bootstrap_interval(stats.mean, scores, rng=np.random.default_rng(0)) == (5.0, 5.0)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        low, high = stats.bootstrap_interval(stats.mean, rng.normal(size=(20, 2)), rng=rng, n_resamples=400)
        hits += low <= 0 <= high
    assert 0.86 <= hits / 200 <= 1.0


def test_the_rng_decides():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    first, again, other = (
        stats.bootstrap_interval(stats.mean, scores, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]])])
def test_what_is_no_score_matrix_is_refused(scores):
    with pytest.raises(ValueError, match="scores"):
        stats.iqm(scores)


def test_different_tasks_are_refused():
    with pytest.raises(ValueError, match="2 tasks against 3"):
        stats.probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))
