"""What the report says of the suite `real`: held-out figures; each task's curves and completions side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ..real_tasks import TASKS, RealTask
from ..rows import Row, by_task_and_agent
from ..stats import Curve
from ..suite_real import BEST_OF
from .document import Cell, Section, Table
from .drawing import Figure, Ink
from .figures import frontier, learning_curves

ByAgent = Mapping[str, Sequence[Row]]  # its seeds


def sections(rows: Sequence[Row], look: Mapping[str, Ink]) -> list[Section]:
    """Return what the report says of the suite, its agents drawn in the given inks."""
    found = by_task_and_agent(rows)
    by_task = [(task, found[task.name]) for task in TASKS if task.name in found]
    parts = [
        section
        for task, by_agent in by_task
        for section in (_curves(task, by_agent, look), *_side_by_side(task, by_agent))
    ]
    return [_measurements(by_task), *parts]


def _measurements(by_task: Sequence[tuple[RealTask, ByAgent]]) -> Section:
    lines, counts = [], []
    for task, by_agent in by_task:
        counts.append(min(row["measurement"]["completions"] for seeds in by_agent.values() for row in seeds))
        base = mean(by_agent["reference"], "distinct_2") if "reference" in by_agent else None
        for agent, seeds in by_agent.items():
            distinct = mean(seeds, "distinct_2")
            share = "" if base is None else f" ({distinct / base:.0%})"
            lines.append(
                (
                    Cell(task.name),
                    Cell(agent, agent=agent),
                    Cell(f"{mean(seeds, 'reward'):.3f} ± {error(seeds, 'reward_error'):.3f}"),
                    Cell(f"{mean(seeds, 'kl'):.2f} ± {error(seeds, 'kl_error'):.2f}"),
                    Cell(f"{distinct:.3f}{share}"),
                    Cell(f"{mean(seeds, 'repetition'):.3f}"),
                    Cell(f"{mean(seeds, 'length'):.1f}"),
                    Cell(_cost(seeds, "train_seconds", lambda seconds: f"{seconds / 60:.1f}")),
                    Cell(_cost(seeds, "tokens", lambda tokens: f"{tokens:,.0f}")),
                    Cell(str(len(seeds))),
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
        "seeds",
    )
    sizes = ", ".join(
        f"{task.name.split(',')[0]} {count}" for (task, _), count in zip(by_task, counts, strict=True)
    )
    caption = (
        f"Sampled completions of held-out prompts ({sizes}), means over seeds, ± 1.96 standard errors over "
        f"completions. {' '.join(f'{task.name}: {task.earns}' for task, _ in by_task)} KL: mean over completions "
        "of the summed log-ratio of the sampled tokens to the reference, in float32; "
        f"of best of {BEST_OF} the closed form log n - (n - 1)/n. Rewards are bought at different KL: compare them "
        "in the figure of reward against KL. Each agent has the KL coefficient and the learning rate that suit it, "
        "and each row its machine: see What was run. distinct-2: different "
        "word pairs among all (in brackets: of the reference's). repetition: a completion's words that it has "
        "said before. Training minutes exclude evaluation."
    )
    return Section(
        "Held-out completions", (), (), (Table(header, tuple(lines), caption, labels=2, in_readme=True),)
    )


def mean(seeds: Sequence[Row], name: str) -> float:
    """Return the mean over seeds of a measured figure."""
    return float(np.mean([row["measurement"][name] for row in seeds]))


def error(seeds: Sequence[Row], name: str) -> float:
    """Return the half-width of the interval of a mean over seeds, from that of each."""
    return float(np.linalg.norm([row["measurement"][name] for row in seeds])) / len(seeds)


def _cost(seeds: Sequence[Row], name: str, say: Callable[[float], str]) -> str:
    return say(float(np.mean([row[name] for row in seeds]))) if all(name in row for row in seeds) else ""


def _curves(task: RealTask, by_agent: ByAgent, look: Mapping[str, Ink]) -> Section:
    stem = task.name.split(",")[0].lower()
    trained = {agent: _over_seeds(seeds) for agent, seeds in by_agent.items() if "held_out" in seeds[0]}
    flat = {agent: mean(seeds, "reward") for agent, seeds in by_agent.items() if agent not in trained}
    start = mean(by_agent["reference"], "reward") if "reference" in by_agent else None

    def against(name: str, field: str, label: str) -> Figure:
        curves = {}
        for agent, points in trained.items():
            first = [] if start is None else [(0.0, start, 0.0)]
            values = [*first, *((p[field], p["reward"], p["reward_error"]) for p in points)]
            x, middle, width = np.array(sorted(values)).T
            curves[agent] = Curve(x, middle, middle - width, middle + width)
        title = f"{task.name}: reward against {label}"
        return learning_curves(f"real-{stem}-{name}", title, curves, look, task.reward, label, levels=flat)

    def price(agent: str) -> list[tuple[float, float, float, float]]:
        if agent not in trained:
            found, first = [row["measurement"] for row in by_agent[agent]], []
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
        "Held-out measurements during training, means over seeds, bands and crosses of 1.96 standard errors; "
        "dotted lines are agents that do not train. Every training pays for all the tokens that it generates and "
        "updates on.",
    )
    return Section(f"{task.name}: reward against seconds, tokens and KL", text, figures if trained else ())


def _over_seeds(seeds: Sequence[Row]) -> list[dict[str, float]]:
    """Return the means over seeds of the held-out measurements, which come at even intervals in each."""
    points = []
    for several in zip(*(row["held_out"] for row in seeds), strict=False):
        point = {name: float(np.mean([p[name] for p in several])) for name in several[0]}
        for name in ("reward_error", "kl_error"):
            point[name] = float(np.linalg.norm([p[name] for p in several])) / len(several)
        points.append(point)
    return points


def _side_by_side(task: RealTask, by_agent: ByAgent) -> Iterator[Section]:
    """Yield the completions of the first seed that all agents have: the prompts are a seed's."""
    by_seed = [{row["seed"]: row["completions"] for row in seeds} for seeds in by_agent.values()]
    shared = set.intersection(*map(set, by_seed))
    if not shared:
        return
    header = ("prompt", *by_agent)
    rows = []
    for shown in zip(*(seeds[min(shared)] for seeds in by_seed), strict=True):
        cells = [Cell(f"{one['completion'].strip()} ({one['reward']:+.2f})") for one in shown]
        rows.append((Cell(shown[0]["prompt"]), *cells))
    caption = (
        "The same held-out prompts, at even places of the evaluation of one seed, not chosen by hand. In brackets "
        "the reward."
    )
    yield Section(
        f"{task.name}: completions side by side", (), (), (Table(header, tuple(rows), caption, labels=len(header)),)
    )
