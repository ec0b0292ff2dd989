"""Two runs side by side: which experiments changed beyond noise. The tests themselves live in `stats.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import stats
from .errors import UserError
from .rows import Row
from .scores import FEW_SEEDS, OVERRUN, Estimate, Results, as_json, estimate, number, settings

if TYPE_CHECKING:
    from rich.console import Console

ERROR_RATE = 0.05  # how probably anything at all is called changed when nothing is
LEAST_SEEDS = 3  # two runs that agree by luck make any difference look large
_COLOURS = {"worse": "red", "better": "green"}


@dataclass(frozen=True)
class Change:
    """One experiment in both runs; scores are normalised, or mean returns where the task has no optimum.

    Attributes:
        task: its task.
        agent: its agent.
        seeds: how many A has, and B.
        a: mean over A's seeds.
        b: mean over B's seeds.
        difference: B - A.
        improvement: how probably a run of B beats one of A.
        paired: both have the same settings and seeds, and were compared seed by seed.
        identical: the same seeds gave the same evaluation and the same learning curve, to the last digit.
        p_value: of no difference, adjusted for the number of experiments; None if identical or too few seeds.
    """

    task: str
    agent: str
    seeds: tuple[int, int]
    a: Estimate
    b: Estimate
    difference: Estimate
    improvement: Estimate
    paired: bool
    identical: bool
    p_value: float | None

    @property
    def verdict(self) -> str:
        """What happened to it: better, worse, no change, identical, or too few seeds."""
        if self.identical:
            return "identical"
        if self.p_value is None:
            return "too few seeds"
        if self.p_value >= ERROR_RATE:
            return "no change"
        return "better" if self.difference.value > 0 else "worse"


@dataclass(frozen=True)
class Difference:
    """A circumstance that is not the same in both runs.

    Attributes:
        what: a setting, a package, the revision, the hardware.
        a: its value in A, or values.
        b: its value in B, or values.
        where: names of the experiments whose setting it is; empty if it is none.
    """

    what: str
    a: str
    b: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        mode: of the evaluation, sampled or greedy.
        changes: of every experiment that both have, in A's order.
        only_a: names of the experiments that B lacks.
        only_b: names of the experiments that A lacks.
        differences: between the circumstances.
    """

    mode: str
    changes: tuple[Change, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]

    def count(self, verdict: str) -> int:
        """Return how many experiments have a verdict."""
        return sum(change.verdict == verdict for change in self.changes)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, JSON-able."""
        changes = [{**asdict(change), "verdict": change.verdict} for change in self.changes]
        return {**asdict(self), "error_rate": ERROR_RATE, "changes": changes}


def compare(a: Results, b: Results, mode: str = "sampled") -> Comparison:
    """Compare two runs, experiment by experiment.

    Each experiment gets a t-test, paired where both runs have the same settings and seeds (they share prompts,
    initial weights and random numbers until the change shows), else Welch's; the evaluation's own standard error
    is the least error it assumes. Holm's correction keeps the probability of calling anything changed when nothing
    is at ERROR_RATE. Experiments that are identical to the last digit are known to be unchanged: no tests.

    Raises:
        UserError: if no experiment is in both.
    """
    shared = [names for names in a.experiments if names in b.experiments]
    if not shared:
        raise UserError(
            "no experiment with the usual evaluation is in both runs; give two runs of one suite\n"
            f"  A has {_told(map(_name, a.experiments))}\n  B has {_told(map(_name, b.experiments))}"
        )
    pairs = [_Pair(*names, a, b, mode) for names in shared]
    p_values = {pair: p for pair in pairs if (p := pair.p_value()) is not None}
    adjusted = dict(zip(p_values, stats.holm(list(p_values.values())), strict=True))
    return Comparison(
        mode,
        tuple(pair.change(adjusted.get(pair)) for pair in pairs),
        tuple(_name(names) for names in a.experiments if names not in b.experiments),
        tuple(_name(names) for names in b.experiments if names not in a.experiments),
        (*_settings_that_differ(pairs), *_circumstances_that_differ(a.rows, b.rows)),
    )


class _Pair:
    """One experiment in two runs, and what its change is computed from."""

    def __init__(self, task: str, agent: str, a: Results, b: Results, mode: str) -> None:
        normalized = task in a.normalized_tasks and task in b.normalized_tasks
        self._field = "normalized" if normalized else "mean"
        self._mode = mode
        self.names = (task, agent)
        self.rows = (a.of(task, agent), b.of(task, agent))

    @cached_property
    def scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(runs of A,) and (runs of B,)."""
        a, b = (np.array([row["evaluation"][self._mode][self._field] for row in rows], float) for rows in self.rows)
        return a, b

    @cached_property
    def paired(self) -> bool:
        a, b = self.rows
        return [row["seed"] for row in a] == [row["seed"] for row in b] and settings(a[0]) == settings(b[0])

    @cached_property
    def identical(self) -> bool:
        def outcome(row: Row) -> Any:
            return row["seed"], row["evaluation"], [(p[0], p[2]) for p in row.get("curve", ())]

        a, b = self.rows
        return list(map(outcome, a)) == list(map(outcome, b))

    def p_value(self) -> float | None:
        """Return it unadjusted, None where there is nothing to test."""
        if self.identical or min(map(len, self.rows)) < LEAST_SEEDS:
            return None
        noise = float(np.linalg.norm([self._standard_error(rows) for rows in self.rows]))
        return stats.difference_p_value(*self.scores, paired=self.paired, noise=noise)

    def _standard_error(self, rows: Sequence[Row]) -> float:
        """Return what finitely many evaluation episodes leave to chance in the mean score of some runs.

        Rows hold the error of the mean return; a normalised score is a linear function of it.
        """
        errors = [row["evaluation"][self._mode]["standard_error"] for row in rows]
        slope = _slope(rows) if self._field == "normalized" else 1.0
        return slope * float(np.linalg.norm(errors)) / len(rows)

    def change(self, p_value: float | None) -> Change:
        a, b = (scores[:, None] for scores in self.scores)
        return Change(
            *self.names,
            seeds=(len(a), len(b)),
            a=estimate(stats.mean, a),
            b=estimate(stats.mean, b),
            difference=estimate(stats.mean, b - a) if self.paired else estimate(_mean_difference, a, b),
            improvement=estimate(stats.probability_of_improvement, b, a),
            paired=self.paired,
            identical=self.identical,
            p_value=p_value,
        )


