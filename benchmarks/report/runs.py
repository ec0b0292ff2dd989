"""What a report says of the runs themselves: what was run, on what, at which cost, and how to run it again."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import own, suites
from ..rows import Row, names
from ..scores import MODES, Results, as_json, many, number
from .document import Cell, Section, Table, text_row


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def environment(row: Row) -> str:
    """Return a row's environment with its keywords."""
    return _call(row["experiment"]["env_id"], row["experiment"]["env_kwargs"])


def what_was_run(results: Results) -> Section:
    """Return the section of environments, agents, machines and versions."""
    environments: dict[tuple[str, str], None] = {}
    makers: dict[tuple[str, str], list[Row]] = {}
    for row in results.rows:
        e = row["experiment"]
        environments[e["task"], environment(row)] = None
        module, _, maker = e["factory"].partition(":")
        made_by = _call(
            maker if module.startswith(f"{__package__.partition('.')[0]}.") else e["factory"], e["agent_kwargs"]
        )
        makers.setdefault((e["agent"], made_by), []).append(row)
    agents = tuple(
        text_row(agent, made_by, _tasks(rows, results), _either(f"{row['experiment']['steps']:,}" for row in rows))
        for (agent, made_by), rows in makers.items()
    )
    revisions = sorted({_revision(row) for row in results.rows})
    changed = " (+: with uncommitted changes)" if "+" in "".join(revisions) else ""
    facts = (
        *(text_row("machine", machine) for machine in sorted({_machine(row) for row in results.rows})),
        *(text_row("versions", versions) for versions in sorted({_versions(row) for row in results.rows})),
        text_row("revision", ", ".join(revisions) + changed),
    )
    played = (
        "It then plays fresh episodes twice, once with sampled and once with greedy actions (for DQN, sampled "
        "means its final exploration rate), whose prompts come from seeds that training never used."
    )
    text = (f"Each trial is one agent with one seed. {played if results.scored else ''}".strip(),)
    tables = (
        Table(("task", "environment"), tuple(text_row(*pair) for pair in environments), labels=2),
        Table(("agent", "made by", "tasks", "steps"), agents, labels=4),
        Table(("", ""), facts, labels=2),
    )
    return Section("What was run", text, tables=tables)


def cost(results: Results) -> Section:
    """Return the section of steps, tokens and seconds."""
    groups = [(agent, [r for r in results.rows if r["experiment"]["agent"] == agent]) for agent in results.agents]
    every = (("all", list(results.rows)),) if len(groups) > 1 else ()
    rows = [_cost_row(name, found) for name, found in (*groups, *every)]
    header = ("agent", "trials", "environment steps", "tokens", "training", "in all", "CPU", "steps/s")
    told = [column for column in range(len(header)) if any(row[column].text for row in rows)]
    caption = (
        "Sums over the agent's trials. In all: evaluation included. CPU: time on a core, where every "
        "trial counted it; less than the time in all means that other work shared the machine. At token level a "
        "step is a token; tokens are told where a trial counts them. Energy was not measured and is not estimated."
    )
    table = Table(tuple(header[i] for i in told), tuple(tuple(row[i] for i in told) for row in rows), caption)
    return Section("Cost", tables=(table,))


def _cost_row(name: str, rows: Sequence[Row]) -> tuple[Cell, ...]:
    def total(field: str) -> float:
        return sum(row.get(field) or 0 for row in rows)

    steps, seconds, tokens = (total(field) for field in ("steps", "train_seconds", "tokens"))
    return (
        Cell(name, agent=name),
        Cell(str(len(rows))),
        Cell(f"{steps:,}" if steps else ""),
        Cell(f"{tokens:,}" if tokens else ""),
        Cell(duration(seconds) if seconds else ""),
        Cell(duration(total("wall_seconds"))),
        Cell(duration(total("cpu_seconds")) if all("cpu_seconds" in row for row in rows) else ""),
        Cell(f"{steps / seconds:,.0f}" if steps and seconds else ""),
    )


def how_to_repeat(results: Results, folder: Path) -> Section:
    """Return the section with the commands that make the rows again, all of them and each."""
    runs: dict[tuple[str, ...], list[Row]] = {}
    for row in results.rows:
        runs.setdefault(_run(row), []).append(row)
    where = _out(folder)
    lines = [
        shlex.join([*run, *only, "--seeds", str(count), "--out", where])
        for run, rows in runs.items()
        for only, count in _parts(rows)
    ]
    text = (
        "The same seeds on the same machine and versions give the same scores. To add what these rows lack "
        "instead, as when a run was stopped, let --out name the folder in which they lie.",
    )
    code = "\n".join([*lines, shlex.join(["text-envs", "report", where])])
    return Section("Run it again", text, code=code, folds=(_every_row(results, folder),))


