"""Trials as tasks of a Ray cluster. Rows are written by the driver alone; workers only send them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any, Self

from .errors import UserError
from .work import REPORT_SECONDS, Message, Outcome, Trial, attempt, out_of_time, pin_threads, seldom

LOCAL = "local"
_OBJECT_STORE = 100 * 2**20  # bytes; of an instance on this machine: rows are small
_SECONDS_TO_ANSWER = 10.0


class RayPool:
    """Tasks of a Ray cluster, one for each trial.

    Ray's own retries are off: the runner begins a trial again whose worker died, counts how often, and says so.

    Args:
        address: "local" starts an instance on this machine; "auto", "host:port" or "ray://host:port" joins one.
        jobs: trials at a time; None: as many as the cluster has processors for when the run begins.
        threads: of each trial; Ray counts them as processors.
        timeout: seconds after which a trial is ended and has failed, from when Ray was given it; None: never.
    """

    attempts = 4

    def __init__(self, address: str, jobs: int | None, threads: int, timeout: float | None = None) -> None:
        self._address, self._jobs, self._threads, self._timeout = address, jobs, threads, timeout
        self._running: dict[Any, tuple[Trial, float]] = {}  # object reference -> trial, when it began

    def __enter__(self) -> Self:
        self._ray = _import_ray()
        own = {"num_cpus": (self._jobs or 1) * self._threads, "object_store_memory": _OBJECT_STORE}
        try:
            _knock(self._address)
            self._ray.init(
                address=self._address,
                include_dashboard=False if self._address == LOCAL else None,
                log_to_driver=False,
                logging_level="error",
                **(own if self._address == LOCAL else {}),
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"--ray {self._address}: no cluster can be joined there ({error}); `ray start --head` starts one "
                "and says its address, `--ray local` uses this machine"
            ) from error
        if self._jobs is None:
            self._jobs = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._threads)
        self._task = self._ray.remote(num_cpus=self._threads, max_retries=0)(_run_trial)
        self._board = self._ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Board).remote()
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()

    def describe(self) -> str:
        """Return where and how many."""
        return f"Ray at {self._address}, {self._jobs} at a time, threads of each: {self._threads}"

    def idle(self) -> int:
        """Return how many trials may begin now."""
        return (self._jobs or 0) - len(self._running)

    def begin(self, trial: Trial) -> None:
        """Hand a trial to Ray."""
        self._running[self._task.remote(trial, self._threads, self._board)] = trial, time.monotonic()

    def messages(self) -> Iterator[Message]:
        """Wait a moment for tasks to end, then yield what came of them and how far the others are."""
        ended, _ = self._ray.wait(list(self._running), timeout=REPORT_SECONDS)
        for reference in ended:
            trial, _ = self._running.pop(reference)
            yield self._outcome(trial, reference)
        if self._timeout is not None:
            yield from self._end_what_hangs(self._timeout)
        at_work = {trial.key: trial for trial, _ in self._running.values()}
        for key, fraction in self._ray.get(self._board.take.remote()).items():
            if key in at_work:
                yield Message(at_work[key], "progress", fraction)

    def _end_what_hangs(self, timeout: float) -> Iterator[Message]:
        for reference, (trial, begun) in list(self._running.items()):
            if time.monotonic() - begun >= timeout:
                self._ray.cancel(reference, force=True)
                del self._running[reference]
                yield Message(trial, "error", out_of_time(timeout))

    def _outcome(self, trial: Trial, reference: Any) -> Message:
        errors = self._ray.exceptions
        try:
            return Message(trial, *self._ray.get(reference))
        except errors.RayTaskError as error:  # raised outside the trial, as where a package is missing
            return Message(trial, "error", str(error))
        except errors.RayError as error:
            return Message(trial, "died", f"the Ray worker died: {error}")


class _Board:
    """An actor that keeps the latest progress of each trial until the driver takes it."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}

    def put(self, key: str, fraction: float) -> None:
        """Remember how far a trial is."""
        self._latest[key] = fraction

    def take(self) -> dict[str, float]:
        """Return what is new."""
        latest, self._latest = self._latest, {}
        return latest


def _run_trial(trial: Trial, threads: int, board: Any) -> Outcome:
    """Run a trial in a Ray worker."""
    pin_threads(threads)

    def progress(fraction: float) -> None:
        board.put.remote(trial.key, fraction)

    return attempt(trial, threads, seldom(progress))


def _knock(address: str) -> None:
    """Connect to a host and port once: Ray itself would try for minutes.

    Raises:
        OSError: if nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()


def _import_ray() -> Any:
    """Return Ray, which is to send nothing anywhere.

    Raises:
        UserError: if it is not installed; it names the extra.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("--ray needs Ray: pip install 'text-envs[ray]'") from error
    return ray
