import numpy as np
import pytest

from benchmarks import scores, stats, suites
from benchmarks.errors import UserError
from benchmarks.rows import open_for_append
from benchmarks.runner import ERRORS, ROWS
from benchmarks.scores import Efficiency, Estimate, Results


def experiment(task, agent, steps=1000, **settings):
    return suites.Experiment(task, agent, "some/Env-v0", "some:factory", steps=steps, **settings)


def line(*values):
    """A learning curve with a point every 100 steps and every second."""
    return [(100 * i, float(i), value, value) for i, value in enumerate(values, start=1)]


@pytest.fixture
def runs(make_row):
    def make(task, agent, *values, curves=None):
        """One row for each seed."""
        curves = curves or [()] * len(values)
        pairs = enumerate(zip(values, curves, strict=True))
        return [make_row(experiment(task, agent), seed, value, curve=curve) for seed, (value, curve) in pairs]

    return make


@pytest.fixture
def partial(runs):
    """Agent `some` has one task only, `more` has one seed more on the first."""
    return Results(
        (
            *runs("One", "all", 0.2, 0.4, 0.6),
            *runs("One", "some", 0.3, 0.5, 0.7),
            *runs("Two", "all", 0.8, 0.8, 1.2),
            *runs("One", "more", 0.0, 0.1, 0.2, 0.3),
            *runs("Two", "more", 0.5, 0.6, 0.7),
        )
    )


def test_an_agent_that_lacks_a_task_does_not_disappear(partial):
    assert partial.tasks_of("some") == ["One"] and partial.missing("some") == ["Two"]
    assert partial.missing("all") == []
    assert partial.matrix("some", "sampled").tolist() == [[0.3], [0.5], [0.7]]
    assert partial.aggregate("some", "sampled")["mean"].value == pytest.approx(0.5)


def test_a_matrix_has_the_seeds_that_all_tasks_have(partial):
    assert partial.matrix("more", "sampled").tolist() == [[0.0, 0.5], [0.1, 0.6], [0.2, 0.7]]
    assert partial.matrix("more", "sampled", ["One"]).shape == (4, 1)


def test_aggregates_are_the_statistics_of_the_matrix(partial):
    found = partial.aggregate("all", "sampled")
    assert list(found) == ["IQM", "median", "mean", "optimality gap"]
    matrix = np.array([[0.2, 0.8], [0.4, 0.8], [0.6, 1.2]])
    expected = [float(f(matrix)) for f in (stats.iqm, stats.median, stats.mean, stats.optimality_gap)]
    assert [e.value for e in found.values()] == pytest.approx(expected)
    assert all(e.low <= e.value <= e.high and e.runs == 3 for e in found.values())
    assert partial.aggregate("nobody", "sampled") == {}


def test_two_agents_are_compared_on_the_tasks_that_both_have(partial):
    found = partial.improvement("some", "all", "sampled")
    assert found.value == pytest.approx(6 / 9)
    assert partial.improvement("all", "some", "sampled").value == pytest.approx(3 / 9)
    assert partial.improvement("some", "nobody", "sampled") is None


def test_a_profile_is_a_curve_over_its_thresholds(partial):
    profile = partial.profile("all", [0.0, 0.5, 1.0, 2.0])
    assert profile.x.tolist() == [0.0, 0.5, 1.0, 2.0]
    assert profile.mean.tolist() == pytest.approx([1, 4 / 6, 1 / 6, 0])
    assert (profile.low <= profile.mean).all() and (profile.mean <= profile.high).all()
    assert partial.profile("nobody", [0.5]) is None


def test_a_task_without_an_optimum_stays_out_of_aggregates(runs, partial):
    raw = runs("Raw", "all", 5.0, 6.0, 7.0)
    for row in raw:
        for mode in scores.MODES:
            row["evaluation"][mode] = {**row["evaluation"][mode], "normalized": None}
        row["curve"] = [[100, 1.0, 2.0, None], [200, 2.0, 4.0, None]]
    results = Results((*partial.rows, *raw))
    assert results.normalized_tasks == ["One", "Two"] and results.matrix("all", "sampled").shape == (3, 2)
    assert results.task_estimate("Raw", "all", "sampled").value == pytest.approx(0.1 + 0.9 * 6)  # the mean return
    assert results.efficiency("Raw", "all") == ()
    assert results.auc("Raw", "all").value == 3.0


def test_efficiency_says_how_many_runs_ever_reached_a_level(runs):
    curves = [line(0.2, 0.6, 0.4, 0.95), line(0.1, 0.2, 0.5, 0.6), line(0.0, 0.1, 0.2, 0.3)]
    half, most = Results(tuple(runs("One", "a", 1, 1, 0, curves=curves))).efficiency("One", "a")
    assert (half.level, half.reached, half.runs, half.steps.value) == (0.5, 2, 3, 250.0)
    assert (most.level, most.reached, most.steps.value) == (0.9, 1, 400.0)
    assert str(most) == "400, 1 of 3"
    assert str(half).startswith("250 [200, 300]") and str(half).endswith(", 2 of 3")
    never = Results(tuple(runs("One", "a", 0, curves=[line(0.1)]))).efficiency("One", "a")
    assert [str(level) for level in never] == ["not reached"] * 2
    assert Results(tuple(runs("One", "a", 0))).efficiency("One", "a") == ()


