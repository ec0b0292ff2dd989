"""Logging in and out."""

from __future__ import annotations

import math
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from ..attempts import TooManyAttempts
from .rooms import InRooms, Refused, Rooms, Sending

router = APIRouter()
_LONGEST_QUEUE = 100
_hashing = CapacityLimiter(2)  # a hash takes a core for a while, and 64 MiB: others wait without a thread


@router.get("/login")
def show(rooms: InRooms) -> Response:
    """Ask for name and password."""
    return _form(rooms)


@router.post("/login")
async def log_in(
    request: Request, rooms: InRooms, name: Annotated[str, Form()], password: Annotated[str, Form()]
) -> Response:
    """Let somebody in who has the right password, unless there were too many wrong ones."""
    address = request.client.host if request.client else ""
    if _hashing.statistics().tasks_waiting >= _LONGEST_QUEUE:
        raise Refused(503, "Too many people are at the door", "Try again in a moment.", {"Retry-After": "5"})
    try:
        await to_thread.run_sync(rooms.attempts.start, name, address)
    except TooManyAttempts as error:
        seconds = math.ceil(error.seconds)
        headers = {"Retry-After": str(seconds)}
        problem = f"Too many wrong logins. Wait {_duration(seconds)}; before that, no password is even looked at."
        return _form(rooms, name, problem, 429, headers)
    before = request.cookies.get(rooms.cookie, "")
    token = await to_thread.run_sync(_enter, rooms, name, password, address, before, limiter=_hashing)
    if token is None:
        return _form(rooms, name, "Name or password is wrong.", 401)
    response = RedirectResponse("/", 303)
    response.set_cookie(rooms.cookie, token, httponly=True, samesite="strict", secure=rooms.tls)
    return response


@router.post("/logout")
def log_out(rooms: InRooms, session: Sending) -> Response:
    """End a session, here and in the browser."""
    rooms.sessions.end(session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(rooms.cookie, httponly=True, samesite="strict", secure=rooms.tls)
    return response


def _enter(rooms: Rooms, name: str, password: str, address: str, before: str) -> str | None:
    """Return the token of a new session, None if the password is wrong."""
    account = rooms.accounts.verify(name, password)
    if account is None:
        return None
    rooms.attempts.succeeded(name, address)
    return rooms.sessions.begin(account, before)


def _form(
    rooms: Rooms, name: str = "", problem: str = "", status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return rooms.page("login.html.j2", None, {"name": name[:200], "problem": problem}, status, headers)


def _duration(seconds: int) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{seconds} second{'s' * (seconds > 1)}" if seconds < 60 else f"{minutes} minute{'s' * (minutes > 1)}"
