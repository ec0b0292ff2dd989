"""A folder of rows as results: grouped by task and agent, with scores as matrices. No drawing, no prose."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import stats, suites
from .errors import UserError
from .rows import Row, names, read_rows
from .runner import ERRORS, ROWS
from .stats import Curve
from .suites import DEMONSTRATED

MODES = ("sampled", "greedy")
FEW_SEEDS = 5  # below it a report warns
AGGREGATES: Mapping[str, stats.Statistic] = {
    "IQM": stats.iqm,
    "median": stats.median,
    "mean": stats.mean,
    "optimality gap": stats.optimality_gap,
}
LEVELS = (0.5, 0.9)  # normalised scores; how many steps they take is the sample efficiency
_GRID_POINTS = 40
OVERRUN = 1.1  # times its budget: a last rollout goes to its end, more than that is told


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
class Efficiency:
    """What it took to reach a normalised training score for the first time, exploration included.

    Attributes:
        level: the score.
        reached: how many runs ever did.
        runs: how many there are.
        steps: mean over the runs that did, None if none.
    """

    level: float
    reached: int
    runs: int
    steps: Estimate | None

    def __str__(self) -> str:
        if self.steps is None:
            return "not reached"
        e = self.steps
        interval = f" [{e.low:,.0f}, {e.high:,.0f}]" if e.runs > 1 else ""
        share = "" if self.reached == self.runs else f", {self.reached} of {self.runs}"
        return f"{e.value:,.0f}{interval}{share}"


@dataclass(frozen=True)
class Results:
    """Rows of one folder and suite, in its order.

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
    def suite(self) -> str:
        """The name of the suite that the rows come from."""
        return str(self.rows[0]["suite"])

    @property
    def target(self) -> float | None:
        """The training score at which runs stop, None where they use up their steps."""
        return max((row["experiment"].get("target") or 0.0 for row in self.rows), default=0.0) or None

    @cached_property
    def tasks(self) -> list[str]:
        """The tasks, in order."""
        return _unique(row["experiment"]["task"] for row in self.rows)

    @cached_property
    def agents(self) -> list[str]:
        """The agents, in order."""
        return _unique(row["experiment"]["agent"] for row in self.rows)

    @cached_property
    def scored(self) -> list[Row]:
        """The rows with the usual evaluation."""
        return [row for row in self.rows if "evaluation" in row]

    @cached_property
    def experiments(self) -> dict[tuple[str, str], list[Row]]:
        """The scored rows of each (task, agent), by seed."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in sorted(self.scored, key=lambda row: row["seed"]):
            groups.setdefault(names(row), []).append(row)
        return groups

    @cached_property
    def normalized_tasks(self) -> list[str]:
        """The tasks whose scores are normalised, in every row."""
        evaluations: dict[str, list[dict[str, Any]]] = {}
        for row in self.scored:
            evaluations.setdefault(row["experiment"]["task"], []).extend(row["evaluation"][m] for m in MODES)
        return [task for task, both in evaluations.items() if all(e["normalized"] is not None for e in both)]

    def of(self, task: str, agent: str) -> list[Row]:
        """Return the scored rows of one agent on one task, by seed."""
        return self.experiments.get((task, agent), [])

    def scores(self, task: str, agent: str, mode: str) -> NDArray[np.float64]:
        """Return (runs,): normalised scores, or mean returns where the task has no optimum."""
        field = "normalized" if task in self.normalized_tasks else "mean"
        return np.array([row["evaluation"][mode][field] for row in self.of(task, agent)], float)

    def task_estimate(self, task: str, agent: str, mode: str) -> Estimate | None:
        """Return the mean of `scores`, None if there are no rows."""
        scores = self.scores(task, agent, mode)
        return estimate(stats.mean, scores[:, None]) if len(scores) else None

    def tasks_of(self, agent: str) -> list[str]:
        """Return the normalised tasks that an agent was run on."""
        return [task for task in self.normalized_tasks if self.of(task, agent)]

    def missing(self, agent: str) -> list[str]:
        """Return the normalised tasks that an agent was not run on: its aggregates leave them out."""
        return [task for task in self.normalized_tasks if not self.of(task, agent)]

    def matrix(self, agent: str, mode: str, tasks: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Return the normalised scores (runs, tasks) of the seeds that all tasks have, perhaps none.

        Args:
            agent: whose.
            mode: one of MODES.
            tasks: normalised ones; those of the agent by default.
        """
        tasks = self.tasks_of(agent) if tasks is None else tasks
        by_seed = [
            {row["seed"]: row["evaluation"][mode]["normalized"] for row in self.of(task, agent)} for task in tasks
        ]
        seeds = sorted(set.intersection(*(set(scores) for scores in by_seed))) if by_seed else []
        return np.array([[scores[seed] for scores in by_seed] for seed in seeds], float).reshape(
            len(seeds), len(tasks)
        )

    def aggregate(self, agent: str, mode: str) -> dict[str, Estimate]:
        """Return each of AGGREGATES over the agent's normalised tasks, nothing if it has none."""
        matrix = self.matrix(agent, mode)
        return {name: estimate(f, matrix) for name, f in AGGREGATES.items()} if matrix.size else {}

    def improvement(self, x: str, y: str, mode: str) -> Estimate | None:
        """Return how probably a run of agent X beats one of agent Y, over the tasks that both have, if any."""
        shared = [task for task in self.tasks_of(x) if self.of(task, y)]
        ours, theirs = (self.matrix(agent, mode, shared) for agent in (x, y))
        return estimate(stats.probability_of_improvement, ours, theirs) if ours.size and theirs.size else None

    def profile(self, agent: str, thresholds: Sequence[float], mode: str = "sampled") -> Curve | None:
        """Return which share of an agent's runs, over its normalised tasks, scores above each threshold."""
        matrix, grid = self.matrix(agent, mode), np.asarray(thresholds, float)
        return _with_band(grid, lambda m: stats.performance_profile(m, grid), matrix) if matrix.size else None

    def efficiency(self, task: str, agent: str) -> tuple[Efficiency, ...]:
        """Return what each of LEVELS took, nothing for what does not learn or has no normalised score."""
        rows = [row for row in self.of(task, agent) if row.get("curve")]
        if task not in self.normalized_tasks or not rows:
            return ()
        return tuple(_efficiency(level, [_first_step(row, level) for row in rows]) for level in LEVELS)

    def solved(self, task: str, agent: str) -> Efficiency | None:
        """Return what it took to reach the target, None for what does not learn or has none."""
        aims = [row for row in self.of(task, agent) if row["experiment"].get("target") is not None]
        rows = [row for row in aims if "reached" in row]
        return _efficiency(rows[0]["experiment"]["target"], [row["reached"] for row in rows]) if rows else None

    def auc(self, task: str, agent: str) -> Estimate | None:
        """Return the mean score of the whole training (`stats.area_under_curve`).

        None for what does not learn, and for what learns from demonstrations: its curve is of other episodes.
        """
        column = 3 if task in self.normalized_tasks else 2
        areas = [
            stats.area_under_curve(
                [p[0] for p in row["curve"]], [p[column] for p in row["curve"]], _held_until(row)
            )
            for row in self.of(task, agent)
            if row.get("curve") and row["experiment"]["trial"] != DEMONSTRATED
        ]
        return estimate(stats.mean, np.array(areas)[:, None]) if areas else None

    @cached_property
    def overruns(self) -> dict[str, float]:
        """How many times its budget of steps each agent that went beyond it took at most."""
        found: dict[str, float] = {}
        for row in self.scored:
            budget, agent = row["experiment"]["steps"], row["experiment"]["agent"]
            if row["steps"] > OVERRUN * budget > 0:
                found[agent] = max(found.get(agent, 0.0), row["steps"] / budget)
        return found

    def fewest_seeds(self) -> int:
        """Return the smallest number of seeds that any agent has on any task it was run on."""
        return min(map(len, self.experiments.values()), default=0)


