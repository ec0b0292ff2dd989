"""Runs trials in processes of their own and appends one row for each; what a trial does lives in `trial.py`.

Nothing heavy is imported here: workers set their threads before numpy and torch are loaded.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from .errors import UserError
from .rows import RESULT, Row, RowWriter, open_for_append, read_rows
from .suites import Experiment, Suite, resolve

ROWS = "rows.jsonl"
ERRORS = "errors.jsonl"
_REPORT_SECONDS = 0.25


@dataclass(frozen=True)
class Trial:
    """One experiment with one seed."""

    suite: str
    experiment: Experiment
    seed: int

    @property
    def key(self) -> str:
        """The key of its row."""
        return self.experiment.key(self.seed)

    @property
    def name(self) -> str:
        """How it is called on the screen."""
        return f"{self.experiment.name} / seed {self.seed}"


class Display(Protocol):
    """Shows how a run goes on."""

    def begin(self, trials: Sequence[Trial], skipped: int, jobs: int) -> None:
        """A run begins; `skipped` trials have their rows already."""

    def started(self, trial: Trial) -> None:
        """A trial begins."""

    def advanced(self, trial: Trial, fraction: float) -> None:
        """A trial has reached a fraction of its work."""

    def finished(self, trial: Trial, row: Row) -> None:
        """A trial's row is on the disk."""

    def failed(self, trial: Trial, error: str) -> None:
        """A trial raised; its traceback is on the disk."""


def plan(suite: Suite, seeds: int | None = None, only: str | None = None) -> list[Trial]:
    """Return the trials of a suite, one seed of everything before the next.

    Raises:
        UserError: if the pattern matches nothing, or two experiments cannot be told apart.
    """
    chosen = [e for e in suite.experiments if only is None or e.matches(only)]
    if not chosen:
        names = "\n  ".join(experiment.name for experiment in suite.experiments)
        raise UserError(f"--only {only!r} matches no experiment of suite {suite.name!r}, which has\n  {names}")
    count = suite.seeds if seeds is None else seeds
    if count < 1:
        raise UserError(f"--seeds {count}; give at least 1")
    trials = [Trial(suite.name, experiment, seed) for seed in range(count) for experiment in chosen]
    if len({trial.key for trial in trials}) < len(trials):
        raise UserError(f"suite {suite.name!r} holds two experiments with the same configuration")
    return trials


def run(trials: Sequence[Trial], out: Path, jobs: int, threads: int, display: Display) -> int:
    """Run the trials that have no row in `out` yet and return how many failed.

    Rows go to `out`/rows.jsonl, tracebacks to `out`/errors.jsonl.

    Raises:
        RowError: if `out` cannot be written, or its rows are not whole; nothing has been run then.
    """
    with open_for_append(out / ROWS) as rows:
        known = {row["key"] for row in read_rows(out / ROWS, RESULT)}
        waiting = [trial for trial in trials if trial.key not in known]
        display.begin(waiting, len(trials) - len(waiting), jobs)
        with _Pool(min(jobs, len(waiting)), threads) as pool:
            return _drive(pool, waiting, rows, out / ERRORS, display)


def _drive(pool: _Pool, waiting: list[Trial], rows: RowWriter, errors: Path, display: Display) -> int:
    """Hand out trials and take in what comes back, until nothing is left."""
    queue, failed = waiting[::-1], 0
    while True:
        for worker in pool.idle():
            if queue:
                worker.begin(queue.pop())
                display.started(worker.busy_with)
        if not pool.busy():
            return failed
        for worker in pool.ready():
            trial = worker.busy_with
            kind, content = worker.receive()
            if kind == "progress":
                display.advanced(trial, content)
                continue
            worker.trial = None
            if kind == "row":
                rows.append(content)
                display.finished(trial, content)
            else:
                failed += 1
                _append_error(errors, trial, content)
                display.failed(trial, content)
                pool.replace_if_dead(worker)


def _append_error(path: Path, trial: Trial, error: str) -> None:
    entry = {
        "key": trial.key,
        "trial": trial.name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": error,
    }
    with open_for_append(path) as errors:
        errors.append(entry)


class _Worker:
    """A spawned process that makes one row after another."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, threads), daemon=True)
        with _ignored_interrupt():  # inherited: Ctrl-C is the parent's to answer
            self.process.start()
        theirs.close()  # so that the death of the process ends the pipe
        self.trial: Trial | None = None

    @property
    def busy_with(self) -> Trial:
        """The trial it works on."""
        if self.trial is None:
            raise RuntimeError("this worker is idle")
        return self.trial

    def begin(self, trial: Trial) -> None:
        self.trial = trial
        self.connection.send(trial)

    def receive(self) -> tuple[str, Any]:
        """Return what the worker sent, an error if it died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            return "error", f"the worker process died with exit code {code} (-9: killed, perhaps out of memory)"


class _Pool:
    """Workers of one run; leaving the context ends them."""

    def __init__(self, size: int, threads: int) -> None:
        self._threads = threads
        self._workers = [_Worker(threads) for _ in range(size)]

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()

    def idle(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.trial is None]

    def busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.trial is not None]

    def ready(self) -> Iterator[_Worker]:
        """Yield the busy workers that have something to say, waiting for the first."""
        busy = {worker.connection: worker for worker in self.busy()}
        for connection in wait(list(busy)):
            yield busy[connection]  # type: ignore[index]

    def replace_if_dead(self, worker: _Worker) -> None:
        if not worker.process.is_alive():
            self._workers[self._workers.index(worker)] = _Worker(self._threads)


@contextmanager
def _ignored_interrupt() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _work(connection: Connection, threads: int) -> None:
    """Make rows until the parent goes away."""
    os.environ.update(OMP_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
    with _parent_may_leave():
        while True:
            trial = connection.recv()
            try:
                message: tuple[str, Any] = ("row", make_row(trial, threads, _reporter(connection)))
            except BrokenPipeError:
                raise
            except Exception:
                message = ("error", traceback.format_exc())
            connection.send(message)


@contextmanager
def _parent_may_leave() -> Iterator[None]:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _reporter(connection: Connection) -> Any:
    """Return a function that sends progress to the parent, a few times a second at most."""
    last = 0.0

    def report(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_SECONDS:
            last = now
            connection.send(("progress", fraction))

    return report


def make_row(trial: Trial, threads: int, report: Any) -> Row:
    """Return the whole row of a trial."""
    import torch

    from . import machine

    torch.set_num_threads(threads)
    started = time.perf_counter()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    fields = resolve(trial.experiment.trial)(trial.experiment, trial.seed, report)
    row = {
        "key": trial.key,
        "suite": trial.suite,
        "experiment": trial.experiment.configuration(),
        "seed": trial.seed,
        **fields,
        "wall_seconds": round(time.perf_counter() - started, 3),
        "started": when,
        "threads": threads,
        "versions": machine.versions(),
        "revision": machine.revision(),
        "hardware": machine.hardware(),
    }
    json.dumps(row, allow_nan=False)  # a NaN is the trial's failure, to be told as one
    return row
