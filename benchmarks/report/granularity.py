"""What the report says of the suite `granularity`: scores and curves against the tokens that were said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..rows import Row, by_task_and_agent, names
from ..scores import curve, number
from .document import Cell, Section, Table, slugs
from .drawing import Figure, Ink
from .figures import learning_curves


def sections(rows: Sequence[Row], look: Mapping[str, Ink]) -> list[Section]:
    """Return what the report says of the suite, its agents drawn in the given inks."""
    by_task = by_task_and_agent(rows)
    figures = [
        _figure(name, task, by_task[task], look) for task, name in zip(by_task, slugs(list(by_task)), strict=True)
    ]
    lines = tuple(_line(seeds) for by_agent in by_task.values() for seeds in by_agent.values())
    table = Table(
        ("task", "agent", "score", "tokens said", "decisions", "train seconds"),
        lines,
        "Normalised score, sampled, and its seeds' least and largest; tokens said and decisions taken in training, "
        "means over seeds. An utterance is chosen among all that the task allows.",
        labels=2,
    )
    text = (
        "The same tasks and rewards, paid when an utterance closes, decided token by token and utterance by "
        "utterance. Curves are of training episodes, exploration included, bands are 95% bootstrap intervals. A "
        "rollout is equally many decisions at both levels: with equal tokens PPO has fewer updates by utterances.",
    )
    return [Section("Granularity", text, tuple(figures), (table,))]


def _figure(name: str, task: str, by_agent: Mapping[str, Sequence[Row]], look: Mapping[str, Ink]) -> Figure:
    """Return the curves of a task, against tokens instead of steps."""
    lines: dict[str, Any] = {}
    levels: dict[str, float] = {}
    for agent, mine in by_agent.items():
        line = curve([_in_tokens(row) for row in mine if row["curve"]], 3)
        if line is not None:
            lines[agent] = line
        else:
            levels[agent] = float(np.mean(_scores(mine)))
    return learning_curves(
        f"granularity-{name}", task, lines, look, "normalised score", "tokens said", levels=levels
    )


def _in_tokens(row: Row) -> Row:
    each = row["tokens"] / row["steps"]
    return {**row, "curve": [[point[0] * each, *point[1:]] for point in row["curve"]]}


def _line(rows: Sequence[Row]) -> tuple[Cell, ...]:
    task, agent = names(rows[0])
    scores = _scores(rows)
    spread = f" [{number(min(scores))}, {number(max(scores))}]" if len(scores) > 1 else ""
    counts = [np.mean([row[field] for row in rows]) for field in ("tokens", "steps", "train_seconds")]
    level = float(np.clip(np.mean(scores), 0, 1))
    return (
        Cell(task),
        Cell(agent, agent=agent),
        Cell(f"{number(float(np.mean(scores)))}{spread}", level=level),
        *(Cell(f"{count:,.0f}") for count in counts),
    )


def _scores(rows: Sequence[Row]) -> list[float]:
    return [row["evaluation"]["sampled"]["normalized"] for row in rows]
