import re
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.report.drawing import inks, style_sheet
from benchmarks.report.figures import (
    Curve,
    Point,
    frontier,
    intervals,
    learning_curves,
    performance_profiles,
    radar,
)

AGENTS = ("random", "PPO", "DQN")
LOOK = inks(AGENTS)


def curve(n=20):
    x = np.linspace(0, 1, n)
    return Curve(x, 1 - x, np.clip(0.9 - x, 0, 1), np.clip(1.1 - x, 0, 1))


def series(figure, agent):
    """How often an agent's colour is in a figure."""
    return figure.svg.count(LOOK[agent].light)


FIGURES = {
    "learning": lambda: learning_curves("a", "A", {"PPO": curve()}, LOOK, "score", levels={"DQN": 0.5}),
    "profiles": lambda: performance_profiles("b", "B", {"PPO": curve(), "DQN": curve()}, LOOK, "how to read it"),
    "radar": lambda: radar("c", "C", ["x", "y", "z"], {"PPO": [0.5, 1, 0], "DQN": [None, 0.2, 0.3]}, LOOK),
    "spokes": lambda: radar("d", "D", ["x", "y"], {"PPO": [0.5, 1], "DQN": [None, None]}, LOOK),
    "frontier": lambda: frontier(
        "e", "E", ([0, 1, 9], [0, 0.5, 1]), {"PPO": [(2, 0.3, 0.1, 0.1), (1, 0.2, 0, 0)], "DQN": [(0, 0, 0, 0)]},
        LOOK,
    ),
    "points": lambda: frontier("f", "F", None, {"PPO": [(0, 0, 0, 0)], "DQN": [(3, 1, 0, 0.1)]}, LOOK),
}  # fmt: skip


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_agent_is_drawn_and_told(draw):
    figure = draw()
    ElementTree.fromstring(figure.svg)
    assert all(series(figure, agent) >= 2 for agent in ("PPO", "DQN"))  # the line and its legend
    assert "PPO" in figure.alt and "DQN" in figure.alt
    assert draw() == figure, "the same data give the same bytes"
    assert max(len(digits) for digits in re.findall(r'd="[^"]*?\.(\d+)', figure.svg)) <= 2


def test_a_figure_in_a_page_has_the_pages_colours_and_width():
    inline = FIGURES["radar"]().inline()
    assert f"var({LOOK['PPO'].variable})" in inline and LOOK["PPO"].light not in inline
    head = inline[: inline.index(">")]
    assert head.startswith("<svg") and 'role="img"' in head and "viewBox" in head and "width=" not in head


@pytest.mark.parametrize("name", ["_hidden", "$\\bad$", "测试🙂"])
def test_any_name_has_its_place_in_the_legend(name, recwarn):
    figure = learning_curves("a", f"about {name}", {name: curve()}, inks([name]), "score")
    assert re.search(rf">\u2060?{re.escape(name)}</text>", figure.svg) and f"about {name}" in figure.svg
    assert not recwarn.list


def test_a_title_fits_however_long_the_names_are():
    names = [f"an agent of a very long name, number {i}" for i in range(3)]
    points = {name: [Point(0.5, 0.4, 0.6), Point(0.6, 0.5, 0.7, hollow=True)] for name in names}
    figure = intervals("i", "A title of some length", points, inks(names), "how it is scaled, in many words")
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', figure.svg)[1])
    place = re.search(r'<text style="[^"]*" x="([\d.-]+)"[^>]*>A title of some length</text>', figure.svg)
    assert 0 <= float(place[1]) < 0.1 * width


def test_a_missing_score_leaves_a_gap():
    whole = radar("r", "R", ["x", "y", "z"], {"PPO": [0.5, 1, 0.3]}, LOOK)
    gap = radar("r", "R", ["x", "y", "z"], {"PPO": [0.5, None, 0.3]}, LOOK)
    assert "y 1.00" in whole.alt and "y none" in gap.alt
    assert "opacity: 0.07" in whole.svg and "opacity: 0.07" not in gap.svg  # an open polygon has no area
    assert series(gap, "PPO") < series(whole, "PPO")


def test_scores_and_axes_must_match():
    with pytest.raises(ValueError, match="'PPO' has 2 scores for 3 axes"):
        radar("r", "R", ["x", "y", "z"], {"PPO": [0.5, 1]}, LOOK)


def test_the_frontier_is_drawn_as_far_as_the_points_go():
    def labels(figure):
        return [float(text) for text in re.findall(r">(\d+(?:\.\d+)?)</text>", figure.svg)]

    far = frontier("f", "F", ([0, 1, 500], [0, 0.5, 0.9]), {"PPO": [(2, 0.3, 0, 0)]}, LOOK)
    assert "the best possible" in far.svg and "the best possible" in far.alt
    assert max(labels(far)) <= 2.5


def test_agents_keep_their_ink_and_no_two_look_alike():
    many = inks([f"agent {i}" for i in range(20)] + ["PPO", "random"])
    looks = {(ink.light, ink.dashes, ink.marker) for ink in many.values()}
    assert len(looks) == 22
    assert many["PPO"] == LOOK["PPO"] and many["random"] == LOOK["random"]
    light, dark = style_sheet(many)
    declared = re.findall(r"(--series-\w+):", light)
    assert len(declared) == len(set(declared)) == 9 and light.count(";") == dark.count(";")