def test_what_does_not_learn_has_reached_nothing(quick_rows):
    row = {name: value for name, value in quick_rows[-1].items() if name != "reached"}
    assert Results((quick_rows[-1],)).solved("Password", "DQN").runs == 1
    assert Results((row,)).solved("Password", "DQN") is None


def test_efficiency_that_every_run_reached_needs_no_count():
    steps = Estimate(12_345.6, 10_000, 15_000, 5)
    assert str(Efficiency(0.5, 5, 5, steps)) == "12,346 [10,000, 15,000]"


def test_the_area_is_the_mean_training_score(runs):
    results = Results(tuple(runs("One", "a", 1, 1, curves=[line(0.0, 0.5, 1.0), line(0.2, 0.2, 0.2)])))
    assert results.auc("One", "a").value == pytest.approx((0.5 + 0.2) / 2)
    assert results.auc("One", "nobody") is None


def test_a_run_that_stopped_at_its_target_holds_its_score(runs):
    curves = [line(0.0, 1.0), line(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)]
    rows = runs("One", "a", 1, 1, curves=curves)
    for row in rows:
        row["experiment"]["target"] = 1.0
    assert Results(tuple(rows)).auc("One", "a").value == pytest.approx((0.9 + 0.3) / 2)  # of 1,000 steps
    drawn = scores.curve(rows, 3)
    assert drawn.x[-1] == 800 and drawn.mean[-1] == 1.0  # until the last of them stopped
    for row in rows:
        del row["experiment"]["target"]
    assert scores.curve(rows, 3).x[-1] == 200  # else only as far as all of them went


def test_a_curve_has_a_mean_and_a_band_at_every_point(runs):
    drawn = scores.curve(runs("One", "a", 0, 0, curves=[line(0.0, 0.0, 1.0), line(0.0, 1.0, 1.0)]), 3)
    assert (drawn.x[0], drawn.x[-1]) == (100, 300)
    assert np.interp(200, drawn.x, drawn.mean) == pytest.approx(0.5, abs=0.02)
    assert drawn.low[20] < drawn.mean[20] < drawn.high[20]
    assert drawn.low[-1] == drawn.high[-1] == 1.0
    assert scores.curve(runs("One", "a", 0), 3) is None
    apart = runs("One", "a", 0, 0, curves=[line(0.0, 0.5), [[900, 9.0, 0.1, 0.2], [950, 9.5, 0.1, 0.2]]])
    assert scores.curve(apart, 3) is None, "no step lies on both"


def test_the_same_scores_give_the_same_interval():
    matrix = np.random.default_rng(0).normal(size=(5, 3))
    assert scores.estimate(stats.iqm, matrix) == scores.estimate(stats.iqm, matrix.copy())


def test_an_estimate_of_one_run_has_no_interval():
    assert str(scores.estimate(stats.mean, np.array([[0.5]]))) == "0.50"
    assert str(Estimate(0.5, 0.25, -0.001, 3)) == "0.50 [0.25, 0.00]"


def test_a_folder_is_of_one_suite(tmp_path, make_row):
    with open_for_append(tmp_path / ROWS) as writer:
        for name in ("one", "two"):
            writer.append(make_row(experiment("Copy", name), 0, 0.1, suite=name))
            writer.append(make_row(experiment("Sort", name), 0, 0.1, suite=name))
    with pytest.raises(UserError, match="rows of the suites one, two; a report is of one"):
        scores.load(tmp_path)


def test_a_failure_stands_until_its_trial_has_a_newer_row(tmp_path, make_row):
    """Whatever its settings were: a changed suite gives a trial another key."""
    row = {**make_row(experiment("Copy", "PPO"), 0, 0.1), "started": "2025-01-02T00:00:00+00:00"}
    with open_for_append(tmp_path / ROWS) as writer:
        writer.append(row)
    days = {"Copy / PPO / seed 0": "2025-01-01", "Copy / PPO / seed 1": "2025-01-01", "Sort / PPO / seed 0": "2025"}
    with open_for_append(tmp_path / ERRORS) as writer:
        for key, (trial, when) in enumerate([*days.items(), ("Copy / PPO / seed 1", "2025-01-03")]):
            writer.append({"key": str(key), "trial": trial, "when": when, "error": "no"})
    open_ones = [(failure["trial"], failure["when"]) for failure in scores.load(tmp_path).failures]
    assert open_ones == [("Copy / PPO / seed 1", "2025-01-03"), ("Sort / PPO / seed 0", "2025")]
    with open_for_append(tmp_path / ERRORS) as writer:
        writer.append({"key": "x", "trial": "Copy / PPO / seed 0", "when": "2025-01-03", "error": "now it fails"})
    assert len(scores.load(tmp_path).failures) == 3


def test_a_folder_of_failures_says_where_they_are(tmp_path):
    with open_for_append(tmp_path / ERRORS) as writer:
        for key in "ab":  # one trial, tried twice
            writer.append({"key": key, "trial": "Copy / PPO / seed 0", "when": "2025-01-01", "error": "no"})
    with pytest.raises(UserError, match="holds no rows; 1 trial failed, the tracebacks are in .*errors.jsonl"):
        scores.load(tmp_path)
