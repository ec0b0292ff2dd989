import copy
import io
import json

import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import compare, stats, suites
from benchmarks.errors import UserError
from benchmarks.rows import open_for_append
from benchmarks.runner import ROWS
from benchmarks.scores import Results

EPISODES = 512


@pytest.fixture
def run(make_row):
    def make(level, seeds=5, noise=0.02, rng=None, steps=1000):
        """Rows of the experiments named in `level`, each seed's score its level plus noise."""
        rng = rng or np.random.default_rng(0)
        rows = []
        for (task, agent), mean in level.items():
            experiment = suites.Experiment(task, agent, "some/Env-v0", "some:factory", steps=steps)
            rows += [make_row(experiment, seed, mean + noise * rng.normal()) for seed in range(seeds)]
        for row in rows:
            row["evaluation"]["greedy"] = dict(row["evaluation"]["sampled"])
        return Results(tuple(rows))

    return make


def changed(results, difference, agent="PPO", task=None):
    """The same run, one agent's scores shifted."""
    rows = copy.deepcopy(results.rows)
    for row in rows:
        if row["experiment"]["agent"] == agent and task in (None, row["experiment"]["task"]):
            for mode in ("sampled", "greedy"):
                row["evaluation"][mode] = {**row["evaluation"][mode]}
                row["evaluation"][mode]["normalized"] += difference
                row["evaluation"][mode]["mean"] += 0.9 * difference
    return Results(rows)


LEVELS = {(task, agent): 0.7 for task in ("Copy", "Sort", "Recall") for agent in ("PPO", "DQN")}


def verdicts(comparison):
    return {(change.task, change.agent): change.verdict for change in comparison.changes}


def shown(comparison, width=120):
    console = Console(file=io.StringIO(), width=width)
    compare.show(comparison, console)
    return console.file.getvalue()


def test_a_run_is_identical_to_itself(run):
    comparison = compare.compare(run(LEVELS), run(LEVELS))
    assert set(verdicts(comparison).values()) == {"identical"}
    assert comparison.differences == () and comparison.only_a == () == comparison.only_b
    text = shown(comparison)
    assert "Nothing changed beyond noise in 6 experiments (sampled actions)" in text
    assert "Identical to the last digit: 6." in text


def test_a_large_change_is_found_and_nothing_else(run):
    a = run(LEVELS)
    b = run(LEVELS, rng=np.random.default_rng(1))
    comparison = compare.compare(a, changed(b, -0.3, task="Sort"))
    found = verdicts(comparison)
    assert found.pop(("Sort", "PPO")) == "worse" and set(found.values()) == {"no change"}
    change = next(c for c in comparison.changes if c.verdict == "worse")
    assert change.difference.value == pytest.approx(-0.3, abs=0.05)
    assert change.difference.low < change.difference.value < change.difference.high < -0.2
    assert change.improvement.value == 0.0 and change.paired and change.seeds == (5, 5)
    assert "1 of 6 experiments (sampled actions) changed beyond noise: 1 worse, 0 better." in shown(comparison)
    assert "Sort / PPO" in shown(comparison).splitlines()[3]  # what changed comes first
    assert compare.compare(changed(b, -0.3, task="Sort"), a).count("better") == 1


def test_a_small_shift_of_every_seed_is_found_where_seeds_are_paired(run):
    a = run(LEVELS, noise=0.2)
    jitter = changed(run(LEVELS, noise=0.2), 0.0)
    rng = np.random.default_rng(3)
    for row in jitter.rows:
        row["evaluation"]["sampled"] = {**row["evaluation"]["sampled"], "standard_error": 0.002}
        row["evaluation"]["sampled"]["normalized"] += 0.1 + 0.005 * rng.normal()
    for row in a.rows:
        row["evaluation"]["sampled"]["standard_error"] = 0.002
    assert compare.compare(a, jitter).count("better") == 6
    rows = tuple({**row, "seed": row["seed"] + 10} for row in jitter.rows)
    assert compare.compare(a, Results(rows)).count("better") == 0  # other seeds: the spread of seeds hides it


