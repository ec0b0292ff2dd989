import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import pools, runner
from benchmarks.errors import UserError
from benchmarks.pools import ProcessPool, _Worker
from benchmarks.rows import RowWarning, read_rows
from benchmarks.suites import TAG

CHILD_SECONDS = 40  # of `leaves_a_child`
TIMES = {"wall_seconds", "cpu_seconds", "started", "process"}


@pytest.fixture
def run(recorder):
    def run(suite, out, jobs=2, seeds=3):
        recorder.events = []
        failed = runner.run(runner.plan(suite, seeds), out, ProcessPool(jobs, 1), recorder)
        return failed, recorder.events, read_rows(out / runner.ROWS)

    return run


def without_times(rows):
    kept = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return sorted(kept, key=lambda row: row["key"])


def test_a_row_for_each_trial_and_none_twice(trial_module, make_suite, run, tmp_path):
    suite = make_suite("quick", agents=("one", "two"))
    failed, events, rows = run(suite, tmp_path / "out")
    assert failed == 0
    assert events[0] == ("begin", 6, 0)
    assert sorted(row["value"] for row in rows) == [0, 0, 10, 10, 20, 20]
    for field in (
        "key",
        "schema",
        "experiment",
        "versions",
        "revision",
        "hardware",
        "threads",
        "seed",
        "wall_seconds",
    ):
        assert all(field in row for row in rows)
    assert len({row["process"] for row in rows}) == 2  # two jobs, two processes, kept for all trials

    failed, events, again = run(suite, tmp_path / "out", seeds=4)
    assert events[0] == ("begin", 2, 6)
    assert again[:6] == rows and len(again) == 8


def test_a_failure_is_stored_and_the_others_go_on(trial_module, make_suite, run, tmp_path):
    failed, events, rows = run(make_suite("raises"), tmp_path / "out", jobs=1)
    assert failed == 1
    assert [row["seed"] for row in rows] == [0, 2]
    (error,) = read_rows(tmp_path / "out" / runner.ERRORS)
    assert "RuntimeError: seed one does not work" in error["error"] and "Traceback" in error["error"]
    assert any(event[0] == "failed" and "seed one" in event[2] for event in events)


def test_an_exit_is_a_failure_with_its_traceback(trial_module, make_suite, run, tmp_path):
    failed, events, rows = run(make_suite("leaves"), tmp_path, jobs=1)
    assert failed == 1 and [row["seed"] for row in rows] == [0, 2]
    (error,) = read_rows(tmp_path / runner.ERRORS)
    assert "Traceback" in error["error"] and "SystemExit: seed one goes home" in error["error"]


def test_a_broken_pipe_of_its_own_is_a_failure_like_others(trial_module, make_suite, run, tmp_path):
    failed, events, rows = run(make_suite("breaks"), tmp_path, jobs=1)
    assert failed == 1 and [row["seed"] for row in rows] == [0, 2]
    assert not [event for event in events if event[0] == "died"]
    (error,) = read_rows(tmp_path / runner.ERRORS)
    assert "seed one's own process is gone" in error["error"] and "Traceback" in error["error"]


def test_a_folder_takes_rows_of_one_suite(trial_module, make_suite, run, tmp_path):
    suite = make_suite("quick")
    run(suite, tmp_path, seeds=1)
    with pytest.raises(UserError, match=r"holds rows of suite 'some'; choose another --out"):
        run(replace(suite, name="other"), tmp_path)
    assert len(read_rows(tmp_path / runner.ROWS)) == 1


def test_a_name_stands_for_one_agent_of_your_own(trial_module, make_suite, run, tmp_path):
    suite = make_suite("quick")
    mine, theirs = (
        replace(suite, experiments=(replace(suite.experiments[0], factory=factory, tags=(TAG,)),))
        for factory in ("my_agent:make", "their_agent:make")
    )
    run(mine, tmp_path, seeds=1)
    with pytest.raises(UserError, match="agent 'one' has rows of my_agent:make there, and is their_agent:make now"):
        run(theirs, tmp_path, seeds=2)
    failed, _, rows = run(mine, tmp_path, seeds=2)
    assert failed == 0 and len(rows) == 2


