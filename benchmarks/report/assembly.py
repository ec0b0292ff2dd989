"""Rows -> report: its parts in order. What they say is in `summary.py`, `tasks.py` and `runs.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import suites
from ..files import write_text
from ..rows import by_task_and_agent
from ..runner import ERRORS
from ..scores import FEW_SEEDS, Results, load, many
from . import runs, summary, tasks
from .document import Document, Section, Table, text_row
from .drawing import Ink, inks


def write(folder: Path) -> tuple[Document, list[Path]]:
    """Write the page, the Markdown, the figures and, of scored rows, the CSV; return the report and the files."""
    results = load(folder)
    document = make(results, folder)
    files = {
        folder / "report.html": document.html(),
        folder / "report.md": document.markdown(),
        **({folder / "scores.csv": runs.scores_csv(results, folder)} if results.scored else {}),
        **{folder / "figures" / f"{figure.name}.svg": figure.svg for figure in document.figures()},
    }
    (folder / "figures").mkdir(exist_ok=True)
    for path, text in files.items():
        write_text(path, text)
    return document, list(files)


def make(results: Results, folder: Path) -> Document:
    """Return the report of some results."""
    look = inks(results.agents)
    seconds = sum(row["wall_seconds"] for row in results.rows)
    added = tuple(_added(results, look))
    shown = any(table.in_readme for section in added for table in section.tables)
    drawn = any(section.figures for section in added)  # then a curve of each task would say it again
    scored = (
        (
            summary.summary(results, look, in_readme=not shown),
            *(() if drawn else tasks.curves(results, look)),
            *tasks.efficiency(results),
            tasks.tasks(results),
        )
        if results.scored
        else ()
    )
    return Document(
        title=f"text-envs benchmark: {results.suite}",
        subtitle=(
            f"{many(len(results.rows), 'trial')}, {many(len(results.agents), 'agent')}, "
            f"{many(len(results.tasks), 'task')}, {many(len({row['seed'] for row in results.rows}), 'seed')}; "
            f"{runs.duration(seconds)} of work, {_days(results)}"
        ),
        warnings=tuple(_warnings(results)),
        sections=(
            *added,
            *scored,
            *_failures(results),
            runs.cost(results),
            runs.what_was_run(results),
            runs.how_to_repeat(results, folder),
        ),
        look=look,
    )


def _days(results: Results) -> str:
    """Return on which day the trials began, or on which first and last."""
    days = sorted({row["started"][:10] for row in results.rows})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _warnings(results: Results) -> Iterable[str]:
    seeds = {len(rows) for by_agent in by_task_and_agent(results.rows).values() for rows in by_agent.values()}
    uneven = len(seeds) > 1
    fewest = results.fewest_seeds()
    if results.scored and fewest < FEW_SEEDS:
        yield (
            f"Only {many(fewest, 'seed')}{' of some experiments' if uneven else ''}: the intervals are rough and "
            f"usually too narrow. Do not rank agents whose intervals touch; a claim needs at least {FEW_SEEDS}."
        )
    elif not results.scored and min(seeds) == 1:
        yield f"Only 1 seed{' of some experiments' if uneven else ''}: how far another would differ is not known."
    for agent, times in results.overruns.items():
        yield f"{agent} took up to {times:.3g} times its steps of training, so it is not compared at equal steps."
    if absent := _absent_tasks(results):
        yield f"Of the suite's tasks, {'; '.join(absent)} {'was' if len(absent) == 1 else 'were'} not run."
    if uneven:
        yield f"The run is not complete: some experiments have {many(min(seeds), 'seed')}, others {max(seeds)}."
    lacking: dict[tuple[str, ...], list[str]] = {}
    for agent in results.agents:
        if results.tasks_of(agent) and (missing := results.missing(agent)):
            lacking.setdefault(tuple(missing), []).append(agent)
    if apart := [a for a in results.agents if results.tasks_of(a) and not results.matrix(a, "sampled").size]:
        yield f"No seed of {'; '.join(apart)} has every task: aggregates are of seeds that do, so there are none."
    for count, agents in _fewer(results).items():
        yield f"Aggregates of {'; '.join(agents)} are of the {many(count, 'seed')} that every task has."
    for missing_tasks, agents in lacking.items():
        one = len(agents) == 1
        yield (
            f"{'; '.join(agents)} {'was' if one else 'were'} not run on {', '.join(missing_tasks)}: "
            f"{'its' if one else 'their'} aggregates are over the other tasks only."
        )
    if count := len(results.failures):
        yield f"{many(count, 'trial')} failed and left no row; see Failures below, and {ERRORS} for the tracebacks."
    if results.outdated:
        rows = "1 row was" if results.outdated == 1 else f"{results.outdated} rows were"
        yield f"{rows} left out: there are others of the same experiment with newer settings."
    if results.changed:
        have = "experiment has" if results.changed == 1 else "experiments have"
        yield f"{results.changed} {have} other settings in the suite now than these rows were made with."


def _fewer(results: Results) -> dict[int, list[str]]:
    """Return the agents whose aggregates leave seeds out, because not all tasks have them, by the seeds left."""
    found: dict[int, list[str]] = {}
    for agent in results.agents:
        most = max((len(results.of(task, agent)) for task in results.tasks_of(agent)), default=0)
        if 0 < (count := len(results.matrix(agent, "sampled"))) < most:
            found.setdefault(count, []).append(agent)
    return found


def _absent_tasks(results: Results) -> list[str]:
    """Return which of the suite's tasks have no row; none where all rows are of environments of the user's own."""
    if results.suite not in suites.NAMES:
        return []
    tasks = dict.fromkeys(experiment.task for experiment in suites.get(results.suite).experiments)
    absent = [task for task in tasks if task not in results.tasks]
    return [] if len(absent) == len(tasks) else absent


def _added(results: Results, look: Mapping[str, Ink]) -> Iterable[Section]:
    """Yield the sections that the suite adds: what it is about, so they come first."""
    hook = suites.get(results.suite).sections if results.suite in suites.NAMES else None
    if hook is not None:
        yield from suites.resolve(hook)(results.rows, look)


def _failures(results: Results) -> Iterable[Section]:
    if results.failures:
        rows = tuple(text_row(f["trial"], f["error"].strip().splitlines()[-1]) for f in results.failures)
        yield Section("Failures", (), (), (Table(("trial", "error"), rows, labels=2),))
