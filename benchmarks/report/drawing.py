"""What all figures share: colours, paper and SVG text. What is drawn on it lives in `figures.py`."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

INK, MUTED, GRID, PAPER = "#1c2430", "#5a6472", "#d9dee5", "#fefefe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--card"}
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 1.6),
    (4.5, 1.2, 1.2, 1.2, 1.2, 1.2),
    (7, 1.6, 1.4, 1.6),
    (9, 3),
    (3, 3),
)
_MARKERS = "osD^vPX"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # names may hold a $
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@dataclass(frozen=True)
class Ink:
    """How one agent is drawn everywhere: a colour for light paper, one for dark, a dash pattern and a marker."""

    light: str
    dark: str
    index: int

    @property
    def variable(self) -> str:
        """The CSS variable that holds the colour."""
        return f"--series-{self.light[1:]}"

    @property
    def dashes(self) -> tuple[float, ...]:
        """The dash pattern: colour is never the only difference."""
        return _DASHES[self.index % len(_DASHES)]

    @property
    def marker(self) -> str:
        """The marker, for the same reason."""
        return _MARKERS[self.index % len(_MARKERS)]


_PALETTE = (
    ("#2462c7", "#7db0ff"),
    ("#bf530a", "#f5a25d"),
    ("#1a7a4b", "#52c793"),
    ("#7a38ab", "#c592f2"),
    ("#b3245b", "#f383ab"),
    ("#0e7080", "#58c7d8"),
    ("#76591c", "#d6b770"),
    ("#4b5f2a", "#a9c47c"),
)
_GREY = Ink("#6a7380", "#9aa5b4", len(_PALETTE))
_USUAL = {"PPO": 0, "DQN": 1, "SB3 PPO, one-hot": 2, "SB3 PPO, raw ids": 3}


def inks(agents: Sequence[str]) -> dict[str, Ink]:
    """Return an ink for each agent: the usual ones keep theirs from report to report, `random` is grey.

    Agents beyond the palette get its colours again, with other dashes and markers.
    """
    taken = {_USUAL[agent] for agent in agents if agent in _USUAL}
    free = (index for index in count() if index not in taken)
    chosen = {}
    for agent in agents:
        if agent == "random":
            chosen[agent] = _GREY
        else:
            index = _USUAL[agent] if agent in _USUAL else next(free)
            chosen[agent] = Ink(*_PALETTE[index % len(_PALETTE)], index)
    return chosen


def style_sheet(look: Mapping[str, Ink]) -> tuple[str, str]:
    """Return the CSS declarations of the agents' colours, for light and for dark paper."""
    colours = {ink.variable: ink for ink in look.values()}
    light = "; ".join(f"{variable}: {ink.light}" for variable, ink in colours.items())
    dark = "; ".join(f"{variable}: {ink.dark}" for variable, ink in colours.items())
    return light, dark


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: of its file, without the suffix.
        svg: a whole SVG document on light paper.
        alt: what it shows, for those who cannot see it.
        caption: how to read it: what a line, a band, a point is.
    """

    name: str
    svg: str
    alt: str
    caption: str = ""

    def inline(self) -> str:
        """Return the SVG element for a page: its colours are CSS variables, its width that of its place."""
        svg = self.svg[self.svg.index("<svg") :]
        inks = [Ink(*pair, 0) for pair in _PALETTE] + [_GREY]
        for colour, variable in {**_VARIABLES, **{ink.light: ink.variable for ink in inks}}.items():
            svg = svg.replace(colour, f"var({variable})")
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = svg.replace("'DejaVu Sans'", "inherit").replace("font-family: inherit", "")
        head, rest = svg.split(">", 1)
        head = re.sub(r' (width|height)="[^"]*"', "", head)
        return f'{head} role="img" aria-label="{_escape(self.alt)}">{rest}'


@contextmanager
def drawing(name: str, width: float, height: float, projection: str | None = None) -> Iterator[tuple[Canvas, Axes]]:
    """Yield a canvas, in inches, and its axes, in the style of all figures."""
    with matplotlib.rc_context(_STYLE):
        matplotlib.rcParams["svg.hashsalt"] = name  # ids differ between the figures of a page, not between runs
        canvas = Canvas(figsize=(width, height), layout="constrained")
        axes = canvas.add_subplot(projection=projection)
        axes.set_axisbelow(True)
        with warnings.catch_warnings():  # a name may be in any script: the page's own fonts have its letters
            warnings.filterwarnings("ignore", r"Glyph .* missing from font")
            yield canvas, axes


def as_svg(canvas: Canvas) -> str:
    """Return what was drawn, without what a page need not carry; to be called inside `drawing`."""
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    named = re.sub(r'<g id="[^"]*"', "<g", text.getvalue())  # names that every figure repeats
    brief = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\d+\.\d+", _rounded, path[0]), named)
    return re.sub(r"[ \t]+\n", "\n", brief)


def _rounded(found: re.Match[str]) -> str:
    """Return a coordinate to a hundredth of a point."""
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".")


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