def test_a_trial_that_hangs_is_ended_and_the_next_begins(trial_module, make_suite, recorder, tmp_path):
    assert runner.run(runner.plan(make_suite("hangs"), 2), tmp_path, ProcessPool(1, 1, timeout=1), recorder) == 2
    errors = read_rows(tmp_path / runner.ERRORS)
    assert [error["trial"] for error in errors] == ["Task / one / seed 0", "Task / one / seed 1"]
    assert all(error["error"].startswith("ended after 1 seconds, which --timeout allows") for error in errors)


def test_a_trial_may_have_processes_of_its_own(trial_module, make_suite, run, tmp_path):
    failed, _, rows = run(make_suite("parent"), tmp_path, jobs=1, seeds=2)
    assert failed == 0 and [row["value"] for row in rows] == [0, 10]


def test_a_worker_that_dies_twice_fails_its_own_trial_only(trial_module, make_suite, run, tmp_path):
    failed, events, rows = run(make_suite("dies"), tmp_path / "out", jobs=1)
    assert failed == 1
    assert [row["seed"] for row in rows] == [0, 2]
    assert [event[0] for event in events if event[1] == "Task / one / seed 1"] == [
        "started", "died", "started", "failed",
    ]  # fmt: skip
    (error,) = read_rows(tmp_path / "out" / runner.ERRORS)
    assert "it was killed" in error["error"]


def test_a_trial_whose_worker_died_once_has_its_row_once(trial_module, make_suite, run, tmp_path, monkeypatch):
    monkeypatch.setenv("MARKS", str(tmp_path))
    failed, events, rows = run(make_suite("dies_once"), tmp_path / "out", jobs=2)
    assert failed == 0
    assert sorted(row["seed"] for row in rows) == [0, 1, 2]
    assert [event[1] for event in events if event[0] == "died"] == ["Task / one / seed 1"]
    assert not (tmp_path / "out" / runner.ERRORS).exists()


def test_threads_are_pinned_in_a_worker(trial_module, make_suite, recorder, tmp_path):
    runner.run(runner.plan(make_suite("threads"), 1), tmp_path, ProcessPool(1, 3), recorder)
    (row,) = read_rows(tmp_path / runner.ROWS)
    assert row["threads"] == row["torch"] == 3
    assert row["variables"] == {
        name: "3" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    }


def test_a_nan_is_a_failure_not_a_row(trial_module, make_suite, run, tmp_path):
    failed, _, rows = run(make_suite("nan"), tmp_path / "out", jobs=1, seeds=1)
    assert (failed, rows) == (1, [])
    (error,) = read_rows(tmp_path / "out" / runner.ERRORS)
    assert "makes no row: value[1].mean is nan: is a reward no finite" in error["error"]


@pytest.mark.parametrize(
    ("trial", "told"), [("wrong", "makes no row: steps: 'many' is not of type 'integer'"), ("odd", "not JSON seri")]
)
def test_what_no_row_holds_is_a_failure(trial, told, trial_module, make_suite, run, tmp_path):
    failed, _, rows = run(make_suite(trial), tmp_path / "out", jobs=1, seeds=1)
    (error,) = read_rows(tmp_path / "out" / runner.ERRORS)
    assert (failed, rows) == (1, []) and told in error["error"]


def test_a_worker_is_missed_while_its_child_lives(trial_module, make_suite, run, tmp_path):
    """The child holds the worker's end of the pipe: only the process itself tells that it is gone."""
    started = time.monotonic()
    failed, _, rows = run(make_suite("leaves_a_child"), tmp_path, jobs=1, seeds=2)
    assert failed == 1 and [row["seed"] for row in rows] == [0] and time.monotonic() - started < CHILD_SECONDS
    (error,) = read_rows(tmp_path / runner.ERRORS)
    assert "exit code 7" in error["error"]


def test_a_child_that_comes_back_is_not_the_worker(trial_module, make_suite, run, tmp_path):
    failed, _, rows = run(make_suite("comes_back_twice"), tmp_path, jobs=1)
    assert failed == 1 and [row["seed"] for row in rows] == [0, 2]
    assert len({row["process"] for row in rows}) == 1
    (error,) = read_rows(tmp_path / runner.ERRORS)
    assert error["trial"].endswith("seed 1") and "seed one does not work" in error["error"]


