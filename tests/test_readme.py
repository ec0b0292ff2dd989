"""The pages say what is so: their blocks run, their tables are current, the map names every file."""

import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: (?P<mark>slow|skip), ?(?P<why>[^>]*) -->\n|<!-- test: (?P<bare>slow) -->\n)?"
                   r"```python\n(?P<code>.*?)```", re.DOTALL)  # fmt: skip
LONG_TRAINING = re.compile(r"total_timesteps=[\d_]+")


def blocks():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, found in enumerate(BLOCK.finditer(text)):
            mark = found["mark"] or found["bare"]
            marks = [pytest.mark.slow] if mark == "slow" else []
            if mark == "skip":
                marks = [pytest.mark.skip(reason=found["why"])]
            line = text[: found.start("code")].count("\n") + 1
            id = f"{page.stem}-{number}"
            yield pytest.param(found["code"], page.name, line, id=id, marks=marks)


@pytest.mark.parametrize(("code", "page", "line"), list(blocks()))
def test_block_runs(code, page, line, tmp_path, monkeypatch):
    """As it stands, but for the length of a training."""
    monkeypatch.chdir(tmp_path)
    code = LONG_TRAINING.sub("total_timesteps=1_000", code)
    exec(compile("\n" * (line - 1) + code, page, "exec"), {"__name__": "readme"})


def test_every_python_block_is_found():
    assert len(list(blocks())) == sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    heads = {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.M)
    }
    waiting = re.findall(r"<!-- results:(\w+) -->\n<!-- /results -->", text)  # for the rows of a first run
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if any(file.startswith(f"benchmarks/results/{suite}/") for suite in waiting):
            continue
        assert (page.parent / file).exists() if file else anchor in heads, target


def page_with(name):
    pages = [page for page in PAGES if f"<!-- {name} -->" in page.read_text(encoding="utf-8")]
    assert len(pages) == 1, f"the block {name} stands on {[page.name for page in pages]}: one page should have it"
    return pages[0]


def between(name):
    text = page_with(name).read_text(encoding="utf-8")
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name.partition(':')[0]} -->", text, re.DOTALL)[1]


def table(text):
    lines = [line for line in text.strip().splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def different_defaults():
    import stable_baselines3

    import agents

    for name in ("PPO", "DQN"):
        ours = inspect.signature(getattr(agents, name).__init__).parameters
        theirs = inspect.signature(getattr(stable_baselines3, name).__init__).parameters
        for argument in ours.keys() & theirs.keys():
            here, there = ours[argument].default, theirs[argument].default
            if here != there and not argument.endswith("_buffer_class"):
                yield name, argument, repr(here), repr(there)


def test_the_table_of_defaults_is_current():
    listed = {tuple(row[:4]) for row in table(between("defaults"))}
    assert listed == set(different_defaults())
    assert all(row[4] for row in table(between("defaults")))


RESULTS = sorted(path.parent for path in (ROOT / "benchmarks" / "results").glob("*/rows.jsonl"))


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_results_are_made_from_the_committed_rows(folder):
    from benchmarks import scores
    from benchmarks.report import assembly, runs
    from benchmarks.report.document import refresh_readme

    results = scores.load(folder)
    document = assembly.make(results, folder)
    page = page_with(f"results:{folder.name}")
    text = page.read_text(encoding="utf-8")
    again = f"renew it: text-envs report benchmarks/results/{folder.name} --readme {page.relative_to(ROOT)}"
    assert refresh_readme(text, folder.name, document.readme()) == text, again
    assert (folder / "report.md").read_text(encoding="utf-8") == document.markdown(), again
    if results.scored:
        table = (folder / "scores.csv").read_text(encoding="utf-8")
        assert table == runs.scores_csv(results, folder), again
    figures = {f"{figure.name}.svg": figure.svg for figure in document.figures()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in (folder / "figures").iterdir()}
    assert committed.keys() == figures.keys(), again
    assert [name for name, svg in figures.items() if committed[name] != svg] == [], again


def test_timings_are_those_of_the_committed_file():
    from benchmarks.speed import command

    table = command.table(ROOT / "benchmarks" / "results" / "speed.json")
    assert between("results:speed").strip() == table.strip(), (
        "renew it: text-envs bench speed --show --readme docs/results.md"
    )


def test_the_map_names_every_module():
    listed = set(re.findall(r"^    (\S+\.py|\S+\.j2)", between("layout"), re.MULTILINE))
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("text_envs", "agents", "benchmarks")
        for pattern in ("*.py", "*.j2")
        for path in (ROOT / package).rglob(pattern)
        if path.name != "__init__.py"
    }
    assert listed == modules
