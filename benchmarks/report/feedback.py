"""What the report says of the suite `feedback`: over-optimisation, reward models, people's ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..feedback import GOLD, MOVIES, TASK, TEST, WEAK
from ..feedback_movies import GAP
from ..rows import Row, by_task_and_agent
from .document import Cell, Section, Table
from .drawing import Ink
from .figures import Curve, against_kl, reliability

ByAgent = Mapping[str, Sequence[Row]]


def sections(rows: Sequence[Row], look: Mapping[str, Ink]) -> list[Section]:
    """Return what the report says of the suite, its agents drawn in the given inks."""
    found = by_task_and_agent(rows)
    loop = [_loop(found[TASK], look)] if TASK in found else []
    return [*loop, *([_movies(found[MOVIES])] if MOVIES in found else [])]


def _loop(by_agent: ByAgent, look: Mapping[str, Ink]) -> Section:
    learned = {agent: rows for agent, rows in by_agent.items() if agent != GOLD}
    text = (
        "PPO goes on from a weak policy, on a reward model of simulated comparisons at a known share of errors. "
        "As it moves away from where it began, what it is paid (dashed) parts from what it is worth (solid): "
        "over-optimisation, Gao et al. 2022, arXiv:2210.10760. Both are in standard deviations of the weak "
        "policy's completions.",
        _checkpoints(by_agent),
    )
    figures = [
        against_kl(
            f"feedback-{name}",
            title,
            {agent: _curves(rows) for agent, rows in by_agent.items() if agent == GOLD or which(rows[0])},
            look,
        )
        for name, title, which in _FIGURES
        if any(which(rows[0]) for rows in learned.values())
    ]
    figures.append(
        reliability(
            "feedback-calibration",
            "Calibration on comparisons never trained on",
            {agent: _bins(rows) for agent, rows in learned.items()},
            look,
        )
    )
    return Section("Simulated preferences", text, tuple(figures), (_loop_table(by_agent),))


def _options(row: Row) -> Mapping[str, Any]:
    return row["experiment"]["agent_kwargs"]


_FIGURES = (
    ("amount", "By the number of comparisons", lambda row: _options(row).get("noise") == 0.1 and not _members(row)),
    ("noise", "By their noise", lambda row: _options(row).get("comparisons") == 1000 and not _members(row)),
    (
        "ensemble",
        "One reward model and three",
        lambda row: _options(row).get("comparisons") == 1000 and _options(row).get("noise") == 0.1,
    ),
)


def _members(row: Row) -> bool:
    return _options(row).get("members", 1) > 1


def _checkpoints(by_agent: ByAgent) -> str:
    scores = np.mean([row["checkpoints"] for rows in by_agent.values() for row in rows], axis=0)
    told = ", ".join(f"{score:.2f}" for score in scores)
    return (
        f"The compared completions are those of {len(scores)} checkpoints of a training run on the gold reward, "
        f"whose mean gold rewards were {told}; number {WEAK + 1} is the weak policy. Each comparison is of two "
        "different checkpoints."
    )


def _curves(rows: Sequence[Row]) -> tuple[Curve, Curve]:
    """Return gold and proxy reward against KL: means over seeds at each measurement, with their extremes."""
    points = [row["points"] for row in rows]
    kl = np.array([[point["kl"] for point in run] for run in points]).mean(axis=0)
    made = []
    for name in ("gold_standard", "proxy"):
        values = np.array([[point[name] for point in run] for run in points])
        made.append(Curve(kl, values.mean(axis=0), values.min(axis=0), values.max(axis=0)))
    return made[0], made[1]


def _bins(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return confidence and accuracy of each bin, over all seeds."""
    table = np.array([line for row in rows for line in row["reward_model"]["test"]["reliability"]])
    where = np.minimum(((table[:, 0] - 0.5) * 20).astype(int), 9)
    pooled = [table[where == b] for b in np.unique(where)]
    means = [np.average(part[:, :2], axis=0, weights=part[:, 2]) for part in pooled]
    return [float(sure) for sure, _ in means], [float(hit) for _, hit in means]


def _loop_table(by_agent: ByAgent) -> Table:
    target = np.mean([row["points"][-1]["gold"] for row in by_agent[GOLD]]) if GOLD in by_agent else None
    lines = []
    for agent, rows in by_agent.items():
        models = [row["reward_model"] for row in rows if "reward_model" in row]
        last = [row["points"][-1] for row in rows]
        gold = float(np.mean([point["gold"] for point in last]))
        best = np.mean([max(point["gold"] for point in row["points"]) for row in rows])
        spread = [point["gold"] for point in last]
        lines.append(
            (
                Cell(agent, agent=agent),
                Cell(_mean([m["test"]["accuracy"] for m in models], 3)),
                Cell(_mean([m["best_accuracy"] for m in models], 3)),
                Cell(_mean([m["test"]["calibration_error"] for m in models], 3)),
                Cell(f"{gold:.3f} [{min(spread):.3f}, {max(spread):.3f}]"),
                Cell("" if target is None else f"{gold / target:.2f}"),
                Cell(f"{best:.3f}"),
                Cell(_mean([point["kl"] for point in last], 1)),
                Cell(str(len(rows))),
            )
        )
    header = (
        "reward",
        "accuracy",
        "best possible",
        "calibration error",
        "gold at the end",
        "of gold's",
        "gold at its best",
        "KL, nats",
        "seeds",
    )
    caption = (
        "Means over seeds [least, most]. Learned rewards: how many comparisons, and which share of the answers "
        f"goes against the gold reward where that differs. Accuracy: on {TEST:,} comparisons of other prompts by "
        "the same annotator; best possible: what a reward that orders all completions as the gold one does can "
        "expect there, from the annotator's known probabilities (comparisons of equally good completions are a "
        "coin's). Gold: what PPO's completions are worth after the same steps; of gold's: as a share of what PPO "
        "on the gold reward itself reaches; at its best: the largest along the way."
    )
    return Table(header, tuple(lines), caption, in_readme=True)


def _movies(by_agent: ByAgent) -> Section:
    lines = []
    for agent, rows in by_agent.items():
        found = [row["movies"] for row in rows]
        difference = "" if agent == "VADER" else _interval([m["difference"] for m in found], "+.3f")
        cells = (
            _interval([m["proxy"] for m in found], ".3f"),
            difference,
            _mean([m["correlation"] for m in found], 3),
        )
        lines.append((Cell(agent, agent=agent), *map(Cell, cells), Cell(str(len(rows)))))
    one = next(iter(by_agent.values()))[0]["movies"]
    caption = (
        f"{one['pairs']:,} pairs of {one['sentences']:,} held-out sentences whose mean human ratings (-4 to 4) "
        f"differ by at least {GAP:g}. Accuracy: how often the proxy prefers the sentence that people rated "
        "higher; intervals of 95% are percentiles of a bootstrap over sentences, means over seeds. Difference: "
        "on the same resamples."
    )
    text = (
        "Sentences of movie reviews that people rated. The reward model is a sentence encoder (all-MiniLM-L6-v2) "
        "with a new head, trained on comparisons made of other sentences' ratings.",
    )
    header = ("reward", "accuracy", "above VADER", "correlation with the ratings", "seeds")
    return Section("People's ratings", text, (), (Table(header, tuple(lines), caption, in_readme=True),))


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f}" if values else ""


def _interval(found: Sequence[Sequence[float]], form: str) -> str:
    value, low, high = np.mean(found, axis=0)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"