def test_an_interrupt_of_its_own_is_a_failure_told_in_short(trial_module, make_suite, run, tmp_path):
    failed, events, _ = run(make_suite("interrupts"), tmp_path, jobs=1, seeds=1)
    assert failed == 1 and not [event for event in events if event[0] == "died"]
    (error,) = read_rows(tmp_path / runner.ERRORS)
    assert "KeyboardInterrupt" in error["error"] and len(error["error"]) < 21_000


def test_a_worker_that_ignores_the_end_is_killed(trial_module, make_suite, monkeypatch):
    monkeypatch.setattr(pools, "_GRACE", 0.2)
    pool = ProcessPool(1, 1)
    with pool:
        (trial,) = runner.plan(make_suite("ignores_the_end"), 1)
        pool.begin(trial)
        while not list(pool.messages()):
            pass  # until it is in the middle of the trial
        (worker,) = pool._workers
    assert worker.process.exitcode == -signal.SIGKILL


def test_a_timeout_may_be_longer_than_the_system_waits(trial_module, make_suite, recorder, tmp_path):
    pool = ProcessPool(1, 1, timeout=10**12)
    assert runner.run(runner.plan(make_suite("quick"), 1), tmp_path, pool, recorder) == 0


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from benchmarks import pools, runner, suites

class Quiet:
    def __getattr__(self, name):
        return lambda *arguments: None

if __name__ == "__main__":
    experiment = suites.Experiment("Task", "one", "some/Env-v0", "some:factory", trial="some_trials:" + sys.argv[3])
    suite = suites.Suite("some", "", (experiment,))
    runner.run(runner.plan(suite, 4), Path(sys.argv[1]), pools.ProcessPool(1, 1), Quiet())
"""


def _start(tmp_path, out, modules, trial="slow"):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(modules)])
    return subprocess.Popen(
        [sys.executable, str(script), str(out), str(modules), trial],
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
def test_kill_9_and_again_is_as_if_nothing_happened(trial_module, make_suite, run, tmp_path):
    out = tmp_path / "killed"
    process = _start(tmp_path, out, trial_module)
    _wait_for_a_row(out, process)
    process.kill()
    process.wait()
    _wait_until_gone(process.pid)  # the worker notices that its parent is gone
    (out / runner.ROWS).write_bytes((out / runner.ROWS).read_bytes() + b'{"key": "torn')
    with pytest.warns(RowWarning, match="torn"):
        partial = read_rows(out / runner.ROWS)
    assert 1 <= len(partial) < 4

    with pytest.warns(RowWarning, match="kept in rows.torn"):
        _, events, rows = run(make_suite("slow"), out, jobs=2, seeds=4)
    assert events[0] == ("begin", 4 - len(partial), len(partial))
    _, _, uninterrupted = run(make_suite("slow"), tmp_path / "whole", jobs=2, seeds=4)
    assert without_times(rows) == without_times(uninterrupted)


@pytest.mark.slow
def test_a_worker_leaves_with_its_parent_in_the_middle_of_a_trial(trial_module, tmp_path):
    process = _start(tmp_path, tmp_path / "out", trial_module, trial="silent")
    _wait_for_a_row(tmp_path / "out", process)
    process.kill()
    process.wait()
    _wait_until_gone(process.pid)


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
    longer = make_suite("quick", agents=("1,000 at 10%, ensemble", "1,000 at 10%"))
    chosen = runner.plan(longer, 1, only="Task / 1,000 at 10%")
    assert [t.experiment.agent for t in chosen] == ["1,000 at 10%"], "a whole name is no part of another"
    with pytest.raises(UserError, match="Task / PPO"):
        runner.plan(suite, 1, only="absent")
    with pytest.raises(UserError, match="--seeds 0"):
        runner.plan(suite, 0)


def test_two_equal_experiments_are_refused(make_suite):
    with pytest.raises(UserError, match="same configuration"):
        runner.plan(make_suite("quick", agents=("one", "one")))


def test_a_worker_killed_in_the_middle_of_a_message_has_died():
    worker = _Worker(1)
    worker.trial = "a trial"
    worker.process.kill()
    worker.connection, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"torn")
    theirs.close()
    assert worker.receive().kind == "died"
