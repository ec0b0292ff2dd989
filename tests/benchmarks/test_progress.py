import io

import pytest
from rich.console import Console

from benchmarks.progress import RunningScores, TerminalDisplay
from benchmarks.suites import Experiment
from benchmarks.work import Trial


def trial(agent, seed, task="Copy"):
    return Trial("some", Experiment(task, agent, "some/Env-v0", "some:factory", steps=100), seed)


def row(trial, score=0.5, mean=2.0, seconds=3.0):
    names = {"task": trial.experiment.task, "agent": trial.experiment.agent}
    return {
        "experiment": names,
        "wall_seconds": seconds,
        "evaluation": {"sampled": {"normalized": score, "mean": mean}},
    }


def text_of(table, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(*table)
    return [line.split() for line in console.file.getvalue().splitlines()]


def console(terminal, height=24):
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, height=height, color_system=None)


def test_plain_lines_where_there_is_no_terminal():
    screen = console(terminal=False)
    one, two, three, old = (trial(agent, 0) for agent in ("PPO", "DQN", "[red]", "random"))
    with TerminalDisplay(screen) as display:
        display.begin([one, two, three], [row(old)], "2 at a time")
        display.started(one)
        display.advanced(one, 0.5)
        display.finished(one, row(one, score=0.25))
        display.started(two)
        display.died(two, "it was killed")
        display.started(two)
        display.failed(two, "Traceback\nRuntimeError: [bold]no")
        display.started(three)
        display.finished(three, row(three, score=None))
    assert screen.file.getvalue().splitlines() == [
        "3 trials to run (1 have their row already): 2 at a time",
        "done    Copy / PPO / seed 0    score  0.250     3.0 s",
        "again   Copy / DQN / seed 0: it was killed",
        "failed  Copy / DQN / seed 0",
        "Traceback",
        "RuntimeError: [bold]no",
        "done    Copy / [red] / seed 0  return  2.000     3.0 s",
    ]


def test_a_long_line_is_not_broken_in_a_file():
    screen, one = console(terminal=False), trial("an agent of a long name" * 4, 0)
    with TerminalDisplay(screen) as display:
        display.begin([one], [], "")
        display.started(one)
        display.finished(one, row(one))
    assert screen.file.getvalue().splitlines()[1].endswith("score  0.500     3.0 s")


def test_the_bar_of_all_moves_with_the_trials_and_back_where_a_worker_died():
    display = TerminalDisplay(console(terminal=False))
    one, two = trial("PPO", 0), trial("DQN", 0)
    display.begin([one, two], [], "")
    display.started(one)
    display.started(two)
    everything = display._progress.tasks[0]
    display.advanced(one, 0.5)
    assert everything.percentage == pytest.approx(25)
    display.finished(one, row(one))
    display.advanced(two, 0.5)
    assert everything.percentage == pytest.approx(75)
    display.died(two, "gone")
    assert everything.percentage == pytest.approx(50)
    assert len(display._progress.tasks) == 1


@pytest.mark.parametrize("height", [8, 24, 60])
def test_what_is_shown_on_a_terminal_fits_on_it(height):
    screen = console(terminal=True, height=height)
    trials = [trial(f"agent {i}", 0) for i in range(100)]
    with TerminalDisplay(screen) as display:
        display.begin(trials, [], "2 at a time")
        for one in trials[:90]:
            display.started(one)
            display.finished(one, row(one))
        for one in trials[90:92]:
            display.started(one)
        lines = screen.render_lines(display._picture())
    text = ["".join(segment.text for segment in line) for line in lines]
    assert len(lines) <= height - 1
    assert all(len(line) <= 80 for line in text)
    assert "agent 91" in text[-1] and text[-3].startswith("all") and "left" in text[-3]


def test_running_scores_are_means_of_the_seeds():
    scores = RunningScores()
    assert not list(scores.table(10))
    trials = [trial(agent, seed) for seed in range(3) for agent in ("PPO", "DQN", "other")]
    scores.expect(trials[1:], [row(trials[0], score=0.2)])
    scores.add(row(trials[3], score=0.4))
    scores.add(row(trials[1], score=None, mean=7.0))
    assert text_of(scores.table(10)) == [
        ["task", "agent", "score", "so", "far", "seeds"],
        ["Copy", "PPO", "0.300", "2", "of", "3"],
        ["Copy", "DQN", "return", "7.000", "1", "of", "3"],
        ["and", "1", "more"],
    ]
    scores.add(row(trials[0], score=0.9))  # now the latest
    assert [line[1] for line in text_of(scores.table(1))] == ["agent", "PPO", "2"]
    assert not list(scores.table(0)) and not list(scores.table(-3))
