"""Who gets in: passwords, counted attempts, sessions that are forged, replayed, over or taken back."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from text_envs.feedback import audit
from text_envs.feedback.attempts import LONGEST_PAUSE, Attempts, TooManyAttempts, network
from text_envs.feedback.sessions import IDLE, LONGEST, MOST

RIGHT, WRONG = "correct horse", "battery staple"


def is_in(browser):
    response = browser.get("/", follow_redirects=False)
    assert response.status_code in (200, 303)
    return response.status_code == 200


def test_the_right_password_lets_in_and_logging_out_ends_it(browse, database):
    browser = browse()
    assert browser.get("/").url.path == "/login"
    response = browser.client.post("/login", data={"name": " ann ", "password": RIGHT}, follow_redirects=False)
    assert response.status_code == 303 and response.headers["location"] == "/"
    cookie, flags = response.headers["set-cookie"].split("; ", 1)
    assert cookie.startswith("text-envs-session=") and flags == "HttpOnly; Path=/; SameSite=strict"
    assert is_in(browser)
    token = browser.token
    browser.get("/")
    assert browser.send("/logout").url.path == "/login" and browser.token is None
    assert not is_in(replaying(browse, token))
    with database.reading() as connection:
        assert [entry.action for entry in audit.entries(connection)][-2:] == ["log in", "log out"]


def test_under_tls_the_cookie_comes_over_tls_only(make_app, people, browse):
    browser = browse(app=make_app(tls=True), host="https://people.example")
    response = browser.client.post("/login", data={"name": "ann", "password": RIGHT}, follow_redirects=False)
    assert response.headers["set-cookie"].startswith("__Host-session=")
    assert response.headers["set-cookie"].endswith("; HttpOnly; Path=/; SameSite=strict; Secure")
    assert is_in(browser)


def test_nothing_tells_an_unknown_name_from_a_wrong_password(browse, accounts, people, monkeypatch):
    verified = []
    verify = type(accounts.hasher).verify
    monkeypatch.setattr(type(accounts.hasher), "verify", lambda *given: verified.append(given) or verify(*given))
    known, unknown = browse(address="10.0.0.1"), browse(address="10.0.0.2")
    for _ in range(7):
        answers = [known.log_in("ann", WRONG), unknown.log_in("eve", WRONG)]
        first, second = (answer.text.replace("eve", "ann") for answer in answers)
        assert first == second and answers[0].status_code == answers[1].status_code
    assert answers[0].status_code == 429
    assert len(verified) == 10, "each attempt that is looked at costs a hash"


def test_after_a_hundred_wrong_logins_the_right_password_waits(browse, clock):
    browser = browse()
    for _ in range(100):
        response = browser.log_in("ann", WRONG)
    assert response.status_code == 429 and "Too many wrong logins" in response.text
    assert browser.log_in("ann").status_code == 429
    clock.time += int(response.headers["retry-after"])
    assert browser.log_in("ann").status_code == 200
    assert browse().log_in("ann", WRONG).status_code == 401, "the count began anew"


def test_pauses_double_up_to_a_limit(database):
    attempts = Attempts(database, by_name=2)
    pauses = []
    for _ in range(14):
        try:
            attempts.start("ann", "10.0.0.1")
        except TooManyAttempts as error:
            pauses.append(error.seconds)
            database._clock._machine.time += error.seconds
            attempts.start("ann", "10.0.0.1")
    assert pauses == pytest.approx([min(2.0**i, LONGEST_PAUSE) for i in range(12)])


def test_a_hundred_at_once_get_no_further_than_a_hundred_in_a_row(database):
    attempts = Attempts(database)

    def try_one(number):
        try:
            attempts.start("ann", f"10.0.0.{number}")
        except TooManyAttempts:
            return 0
        return 1

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(try_one, range(100))) == attempts.by_name


def test_an_address_is_counted_too_and_one_account_does_not_clear_it(browse, people, database):
    attempts = Attempts(database, by_address=10)
    for number in range(9):
        attempts.start(f"name {number}", "10.0.0.1")
    attempts.start("ann", "10.0.0.1")
    attempts.succeeded("ann", "10.0.0.1")
    attempts.start("name 10", "10.0.0.1")
    with pytest.raises(TooManyAttempts):
        attempts.start("somebody else", "10.0.0.1")
    attempts.start("somebody else", "10.0.0.2")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_what_an_address_counts_as(address, counted):
    assert network(address) == counted


def test_a_login_gives_a_new_token_and_the_old_one_is_worth_nothing(enter, browse):
    browser = enter("ann")
    first = browser.token
    browser.log_in("ann")
    assert browser.token != first and is_in(browser)
    assert not is_in(replaying(browse, first))


def test_an_account_is_in_at_so_many_browsers_and_no_more(enter, clock):
    browsers = []
    for _ in range(MOST + 2):
        browsers.append(enter("ann"))
        clock.time += 1
    assert [is_in(browser) for browser in browsers] == [False] * 2 + [True] * MOST


@pytest.mark.parametrize("token", ["", "x", "' OR 1=1 --", "A" * 43, "A" * 4000])
def test_a_forged_token_is_nobodys(browse, enter, token):
    enter("ann")
    assert not is_in(replaying(browse, token))
    assert replaying(browse, token).post("/answer", showing="x", choice="1").status_code == 401


def test_the_token_itself_is_not_stored(enter, database):
    browser = enter("ann")
    digest = hashlib.sha256(browser.token.encode()).digest()
    with database.reading() as connection:
        rows = connection.execute("SELECT * FROM sessions").fetchall()
    assert [row[0] for row in rows] == [digest]
    files = b"".join(path.read_bytes() for path in database.path.parent.glob("people.db*"))
    assert digest in files and browser.token.encode() not in files


def test_a_session_ends_when_nothing_is_asked_and_at_last_anyway(enter, clock):
    browser = enter("ann")
    clock.time += IDLE + 1
    assert not is_in(browser)
    browser.log_in("ann")
    for _ in range(int(LONGEST / IDLE * 2) - 1):
        clock.time += IDLE / 2
        assert is_in(browser)
    clock.time += IDLE / 2
    assert not is_in(browser)


@pytest.mark.parametrize("change", ["revoke", "remove", "new password", "forget"])
def test_a_session_that_is_taken_back_is_over_at_once(enter, accounts, store, pairs, change):
    ann, bob = enter("ann"), enter("bob")
    ann.get("/")
    {
        "revoke": lambda: accounts.revoke("ann"),
        "remove": lambda: accounts.remove("ann"),
        "new password": lambda: accounts.set_password("ann", "another password"),
        "forget": lambda: store.forget("ann"),
    }[change]()
    assert ann.answer().status_code == 401 and not is_in(ann)
    assert is_in(bob)
    assert store.progress().comparisons == 0
    if change == "remove":
        accounts.add("ann", RIGHT)  # who has the name now is somebody else
        assert not is_in(ann)


def test_a_clock_that_goes_back_lets_nobody_stay_or_wait_forever(enter, browse, clock):
    browser, other = enter("ann"), browse()
    for _ in range(6):
        blocked = other.log_in("bob", WRONG)
    clock.time -= 1_000_000
    assert is_in(browser)
    assert other.log_in("bob").status_code == 429, "setting the clock back does not shorten the pause"
    clock.time += 2 * int(blocked.headers["retry-after"])
    assert other.log_in("bob").status_code == 200
    clock.time += 2 * IDLE + 2
    assert not is_in(browser)


def test_a_hash_of_other_settings_is_renewed_at_login(enter, accounts, database, browse):
    from argon2 import PasswordHasher

    def stored():
        with database.reading() as connection:
            query = "SELECT hash FROM accounts JOIN annotators ON id = person WHERE name = 'ann'"
            return connection.execute(query).fetchone()[0]

    browser, before = enter("ann"), stored()
    accounts.hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    assert browse().log_in("ann", WRONG).status_code == 401 and stored() == before
    assert browse().log_in("ann").status_code == 200 and "m=16,t=2,p=1" in stored()
    assert is_in(browser), "that is no new password"


def replaying(browse, token):
    browser = browse()
    browser.client.cookies.set("text-envs-session", token)
    return browser
