"""Rows -> report: what is said about a run. How it is set is `document.py`, how it is counted `scores.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import stats, suites
from .document import Cell, Document, Sample, Samples, Section, Table, slug, text_row
from .errors import UserError
from .figures import Curve, Figure, Ink, Point, inks, intervals, learning_curves
from .rows import Row
from .scores import FEW_SEEDS, MODES, Estimate, Results, as_json, curve, estimate, load, number, steps_to

SOLVED = 0.95
_INTERVALS = (
    "Intervals are 95% percentile intervals of a stratified bootstrap over seeds (2,000 resamples, tasks kept); "
    "IQM is the interquartile mean over seeds and tasks."
)


def write(folder: Path) -> tuple[Document, list[Path]]:
    """Write the page, the Markdown, the CSV and the figures beside the rows; return the report and the files."""
    results = load(folder)
    document = make(results, folder)
    files = {
        folder / "report.html": document.html(),
        folder / "report.md": document.markdown(),
        folder / "scores.csv": scores_csv(results),
        **{folder / "figures" / f"{figure.name}.svg": figure.svg for figure in document.figures()},
    }
    (folder / "figures").mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return document, list(files)


def make(results: Results, folder: Path) -> Document:
    """Return the report of some results."""
    look = inks(results.agents)
    names = ", ".join(results.suites)
    seconds = sum(row["wall_seconds"] for row in results.rows)
    sections = [
        *(
            [_summary(results, look), _tasks(results), *_curves(results, look), _sample_texts(results)]
            if results.scored
            else []
        ),
        *_added(results),
        *_failures(results),
        _what_was_run(results),
        _how_to_repeat(results, folder),
    ]
    return Document(
        title=f"text-envs benchmark: {names}",
        subtitle=(
            f"{len(results.rows)} trials, {len(results.agents)} agents, {len(results.tasks)} tasks, "
            f"{len({row['seed'] for row in results.rows})} seeds; "
            f"{_duration(seconds)} of work, {results.rows[-1]['started'][:10]}"
        ),
        warnings=tuple(_warnings(results)),
        sections=tuple(sections),
        look=look,
    )


def _warnings(results: Results) -> Iterable[str]:
    fewest = results.fewest_seeds()
    if results.scored and fewest < FEW_SEEDS:
        yield (
            f"Only {fewest} {'seed' if fewest == 1 else 'seeds'}: the intervals are rough and usually too narrow. "
            f"Do not rank agents whose intervals touch; a claim needs at least {FEW_SEEDS}."
        )
    uneven = {len(results.of(t, a)) for t in results.tasks for a in results.agents} - {0}
    if len(uneven) > 1:
        yield f"The run is not complete: some experiments have {min(uneven)} seeds, others {max(uneven)}."
    if results.failures:
        yield f"{len(results.failures)} trials failed and are missing from the numbers; see Failures."
    if results.outdated:
        yield f"{results.outdated} rows were left out: there are others of the same experiment with newer settings."
    if results.changed:
        yield f"{results.changed} experiments have other settings in the suite now than these rows were made with."


def _summary(results: Results, look: dict[str, Ink]) -> Section:
    agents = [agent for agent in results.agents if len(results.matrix(agent, "sampled"))]
    overall = {
        agent: {mode: estimate(stats.iqm, results.matrix(agent, mode)) for mode in MODES} for agent in agents
    }
    figures = []
    if overall:
        points = {
            agent: [Point(e.value, e.low, e.high, hollow=mode == "greedy") for mode, e in overall[agent].items()]
            for agent in agents
        }
        figures.append(
            intervals(
                "summary",
                "Normalised score over all tasks (IQM)",
                points,
                look,
                "normalised score (0 = random, 1 = optimal)",
                caption="A point is the interquartile mean over seeds and tasks, a line its 95% interval; "
                "filled: actions sampled (DQN: with its final exploration rate), hollow: greedy.",
            )
        )
    text = [
        "Scores are clean returns of fresh evaluation episodes, normalised so that 0 is the exact expected return "
        "of uniform random actions and 1 the exact optimum.",
    ]
    tables = [_score_table(results, overall), *_improvement_table(results, agents)]
    return Section("Summary", tuple(text), tuple(figures), tuple(tables))


def _score_table(results: Results, overall: dict[str, dict[str, Estimate]]) -> Table:
    """Return the one table that the README shows too: an agent a row, a task a column."""
    several = len(results.normalized_tasks) > 1
    header = ["agent", *(["all, sampled", "all, greedy"] if several else []), *results.tasks]
    columns: list[list[Estimate | None]] = []
    if several:
        columns += [[overall[a][mode] if a in overall else None for a in results.agents] for mode in MODES]
    for task in results.tasks:
        columns.append([_task_estimate(results, task, agent, "sampled") for agent in results.agents])
    cells = [[_estimate_cell(value, column) for value in column] for column in columns]
    rows = tuple(
        (Cell(agent, agent=agent), *(column[i] for column in cells)) for i, agent in enumerate(results.agents)
    )
    raw = [task for task in results.tasks if task not in results.normalized_tasks]
    note = f" Mean returns, not normalised: {', '.join(raw)}." if raw else ""
    least = results.fewest_seeds()
    episodes = min(row["evaluation"]["sampled"]["episodes"] for row in results.scored)
    caption = (
        f"Normalised score [95% interval], {least} seeds, {episodes} evaluation episodes each; "
        f"a task's column: sampled actions, mean over seeds. Bold: no other agent's interval lies wholly above. "
        f"{_INTERVALS}{note}"
    )
    return Table(tuple(header), rows, caption, in_readme=True)


def _task_estimate(results: Results, task: str, agent: str, mode: str) -> Estimate | None:
    scores = results.scores(task, agent, mode)
    return estimate(stats.mean, scores[:, None]) if len(scores) else None


def _estimate_cell(value: Estimate | None, column: Sequence[Estimate | None]) -> Cell:
    """Return a cell with a bar, marked where no other interval of its column lies wholly above."""
    if value is None:
        return Cell("")
    top = max(e.low for e in column if e is not None)
    return Cell(str(value), level=float(np.clip(value.value, 0, 1)), best=value.high >= top)


def _improvement_table(results: Results, agents: list[str]) -> Iterable[Table]:
    if len(agents) < 2:
        return
    rows = []
    for better in agents:
        cells = [Cell(better, agent=better)]
        for worse in agents:
            if better == worse:
                cells.append(Cell(""))
                continue
            pair = (results.matrix(better, "sampled"), results.matrix(worse, "sampled"))
            cells.append(Cell(str(estimate(stats.probability_of_improvement, *pair))))
        rows.append(tuple(cells))
    yield Table(
        ("beats", *agents),
        tuple(rows),
        "Probability of improvement: how likely one seed of the row's agent scores higher than one of the "
        "column's, on a task drawn at random; ties count half. Sampled actions.",
    )


def _tasks(results: Results) -> Section:
    rows = []
    for task in results.tasks:
        found = [(agent, mine) for agent in results.agents if (mine := results.of(task, agent))]
        columns = {mode: [_task_estimate(results, task, a, mode) for a, _ in found] for mode in MODES}
        for i, (agent, mine) in enumerate(found):
            rows.append(
                (
                    Cell(task if i == 0 else ""),
                    Cell(agent, agent=agent),
                    *(_estimate_cell(columns[mode][i], columns[mode]) for mode in MODES),
                    Cell(number(results.scores(task, agent, "sampled").min())),
                    Cell(_mean_return(mine)),
                    Cell(_solved_at(mine)),
                    Cell(_speed(mine)),
                )
            )
    header = (
        "task", "agent", "sampled", "greedy", "worst seed", "mean return", f"steps to {SOLVED}", "steps/s",
    )  # fmt: skip
    caption = (
        "Mean over seeds [95% interval]; worst seed: the lowest sampled score. Mean return: clean, sampled, "
        "plus or minus the mean standard error over episodes. Steps: when the training score, "
        f"exploration included, first reached {SOLVED}, mean over the seeds that did. Speed: environment "
        f"steps a second of training on {_threads(results)}."
    )
    return Section("Tasks", (), (), (Table(header, tuple(rows), caption, labels=2),))


def _mean_return(rows: Sequence[Row]) -> str:
    means = [row["evaluation"]["sampled"]["mean"] for row in rows]
    errors = [row["evaluation"]["sampled"]["standard_error"] for row in rows]
    return f"{np.mean(means):.3f} ± {np.mean(errors):.3f}"


def _solved_at(rows: Sequence[Row]) -> str:
    if not any(row.get("curve") for row in rows):
        return ""
    reached = steps_to(rows, SOLVED)
    if not reached:
        return "not reached"
    steps, seconds = np.mean(reached, axis=0)
    share = "" if len(reached) == len(rows) else f", {len(reached)} of {len(rows)}"
    return f"{steps:,.0f} ({seconds:.0f} s{share})"


def _speed(rows: Sequence[Row]) -> str:
    speeds = [row["steps_per_second"] for row in rows if row.get("steps_per_second")]
    return f"{np.mean(speeds):,.0f}" if speeds else ""


def _threads(results: Results) -> str:
    counts = sorted({row["threads"] for row in results.rows})
    return f"{' or '.join(map(str, counts))} {'thread' if counts == [1] else 'threads'} a trial"


def _curves(results: Results, look: dict[str, Ink]) -> Iterable[Section]:
    figures: list[Figure] = []
    for task in results.tasks:
        normalized = task in results.normalized_tasks
        curves: dict[str, Curve] = {}
        levels: dict[str, float] = {}
        for agent in results.agents:
            rows = results.of(task, agent)
            line = curve([row for row in rows if row.get("curve")], 3 if normalized else 2)
            if line is not None:
                curves[agent] = line
            elif rows:
                levels[agent] = float(results.scores(task, agent, "sampled").mean())
        if curves:
            figures.append(
                learning_curves(
                    f"curve-{slug(task)}",
                    task,
                    curves,
                    look,
                    "normalised score" if normalized else "mean clean return",
                    levels=levels,
                )
            )
    if figures:
        text = (
            "Clean return of the training episodes, exploration included: mean over seeds, with a band of "
            "95% bootstrap intervals. Dotted lines are agents that do not learn.",
        )
        yield Section("Learning curves", text, tuple(figures))


def _sample_texts(results: Results) -> Section:
    blocks = []
    for task in results.tasks:
        for agent in results.agents:
            for row in results.of(task, agent)[:1]:
                episodes = tuple(Sample(**episode) for episode in row["samples"])
                blocks.append(Samples(f"{task}: {agent}, seed {row['seed']}", episodes))
    text = (
        "Sampled evaluation episodes of one seed, from the worst to the best at even ranks: not chosen by hand.",
    )
    return Section("Samples", text, samples=tuple(blocks))


def _added(results: Results) -> Iterable[Section]:
    """Yield the sections that the suites add."""
    for name in results.suites:
        try:
            hook = suites.get(name).sections
        except ValueError:
            continue
        if hook is not None:
            yield from suites.resolve(hook)([row for row in results.rows if row["suite"] == name])


def _failures(results: Results) -> Iterable[Section]:
    if results.failures:
        rows = tuple(text_row(f["trial"], f["error"].strip().splitlines()[-1]) for f in results.failures)
        yield Section("Failures", (), (), (Table(("trial", "error"), rows, labels=2),))


def _what_was_run(results: Results) -> Section:
    seen: dict[tuple[str, str], Row] = {}
    for row in results.rows:
        seen.setdefault((row["experiment"]["task"], row["experiment"]["agent"]), row)
    experiments = tuple(
        text_row(
            task,
            agent,
            _call(e["env_id"], e["env_kwargs"]),
            _call(e["factory"].partition(":")[2], e["agent_kwargs"]),
            f"{e['steps']:,}",
        )
        for (task, agent), row in seen.items()
        for e in [row["experiment"]]
    )
    machines = sorted({_machine(row) for row in results.rows})
    versions = sorted({_versions(row) for row in results.rows})
    revisions = sorted({str(row["revision"]) for row in results.rows})
    facts = (
        *(text_row("machine", machine) for machine in machines),
        *(text_row("versions", version) for version in versions),
        text_row(
            "revision",
            ", ".join(revisions) + (" (+: with uncommitted changes)" if "+" in "".join(revisions) else ""),
        ),
    )
    return Section(
        "What was run",
        (
            "Each trial trains one agent with one seed in a process of its own and then plays fresh episodes "
            "twice, once with sampled and once with greedy actions (for DQN, sampled means its final "
            "exploration rate). The evaluation's prompts come from seeds that training never used.",
        ),
        (),
        (
            Table(("task", "agent", "environment", "made by", "steps"), experiments, labels=4),
            Table(("", ""), facts, labels=2),
        ),
    )


def _call(name: str, keywords: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in keywords.items())})"


def _machine(row: Row) -> str:
    h = row["hardware"]
    gpu = h["gpu"] or "no GPU"
    return f"{h['cpu']}, {h['cores']} cores, {h['memory_gib']:.0f} GiB, {gpu}, {h['system']}"


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def _how_to_repeat(results: Results, folder: Path) -> Section:
    where = f"runs/{folder.resolve().name}"
    count = max((row["seed"] for row in results.rows), default=0) + 1
    lines = []
    for name in results.suites:
        lines.append(f"text-envs bench run {name} --seeds {count} --out {where}")
    code = "\n".join([*lines, f"text-envs report {where}"])
    text = (
        "The same seeds on the same machine and versions give the same scores. A run that was stopped goes on "
        "where it was when the command is given again.",
    )
    return Section("Run it again", text, code=code)


def scores_csv(results: Results) -> str:
    """Return one line for each row: what a spreadsheet needs."""
    out = io.StringIO()
    fields = ("mean", "standard_error", "normalized")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["suite", "task", "agent", "seed", "steps", "train_seconds", "steps_per_second", "episodes"]
        + [f"{mode}_{field}" for mode in MODES for field in fields]
        + ["env_id", "env_kwargs", "agent_kwargs", "key"]
    )
    for row in results.scored:
        e, evaluation = row["experiment"], row["evaluation"]
        writer.writerow(
            [row["suite"], e["task"], e["agent"], row["seed"]]
            + [row.get(name) for name in ("steps", "train_seconds", "steps_per_second")]
            + [evaluation["sampled"]["episodes"]]
            + [evaluation[mode][field] for mode in MODES for field in fields]
            + [e["env_id"], as_json(e["env_kwargs"]), as_json(e["agent_kwargs"]), row["key"]]
        )
    return out.getvalue()


def refresh_readme(text: str, name: str, document: Document) -> str:
    """Return a README with the block `<!-- results:NAME -->` ... `<!-- /results -->` renewed.

    Raises:
        UserError: if it has no such block.
    """
    block = re.compile(rf"(<!-- results:{re.escape(name)} -->\n).*?(<!-- /results -->)", re.DOTALL)
    if not block.search(text):
        raise UserError(
            f"no block <!-- results:{name} --> ... <!-- /results -->; add one where the table should stand"
        )
    return block.sub(lambda found: f"{found[1]}\n{document.readme()}\n{found[2]}", text)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} minutes"
        if minutes < 120
        else f"{minutes / 60:.1f} hours"
    )
