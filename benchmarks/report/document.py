"""What a report is made of, and how it becomes HTML, Markdown and a README block; `assembly.py` fills it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from typing import Any

from ..errors import UserError
from .drawing import Figure, Ink, style_sheet

_LONGEST_SLUG = 60  # letters; file systems allow 255 bytes


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        level: 0..1, drawn as a bar under the text; None draws none.
        agent: whose colour the cell carries.
        best: among the best that it is compared with.
        code: something to copy.
    """

    text: str
    level: float | None = None
    agent: str | None = None
    best: bool = False
    code: bool = False

    @property
    def lines(self) -> list[str]:
        """The text, a number's interval and its "k of n" on lines of their own: pages are narrow."""
        found = re.fullmatch(r"(-?[\d.,]*\d)( \[[-\d., ]+\])?(, \d+ of \d+)?", self.text)
        return [part.lstrip(", ") for part in found.groups("") if part] if found else [self.text]


@dataclass(frozen=True)
class Table:
    """A table; the first `labels` columns name the row, the others hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    labels: int = 1
    in_readme: bool = False


@dataclass(frozen=True)
class Sample:
    """One episode as text, with the reward that it earned."""

    prompt: str
    completion: str
    reward: float


@dataclass(frozen=True)
class Samples:
    """Episodes of one agent on one task."""

    title: str
    episodes: tuple[Sample, ...]


@dataclass(frozen=True)
class Section:
    """A part of a report: text, then figures, tables, samples, code and folds, in this order.

    Attributes:
        title: its heading, which its anchor is made of.
        text: paragraphs.
        figures: side by side where there is room.
        tables: one after another.
        samples: each shown when it is asked for.
        code: to be copied.
        folds: parts that the page shows when they are asked for, with a list of links to them.
        opened: as a fold: it is shown from the start.
        page_only: as a fold: too long for Markdown and for paper.
    """

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    samples: tuple[Samples, ...] = ()
    code: str = ""
    folds: tuple[Section, ...] = ()
    opened: bool = False
    page_only: bool = False


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: its heading.
        subtitle: one line under it.
        warnings: what a reader must know before the numbers.
        sections: its parts, in order.
        look: the agents' inks.
    """

    title: str
    subtitle: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    look: Mapping[str, Ink]

    def html(self) -> str:
        """Return one page that needs nothing else: no network, no script."""
        light, dark = style_sheet(self.look)
        return _template("report.html.j2").render(document=self, light=light, dark=dark)

    def markdown(self) -> str:
        """Return the report as Markdown, its figures in `figures/`."""
        return _template("report.md.j2").render(document=self, markdown_table=markdown_table)

    def readme(self) -> str:
        """Return what the README shows: tables, and what a reader must know of them."""
        tables = [t for section in self.sections for t in section.tables if t.in_readme]
        shown = [f"{markdown_table(t)}\n{t.caption}\n" if t.caption else markdown_table(t) for t in tables]
        return "\n".join([*shown, *(f"> **Note.** {plain(warning)}\n" for warning in self.warnings)])

    def figures(self) -> list[Figure]:
        """Return all figures."""
        return [f for section in self.sections for part in (section, *section.folds) for f in part.figures]


def text_row(*texts: str) -> tuple[Cell, ...]:
    """Return a row of plain cells."""
    return tuple(Cell(text) for text in texts)


def markdown_table(table: Table) -> str:
    """Return a table in Markdown; the best cells are bold."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def show(cell: Cell) -> str:
        text = in_cell(cell.text)
        return f"**{text}**" if cell.best and text else text

    marks = ["---" if column < table.labels else "---:" for column in range(len(table.header))]
    return "\n".join(
        [
            line([in_cell(name) for name in table.header]),
            line(marks),
            *(line([show(cell) for cell in row]) for row in table.rows),
            "",
        ]
    )


def plain(text: str) -> str:
    """Return a text for Markdown in which nothing is a tag, with its line breaks shown."""
    return text.replace("<", "&lt;").replace("\r", "").replace("\n", " ⏎ ")


def in_cell(text: str) -> str:
    """Return a text for a cell of a Markdown table."""
    return plain(text).replace("|", "\\|")


def slugs(texts: Sequence[str]) -> list[str]:
    """Return an anchor, or the name of a file, for each of some texts: no two are alike."""
    found: list[str] = []
    for text in texts:
        base = re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:_LONGEST_SLUG] or "part"
        numbered = (f"{base}-{number}" for number in count(2))
        found.append(next(name for name in chain([base], numbered) if name not in found))
    return found


def _anchored(sections: Sequence[Section]) -> list[tuple[Section, str]]:
    return list(zip(sections, slugs([section.title for section in sections]), strict=True))


def refresh_readme(text: str, name: str, content: str) -> str:
    """Return a README with the block `<!-- results:NAME -->` ... `<!-- /results -->` renewed.

    Raises:
        UserError: if it has no such block.
    """
    block = re.compile(rf"(<!-- results:{re.escape(name)} -->\n).*?(<!-- /results -->)", re.DOTALL)
    if not block.search(text):
        raise UserError(
            f"no block <!-- results:{name} --> ... <!-- /results -->; add one where the table should stand"
        )
    return block.sub(lambda found: f"{found[1]}\n{content}\n{found[2]}", text)


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("benchmarks.report"),
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(plain=plain, in_cell=in_cell, anchored=_anchored)
    return environment.get_template(name)
