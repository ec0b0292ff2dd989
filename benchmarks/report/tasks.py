"""What a report says task by task: learning curves, sample efficiency, scores and texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from ..rows import Row
from ..scores import LEVELS, MODES, Results, curve, number
from .document import Cell, Sample, Samples, Section, Table, slugs
from .drawing import Figure, Ink
from .figures import Curve, learning_curves
from .runs import environment
from .summary import by_task, estimate_cells, named

_FEW_TASKS = 4  # up to it their parts are open from the start


def curves(results: Results, look: Mapping[str, Ink]) -> Iterable[Section]:
    """Yield the section of learning curves, if anything was trained."""
    figures: list[Figure] = []
    for task, name in zip(results.tasks, slugs(results.tasks), strict=True):
        normalized = task in results.normalized_tasks
        lines: dict[str, Curve] = {}
        levels: dict[str, float] = {}
        for agent in results.agents:
            rows = results.of(task, agent)
            line = curve([row for row in rows if row.get("curve")], 3 if normalized else 2)
            if line is not None:
                lines[agent] = line
            elif rows:
                levels[agent] = float(results.scores(task, agent, "sampled").mean())
        if lines:
            label = "normalised score" if normalized else "mean clean return"
            figures.append(learning_curves(f"curve-{name}", task, lines, look, label, levels=levels))
    if figures:
        text = (
            "Clean return of the training episodes, exploration included: mean over seeds, with a band of "
            "95% bootstrap intervals. What learns from demonstrations plays episodes of its own, and its steps are "
            "demonstrated tokens. Dotted lines are agents that do not learn.",
        )
        yield Section("Learning curves", text, tuple(figures))


def efficiency(results: Results) -> Iterable[Section]:
    """Yield the section of how soon agents learn, if any that learns can be normalised."""
    tasks = results.normalized_tasks
    learners = [agent for agent in results.agents if any(results.efficiency(task, agent) for task in tasks)]
    if not learners:
        return

    def fold(title: str, cell: Callable[[str, str], Cell]) -> Section:
        columns = {task: [cell(task, agent) for agent in learners] for task in tasks}
        return Section(title, tables=(by_task(learners, columns),))

    header = ("agent", *(f"runs at {level:.0%}" for level in LEVELS), "area under the curve")
    caption = (
        "How many runs, over all tasks and seeds, reached a share of the optimum in training, exploration "
        "included; and the area under the learning curve, which is the mean training score over the budget of "
        "steps, averaged over tasks; not of what learns from demonstrations. Budgets differ between agents: see "
        "What was run."
    )
    folds = (
        *(fold(f"Steps to {level:.0%}", partial(_steps, results, i)) for i, level in enumerate(LEVELS)),
        fold("Area under the curve", partial(_area, results)),
    )
    rows = tuple(_efficiency_row(results, agent) for agent in learners)
    yield Section("Sample efficiency", tables=(Table(header, rows, caption),), folds=folds)


def _efficiency_row(results: Results, agent: str) -> tuple[Cell, ...]:
    tasks = results.normalized_tasks
    found = [levels for task in tasks if (levels := results.efficiency(task, agent))]
    reached = np.array([[(e.reached, e.runs) for e in levels] for levels in found]).sum(axis=0)  # (levels, 2)
    areas = [e.value for task in tasks if (e := results.auc(task, agent)) is not None]
    area = float(np.mean(areas)) if areas else None
    return (
        Cell(named(results, agent), agent=agent),
        *(Cell(f"{some} of {every}", level=some / every) for some, every in reached.tolist()),
        Cell("") if area is None else Cell(number(area), level=float(np.clip(area, 0, 1))),
    )


def _steps(results: Results, level: int, task: str, agent: str) -> Cell:
    found = results.efficiency(task, agent)
    return Cell(str(found[level]) if found else "")


def _area(results: Results, task: str, agent: str) -> Cell:
    found = results.auc(task, agent)
    return Cell("") if found is None else Cell(str(found), level=float(np.clip(found.value, 0, 1)))


def tasks(results: Results) -> Section:
    """Return the section with a part for each task: scores of every agent, and what they wrote."""
    text = (
        "Mean over seeds [95% interval]; worst seed: the lowest sampled score. Mean return: clean, sampled, ± "
        "the mean standard error over episodes. Steps: when training, exploration included, first reached "
        "that share of the optimum, mean over the seeds that did. Speed: environment steps a second of training, "
        f"{_threads(results)}.",
        "Texts are sampled evaluation episodes of one seed, from the worst to the best at even ranks: not chosen "
        "by hand.",
    )
    opened = len(results.tasks) <= _FEW_TASKS
    folds = tuple(
        Section(
            task,
            tuple(dict.fromkeys(environment(row) for agent in results.agents for row in results.of(task, agent))),
            tables=(_task_table(results, task),),
            samples=tuple(_samples(results, task)),
            opened=opened,
        )
        for task in results.tasks
    )
    return Section("Task by task", text, folds=folds)


def _task_table(results: Results, task: str) -> Table:
    found = [agent for agent in results.agents if results.of(task, agent)]
    scores = [estimate_cells([results.task_estimate(task, agent, mode) for agent in found]) for mode in MODES]
    header = (
        "agent", *MODES, "worst seed", "mean return", *(f"steps to {level:.0%}" for level in LEVELS),
        "area under the curve", "steps/s",
    )  # fmt: skip
    rows = []
    for i, agent in enumerate(found):
        mine = results.of(task, agent)
        rows.append(
            (
                Cell(agent, agent=agent),
                *(cells[i] for cells in scores),
                Cell(number(results.scores(task, agent, "sampled").min())),
                Cell(_mean_return(mine)),
                *(_steps(results, level, task, agent) for level in range(len(LEVELS))),
                Cell(str(results.auc(task, agent) or "")),
                Cell(_speed(mine)),
            )
        )
    return Table(header, tuple(rows))


def _samples(results: Results, task: str) -> Iterable[Samples]:
    for agent in results.agents:
        for row in results.of(task, agent)[:1]:
            if row["samples"]:
                episodes = tuple(Sample(**episode) for episode in row["samples"])
                yield Samples(f"What {agent} wrote, seed {row['seed']}", episodes)


def _mean_return(rows: Sequence[Row]) -> str:
    means = [row["evaluation"]["sampled"]["mean"] for row in rows]
    errors = [row["evaluation"]["sampled"]["standard_error"] for row in rows]
    return f"{np.mean(means):.3f} ± {np.mean(errors):.3f}"


def _speed(rows: Sequence[Row]) -> str:
    speeds = [row["steps_per_second"] for row in rows if row.get("steps_per_second")]
    return f"{np.mean(speeds):,.0f}" if speeds else ""


def _threads(results: Results) -> str:
    counts = sorted({row["threads"] for row in results.rows})
    return f"{' or '.join(map(str, counts))} {'thread' if counts == [1] else 'threads'} a trial{_devices(results)}"


def _devices(results: Results) -> str:
    """Return which agents computed where, nothing if all did on the CPU."""
    agents: dict[str, dict[str, None]] = {}
    for row in results.rows:
        agents.setdefault(row.get("device", "cpu"), {})[row["experiment"]["agent"]] = None
    if set(agents) == {"cpu"}:
        return ""
    return "".join(f"; on {where}: {', '.join(who)}" for where, who in agents.items())
