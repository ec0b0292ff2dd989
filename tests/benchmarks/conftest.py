import resource
import signal
import sys
from contextlib import contextmanager

import pytest

from benchmarks import suites
from benchmarks.report.drawing import inks

TRIALS = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

def quick(experiment, seed, report):
    report(0.5)
    return {"value": seed * 10, "process": os.getpid()}

def slow(experiment, seed, report):
    for i in range(40):
        time.sleep(0.05)
        report(i / 40)
    return {"value": seed * 10}

def raises(experiment, seed, report):
    if seed == 1:
        raise RuntimeError("seed one does not work")
    return {"value": seed * 10}

def dies(experiment, seed, report):
    if seed == 1:
        os.kill(os.getpid(), 9)
    return {"value": seed * 10}

def dies_once(experiment, seed, report):
    mark = Path(os.environ["MARKS"], f"{seed}")
    if seed == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return {"value": seed * 10}

def killable(experiment, seed, report):
    mark = Path(os.environ["MARKS"], f"{seed}")
    report(0.5)
    if seed == 1 and not mark.exists():
        mark.write_text(str(os.getpid()))
        time.sleep(60)
    return {"value": seed * 10, "process": os.getpid()}

def threads(experiment, seed, report):
    import torch
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {"torch": torch.get_num_threads(), "variables": {name: os.environ[name] for name in names}}

def nan(experiment, seed, report):
    return {"value": [0.0, {"mean": float("nan")}]}

def wrong(experiment, seed, report):
    return {"steps": "many"}

def odd(experiment, seed, report):
    return {"value": {1, 2}}

def leaves_a_child(experiment, seed, report):
    if seed == 1:
        if os.fork() == 0:
            time.sleep(40)
        os._exit(7)
    return {"value": seed * 10}

def comes_back_twice(experiment, seed, report):
    if seed == 0:
        os.fork()
        report(0.5)
    elif seed == 1:
        time.sleep(1)
        raise RuntimeError("seed one does not work")
    return {"value": seed * 10, "process": os.getpid()}

def interrupts(experiment, seed, report):
    raise KeyboardInterrupt("x" * 1_000_000)

def ignores_the_end(experiment, seed, report):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(0.5)
    time.sleep(600)

def leaves(experiment, seed, report):
    sys.exit("seed one goes home") if seed == 1 else None
    return {"value": seed * 10}

def silent(experiment, seed, report):
    time.sleep(600 if seed == 1 else 0)
    return {"value": seed * 10}

def hangs(experiment, seed, report):
    time.sleep(600)

def parent(experiment, seed, report):
    with ProcessPoolExecutor(1) as children:
        return {"value": children.submit(abs, -10 * seed).result()}

def breaks(experiment, seed, report):
    if seed == 1:
        raise BrokenPipeError("seed one's own process is gone")
    return {"value": seed * 10}

def surrogate(experiment, seed, report):
    return {"value": "\\ud800"}
"""


@pytest.fixture(autouse=True)
def ctrl_c_works():
    """Shells start background jobs with SIGINT ignored, and processes inherit that."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def trial_module(tmp_path, monkeypatch):
    """Trials that need no agent, importable in this process and in spawned ones."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "some_trials.py").write_text(TRIALS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield folder
    sys.modules.pop("some_trials", None)


@pytest.fixture
def make_suite():
    def make(trial, agents=("one",), task="Task"):
        experiments = tuple(
            suites.Experiment(task, agent, "some/Env-v0", "some:factory", trial=f"some_trials:{trial}")
            for agent in agents
        )
        return suites.Suite("some", "a suite for tests", experiments)

    return make


@pytest.fixture
def small_files():
    """A context in which no file of this process can grow beyond some bytes: a full disk, as a write sees it."""

    @contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


class Recorder:
    def __init__(self):
        self.events = []

    def begin(self, trials, done, place):
        self.events.append(("begin", len(trials), len(done)))

    def started(self, trial):
        self.events.append(("started", trial.name))

    def advanced(self, trial, fraction):
        self.events.append(("advanced", fraction))

    def finished(self, trial, row):
        self.events.append(("finished", trial.name))

    def died(self, trial, reason):
        self.events.append(("died", trial.name, reason))

    def failed(self, trial, error):
        self.events.append(("failed", trial.name, error))


@pytest.fixture
def recorder():
    return Recorder()


def synthetic_row(experiment, seed, score, suite="quick", curve=()):
    """A row as `trial.py` makes it, with chosen scores."""
    summary = {"episodes": 512, "mean": 0.1 + 0.9 * score, "standard_error": 0.01, "normalized": score}
    return {
        "key": experiment.key(seed),
        "suite": suite,
        "experiment": experiment.configuration(),
        "seed": seed,
        "steps": experiment.steps,
        "train_seconds": 10.0,
        "steps_per_second": experiment.steps / 10 or None,
        "curve": [list(point) for point in curve],
        "evaluation": {"sampled": summary, "greedy": {**summary, "normalized": min(1.0, score + 0.01)}},
        "samples": [{"prompt": "a|b", "completion": f"<i>{i}\nnext", "reward": i / 2} for i in range(3)],
        "wall_seconds": 12.0,
        "started": "2025-01-02T03:04:05+00:00",
        "threads": 1,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "revision": "0123456789ab",
        "hardware": {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "gpu": None, "system": "Linux"},
    }


@pytest.fixture
def look_of():
    """A function rows -> the inks of their agents, as a report draws them."""
    return lambda rows: inks(list(dict.fromkeys(row["experiment"]["agent"] for row in rows)))


@pytest.fixture
def make_row():
    """Make rows of any suite up."""
    return synthetic_row


@pytest.fixture
def quick_rows():
    """Rows of the whole suite `quick`, made up."""
    level = {"random": 0.0, "SB3 PPO, raw ids": 0.3, "SB3 PPO, one-hot": 0.7, "PPO": 0.97, "DQN": 0.96}
    rows = []
    for experiment in suites.get("quick").experiments:
        for seed in range(3):
            score = level[experiment.agent] + 0.01 * seed
            points = [
                (experiment.steps * i // 10, 1.0 * i, 0.1 + 0.09 * score * i, score * i / 10) for i in range(1, 11)
            ]
            curve = points if experiment.steps else ()
            row = synthetic_row(experiment, seed, score, curve=curve)
            rows.append({**row, "reached": None} if experiment.steps else row)
    return rows
