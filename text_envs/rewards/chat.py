"""Asking a chat model: its key, time-outs, retries, limits, costs, and a cache of what it answered.

The words of questions and answers are in verdicts.py, the rewards made of them in judge.py. Needs the extra
`text-envs[judge]`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from ..spaces import first_surrogate
from ..streams import as_seed
from .base import Reward
from .cache_file import CacheFile, Writer
from .calling import RewardError, background, is_finite, together
from .connection import close, connect, openai
from .verdicts import Message, Unreadable, ask_again

if TYPE_CHECKING:
    import asyncio

Key = str | PathLike[str] | Callable[[], str]
LONGEST_PAUSE = 120.0  # seconds; who is told to wait for longer is told so
_PASSING = {408, 409, 425, 429}  # statuses that may be another the next time, beside those from 500 on


@dataclass(frozen=True)
class Question:
    """A question to the model.

    Attributes:
        about: the texts in it, for messages.
        messages: what the model is sent.
        line: the line its answer ends with.
        read: returns an answer's value, or raises Unreadable.
        scale: the lowest and the highest value.
    """

    about: str
    messages: list[Message]
    line: str
    read: Callable[[str], float]
    scale: tuple[float, float]


class Answer(NamedTuple):
    """What a model said, and why it is not to be read, if so."""

    text: str
    problem: str = ""


@dataclass(frozen=True)
class Fault:
    """Why a request brought no answer.

    Attributes:
        reason: for messages; the key is not in it.
        passing: whether it may be another the next time.
        pause: seconds the server asks to wait.
    """

    reason: str
    passing: bool = True
    pause: float = 0.0


@dataclass
class Usage:
    """What a model was asked, in this process, and what that cost.

    Attributes:
        prices: for a million prompt tokens and a million completion tokens, in any currency; None: not known.
        requests: sent to the server, retries too.
        faults: of these, those that brought no answer.
        unreadable: of these, those whose answer was not what was asked for; they are paid, too.
        cached: questions that needed no request.
        prompt_tokens: as the server counts; those it had cached itself are counted in full.
        completion_tokens: as the server counts.
        uncounted: answers whose tokens the server did not tell.
    """

    prices: tuple[float, float] | None = None
    requests: int = 0
    faults: int = 0
    unreadable: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0

    @property
    def cost(self) -> float | None:
        """What the tokens cost, None without prices."""
        if self.prices is None:
            return None
        return (self.prompt_tokens * self.prices[0] + self.completion_tokens * self.prices[1]) / 1e6

    def count(self, tokens: Any) -> None:
        """Add the `usage` of a server's response."""
        read, said = (getattr(tokens, name, None) for name in ("prompt_tokens", "completion_tokens"))
        if isinstance(read, int) and isinstance(said, int) and 0 <= min(read, said) <= max(read, said) < 2**53:
            self.prompt_tokens += read
            self.completion_tokens += said
        else:
            self.uncounted += 1