def _mean_difference(a: stats.Scores, b: stats.Scores) -> stats.Scores:
    return stats.mean(b) - stats.mean(a)


def _slope(rows: Sequence[Row]) -> float:
    """Return how much the normalised score grows with the mean return; 0 where the rows show one return only."""
    points = [(summary["mean"], summary["normalized"]) for row in rows for summary in row["evaluation"].values()]
    points += [(point[2], point[3]) for row in rows for point in row.get("curve", ()) if point[3] is not None]
    returns, scores = np.ptp(np.array(points, float), axis=0)
    return float(scores / returns) if returns else 0.0


def _settings_that_differ(pairs: Iterable[_Pair]) -> list[Difference]:
    """Return one difference for each change of a setting, with the experiments that share it."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        a, b = (settings(rows[0]) for rows in pair.rows)
        for field in dict.fromkeys([*a, *b]):
            if a.get(field) != b.get(field):
                change = (field, as_json(a.get(field)), as_json(b.get(field)))
                where.setdefault(change, []).append(_name(pair.names))
        taken = [max(row["steps"] for row in rows) for rows in pair.rows]
        budgets = [rows[0]["experiment"]["steps"] for rows in pair.rows]
        if max(taken) > OVERRUN * min(taken) and any(t > OVERRUN * b for t, b in zip(taken, budgets, strict=True)):
            change = ("steps taken, at most", f"{taken[0]:,}", f"{taken[1]:,}")
            where.setdefault(change, []).append(_name(pair.names))
    return [Difference(*change, where=tuple(names)) for change, names in where.items()]


def _circumstances_that_differ(a: Sequence[Row], b: Sequence[Row]) -> list[Difference]:
    facts_a, facts_b = _circumstances(a), _circumstances(b)
    return [
        Difference(what, _told(sorted(of_a)), _told(sorted(of_b)))
        for what in dict.fromkeys([*facts_a, *facts_b])
        if (of_a := facts_a.get(what, set())) != (of_b := facts_b.get(what, set()))
    ]


def _circumstances(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Return the values that each circumstance has among some rows."""
    facts: dict[str, set[str]] = {}
    for row in rows:
        hardware = {f"hardware: {name}": value for name, value in row["hardware"].items()}
        for what, value in {**row["versions"], "revision": row.get("revision"), **hardware}.items():
            facts.setdefault(what, set()).add(str(value))
    return facts


