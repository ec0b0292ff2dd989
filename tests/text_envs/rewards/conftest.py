"""What tests of rewards share: a package that is not there, tiny models, a chat server."""

import builtins
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

WORDS = "the river hill sea by and is calm wild".split()


@pytest.fixture
def without(monkeypatch):
    """A function that makes packages impossible to import."""
    found = builtins.__import__

    def hide(*packages):
        def hidden(name, *arguments, **keywords):
            if name.split(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return found(name, *arguments, **keywords)

        monkeypatch.setattr(builtins, "__import__", hidden)

    return hide


@pytest.fixture(scope="session")
def tokenizer():
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    table = {word: i for i, word in enumerate(["<unk>", "<s>", *WORDS])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>")


@pytest.fixture(scope="session")
def tiny(tokenizer, tmp_path_factory):
    """A function that makes a tiny GPT-2 of a class of transformers, with dropout, in a folder."""
    import torch
    import transformers

    def make(kind, **config):
        torch.manual_seed(0)
        shape = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16, "initializer_range": 0.5}
        ends = {"bos_token_id": 1, "eos_token_id": 1}
        model = getattr(transformers, kind)(
            transformers.GPT2Config(vocab_size=len(tokenizer), **shape, **ends, **config)
        )
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


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
    as they are, None by hanging up.

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
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
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
