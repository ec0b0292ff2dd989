import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import own, runner, suites
from benchmarks.report import runs
from benchmarks.scores import Results


@pytest.fixture
def keys_of(monkeypatch):
    """Return the keys of the trials that a command would run."""
    planned = []

    def run(trials, out, pool, display):
        planned.append([trial.key for trial in trials])
        return 0

    monkeypatch.setattr(runner, "run", run)

    def keys_of(command):
        name, bench, *words = shlex.split(command)
        assert (name, bench) == ("text-envs", "bench")
        assert command_line.bench(words) == 0
        return planned.pop()

    return keys_of


def test_a_rows_command_makes_the_row_again(quick_rows, keys_of):
    for row in quick_rows[:6] + quick_rows[-1:]:
        command = runs.command(row, Path("results/quick"))
        assert command.endswith("--out runs/quick")
        assert keys_of(command)[-1] == row["key"]


def test_the_command_of_an_own_agent_names_it(make_row, keys_of, tmp_path, monkeypatch):
    (tmp_path / "their_agent.py").write_text("def make(env, seed, depth):\n    return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    agent = own.parse_agent('mine=their_agent:make{"depth": 3}')
    env = own.parse_env('Short=text_envs/Copy-v0{"length": 3}')
    suite = own.with_own(suites.get("quick"), [agent], [env], steps=77)
    row = make_row(suite.experiments[0], 1, 0.5)
    assert keys_of(runs.command(row, tmp_path))[-1] == row["key"]
    section = runs.how_to_repeat(Results((row,)), tmp_path)
    assert row["key"] in keys_of(section.code.splitlines()[0])


def test_a_suite_is_repeated_by_one_command(quick_rows, keys_of):
    section = runs.how_to_repeat(Results(tuple(quick_rows)), Path("quick"))
    again, report = section.code.splitlines()
    assert set(keys_of(again)) == {row["key"] for row in quick_rows}
    assert report == "text-envs report runs/quick"


def test_cost_sums_what_rows_say(make_row):
    experiment = suites.Experiment("Task", "PPO", "some/Env-v0", "some:factory", steps=1500)
    rows = [make_row(experiment, seed, 0.5) for seed in range(2)]
    rows += [make_row(replace(experiment, agent="random", steps=0), 0, 0.0)]
    rows[2]["train_seconds"] = 0.0
    (table,) = runs.cost(Results(tuple(rows))).tables
    assert table.header == ("agent", "trials", "environment steps", "training", "in all", "steps/s")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["PPO", "2", "3,000", "20 s", "24 s", "150"],
        ["random", "1", "", "", "12 s", ""],
        ["all", "3", "3,000", "20 s", "36 s", "150"],
    ]
    counted = [{**rows[0], "tokens": 5000, "cpu_seconds": 9.0}]
    (table,) = runs.cost(Results(tuple(counted))).tables
    (told,) = table.rows
    assert [told[table.header.index(name)].text for name in ("tokens", "CPU")] == ["5,000", "9 s"]


def test_what_was_run_groups_what_is_alike(make_row):
    def experiment(task, agent, steps, **settings):
        return suites.Experiment(task, agent, f"text_envs/{task}-v0", "some:make", {"length": 2}, settings, steps)

    rows = [make_row(experiment("Copy", "PPO", 1000), 0, 0.5), make_row(experiment("Sort", "PPO", 2000), 0, 0.5)]
    rows += [make_row(experiment("Copy", "deep", 1000, depth=3), 0, 0.5)]
    rows[1]["revision"] = "abc+"
    environments, agents, facts = runs.what_was_run(Results(tuple(rows))).tables
    assert [row[1].text for row in environments.rows] == [
        "text_envs/Copy-v0(length=2)",
        "text_envs/Sort-v0(length=2)",
    ]
    assert [[cell.text for cell in row] for row in agents.rows] == [
        ["PPO", "some:make()", "all", "1,000 or 2,000"],
        ["deep", "some:make(depth=3)", "Copy", "1,000"],
    ]
    assert facts.rows[-1][1].text == "0123456789ab, abc+ (+: with uncommitted changes)"


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (150, "2 minutes"), (3600 * 3, "3.0 hours")])
def test_a_time_is_told_in_the_unit_that_suits(seconds, text):
    assert runs.duration(seconds) == text


def test_a_revision_that_is_not_known_is_said_to_be(quick_rows):
    results = Results(({**quick_rows[0], "revision": None},))
    facts = {label.text: value.text for label, value in runs.what_was_run(results).tables[-1].rows}
    assert facts["revision"] == "not known: an installed package"


@pytest.mark.parametrize(
    ("tasks", "agents", "patterns"),
    [
        (["Copy"], None, ["Copy / *"]),
        (None, ["PPO"], ["* / PPO"]),
        (["Copy"], ["PPO"], ["Copy / PPO"]),
        (["Copy", "Reverse"], None, ["Copy / *", "Reverse / *"]),
        (["Copy", "Reverse"], ["PPO", "DQN"], ["Copy / PPO", "Copy / DQN", "Reverse / PPO", "Reverse / DQN"]),
        (None, ["PPO", "DQN"], ["* / PPO", "* / DQN"]),
    ],
)
def test_a_part_of_a_suite_is_repeated_as_that_part(tasks, agents, patterns, quick_rows, keys_of):
    part = [
        row
        for row in quick_rows
        if (not tasks or row["experiment"]["task"] in tasks)
        and (not agents or row["experiment"]["agent"] in agents)
    ]
    *commands, _ = runs.how_to_repeat(Results(tuple(part)), Path("quick")).code.splitlines()
    assert [words[words.index("--only") + 1] for words in map(shlex.split, commands)] == patterns
    assert sorted(key for command in commands for key in keys_of(command)) == sorted(row["key"] for row in part)
