"""A folder of rows as results: grouped by task and agent, with scores as matrices. No drawing, no prose."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import stats, suites
from .errors import UserError
from .figures import Curve
from .rows import FAILURE, RESULT, Row, read_rows
from .runner import ERRORS, ROWS

MODES = ("sampled", "greedy")
FEW_SEEDS = 5  # below it a report warns
_GRID_POINTS = 40


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95% bootstrap interval; one run has none."""

    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        if self.runs == 1:
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


@dataclass(frozen=True)
class Results:
    """Rows of one folder, in the order of their suite.

    Attributes:
        rows: what the report is about.
        failures: entries of the errors file whose trial has no row.
        outdated: how many rows were left out because there are others with newer settings.
        changed: how many experiments have other settings in their suite now than in these rows.
    """

    rows: tuple[Row, ...]
    failures: tuple[dict[str, Any], ...] = ()
    outdated: int = 0
    changed: int = 0

    @property
    def suites(self) -> list[str]:
        """The names of the suites that the rows come from."""
        return _unique(row["suite"] for row in self.rows)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in order."""
        return _unique(row["experiment"]["task"] for row in self.rows)

    @property
    def agents(self) -> list[str]:
        """The agents, in order."""
        return _unique(row["experiment"]["agent"] for row in self.rows)

    @property
    def scored(self) -> list[Row]:
        """The rows with the usual evaluation."""
        return [row for row in self.rows if "evaluation" in row]

    @property
    def normalized_tasks(self) -> list[str]:
        """The tasks whose scores are normalised, in every row."""
        return [
            task
            for task in self.tasks
            if (rows := [row for row in self.scored if row["experiment"]["task"] == task])
            and all(row["evaluation"][mode]["normalized"] is not None for row in rows for mode in MODES)
        ]

    def of(self, task: str, agent: str) -> list[Row]:
        """Return the scored rows of one agent on one task, by seed."""
        mine = [r for r in self.scored if (r["experiment"]["task"], r["experiment"]["agent"]) == (task, agent)]
        return sorted(mine, key=lambda row: row["seed"])

    def scores(self, task: str, agent: str, mode: str) -> NDArray[np.float64]:
        """Return (runs,): normalised scores, or mean returns where the task has no optimum."""
        field = "normalized" if task in self.normalized_tasks else "mean"
        return np.array([row["evaluation"][mode][field] for row in self.of(task, agent)], float)

    def matrix(self, agent: str, mode: str) -> NDArray[np.float64]:
        """Return (runs, tasks) over the normalised tasks and the seeds that all of them have, perhaps none."""
        tasks = self.normalized_tasks
        by_seed = [
            {row["seed"]: row["evaluation"][mode]["normalized"] for row in self.of(task, agent)} for task in tasks
        ]
        seeds = sorted(set.intersection(*(set(scores) for scores in by_seed))) if by_seed else []
        return np.array([[scores[seed] for scores in by_seed] for seed in seeds], float).reshape(
            len(seeds), len(tasks)
        )

    def fewest_seeds(self) -> int:
        """Return the smallest number of seeds that any agent has on any task it was run on."""
        counts = [len(self.of(task, agent)) for task in self.tasks for agent in self.agents]
        return min((count for count in counts if count), default=0)


def load(folder: Path) -> Results:
    """Return the results in a folder.

    Of rows with one suite, task and agent but several configurations, those of the suite as it is now are kept, or
    else those of the newest row: scores of different settings are never mixed.

    Raises:
        UserError: if it holds no rows, or one that is not whole.
    """
    rows = {row["key"]: row for row in read_rows(folder / ROWS, RESULT)}
    if not rows:
        raise UserError(
            f"{folder / ROWS} holds no rows; run a suite first: text-envs bench run quick --out {folder}"
        )
    failures = {entry["key"]: entry for entry in read_rows(folder / ERRORS, FAILURE) if entry["key"] not in rows}
    suite_of = _suites(rows.values())
    groups: dict[tuple[int, int, str, str], list[Row]] = {}
    for row in rows.values():
        groups.setdefault(_place(row, suite_of), []).append(row)
    kept: list[Row] = []
    changed = 0
    for place in sorted(groups):
        current = [row for row in groups[place] if _is_current(row, suite_of)]
        newest = max(groups[place], key=lambda row: row["started"])
        changed += not current and suite_of[newest["suite"]] is not None
        same = current or [r for r in groups[place] if _settings(r) == _settings(newest)]
        kept += sorted(same, key=lambda row: row["seed"])
    return Results(tuple(kept), tuple(failures.values()), len(rows) - len(kept), changed)


def _suites(rows: Iterable[Row]) -> dict[str, suites.Suite | None]:
    """Return the suites that rows come from, None for those that there are no more."""
    return {
        name: suites.get(name) if name in suites.NAMES else None for name in _unique(row["suite"] for row in rows)
    }


def _place(row: Row, suite_of: Mapping[str, suites.Suite | None]) -> tuple[int, int, str, str]:
    """Return where a row's experiment stands among all."""
    names = row["experiment"]["task"], row["experiment"]["agent"]
    suite = suite_of[row["suite"]]
    order = [(e.task, e.agent) for e in suite.experiments] if suite else []
    return (list(suite_of).index(row["suite"]), order.index(names) if names in order else len(order), *names)


def _is_current(row: Row, suite_of: Mapping[str, suites.Suite | None]) -> bool:
    suite = suite_of[row["suite"]]
    return suite is not None and any(e.key(row["seed"]) == row["key"] for e in suite.experiments)


def _settings(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row["experiment"].items() if name != "tags"}


def estimate(statistic: stats.Statistic, *matrices: NDArray[np.float64]) -> Estimate:
    """Return a statistic of (runs, tasks) matrices with its interval; the same matrices give the same interval."""
    address = zlib.crc32(b"".join(np.ascontiguousarray(matrix).tobytes() for matrix in matrices))
    low, high = stats.bootstrap_interval(statistic, *matrices, rng=np.random.default_rng([0, address]))
    return Estimate(float(statistic(*matrices)), low, high, runs=max(len(matrix) for matrix in matrices))


def curve(rows: Sequence[Row], column: int) -> Curve | None:
    """Return the mean learning curve of some seeds on a common grid, with a bootstrap band.

    Args:
        rows: of one agent on one task.
        column: of the points in a row's curve: 2 for mean returns, 3 for normalised scores.
    """
    curves = [np.array([[p[0], p[column]] for p in row["curve"]], float) for row in rows if row["curve"]]
    if not curves:
        return None
    start, stop = max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves)
    grid = np.linspace(start, stop, _GRID_POINTS)
    values = np.stack([np.interp(grid, c[:, 0], c[:, 1]) for c in curves])  # (runs, points)
    bands = [estimate(stats.mean, values[:, [point]]) for point in range(len(grid))]
    return Curve(grid, values.mean(axis=0), np.array([b.low for b in bands]), np.array([b.high for b in bands]))


def steps_to(rows: Sequence[Row], level: float) -> list[tuple[int, float]]:
    """Return (steps, seconds) at which each seed's training score first reached a level; others are left out."""
    reached = []
    for row in rows:
        first = next((point for point in row["curve"] if point[3] is not None and point[3] >= level), None)
        if first is not None:
            reached.append((first[0], first[1]))
    return reached


def _unique(items: Any) -> list[str]:
    return list(dict.fromkeys(items))


def number(value: float) -> str:
    """Two decimals, without a minus before zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def as_json(value: Any) -> str:
    """Return a compact, sorted JSON text for tables."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
