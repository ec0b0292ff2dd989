"""What annotators see: a pair to compare, and how far the work is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import RedirectResponse, Response

from ..leases import Lease, Outcome, Said
from ..sessions import Session
from .rooms import Asking, InRooms, Rooms, Sending

router = APIRouter()

_NOTICES: dict[Outcome, str] = {
    "kept": "",
    "not yours": "That pair was not shown to you here, so nothing was kept.",
    "answered before": "You are done with that pair already; nothing was changed.",
    "too late": "That took so long that others were given the pair; nothing was kept.",
}


@dataclass(frozen=True)
class Showing:
    """A leased pair as it stands on the page."""

    lease: Lease
    prompt: str
    texts: tuple[str, str]


@router.get("/")
def show(rooms: InRooms, session: Asking, skipped: bool = False) -> Response:
    """Show the pair that is leased to this browser."""
    return _compare(rooms, session, skipped)


@router.post("/answer")
def answer(
    rooms: InRooms,
    session: Sending,
    showing: Annotated[str, Form()],
    choice: Annotated[Said, Form()],
    skipped: Annotated[bool, Form()] = False,
) -> Response:
    """Keep an answer and go on to the next pair; what was not kept is said."""
    outcome = rooms.leases.answer(session, showing, choice, skipped)
    if outcome == "kept":
        return _go_on(skipped)
    return _compare(rooms, session, skipped, _NOTICES[outcome], 409)


@router.post("/back")
def back(rooms: InRooms, session: Sending, skipped: Annotated[bool, Form()] = False) -> Response:
    """Go back to the pair that was answered last."""
    rooms.leases.back(session)
    return _go_on(skipped)


@router.get("/progress")
def progress(rooms: InRooms, session: Asking) -> Response:
    """Show how far the work is, and how far annotators agree."""
    return rooms.page("progress.html.j2", session, {**_work(rooms, session), "wanted": rooms.leases.wanted})


def _go_on(skipped: bool) -> Response:
    return RedirectResponse("/?skipped=1" if skipped else "/", 303)


def _compare(rooms: Rooms, session: Session, skipped: bool, notice: str = "", status: int = 200) -> Response:
    lease = rooms.leases.current(session, skipped)
    values = {
        "notice": notice,
        "showing": None if lease is None else _showing(rooms, lease),
        "elsewhere": 0 if lease else rooms.leases.elsewhere(session),
        "can_go_back": rooms.leases.can_go_back(session),
        "skipped": skipped,
    }
    return rooms.page("compare.html.j2", session, {**_work(rooms, session), **values}, status)


def _work(rooms: Rooms, session: Session) -> dict[str, object]:
    """Return how far the work is, and how far annotators agree, for a template."""
    agreed = rooms.agreed.now()
    return {
        "mine": rooms.store.progress(session.account.name),
        "everybody": rooms.store.progress(),
        "agreed": agreed,
        "with_others": agreed.with_others.get(session.account.pseudonym),
    }


def _showing(rooms: Rooms, lease: Lease) -> Showing:
    pair = rooms.store.pair(lease.pair)
    pair = pair.swapped() if lease.swapped else pair
    return Showing(lease, pair.prompt, (pair.completion_a, pair.completion_b))