def load(folder: Path) -> Results:
    """Return the results in a folder.

    Of rows with one task and agent but several configurations, those of their suite as it is now are kept, or else
    those of the newest row: scores of different settings are never mixed.

    Raises:
        UserError: if it holds no rows, one that is not whole, or those of several suites.
    """
    rows = {row["key"]: row for row in read_rows(folder / ROWS, "result")}
    failures = tuple(_open_failures(read_rows(folder / ERRORS, "failure"), rows.values()))
    if not rows:
        told = f"run a suite first: text-envs bench run quick --out {folder}"
        if failures:
            told = f"{many(len(failures), 'trial')} failed, the tracebacks are in {folder / ERRORS}"
        raise UserError(f"{folder / ROWS} holds no rows; {told}")
    name, *others = _unique(row["suite"] for row in rows.values())
    if others:
        raise UserError(
            f"{folder / ROWS} holds rows of the suites {', '.join([name, *others])}; a report is of one: give each "
            "a folder of its own"
        )
    experiments = suites.get(name).experiments if name in suites.NAMES else ()
    current = {e.key(seed) for e in experiments for seed in {row["seed"] for row in rows.values()}}
    order = {(e.task, e.agent): place for place, e in enumerate(experiments)}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows.values():
        groups.setdefault(names(row), []).append(row)
    kept: list[list[Row]] = []
    changed = 0
    for group in groups.values():
        candidates = [row for row in group if row["key"] in current] or group
        newest = max(candidates, key=lambda row: row["started"])
        # what a suite does not name is somebody's own
        changed += names(newest) in order and newest["key"] not in current
        same = [row for row in candidates if settings(row) == settings(newest)]
        kept.append(sorted(same, key=lambda row: row["seed"]))
    kept.sort(key=lambda group: (order.get(names(group[0]), len(order)), *names(group[0])))
    ordered = [row for group in kept for row in group]
    return Results(tuple(ordered), failures, len(rows) - len(ordered), changed)


