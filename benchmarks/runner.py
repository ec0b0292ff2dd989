"""Plans the trials of a suite, hands them to a pool and appends a row for each; resumable at any moment.

Where trials run is `pools.py` and `ray_pool.py`, what a worker does `work.py`, what a trial measures `trial.py`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from .errors import UserError
from .pools import Pool
from .rows import Row, RowWriter, open_for_append, read_rows
from .suites import SCHEMA, TAG, Suite
from .work import Trial

ROWS = "rows.jsonl"
ERRORS = "errors.jsonl"


class Display(Protocol):
    """Shows how a run goes on."""

    def begin(self, trials: Sequence[Trial], done: Sequence[Row], place: str) -> None:
        """A run begins; trials with rows in `done` are not among `trials`."""

    def started(self, trial: Trial) -> None:
        """A trial begins."""

    def advanced(self, trial: Trial, fraction: float) -> None:
        """A trial has reached a fraction of its work."""

    def finished(self, trial: Trial, row: Row) -> None:
        """A trial's row is on the disk."""

    def died(self, trial: Trial, reason: str) -> None:
        """A trial's worker is gone; it will be begun again."""

    def failed(self, trial: Trial, error: str) -> None:
        """A trial raised; its traceback is on the disk."""


def plan(suite: Suite, seeds: int | None = None, only: str | None = None) -> list[Trial]:
    """Return the trials of a suite, one seed of everything before the next.

    Raises:
        UserError: if the pattern matches nothing, or two experiments cannot be told apart.
    """
    named = [e for e in suite.experiments if e.name == only]  # which may be a part of another's name
    chosen = named or [e for e in suite.experiments if only is None or e.matches(only)]
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


def run(trials: Sequence[Trial], out: Path, pool: Pool, display: Display) -> int:
    """Run the trials that have no row in `out` yet and return how many failed.

    Rows go to `out`/rows.jsonl, tracebacks to `out`/errors.jsonl. The pool is entered only if there is work.

    Raises:
        RowError: if `out` cannot be written, or its rows are not whole; nothing has been run then. Or if a row can
            no longer be appended: what was appended before is whole.
        UserError: if `out` holds rows of another suite, or of another agent by the same name.
    """
    with open_for_append(out / ROWS) as rows:
        known = {row["key"]: row for row in read_rows(out / ROWS, "result")}
        others = {row["suite"] for row in known.values()} - {trial.suite for trial in trials}
        if others:
            raise UserError(f"{out} holds rows of suite {min(others)!r}; choose another --out: a report is of one")
        _check_factories(trials, known.values())
        done = [known[trial.key] for trial in trials if trial.key in known]
        waiting = [trial for trial in trials if trial.key not in known]
        if not waiting:
            display.begin([], done, "nothing is left")
            return 0
        with pool:
            display.begin(waiting, done, pool.describe())
            return _drive(pool, waiting, rows, out / ERRORS, display)


def _check_factories(trials: Iterable[Trial], rows: Iterable[Row]) -> None:
    """Raise a UserError if rows of another agent of somebody's own lie under the name of one that is to run."""
    factories = {
        trial.experiment.agent: trial.experiment.factory for trial in trials if TAG in trial.experiment.tags
    }
    for row in rows:
        e = row["experiment"]
        now = factories.get(e["agent"], e["factory"])
        if now != e["factory"]:
            raise UserError(
                f"agent {e['agent']!r} has rows of {e['factory']} there, and is {now} now; give yours a name, "
                f"NAME={now}, or choose another --out"
            )


def _drive(pool: Pool, waiting: Sequence[Trial], rows: RowWriter, errors: Path, display: Display) -> int:
    """Hand out trials and take in what comes back, until nothing is left."""
    queue, running, failed = deque(waiting), 0, 0
    deaths: Counter[str] = Counter()
    while queue or running:
        for _ in range(min(pool.idle(), len(queue))):
            trial = queue.popleft()
            pool.begin(trial)
            running += 1
            display.started(trial)
        for message in pool.messages():
            trial = message.trial
            if message.kind == "progress":
                display.advanced(trial, message.content)
                continue
            running -= 1
            deaths[trial.key] += message.kind == "died"
            if message.kind == "row":
                rows.append(message.content)
                display.finished(trial, message.content)
            elif message.kind == "died" and deaths[trial.key] < pool.attempts:
                queue.appendleft(trial)
                display.died(trial, message.content)
            else:
                failed += 1
                _append_error(errors, trial, message.content)
                display.failed(trial, message.content)
    return failed


def _append_error(path: Path, trial: Trial, error: str) -> None:
    entry = {
        "key": trial.key,
        "schema": SCHEMA,
        "trial": trial.name,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": error,
    }
    with open_for_append(path) as errors:
        errors.append(entry)
