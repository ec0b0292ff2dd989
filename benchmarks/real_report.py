"""What the report says of the suite `real`: held-out figures; each task's curves and completions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .document import Cell, Section, Table
from .drawing import Figure, inks
from .figures import Curve, frontier, learning_curves
from .real import BEST_OF
from .real_tasks import TASKS, RealTask
from .rows import Row

ByAgent = Mapping[str, Row]


def sections(rows: Sequence[Row]) -> list[Section]:
    """Return what the report says of the suite."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["experiment"]["task"], {})[row["experiment"]["agent"]] = row
    by_task = [(task, found[task.name]) for task in TASKS if task.name in found]
    parts = [make(task, by_agent) for task, by_agent in by_task for make in (_curves, _side_by_side)]
    return [_measurements(by_task), *parts]


def _measurements(by_task: Sequence[tuple[RealTask, ByAgent]]) -> Section:
    lines, counts = [], []
    for task, by_agent in by_task:
        base = by_agent.get("reference")
        counts.append(min(row["measurement"]["completions"] for row in by_agent.values()))
        for agent, row in by_agent.items():
            m = row["measurement"]
            diversity = f"{m['distinct_2']:.3f}"
            if base is not None:
                diversity += f" ({m['distinct_2'] / base['measurement']['distinct_2']:.0%})"
            lines.append(
                (
                    Cell(task.name),
                    Cell(agent, agent=agent),
                    Cell(f"{m['reward']:.3f} ± {m['reward_error']:.3f}"),
                    Cell(f"{m['kl']:.2f} ± {m['kl_error']:.2f}"),
                    Cell(diversity),
                    Cell(f"{m['repetition']:.3f}"),
                    Cell(f"{m['length']:.1f}"),
                    Cell(f"{row['train_seconds'] / 60:.1f}" if "train_seconds" in row else ""),
                    Cell(f"{row['tokens']:,}" if "tokens" in row else ""),
                )
            )
    header = (
        "task",
        "agent",
        "reward",
        "KL, nats",
        "distinct-2",
        "repetition",
        "tokens",
        "train minutes",
        "trained on tokens",
    )
    sizes = ", ".join(
        f"{task.name.split(',')[0]} {count}" for (task, _), count in zip(by_task, counts, strict=True)
    )
    caption = (
        f"Sampled completions of held-out prompts ({sizes}), ± 1.96 standard errors. "
        f"{' '.join(f'{task.name}: {task.earns}' for task, _ in by_task)} KL: mean over completions of the summed "
        "log-ratio of the sampled tokens to the reference, in float32; "
        f"of best of {BEST_OF} the closed form log n - (n - 1)/n. distinct-2: different "
        "word pairs among all (in brackets: of the reference's). repetition: a completion's words that it has "
        "said before. Training minutes exclude evaluation."
    )
    return Section(
        "Held-out completions", (), (), (Table(header, tuple(lines), caption, labels=2, in_readme=True),)
    )


def _curves(task: RealTask, by_agent: ByAgent) -> Section:
    look, stem = inks(list(by_agent)), task.name.split(",")[0].lower()
    trained = {agent: row["held_out"] for agent, row in by_agent.items() if "held_out" in row}
    flat = {agent: row["measurement"]["reward"] for agent, row in by_agent.items() if agent not in trained}
    start = by_agent["reference"]["measurement"]["reward"] if "reference" in by_agent else None

    def against(name: str, field: str, label: str) -> Figure:
        curves = {}
        for agent, points in trained.items():
            first = [] if start is None else [(0.0, start, 0.0)]
            values = [*first, *((p[field], p["reward"], p["reward_error"]) for p in points)]
            x, mean, error = np.array(sorted(values)).T
            curves[agent] = Curve(x, mean, mean - error, mean + error)
        title = f"{task.name}: reward against {label}"
        return learning_curves(f"real-{stem}-{name}", title, curves, look, task.reward, label, levels=flat)

    def price(agent: str) -> list[tuple[float, float, float, float]]:
        if agent not in trained:
            found, first = [by_agent[agent]["measurement"]], []
        else:
            found, first = trained[agent], [] if start is None else [(0.0, start, 0.0, 0.0)]
        return [*first, *((p["kl"], p["reward"], p["kl_error"], p["reward_error"]) for p in found)]

    figures = (
        against("seconds", "seconds", "training seconds"),
        against("tokens", "tokens", "generated tokens"),
        frontier(
            f"real-{stem}-kl",
            f"{task.name}: reward against KL",
            None,
            {agent: price(agent) for agent in by_agent},
            look,
            x_label="KL to the reference, nats per completion",
            y_label=task.reward,
        ),
    )
    text = (
        "Held-out measurements during training, bands and crosses of 1.96 standard errors; dotted lines are "
        "agents that do not train. Every training pays for all tokens it generates and updates on.",
    )
    return Section(f"{task.name}: reward against seconds, tokens and KL", text, figures if trained else ())


def _side_by_side(task: RealTask, by_agent: ByAgent) -> Section:
    header = ("prompt", *by_agent)
    rows = []
    for shown in zip(*(row["completions"] for row in by_agent.values()), strict=True):
        cells = [Cell(f"{one['completion'].strip()} ({one['reward']:+.2f})") for one in shown]
        rows.append((Cell(shown[0]["prompt"]), *cells))
    caption = (
        "The same held-out prompts, at even places of the evaluation, not chosen by hand. In brackets the reward."
    )
    return Section(
        f"{task.name}: completions side by side", (), (), (Table(header, tuple(rows), caption, labels=len(header)),)
    )
