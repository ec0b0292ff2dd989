"""Twenty annotators at once, over HTTP, against a server of its own: nothing lost, doubled or crossed."""

import http.client
import os
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from threading import Barrier
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest

from text_envs.feedback.accounts import Accounts
from text_envs.feedback.database import Database
from text_envs.feedback.records import Pair
from text_envs.feedback.store import Store

ANNOTATORS = 20
ANSWERS = int(os.environ.get("FEEDBACK_LOAD_ANSWERS", "400"))  # 5,000 is what the page is measured with
PASSWORD = "correct horse"


class Annotator:
    """Answers as fast as the server lets it, and remembers what it said and how long that took."""

    def __init__(self, url, name, seed):
        self.name, self.random = name, np.random.default_rng([7, seed])
        self.host = urlsplit(url).netloc
        self.connection = http.client.HTTPConnection(self.host, timeout=60)
        self.cookie = ""
        self.said, self.seconds = [], {"POST": [], "GET": []}

    def log_in(self):
        fields = {"name": self.name, "password": PASSWORD}
        _, headers, _ = self.ask("POST", "/login", fields, expected=303)
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    def work(self, start):
        page = self.ask("GET", "/")[2]
        start.wait(timeout=60)
        while 'name="showing"' in page:
            self.answer(page)
            page = self.ask("GET", "/")[2]

    def answer(self, page):
        csrf, showing = (re.search(f'name="{name}" value="(.*?)"', page)[1] for name in ("csrf", "showing"))
        prompt, *texts = (
            unescape(text) for text in re.findall(r'<div class="text".*?>(.*?)</div>', page, re.DOTALL)
        )
        choice = int(self.random.integers(3))
        self.ask("POST", "/answer", {"csrf": csrf, "showing": showing, "choice": choice}, expected=303)
        self.said.append((self.name, prompt, texts[choice - 1] if choice else "tie"))

    def ask(self, method, path, fields=None, expected=200):
        headers = {"Origin": f"http://{self.host}", "Cookie": self.cookie}
        if fields:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        began = time.perf_counter()
        self.connection.request(method, path, urlencode(fields) if fields else None, headers)
        response = self.connection.getresponse()
        page = response.read().decode()
        self.seconds[method].append(time.perf_counter() - began)
        assert response.status == expected, page
        return response.status, response.headers, page


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("each", [1, 2])
def test_twenty_annotators_at_once(tmp_path, serving, each, capsys):
    from argon2 import PasswordHasher

    with Database(tmp_path / "people.db") as database:
        store = Store(database)
        accounts = Accounts(store, PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        store.add_pairs(Pair(f"<prompt> {i}", f"this & {i}", f"that & {i}") for i in range(ANSWERS // each))
        for number in range(ANNOTATORS):
            accounts.add(f"annotator {number}", PASSWORD)
    with serving(tmp_path / "people.db", "--annotations-per-pair", str(each)) as url:
        annotators = [Annotator(url, f"annotator {number}", number) for number in range(ANNOTATORS)]
        start = Barrier(ANNOTATORS)
        with ThreadPoolExecutor(ANNOTATORS) as pool:
            list(pool.map(Annotator.log_in, annotators))
            for annotator in annotators:
                annotator.seconds["POST"].clear()
            began = time.perf_counter()
            list(pool.map(lambda annotator: annotator.work(start), annotators))
            took = time.perf_counter() - began
    told = Counter(said for annotator in annotators for said in annotator.said)
    assert kept(tmp_path / "people.db") == told
    assert told.total() == ANSWERS // each * each and set(told.values()) == {1}
    assert set(Counter(prompt for _, prompt, _ in told).values()) == {each}
    with capsys.disabled():
        print(f"\n{told.total()} answers of {ANNOTATORS} annotators in {took:.1f} s")
        for method, what in (("POST", "an answer"), ("GET", "the next page")):
            seconds = [second for annotator in annotators for second in annotator.seconds[method]]
            middle, high = 1000 * np.quantile(seconds, [0.5, 0.95])
            print(f"{what}: median {middle:.0f} ms, 95% within {high:.0f} ms")


def kept(path):
    """Return how often the database has (who, prompt, preferred text)."""
    with Database(path) as database:
        store = Store(database)
        names = {counts.pseudonym: counts.name for counts in store.counts()}
        return Counter((names[one.annotator], one.pair.prompt, preferred(one)) for one in store.comparisons())


def preferred(comparison):
    return {"a": comparison.pair.completion_a, "b": comparison.pair.completion_b, "tie": "tie"}[comparison.choice]
