import csv
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from benchmarks import progress, scores, suites
from benchmarks.errors import UserError
from benchmarks.report import assembly
from benchmarks.report.document import Cell, refresh_readme
from benchmarks.rows import open_for_append
from benchmarks.runner import ERRORS, ROWS

SECTIONS = (
    "Summary", "Learning curves", "Sample efficiency", "Task by task", "Cost", "What was run", "Run it again"
)  # fmt: skip


def store(folder, rows, errors=()):
    for name, entries in ((ROWS, rows), (ERRORS, errors)):
        if entries:
            with open_for_append(folder / name) as writer:
                for entry in entries:
                    writer.append(entry)


@pytest.fixture
def folder(tmp_path, quick_rows):
    folder = tmp_path / "quick"
    store(folder, quick_rows[::-1])  # the order of finishing must not matter
    return folder


class Page(HTMLParser):
    """Collects what a page refers to, its ids, and whether its elements close."""

    VOID = {"meta", "br", "link", "img", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.references, self.open, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.references += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_has_its_parts(folder):
    document, files = assembly.write(folder)
    assert {path.name for path in files} >= {
        "report.html",
        "report.md",
        "scores.csv",
        "summary.svg",
        "profiles.svg",
        "curve-copy.svg",
    }
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for title in SECTIONS:
        assert f">{title}</h2>" in page and f"## {title}" in markdown
    for text in ("Only 3 seeds", "stratified bootstrap", "steps to 90%", "text-envs bench run quick --seeds 3"):
        assert text in page and text in markdown
    for path in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (folder / path).exists()


def test_the_page_stands_alone(folder):
    assembly.write(folder)
    page = Page((folder / "report.html").read_text())
    assert not page.open
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "script" not in page.tags and page.tags.count("svg") == 5
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", (folder / "report.html").read_text())


def test_texts_of_episodes_are_escaped(folder):
    assembly.write(folder)
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "<i>1" not in page and "&lt;i&gt;1" in page
    assert "a\\|b" in markdown and "<i>1" not in markdown


STRANGE = ("<script>alert(1)</script>", "a|b", "$\\bad$", "_hidden", "[/red]", "测试")


def test_names_may_be_anything(tmp_path, make_row, capsys):
    """Names and texts are only shown: never run, never taken for markup, never mistaken for each other."""
    experiments = [suites.Experiment(t, a, "some/Env-v0", "some:make", steps=100) for t in STRANGE for a in STRANGE]
    tasks = ("任务一", "任务二", "Copy", "copy", "c" * 100)
    experiments += [suites.Experiment(task, "PPO", "some/Env-v0", "some:make", steps=100) for task in tasks]
    rows = [make_row(e, 0, 0.5, "made up", [(50, 1, 0.1, 0.2), (100, 2, 0.5, 0.5)]) for e in experiments]
    rows[0]["samples"][0]["completion"] = "</td><script>alert(2)</script> and half \ud83d"
    error = {"key": "f", "trial": "[/bold]", "when": "2025", "error": "RuntimeError: <b>[/x]</b> | $\\no$"}
    store(tmp_path, rows, [error])
    document, files = assembly.write(tmp_path)
    progress.print_document_tables(Console(file=io.StringIO()), document)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open and "script" not in page.tags and "b" not in page.tags
    assert len(set(page.ids)) == len(page.ids) and {name[1:] for name in page.references} <= set(page.ids)
    assert len({path.name for path in files}) == len(files) and all(path.exists() for path in files)
    markdown = (tmp_path / "report.md").read_text()
    assert not re.search(r"<(script|b|/td)\b", markdown)
    scores_of = next(line for line in markdown.splitlines() if line.startswith("| task |"))
    assert len(re.split(r"(?<!\\)\|", scores_of)) - 2 == 1 + len(STRANGE) + 1
    figure = next(f for f in document.figures() if f.name == "curve-a-b")
    assert all(name in html.unescape(figure.svg) for name in STRANGE)


def test_the_same_rows_give_the_same_bytes(folder):
    _, files = assembly.write(folder)
    first = {path: path.read_bytes() for path in files}
    assembly.write(folder)
    assert first == {path: path.read_bytes() for path in files}


def test_the_numbers_are_those_of_the_rows(folder):
    results = scores.load(folder)
    assert results.agents == ["random", "SB3 PPO, raw ids", "SB3 PPO, one-hot", "PPO", "DQN"]
    assert results.matrix("PPO", "sampled").tolist() == [[0.97] * 3, [0.98] * 3, [0.99] * 3]
    document = assembly.make(results, folder)
    table = document.sections[0].tables[0]
    ppo = next(row for row in table.rows if row[0].text == "PPO")
    assert ppo[1].text.startswith("0.98 [0.9")
    assert not any(cell.best for row in table.rows for cell in row), "runs stop at a score"
    assert results.efficiency("Copy", "PPO")[1].steps.value == 60_000  # the tenth of ten points


def test_where_runs_stop_at_a_score_their_steps_are_told(tmp_path, quick_rows):
    took = {"PPO": (900, 1000, 1100), "DQN": (500, 600, 700), "SB3 PPO, one-hot": (400, None, None)}
    for row in quick_rows:
        if row["experiment"]["agent"] in took:
            row["reached"] = took[row["experiment"]["agent"]][row["seed"]]
    store(tmp_path, quick_rows)
    document = assembly.make(scores.load(tmp_path), tmp_path)
    table = table_of(document, "Summary", 1)
    copy = {row[0].text: row[1] for row in table.rows}
    assert table.in_readme and table.header == ("agent", "Copy", "Reverse", "Password")
    assert copy["PPO"].text.startswith("1,000 [") and not copy["PPO"].best
    assert copy["DQN"].text.startswith("600 [") and copy["DQN"].best
    assert copy["SB3 PPO, one-hot"].text == "400, 1 of 3" and not copy["SB3 PPO, one-hot"].best
    assert copy["SB3 PPO, raw ids"].text == "not reached"


def test_the_csv_holds_every_row(folder, quick_rows):
    assembly.write(folder)
    lines = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text())))
    assert len(lines) == len(quick_rows)
    assert lines[0]["command"].startswith("text-envs bench run quick --only 'Copy / random' --seeds 1 --out runs/")
    by_key = {row["key"]: row for row in quick_rows}
    for line in lines:
        row = by_key[line["key"]]
        assert float(line["sampled_normalized"]) == row["evaluation"]["sampled"]["normalized"]


