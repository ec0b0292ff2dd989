"""What every request must be and every answer must say."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text_envs.feedback.errors import DatabaseError
from text_envs.feedback.store import Store
from text_envs.feedback.web.security import LARGEST_BODY

PATHS = ["/", "/login", "/progress", "/admin", "/nowhere", "/static/keys.js", "/static/nothing.js"]


def check_headers(response):
    headers = response.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "http" not in policy, "nothing is loaded from elsewhere"
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_says_what_browsers_may_do_with_it(browse, enter, pairs, path):
    for browser in (browse(), enter("ann")):
        response = browser.get(path, follow_redirects=False)
        check_headers(response)
        assert (
            "<script>" not in response.text and " style=" not in response.text and " onclick" not in response.text
        )


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/login/", "/openapi.json", "/static/../app.py", "/static/%2e%2e/app.py"]
)
def test_nothing_of_the_inside_is_served(enter, path):
    assert enter("chief").get(path).status_code == 404


@pytest.mark.parametrize(
    "host", ["http://evil.example", "http://127.0.0.1.evil.example", "http://localhost.", "http://[::2]"]
)
def test_a_foreign_name_that_leads_here_gets_nothing(browse, host):
    response = browse(host=host).get("/login")
    assert response.status_code == 421 and "password" not in response.text.lower()
    check_headers(response)


@pytest.mark.parametrize("host", ["http://localhost:8765", "http://127.0.0.1:1", "http://[::1]:8765"])
def test_the_names_of_this_machine_are_served(enter, host):
    enter("ann", host=host)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "https://localhost", "http://localhost:1", "http://127.0.0.1"]
)
def test_a_form_of_another_page_does_nothing(enter, pairs, store, origin):
    ann = enter("ann")
    fields = {"csrf": ann.field("csrf"), "showing": ann.field("showing"), "choice": "1"}
    for path in ("/answer", "/login", "/logout", "/back"):
        response = ann.client.post(path, data=fields, headers={"Origin": origin})
        assert response.status_code == 403 and "nothing was done" in response.text
    del ann.client.headers["Origin"]
    assert ann.client.post("/answer", data=fields).status_code == 403
    assert store.progress().comparisons == 0 and ann.get("/", follow_redirects=False).status_code == 200


@pytest.mark.parametrize("csrf", [None, "", "0" * 64, "ü", "of bob", "of a login before"])
def test_a_form_without_its_own_token_does_nothing(enter, pairs, store, csrf):
    ann, bob = enter("ann"), enter("bob")
    before = ann.field("csrf")
    ann.log_in("ann")
    given = {"of bob": bob.field("csrf"), "of a login before": before}.get(csrf, csrf)
    for path in ("/answer", "/back", "/logout"):
        fields = {"showing": ann.field("showing"), "choice": "1", **({} if given is None else {"csrf": given})}
        response = ann.client.post(path, data=fields)
        assert response.status_code == 403 and "This form is not yours" in response.text
    assert store.progress().comparisons == 0 and ann.get("/", follow_redirects=False).status_code == 200


def test_a_body_that_is_too_large_is_refused_and_does_nothing(enter, pairs, store):
    ann = enter("ann")
    fields = {"csrf": ann.field("csrf"), "showing": ann.field("showing"), "choice": "1"}
    response = ann.client.post("/answer", data={**fields, "more": "x" * LARGEST_BODY})
    assert response.status_code == 413 and f"{LARGEST_BODY:,} bytes" in response.text
    check_headers(response)

    read = []

    def endless():
        while len(read) < 10_000:
            read.append(0)
            yield b"x" * 1_000

    response = ann.client.post(
        "/answer", content=endless(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert response.status_code == 413
    for length in ("-1", "9" * 30, "1e3", "x"):
        assert ann.client.post("/answer", content=b"", headers={"Content-Length": length}).status_code == 413
    assert store.progress().comparisons == 0
    assert ann.client.post("/answer", data={**fields, "more": "x" * 10_000}).status_code == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/login", "/answer", "/back", "/admin/revoke", "/logout"]),
    fields=st.dictionaries(
        st.sampled_from(["name", "password", "showing", "choice", "skipped"]), st.text(max_size=40)
    ),
    junk=st.binary(max_size=60),
)
def test_whatever_is_sent_the_answer_is_clear_and_nothing_is_kept(enter, pairs, store, path, fields, junk):
    ann = enter("ann")
    fields = {name: text.encode("utf-8", "replace").decode() for name, text in fields.items()}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for sent in ({"data": {"csrf": ann.field("csrf"), **fields}}, {"content": junk, "headers": form}):
        response = ann.client.post(path, follow_redirects=False, **sent)
        assert response.status_code in (303, 400, 401, 403, 404, 409, 429)
    assert store.progress().comparisons == 0


def test_a_file_in_a_form_is_no_field(enter, pairs, store):
    ann = enter("ann")
    fields = {"csrf": ann.field("csrf"), "showing": ann.field("showing")}
    response = ann.client.post("/answer", data=fields, files={"choice": ("1", b"1")})
    assert response.status_code == 400 and store.progress().comparisons == 0


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(enter, pairs, method):
    assert enter("ann").client.request(method, "/answer").status_code == 405


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("SECRET"), 500), (DatabaseError("SECRET"), 503)])
def test_an_error_inside_tells_nothing_of_the_inside(enter, pairs, monkeypatch, caplog, error, status):
    ann = enter("ann")

    def fail(*given, **named):
        raise error

    monkeypatch.setattr(Store, "record", fail)
    response = ann.answer("1")
    assert response.status_code == status and "SECRET" not in response.text and "Traceback" not in response.text
    assert "nothing was kept" in response.text.lower()
    check_headers(response)
    monkeypatch.undo()
    ann.get("/")
    assert ann.answer("1").status_code == 200, "the pair is still this browser's"
