"""What annotators see and send: the right pair, once, as it stood on their page."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from text_envs.feedback.agreement import agreement
from text_envs.feedback.leases import SECONDS
from text_envs.feedback.records import Pair

NASTY = [
    "<script>alert(1)</script>",
    "'); DROP TABLE comparisons; --",
    '"><img src=x onerror=alert(1)>',
    "</div></form></body>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;",
    "\n\n  indented\ttabbed\n",
    "tränen 😀 \u202e back \u2028 line",
]


def kept(store):
    """Return {(name, prompt): the preferred text, or "tie"}."""
    names = {counts.pseudonym: counts.name for counts in store.counts()}
    return {
        (names[one.annotator], one.pair.prompt): {
            "a": one.pair.completion_a,
            "b": one.pair.completion_b,
            "tie": "tie",
        }[one.choice]
        for one in store.comparisons()
    }


def test_what_is_kept_is_what_stood_on_the_page(enter, store):
    pairs = store.add_pairs(Pair(f"prompt {i}", f"this {i}", f"that {i}") for i in range(60))
    ann, said, first = enter("ann"), {}, []
    for number in range(len(pairs)):
        prompt, *texts = ann.texts()
        choice = number % 3
        first.append(texts[0].partition(" ")[0])
        said["ann", prompt] = texts[choice - 1] if choice else "tie"
        assert ann.answer(str(choice)).status_code == 200
    assert kept(store) == said and len(said) == len(pairs)
    assert 10 < first.count("this") < 50, "which side a text stands on is drawn for each showing"
    assert "Nothing is left" in ann.page


def test_a_page_that_is_loaded_again_shows_the_same_on_the_same_sides(enter, pairs):
    ann = enter("ann")
    before = ann.texts(), ann.field("showing")
    for _ in range(8):
        ann.get("/")
        assert (ann.texts(), ann.field("showing")) == before


def test_two_browsers_never_have_the_same_pair_open(enter, pairs):
    browsers = [enter("ann"), enter("ann"), enter("bob"), enter("chief")]
    for _ in range(2):
        shown = [browser.texts()[0] for browser in browsers]
        assert len(set(shown)) == 4
        browsers[0].answer()
        if "Nothing is left" in browsers[0].page:
            return
    pytest.fail("five pairs are not enough for six")


def test_another_annotators_pair_cannot_be_answered(enter, pairs, store):
    ann, bob = enter("ann"), enter("bob")
    response = bob.answer("1", showing=ann.field("showing"))
    assert response.status_code == 409 and "not shown to you" in response.text
    second = enter("ann")
    assert second.answer("1", showing=ann.field("showing")).status_code == 409
    assert store.progress().comparisons == 0
    assert ann.answer("1").status_code == 200


def test_an_answer_that_is_sent_again_changes_nothing(enter, pairs, store):
    ann = enter("ann")
    showing, (prompt, text, _) = ann.field("showing"), ann.texts()
    ann.answer("1")
    response = ann.answer("2", showing=showing)
    assert response.status_code == 409 and "done with that pair already" in response.text
    assert kept(store) == {("ann", prompt): text}


def test_a_pair_that_is_left_comes_back(enter, store, clock):
    store.add_pairs([Pair("only", "a", "b")])
    ann, bob = enter("ann"), enter("bob")
    assert "Nothing is left" in bob.page and "Others have 1 pair open" in bob.page
    clock.time += SECONDS + 1
    bob.get("/")
    assert bob.texts()[0] == "only"
    late = {"showing": ann.field("showing"), "csrf": ann.field("csrf")}
    for _ in range(2):  # the second by the browser's button back
        response = ann.answer("1", **late)
        assert response.status_code == 409 and "others were given the pair" in response.text
    assert bob.answer("2").status_code == 200
    assert list(kept(store)) == [("bob", "only")]


def test_who_logs_out_leaves_the_pair_at_once(enter, store):
    store.add_pairs([Pair("only", "a", "b")])
    ann, bob = enter("ann"), enter("bob")
    ann.send("/logout")
    bob.get("/")
    assert bob.texts()[0] == "only"


def test_a_late_answer_counts_while_nobody_else_has_the_pair(enter, store, clock):
    store.add_pairs([Pair("only", "a", "b")])
    ann = enter("ann")
    clock.time += 2 * SECONDS
    assert ann.answer("1").status_code == 200
    assert [one.seconds for one in store.comparisons()] == [2 * SECONDS]


def test_a_lease_that_was_over_is_renewed_for_whoever_still_looks_at_it(enter, store, clock):
    store.add_pairs([Pair("only", "a", "b")])
    ann, bob = enter("ann"), enter("bob")
    clock.time += SECONDS + 1
    assert ann.get("/").status_code == 200 and ann.texts()[0] == "only"
    bob.get("/")
    assert "Nothing is left" in bob.page


def test_each_pair_is_answered_by_as_many_as_are_wanted(make_app, people, browse, store, accounts):
    app = make_app(annotations_per_pair=2)
    store.add_pairs([Pair("first", "a", "b"), Pair("second", "a", "b")])
    ann, bob, chief = (browse(app=app) for _ in range(3))
    for browser, name in ((ann, "ann"), (bob, "bob")):
        browser.log_in(name)
        assert browser.texts()[0] == "first"
    chief.log_in("chief")
    assert chief.texts()[0] == "second", "two have the first one open"
    ann.answer("0")
    bob.answer("0")
    assert ann.texts()[0] == "second" and "Nothing is left" in bob.page
    ann.answer("0"), chief.answer("0")
    assert sorted(name for name, _ in kept(store)) == ["ann", "ann", "bob", "chief"]


def test_where_two_are_wanted_they_are_two_people(make_app, people, browse, store):
    app = make_app(annotations_per_pair=2)
    store.add_pairs([Pair("first", "a", "b"), Pair("second", "a", "b")])
    ann, again, more, bob = (browse(app=app) for _ in range(4))
    ann.log_in("ann"), again.log_in("ann"), more.log_in("ann")
    assert (ann.texts()[0], again.texts()[0]) == ("first", "second") and "Nothing is left" in more.page
    ann.answer("0")
    ann.send("/back")
    bob.log_in("bob")
    assert bob.texts()[0] == ann.texts()[0] == "first", "who goes back takes no room from others"


def test_what_is_skipped_goes_to_others_and_comes_back_when_asked_for(enter, store):
    store.add_pairs([Pair("first", "a", "b"), Pair("second", "a", "b")])
    ann = enter("ann")
    showing = ann.field("showing")
    ann.answer("skip"), ann.answer("skip")
    assert ann.answer("1", showing=showing).status_code == 409
    assert "Nothing is left" in ann.page and "Show what I skipped (2)" in ann.page
    ann.get("/?skipped=1")
    assert ann.texts()[0] == "first"
    bob = enter("bob")
    assert bob.texts()[0] == "second"
    ann.answer("1", skipped="1")
    assert list(kept(store)) == [("ann", "first")]
    assert store.progress("ann").skipped == 1


def test_an_answer_can_be_changed_until_the_next_but_one(enter, pairs, store):
    ann = enter("ann")
    prompt, *texts = ann.texts()
    assert "Back to my last answer" not in ann.page
    ann.answer("1")
    then = ann.texts()
    ann.send("/back")
    assert ann.texts() == [prompt, *texts] and "compared these before" in ann.page
    assert kept(store) == {("ann", prompt): texts[0]}, "the answer stands until another takes its place"
    ann.answer("skip")
    assert ann.texts() == then and kept(store) == {("ann", prompt): texts[0]}
    ann.send("/back")
    showing = ann.field("showing")
    ann.answer("2")
    assert ann.texts() == then and kept(store) == {("ann", prompt): texts[1]}
    assert ann.answer("1", showing=showing).status_code == 409, "that form was sent before"
    assert kept(store) == {("ann", prompt): texts[1]}


@pytest.mark.parametrize("text", NASTY)
def test_texts_are_shown_as_they_are(enter, store, text):
    store.add_pairs([Pair(text, text + "1", text + "2")])
    ann = enter("ann")
    prompt, *texts = ann.texts()
    assert prompt == text and set(texts) == {text + "1", text + "2"}
    assert "<script>alert" not in ann.page and "<img" not in ann.page and ann.page.count("</body>") == 1
    assert ann.answer("1").status_code == 200 and "Nothing is left" in ann.page


def test_a_completion_of_a_megabyte_is_shown_whole(enter, store):
    long = "<b>0123456789 </b>" * 60_000
    store.add_pairs([Pair("long", long, "")])
    ann = enter("ann")
    assert set(ann.texts()[1:]) == {long, '<em class="muted">nothing at all</em>'}
    assert "<b>" not in ann.page
    assert ann.answer("1").status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"choice": "3"},
        {"choice": "a"},
        {"choice": ""},
        {"showing": "' OR 1=1 --"},
        {"showing": "<script>"},
        {"showing": "x" * 5000},
        {"skipped": "maybe"},
    ],
)
def test_strange_fields_keep_nothing(enter, pairs, store, fields):
    ann = enter("ann")
    response = ann.answer(**fields)
    assert response.status_code in (400, 409) and "<script>" not in response.text
    assert store.progress().comparisons == store.progress().skipped == 0


def test_times_are_never_negative(enter, pairs, store, clock):
    ann = enter("ann")
    clock.time -= 5_000
    ann.answer("1")
    clock.time += 7
    ann.answer("1")
    assert all(one.seconds >= 0 for one in store.comparisons())


def test_progress_and_agreement_are_shown(make_app, people, browse, pairs, clock):
    app = make_app(annotations_per_pair=2)
    ann, bob = browse(app=app), browse(app=app)
    for browser, name in ((ann, "ann"), (bob, "bob")):
        browser.log_in(name)
        for number in range(len(pairs)):
            first = browser.texts()[1].startswith("this") == (number > 0 or name == "ann")
            browser.answer("1" if first else "2")
    clock.time += 60
    ann.get("/progress")
    assert "<strong>5 of 5</strong>" in ann.page and "<strong>10</strong>" in ann.page
    assert "<strong>80%</strong>" in ann.page and "<strong>0.00</strong> Krippendorff" in ann.page
    bob.get("/")
    assert "Krippendorff’s α 0.00" in bob.page and "5 by you" in bob.page


def test_agreement_is_counted_once_for_all_who_ask_at_once(store, monkeypatch):
    from text_envs.feedback.web.rooms import Agreed

    counted = []

    def slowly(answers):
        counted.append(answers)
        time.sleep(0.2)
        return agreement(answers)

    monkeypatch.setattr("text_envs.feedback.web.rooms.agreement", slowly)
    agreed = Agreed(store)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: agreed.now(), range(8)))
    assert len(counted) == 1 and len({id(one) for one in found}) == 1
