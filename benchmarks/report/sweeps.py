"""What the report says of the suite `sweeps`: a score for each knob, as bsuite has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..rows import Row
from ..scores import number
from ..stats import Curve
from ..suite_sweeps import KNOBS, Knob
from .document import Cell, Section, Table
from .drawing import Figure, Ink
from .figures import radar, sweep

Swept = Sequence[Sequence[float]]  # for each value of a knob the scores of its seeds; none where it was not run


def score(means: Sequence[float], steady: bool) -> float:
    """Return one number in 0..1 for the scores at the values of a knob.

    Each score counts as 0 below uniform random actions and as 1 above the optimum, and the knob's is their mean:
    the share of the sweep that is solved, where values are either solved or not (bsuite's memory and deep sea).
    Where the optimal policy is the same at every value, as under noise and scale, half of it is the mean less one
    standard deviation over the values: to be good at some of them only costs more (bsuite's noise and scale).

    Other than bsuite's regret, which looks at all of training against a random baseline, scores are those of
    fresh episodes after it, between random and the exact optimum.

    Args:
        means: normalised scores, one for each value.
        steady: whether the optimal policy is the same at every value.

    Source: Osband et al. 2020, section 2 and its analysis code, arXiv:1908.03568.
    """
    clipped = np.clip(means, 0, 1)
    mean = float(clipped.mean())
    return (mean + max(0.0, mean - float(clipped.std()))) / 2 if steady else mean


def sections(rows: Sequence[Row], look: Mapping[str, Ink]) -> list[Section]:
    """Return what the report says of the suite, its agents drawn in the given inks."""
    agents = list(dict.fromkeys(row["experiment"]["agent"] for row in rows))
    swept = {knob.name: [_swept(rows, agent, knob) for agent in agents] for knob in KNOBS}
    scores = {agent: [_score(swept[knob.name][i], knob) for knob in KNOBS] for i, agent in enumerate(agents)}
    names = [knob.name for knob in KNOBS]
    figure = radar(
        "sweeps-radar",
        "What agents can stand",
        names,
        scores,
        look,
        "Each spoke is a knob of a task, from 0, no better than random at any value, to 1, optimal at all.",
    )
    table = Table(
        ("agent", *names),
        tuple((Cell(agent, agent=agent), *map(_score_cell, scores[agent])) for agent in agents),
        "Score of each knob in 0..1: the mean over its values of the normalised score, sampled, means over seeds. "
        "Reward noise and scale: half of it is the mean less a standard deviation over the values. Empty: some "
        "values are not run yet.",
        in_readme=True,
    )
    turned = [_figure(knob, agents, swept[knob.name], look) for knob in KNOBS if any(map(any, swept[knob.name]))]
    folds = tuple(_fold(knob, agents, swept[knob.name]) for knob in KNOBS)
    return [Section("Sweeps", (), (figure, *turned), (table,), folds=folds)]


def _swept(rows: Sequence[Row], agent: str, knob: Knob) -> Swept:
    """Return an agent's normalised scores at each value of a knob, one a seed."""
    found: dict[str, list[float]] = {knob.setting(value): [] for value in knob.values}
    for row in rows:
        task = row["experiment"]["task"]
        if row["experiment"]["agent"] == agent and task in found:
            found[task].append(row["evaluation"]["sampled"]["normalized"])
    return list(found.values())


def _score(swept: Swept, knob: Knob) -> float | None:
    return score([float(np.mean(seeds)) for seeds in swept], knob.steady) if all(swept) else None


def _score_cell(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(number(value), level=float(np.clip(value, 0, 1)))


def _figure(knob: Knob, agents: Sequence[str], swept: Sequence[Swept], look: Mapping[str, Ink]) -> Figure:
    """Return an agent's line over the values of a knob."""
    curves = {}
    for agent, values in zip(agents, swept, strict=True):
        if any(values):
            known = [seeds or [np.nan] for seeds in values]
            mean, low, high = (np.array([f(seeds) for seeds in known]) for f in (np.mean, min, max))
            curves[agent] = Curve(np.arange(len(values), dtype=float), mean, low, high)
    return sweep(
        f"sweep-{knob.name.replace(' ', '-')}",
        knob.name.capitalize(),
        knob.values,
        curves,
        look,
        f"{knob.keyword} of {knob.task}",
        caption="Means over seeds; bands from the least to the most of a seed.",
    )


def _fold(knob: Knob, agents: Sequence[str], swept: Sequence[Swept]) -> Section:
    """Return a knob's values, one a line."""
    means = [[float(np.mean(seeds)) if seeds else None for seeds in values] for values in swept]
    lines = tuple(
        (Cell(f"{value:g}"), *map(_score_cell, row)) for value, *row in zip(knob.values, *means, strict=True)
    )
    others = ", ".join(f"{name}={value}" for name, value in knob.others.items() if name != knob.keyword)
    caption = f"Normalised score, sampled, mean over seeds, of {knob.task} with {others}."
    return Section(knob.name.capitalize(), (), (), (Table((knob.keyword, *agents), lines, caption),))