def test_what_is_missing_is_said(tmp_path, quick_rows):
    folder = tmp_path / "partial"
    lost = quick_rows[-1]
    error = {
        "key": lost["key"],
        "trial": "Password / DQN / seed 2",
        "when": "",
        "error": "Traceback\nValueError: no",
    }
    first = quick_rows[0]["experiment"]
    mended = {**error, "key": "another", "trial": f"{first['task']} / {first['agent']} / seed 0"}
    old = {**quick_rows[0], "key": "0" * 16, "started": "2099-01-01T00:00:00+00:00"}
    store(folder, [*quick_rows[:-1], old], [error, mended])
    document = assembly.make(scores.load(folder), folder)
    told = " ".join(document.warnings)
    assert "not complete" in told and "1 trial failed" in told and "1 row was left out" in told
    failures = next(section for section in document.sections if section.title == "Failures")
    assert [row[0].text for row in failures.tables[0].rows] == ["Password / DQN / seed 2"]


def test_seeds_that_not_all_tasks_have_are_told(tmp_path, quick_rows):
    kept = [
        r
        for r in quick_rows
        if (r["experiment"]["agent"], r["experiment"]["task"], r["seed"]) != ("PPO", "Copy", 2)
    ]
    store(tmp_path, kept)
    told = assembly.make(scores.load(tmp_path), tmp_path).warnings
    assert "Aggregates of PPO are of the 2 seeds that every task has." in told


