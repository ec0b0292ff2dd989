"""What every request must be and every answer must say: host, origin, size, headers; who asks is not known here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from html import escape
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 16 * 1024  # the largest form has five short fields
LONGEST_WAIT = 30.0  # seconds for all of a body
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers would leave out the Origin that is checked below
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refusal(Exception):
    """A request that is answered without being looked at further."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """The outermost layer of the app.

    A form must come from a page of ours: its Origin, which browsers send with every POST and no script can change,
    names the host that was asked. Without TLS that host must be a name of loopback, or a foreign page could make
    its own name lead here. Bodies are read whole, up to a limit, before anything else is done.

    Args:
        app: what answers.
        tls: whether it is reached by https.
    """

    def __init__(self, app: ASGIApp, tls: bool = False) -> None:
        self.app, self.tls = app, tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            _check(Headers(scope=scope), scope["method"], self.tls)
            body = await _body(receive, Headers(scope=scope))
        except Refusal as refusal:
            return await _page(refusal)(scope, receive, send_with_headers)
        parts = _replay(body)

        async def replayed() -> Message:
            return next(parts, None) or await receive()

        await self.app(scope, replayed, send_with_headers)


def _check(headers: Headers, method: str, tls: bool) -> None:
    """Raise Refusal for a request that no page of ours makes."""
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise Refusal(400, "A request names the one host it is for.")
    name = hosts[0].rpartition(":")[0] if hosts[0].rpartition(":")[2].isdecimal() else hosts[0]
    if not tls and name.lower() not in _LOOPBACK:
        raise Refusal(421, f"This page is at http://127.0.0.1 or http://localhost, not at {name[:100]!r}.")
    origin = f"{'https' if tls else 'http'}://{hosts[0]}"
    if method not in ("GET", "HEAD") and headers.getlist("origin") != [origin]:
        raise Refusal(
            403, f"A form of another page was sent here (Origin is not {origin[:100]!r}); nothing was done."
        )


async def _body(receive: Receive, headers: Headers) -> bytes:
    """Return the body.

    Raises:
        Refusal: if it is too large or too slow; what is too large is not read to its end.
    """
    too_large = Refusal(413, f"What was sent is larger than {LARGEST_BODY:,} bytes; nothing was done.")
    announced = headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > LARGEST_BODY:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    raise too_large
                if not message.get("more_body"):
                    return body
    except TimeoutError:
        raise Refusal(408, f"What was sent did not arrive within {LONGEST_WAIT:.0f} seconds.") from None


def _replay(body: bytes) -> Iterator[Message]:
    yield {"type": "http.request", "body": body, "more_body": False}


def _page(refusal: Refusal) -> HTMLResponse:
    """Return a page that needs nothing else; the connection ends with it, for the body may not have been read."""
    title = f"{refusal.status} {HTTPStatus(refusal.status).phrase}"
    text = f"<!doctype html><html lang=en><title>{title}</title><h1>{title}</h1><p>{escape(refusal.reason)}</p>"
    return HTMLResponse(text, refusal.status, {"Connection": "close"})
