"""What a run shows in the terminal: a bar for each running trial, one for all, a line for each result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .document import Document
from .rows import Row
from .runner import Trial

_SPEED_WINDOW = 600.0  # seconds; trials differ in speed, a short window would make the estimate jump


class TerminalDisplay:
    """Progress bars on a terminal; plain lines where the output is not one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=_SPEED_WINDOW,
        )
        self._bars: dict[str, TaskID] = {}
        self._weights: dict[str, int] = {}
        self._all: TaskID | None = None
        self._width = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, trials: Sequence[Trial], skipped: int, jobs: int) -> None:
        """Say what is to be done and start the bar of all trials."""
        done = f", {skipped} have their row already" if skipped else ""
        self._console.print(f"{len(trials)} trials to run with {jobs} jobs{done}")
        self._width = max((len(trial.name) for trial in trials), default=0)
        self._weights = {trial.key: _weight(trial) for trial in trials}
        self._all = self._progress.add_task("[bold]all", total=sum(self._weights.values()) or 1)

    def started(self, trial: Trial) -> None:
        """Give the trial a bar."""
        self._bars[trial.key] = self._progress.add_task(trial.name, total=self._weights[trial.key])

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
        self._close(trial)
        evaluation = row.get("evaluation", {}).get("sampled", {})
        score, mean = evaluation.get("normalized"), evaluation.get("mean")
        result = f"score {score:6.3f}" if score is not None else f"return {mean:6.3f}" if mean is not None else ""
        self._console.print(
            f"[green]done[/green]    {trial.name:<{self._width}}  {result}  {row['wall_seconds']:6.1f} s",
            highlight=False,
        )

    def failed(self, trial: Trial, error: str) -> None:
        """Replace the trial's bar by its traceback."""
        self._close(trial)
        self._console.print(f"[red]failed[/red]  {trial.name}")
        self._console.print(error.rstrip(), markup=False, highlight=False, style="dim", soft_wrap=True)

    def _close(self, trial: Trial) -> None:
        self.advanced(trial, 1.0)
        self._progress.remove_task(self._bars.pop(trial.key))


def _weight(trial: Trial) -> int:
    """Return the environment steps of a trial, evaluation included, as its share of the work."""
    return trial.experiment.steps + 2 * trial.experiment.eval_episodes


def print_document_tables(console: Console, document: Document) -> None:
    """Print the tables of a report that the README shows too."""
    for warning in document.warnings:
        console.print(f"[yellow]note[/yellow] {warning}", highlight=False)
    for table in (t for section in document.sections for t in section.tables if t.in_readme):
        shown = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for number, name in enumerate(table.header):
            shown.add_column(name, justify="left" if number < table.labels else "right")
        for row in table.rows:
            shown.add_row(*(Text(_stacked(cell.text), "bold" if cell.best else "") for cell in row))
        console.print(shown)
        console.print(table.caption, style="dim", highlight=False)


def _stacked(text: str) -> str:
    """Return an estimate with its interval on a line of its own: terminals are narrow."""
    return re.sub(r" \[(.+), (.+)\]$", r"\n\1..\2", text)