def test_pairs_need_the_same_settings(run):
    comparison = compare.compare(run(LEVELS), run(LEVELS, rng=np.random.default_rng(1), steps=2000))
    assert not any(change.paired for change in comparison.changes)
    (steps,) = comparison.differences
    assert (steps.what, steps.a, steps.b, len(steps.where)) == ("steps", "1000", "2000", 6)
    assert "Differs: steps: 1000 -> 2000 (Copy / PPO; Copy / DQN; Sort / PPO; 3 more)" in shown(comparison)


def test_the_evaluations_own_error_is_noise_too(run):
    a = run(LEVELS, noise=0.0001)
    b = changed(run(LEVELS, noise=0.0001, rng=np.random.default_rng(1)), -0.01)
    assert compare.compare(a, b).count("worse") == 0  # 0.01 of standard error for each seed
    for row in (*a.rows, *b.rows):
        row["evaluation"]["sampled"] = {**row["evaluation"]["sampled"], "standard_error": 0.0001}
    assert compare.compare(a, b).count("worse") == 3


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_are_not_judged(run, seeds):
    comparison = compare.compare(run(LEVELS, seeds), changed(run(LEVELS, seeds), -0.5))
    assert (
        verdicts(comparison)["Copy", "PPO"] == "too few seeds"
        and verdicts(comparison)["Copy", "DQN"] == "identical"
    )
    assert "Not judged: 3. A test needs 3 seeds of both runs, better 5." in shown(comparison)


def test_where_nothing_could_be_judged_nothing_is_said_to_be_unchanged(run):
    level = {("Copy", "PPO"): 0.5}
    text = shown(compare.compare(run(level, 2), changed(run(level, 2), -0.4)))
    assert "none of 1 experiment (sampled actions) could be judged" in text and "Nothing changed" not in text


def test_a_name_is_no_markup(run):
    level = {("[/red]", "a[bold]"): 0.5}
    assert "[/red] / a[bold]" in shown(compare.compare(run(level), run(level)))


def test_few_seeds_are_warned_of(run):
    comparison = compare.compare(run(LEVELS, 3), run(LEVELS, 4, rng=np.random.default_rng(1)))
    text = shown(comparison)
    assert "With 3 seeds only large changes show" in text and "3, 4" in text
    five = compare.compare(run(LEVELS), run(LEVELS, rng=np.random.default_rng(1)))
    assert "only large changes show" not in shown(five)


def test_one_seed_has_no_interval(run):
    text = shown(compare.compare(run(LEVELS, 1, noise=0), run(dict.fromkeys(LEVELS, 0.5), 1, noise=0)))
    assert "[+" not in text and "[-" not in text


def test_what_is_in_one_run_only_is_named(run):
    a, b = run({("Copy", "PPO"): 0.5, ("Sort", "PPO"): 0.5}), run({("Copy", "PPO"): 0.5, ("Copy", "mine"): 0.5})
    comparison = compare.compare(a, b)
    assert (comparison.only_a, comparison.only_b) == (("Sort / PPO",), ("Copy / mine",))
    assert "Only in A: Sort / PPO." in shown(comparison) and "Only in B: Copy / mine." in shown(comparison)


def test_versions_revision_and_hardware_that_differ_are_named(run):
    a, b = run(LEVELS), run(LEVELS)
    for row in b.rows:
        row["versions"] = {"python": "3.11.7", "torch": "2.14.0", "peft": "1"}
        row["revision"], row["hardware"] = None, {**row["hardware"], "cores": 8}
    differences = {d.what: (d.a, d.b) for d in compare.compare(a, b).differences}
    assert differences == {
        "torch": ("2.13.0", "2.14.0"),
        "peft": ("none", "1"),
        "revision": ("0123456789ab", "None"),
        "hardware: cores": ("2", "8"),
    }


def test_returns_are_compared_where_one_run_is_not_normalised(run):
    a, b = run(LEVELS), run(LEVELS)
    for row in b.rows:
        for mode in ("sampled", "greedy"):
            row["evaluation"][mode] = {**row["evaluation"][mode], "normalized": None}
    change = compare.compare(a, b).changes[0]
    assert change.a.value == change.b.value == pytest.approx(0.1 + 0.9 * 0.7, abs=0.03)


