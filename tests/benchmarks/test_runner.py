import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import runner, suites
from benchmarks.errors import UserError
from benchmarks.rows import read_rows

TIMES = {"wall_seconds", "started", "process"}


class Recorder:
    def __init__(self):
        self.events = []

    def begin(self, trials, skipped, jobs):
        self.events.append(("begin", len(trials), skipped))

    def started(self, trial):
        self.events.append(("started", trial.name))

    def advanced(self, trial, fraction):
        self.events.append(("advanced", fraction))

    def finished(self, trial, row):
        self.events.append(("finished", trial.name))

    def failed(self, trial, error):
        self.events.append(("failed", trial.name, error))


def run(suite, out, jobs=2, seeds=3, **options):
    display = Recorder()
    failed = runner.run(runner.plan(suite, seeds, **options), out, jobs, 1, display)
    return failed, display.events, read_rows(out / runner.ROWS)


def without_times(rows):
    kept = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return sorted(kept, key=lambda row: row["key"])


def test_a_row_for_each_trial_and_none_twice(trial_module, make_suite, tmp_path):
    suite = make_suite("quick", agents=("one", "two"))
    failed, events, rows = run(suite, tmp_path / "out")
    assert failed == 0
    assert events[0] == ("begin", 6, 0)
    assert sorted(row["value"] for row in rows) == [0, 0, 10, 10, 20, 20]
    for field in ("key", "experiment", "versions", "hardware", "threads", "seed", "wall_seconds"):
        assert all(field in row for row in rows)
    assert len({row["process"] for row in rows}) == 2  # two jobs, two processes, kept for all trials

    failed, events, again = run(suite, tmp_path / "out", seeds=4)
    assert events[0] == ("begin", 2, 6)
    assert again[:6] == rows and len(again) == 8


def test_a_failure_is_stored_and_the_others_go_on(trial_module, make_suite, tmp_path):
    failed, events, rows = run(make_suite("raises"), tmp_path / "out", jobs=1)
    assert failed == 1
    assert [row["seed"] for row in rows] == [0, 2]
    (error,) = read_rows(tmp_path / "out" / runner.ERRORS)
    assert "RuntimeError: seed one does not work" in error["error"] and "Traceback" in error["error"]
    assert any(event[0] == "failed" and "seed one" in event[2] for event in events)


def test_a_worker_that_dies_fails_its_own_trial_only(trial_module, make_suite, tmp_path):
    failed, _, rows = run(make_suite("dies"), tmp_path / "out", jobs=1)
    assert failed == 1
    assert [row["seed"] for row in rows] == [0, 2]
    (error,) = read_rows(tmp_path / "out" / runner.ERRORS)
    assert "exit code -9" in error["error"]


def test_a_nan_is_a_failure_not_a_row(trial_module, make_suite, tmp_path):
    failed, _, rows = run(make_suite("nan"), tmp_path / "out", jobs=1, seeds=1)
    assert (failed, rows) == (1, [])


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from benchmarks import runner, suites

class Quiet:
    def __getattr__(self, name):
        return lambda *arguments: None

if __name__ == "__main__":
    experiment = suites.Experiment("Task", "one", "some/Env-v0", "some:factory", trial="some_trials:slow")
    suite = suites.Suite("some", "", (experiment,))
    runner.run(runner.plan(suite, 4), Path(sys.argv[1]), 1, 1, Quiet())
"""


def _start(tmp_path, out, modules):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(modules)])
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(modules)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _wait_for_a_row(out, process):
    deadline = time.monotonic() + 60
    while not ((out / runner.ROWS).exists() and (out / runner.ROWS).read_bytes()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # well within the next trial


def _wait_until_gone(group):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"processes of group {group} are still running")


@pytest.mark.slow
def test_kill_9_and_again_is_as_if_nothing_happened(trial_module, make_suite, tmp_path):
    out = tmp_path / "killed"
    process = _start(tmp_path, out, trial_module)
    _wait_for_a_row(out, process)
    process.kill()
    process.wait()
    _wait_until_gone(process.pid)  # the worker notices that its parent is gone
    (out / runner.ROWS).write_bytes((out / runner.ROWS).read_bytes() + b'{"key": "torn')
    with pytest.warns(UserWarning, match="torn"):
        partial = read_rows(out / runner.ROWS)
    assert 1 <= len(partial) < 4

    _, events, rows = run(make_suite("slow"), out, jobs=2, seeds=4)
    assert events[0] == ("begin", 4 - len(partial), len(partial))
    _, _, uninterrupted = run(make_suite("slow"), tmp_path / "whole", jobs=2, seeds=4)
    assert without_times(rows) == without_times(uninterrupted)


@pytest.mark.slow
def test_ctrl_c_leaves_whole_rows_and_no_processes(trial_module, tmp_path):
    out = tmp_path / "stopped"
    process = _start(tmp_path, out, trial_module)
    _wait_for_a_row(out, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert errors.count(b"Traceback") == 1  # the parent's own; workers stay silent
    _wait_until_gone(process.pid)
    assert 1 <= len(read_rows(out / runner.ROWS)) < 4
    assert (out / runner.ROWS).read_bytes().endswith(b"\n")


def test_only_picks_experiments(make_suite):
    suite = make_suite("quick", agents=("PPO", "DQN"))
    assert [t.experiment.agent for t in runner.plan(suite, 1, only="*ppo")] == ["PPO"]
    assert [t.experiment.agent for t in runner.plan(suite, 1, only="dqn")] == ["DQN"]
    with pytest.raises(UserError, match="Task / PPO"):
        runner.plan(suite, 1, only="absent")
    with pytest.raises(UserError, match="--seeds 0"):
        runner.plan(suite, 0)


def test_two_equal_experiments_are_refused(make_suite):
    with pytest.raises(UserError, match="same configuration"):
        runner.plan(make_suite("quick", agents=("one", "one")))


def test_the_key_names_the_exact_configuration():
    base = dict(task="T", agent="A", env_id="e", factory="f:g")
    experiment = suites.Experiment(**base, env_kwargs={"a": 1, "b": 2})
    same = suites.Experiment(**base, env_kwargs={"b": 2, "a": 1}, tags=("x",))
    other = suites.Experiment(**base, env_kwargs={"a": 1, "b": 3})
    assert experiment.key(0) == same.key(0)
    assert len({experiment.key(0), experiment.key(1), other.key(0)}) == 3


@pytest.mark.parametrize("name", ["quick", "learning", "sparse"])
def test_suites_are_whole(name):
    suite = suites.get(name)
    names = [experiment.name for experiment in suite.experiments]
    assert len(set(names)) == len(names)
    for experiment in suite.experiments:
        assert callable(suites.resolve(experiment.factory))
        assert callable(suites.resolve(experiment.trial))
        assert experiment.eval_episodes >= 512
        suites.Experiment(**experiment.configuration())


def test_unknown_names_say_what_there_is():
    with pytest.raises(UserError, match="quick, learning, sparse, real"):
        suites.get("quikc")
    with pytest.raises(ValueError, match="absent:nothing"):
        suites.resolve("absent:nothing")