def test_a_run_without_scores_may_be_incomplete_too(tmp_path, make_row):
    rows = []
    for experiment in suites.get("frontier").experiments[:2]:
        for seed in range(1 + (experiment.agent == "PPO")):
            row = make_row(experiment, seed, 0.5, suite="frontier")
            figures = dict.fromkeys(("kl", "reward", "kl_error", "reward_error", "frontier_reward"), 0.5)
            measured = {"measurement": {**figures, "optimal_reward": 1.0, "reference_reward": 0.0}}
            rows.append({name: value for name, value in row.items() if name != "evaluation"} | measured)
    store(tmp_path, rows)
    told = " ".join(assembly.make(scores.load(tmp_path), tmp_path).warnings)
    assert "some experiments have 1 seed, others 2" in told


def test_rows_of_a_changed_suite_are_shown_and_never_mixed(tmp_path, quick_rows):
    def changed(row, steps, started):
        experiment = {**row["experiment"], "steps": steps}
        return {**row, "key": f"{row['key']}-{steps}", "experiment": experiment, "started": started}

    copy_ppo = [r for r in quick_rows if (r["experiment"]["task"], r["experiment"]["agent"]) == ("Copy", "PPO")]
    others = [r for r in quick_rows if r not in copy_ppo]
    older = [changed(row, 7, "2025-01-01T00:00:00+00:00") for row in copy_ppo]
    newer = [changed(row, 8, "2025-02-01T00:00:00+00:00") for row in copy_ppo[:2]]
    store(tmp_path, [*newer, *older, *others])
    results = scores.load(tmp_path)
    assert [row["key"] for row in results.of("Copy", "PPO")] == [row["key"] for row in newer]
    assert (results.outdated, results.changed) == (3, 1)
    assert results.agents == ["random", "SB3 PPO, raw ids", "SB3 PPO, one-hot", "PPO", "DQN"]
    assert any("other settings" in warning for warning in assembly.make(results, tmp_path).warnings)


def test_tasks_without_an_optimum_are_shown_but_not_aggregated(tmp_path, quick_rows):
    folder = tmp_path / "raw"
    for row in quick_rows:
        if row["experiment"]["task"] == "Password":
            for mode in ("sampled", "greedy"):
                row["evaluation"][mode]["normalized"] = None
            row["curve"] = [[*point[:3], None] for point in row["curve"]]
    store(folder, quick_rows)
    results = scores.load(folder)
    assert results.normalized_tasks == ["Copy", "Reverse"]
    document = assembly.make(results, folder)
    assert "not normalised and not part of all tasks: Password" in document.sections[0].tables[0].caption
    assert "mean clean return" in document.html()


def test_where_no_optimum_is_known_nothing_is_called_normalised(tmp_path, quick_rows):
    for row in quick_rows:
        for mode in ("sampled", "greedy"):
            row["evaluation"][mode]["normalized"] = None
        row["curve"] = [[*point[:3], None] for point in row["curve"]]
    store(tmp_path, quick_rows)
    summary = assembly.make(scores.load(tmp_path), tmp_path).sections[0]
    (table,) = summary.tables  # no table of aggregates, none of steps to a score
    assert table.caption.startswith("Mean return [95% interval]") and summary.figures == ()
    assert "not normalised: no optimum of these tasks is known" in summary.text[0]


def test_steps_beyond_the_budget_are_told(tmp_path, quick_rows):
    for row in quick_rows:
        if row["experiment"]["agent"] == "DQN":
            row["steps"] = 3 * row["experiment"]["steps"]
    store(tmp_path, quick_rows)
    document = assembly.make(scores.load(tmp_path), tmp_path)
    told = [warning for warning in document.warnings if " times its steps of training" in warning]
    assert told == ["DQN took up to 3 times its steps of training, so it is not compared at equal steps."]
    assert "Steps of training, at most: " in document.sections[0].tables[0].caption


def table_of(document, section, number=0):
    return next(part for part in document.sections if part.title == section).tables[number]


