"""What admins see: who did what, where annotators disagree, and all of it as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from ..accounts import Account
from ..exchange import EXTRA, comparison_lines, rating_lines
from ..records import Choice, Pair
from ..store import Counts
from .rooms import Administering, InRooms, Refused, Rooms, SendingAdmin

router = APIRouter(prefix="/admin")
_ON_A_PAGE = 20
_LINES_AT_ONCE = 200


@dataclass(frozen=True)
class Row:
    """What there is to know about somebody who annotates."""

    counts: Counts
    account: Account | None
    browsers: int
    with_others: float | None


@dataclass(frozen=True)
class Disagreement:
    """A pair on which annotators disagree, and who chose what."""

    pair: Pair
    choices: list[tuple[str, Choice]]


@router.get("")
def show(rooms: InRooms, session: Administering, done: str = "") -> Response:
    """Show everybody's counts, and what can be done."""
    browsers, agreed = rooms.sessions.count(), rooms.agreed.now()
    accounts = {account.pseudonym: account for account in rooms.accounts.all()}
    rows = [
        Row(
            counts,
            accounts.get(counts.pseudonym),
            browsers.get(counts.name or "", 0),
            agreed.with_others.get(counts.pseudonym),
        )
        for counts in rooms.store.counts()
    ]
    values = {
        "notice": "All sessions of that account are ended." if done == "revoked" else "",
        "rows": rows,
        "everybody": rooms.store.progress(),
        "agreed": agreed,
        "wanted": rooms.leases.wanted,
        "extra": EXTRA,
    }
    return rooms.page("admin.html.j2", session, values)


@router.post("/revoke")
def revoke(rooms: InRooms, session: SendingAdmin, name: Annotated[str, Form()]) -> Response:
    """End all sessions of an account."""
    try:
        rooms.accounts.revoke(name, session.account)
    except ValueError as error:
        raise Refused(404, "There is no such account", "It was removed perhaps; nothing was done.") from error
    return RedirectResponse("/admin?done=revoked", 303)


@router.get("/disagreements")
def disagreements(
    rooms: InRooms,
    session: Administering,
    text: str = "",
    who: str = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Show the pairs on which annotators disagree, those with a text and an annotator if these are given."""
    names = {counts.pseudonym: counts.name or counts.pseudonym for counts in rooms.store.counts()}
    start = (page - 1) * _ON_A_PAGE
    found = list(islice(_found(rooms, names, text, who), start, start + _ON_A_PAGE + 1))
    values = {
        "text_wanted": text,
        "who": who,
        "names": names,
        "number": page,
        "found": found[:_ON_A_PAGE],
        "more": len(found) > _ON_A_PAGE,
    }
    return rooms.page("disagreements.html.j2", session, values)


@router.get("/export")
def export(
    rooms: InRooms,
    session: Administering,
    what: Literal["comparisons", "ratings"] = "comparisons",
    ties: bool = False,
    extra: Annotated[list[Literal["annotator", "when", "seconds", "policies"]], Query()] = [],  # noqa: B006
) -> Response:
    """Hand out all comparisons or ratings as a .jsonl file."""
    if what == "comparisons":
        lines = comparison_lines(rooms.store, extra=extra, ties=ties)
    else:
        lines = rating_lines(rooms.store, extra=extra)
    with rooms.store.database.transaction() as connection:
        rooms.store.log(connection, session.account.person, "export", what)
    headers = {"Content-Disposition": f'attachment; filename="{what}.jsonl"'}
    return StreamingResponse(_chunks(lines), media_type="application/jsonl", headers=headers)


def _found(rooms: Rooms, names: dict[str, str], text: str, who: str) -> Iterator[Disagreement]:
    wanted = text.casefold()
    for pair, choices in rooms.store.disagreements():
        texts = (pair.prompt, pair.completion_a, pair.completion_b)
        if (not who or who in choices) and any(wanted in part.casefold() for part in texts):
            named = sorted((names.get(pseudonym, pseudonym), choice) for pseudonym, choice in choices.items())
            yield Disagreement(pair, named)


def _chunks(lines: Iterator[str]) -> Iterator[str]:
    """Yield some lines at a time: each piece of an answer costs a change of threads."""
    while chunk := "".join(islice(lines, _LINES_AT_ONCE)):
        yield chunk
