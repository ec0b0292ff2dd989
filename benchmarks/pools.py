"""Where trials run: what a pool of workers promises, and the processes of this machine. Ray is `ray_pool.py`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, Self

from .work import Message, Trial, Unheard, attempt, out_of_time, pin_threads, seldom

_GRACE = 5.0  # seconds that processes have to end by themselves
_HEARTBEAT = 1.0  # seconds between two looks at whether the workers live


class Pool(Protocol):
    """Workers of one run; leaving its context ends them.

    Attributes:
        attempts: how often a trial is begun at most, when its worker dies each time.
    """

    attempts: int

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End every worker."""

    def describe(self) -> str:
        """Return in a few words where trials run."""

    def idle(self) -> int:
        """Return how many trials may begin now."""

    def begin(self, trial: Trial) -> None:
        """Hand a trial to a worker."""

    def messages(self) -> Iterator[Message]:
        """Wait until something is heard of the running trials, then yield it."""


class ProcessPool:
    """Processes of this machine, started when they are needed and kept for one trial after another.

    Args:
        jobs: trials at a time.
        threads: of each process.
        timeout: seconds after which a trial is ended and has failed; None: never.
    """

    attempts = 2

    def __init__(self, jobs: int, threads: int, timeout: float | None = None) -> None:
        self._jobs, self._threads, self._timeout = jobs, threads, timeout
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        _end([worker.process for worker in self._workers])

    def describe(self) -> str:
        """Return how many processes of how many threads."""
        return f"{self._jobs} at a time, threads of each: {self._threads}"

    def idle(self) -> int:
        """Return how many trials may begin now."""
        return self._jobs - sum(worker.trial is not None for worker in self._workers)

    def begin(self, trial: Trial) -> None:
        """Hand a trial to an idle process, or to a new one."""
        worker = next((worker for worker in self._workers if worker.trial is None), None)
        if worker is None:
            worker = _Worker(self._threads)
            self._workers.append(worker)
        worker.begin(trial)

    def messages(self) -> Iterator[Message]:
        """Wait a moment until a process has something to say or is gone, then yield that of each."""
        busy = [worker for worker in self._workers if worker.trial is not None]
        heard = wait([worker.connection for worker in busy], self._patience())
        for worker in busy:
            # a child that a worker leaves behind keeps the pipe open: its end alone does not tell of a death
            if worker.connection not in heard and worker.process.is_alive():
                continue
            message = worker.receive()
            if message.kind == "died":
                self._workers.remove(worker)
            yield message
        if self._timeout is not None:
            yield from self._end_what_hangs(self._timeout)

    def _patience(self) -> float:
        """Return how many seconds to wait, until the next trial is out of time at most."""
        if self._timeout is None:
            return _HEARTBEAT
        begun = min(worker.begun for worker in self._workers if worker.trial is not None)
        return min(_HEARTBEAT, max(0.0, begun + self._timeout - time.monotonic()))

    def _end_what_hangs(self, timeout: float) -> Iterator[Message]:
        for worker in list(self._workers):
            if worker.trial is None or time.monotonic() - worker.begun < timeout:
                continue
            if not worker.connection.poll():  # what it has said is read first
                worker.process.kill()
                worker.process.join()
                self._workers.remove(worker)
                yield Message(worker.trial, "error", out_of_time(timeout))


class _Worker:
    """A spawned process and the trial that it works on."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.trial: Trial | None = None
        self.begun = 0.0
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, threads))  # a daemon could have no children
        with _ignored_interrupt():  # inherited: Ctrl-C is the parent's to answer
            self.process.start()
        theirs.close()  # so that the death of the process ends the pipe

    def begin(self, trial: Trial) -> None:
        self.trial, self.begun = trial, time.monotonic()
        try:
            self.connection.send(trial)
        except ConnectionError:
            pass  # it died while it was idle: `receive` says so

    def receive(self) -> Message:
        """Return what the worker sent, or that it died: what it sent before comes first."""
        trial = self.trial
        if trial is None:
            raise RuntimeError("this worker is idle")
        try:
            if not self.connection.poll():
                raise EOFError
            kind, content = self.connection.recv()
        except (EOFError, OSError):  # also in the middle of a message
            _end([self.process])
            code = self.process.exitcode
            why = (
                "it was killed, perhaps because memory was short"
                if code == -signal.SIGKILL
                else f"exit code {code}"
            )
            kind, content = "died", f"the worker process died: {why}"
        if kind != "progress":
            self.trial = None
        return Message(trial, kind, content)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Wait until processes have ended, and kill those that do not."""
    wait_until = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, wait_until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _ignored_interrupt() -> Iterator[None]:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _work(connection: Connection, threads: int) -> None:
    """Make rows until the parent goes away."""
    pin_threads(threads)
    worker = os.getpid()
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    def progress(fraction: float) -> None:
        if os.getpid() != worker:
            return
        try:
            connection.send(("progress", fraction))
        except ConnectionError as error:
            raise Unheard from error

    with _parent_may_leave():
        while True:
            trial: Any = connection.recv()
            outcome = attempt(trial, threads, seldom(progress))
            if os.getpid() != worker:
                os._exit(0)  # a child that the trial forked and that came back: the worker itself answers
            connection.send(outcome)


def _leave_with_parent() -> None:
    """End this process with its parent, in the middle of a trial too: it would slow down those of the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _parent_may_leave() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError, Unheard):
        return
