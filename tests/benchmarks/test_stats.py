import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean, ttest_ind, ttest_rel

from benchmarks import stats

MATRICES = st.integers(0, 2**32 - 1).map(lambda seed: _matrix(np.random.default_rng(seed)))


THRESHOLDS = np.linspace(-1, 2, 7)


def _profile(scores):
    return stats.performance_profile(scores, THRESHOLDS)


def _matrix(rng):
    return rng.normal(size=rng.integers(1, 8, size=2))


@given(MATRICES)
def test_iqm_is_scipys_trimmed_mean(scores):
    assert stats.iqm(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None))


@given(MATRICES)
def test_statistics_of_resamples_are_those_of_each(scores):
    many = np.stack([scores, scores + 1, scores[::-1]])
    for statistic in (stats.mean, stats.median, stats.iqm, stats.optimality_gap, _profile):
        np.testing.assert_allclose(statistic(many), [statistic(one) for one in many], atol=1e-12)


def test_iqm_by_hand():
    assert stats.iqm(np.array([[-100.0], [1.0], [3.0], [100.0]])) == 2.0


def test_median_and_optimality_gap_by_hand():
    scores = np.array([[0.0, 0.5, 2.0], [0.2, 0.7, 4.0]])
    assert stats.median(scores) == 0.6
    assert stats.optimality_gap(scores) == pytest.approx(1 - (0.0 + 0.2 + 0.5 + 0.7 + 1 + 1) / 6)
    assert stats.optimality_gap(scores, gamma=3.0) == pytest.approx(3 - (0.0 + 0.2 + 0.5 + 0.7 + 2 + 3) / 6)


@given(MATRICES)
def test_a_profile_counts_runs_above_each_threshold(scores):
    counts = [sum(value > threshold for value in scores.flat) / scores.size for threshold in THRESHOLDS]
    assert _profile(scores).tolist() == pytest.approx(counts)


@pytest.fixture
def rliable():
    """rliable's metrics and library, imported here: it takes seconds."""
    from rliable import library, metrics

    return metrics, library


@pytest.mark.parametrize("shape", [(5, 15), (3, 4), (1, 2), (7, 1)])
def test_statistics_are_those_of_rliable(rliable, shape):
    metrics, library = rliable
    x, y = (np.random.default_rng(seed).normal(0.7, 0.4, size=shape).round(1) for seed in (0, 1))  # with ties
    assert stats.mean(x) == pytest.approx(metrics.aggregate_mean(x))
    assert stats.median(x) == pytest.approx(metrics.aggregate_median(x))
    assert stats.iqm(x) == pytest.approx(metrics.aggregate_iqm(x))
    assert stats.optimality_gap(x) == pytest.approx(metrics.aggregate_optimality_gap(x))
    assert stats.optimality_gap(x, 0.5) == pytest.approx(metrics.aggregate_optimality_gap(x, 0.5))
    assert stats.probability_of_improvement(x, y) == pytest.approx(metrics.probability_of_improvement(x, y))
    np.testing.assert_allclose(_profile(x), library.score_distributions(x, THRESHOLDS))


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")  # how rliable calls arch
def test_intervals_are_those_of_rliable(rliable):
    metrics, library = rliable
    x, y = (np.random.default_rng(seed).normal(0.7, 0.4, size=(6, 5)) for seed in (0, 1))

    def theirs(matrices, *statistics):
        def together(*scores):
            return np.hstack([statistic(*scores) for statistic in statistics])

        state = np.random.RandomState(0)
        return library.get_interval_estimates({"": matrices}, together, reps=800, random_state=state)[1][""]

    def ours(statistic, *matrices):
        return stats.bootstrap_band(statistic, *matrices, rng=np.random.default_rng(1), n_resamples=20_000)

    def together(scores):
        single = [f(scores) for f in (stats.mean, stats.median, stats.iqm, stats.optimality_gap)]
        return np.hstack([np.stack(single, axis=-1), _profile(scores)])

    expected = theirs(
        x,
        metrics.aggregate_mean,
        metrics.aggregate_median,
        metrics.aggregate_iqm,
        metrics.aggregate_optimality_gap,
        lambda scores: library.score_distributions(scores, THRESHOLDS),
    )
    np.testing.assert_allclose(ours(together, x), expected, atol=0.035)
    expected = theirs((x, y), metrics.probability_of_improvement)
    np.testing.assert_allclose(ours(stats.probability_of_improvement, x, y), expected.ravel(), atol=0.035)


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
    for _ in range(4000):
        tasks = [draw.choice(column, size=6) for column in scores.T]
        values.append(trim_mean(np.concatenate(tasks), 0.25))
    spread = np.std(values)
    assert low == pytest.approx(np.percentile(values, 2.5), abs=0.15 * spread)
    assert high == pytest.approx(np.percentile(values, 97.5), abs=0.15 * spread)


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


