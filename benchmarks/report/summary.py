"""What a report says over all tasks: aggregates, scores, performance profiles, who beats whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..scores import AGGREGATES, MODES, Estimate, Results, many
from .document import Cell, Section, Table
from .drawing import Figure, Ink
from .figures import Point, intervals, performance_profiles

_WIDE = 8  # columns of a table that agents' names leave room for; more of them become rows
_THRESHOLDS = [percent / 100 for percent in range(0, 101, 2)]
_INTERVALS = (
    "Intervals are 95% percentile intervals of a stratified bootstrap over seeds (2,000 resamples, tasks kept); "
    "IQM is the interquartile mean over seeds and tasks."
)


def summary(results: Results, look: Mapping[str, Ink], in_readme: bool = True) -> Section:
    """Return the section of what holds over all tasks.

    Args:
        results: scored ones.
        look: the agents' inks.
        in_readme: its table of scores is what the README shows.
    """
    overall = {
        mode: {agent: found for agent in results.agents if (found := results.aggregate(agent, mode))}
        for mode in MODES
    }
    scale = (
        "normalised so that 0 is the exact expected return of uniform random actions and 1 the exact optimum"
        if results.normalized_tasks
        else "not normalised: no optimum of these tasks is known"
    )
    text = (f"Scores are clean returns of fresh evaluation episodes, {scale}.",)
    several = len(results.normalized_tasks) > 1
    figures = [*_interval_figure(results, overall, look), *(_profile_figure(results, look) if several else [])]
    tables = [
        replace(_score_table(results, overall if several else {}), in_readme=in_readme),
        *(replace(table, in_readme=in_readme) for table in _target_table(results)),
        *(_aggregate_table(results, overall["sampled"]) if several else []),
        *_improvement_table(results, list(overall["sampled"])),
    ]
    return Section("Summary", text, tuple(figures), tuple(tables))


def by_task(agents: Sequence[str], columns: Mapping[str, Sequence[Cell]], caption: str = "") -> Table:
    """Return a table with a cell for each task and agent, tasks in columns or, if they are many, in rows.

    Args:
        agents: whom the cells are of.
        columns: a cell for each agent, by the name of the task.
        caption: how to read it.
    """
    if len(columns) <= _WIDE:
        rows = [
            (Cell(agent, agent=agent), *(cells[i] for cells in columns.values())) for i, agent in enumerate(agents)
        ]
        return Table(("agent", *columns), tuple(rows), caption)
    rows = [
        (Cell(task), *(replace(cell, agent=agent) for cell, agent in zip(cells, agents, strict=True)))
        for task, cells in columns.items()
    ]
    return Table(("task", *agents), tuple(rows), caption)


def named(results: Results, agent: str) -> str:
    """Return an agent's name, with a note where its aggregates are over some of the tasks only."""
    if not results.missing(agent):
        return agent
    return f"{agent} ({len(results.tasks_of(agent))} of {len(results.normalized_tasks)} tasks)"


def estimate_cells(column: Sequence[Estimate | None], lower_is_better: bool = False) -> list[Cell]:
    """Return cells with bars, marked where no other interval lies wholly on the better side."""
    sign = -1 if lower_is_better else 1
    sides = [sorted((sign * e.low, sign * e.high)) for e in column if e is not None]
    best = max((worse for worse, _ in sides), default=0.0)
    return [
        Cell("")
        if e is None
        else Cell(
            str(e),
            level=float(np.clip(e.value, 0, 1)),
            best=len(sides) > 1 and max(sign * e.low, sign * e.high) >= best,
        )
        for e in column
    ]


def _interval_figure(
    results: Results, overall: Mapping[str, Mapping[str, Mapping[str, Estimate]]], look: Mapping[str, Ink]
) -> Iterable[Figure]:
    points = {
        named(results, agent): [
            Point(e.value, e.low, e.high, hollow=mode == "greedy")
            for mode in MODES
            for e in [overall[mode][agent]["IQM"]]
        ]
        for agent in overall["sampled"]
    }
    if points:
        yield intervals(
            "summary",
            "Normalised score over all tasks (IQM)",
            points,
            {named(results, agent): ink for agent, ink in look.items()},
            "normalised score (0 = random, 1 = optimal)",
            caption="A point is the interquartile mean over seeds and tasks, a line its 95% interval; "
            "filled: actions sampled (DQN: with its final exploration rate), hollow: greedy.",
        )


def _profile_figure(results: Results, look: Mapping[str, Ink]) -> Iterable[Figure]:
    found = {agent: results.profile(agent, _THRESHOLDS) for agent in results.agents}
    profiles = {named(results, agent): profile for agent, profile in found.items() if profile is not None}
    if profiles:
        yield performance_profiles(
            "profiles",
            "Performance profiles",
            profiles,
            {named(results, agent): ink for agent, ink in look.items()},
            caption="Which share of an agent's runs, over all tasks and seeds, scores more than τ, with actions "
            "sampled. Higher is better; where a line crosses one half is the median. Bands: 95% intervals.",
        )