@dataclass(eq=False, repr=False)
class ChatModel(Reward):
    """A chat model behind an OpenAI-compatible server, as what rewards that ask one have in common.

    A server's fault (a dropped connection, a time-out, status 408, 409, 425, 429 or 5xx, a body that is no answer)
    is retried after a pause that doubles each time, between half and all of it, or as long as the server asks. An
    answer that cannot be read is asked for again, with the reason. What does not help in the end raises
    RewardError; it never becomes a number.

    The key is read for each request and kept nowhere: it is not in the object, its pickles, the cache or messages.

    Args:
        model: its name on the server.
        base_url: of the server, such as "http://localhost:8000/v1"; None: $OPENAI_BASE_URL, else OpenAI's.
        key: where the server's key is: the name of an environment variable, a pathlib.Path, or a function that
            returns it. None: $OPENAI_API_KEY without a base_url, and no key with one.
        temperature: None: the server's own.
        max_tokens: the longest answer, in tokens; None: as the server has it.
        extra_body: what else a server wants in a request. OpenAI's reasoning models: temperature=None,
            max_tokens=None, extra_body={"max_completion_tokens": 4000}.
        concurrency: requests at once.
        timeout: seconds for one request.
        retries: requests for one question beside the first.
        pause: seconds before the first retry after a fault.
        prices: for a million prompt tokens and a million completion tokens, in any currency.
        budget: in that currency, for this object in this process: no request is sent once it is spent; up to
            `concurrency` may be under way then.
        cache: an SQLite file that keeps the answers for later runs and other processes, any number at once. An
            answer is that to one request: in other words, or to another model, it is asked for. The server's
            address is not part of it.
        seed: of the codes that frame texts, and of the pauses.

    Raises:
        ImportError: if the package openai is not installed.
        ValueError: if an argument is out of its range, or the key cannot be had.
        TypeError: if extra_body holds what JSON does not have.
        RewardError: if the cache is damaged, or no cache.
    """

    model: str
    _: KW_ONLY
    base_url: str | None = None
    key: Key | None = None
    temperature: float | None = 0.0
    max_tokens: int | None = 1024
    extra_body: Mapping[str, Any] | None = None
    concurrency: int = 16
    timeout: float = 60.0
    retries: int = 5
    pause: float = 1.0
    prices: tuple[float, float] | None = None
    budget: float | None = None
    cache: str | PathLike[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self)
        openai()
        if self.base_url is None and self.key is None:
            self.key = "OPENAI_API_KEY"
        secret(self.key)
        self._file = None if self.cache is None else CacheFile(self.cache, f"judge {self.model}")

    @cached_property
    def usage(self) -> Usage:
        """What was asked and what it cost; a pickle of the judge begins at zero."""
        return Usage(self.prices)

    async def ask(self, questions: Sequence[Question]) -> list[float]:
        """Return the values of the model's answers; questions that come twice are asked once.

        All requests of a process run on the one loop of async rewards, whichever loop asks, so that connections
        are kept and the limit holds for all.

        Raises:
            RewardError: if one is not answered; the other answers so far are kept in the cache.
        """
        import asyncio

        loop, _ = background()
        if asyncio.get_running_loop() is loop:
            return await self._asked(questions)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._asked(questions), loop))

    async def _asked(self, questions: Sequence[Question]) -> list[float]:
        keys = [self._key_of(question) for question in questions]
        places: dict[str, int] = {}
        for i, key in enumerate(keys):
            places.setdefault(key, i)
        known = self._recalled({key: questions[i] for key, i in places.items()})
        unknown = [key for key in places if key not in known]
        self.usage.cached += len(keys) - len(unknown)
        with Writer(self._file) as writer:

            async def learn(key: str) -> None:
                known[key] = await self._answer(questions[places[key]])
                writer.put(key, known[key])

            await together(map(learn, unknown))
        return [known[key] for key in keys]

    async def _answer(self, question: Question) -> float:
        """Return the value of one answer, after as many attempts as it needs."""
        import asyncio

        client, slots = self._here()
        messages, why = question.messages, ""
        async with slots:
            for attempt in range(self.retries + 1):
                self._check_budget(question)
                answer = await self._send(client, messages)
                if isinstance(answer, Fault):
                    why = answer.reason
                    if not answer.passing:
                        break
                    if attempt < self.retries:
                        await asyncio.sleep(max(answer.pause, self._pause(question, attempt)))
                    continue
                problem = answer.problem
                if not problem:
                    try:
                        return question.read(answer.text)
                    except Unreadable as error:
                        problem = str(error)
                self.usage.unreadable += 1
                messages = [*question.messages, *ask_again(_end(answer.text, 2000), question.line, problem)]
                why = f"its last answer was {_end(answer.text)!r}: {problem}; try another model, or more max_tokens"
        tried = f" {attempt + 1} times" if attempt else ""
        raise RewardError(f"{self.model!r} was asked{tried} about {question.about}, and gave no verdict: {why}")

    async def _send(self, client: Any, messages: list[Message]) -> Answer | Fault:
        """Send one request; what comes back holds no exception, whose request would hold the key."""
        import asyncio

        key = secret(self.key)
        self.usage.requests += 1
        headers = {"Authorization": f"Bearer {key}" if key else openai().Omit()}
        try:
            async with asyncio.timeout(self.timeout):
                response = await client.chat.completions.create(
                    **self._request(messages), extra_body=self.extra_body, extra_headers=headers
                )
            reply = _reply(response, self.usage)
        except Exception as error:
            reply = _fault(error, self.timeout)
        if isinstance(reply, Answer):
            text = reply.text.encode(errors="replace").decode()  # half a character could not be sent back
            return Answer(_without(key, text), reply.problem)
        self.usage.faults += 1
        return replace(reply, reason=_without(key, reply.reason))

    def _key_of(self, question: Question) -> str:
        """Return a hash of a request as it is sent, by which the cache knows it."""
        sent = [self._request(question.messages), self.extra_body]
        return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()

    def _request(self, messages: list[Message]) -> dict[str, Any]:
        wanted = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in wanted.items() if value is not None}
        return {"model": self.model, "messages": messages, **given}

    def _pause(self, question: Question, attempt: int) -> float:
        """Return the seconds before a retry, partly by chance, so that many do not come back at once."""
        asked = hashlib.blake2b(question.line.encode(), digest_size=8).digest()
        share = np.random.default_rng([self.seed, int.from_bytes(asked), attempt]).uniform(0.5, 1.0)
        return float(share) * min(self.pause * 2.0**attempt, LONGEST_PAUSE)

    def _recalled(self, questions: Mapping[str, Question]) -> dict[str, float]:
        """Return what the cache knows of questions by their hashes."""
        known: dict[str, float] = {}
        if self._file is not None:
            for key, value in self._file.recall(list(questions)).items():
                low, high = questions[key].scale
                if value is None or not low <= value <= high:
                    raise RewardError(
                        f"{self._file.path} holds {value} for {questions[key].about}, which is not on the scale "
                        f"from {low:g} to {high:g}: something else wrote it; move the file away"
                    )
                known[key] = value
        return known

    def _here(self) -> tuple[Any, asyncio.Semaphore]:
        """Return the client and the places for requests of this process, which has its own loop after a fork."""
        import asyncio

        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            client = connect(self.base_url, self.timeout)
            self._by_loop[loop] = client, asyncio.Semaphore(self.concurrency)
            weakref.finalize(self, close, client, loop, os.getpid()).atexit = False
        return self._by_loop[loop]

    @cached_property
    def _by_loop(self) -> dict[asyncio.AbstractEventLoop, tuple[Any, asyncio.Semaphore]]:
        return {}

    def _check_budget(self, question: Question) -> None:
        cost = self.usage.cost
        if self.budget is None or cost is None:
            return
        if self.usage.uncounted:
            raise RewardError(
                f"the server of {self.model!r} does not say how many tokens it used, so budget={self.budget:g} "
                "cannot be kept; leave the budget out, or use a server that counts"
            )
        if cost >= self.budget:
            raise RewardError(
                f"the budget of {self.budget:g} for {self.model!r} is spent ({cost:g}, {self.usage.requests} "
                f"requests); the next question was about {question.about}; raise budget= to go on: with cache= "
                "nothing is asked and paid twice"
            )


