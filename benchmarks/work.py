"""What a worker does, whichever pool it belongs to: one trial becomes one whole row, or a traceback.

Nothing heavy is imported here: workers set their threads before numpy and torch are loaded.
"""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from .rows import Row, fault
from .suites import SCHEMA, Experiment, resolve

_TOLD = 20_000  # characters of a traceback
REPORT_SECONDS = 0.25  # between two reports of progress
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Outcome = tuple[Literal["row", "error"], Any]
Report = Callable[[float], None]  # called with the finished fraction of a trial


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


class Unheard(Exception):
    """A report of progress that nobody listens to any more: its trial is given up."""


@dataclass(frozen=True)
class Message:
    """What a pool hears of a trial.

    Attributes:
        trial: the trial.
        kind: "progress": content is the finished fraction; "row": the row; "error": the traceback of a trial that
            raised; "died": why its worker is gone, the trial may be begun again.
        content: see `kind`.
    """

    trial: Trial
    kind: Literal["progress", "row", "error", "died"]
    content: Any


def pin_threads(threads: int) -> None:
    """Give numpy, OpenMP and MKL their threads; to be called before they are loaded."""
    os.environ.update({name: str(threads) for name in _THREAD_VARIABLES})
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def attempt(trial: Trial, threads: int, report: Report) -> Outcome:
    """Return the row of a trial, or the traceback of what it raised."""
    try:
        return "row", make_row(trial, threads, report)
    except Unheard:
        raise
    except BaseException:  # an exit or an interrupt that the trial itself raised fails it like anything else
        told = traceback.format_exc()
        return "error", told if len(told) <= _TOLD else f"{told[: _TOLD // 2]}\n...\n{told[-_TOLD // 2 :]}"


def out_of_time(seconds: float) -> str:
    """Return the error of a trial that was ended because it took too long."""
    return f"ended after {seconds:g} seconds, which --timeout allows; if it does not hang, give it more"


def seldom(send: Report) -> Report:
    """Return a function that hands progress on, a few times a second at most."""
    last = 0.0

    def report(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS:
            last = now
            send(fraction)

    return report


def make_row(trial: Trial, threads: int, report: Report) -> Row:
    """Return the whole row of a trial.

    Raises:
        ValueError: if the trial measured what no row holds, such as a NaN or a text for a number.
    """
    import torch

    from . import machine

    torch.set_num_threads(threads)
    revision = machine.revision()  # of the code that runs, whatever is committed meanwhile
    started, computed = time.perf_counter(), time.process_time()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    fields = resolve(trial.experiment.trial)(trial.experiment, trial.seed, report)
    row = {
        "key": trial.key,
        "schema": SCHEMA,
        "suite": trial.suite,
        "experiment": trial.experiment.configuration(),
        "seed": trial.seed,
        **fields,
        "wall_seconds": round(time.perf_counter() - started, 3),
        "cpu_seconds": round(time.process_time() - computed, 3),
        "started": when,
        "threads": threads,
        "versions": machine.versions(),
        "revision": revision,
        "hardware": machine.hardware(),
    }
    row = json.loads(json.dumps(row))  # as it will be read
    if wrong := next(_not_finite(row), None) or fault(row, "result"):  # the trial's failure, to be told as one
        raise ValueError(f"what the trial measured makes no row: {wrong}")
    return row


def _not_finite(value: Any, path: str = "") -> Iterator[str]:
    """Yield where a row holds a NaN or an infinity, which JSON has no number for."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path[1:]} is {value}: is a reward no finite number, or has training diverged?"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _not_finite(inner, f"{path}[{place}]")
