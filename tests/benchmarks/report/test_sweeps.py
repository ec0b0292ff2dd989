import re

import numpy as np
import pytest

from benchmarks import suites
from benchmarks.report import granularity, sweeps
from benchmarks.report.document import Document
from benchmarks.suite_granularity import tokens_a_step
from benchmarks.suite_sweeps import KNOBS

LEVEL = {"random": 0.0, "PPO": 1.0, "DQN": 0.5, "SB3 PPO, one-hot": 0.2}


def test_a_sweep_scores_the_mean_of_what_is_clipped():
    assert sweeps.score([1.0, 1.0, 0.0, 0.0], steady=False) == 0.5
    assert sweeps.score([1.3, -0.5], steady=False) == 0.5
    assert sweeps.score([0.2, 0.4], steady=False) == pytest.approx(0.3)


def test_what_should_not_matter_costs_when_it_does():
    """As `score_by_scaling` of bsuite: half the mean, half the mean less a standard deviation."""
    assert sweeps.score([0.8, 0.8, 0.8], steady=True) == pytest.approx(0.8)
    scores = [1.0, 0.9, 0.4]
    expected = (np.mean(scores) + np.mean(scores) - np.std(scores)) / 2
    assert sweeps.score(scores, steady=True) == pytest.approx(expected)
    assert sweeps.score([0.0, 0.0, 0.0, 0.3], steady=True) == pytest.approx(0.0375)  # the half below 0 is 0


@pytest.fixture
def sweep_rows(make_row):
    return [
        make_row(experiment, seed, LEVEL[experiment.agent], suite="sweeps")
        for experiment in suites.get("sweeps").experiments
        for seed in range(2)
    ]


def table_of(section):
    return {row[0].text: [cell.text for cell in row[1:]] for row in section.tables[0].rows}


def test_the_section_has_a_radar_and_all_knobs(sweep_rows, look_of):
    (section,) = sweeps.sections(sweep_rows, look_of(sweep_rows))
    assert table_of(section) == {agent: [f"{level:.2f}"] * len(KNOBS) for agent, level in LEVEL.items()}
    assert section.tables[0].header[1:] == tuple(knob.name for knob in KNOBS)
    assert [len(fold.tables[0].rows) for fold in section.folds] == [len(knob.values) for knob in KNOBS]
    figure, *turned = section.figures
    assert figure.name == "sweeps-radar" and all(knob.name in figure.svg for knob in KNOBS)
    assert [figure.name for figure in turned] == [f"sweep-{knob.name.replace(' ', '-')}" for knob in KNOBS]
    for knob, figure in zip(KNOBS, turned, strict=True):
        assert all(f">{value:g}</text>" in figure.svg for value in knob.values)


def test_a_knob_that_is_not_whole_has_no_score(sweep_rows, look_of):
    lacking = [r for r in sweep_rows if (r["experiment"]["task"], r["experiment"]["agent"]) != ("length 16", "PPO")]
    (section,) = sweeps.sections(lacking, look_of(lacking))
    table, length = table_of(section), [knob.name for knob in KNOBS].index("length")
    assert [i for i, text in enumerate(table["PPO"]) if not text] == [length] and all(table["DQN"])
    assert [row[2].text for row in section.folds[length].tables[0].rows] == ["1.00", "1.00", "", "1.00", "1.00"]


def test_a_knob_that_was_not_turned_has_no_figure(sweep_rows, look_of):
    (section,) = sweeps.sections(
        [r for r in sweep_rows if r["experiment"]["tags"] == ["length"]], look_of(sweep_rows)
    )
    assert [figure.name for figure in section.figures] == ["sweeps-radar", "sweep-length"]


def test_settings_differ_and_means_are_over_seeds(sweep_rows, look_of):
    chosen = {"reward scale 0.001": 0.0, "reward scale 1000": 0.4}
    for row in sweep_rows:
        if row["experiment"]["agent"] == "PPO" and row["experiment"]["task"] in chosen:
            row["evaluation"]["sampled"]["normalized"] = chosen[row["experiment"]["task"]] + 0.2 * row["seed"]
    (section,) = sweeps.sections(sweep_rows, look_of(sweep_rows))
    values = [0.1, 1.0, 1.0, 1.0, 0.5]
    knob = [knob.name for knob in KNOBS].index("reward scale")
    assert table_of(section)["PPO"][knob] == f"{np.mean(values) - np.std(values) / 2:.2f}"


@pytest.fixture
def level_rows(make_row):
    rows = []
    for experiment in suites.get("granularity").experiments:
        for seed in range(2):
            steps, score = experiment.steps, 0.0 if experiment.agent.startswith("random") else 0.8 + 0.1 * seed
            curve = [(steps * i // 10, 1.0 * i, 0.1 * i, score * i / 10) for i in range(1, 11)] if steps else ()
            row = make_row(experiment, seed, score, suite="granularity", curve=curve)
            rows.append({**row, "tokens": steps * tokens_a_step(experiment)})
    return rows


def test_levels_are_compared_by_tokens(level_rows, look_of):
    (section,) = granularity.sections(level_rows, look_of(level_rows))
    lines = {tuple(cell.text for cell in row[:2]): [c.text for c in row[2:]] for row in section.tables[0].rows}
    assert len(lines) == 24
    assert lines["Copy", "PPO, tokens"][:3] == ["0.85 [0.80, 0.90]", "40,000", "40,000"]
    assert lines["Copy", "PPO, utterances"][:3] == ["0.85 [0.80, 0.90]", "40,000", "10,000"]
    assert lines["Bandit", "random, tokens"][1:3] == ["0", "0"]
    assert [figure.name for figure in section.figures] == [
        f"granularity-{task}" for task in ("bandit", "copy", "password", "mastermind")
    ]
    assert all("tokens said" in figure.svg for figure in section.figures)


def test_the_sections_fit_a_page(sweep_rows, level_rows, look_of):
    for module, rows in ((sweeps, sweep_rows), (granularity, level_rows)):
        look = look_of(rows)
        document = Document("A title", "", (), tuple(module.sections(rows, look)), look)
        assert re.search(r"<svg", document.html()) and "|" in document.markdown()
