"""Figures as SVG text: deterministic, readable on a phone, and recoloured by the page that embeds them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

INK, MUTED, GRID, PAPER = "#1c2430", "#5a6472", "#d9dee5", "#fefefe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--card"}
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.4, 1.4), (7, 1.6, 1.4, 1.6), (9, 3), (3, 3))
_MARKERS = "osD^vPX"

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
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
        return f"--series-{self.index}"

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
    """Return an ink for each agent: the usual ones keep theirs from report to report, `random` is grey."""
    free = [index for index in range(len(_PALETTE)) if index not in (_USUAL[a] for a in agents if a in _USUAL)]
    chosen = {}
    for agent in agents:
        if agent == "random":
            chosen[agent] = _GREY
            continue
        index = _USUAL[agent] if agent in _USUAL else free.pop(0) if free else len(chosen) % len(_PALETTE)
        chosen[agent] = Ink(*_PALETTE[index], index)
    return chosen


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
        for colour, variable in {**_VARIABLES, **{i.light: i.variable for i in _all_inks()}}.items():
            svg = svg.replace(colour, f"var({variable})")
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        svg = svg.replace("'DejaVu Sans'", "inherit").replace("font-family: inherit", "")
        head, rest = svg.split(">", 1)
        head = re.sub(r' (width|height)="[^"]*"', "", head)
        return f'{head} role="img" aria-label="{_escape(self.alt)}">{rest}'


@dataclass(frozen=True)
class Curve:
    """A mean over seeds along training, with its band; all arrays have one length."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A value with its interval; `hollow` points are the second kind of a figure."""

    value: float
    low: float
    high: float
    hollow: bool = False


def learning_curves(
    name: str,
    title: str,
    curves: Mapping[str, Curve],
    look: Mapping[str, Ink],
    ylabel: str,
    xlabel: str = "environment steps",
    levels: Mapping[str, float] | None = None,
    caption: str = "",
) -> Figure:
    """Draw one line with a band for each agent; `levels` are agents that do not learn, drawn flat."""
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _canvas(name, 4.6, 3.1)
        for agent, level in (levels or {}).items():
            axes.axhline(level, color=look[agent].light, dashes=(2, 2), linewidth=1.2, label=agent)
        for agent, curve in curves.items():
            ink = look[agent]
            axes.fill_between(curve.x, curve.low, curve.high, color=ink.light, alpha=0.16, linewidth=0)
            axes.plot(
                curve.x,
                curve.mean,
                color=ink.light,
                dashes=ink.dashes,
                linewidth=1.8,
                marker=ink.marker,
                markersize=4,
                markevery=0.22,
                label=agent,
            )
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_xlim(left=0)
        if any(curve.x.max() >= 1000 for curve in curves.values()):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y")
        canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        alt = f"{title}: {ylabel} against {xlabel} for {', '.join([*curves, *(levels or {})])}"
        return Figure(name, _svg(canvas), alt, caption)


def intervals(
    name: str,
    title: str,
    points: Mapping[str, Sequence[Point]],
    look: Mapping[str, Ink],
    xlabel: str,
    kinds: tuple[str, str] = ("sampled", "greedy"),
    caption: str = "",
) -> Figure:
    """Draw points with their intervals, one row of the figure for each agent."""
    with matplotlib.rc_context(_STYLE):
        canvas, axes = _canvas(name, 5.2, 1.15 + 0.42 * len(points))
        for row, (agent, both) in enumerate(points.items()):
            for point, shift in zip(both, np.linspace(-0.14, 0.14, len(both)), strict=True):
                _draw_point(axes, point, row + shift, look[agent])
        axes.set_yticks(range(len(points)), list(points))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(len(points) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        if any(point.hollow for both in points.values() for point in both):
            for kind, face in zip(kinds, (MUTED, PAPER), strict=True):
                axes.plot([], [], "o", color=MUTED, markerfacecolor=face, markersize=6, label=kind)
            canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2)
        alt = f"{title}: " + "; ".join(f"{agent} {both[0].value:.2f}" for agent, both in points.items())
        return Figure(name, _svg(canvas), alt, caption)


def _draw_point(axes: Axes, point: Point, y: float, ink: Ink) -> None:
    axes.plot([point.low, point.high], [y, y], color=ink.light, linewidth=2.2, solid_capstyle="round")
    face = PAPER if point.hollow else ink.light
    axes.plot(
        point.value, y, ink.marker, color=ink.light, markerfacecolor=face, markersize=6.5, markeredgewidth=1.4
    )


def _canvas(name: str, width: float, height: float) -> tuple[Canvas, Axes]:
    matplotlib.rcParams["svg.hashsalt"] = name  # ids that differ between the figures of a page, not between runs
    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = canvas.add_subplot()
    axes.set_axisbelow(True)
    return canvas, axes


def _svg(canvas: Canvas) -> str:
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    named = re.sub(r'<g id="[^"]*"', "<g", text.getvalue())  # names that every figure repeats
    return re.sub(r"[ \t]+\n", "\n", named)


def style_sheet(look: Mapping[str, Ink]) -> tuple[str, str]:
    """Return the CSS declarations of the agents' colours, for light and for dark paper."""
    light = "; ".join(f"{ink.variable}: {ink.light}" for ink in look.values())
    dark = "; ".join(f"{ink.variable}: {ink.dark}" for ink in look.values())
    return light, dark


def _all_inks() -> list[Ink]:
    return [*(Ink(*pair, index) for index, pair in enumerate(_PALETTE)), _GREY]


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
