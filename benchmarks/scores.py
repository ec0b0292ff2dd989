"""A folder of rows as results: grouped by task and agent, with scores as matrices. No drawing, no prose."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import stats, suites
from .errors import UserError
from .figures import Curve
from .rows import Row, read_rows
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
        outdated: how many rows were left out because their suite no longer has their configuration.
    """

    rows: tuple[Row, ...]
    failures: tuple[dict[str, Any], ...] = ()
    outdated: int = 0

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

    Raises:
        UserError: if it holds no rows.
    """
    rows = {row["key"]: row for row in read_rows(folder / ROWS)}
    if not rows:
        raise UserError(
            f"{folder / ROWS} holds no rows; run a suite first: text-envs bench run quick --out {folder}"
        )
    failures = {entry["key"]: entry for entry in read_rows(folder / ERRORS) if entry["key"] not in rows}
    order, known = _order(list(rows.values()))
    kept = sorted(
        (row for row in rows.values() if row["key"] in order or row["suite"] not in known),
        key=lambda r: (
            order.get(r["key"], len(order)),
            r["experiment"]["task"],
            r["experiment"]["agent"],
            r["seed"],
        ),
    )
    return Results(tuple(kept), tuple(failures.values()), len(rows) - len(kept))


def _order(rows: Sequence[Row]) -> tuple[dict[str, int], set[str]]:
    """Return the place of each key in its suite, and the suites that could be looked up."""
    seeds = range(max(row["seed"] for row in rows) + 1)
    order: dict[str, int] = {}
    known = set()
    for name in _unique(row["suite"] for row in rows):
        try:
            experiments = suites.get(name).experiments
        except ValueError:
            continue
        known.add(name)
        for experiment in experiments:
            for seed in seeds:
                order.setdefault(experiment.key(seed), len(order))
    return order, known


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