def test_aggregates_name_their_best_and_mark_what_is_partial(tmp_path, quick_rows):
    rows = [r for r in quick_rows if (r["experiment"]["task"], r["experiment"]["agent"]) != ("Copy", "DQN")]
    for row in rows:
        row["experiment"].pop("target", None)  # scores are ranked where runs use up their steps
    store(tmp_path, rows)
    document = assembly.make(scores.load(tmp_path), tmp_path)
    table = table_of(document, "Summary", 1)
    assert table.header == ("agent", "IQM", "median", "mean", "optimality gap")
    names = [row[0].text for row in table.rows]
    assert names[-2:] == ["PPO", "DQN"]
    assert [row[4].best for row in table.rows] == [False, False, False, True, False]  # the gap: lower is better
    assert table.rows[4][1].text.endswith(", 2 of 3") and not any(cell.best for cell in table.rows[4])
    assert "2 of 3" in table_of(document, "Summary").rows[4][1].text and "k of n" in table.caption
    assert float(table.rows[3][4].text.split()[0]) == pytest.approx(0.02)
    assert any(warning.startswith("DQN was not run on Copy:") for warning in document.warnings)
    beats = table_of(document, "Summary", 2)
    assert beats.rows[3][1].text == "1.00 [1.00, 1.00]" and beats.rows[3][4].text == ""


def test_many_tasks_are_rows_and_few_are_columns(tmp_path, make_row):
    def document(tasks):
        folder = tmp_path / str(tasks)
        agents = {"PPO": 0.9, "DQN": 0.2}
        experiments = [
            suites.Experiment(f"Task {i}", agent, "some/Env-v0", "some:make")
            for i in range(tasks)
            for agent in agents
        ]
        store(folder, [make_row(e, seed, agents[e.agent], "made up") for e in experiments for seed in range(2)])
        return assembly.make(scores.load(folder), folder)

    few, many = (table_of(document(tasks), "Summary") for tasks in (3, 12))
    assert few.header == (
        "agent",
        "all tasks, sampled (IQM)",
        "all tasks, greedy (IQM)",
        "Task 0",
        "Task 1",
        "Task 2",
    )
    assert few.rows[0][0].agent == few.rows[0][0].text and len(few.rows) == 2
    assert many.header[0] == "task" and set(many.header[1:]) == {"PPO", "DQN"}
    assert len(many.rows) == 14 and many.rows[2][0].text == "Task 0"
    ppo = many.header.index("PPO")
    assert all(row[ppo].best and row[ppo].agent == "PPO" and row[ppo].level == 0.9 for row in many.rows[2:])
    assert few.in_readme and many.in_readme


