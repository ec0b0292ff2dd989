import os
import signal
import sys
import threading
import time

import pytest

from benchmarks import runner
from benchmarks.errors import UserError
from benchmarks.pools import ProcessPool
from benchmarks.ray_pool import RayPool
from benchmarks.rows import read_rows

NOT_THE_SAME = {"wall_seconds", "cpu_seconds", "started", "process"}


def ray_run(suite, out, recorder, jobs=2, seeds=4):
    failed = runner.run(runner.plan(suite, seeds), out, RayPool("local", jobs, 1), recorder)
    return failed, read_rows(out / runner.ROWS)


def comparable(rows):
    kept = [{name: value for name, value in row.items() if name not in NOT_THE_SAME} for row in rows]
    return sorted(kept, key=lambda row: row["key"])


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(trial_module, make_suite, recorder, tmp_path, monkeypatch):
    monkeypatch.setenv("MARKS", str(tmp_path))
    pytest.importorskip("ray")
    mark = tmp_path / "1"

    def kill():
        deadline = time.monotonic() + 120
        while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # in the middle of its trial
        os.kill(int(mark.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    failed, rows = ray_run(make_suite("killable"), tmp_path / "ray", recorder)
    killer.join()
    assert failed == 0
    assert sorted(row["seed"] for row in rows) == [0, 1, 2, 3]
    assert [event[1] for event in recorder.events if event[0] == "died"] == ["Task / one / seed 1"]
    assert ("advanced", 0.5) in recorder.events
    runner.run(runner.plan(make_suite("killable"), 4), tmp_path / "here", ProcessPool(1, 1), recorder)
    assert comparable(rows) == comparable(read_rows(tmp_path / "here" / runner.ROWS))


@pytest.mark.slow
@pytest.mark.timeout(900)  # Ray starts workers slowly on a busy machine
def test_threads_deaths_and_silence(trial_module, make_suite, recorder, tmp_path, monkeypatch, capfd):
    pytest.importorskip("ray")
    monkeypatch.setattr(RayPool, "attempts", 2)
    failed, rows = ray_run(make_suite("threads"), tmp_path / "threads", recorder, seeds=1)
    assert failed == 0 and rows[0]["torch"] == 1 and set(rows[0]["variables"].values()) == {"1"}
    assert capfd.readouterr() == ("", "")
    failed, rows = ray_run(make_suite("dies"), tmp_path / "dies", recorder, jobs=1, seeds=3)
    assert failed == 1 and [row["seed"] for row in rows] == [0, 2]
    (error,) = read_rows(tmp_path / "dies" / runner.ERRORS)
    assert "the Ray worker died" in error["error"]


@pytest.mark.slow
def test_a_trial_that_raises_is_stored(trial_module, make_suite, recorder, tmp_path):
    pytest.importorskip("ray")
    failed, rows = ray_run(make_suite("raises"), tmp_path, recorder, seeds=3)
    assert failed == 1 and sorted(row["seed"] for row in rows) == [0, 2]
    (error,) = read_rows(tmp_path / runner.ERRORS)
    assert "Traceback" in error["error"] and error["error"].endswith("RuntimeError: seed one does not work\n")


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended(trial_module, make_suite, recorder, tmp_path):
    pytest.importorskip("ray")
    assert (
        runner.run(runner.plan(make_suite("hangs"), 2), tmp_path, RayPool("local", 1, 1, timeout=1), recorder) == 2
    )
    errors = read_rows(tmp_path / runner.ERRORS)
    assert all(error["error"].startswith("ended after 1 seconds") for error in errors)


def test_no_cluster_there(make_suite, recorder, tmp_path):
    pytest.importorskip("ray")
    pool = RayPool("127.0.0.1:1", 1, 1)
    with pytest.raises(UserError, match="--ray 127.0.0.1:1: no cluster can be joined there"):
        runner.run(runner.plan(make_suite("quick"), 1), tmp_path, pool, recorder)


def test_without_ray(make_suite, recorder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray needs Ray: pip install 'text-envs\[ray\]'"):
        runner.run(runner.plan(make_suite("quick"), 1), tmp_path, RayPool("local", 1, 1), recorder)
