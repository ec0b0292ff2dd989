"""How a judge bears a server's faults, what it costs, and that its key goes to the server and nowhere else."""

import gc
import gzip
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from email.utils import formatdate
from pathlib import Path

import pytest

from text_envs.rewards import Judge, RewardError
from text_envs.rewards.chat import _asked_pause

openai = pytest.importorskip("openai")

KEY = "sk-very-secret-0123456789"


def judge(server, **settings):
    return Judge("m", **{"base_url": server.url, "pause": 0.01, "retries": 3, "normalize": False, **settings})


def after(count, fault):
    """A script: that many faults, then a verdict."""

    def script(asked):
        if asked.number > count:
            return asked.score(7)
        return fault(asked) if callable(fault) else fault

    return script


def late(asked):
    time.sleep(0.6)
    return asked.score(1)


def body(content):
    return 200, {}, json.dumps(content).encode()


FAULTS = {
    "500": ((500, {}, b"{}"), "500"),
    "503 in HTML": ((503, {"Content-Type": "text/html"}, b"<h1>busy</h1>"), "busy"),
    "429": ((429, {"Retry-After": "0"}, b'{"error": {"message": "slow down"}}'), "slow down"),
    "late": (late, r"no answer within 0.3 seconds \(timeout=\)"),
    "hung up": (None, "the connection failed: RemoteProtocolError"),
    "no JSON": ((200, {}, b'{"choices": [{"mess'), "cannot be read: JSONDecodeError"),
    "no UTF-8": ((200, {}, b'{"choices": "\xff\xfe"}'), "cannot be read|no choices"),
    "no gzip": ((200, {"Content-Encoding": "gzip"}, b"{}"), "is compressed .'gzip'"),
    "deeply nested": ((200, {}, b"[" * 100_000), "cannot be read: RecursionError"),
    "another type": ((200, {"Content-Type": "text/html"}, b"<h1>Log in</h1>"), "no choices: '<h1>Log in</h1>'"),
    "empty": ((200, {}, b""), "cannot be read"),
    "no choices": (body({"choices": []}), "holds no choices"),
    "null": (body(None), "holds no choices: 'None'"),
    "a list": (body([1]), "holds no choices"),
    "an error with status 200": (body({"error": {"message": "overloaded"}}), "overloaded"),
    "choices of another kind": (body({"choices": "all"}), "holds no choices"),
    "a choice of another kind": (body({"choices": [3]}), "last answer was ''"),
    "content of another kind": (body({"choices": [{"message": {"content": ["a", 1]}}]}), "holds no text"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_borne_or_told(serve, fault):
    what, message = FAULTS[fault]
    server = serve(after(2, what))
    asking = judge(server, timeout=0.3 if fault == "late" else 20)
    assert asking.scores(["p"], ["c"]) == [7]
    usage = asking.usage
    assert (usage.requests, usage.faults + usage.unreadable) == (3, 2)
    server.script = after(10**9, what)
    with pytest.raises(RewardError, match=f"'m' was asked 4 times about prompt 'p', completion 'c'.*{message}"):
        asking.scores(["p"], ["c"])


ANSWERS = {
    "a refusal": ((None, {"refusal": "I will not judge that."}), "last answer was 'I will not judge that.'"),
    "nothing": ((None, {}), "last answer was ''"),
    "cut off": (("Score [{code}]: 1", {"finish_reason": "length"}), "it is cut off"),
    "filtered": (("Score [{code}]: 1", {"finish_reason": "content_filter"}), "filter stopped it"),
    "off the scale": (("Score [{code}]: 100", {}), "100 is not on the scale"),
    "half a character": (("\ud800", {}), r"last answer was '\?'"),
    "a long one": (("x" * 1000, {}), r"last answer was '\.\.\.x{300}'"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_that_are_no_verdict_are_told_and_never_a_number(serve, answer):
    (text, more), message = ANSWERS[answer]

    def script(asked):
        return asked.response(text and text.replace("{code}", asked.code), **more)

    with pytest.raises(RewardError, match=f"gave no verdict: its {message}.*more max_tokens|{message}"):
        judge(serve(script)).scores(["p"], ["c"])
    assert judge(serve(after(1, script))).scores(["p"], ["c"]) == [7]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_told_at_once(serve, status):
    server = serve(lambda asked: (status, {}, b'{"error": {"message": "no such model"}}'))
    with pytest.raises(RewardError, match=f"asked about prompt 'p'.*{status}.*no such model"):
        judge(server).scores(["p"], ["c"])
    assert len(server.bodies) == 1


def test_a_server_that_drips_is_late(serve):
    def drops():
        for letter in b" " * 100:  # it is never silent for long
            time.sleep(0.05)
            yield bytes([letter])

    asking = judge(serve(lambda asked: (200, {}, drops())), timeout=0.5, retries=0)
    with pytest.raises(RewardError, match="no answer within 0.5 seconds"):
        asking.scores(["p"], ["c"])


def test_a_connection_serves_many_requests(serve):
    server = serve(lambda asked: asked.score(5))
    asking = judge(server, concurrency=1)
    asking.scores(["p"] * 20, [f"c{i}" for i in range(20)])
    ((client, _),) = asking._by_loop.values()
    assert len(client._client._transport._pool.connections) == 1


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_is_told_and_leads_neither_texts_nor_key_elsewhere(serve, status, monkeypatch):
    monkeypatch.setenv("OUR_JUDGE_KEY", KEY)
    elsewhere = serve(lambda asked: asked.score(9))
    server = serve(lambda asked: (status, {"Location": f"{elsewhere.url}?{KEY}"}, b""))
    asking = judge(server, key="OUR_JUDGE_KEY")
    with pytest.raises(
        RewardError, match=rf"status {status}.*leads to '{elsewhere.url}\?\*\*\*'.*base_url"
    ) as refused:
        asking.scores(["p"], ["c"])
    assert not elsewhere.bodies and KEY not in str(refused.value)


def endless(asked):
    return 200, {}, (b" " * 2**16 for _ in range(10**9))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(endless, "is larger than 8,388,608 bytes", id="endless"),
        pytest.param(
            (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * 2**28)), "is compressed .'gzip'", id="bomb"
        ),
    ],
)
def test_an_answer_does_not_fill_the_memory(serve, answer, told):
    asking = judge(serve(after(10**9, answer)), retries=0, timeout=60)
    tracemalloc.start()
    try:
        with pytest.raises(RewardError, match=told):
            asking.scores(["p"], ["c"])
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_no_server_at_all_is_told():
    with pytest.raises(RewardError, match="the connection failed: ConnectError"):
        Judge("m", base_url="http://127.0.0.1:1/v1", retries=1, pause=0.01).scores(["p"], ["c"])


def test_the_server_says_how_long_to_wait(serve, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    server = serve(after(3, lambda asked: (429, {"Retry-After": "7"} if asked.number == 2 else {}, b"{}")))
    assert judge(server, pause=1.0).scores(["p"], ["c"]) == [7]
    assert 0.5 <= slept[0] <= 1 and slept[1] == 7 and 2 <= slept[2] <= 4
    first = list(slept)
    server.script = after(2 * len(server.bodies) - 1, (500, {}, b"{}"))
    slept.clear()
    judge(server, pause=1.0).scores(["p"], ["c"])
    assert slept[0] == first[0] and 1 <= slept[1] <= 2  # the same stream again, its own bounds
    slept.clear()
    judge(server, pause=1.0, seed=1).scores(["p"], ["other"])
    server.script = lambda asked: (429, {"Retry-After": "3600"}, b"{}")
    with pytest.raises(RewardError, match="asks to wait 3600 seconds, which is too long"):
        judge(server).scores(["p"], ["c"])
    assert not slept


def test_the_pause_a_server_asks_for_is_a_number_or_a_date():
    assert [_asked_pause(header) for header in (None, "", "2.5", "-1", "soon", "nan", "inf")] == [
        0,
        0,
        2.5,
        0,
        0,
        0,
        0,
    ]
    assert 50 < _asked_pause(formatdate(time.time() + 60, usegmt=True)) <= 61
    assert _asked_pause(formatdate(0, usegmt=True)) == 0


def test_the_limit_of_requests_at_once_is_kept(serve):
    def slow(asked):
        time.sleep(0.02)
        return asked.score(5)

    server = serve(slow)
    assert judge(server, concurrency=3).scores(["p"] * 30, [str(i) for i in range(30)]) == [5] * 30
    assert server.most == 3


def test_a_budget_stops(serve, tmp_path):
    server = serve(lambda asked: asked.score(5))
    settings = {"prices": (1.0, 10.0), "concurrency": 1, "cache": tmp_path / "judge.sqlite"}  # 0.002 a request
    asking = judge(server, budget=0.0055, **settings)
    with pytest.raises(
        RewardError, match=r"the budget of 0.0055 for 'm' is spent \(0.006, 3 requests\).*completion '3'"
    ):
        asking.scores(["p"] * 5, list("01234"))
    assert (asking.usage.prompt_tokens, asking.usage.completion_tokens) == (3000, 300)
    assert asking.usage.cost == pytest.approx(0.006)
    again = judge(server, budget=0.004, **settings)
    assert again.scores(["p"] * 5, list("01234")) == [5] * 5 and again.usage.cached == 3
    assert len(server.bodies) == 5


@pytest.mark.parametrize("tokens", [None, -1, 10**400, "many"])
def test_a_budget_needs_a_server_that_counts(serve, tokens):
    def uncounted(asked):
        content = json.loads(asked.response(asked.score(5))[2])
        return body({**content, "usage": tokens and {"prompt_tokens": tokens, "completion_tokens": 1}})

    asking = judge(serve(uncounted), prices=(1, 1))
    assert asking.scores(["p"] * 2, ["a", "b"]) == [5, 5]
    assert (asking.usage.uncounted, asking.usage.cost) == (2, 0)
    with pytest.raises(RewardError, match="does not say how many tokens it used"):
        judge(serve(uncounted), prices=(1, 1), budget=1, concurrency=1).scores(["p"] * 2, ["a", "b"])
    assert judge(serve(uncounted)).usage.cost is None


def everything_in(thing, depth=8):
    """The texts an object can be seen to hold, by repr and attributes."""
    if depth and hasattr(thing, "__dict__"):
        return repr(thing) + "".join(everything_in(value, depth - 1) for value in vars(thing).values())
    return repr(thing)


@pytest.mark.parametrize("kind", ["variable", "file", "function"])
def test_the_key_reaches_the_server_and_nothing_else(serve, kind, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key.txt").write_text(KEY + "\n")
    monkeypatch.setenv("OUR_JUDGE_KEY", KEY)
    key = {"variable": "OUR_JUDGE_KEY", "file": tmp_path / "key.txt", "function": read_key}[kind]

    def telltale(asked):
        shown = str(server.headers[-1]["authorization"])
        if asked.number == 1:
            return asked.score(5)
        if asked.number == 2:
            return f"You sent {shown}"
        return 401, {}, json.dumps({"error": {"message": f"wrong key: {shown}"}}).encode()

    server = serve(telltale)
    asking = judge(server, key=key, cache=tmp_path / "judge.sqlite", retries=1)
    assert asking.scores(["p"], ["c"]) == [5]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    with pytest.raises(RewardError, match=r"wrong key: Bearer \*\*\*") as refused:
        asking.scores(["p"], ["d"])
    assert KEY not in str(server.bodies)
    told = "".join(traceback.format_exception(refused.value))
    error = refused.value
    while error is not None:
        told += everything_in(error) + str([frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)])
        error = error.__cause__ or error.__context__
    seen = told + everything_in(asking) + caplog.text + str(pickle.dumps(asking)) + "".join(capfd.readouterr())
    seen += str((tmp_path / "judge.sqlite").read_bytes())
    ((client, _),) = asking._by_loop.values()
    seen += everything_in(client, depth=2)
    assert KEY not in seen


def read_key():
    return KEY


def test_a_key_goes_only_where_it_was_meant_to_go(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(lambda asked: asked.score(5))
    judge(server).scores(["p"], ["c"])
    assert "authorization" not in server.headers[0]
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    Judge("m").scores(["p"], ["c"])
    assert server.headers[1]["authorization"] == f"Bearer {KEY}"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-changed-since")  # as tokens that expire do
    judge(server, key="OPENAI_API_KEY").scores(["p"], ["c"])
    assert server.headers[2]["authorization"] == "Bearer sk-changed-since"


def test_what_the_environment_holds_for_openai_goes_to_no_other_server(serve, monkeypatch):
    secrets = {"OPENAI_ORG_ID": "org-secret", "OPENAI_PROJECT_ID": "project-secret", "OPENAI_API_KEY": KEY}
    custom = "X-Gate: gate-secret\nauthorization: Bearer other-secret"
    for name, value in {**secrets, "OPENAI_CUSTOM_HEADERS": custom}.items():
        monkeypatch.setenv(name, value)
    server = serve(lambda asked: asked.score(5))
    judge(server).scores(["p"], ["c"])
    assert "secret" not in str(server.headers[0])
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    Judge("m").scores(["p"], ["c"])
    sent = server.headers[1]
    names = "openai-organization", "openai-project", "authorization", "x-gate"
    assert [sent[name] for name in names] == ["org-secret", "project-secret", f"Bearer {KEY}", "gate-secret"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key": KEY}, "never the key itself; what was given is not shown"),
        ({"key": lambda: KEY + "\nX: y"}, "holds no key of one line"),
        ({"key": lambda: KEY + "é"}, "holds no key of one line"),
        ({"key": lambda: None}, "what the function key= returned is not set"),
        ({"key": "NO_SUCH_VARIABLE"}, "the environment variable NO_SUCH_VARIABLE is not set"),
        ({"base_url": None}, "the environment variable OPENAI_API_KEY is not set"),
        ({"base_url": f"http://user:{KEY}@localhost/v1"}, "what was given is not shown"),
        ({"base_url": f"http://localhost/v1?key={KEY}"}, "what was given is not shown"),
    ],
)
def test_keys_in_the_wrong_place_are_refused_and_not_shown(settings, message, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=message) as refused:
        Judge("m", **{"base_url": "http://localhost:1/v1", **settings})
    assert KEY not in str(refused.value)


INTERRUPTED = """
import sys
from text_envs.rewards import Judge
judge = Judge("m", base_url=sys.argv[1], cache=sys.argv[2], concurrency=2)
print("asking", flush=True)
try:
    judge.scores(["p"] * 4, ["quick", "slow", "slower", "slowest"])
except KeyboardInterrupt:
    print(judge.usage.requests, flush=True)
"""


@pytest.mark.slow
def test_an_interrupt_ends_at_once_and_keeps_what_was_answered(serve, tmp_path):
    waiting, leave = threading.Semaphore(0), threading.Event()

    def script(asked):
        if asked.text("completion") == "quick":
            return asked.score(5)
        waiting.release()
        leave.wait(60)
        return None

    server, path = serve(script), tmp_path / "judge.sqlite"
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED, server.url, path]
    root = Path(__file__).parents[3]
    asking = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert waiting.acquire(timeout=60) and waiting.acquire(timeout=60)
        asking.send_signal(signal.SIGINT)
        out, err = asking.communicate(timeout=30)
    finally:
        asking.kill()
        leave.set()
    assert (asking.returncode, out.split(), err) == (0, ["asking", "3"], "")
    assert judge(server, cache=path, normalize=True).scores(["p"], ["quick"]) == [4 / 9]
    assert len(server.bodies) == 3


def test_a_failure_stops_the_requests_under_way(serve):
    leave = threading.Event()

    def script(asked):
        if asked.text("completion") == "bad":
            return 404, {}, b"{}"
        leave.wait(60)
        return asked.score(5)

    server, before = serve(script), threading.active_count()
    with pytest.raises(RewardError, match="completion 'bad'"):
        judge(server, concurrency=4).scores(["p"] * 6, ["a", "b", "c", "bad", "d", "e"])
    leave.set()
    assert len(server.bodies) < 6
    gc.collect()  # a task that nobody waits for would be told here
    assert threading.active_count() <= before + 8


def test_a_judge_that_is_gone_closes_its_connections(serve):
    asking = judge(serve(lambda asked: asked.score(5)))
    asking.scores(["p"], ["a"])
    ((client, _),) = asking._by_loop.values()
    del asking
    gc.collect()
    for _ in range(500):
        if client.is_closed():
            break
        time.sleep(0.01)
    assert client.is_closed()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_asks_by_connections_of_its_own(serve):
    server = serve(lambda asked: asked.score(5))
    asking = judge(server)
    asking.scores(["p"], ["a"])
    child = os.fork()
    if not child:
        os._exit(0 if asking.scores(["p"], ["b"]) == [5] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert asking.scores(["p"], ["c"]) == [5]