def _name(names: tuple[str, str]) -> str:
    return " / ".join(names)


def _told(values: Iterable[str], most: int = 6) -> str:
    """Return some values in a line, the first few of many."""
    values = list(values)
    more = [f"{len(values) - most} more"] if len(values) > most else []
    return "; ".join([*values[:most], *more]) or "none"


def show(comparison: Comparison, console: Console) -> None:
    """Print a comparison: the table, the verdict, and what else is not the same."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("experiment")
    for header in ("n", "A", "B", "B - A [95%]", "P(B>A)", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for change in sorted(comparison.changes, key=_by_importance):
        table.add_row(*map(Text, _cells(change)), style=_COLOURS.get(change.verdict, ""))
    console.print(table)
    for line in (*_summary(comparison), *_other_differences(comparison)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _by_importance(change: Change) -> tuple[int, float]:
    order = ("worse", "better", "no change", "too few seeds", "identical")
    return order.index(change.verdict), 1.0 if change.p_value is None else change.p_value


def _cells(change: Change) -> tuple[str, ...]:
    a, b = change.seeds
    d, p = change.difference, change.p_value
    return (
        _name((change.task, change.agent)),
        str(a) if a == b else f"{a}, {b}",
        number(change.a.value),
        number(change.b.value),
        f"{d.value:+.3f}" + (f" [{d.low:+.3f}, {d.high:+.3f}]" if d.runs > 1 else ""),
        number(change.improvement.value),
        "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}",
        change.verdict,
    )


def _summary(comparison: Comparison) -> Iterable[str]:
    worse, better, identical, unknown = map(comparison.count, ("worse", "better", "identical", "too few seeds"))
    count = len(comparison.changes)
    experiments = f"{count} {'experiment' if count == 1 else 'experiments'} ({comparison.mode} actions)"
    if unknown == count:
        yield f"Not known whether anything changed: none of {experiments} could be judged."
    elif worse or better:
        yield f"{worse + better} of {experiments} changed beyond noise: {worse} worse, {better} better."
    else:
        judged = f"{count - unknown} of " if unknown else ""
        yield f"Nothing changed beyond noise in {judged}{experiments}."
    if identical:
        yield f"Identical to the last digit: {identical}."
    if unknown:
        yield f"Not judged: {unknown}. A test needs {LEAST_SEEDS} seeds of both runs, better {FEW_SEEDS}."
    fewest = min((min(c.seeds) for c in comparison.changes if c.p_value is not None), default=FEW_SEEDS)
    if fewest < FEW_SEEDS:
        yield (
            f"With {fewest} seeds only large changes show, and a task that only some seeds solve can look changed "
            f"by chance; a claim needs {FEW_SEEDS}."
        )
    yield (
        "n: seeds. p: t-tests over seeds, corrected for the number of experiments (Holm). "
        "[95%]: bootstrap over seeds of each experiment alone, too narrow with few seeds: p decides."
    )


def _other_differences(comparison: Comparison) -> Iterable[str]:
    for run, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            yield f"Only in {run}: {_told(names)}."
    for difference in comparison.differences:
        where = f" ({_told(difference.where, most=3)})" if difference.where else ""
        yield f"Differs: {difference.what}: {difference.a} -> {difference.b}{where}"