def test_a_band_is_the_intervals_of_its_columns():
    curves = np.random.default_rng(0).normal(size=(6, 3))
    low, high = stats.bootstrap_band(lambda m: m.mean(axis=-2), curves, rng=np.random.default_rng(1))
    for column in range(3):
        one = stats.bootstrap_interval(stats.mean, curves[:, [column]], rng=np.random.default_rng(2))
        assert (low[column], high[column]) == pytest.approx(one, abs=0.1)


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(-1, 1)), min_size=1, max_size=6), st.integers(0, 9))
def test_the_area_is_the_mean_over_all_steps(intervals, held):
    widths, values = zip(*intervals, strict=True)
    every_step = [value for width, value in intervals for _ in range(width)] + [values[-1]] * held
    steps = np.cumsum(widths)
    area = stats.area_under_curve(steps, values, budget=steps[-1] + held)
    assert area == pytest.approx(np.mean(every_step), abs=1e-9)


def test_a_budget_that_was_overrun_changes_nothing():
    assert stats.area_under_curve([10, 20], [0.0, 1.0], budget=15) == 0.5


@pytest.mark.parametrize("steps", [[], [0, 5], [5, 5], [9, 2]])
def test_what_is_no_curve_is_refused(steps):
    with pytest.raises(ValueError, match="increasing from above 0"):
        stats.area_under_curve(steps, [1.0] * len(steps))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 6))
def test_p_values_are_scipys(seed, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(1, 3, size=m)
    assert stats.difference_p_value(x, y) == pytest.approx(ttest_ind(x, y, equal_var=False).pvalue)
    z = rng.normal(size=n)
    assert stats.difference_p_value(x, z, paired=True) == pytest.approx(ttest_rel(x, z).pvalue)


def test_runs_that_agree_by_luck_are_not_taken_for_certain():
    x, y = np.array([0.500, 0.501, 0.500]), np.array([0.520, 0.521, 0.520])
    assert stats.difference_p_value(x, y) < 0.001
    assert stats.difference_p_value(x, y, noise=0.02) > 0.2
    assert stats.difference_p_value(x, y, noise=1e-6) == stats.difference_p_value(x, y)


def test_no_spread_at_all_leaves_no_doubt():
    ones = np.ones(3)
    assert stats.difference_p_value(ones, ones) == 1.0
    assert stats.difference_p_value(ones, 0.5 * ones, paired=True) == 0.0
    assert 0 < stats.difference_p_value(ones, 0.5 * ones, noise=0.1) < 0.05


@pytest.mark.parametrize(("n", "m", "paired"), [(1, 5, False), (5, 1, False), (3, 4, True)])
def test_runs_that_cannot_be_tested_are_refused(n, m, paired):
    with pytest.raises(ValueError, match=f"{n} .*runs against {m}"):
        stats.difference_p_value(np.zeros(n), np.zeros(m), paired)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_its_definition_rejects(p_values):
    for level in (0.01, 0.05, 0.3):
        rejected, left = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        while left and p_values[left[0]] * len(left) < level:
            rejected.add(left.pop(0))
        adjusted = stats.holm(p_values)
        assert {i for i, p in enumerate(adjusted) if p < level} == rejected


def test_the_rng_decides():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    first, again, other = (
        stats.bootstrap_interval(stats.mean, scores, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match=f"confidence={confidence}; give a number between 0 and 1"):
        stats.bootstrap_interval(stats.mean, np.ones((2, 2)), rng=np.random.default_rng(0), confidence=confidence)


@pytest.mark.parametrize("scores", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan]])])
def test_what_is_no_score_matrix_is_refused(scores):
    with pytest.raises(ValueError, match="scores"):
        stats.iqm(scores)


def test_different_tasks_are_refused():
    with pytest.raises(ValueError, match="2 tasks against 3"):
        stats.probability_of_improvement(np.zeros((2, 2)), np.zeros((2, 3)))