def secret(key: Key | None) -> str:
    """Return the key itself, "" for None; no message shows it, nor what may be one.

    Raises:
        ValueError: if it cannot be had, or is no key.
    """
    if key is None:
        return ""
    if callable(key):
        found, where = key(), "what the function key= returned"
    elif isinstance(key, str):
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key):
            raise ValueError(
                'key= is the name of an environment variable, such as "OPENAI_API_KEY", a pathlib.Path or a '
                "function, never the key itself; what was given is not shown"
            )
        found, where = os.environ.get(key, ""), f"the environment variable {key}"
    else:
        found, where = Path(fspath(key)).read_text(encoding="utf-8"), f"the file {fspath(key)}"
    found = found.strip() if isinstance(found, str) else ""
    if not (found and found.isascii() and found.isprintable()):
        raise ValueError(
            f"{where} is not set, or holds no key of one line in ASCII (it is not shown); a server of your own "
            "that asks for none is named by base_url="
        )
    return found


def _check(model: ChatModel) -> None:
    """Refuse settings that are out of their range."""
    wholes = {
        "concurrency": (model.concurrency, 1),
        "retries": (model.retries, 0),
        "max_tokens": (model.max_tokens, 1),
    }
    for name, (value, least) in wholes.items():
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} is a whole number of at least {least}, got {value!r}")
    numbers = {
        "timeout": model.timeout,
        "pause": model.pause,
        "budget": model.budget,
        "temperature": model.temperature,
    }
    for name, number in numbers.items():
        if number is not None and not (is_finite(number) and number >= 0 and (number > 0 or name != "timeout")):
            raise ValueError(f"{name} is a finite number, at least 0 (a timeout more), got {number!r}")
    if model.prices is not None and not (
        len(model.prices) == 2 and all(is_finite(p) and p >= 0 for p in model.prices)
    ):
        raise ValueError(
            f"prices are (of prompt tokens, of completion tokens), a million of each, got {model.prices}"
        )
    if model.budget is not None and model.prices is None:
        raise ValueError(f"budget={model.budget} needs prices=, such as prices=(0.15, 0.6), to tell what is spent")
    if not (isinstance(model.model, str) and model.model) or first_surrogate(model.model) is not None:
        raise ValueError(f"model is its name on the server, got {model.model!r}")
    json.dumps(dict(model.extra_body or {}))  # now, so that what JSON does not have is told early
    if taken := {"messages", "model", "n", "stream"} & set(model.extra_body or {}):
        raise ValueError(f"extra_body cannot set {', '.join(sorted(taken))}: the judge does that itself")
    as_seed(model.seed)
    if model.base_url is not None and not _is_address(model.base_url):
        raise ValueError(
            'base_url is such as "http://localhost:8000/v1", without a name, password or query (a key goes into '
            "key=); what was given is not shown"
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        proper = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False
    return proper and url.isprintable() and not any(character in url for character in "@?# ")


def _reply(response: Any, usage: Usage) -> Answer | Fault:
    """Return what a response says; the client hands over what a server sent without checking it."""
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list) or not choices:
        return Fault(f"its response holds no choices: {str(response)[:200]!r}")
    usage.count(getattr(response, "usage", None))
    message, ended = getattr(choices[0], "message", None), getattr(choices[0], "finish_reason", None)
    said = [getattr(message, name, None) for name in ("content", "refusal")]
    text = next((text for text in said if text), "")
    if not isinstance(text, str):
        return Fault(f"its response holds no text: {str(response)[:200]!r}")
    problems = {"length": "it is cut off", "content_filter": "the server's filter stopped it"}
    return Answer(text, problems.get(ended, "") if isinstance(ended, str) else "")


