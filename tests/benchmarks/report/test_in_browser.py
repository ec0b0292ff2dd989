"""The report's page as Chromium shows it on a phone; skipped where there is none, except under CI=true."""

import html
import json
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import scores, suites
from benchmarks.report import assembly
from benchmarks.report.document import Section
from benchmarks.report.drawing import inks
from benchmarks.report.figures import frontier, radar
from benchmarks.runner import ROWS

WIDTH = 390  # CSS pixels, of a phone
AGENTS = ("random", "PPO", "DQN")
SECTIONS = [
    "Summary", "Learning curves", "Sample efficiency", "Task by task", "Sweeps", "Cost", "What was run",
    "Run it again",
]  # fmt: skip

# Puts the page into a frame as wide as a phone, opens all of it, measures, and leaves the findings as JSON.
CHECKER = """<!doctype html><body><script>
const wait = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const drawn = element => { const box = element.getBoundingClientRect(); return box.width + box.height > 0; };
async function look(frame) {
  const view = frame.contentWindow, page = view.document, root = page.documentElement;
  const link = page.querySelector("nav.contents a");
  if (link) { link.click(); await wait(200); }
  const opened = link && page.querySelector(link.getAttribute("href")).closest("details").open;
  page.querySelectorAll("details").forEach(part => { part.open = true; });
  await wait(200);
  return {
    errors: view.problems,
    loads: view.performance.getEntriesByType("resource").map(entry => entry.name),
    sections: [...page.querySelectorAll("h2")].filter(drawn).map(title => title.textContent),
    figures: [...page.querySelectorAll("svg")].map(svg => ({
      label: svg.getAttribute("aria-label"),
      width: svg.getBoundingClientRect().width,
      height: svg.getBoundingClientRect().height,
      marks: [...svg.querySelectorAll('[style*="--series-"]')].filter(drawn).length,
    })),
    hidden: [...page.querySelectorAll("td, th, p")].filter(part => !drawn(part)).length,
    width: root.scrollWidth,
    opened,
  };
}
const frame = document.createElement("iframe");
frame.style = "border: 0; height: 900px; width: WIDTHpx";
frame.onload = async () => {
  const found = await look(frame).catch(error => ({failed: String(error)}));
  const result = document.createElement("pre");
  result.textContent = JSON.stringify(found);
  frame.replaceWith(result);
};
frame.src = "page.html";
document.body.append(frame);
</script>"""
LISTENER = """<script>
window.problems = [];
window.addEventListener("error", event => problems.push(event.message || event.target.outerHTML), true);
</script>"""


@pytest.fixture
def look(chromium, tmp_path):
    """Return what a browser finds in a page."""

    def look(page):
        (tmp_path / "page.html").write_text(page.replace("<head>", "<head>" + LISTENER, 1), encoding="utf-8")
        checker = tmp_path / "checker.html"
        checker.write_text(CHECKER.replace("WIDTH", str(WIDTH)), encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        flags += ["--hide-scrollbars", "--allow-file-access-from-files", "--virtual-time-budget=20000"]
        command = [chromium, *flags, "--dump-dom", checker.as_uri()]
        told = subprocess.run(command, capture_output=True, text=True, timeout=240)
        found = re.search(r"<pre>(.*)</pre>", told.stdout, re.DOTALL)
        assert found, f"{command} left no result:\n{told.stdout[-500:]}\n{told.stderr[-2000:]}"
        return json.loads(html.unescape(found[1]))

    return look


def a_report(folder, make_row):
    """Return a report of many tasks, with the two kinds of figures that only suites draw."""
    rows = []
    for number in range(10):
        for agent in AGENTS:
            steps = 0 if agent == "random" else 1000
            experiment = suites.Experiment(f"Task {number}", agent, "some/Env-v0", "some:factory", steps=steps)
            for seed in range(2):
                score = AGENTS.index(agent) * 0.3 + number * 0.02 + seed * 0.01
                curve = [(steps * i // 5, i, score, score * i / 5) for i in range(1, 6)] if steps else ()
                rows.append(make_row(experiment, seed, score, suite="made up", curve=curve))
    rows[0]["samples"][0]["completion"] = "x" * 300  # a word that no screen is wide enough for
    (folder / ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = assembly.make(scores.load(folder), folder)
    look = inks(AGENTS)
    kl = np.linspace(0, 3, 20)
    figures = (
        radar("radar", "Knobs", ["noise", "scale", "delay"], {"PPO": [0.5, None, 1], "DQN": [0.1, 0.2, 0]}, look),
        frontier("frontier", "Frontier", (kl, kl / (1 + kl)), {"PPO": [(1, 0.4, 0.1, 0.1)]}, look),
    )
    first, last = document.sections[:4], document.sections[4:]
    return replace(document, sections=(*first, Section("Sweeps", figures=figures), *last))


def test_the_page_is_whole_in_a_browser(look, tmp_path, make_row):
    document = a_report(tmp_path, make_row)
    found = look(document.html())
    assert found["errors"] == [] and found["loads"] == []
    assert found["sections"] == SECTIONS
    assert len(found["figures"]) == len(document.figures()) == 10 + 2 + 2
    for figure in found["figures"]:
        assert figure["marks"] > 0 and 300 < figure["width"] < WIDTH and figure["height"] > 150, figure
    assert found["width"] == WIDTH, "the page is wider than the screen"
    assert found["hidden"] == 0 and found["opened"]


def test_what_is_wrong_with_a_page_is_found(look):
    page = """<!doctype html><html><head></head><body style="margin: 0"><h2>One</h2><h2 hidden>Two</h2>
    <script>nothing.there()</script><img src="http://127.0.0.1:9/picture.png">
    <svg aria-label="empty" width="5" height="5"><path style="stroke: var(--ink)" d="M 0 0 L 1 1"/></svg>
    <div style="width: 800px">wide</div></body></html>"""
    found = look(page)
    assert any("nothing is not defined" in error for error in found["errors"])
    assert found["loads"] == ["http://127.0.0.1:9/picture.png"]
    assert found["sections"] == ["One"] and found["width"] == 800
    assert found["figures"] == [{"label": "empty", "width": 5, "height": 5, "marks": 0}]
