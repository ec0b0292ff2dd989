"""A page with pairs and people, in this process or served by another one."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import pytest

from text_envs.feedback.accounts import Accounts
from text_envs.feedback.database import Database
from text_envs.feedback.records import Pair
from text_envs.feedback.settings import Settings
from text_envs.feedback.store import Store

ROOT = Path(__file__).parents[4]
PASSWORD = "correct horse"


class Clock:
    def __init__(self):
        self.time = 1_000_000_000.0

    def __call__(self):
        return self.time


class Browser:
    """A browser without a screen: it keeps cookies, and sends the forms of the page it was shown last."""

    def __init__(self, app, host="http://localhost", address="127.0.0.1"):
        from fastapi.testclient import TestClient

        self.client = TestClient(app, base_url=host, client=(address, 50_000), raise_server_exceptions=False)
        self.client.headers["Origin"] = host
        self.page = ""

    def get(self, path, **options):
        return self._seen(self.client.get(path, **options))

    def post(self, path, _headers=None, **fields):
        return self._seen(self.client.post(path, data=fields, headers=_headers))

    def send(self, path, **fields):
        """Send a form with what the page has for it, unless something else is given."""
        return self.post(path, **{"csrf": self.field("csrf"), **fields})

    def log_in(self, name, password=PASSWORD):
        return self.post("/login", name=name, password=password)

    def answer(self, choice="1", **fields):
        return self.send("/answer", **{"showing": self.field("showing"), "choice": choice, **fields})

    def field(self, name):
        found = re.search(f'name="{name}" value="([^"]*)"', self.page)
        return unescape(found[1]) if found else ""

    def texts(self):
        """Return the prompt and both texts as they stand on the page."""
        return [unescape(text) for text in re.findall(r'<div class="text"[^>]*>(.*?)</div>', self.page, re.DOTALL)]

    @property
    def token(self):
        return next((cookie.value for cookie in self.client.cookies.jar), None)

    def _seen(self, response):
        self.page = response.text
        return response


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def database(tmp_path, clock):
    with Database(tmp_path / "people.db", clock=clock) as database:
        yield database


@pytest.fixture
def store(database):
    return Store(database)


@pytest.fixture
def accounts(store):
    """With hashes that cost nothing."""
    from argon2 import PasswordHasher

    return Accounts(store, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def people(accounts):
    for name in ("ann", "bob"):
        accounts.add(name, PASSWORD)
    accounts.add("chief", PASSWORD, "admin")


@pytest.fixture
def make_app(database, accounts):
    from text_envs.feedback.web.app import make_app

    return lambda **settings: make_app(database, Settings(**settings), accounts)


@pytest.fixture
def app(make_app, people):
    return make_app()


@pytest.fixture
def pairs(store):
    pairs = [Pair(f"prompt {i}", f"this {i}", f"that {i}") for i in range(5)]
    return dict(zip(store.add_pairs(pairs), pairs, strict=True))


@pytest.fixture
def browse(app):
    """Open a new browser."""
    return lambda **options: Browser(**{"app": app, **options})


@pytest.fixture
def enter(browse):
    """Log somebody in at a new browser."""

    def enter(name, **options):
        browser = browse(**options)
        assert browser.log_in(name).status_code == 200
        return browser

    return enter


@pytest.fixture
def serving():
    """Serve a database in another process; yield where, and end it cleanly."""

    @contextmanager
    def serving(path, *options):
        command = [sys.executable, "-m", "text_envs", "feedback", "serve", str(path), "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as server:
            try:
                line = server.stdout.readline()
                found = re.search(r"https?://\S+/", line)
                assert found, line
                yield found[0]
            finally:
                server.terminate()
                server.communicate(timeout=30)
        assert server.returncode == 0

    return serving