def _every_row(results: Results, folder: Path) -> Section:
    rows = tuple(
        (
            Cell(row["experiment"]["task"]),
            Cell(row["experiment"]["agent"], agent=row["experiment"]["agent"]),
            Cell(str(row["seed"])),
            Cell(_score(row)),
            Cell(duration(row["wall_seconds"])),
            Cell(_revision(row)),
            Cell(command(row, folder), code=True),
        )
        for row in results.rows
    )
    header = ("task", "agent", "seed", "sampled", "time", "revision", "command")
    text = (
        "A click on a command selects it. At the revision of the row it makes the row again, and those of the "
        "seeds before it where they are missing.",
    )
    return Section(f"Every row: {len(rows)}", text, tables=(Table(header, rows, labels=2),), page_only=True)


def _score(row: Row) -> str:
    evaluation = row.get("evaluation", {}).get("sampled")
    if evaluation is None:
        return ""
    score = evaluation["normalized"]
    return number(evaluation["mean"] if score is None else score)


def command(row: Row, folder: Path) -> str:
    """Return the command that makes a row again."""
    e = row["experiment"]
    one = ("--only", f"{e['task']} / {e['agent']}", "--seeds", str(row["seed"] + 1))
    return shlex.join([*_run(row), *one, "--out", _out(folder)])


def _run(row: Row) -> tuple[str, ...]:
    """Return the words that run a row's suite, with what the suite does not hold itself."""
    name = row["suite"]
    extra = own.options(row["experiment"], suites.get(name)) if name in suites.NAMES else []
    return ("text-envs", "bench", "run", name, *extra)


def _parts(rows: Sequence[Row]) -> list[tuple[tuple[str, ...], int]]:
    """Return the words that pick the experiments of some rows and no others, and how many seeds they have.

    All of a suite, or else whole tasks, whole agents and single experiments, as far as their seeds are as many.
    """
    seeds: dict[tuple[str, str], int] = {}
    for row in rows:
        seeds[names(row)] = max(seeds.get(names(row), 0), row["seed"] + 1)
    planned = _planned(rows[0])
    if planned <= seeds.keys() and len(set(seeds.values())) == 1:
        return [((), next(iter(seeds.values())))]
    parts, left = [], dict(seeds)
    for place, pattern in enumerate(("{} / *", "* / {}")):
        for name in dict.fromkeys(pair[place] for pair in seeds):
            group = {pair for pair in planned if pair[place] == name}
            counts = {seeds.get(pair) for pair in group}
            if len(counts) == 1 and None not in counts and len(group & left.keys()) > 1:
                parts.append((pattern.format(name), seeds[next(iter(group))]))
                left = {pair: count for pair, count in left.items() if pair not in group}
    parts += [(" / ".join(pair), count) for pair, count in left.items()]
    return [(("--only", pattern), count) for pattern, count in parts]


def _planned(row: Row) -> set[tuple[str, str]]:
    """Return task and agent of the experiments that a row's command would run; none where its suite is unknown."""
    if row["suite"] not in suites.NAMES:
        return set()
    return {(e.task, e.agent) for e in own.repeated(row["experiment"], suites.get(row["suite"])).experiments}


def _out(folder: Path) -> str:
    return f"runs/{folder.resolve().name}"


def scores_csv(results: Results, folder: Path) -> str:
    """Return one line for each row: what a spreadsheet needs."""
    out = io.StringIO()
    fields = ("mean", "standard_error", "normalized")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["suite", "task", "agent", "seed", "steps", "train_seconds", "steps_per_second", "episodes"]
        + [f"{mode}_{field}" for mode in MODES for field in fields]
        + ["env_id", "env_kwargs", "agent_kwargs", "key", "command"]
    )
    for row in results.scored:
        e, evaluation = row["experiment"], row["evaluation"]
        writer.writerow(
            [row["suite"], e["task"], e["agent"], row["seed"]]
            + [row.get(name) for name in ("steps", "train_seconds", "steps_per_second")]
            + [evaluation["sampled"]["episodes"]]
            + [evaluation[mode][field] for mode in MODES for field in fields]
            + [e["env_id"], as_json(e["env_kwargs"]), as_json(e["agent_kwargs"]), row["key"], command(row, folder)]
        )
    return out.getvalue()


def _tasks(rows: Sequence[Row], results: Results) -> str:
    found = list(dict.fromkeys(row["experiment"]["task"] for row in rows))
    return "all" if found == results.tasks else ", ".join(found)


def _either(texts: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(texts))


def _call(name: str, keywords: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in keywords.items())})"


def _revision(row: Row) -> str:
    return row["revision"] or "not known: an installed package"


def _machine(row: Row) -> str:
    h = row["hardware"]
    gpu = h["gpu"] or "no GPU"
    return f"{h['cpu']}, {many(h['cores'], 'core')}, {h['memory_gib']:.0f} GiB, {gpu}, {h['system']}"


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())
