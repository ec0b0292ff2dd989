"""The page in a real Chromium, against the real server; skipped where there is none, except under CI=true."""

import json
import re

import pytest

from text_envs.feedback.records import Pair

pytestmark = pytest.mark.slow
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCRIPT = "<script>document.title = 'taken over'; alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def chrome(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def url(database, people, store, serving):
    store.add_pairs(Pair(f"prompt {i}", f"this {i} {SCRIPT}", f"that {i}") for i in range(30))
    with serving(database.path, "--annotations-per-pair", "2") as url:
        yield url


@pytest.fixture
def visit(chrome, url):
    """Log somebody in at a browser of their own; whatever is asked of other machines or goes wrong is a failure."""
    troubles, contexts = [], []

    def visit(name, **options):
        contexts.append(chrome.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda asked: None if asked.url.startswith(url) else troubles.append(asked.url))
        page.goto(url)
        page.wait_for_function("document.activeElement.id === 'name'")
        page.keyboard.type(name)
        page.keyboard.press("Tab")
        page.keyboard.type("correct horse")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Log out")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert troubles == []


def prompt(page):
    return page.get_by_role("region", name="Prompt").inner_text()


def press(page, key):
    with page.expect_navigation():
        page.keyboard.press(key)


def preferred(comparison):
    return {"a": comparison.pair.completion_a, "b": comparison.pair.completion_b, "tie": None}[comparison.choice]


def test_twenty_pairs_by_keyboard_then_progress_and_export(visit, url, store):
    page, said = visit("chief"), {}
    for number in range(20):
        key = "120"[number % 3]
        text = None if key == "0" else page.get_by_role("region", name=f"Text {key}").inner_text()
        said[prompt(page)] = text
        press(page, key)
    assert {one.pair.prompt: preferred(one) for one in store.comparisons()} == said and len(said) == 20
    assert "20 of 30 pairs compared" in page.inner_text("main") and "20 by you" in page.inner_text("main")
    assert page.get_by_role("progressbar").evaluate("bar => bar.value / bar.max") == pytest.approx(2 / 3)
    page.get_by_role("link", name="Progress").press("Enter")
    page.wait_for_selector("text=pairs you compared")
    assert re.search(r"20\s+pairs you compared", page.inner_text("main"))
    page.get_by_role("link", name="Admin").press("Enter")
    page.get_by_label("ties too").press("Space")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").press("Enter")
    lines = download.value.path().read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert download.value.suggested_filename == "comparisons.jsonl" and len(rows) == 20
    assert {row["prompt"]: None if row["tie"] else row["chosen"] for row in rows} == said


def test_skipping_going_back_and_keys_that_mean_nothing(visit, store):
    page = visit("ann")
    first = prompt(page)
    for key in ("3", "x", "Enter", "Control+1", "Alt+2"):
        page.keyboard.press(key)
    assert prompt(page) == first and store.progress().comparisons == 0
    press(page, "s")
    second = prompt(page)
    press(page, "1")
    press(page, "u")
    assert prompt(page) == second
    better = page.get_by_role("region", name="Text 2").inner_text()
    press(page, "2")
    assert [preferred(one) for one in store.comparisons()] == [better]
    assert store.progress("ann").skipped == 1


def test_two_browsers_never_have_the_same_pair_open(visit, database):
    pages = [visit("ann"), visit("ann")]
    for number in range(8):
        assert prompt(pages[0]) != prompt(pages[1])
        press(pages[number % 2], "1")
    assert prompt(pages[0]) != prompt(pages[1])


def test_a_script_in_a_completion_is_text(visit):
    page = visit("ann")
    shown = {page.get_by_role("region", name=f"Text {side}").inner_text() for side in (1, 2)}
    assert f"this 0 {SCRIPT}" in shown
    assert page.title().startswith("Compare")


def test_an_open_page_of_a_session_that_ended_keeps_nothing(visit, accounts, store):
    page = visit("ann")
    accounts.revoke("ann")
    page.goto(page.url)
    assert page.url.endswith("/login") and store.progress().comparisons == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(visit, url, store, scheme):
    (long,) = store.add_pairs([Pair("prompt" * 300, "x" * 1_000_000, "word " * 200_000)])
    for id in range(1, long):
        store.record(id, "chief", "a")
        store.record(id, "ann", "b")
    page = visit("chief", viewport={"width": 390, "height": 800}, color_scheme=scheme)
    assert "promptprompt" in prompt(page)
    lowest = page.get_by_role("button", name="Skip").bounding_box()
    assert lowest["y"] + lowest["height"] <= 800, "the buttons are always on the screen"
    for path in ("", "progress", "admin", "admin/disagreements"):
        page.goto(url + path)
        assert page.evaluate("document.documentElement.scrollWidth") == 390, path
