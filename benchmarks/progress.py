"""What a run shows in the terminal: a line for each result, the scores so far, a bar for each running trial."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from .report.document import Document
from .rows import Row, names
from .work import Trial

_SPEED_WINDOW = 600.0  # seconds; trials differ in speed, a short window would make the estimate jump
_REFRESHES = 2  # a second: each costs time that the trials could use
_COLUMN = 13  # characters that a number with its interval takes
_REST_OF_SCREEN = 5  # lines: the table's head and foot, and the last results above it


class TerminalDisplay:
    """A line for each result; on a terminal also bars and the mean scores so far, renewed in place below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(ratio=3, no_wrap=True, overflow="ellipsis")),
            BarColumn(table_column=Column(ratio=1, min_width=8)),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=_SPEED_WINDOW,
            expand=True,
        )
        self._scores = RunningScores()
        self._live = Live(
            get_renderable=self._picture, console=console, refresh_per_second=_REFRESHES, transient=True
        )
        self._bars: dict[str, TaskID] = {}
        self._weights: dict[str, int] = {}
        self._all: TaskID | None = None
        self._width = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, trials: Sequence[Trial], done: Sequence[Row], place: str) -> None:
        """Say what is to be done and start the bar of all trials."""
        already = f" ({len(done)} have their row already)" if done else ""
        self._console.print(f"{len(trials)} trials to run{already}: {place}", highlight=False)
        self._width = max((len(trial.name) for trial in trials), default=0)
        self._weights = {trial.key: _weight(trial) for trial in trials}
        self._scores.expect(trials, done)
        self._all = self._progress.add_task("[bold]all", total=sum(self._weights.values()) or 1)

    def started(self, trial: Trial) -> None:
        """Give the trial a bar."""
        self._bars[trial.key] = self._progress.add_task(escape(trial.name), total=self._weights[trial.key])

    def advanced(self, trial: Trial, fraction: float) -> None:
        """Move the trial's bar, and with it that of all."""
        bar = self._bars[trial.key]
        completed = fraction * self._weights[trial.key]
        before = self._progress.tasks[self._progress.task_ids.index(bar)].completed
        self._progress.update(bar, completed=completed)
        if self._all is not None:
            self._progress.advance(self._all, completed - before)

    def finished(self, trial: Trial, row: Row) -> None:
        """Replace the trial's bar by a line with its result."""
        self._close(trial, 1.0)
        self._scores.add(row)
        name, seconds = f"{trial.name:<{self._width}}", f"{row['wall_seconds']:6.1f} s"
        self._tell("[green]done[/green]   ", f"{name}  {_result(row)}  {seconds}")

    def died(self, trial: Trial, reason: str) -> None:
        """Take the trial's bar back and say that it will be begun again."""
        self._close(trial, 0.0)
        self._tell("[yellow]again[/yellow]  ", f"{trial.name}: {reason}")

    def failed(self, trial: Trial, error: str) -> None:
        """Replace the trial's bar by its traceback."""
        self._close(trial, 1.0)
        self._tell("[red]failed[/red] ", trial.name)
        self._console.print(error.rstrip(), markup=False, highlight=False, style="dim", soft_wrap=True)

    def _tell(self, what: str, text: str) -> None:
        """Print a line that no narrow screen, or file, breaks in two."""
        self._console.print(f"{what} {escape(text)}", highlight=False, soft_wrap=True)

    def _close(self, trial: Trial, fraction: float) -> None:
        self.advanced(trial, fraction)
        self._progress.remove_task(self._bars.pop(trial.key))

    def _picture(self) -> Group:
        height = self._console.height
        room = height - len(self._progress.tasks) - _REST_OF_SCREEN
        return Group(*self._scores.table(min(room, height // 3)), self._progress)


class RunningScores:
    """The mean score so far of each agent on each task."""

    def __init__(self) -> None:
        self._expected: Counter[tuple[str, str]] = Counter()
        self._found: dict[tuple[str, str], list[Row]] = {}

    def expect(self, trials: Sequence[Trial], done: Sequence[Row]) -> None:
        """Begin with the rows that are there already."""
        self._expected.update(map(names, done))
        self._expected.update((trial.experiment.task, trial.experiment.agent) for trial in trials)
        for row in done:
            self.add(row)

    def add(self, row: Row) -> None:
        """Add a result; its experiment is now the latest."""
        name = names(row)
        self._found[name] = [*self._found.pop(name, []), row]

    def table(self, height: int) -> Iterator[Table]:
        """Yield a table of the latest experiments that fit into some lines, in the run's order; none if empty."""
        latest = set(list(self._found)[-height:]) if height > 0 else set()
        if not latest:
            return
        hidden = len(self._expected) - len(latest)
        left = [Column(title, no_wrap=True, overflow="ellipsis") for title in ("task", "agent")]
        right = [Column(title, no_wrap=True, justify="right") for title in ("score so far", "seeds")]
        table = Table(*left, *right, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for name, expected in self._expected.items():
            if name in latest:
                rows = self._found[name]
                table.add_row(*map(Text, (*name, _mean(rows), f"{len(rows)} of {expected}")))
        if hidden:
            table.add_row(Text(f"and {hidden} more", "dim"))
        yield table


def _mean(rows: Sequence[Row]) -> str:
    """Return the mean normalised score, the mean return where there is none, or nothing."""
    found = [row.get("evaluation", {}).get("sampled", {}) for row in rows]
    for field, text in (("normalized", "{:.3f}"), ("mean", "return {:.3f}")):
        values = [evaluation.get(field) for evaluation in found]
        if None not in values:
            return text.format(fmean(values))
    return ""


def _result(row: Row) -> str:
    evaluation = row.get("evaluation", {}).get("sampled", {})
    score, mean = evaluation.get("normalized"), evaluation.get("mean")
    if score is not None:
        return f"score {score:6.3f}"
    return f"return {mean:6.3f}" if mean is not None else ""


def _weight(trial: Trial) -> int:
    """Return the environment steps and the evaluated episodes of a trial, as its share of the work."""
    return trial.experiment.steps + 2 * trial.experiment.eval_episodes


def print_document_tables(console: Console, document: Document) -> None:
    """Print the tables of a report that the README shows too."""
    for warning in document.warnings:
        console.print(f"[yellow]note[/yellow] {escape(warning)}", highlight=False)
    for table in (t for section in document.sections for t in section.tables if t.in_readme):
        shown = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, name in enumerate(table.header):
            shown.add_column(Text(name), justify="left" if number < table.labels else "right")
        narrow = _COLUMN * len(table.header) > console.width  # too narrow for intervals
        for row in table.rows:
            texts = [cell.lines[0] if narrow else _stacked(cell.text) for cell in row]
            shown.add_row(*(Text(text, "bold" if cell.best else "") for text, cell in zip(texts, row, strict=True)))
        console.print(shown)
        console.print(table.caption, style="dim", markup=False, highlight=False)
        if narrow:
            console.print("Intervals are left out: this screen is too narrow; the report has them.", style="dim")


def _stacked(text: str) -> str:
    """Return an estimate with its interval on a line of its own: terminals are narrow."""
    return re.sub(r" \[(.+), (.+)\]$", r"\n\1..\2", text)