def test_a_suites_own_sections_come_first_and_into_the_readme(folder, tmp_path, monkeypatch):
    (tmp_path / "some_sections.py").write_text(
        "from benchmarks.report.document import Section, Table, text_row\n"
        "def sections(rows, look):\n"
        "    table = Table(('what',), (text_row(f'{len(rows)} rows of our own'),), in_readme=True)\n"
        "    return [Section('Ours', tables=(table,))]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    suite = replace(suites.get("quick"), sections="some_sections:sections")
    monkeypatch.setattr(suites, "get", lambda name: suite)
    document = assembly.make(scores.load(folder), folder)
    assert [section.title for section in document.sections[:2]] == ["Ours", "Summary"]
    assert "45 rows of our own" in document.readme() and "SB3" not in document.readme()
    assert [figure.name for figure in document.figures()][:2] == ["summary", "profiles"]
    assert "Learning curves" in [section.title for section in document.sections]


def test_a_suite_that_draws_its_runs_has_no_curve_of_each_task(tmp_path, make_row):
    rows = [make_row(e, 0, 0.5, suite="sweeps") for e in suites.get("sweeps").experiments]
    curve = [(1000, 1.0, 0.5, 0.5), (2000, 2.0, 0.5, 0.5)]
    store(tmp_path, [{**row, "curve": curve if row["steps"] else []} for row in rows])
    document = assembly.make(scores.load(tmp_path), tmp_path)
    assert "Learning curves" not in [section.title for section in document.sections]
    assert not [figure.name for figure in document.figures() if figure.name.startswith("curve-")]


def test_each_task_has_a_part_with_its_texts(folder):
    document = assembly.make(scores.load(folder), folder)
    parts = next(section for section in document.sections if section.title == "Task by task").folds
    assert [part.title for part in parts] == ["Copy", "Reverse", "Password"] and all(part.opened for part in parts)
    assert len(parts[0].samples) == 5 and len(parts[0].samples[0].episodes) == 3
    ppo = next(row for row in parts[0].tables[0].rows if row[0].text == "PPO")
    row = dict(zip(parts[0].tables[0].header, ppo, strict=True))
    assert row["worst seed"].text == "0.97" and row["steps/s"].text == "6,000"
    assert row["steps to 50%"].text.startswith("36,000")  # the sixth of ten points
    page = document.html()
    assert all(f'id="task-by-task--{name}"' in page for name in ("copy", "reverse", "password"))


def test_long_parts_stay_out_of_markdown(folder):
    document = assembly.make(scores.load(folder), folder)
    assert "Every row: 45" in document.html() and "Every row" not in document.markdown()
    assert "### Password" in document.markdown()


def test_numbers_have_their_interval_on_a_line_of_its_own():
    def lines(text):
        return Cell(text).lines

    assert lines("0.98 [0.97, 0.99]") == ["0.98", "[0.97, 0.99]"]
    assert lines("12,300 [9,000, 15,000], 3 of 5") == ["12,300", "[9,000, 15,000]", "3 of 5"]
    assert lines("7,000, 1 of 5") == ["7,000", "1 of 5"]
    assert lines("-0.02") == ["-0.02"]
    for text in ("not reached", "", "3 of 5", "f(x=[1, 2])", "0.1 ± 0.2"):
        assert lines(text) == [text]


def test_tasks_that_were_not_run_are_told(tmp_path, quick_rows):
    store(tmp_path, [row for row in quick_rows if row["experiment"]["task"] == "Copy"])
    document = assembly.make(scores.load(tmp_path), tmp_path)
    told = "Of the suite's tasks, Reverse; Password were not run."
    assert told in document.warnings and told in document.readme()


def test_rows_of_another_environment_lack_no_task_of_the_suite(tmp_path, quick_rows):
    def elsewhere(row):
        return {**row, "experiment": {**row["experiment"], "task": "CartPole"}}

    store(tmp_path, [elsewhere(row) for row in quick_rows if row["experiment"]["task"] == "Copy"])
    assert not any("were not run" in told for told in assembly.make(scores.load(tmp_path), tmp_path).warnings)


def test_five_seeds_need_no_warning(tmp_path, quick_rows):
    rows = []
    for row in quick_rows:
        rows += [
            {**row, "key": f"{row['key']}{i}", "seed": row["seed"] + 3 * i, "suite": "unknown"} for i in range(2)
        ]
    store(tmp_path / "many", rows)
    assert assembly.make(scores.load(tmp_path / "many"), tmp_path / "many").warnings == ()


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds no rows; run a suite first"):
        scores.load(tmp_path)


def test_the_readme_block_is_renewed(folder):
    document = assembly.make(scores.load(folder), folder)
    blocks = (
        "<!-- results:quick -->\nreplace this\n<!-- /results -->\n",
        "<!-- results:real -->\nkeep\n<!-- /results -->\n",
    )
    text = "before\n" + "between\n".join(blocks)
    new = refresh_readme(text, "quick", document.readme())
    assert "replace this" not in new and "| PPO |" in new and "keep" in new and new.startswith("before\n")
    assert refresh_readme(new, "quick", document.readme()) == new
    with pytest.raises(UserError, match="results:other"):
        refresh_readme(text, "other", document.readme())
