"""The client that asks a chat server: it goes nowhere else, and takes no more than an answer can be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .packages import missing

if TYPE_CHECKING:
    import asyncio

LARGEST = 2**23  # bytes of a response; a million tokens are less
_HEADERS = frozenset(
    "accept accept-encoding authorization connection content-length content-type host user-agent".split()
)


def openai() -> Any:
    """Return the package openai.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise missing("an AI judge", "openai", "judge") from error
    return openai


def connect(base_url: str | None, timeout: float) -> Any:
    """Return a client without a key; each request brings its own.

    It follows no redirect: texts would go where nobody said they may. Headers that the environment holds for
    OpenAI's server (an organization, a project, $OPENAI_CUSTOM_HEADERS) go to that which the environment names.
    """
    before = [] if base_url is None else [_say_no_more]
    return openai().AsyncOpenAI(
        api_key="none",
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        http_client=openai().DefaultAsyncHttpxClient(
            follow_redirects=False,
            timeout=timeout,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": before, "response": [_take]},
        ),
    )


def close(client: Any, loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Close a client on its loop; not in a fork, which shares its connections with the parent."""
    import asyncio

    if os.getpid() == process:
        asyncio.run_coroutine_threadsafe(client.close(), loop)


async def _say_no_more(request: Any) -> None:
    """Leave out the headers that no request of ours needs."""
    for name in list(request.headers):
        if name.lower() not in _HEADERS:
            del request.headers[name]


async def _take(response: Any) -> None:
    """Read a response's body, and stop where it could fill the memory: unpacked, little may become much.

    Raises:
        ValueError: if it is too large, or compressed.
    """
    encoding = response.headers.get("content-encoding", "")
    if encoding.lower() not in ("", "identity"):
        raise ValueError(f"its response is compressed ({encoding[:50]!r}), which was not asked for")
    body = bytearray()
    async for part in response.stream:
        body += part
        if len(body) > LARGEST:
            raise ValueError(f"its response is larger than {LARGEST:,} bytes")
    await response.stream.aclose()  # which frees the connection for the next request
    response.stream = type(response)(response.status_code, content=bytes(body)).stream
