"""The kinds of figures that reports show; what they are drawn on lives in `drawing.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ..stats import Curve
from .drawing import GRID, INK, MUTED, PAPER, Figure, Ink, as_svg, drawing

Reals = NDArray[np.float64]


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
    with drawing(name, 4.1, 3.2) as (canvas, axes):
        for agent, level in (levels or {}).items():
            axes.axhline(level, color=look[agent].light, dashes=(2, 2), linewidth=1.2, label=_label(agent))
        for agent, curve in curves.items():
            _draw_curve(axes, agent, curve, look[agent])
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_xlim(left=0)
        if any(curve.x.max() >= 1000 for curve in curves.values()):
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(axis="y")
        _legend(canvas, axes)
        alt = f"{title}: {ylabel} against {xlabel} for {', '.join([*curves, *(levels or {})])}"
        return Figure(name, as_svg(canvas), alt, caption)


def sweep(
    name: str,
    title: str,
    values: Sequence[float],
    curves: Mapping[str, Curve],
    look: Mapping[str, Ink],
    xlabel: str,
    ylabel: str = "normalised score",
    caption: str = "",
) -> Figure:
    """Draw one line with a band for each agent over the values of a knob, which are set evenly apart.

    Args:
        name: of the figure's file.
        title: above it.
        values: of the knob, in their order.
        curves: for each agent its scores; x are positions in `values`, NaN leaves a gap.
        look: the agents' inks.
        xlabel: what is turned.
        ylabel: what is scored.
        caption: how to read it.
    """
    with drawing(name, 4.1, 3.2) as (canvas, axes):
        for agent, curve in curves.items():
            _draw_curve(axes, agent, curve, look[agent], markevery=None)
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.grid(axis="y")
        _legend(canvas, axes)
        alt = f"{title}: {ylabel} against {xlabel} for {', '.join(curves)}"
        return Figure(name, as_svg(canvas), alt, caption)


def performance_profiles(
    name: str,
    title: str,
    profiles: Mapping[str, Curve],
    look: Mapping[str, Ink],
    caption: str = "",
    xlabel: str = "normalised score τ",
    ylabel: str = "share of runs above τ",
) -> Figure:
    """Draw for each agent which share of its runs, over all tasks, scores more than each threshold `x`.

    Source: Agarwal et al. 2021, section 4.2, arXiv:2108.13264.
    """
    with drawing(name, 4.8, 3.6) as (canvas, axes):
        for agent, profile in profiles.items():
            _draw_curve(axes, agent, profile, look[agent])
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_xlim(min(p.x[0] for p in profiles.values()), max(p.x[-1] for p in profiles.values()))
        axes.set_ylim(-0.02, 1.02)
        axes.grid()
        _legend(canvas, axes)
        alt = f"{title}: {ylabel} against {xlabel} for {', '.join(profiles)}"
        return Figure(name, as_svg(canvas), alt, caption)


def intervals(
    name: str,
    title: str,
    points: Mapping[str, Sequence[Point]],
    look: Mapping[str, Ink],
    xlabel: str,
    kinds: tuple[str, str] = ("sampled", "greedy"),
    caption: str = "",
) -> Figure:
    """Draw points with their intervals, one row of the figure for each agent; brackets of a name get a line."""
    with drawing(name, 4.1, 1.15 + 0.31 * len(points)) as (canvas, axes):
        for row, (agent, both) in enumerate(points.items()):
            for point, shift in zip(both, np.linspace(-0.17, 0.17, len(both)), strict=True):
                _draw_point(axes, point, row + shift, look[agent])
        axes.set_yticks(range(len(points)), [agent.replace(" (", "\n(") for agent in points])
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8.5)
        axes.set_ylim(len(points) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        canvas.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")  # names take half the width
        axes.set_xlabel(xlabel, loc="right")
        if any(point.hollow for both in points.values() for point in both):
            for kind, face in zip(kinds, (MUTED, PAPER), strict=True):
                axes.plot([], [], "o", color=MUTED, markerfacecolor=face, markersize=6, label=kind)
            canvas.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2)
        alt = f"{title}: " + "; ".join(f"{agent} {both[0].value:.2f}" for agent, both in points.items())
        return Figure(name, as_svg(canvas), alt, caption)


def radar(
    name: str,
    title: str,
    axes: Sequence[str],
    scores: Mapping[str, Sequence[float | None]],
    look: Mapping[str, Ink],
    caption: str = "",
) -> Figure:
    """Draw one polygon for each agent.

    Args:
        name: of the figure's file.
        title: above it.
        axes: what each spoke is, clockwise from the top.
        scores: for each agent a score in 0..1 on each axis; None, where there is none, leaves a gap.
        look: the agents' inks.
        caption: how to read it.

    Raises:
        ValueError: if an agent has another number of scores than there are axes.
    """
    for agent, values in scores.items():
        if len(values) != len(axes):
            raise ValueError(f"{agent!r} has {len(values)} scores for {len(axes)} axes; None is a missing one")
    with drawing(name, 4.9, 4.5, projection="polar") as (canvas, polar):
        angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
        polar.set_theta_offset(np.pi / 2)  # type: ignore[attr-defined]
        polar.set_theta_direction(-1)  # type: ignore[attr-defined]
        for agent, values in scores.items():
            ink = look[agent]
            around, radii = np.append(angles, angles[0]), np.array([*values, values[0]], float)
            if not np.isnan(radii).any():
                polar.fill(around, radii, color=ink.light, alpha=0.07, linewidth=0)
            _draw_line(polar, around, radii, ink, agent)
        polar.set_ylim(0, 1.05)
        polar.set_rlabel_position(180 / len(axes))  # type: ignore[attr-defined]
        polar.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"])
        polar.tick_params(axis="x", labelcolor=INK, pad=4)
        polar.set_xticks(angles, axes)
        for label, angle in zip(polar.get_xticklabels(), angles, strict=True):
            side = np.sin(angle)
            label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
        polar.spines["polar"].set_visible(False)
        polar.set_title(title, pad=16)
        _legend(canvas, polar)
        alt = f"{title}: " + "; ".join(
            f"{agent} " + ", ".join(_told(axis, v) for axis, v in zip(axes, values, strict=True))
            for agent, values in scores.items()
        )
        return Figure(name, as_svg(canvas), alt, caption)


def frontier(
    name: str,
    title: str,
    exact: tuple[ArrayLike, ArrayLike] | None,
    points: Mapping[str, Sequence[tuple[float, float, float, float]]],
    look: Mapping[str, Ink],
    caption: str = "",
    x_label: str = "KL to the reference, nats",
    y_label: str = "reward",
) -> Figure:
    """Draw rewards against what they cost in KL, beside the best that is possible.

    Args:
        name: of the figure's file.
        title: above it.
        exact: (KL, reward), arrays of one length, of the optima of all KL prices; above it nothing can lie.
        points: for each agent (KL, reward, error of the KL, error of the reward), joined in the order of KL.
        look: the agents' inks.
        caption: how to read it, what an error is.
        x_label: what KL is measured in.
        y_label: what the reward is.
    """
    with drawing(name, 4.8, 3.6) as (canvas, axes):
        for agent, found in points.items():
            ink = look[agent]
            kl, reward, kl_error, reward_error = np.array(sorted(found), float).T
            axes.plot(kl, reward, color=ink.light, dashes=ink.dashes, linewidth=1.0, alpha=0.7)
            axes.errorbar(
                kl, reward, reward_error, kl_error, ink.marker, color=ink.light, markersize=5, label=_label(agent)
            )
        if exact is not None:
            kl, best = (np.asarray(values, float) for values in exact)
            low, high = axes.get_ylim()
            top = max(high, best.max() + 0.05 * np.ptp(best))
            axes.fill_between(kl, best, top, color=GRID, alpha=0.45, linewidth=0)
            axes.plot(kl, best, color=INK, linewidth=2.2, label="the best possible")
            axes.set_ylim(min(low, best.min()), top)
        furthest = max(point[0] for found in points.values() for point in found) or 1.0
        axes.set_xlim(-0.02 * furthest, 1.2 * furthest)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid()
        _legend(canvas, axes)
        limit = "" if exact is None else ", beside the best possible"
        alt = f"{title}: {y_label} against {x_label} for {', '.join(points)}{limit}"
        return Figure(name, as_svg(canvas), alt, caption)


def against_kl(
    name: str,
    title: str,
    curves: Mapping[str, tuple[Curve, Curve]],
    look: Mapping[str, Ink],
    caption: str = "Means over seeds; bands from the least to the most of a seed.",
) -> Figure:
    """Draw for each reward what a policy is worth (solid, with a band) and what it is paid (dashed), against KL."""
    with drawing(name, 4.8, 3.8) as (canvas, axes):
        for agent, (worth, paid) in curves.items():
            ink = look[agent]
            axes.fill_between(worth.x, worth.low, worth.high, color=ink.light, alpha=0.16, linewidth=0)
            axes.plot(
                worth.x, worth.mean, color=ink.light, marker=ink.marker, markersize=4, markevery=3, label=agent
            )
            axes.plot(paid.x, paid.mean, color=ink.light, dashes=(4, 2), linewidth=1.1)
        axes.set_title(title)
        axes.set_xlabel("KL to where it began, nats")
        axes.set_ylabel("reward, standard deviations")
        axes.set_xlim(left=0)
        axes.grid()
        _legend(canvas, axes)
        alt = f"{title}: reward earned and reward paid against KL for {', '.join(curves)}"
        return Figure(name, as_svg(canvas), alt, f"Solid: gold reward. Dashed: the learned reward. {caption}")


def reliability(
    name: str,
    title: str,
    bins: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    look: Mapping[str, Ink],
    caption: str = "A point is a bin of comparisons; on the line confidence and accuracy are equal.",
) -> Figure:
    """Draw accuracy against confidence, both from a half to 1."""
    with drawing(name, 4.8, 3.8) as (canvas, axes):
        axes.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=1, dashes=(2, 2))
        for agent, (confidence, accuracy) in bins.items():
            _draw_line(axes, np.asarray(confidence), np.asarray(accuracy), look[agent], agent)
        axes.set_title(title)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.grid()
        _legend(canvas, axes)
        alt = f"{title}: accuracy against confidence for {', '.join(bins)}"
        return Figure(name, as_svg(canvas), alt, caption)


def _draw_curve(axes: Axes, agent: str, curve: Curve, ink: Ink, markevery: float | None = 0.22) -> None:
    axes.fill_between(curve.x, curve.low, curve.high, color=ink.light, alpha=0.16, linewidth=0)
    _draw_line(axes, curve.x, curve.mean, ink, agent, markevery)


def _draw_line(axes: Axes, x: Reals, y: Reals, ink: Ink, agent: str, markevery: float | None = None) -> None:
    axes.plot(
        x,
        y,
        color=ink.light,
        dashes=ink.dashes,
        linewidth=1.8,
        marker=ink.marker,
        markersize=4,
        markevery=markevery,
        label=_label(agent),
    )


def _draw_point(axes: Axes, point: Point, y: float, ink: Ink) -> None:
    axes.plot([point.low, point.high], [y, y], color=ink.light, linewidth=2.2, solid_capstyle="round")
    face = PAPER if point.hollow else ink.light
    axes.plot(
        point.value, y, ink.marker, color=ink.light, markerfacecolor=face, markersize=6.5, markeredgewidth=1.4
    )


def _legend(canvas: Canvas, axes: Axes) -> None:
    """Put the legend under the figure, in as many columns as its names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 3 if len(labels) > 4 and max(map(len, labels)) <= 17 else 2
    canvas.legend(handles, labels, loc="outside lower center", ncols=columns)


def _label(agent: str) -> str:
    """Return a name that the legend shows: matplotlib leaves out those that begin with "_"."""
    return f"\u2060{agent}" if agent.startswith("_") else agent


def _told(axis: str, value: float | None) -> str:
    return f"{axis} {'none' if value is None else format(value, '.2f')}"