def _score_table(results: Results, overall: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> Table:
    """Return every agent's score on every task; `overall` is empty where there is one task."""
    columns: dict[str, list[Cell]] = {}
    for mode, found in overall.items():
        columns[f"all tasks, {mode} (IQM)"] = _overall_cells(results, found, results.agents, "IQM")
    for task in results.tasks:
        cells = estimate_cells([results.task_estimate(task, a, "sampled") for a in results.agents])
        columns[task] = _ranked(results, cells)
    meant = (
        f"A run stops at a training score of {results.target:g}: see how many steps that took."
        if _stops_at_target(results)
        else "Bold: no other agent's interval, unrounded, lies wholly above."
    )
    raw = [task for task in results.tasks if task not in results.normalized_tasks]
    note = (
        f" Mean returns, not normalised and not part of all tasks: {', '.join(raw)}."
        if raw and results.normalized_tasks
        else ""
    )
    measure = "Normalised score" if results.normalized_tasks else "Mean return"
    episodes = min(row["evaluation"]["sampled"]["episodes"] for row in results.scored)
    caption = (
        f"{measure} [95% interval], {_seeds(results)}, {episodes} evaluation episodes each; a task's "
        "numbers: sampled actions (DQN: with its final exploration rate), mean over seeds. "
        f"{meant} {_budgets(results)} {_INTERVALS}{_partial_note(results)}{note}"
    )
    return by_task(results.agents, columns, caption)


def _target_table(results: Results) -> Iterable[Table]:
    """Yield the steps that each agent took to reach the target, where runs stop there."""
    if not _stops_at_target(results):
        return
    agents = [agent for agent in results.agents if any(results.solved(task, agent) for task in results.tasks)]
    if not agents:
        return
    columns: dict[str, list[Cell]] = {}
    for task in results.normalized_tasks:
        solved = [results.solved(task, agent) for agent in agents]
        by_all = [s.steps if s is not None and s.reached == s.runs else None for s in solved]
        columns[task] = [
            Cell("" if s is None else str(s), best=cell.best)
            for s, cell in zip(solved, estimate_cells(by_all, lower_is_better=True), strict=True)
        ]
    caption = (
        f"Steps of training until the score of its episodes, exploration included, was {results.target:g} "
        "[95% interval], mean over the runs that got there. Bold: every run did, and no other agent's interval "
        "lies wholly below."
    )
    yield by_task(agents, columns, caption)


def _stops_at_target(results: Results) -> bool:
    """Return whether runs stop at a score: where no optimum is known there is none to stop at."""
    return results.target is not None and bool(results.normalized_tasks)


def _seeds(results: Results) -> str:
    """Return how many seeds the experiments have."""
    counts = sorted({len(rows) for rows in results.experiments.values()})
    return many(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _budgets(results: Results) -> str:
    """Return for how many steps each agent was to be trained."""
    steps: dict[str, list[int]] = {}
    for row in results.scored:
        if row["steps"]:
            steps.setdefault(row["experiment"]["agent"], []).append(row["experiment"]["steps"])
    alike: dict[tuple[int, ...], list[str]] = {}
    for agent, counts in steps.items():
        alike.setdefault(tuple(sorted(set(counts))), []).append(agent)
    told = [
        f"{' to '.join(f'{count:,}' for count in dict.fromkeys((counts[0], counts[-1])))} ({'; '.join(agents)})"
        for counts, agents in alike.items()
    ]
    return f"Steps of training{', at most' if results.target else ''}: {', '.join(told)}." if told else ""


def _aggregate_table(results: Results, overall: Mapping[str, Mapping[str, Estimate]]) -> Iterable[Table]:
    if not overall:
        return
    columns = [_overall_cells(results, overall, list(overall), name) for name in AGGREGATES]
    rows = tuple((Cell(agent, agent=agent), *(column[i] for column in columns)) for i, agent in enumerate(overall))
    caption = (
        "Over all tasks and seeds, sampled actions. The median is over tasks of the mean over seeds; the "
        "optimality gap is how far runs stay below 1 on average, and lower is better."
        f"{_partial_note(results)}"
    )
    yield Table(("agent", *AGGREGATES), rows, caption)


def _improvement_table(results: Results, agents: Sequence[str]) -> Iterable[Table]:
    if len(agents) < 2:
        return
    rows = []
    for better in agents:
        cells = [Cell(better, agent=better)]
        for worse in agents:
            found = None if better == worse else results.improvement(better, worse, "sampled")
            cells.append(Cell("") if found is None else Cell(str(found), level=found.value))
        rows.append(tuple(cells))
    yield Table(
        ("beats", *agents),
        tuple(rows),
        "Probability of improvement: how likely one seed of the row's agent scores higher than one of the "
        "column's, on a task drawn at random among those of both; ties count half. Sampled actions.",
    )


def _overall_cells(
    results: Results, overall: Mapping[str, Mapping[str, Estimate]], agents: Sequence[str], name: str
) -> list[Cell]:
    """Return a cell for each agent's aggregate; one over some of the tasks says so and is not compared."""
    whole = [overall[agent][name] if agent in overall and not results.missing(agent) else None for agent in agents]
    cells = _ranked(results, estimate_cells(whole, lower_is_better=name == "optimality gap"))
    for i, agent in enumerate(agents):
        if agent in overall and results.missing(agent):
            e = overall[agent][name]
            share = f"{len(results.tasks_of(agent))} of {len(results.normalized_tasks)}"
            cells[i] = Cell(f"{e}, {share}", level=float(np.clip(e.value, 0, 1)))
    return cells


def _ranked(results: Results, cells: list[Cell]) -> list[Cell]:
    """Return cells of scores; where runs stop at a target, scores tell nothing of who is better."""
    return cells if not _stops_at_target(results) else [replace(cell, best=False) for cell in cells]


def _partial_note(results: Results) -> str:
    partial = any(results.tasks_of(agent) and results.missing(agent) for agent in results.agents)
    return ' With "k of n": over k of the n tasks only, and not compared.' if partial else ""
