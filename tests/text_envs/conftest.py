"""Tasks that exercise what the first tasks do not: several turns, masks, any length; and a chat server."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from text_envs.tasks.base import Replies, Samples, Score, Task, count, pad
from text_envs.tokenizer import CharacterTokenizer


class GuessNumber(Task):
    """Guess a number below 50 in three turns; the reply is "<" or ">>", and the episode ends when it is found.

    An utterance is one or two digits and the end token; other tokens are masked, and cost 2.
    """

    invalid_reward = -2.0
    digits, end = 10, 13

    def __init__(self):
        tokenizer = CharacterTokenizer("0123456789<>?", end=True)
        super().__init__(tokenizer, max_prompt_tokens=2, max_new_tokens=3, context_length=2 + 3 * 3 + 2 * 2)

    def sample(self, random):
        secret = random.integers(50, 1)[:, 0]
        lengths = 1 + secret % 2  # "?" or "??": prompts differ in length
        tokens = np.where(np.arange(2) < lengths[:, None], 12, self.vocab_size)
        return Samples(tokens, lengths, {"secret": secret})

    def score(self, said):
        return Score(np.where(self._guess(said) == said.columns["secret"], 1.0, -0.1))

    def reply(self, said, random):
        guess, secret = self._guess(said), said.columns["secret"]
        over = (guess == secret) | (said.turn == 2)
        words = ["" if end else "<" if g > s else ">>" for end, g, s in zip(over, guess, secret, strict=True)]
        return Replies(*pad([self.codec.encode(word) for word in words], self.vocab_size), over)

    def action_mask(self, said):
        spoken = said.length - said.start
        mask = np.zeros((len(said), self.vocab_size), bool)
        mask[spoken < 2, : self.digits] = True
        mask[spoken > 0, self.end] = True
        return mask

    def _guess(self, said):
        text = [self.codec.decode(ids) for ids in said.ids()]
        return np.array([int(word) if word.isdigit() else -1 for word in text])


class Stars(Task):
    """Say up to four symbols and an end token; each "*" is worth 1, an utterance of "!" alone nothing."""

    def __init__(self):
        tokenizer = CharacterTokenizer("*!", end=True)
        super().__init__(tokenizer, max_prompt_tokens=1, max_new_tokens=5)

    def sample(self, random):
        return Samples(random.integers(2, 1))

    def score(self, said):
        return Score(count(said.tokens[:, 1:] == 0))


@pytest.fixture
def guess_number():
    return GuessNumber()


@pytest.fixture
def stars():
    return Stars()


@pytest.fixture
def same():
    """Assert that two nested values are equal, types and dtypes included."""

    def check(a, b, path="value"):
        assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
        if isinstance(a, dict):
            assert a.keys() == b.keys(), f"{path}: {sorted(a)} and {sorted(b)}"
            for key in a:
                check(a[key], b[key], f"{path}[{key!r}]")
        elif isinstance(a, tuple | list):
            assert len(a) == len(b), path
            for i, pair in enumerate(zip(a, b, strict=True)):
                check(*pair, f"{path}[{i}]")
        elif isinstance(a, np.ndarray):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{path}: {a.shape, a.dtype} and {b.shape, b.dtype}"
            if a.dtype == object:
                check(a.tolist(), b.tolist(), path)
            else:
                np.testing.assert_array_equal(a, b, path)
        else:
            assert a == b or (a != a and b != b), f"{path}: {a!r} and {b!r}"

    return check


class Asked:
    """A request to a judge, as its server sees it."""

    def __init__(self, body, number):
        self.body, self.number = body, number
        self.user = body["messages"][1]["content"]

    @property
    def code(self):
        return re.search(r"\[begin prompt (\w{8})\]", self.user)[1]

    def text(self, name):
        """One of the texts, as the judge is shown it."""
        frame = rf"\[begin {name} {self.code}\]\n(.*?)\n\[end {name} {self.code}\]"
        return re.search(frame, self.user, re.DOTALL)[1]

    def score(self, number):
        """An answer."""
        return f"Well.\nScore [{self.code}]: {number}"

    def verdict(self, choice):
        """An answer."""
        return f"Well.\nVerdict [{self.code}]: {choice}"

    def response(self, text, *, finish_reason="stop", **message):
        """A chat model's response; it always counts 1,000 and 100 tokens."""
        message = {"role": "assistant", "content": text, **message}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        body["choices"] = [{"index": 0, "finish_reason": finish_reason, "message": message}]
        body["usage"] = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
        return 200, {}, json.dumps(body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Scripted:
    """A chat server that says what `script(asked)` returns: a text as a chat model would, (status, headers, bytes)
    or an iterator of parts as they are, None by hanging up.

    It records the requests' bodies and headers, and the most that were under way at once.
    """

    def __init__(self, script):
        self.script, self.bodies, self.headers, self.most = script, [], [], 0
        self._running, self._lock = 0, threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def react(self, headers, body):
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            asked = Asked(body, len(self.bodies))
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            reaction = self.script(asked)
        finally:
            with self._lock:
                self._running -= 1
        return asked.response(reaction) if isinstance(reaction, str) else reaction

    def _handler(self):
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reaction = scripted.react({name.lower(): value for name, value in self.headers.items()}, body)
                if reaction is None:
                    self.close_connection = True
                    return
                status, headers, content = reaction
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    if isinstance(content, bytes):
                        self.send_header("Content-Length", str(len(content)))
                        content = [content]
                    else:
                        self.close_connection = True  # which ends the body
                    self.end_headers()
                    for part in content:
                        self.wfile.write(part)
                except ConnectionError:  # the client did not wait
                    self.close_connection = True

            def log_message(self, *arguments):
                pass

        return Handler


@pytest.fixture
def serve():
    """A function that starts a scripted server."""
    started = []

    def start(script):
        started.append(Scripted(script))
        return started[-1]

    yield start
    for server in started:
        server.close()