def _fault(error: Exception, timeout: float) -> Fault:
    """Return what an exception of the client says."""
    client = openai()
    if isinstance(error, TimeoutError | client.APITimeoutError):
        return Fault(f"no answer within {timeout:g} seconds (timeout=)")
    if isinstance(error, client.APIStatusError):
        status, pause = error.status_code, _asked_pause(error.response.headers.get("retry-after"))
        reason = f"status {status}, {error.response.text!r:.400}"
        if pause > LONGEST_PAUSE:
            reason += f"; it asks to wait {pause:.0f} seconds, which is too long: ask again later"
        if place := error.response.headers.get("location", ""):
            reason += f"; it leads to {place!r:.300}, which is not followed: is that the base_url?"
        return Fault(reason, (status in _PASSING or status >= 500) and pause <= LONGEST_PAUSE, pause)
    if isinstance(error, client.APIConnectionError):
        return Fault(f"the connection failed: {error.__cause__!r:.300}")
    return Fault(f"its response cannot be read: {error!r:.300}")


def _asked_pause(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, a number or a date; 0 where it asks for nothing."""
    from email.utils import parsedate_to_datetime

    try:
        seconds = float(header or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(str(header)).timestamp() - time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _without(key: str, text: str) -> str:
    """Return a text without the key, which some servers repeat; one of less than 8 characters guards nothing."""
    return text.replace(key, "***") if len(key) >= 8 else text


def _end(text: str, most: int = 300) -> str:
    """Return the end of an answer, where the verdict would be."""
    return text if len(text) <= most else "..." + text[-most:]
