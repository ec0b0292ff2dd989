"""What admins see, and annotators do not."""

import json

import pytest

from text_envs.feedback import audit, exchange
from text_envs.feedback.records import Comparison, Pair, Rating

PATHS = ["/admin", "/admin/disagreements", "/admin/export", "/admin/export?what=ratings"]


def disagree(store, number=1, **texts):
    pairs = [
        Pair(**{"prompt": f"prompt {i}", "completion_a": "a", "completion_b": "b", **texts}) for i in range(number)
    ]
    for id in store.add_pairs(pairs):
        store.record(id, "ann", "a")
        store.record(id, "bob", "tie")
    return pairs


@pytest.mark.parametrize("path", PATHS)
def test_annotators_and_strangers_do_not_get_there(enter, browse, store, path):
    disagree(store)
    ann = enter("ann")
    response = ann.get(path)
    assert response.status_code == 403 and "For admins only" in response.text and "prompt" not in response.text
    assert "Admin</a>" not in ann.get("/").text
    assert browse().get(path).url.path == "/login"


def test_an_annotator_cannot_end_sessions(enter, browse):
    ann, bob = enter("ann"), enter("bob")
    assert ann.send("/admin/revoke", name="bob").status_code == 403
    assert browse().post("/admin/revoke", name="bob").status_code == 401
    assert bob.get("/", follow_redirects=False).status_code == 200


def test_an_admin_sees_who_did_what_and_ends_sessions(enter, store, database):
    disagree(store, 3)
    chief, ann = enter("chief"), enter("ann")
    chief.get("/admin")
    row = chief.page.partition("<bdi>ann</bdi>")[2].partition("</tr>")[0]
    assert "<td>annotator</td>" in row and "<td>3</td>" in row and "<td>0%</td>" in row
    response = chief.send("/admin/revoke", name="ann")
    assert "All sessions of that account are ended" in response.text
    assert ann.get("/").url.path == "/login"
    assert chief.send("/admin/revoke", name="nobody <b>").status_code == 404
    with database.reading() as connection:
        last = [
            (entry.action, entry.subject) for entry in audit.entries(connection) if entry.action == "end sessions"
        ][-1]
        assert audit.verify(connection) is not None
    pseudonyms = {counts.name: counts.pseudonym for counts in store.counts()}
    assert last == ("end sessions", pseudonyms["ann"])


def test_disagreements_are_shown_a_page_at_a_time(enter, store):
    disagree(store, 25)
    chief = enter("chief")
    seen = [chief.get(f"/admin/disagreements?page={page}").text.count("<article") for page in (1, 2, 3)]
    assert seen == [20, 5, 0]
    assert "page=2" in chief.get("/admin/disagreements").text
    for page in ("0", "-1", "x", "1" * 30):
        assert chief.get(f"/admin/disagreements?page={page}").status_code == 400


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "' OR '1'='1", "%", "_", "\\", '"><img src=x>', "{{ 1 }}"]
)
def test_filters_are_texts_and_nothing_else(enter, store, text):
    disagree(store)
    disagree(store, completion_a=f"with {text.upper()} in it")
    chief = enter("chief")
    found = chief.get("/admin/disagreements", params={"text": text}).text
    assert found.count("<article") == 1 and "<script>alert" not in found and "<img" not in found
    assert chief.get("/admin/disagreements", params={"who": text}).text.count("<article") == 0
    pseudonym = next(counts.pseudonym for counts in store.counts() if counts.name == "bob")
    assert chief.get("/admin/disagreements", params={"who": pseudonym}).text.count("<article") == 2


def test_names_and_policies_are_shown_as_they_are(enter, accounts, store, browse):
    name = "<script>alert('x')</script>\"'; DROP TABLE accounts; --"
    accounts.add(name, "correct horse")
    browser = browse()
    assert browser.log_in(name).status_code == 200 and "<script>alert" not in browser.page
    (id,) = store.add_pairs([Pair("p", "a", "b", "<i>policy</i>", name)])
    store.record(id, name, "a")
    store.record(id, "ann", "b")
    chief = enter("chief")
    for path in ("/admin", "/admin/disagreements"):
        page = chief.get(path).text
        assert "<script>alert" not in page and "<i>policy" not in page and "DROP TABLE accounts" in page
    assert chief.send("/admin/revoke", name=name).status_code == 200
    assert browser.get("/").url.path == "/login"


def test_a_long_text_is_cut_among_disagreements(enter, store):
    disagree(store, completion_a="x" * 1_000_000)
    page = enter("chief").get("/admin/disagreements").text
    assert len(page) < 20_000 and "1,000,000 characters in all" in page


def test_the_export_is_that_of_the_command_line(enter, store, database):
    disagree(store, 300)
    rating = Rating(exchange.Completion("p", "c"), 0.5, "ann")
    comparison = Comparison(Pair("q", "good", "bad", "ppo", None), "b", "bob")
    with database.transaction() as connection:
        store.add_rating(rating, connection), store.add_comparison(comparison, connection)
    chief = enter("chief")
    response = chief.get("/admin/export?ties=1&extra=policies&extra=annotator")
    assert response.headers["content-disposition"] == 'attachment; filename="comparisons.jsonl"'
    expected = exchange.comparison_lines(store, extra=["policies", "annotator"], ties=True)
    assert response.text == "".join(expected) and len(response.text.splitlines()) == 601
    assert [json.loads(line) for line in chief.get("/admin/export").text.splitlines()][-1] == {
        "prompt": "q",
        "chosen": "bad",
        "rejected": "good",
    }
    assert chief.get("/admin/export?what=ratings").text == "".join(exchange.rating_lines(store))
    for wrong in ("extra=name", "what=accounts", "ties=perhaps"):
        assert chief.get(f"/admin/export?{wrong}").status_code == 400
    with database.reading() as connection:
        exports = [entry.subject for entry in audit.entries(connection) if entry.action == "export"]
    assert exports == ["comparisons", "comparisons", "ratings"]