def test_runs_without_a_common_experiment_are_refused(run):
    a, b = run({("Copy", "PPO"): 0.5}), run({("Sort", "PPO"): 0.5})
    with pytest.raises(UserError, match=r"no experiment [^\n]*\n  A has Copy / PPO\n  B has Sort / PPO"):
        compare.compare(a, b)


def _normal(rng):
    return rng.normal(0.6, 0.1, 5)


def _skewed(rng):
    return rng.beta(8, 1, 5)


def _solved_or_not(rng):
    return rng.binomial(EPISODES, np.where(rng.random(5) < 0.8, 0.97, 0.3)) / EPISODES


def _evaluation_noise(rng):
    return rng.binomial(EPISODES, 0.97, 5) / EPISODES


@pytest.mark.parametrize("draw", [_normal, _skewed, _solved_or_not, _evaluation_noise])
@pytest.mark.parametrize("paired", [True, False])
def test_noise_is_called_a_change_as_rarely_as_promised(run, draw, paired):
    """How often any of ten unchanged experiments is called changed, in 400 comparisons."""
    rng = np.random.default_rng(7)
    a = run({("Task", "agent"): 0.0})
    b = run({("Task", "agent"): 0.0}, steps=1000 if paired else 2000)
    false = 0
    for _ in range(400):
        false += min(stats.holm([_p_value(a, draw(rng), b, draw(rng)) for _ in range(10)])) < compare.ERROR_RATE
    assert false / 400 <= 0.07


def _p_value(a, scores_a, b, scores_b):
    for results, scores in ((a, scores_a), (b, scores_b)):
        for row, score in zip(results.rows, scores.tolist(), strict=True):
            error = (max(0.0, score * (1 - score)) / EPISODES) ** 0.5
            summary = {"mean": score, "normalized": score, "standard_error": error}
            row["evaluation"] = {"sampled": summary, "greedy": summary}
    p_value = compare._Pair("Task", "agent", a, b, "sampled").p_value()
    return 1.0 if p_value is None else p_value


@pytest.fixture
def folders(run, tmp_path):
    """Two runs on disk, the second one worse at one task."""
    a = run(LEVELS)
    b = changed(run(LEVELS, rng=np.random.default_rng(1)), -0.3, task="Sort")
    for name, results in (("a", a), ("b", b)):
        with open_for_append(tmp_path / name / ROWS) as writer:
            for row in results.rows:
                writer.append(row)
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_the_command_compares_folders(folders, tmp_path, capsys):
    assert command.main(["bench", "compare", *folders]) == 0
    assert "1 worse" in capsys.readouterr().out
    assert command.bench(["compare", *folders, "--fail-on-worse"]) == 1
    assert command.bench(["compare", *folders[::-1], "--fail-on-worse"]) == 0  # better is no failure
    lines = (tmp_path / "b" / ROWS).read_text().splitlines(keepends=True)
    few = [line for line in lines if json.loads(line)["seed"] < 2]
    (tmp_path / "b" / ROWS).write_text("".join(few))
    assert command.bench(["compare", *folders[::-1], "--fail-on-worse"]) == 1  # nor is what nobody knows a success
    (tmp_path / "b" / ROWS).write_text("".join(lines))
    assert command.bench(["compare", *folders, "--mode", "greedy", "--json", str(tmp_path / "out.json")]) == 0
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["mode"] == "greedy" and len(numbers["changes"]) == 6
    assert {c["verdict"] for c in numbers["changes"]} == {"worse", "no change"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["absent"], "holds no rows"), (["b", "--json", "no/such/folder/x.json"], "No such file")],
)
def test_mistakes_are_told_in_a_line(folders, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.bench(["compare", folders[0], *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_steps_beyond_the_budget_differ(run):
    a, b = run(LEVELS), run(LEVELS)
    for row in a.rows:
        if row["experiment"]["agent"] == "PPO":
            row["steps"] = 8_192
    (steps,) = compare.compare(a, b).differences
    assert (steps.what, steps.a, steps.b) == ("steps taken, at most", "8,192", "1,000")
    assert steps.where == ("Copy / PPO", "Sort / PPO", "Recall / PPO")