def _open_failures(entries: Iterable[dict[str, Any]], rows: Iterable[Row]) -> Iterable[dict[str, Any]]:
    """Return the last failure of each trial that has not succeeded since, perhaps with other settings."""
    done = {(*names(row), row["seed"]): row["started"] for row in sorted(rows, key=lambda row: row["started"])}
    since = {f"{task} / {agent} / seed {seed}": started for (task, agent, seed), started in done.items()}
    last = {entry["trial"]: entry for entry in entries}
    return [entry for name, entry in last.items() if name not in since or since[name] < entry["when"]]


def settings(row: Row) -> dict[str, Any]:
    """Return the configuration of a row's experiment, without what does not change its result."""
    return {name: value for name, value in row["experiment"].items() if name != "tags"}


def estimate(statistic: stats.Statistic, *matrices: NDArray[np.float64]) -> Estimate:
    """Return a statistic of (runs, tasks) matrices with its interval; the same matrices give the same interval."""
    low, high = stats.bootstrap_interval(statistic, *matrices, rng=_addressed(*matrices))
    return Estimate(float(statistic(*matrices)), low, high, runs=max(len(matrix) for matrix in matrices))


def _addressed(*matrices: NDArray[np.float64]) -> np.random.Generator:
    """Return the generator that belongs to some matrices."""
    address = zlib.crc32(b"".join(np.ascontiguousarray(matrix).tobytes() for matrix in matrices))
    return np.random.default_rng([0, address])


def curve(rows: Sequence[Row], column: int) -> Curve | None:
    """Return the mean learning curve of some seeds on a common grid, with a bootstrap band.

    None if no seed learnt, or no step lies on all of their curves.

    Args:
        rows: of one agent on one task.
        column: of the points in a row's curve: 2 for mean returns, 3 for normalised scores.
    """
    learnt = [row for row in rows if row.get("curve")]
    if not learnt:
        return None
    curves = [np.array([[p[0], p[column]] for p in row["curve"]], float) for row in learnt]
    longest = max(c[-1, 0] for c in curves)
    ends = [max(c[-1, 0], min(_held_until(row), longest)) for c, row in zip(curves, learnt, strict=True)]
    begin, end = max(c[0, 0] for c in curves), min(ends)
    if begin > end:
        return None
    grid = np.linspace(begin, end, _GRID_POINTS)
    values = np.stack([np.interp(grid, c[:, 0], c[:, 1]) for c in curves])  # (runs, points)
    return _with_band(grid, lambda m: m.mean(axis=-2), values)


def _held_until(row: Row) -> int:
    """Return until which step the last training score stands: the budget's end for a run that stops at a target."""
    experiment = row["experiment"]
    return experiment["steps"] if experiment.get("target") is not None else 0


def _with_band(x: NDArray[np.float64], statistic: stats.Statistic, matrix: NDArray[np.float64]) -> Curve:
    """Return a statistic of one matrix that has a value for each x, with its band."""
    low, high = stats.bootstrap_band(statistic, matrix, rng=_addressed(matrix))
    return Curve(x, statistic(matrix), low, high)


def _first_step(row: Row, level: float) -> int | None:
    """Return the steps after which the training score first reached a level, None if it never did."""
    return next((point[0] for point in row["curve"] if point[3] is not None and point[3] >= level), None)


def _efficiency(level: float, steps: Sequence[int | None]) -> Efficiency:
    """Return the efficiency of some runs, given the steps at which each reached the level."""
    reached = np.array([count for count in steps if count is not None], float)
    mean = estimate(stats.mean, reached[:, None]) if len(reached) else None
    return Efficiency(level, len(reached), len(steps), mean)


def _unique(items: Any) -> list[str]:
    return list(dict.fromkeys(items))


def number(value: float) -> str:
    """Two decimals, without a minus before zero."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def many(count: int, what: str) -> str:
    """Return a number of things in words: 1 seed, 2 seeds."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def as_json(value: Any) -> str:
    """Return a compact, sorted JSON text for tables."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
